package hermeto

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
)

// maxSBOM is the largest SBOM that is read, in bytes.
const maxSBOM = 256 << 20

// Document is an SBOM in one of the two formats; the other is nil.
type Document struct {
	BOM  *BOM
	SPDX *SPDX
}

// ReadDocument reads an SBOM that Hermeto or this package has written; of an
// SPDX document also others', whose fields that Hermeto does not have are
// dropped. name is how errors call it.
func ReadDocument(name string, b []byte) (Document, error) {
	var d Document
	if len(b) > maxSBOM {
		return d, fmt.Errorf("%s: more than the %d bytes that are read", name, maxSBOM)
	}
	var head struct {
		Format  string `json:"bomFormat"`
		Version string `json:"spdxVersion"`
	}
	if err := json.Unmarshal(b, &head); err != nil {
		return d, fmt.Errorf("%s: not an SBOM in JSON: %w", name, err)
	}
	var err error
	switch {
	case head.Format == "CycloneDX":
		d.BOM = new(BOM)
		dec := json.NewDecoder(bytes.NewReader(b))
		dec.DisallowUnknownFields() // they would be lost
		if err = dec.Decode(d.BOM); err == nil && dec.Decode(new(any)) != io.EOF {
			err = errors.New("more than one document")
		}
	case head.Version == "SPDX-2.3":
		d.SPDX = new(SPDX)
		err = json.Unmarshal(b, d.SPDX)
	default:
		err = errors.New(`want CycloneDX or SPDX-2.3`)
	}
	if err != nil {
		return Document{}, fmt.Errorf("%s: not an SBOM such as fetch-deps writes: %w", name, err)
	}
	return d, nil
}

// Merge makes one document of several. name is the SPDX document's, and epoch
// its time in seconds since 1970.
func Merge(all []Document, spdx bool, name string, epoch int64) (Document, error) {
	if len(all) < 2 {
		return Document{}, errors.New("want at least two SBOMs")
	}
	if spdx {
		d, err := mergeSPDX(all, name, epoch)
		return Document{SPDX: d}, err
	}
	out := &BOM{BOMFormat: "CycloneDX", SpecVersion: "1.6", Version: 1}
	for _, d := range all {
		b := d.BOM
		if b == nil {
			var err error
			if b, err = d.SPDX.CycloneDX(); err != nil {
				return Document{}, err
			}
		}
		out.Annotations = append(out.Annotations, b.Annotations...)
		out.Components = append(out.Components, b.Components...)
		out.Metadata.Tools = append(out.Metadata.Tools, b.Metadata.Tools...)
	}
	out.normalize()
	return Document{BOM: out}, nil
}

// mergeSPDX hangs the packages of all documents below the root of the first.
func mergeSPDX(all []Document, name string, epoch int64) (*SPDX, error) {
	var out *SPDX
	for _, d := range all {
		s := d.SPDX
		if s == nil {
			var err error
			if s, err = d.BOM.SPDX(name, epoch); err != nil {
				return nil, err
			}
		}
		if out == nil {
			first := *s
			out = &first
			continue
		}
		from, to := s.root(), out.root()
		for _, p := range s.Packages {
			if p.ID != from {
				out.Packages = append(out.Packages, p)
			}
		}
		for _, r := range s.Relationships {
			if r.Related == from && r.Type == "DESCRIBES" {
				continue
			}
			if r.Element == from {
				r.Element = to
			}
			out.Relationships = append(out.Relationships, r)
		}
		for _, c := range s.Creation.Creators {
			if !slices.Contains(out.Creation.Creators, c) {
				out.Creation.Creators = append(slices.Clip(out.Creation.Creators), c)
			}
		}
	}
	if name != "" {
		out.Name = name
	}
	out.Creation.Created = timestamp(epoch)
	out.normalize()
	return out, nil
}

// root is the package that the document describes.
func (d *SPDX) root() string {
	for _, r := range d.Relationships {
		if r.Element == d.ID && r.Type == "DESCRIBES" {
			return r.Related
		}
	}
	return d.ID
}

// Format is the document's text.
func (d Document) Format() ([]byte, error) {
	if d.SPDX != nil {
		return d.SPDX.Format()
	}
	return d.BOM.Format()
}
