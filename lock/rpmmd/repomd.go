package rpmmd

import (
	"fmt"
	"io"
	"strconv"
)

// Repomd is repomd.xml: what belongs to a repository.
type Repomd struct {
	Revision string
	Data     []Data
}

// Data is one file of a repository's metadata.
type Data struct {
	Type         string // "primary", "filelists", "group", "modules" …
	Location     string // path relative to the repository (the folder above repodata)
	Checksum     Checksum
	OpenChecksum Checksum // of the decompressed file; empty where it is not compressed
	Size         int64    // bytes; 0: not said
	OpenSize     int64    // bytes; 0: not said
}

// Find returns the entry of a type, or nil.
func (r *Repomd) Find(typ string) *Data {
	for i := range r.Data {
		if r.Data[i].Type == typ {
			return &r.Data[i]
		}
	}
	return nil
}

// ParseRepomd reads repomd.xml. An entry without type, location or checksum,
// a type that is there twice and a location that leaves the repository are
// errors.
func ParseRepomd(r io.Reader) (*Repomd, error) {
	z, err := Decompress(r, MaxRepomd)
	if err != nil {
		return nil, fmt.Errorf("repomd: %w", err)
	}
	defer z.Close()
	s := newScanner(z, "repomd")
	in := newInterner(s)
	if err := s.root("repomd"); err != nil {
		return nil, err
	}
	m := &Repomd{}
	err = s.children(func(name []byte) (err error) {
		switch string(name) {
		case "revision":
			m.Revision, err = in.text()
			return err
		case "data":
			d, err := parseData(s, in)
			if err != nil {
				return err
			}
			if m.Find(d.Type) != nil {
				return s.errorf("data %q is there twice", d.Type)
			}
			m.Data = append(m.Data, d)
			return nil
		}
		return s.skip()
	})
	if err != nil {
		return nil, err
	}
	return m, nil
}

func parseData(s *scanner, in *interner) (d Data, err error) {
	if d.Type, err = in.attr("type"); err != nil {
		return d, err
	}
	err = s.children(func(name []byte) (err error) {
		switch string(name) {
		case "checksum":
			d.Checksum, err = parseChecksum(s, in)
		case "open-checksum":
			d.OpenChecksum, err = parseChecksum(s, in)
		case "location":
			if d.Location, err = in.attr("href"); err != nil {
				return err
			}
			if base := s.attr("xml:base"); len(base) > 0 {
				return s.errorf("data %q lies outside of the repository, in %.80q", d.Type, base)
			}
			if err := checkHref(d.Location); err != nil {
				return s.errorf("data %q: %w", d.Type, err)
			}
			err = s.skip()
		case "size":
			d.Size, err = parseSize(s, in)
		case "open-size":
			d.OpenSize, err = parseSize(s, in)
		default:
			err = s.skip()
		}
		return err
	})
	if err == nil && (d.Type == "" || d.Location == "" || d.Checksum.Hex == "") {
		err = s.errorf("data %q: type, location or checksum is missing", d.Type)
	}
	return d, err
}

func parseChecksum(s *scanner, in *interner) (c Checksum, err error) {
	if c.Algorithm, err = in.attr("type"); err != nil {
		return c, err
	}
	if c.Hex, err = in.text(); err != nil {
		return c, err
	}
	if err := c.check(); err != nil {
		return c, s.errorf("%w", err)
	}
	return c, nil
}

func parseSize(s *scanner, in *interner) (int64, error) {
	text, err := in.text()
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return 0, s.errorf("size %.40q is not a number", text)
	}
	return n, nil
}
