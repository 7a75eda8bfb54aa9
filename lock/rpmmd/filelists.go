package rpmmd

import (
	"fmt"
	"io"
)

// ParseFilelists reads filelists.xml, compressed or not, and calls visit with
// each path of each package: its files, ghosts and directories. pkgID is the
// hexadecimal digest of the package file, as in Package.Checksum. path is
// valid during the call only. An error of visit stops the reading and is
// returned as it is.
func ParseFilelists(r io.Reader, visit func(pkgID string, path []byte) error) error {
	return parseFilelists(r, MaxFilelists, visit)
}

func parseFilelists(r io.Reader, limit int64, visit func(pkgID string, path []byte) error) error {
	z, err := Decompress(r, limit)
	if err != nil {
		return fmt.Errorf("filelists: %w", err)
	}
	z = readAhead(z)
	defer z.Close()
	s := newScanner(z, "filelists")
	in := newInterner(s)
	if err := s.root("filelists"); err != nil {
		return err
	}
	return s.children(func(name []byte) error {
		if string(name) != "package" {
			return s.skip()
		}
		id, err := in.checked(s.attr("pkgid"))
		if err != nil {
			return err
		}
		if id == "" {
			return s.errorf("a package without pkgid")
		}
		return s.children(func(name []byte) error {
			if string(name) != "file" {
				return s.skip()
			}
			path, err := s.text()
			if err != nil {
				return err
			}
			return visit(id, path)
		})
	})
}
