package rpmwrite

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"

	"github.com/klauspost/compress/zstd"
)

// payload is what the headers say about the payload and the files in it.
type payload struct {
	digest      string // SHA-256 of the compressed archive
	digestPlain string // of the archive
	size        int64  // of the compressed archive
	sizePlain   int64
	fileDigests []string // by file; empty for all but regular files
	inodes      []uint32 // by file, from 1
}

// counter counts and hashes what is written through it.
type counter struct {
	w io.Writer
	h hash.Hash
	n int64
}

func newCounter(w io.Writer) *counter { return &counter{w: w, h: sha256.New()} }

func (c *counter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.h.Write(b[:n])
	c.n += int64(n)
	return n, err
}

func (c *counter) sum() string { return hex.EncodeToString(c.h.Sum(nil)) }

// writePayload writes the compressed archive of files, which are sorted, to w.
func writePayload(w io.Writer, files []File) (*payload, error) {
	packed := newCounter(w)
	// One encoder goroutine: the bytes must not depend on the number of processors.
	enc, err := zstd.NewWriter(packed, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(4<<20))
	if err != nil {
		return nil, err
	}
	plain := newCounter(enc)
	p := &payload{fileDigests: make([]string, len(files)), inodes: make([]uint32, len(files))}
	if err := p.files(plain, files); err != nil {
		return nil, err
	}
	if err := cpioEntry(plain, cpioHeader{name: "TRAILER!!!", nlink: 1}, nil); err != nil {
		return nil, err
	}
	if err := enc.Close(); err != nil {
		return nil, err
	}
	p.digest, p.size = packed.sum(), packed.n
	p.digestPlain, p.sizePlain = plain.sum(), plain.n
	return p, nil
}

// files writes one entry a path, in order, but a set of hard links together where its last member is: rpm unpacks such a set in one go.
func (p *payload) files(w io.Writer, files []File) error {
	links := map[string][]int{} // the members of each set
	for i, f := range files {
		if f.HardLink != "" {
			links[f.HardLink] = append(links[f.HardLink], i)
		}
	}
	for i, f := range files {
		set := []int{i}
		if f.HardLink != "" {
			set = links[f.HardLink]
		}
		p.inodes[i] = uint32(set[0] + 1)
		if f.Flags&Ghost != 0 || set[len(set)-1] != i {
			continue
		}
		for n, j := range set {
			if err := p.file(w, files[j], set, n); err != nil {
				return fmt.Errorf("packing %s: %w", files[j].Path, err)
			}
		}
	}
	return nil
}

// file writes the entry of the nth of a set of hard links, which is mostly a set of one. All but the last are empty.
func (p *payload) file(w io.Writer, f File, set []int, n int) error {
	h := cpioHeader{name: "." + f.Path, ino: uint32(set[0] + 1), mode: f.Mode, nlink: uint32(len(set)), mtime: uint32(f.MTime.Unix())}
	switch f.Mode & TypeMask {
	case TypeLink:
		h.size = int64(len(f.Target))
		return cpioEntry(w, h, stringReader(f.Target))
	case TypeRegular:
	default:
		return cpioEntry(w, h, nil)
	}
	if n < len(set)-1 {
		return cpioEntry(w, h, nil)
	}
	r, err := f.Open()
	if err != nil {
		return fmt.Errorf("opening the content: %w", err)
	}
	h.size = f.Size
	sum := sha256.New()
	if err := cpioEntry(w, h, io.TeeReader(r, sum)); err != nil {
		return err
	}
	for _, j := range set {
		p.fileDigests[j] = hex.EncodeToString(sum.Sum(nil))
	}
	return nil
}
