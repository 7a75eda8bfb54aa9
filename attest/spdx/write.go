package spdx

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"slices"

	"github.com/spdx/tools-golang/spdx/v2/common"
	"github.com/spdx/tools-golang/spdx/v2/v2_3"

	"caisson/build"
)

// Write writes the document as one line of JSON.
func (d *Document) Write(out io.Writer) error {
	bw := bufio.NewWriterSize(out, 64<<10)
	if err := d.write(&encoder{w: bw}); err != nil {
		return fmt.Errorf("writing the SPDX document: %w", err)
	}
	if err := bw.Flush(); err != nil {
		return fmt.Errorf("writing the SPDX document: %w", err)
	}
	return nil
}

func (d *Document) write(e *encoder) error {
	b, err := e.text(&d.head)
	if err != nil {
		return err
	}
	if _, err := e.w.Write(bytes.TrimSuffix(b, []byte("}"))); err != nil {
		return err
	}
	if err := writeList(e, "packages", slices.Values(d.packages)); err != nil {
		return err
	}
	if err := writeList(e, "files", d.allFiles()); err != nil {
		return err
	}
	if err := writeList(e, "hasExtractedLicensingInfos", slices.Values(d.licenses)); err != nil {
		return err
	}
	if err := writeList(e, "relationships", d.allRelationships()); err != nil {
		return err
	}
	_, err = io.WriteString(e.w, "}")
	return err
}

// allFiles are the files as SPDX has them, one at a time.
func (d *Document) allFiles() iter.Seq[*v2_3.File] {
	return func(yield func(*v2_3.File) bool) {
		for _, f := range d.files {
			if !yield(file(f)) {
				return
			}
		}
	}
}

// allRelationships are those of the packages, then those of the files.
func (d *Document) allRelationships() iter.Seq[*v2_3.Relationship] {
	return func(yield func(*v2_3.Relationship) bool) {
		for _, r := range d.relationships {
			if !yield(r) {
				return
			}
		}
		for _, f := range d.files {
			for _, r := range d.relations(f) {
				if !yield(r) {
					return
				}
			}
		}
	}
}

// relations say whose a file is, and what it was made of.
func (d *Document) relations(f *build.File) []*v2_3.Relationship {
	id := fileID(f)
	var out []*v2_3.Relationship
	if f.Account != build.Vendor {
		out = append(out, relationship(imageID, common.TypeRelationshipContains, id, ""))
		if len(f.Inputs) == 0 {
			return append(out, relationship(id, "GENERATED_FROM", lockID, ""))
		}
	}
	var seen []common.ElementID
	for _, in := range f.Inputs {
		p := d.byInput[in]
		switch {
		case slices.Contains(seen, p): // a module, and its go.mod
		case f.Account == build.Vendor:
			out = append(out, relationship(p, common.TypeRelationshipContains, id, ""))
		default:
			out = append(out, relationship(id, "GENERATED_FROM", p, ""))
		}
		seen = append(seen, p)
	}
	return out
}

func relationship(a common.ElementID, kind string, b common.ElementID, comment string) *v2_3.Relationship {
	return &v2_3.Relationship{
		RefA:                common.DocElementID{ElementRefID: a},
		RefB:                common.DocElementID{ElementRefID: b},
		Relationship:        kind,
		RelationshipComment: comment,
	}
}

func (w *writer) relate(a common.ElementID, kind string, b common.ElementID, comment string) {
	w.doc.relationships = append(w.doc.relationships, relationship(a, kind, b, comment))
}

// encoder writes JSON values one after another.
type encoder struct {
	w   io.Writer
	buf bytes.Buffer
}

// text is a value's JSON, until the next call.
func (e *encoder) text(v any) ([]byte, error) {
	e.buf.Reset()
	enc := json.NewEncoder(&e.buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(e.buf.Bytes(), []byte("\n")), nil
}

// writeList writes a member of the document; one that is empty is left out.
func writeList[E any](e *encoder, name string, list iter.Seq[*E]) error {
	first := true
	for v := range list {
		lead := ","
		if first {
			lead, first = `,"`+name+`":[`, false
		}
		if _, err := io.WriteString(e.w, lead); err != nil {
			return err
		}
		b, err := e.text(v)
		if err != nil {
			return err
		}
		if _, err := e.w.Write(b); err != nil {
			return err
		}
	}
	if first {
		return nil
	}
	_, err := io.WriteString(e.w, "]")
	return err
}
