package rootfs

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"

	"golang.org/x/sys/unix"

	"caisson/build/image/cpio"
)

// item is a file of a payload. One with several names comes once, when its
// content does.
type item struct {
	names []string // absolute and clean
	mode  uint32
	size  int64
	r     io.Reader
	// sha256 is what the header says of the content, in hex; empty where it has
	// an older digest.
	sha256 string
}

// check compares the digest of the content that was read with the header's.
func (it *item) check(sum []byte) error {
	if got := hex.EncodeToString(sum); it.sha256 != "" && got != it.sha256 {
		return fmt.Errorf("the payload has sha256:%s, the header says sha256:%s", got, it.sha256)
	}
	return nil
}

// walkPayload calls fn for every file of a package's payload, in its order.
// What the header does not name, or names as another type of file or of another
// size, is an error, and so is what it names and the payload lacks.
func (p *Package) walkPayload(payload io.Reader, fn func(item) error) error {
	byPath := make(map[string]*PackageFile, len(p.Files))
	for i := range p.Files {
		byPath[p.Files[i].Path] = &p.Files[i]
	}
	cr := cpio.NewReader(payload)
	cr.Stripped = p.stripped()
	seen := make(map[string]bool, len(p.Files))
	// The names of hard-linked files whose content is still to come, by
	// inode: an RPM has it with the last one.
	waiting := map[uint32]item{}
	for {
		h, err := cr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		name := path.Clean("/" + h.Name)
		f := byPath[name]
		if f == nil || f.Ghost || f.Mode&unix.S_IFMT != h.Mode&unix.S_IFMT {
			return fmt.Errorf("%q: %w", h.Name, errNotInHeader)
		}
		seen[name] = true
		it := item{names: []string{name}, mode: h.Mode, size: h.Size, r: cr, sha256: f.SHA256}
		if h.Mode&unix.S_IFMT == unix.S_IFREG && h.Nlink > 1 {
			it.names = append(waiting[h.Ino].names, name)
			if err := f.sameAs(byPath[it.names[0]]); err != nil {
				return fmt.Errorf("%q: %w", h.Name, err)
			}
			delete(waiting, h.Ino)
			if h.Size == 0 {
				waiting[h.Ino] = it
				continue
			}
		}
		if it.mode&unix.S_IFMT == unix.S_IFREG && it.size != f.Size {
			return fmt.Errorf("%q: the payload has %d bytes, the header says %d", h.Name, it.size, f.Size)
		}
		if err := fn(it); err != nil {
			return fmt.Errorf("%q: %w", h.Name, err)
		}
	}
	if err := p.all(seen); err != nil {
		return err
	}
	var empty []item // files of several names and no content
	for _, it := range waiting {
		if f := byPath[it.names[0]]; f.Size != 0 {
			return fmt.Errorf("%q: the payload has no content, the header says %d bytes", it.names[0], f.Size)
		}
		it.r = eof{}
		empty = append(empty, it)
	}
	slices.SortFunc(empty, func(a, b item) int { return slices.Compare(a.names, b.names) })
	for _, it := range empty {
		if err := fn(it); err != nil {
			return fmt.Errorf("%q: %w", it.names[0], err)
		}
	}
	return nil
}

// sameAs looks that the header has f and first, which the payload has as names of
// one file, with the same content.
func (f *PackageFile) sameAs(first *PackageFile) error {
	if first.SHA256 != f.SHA256 || first.Size != f.Size {
		return fmt.Errorf("the payload has it as another name of %q, the header as another file", first.Path)
	}
	return nil
}

// all looks that a payload had all that the header names and a payload has.
func (p *Package) all(seen map[string]bool) error {
	for i := range p.Files {
		if f := &p.Files[i]; !f.Ghost && !seen[f.Path] {
			return fmt.Errorf("%q: %w", f.Path, errNotInPayload)
		}
	}
	return nil
}

type eof struct{}

func (eof) Read([]byte) (int, error) { return 0, io.EOF }

// stripped makes the headers of a payload that leaves all to the RPM's header,
// as those with files of 4 GiB and more do: of the names of one file only the
// last has content.
func (p *Package) stripped() func(uint32) (*cpio.Header, error) {
	count, last := map[uint32]uint32{}, map[uint32]int{}
	for i := range p.Files {
		if f := &p.Files[i]; f.Mode&unix.S_IFMT == unix.S_IFREG && !f.Ghost {
			count[f.Ino]++
			last[f.Ino] = i
		}
	}
	return func(index uint32) (*cpio.Header, error) {
		if int64(index) >= int64(len(p.Files)) {
			return nil, fmt.Errorf("file %d of %d", index, len(p.Files))
		}
		f := &p.Files[index]
		h := &cpio.Header{Name: f.Path, Mode: f.Mode, Ino: f.Ino, Nlink: 1}
		switch f.Mode & unix.S_IFMT {
		case unix.S_IFLNK:
			h.Size = int64(len(f.Target))
		case unix.S_IFREG:
			h.Nlink = max(1, count[f.Ino])
			if h.Nlink == 1 || last[f.Ino] == int(index) {
				h.Size = f.Size
			}
		}
		return h, nil
	}
}

// Hashed tells whether the SHA-256 of every file of the payload is known.
func (p *Package) Hashed() bool {
	return !slices.ContainsFunc(p.Files, func(f PackageFile) bool {
		return f.SHA256 == "" && !f.Ghost && f.Mode&unix.S_IFMT == unix.S_IFREG
	})
}

// HashPayload reads the payload, at which r stands, and fills in the SHA-256
// of the files for which the header has an older digest: the payload is as
// much the vendor's word as the header is.
func (p *Package) HashPayload(r *bufio.Reader) error {
	payload, err := p.Payload(r)
	if err != nil {
		return err
	}
	defer payload.Close()
	index := map[string][]int{}
	for i, f := range p.Files {
		index[f.Path] = append(index[f.Path], i)
	}
	return p.walkPayload(payload, func(it item) error {
		if it.mode&unix.S_IFMT != unix.S_IFREG {
			return nil
		}
		h := sha256.New()
		if _, err := io.Copy(h, it.r); err != nil {
			return err
		}
		if err := it.check(h.Sum(nil)); err != nil {
			return err
		}
		sum := hex.EncodeToString(h.Sum(nil))
		for _, name := range it.names {
			for _, i := range index[name] {
				if p.Files[i].SHA256 == "" {
					p.Files[i].SHA256 = sum
				}
			}
		}
		return nil
	})
}
