package diff

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// Bounds of what is looked into, of both images together.
const (
	maxDepth  = 10       // of things in each other
	maxHeld   = 1 << 30  // bytes of one content
	maxWork   = 8 << 30  // bytes that are unpacked in all
	maxMemory = 64 << 20 // of it in memory, the rest in files without names
	maxStream = 64 << 30 // bytes of one content that are compared
)

// notFurther begins the comments on what was not looked into. It is never
// said of something that is the same: that its bytes differ is known.
const notFurther = "not looked into further: "

// NotCompared is what the nodes say was not looked into or left out, each with
// where that is.
func NotCompared(nodes []*Node) []string {
	var out []string
	for _, n := range nodes {
		for _, c := range n.Comments {
			if strings.Contains(c, strings.TrimSuffix(notFurther, ": ")) || strings.Contains(c, "not compared") || strings.HasSuffix(c, notShown) {
				out = append(out, n.Path()+": "+c)
			}
		}
		out = append(out, NotCompared(n.Details)...)
	}
	return out
}

// tooMuch is the error where a bound is met.
type tooMuch struct{ what string }

func (e *tooMuch) Error() string { return notFurther + e.what }

// Errors where as much was read as may be.
var (
	errWork  = &tooMuch{"enough has been unpacked"}
	errReads = &tooMuch{"enough has been read"}
)

// held is a content that can be read at any place.
type held struct {
	*io.SectionReader
	free func()
}

// spool takes bytes: the first into memory, and all into a file where they are
// many.
type spool struct {
	d    *differ
	buf  bytes.Buffer
	file *os.File
	size int64
}

func (s *spool) Write(p []byte) (int, error) {
	if s.size += int64(len(p)); s.size > s.d.held {
		return 0, &tooMuch{fmt.Sprintf("more than %d bytes", s.d.held)}
	}
	if s.file == nil && int64(len(p)) <= s.d.memory {
		s.d.memory -= int64(len(p))
		return s.buf.Write(p)
	}
	if s.file == nil {
		if err := s.toFile(); err != nil {
			return 0, err
		}
	}
	return s.file.Write(p)
}

// toFile moves what there is to a file.
func (s *spool) toFile() error {
	f, err := os.CreateTemp("", "caisson-diff-")
	if err != nil {
		return &tooMuch{err.Error()}
	}
	s.file = f
	if err := os.Remove(f.Name()); err != nil {
		return &tooMuch{err.Error()}
	}
	s.d.memory += int64(s.buf.Len())
	_, err = f.Write(s.buf.Bytes())
	s.buf = bytes.Buffer{}
	return err
}

func (s *spool) free() {
	if s.file != nil {
		s.file.Close()
	}
	s.d.memory += int64(s.buf.Len())
	s.file, s.buf = nil, bytes.Buffer{}
}

// hold reads to the end. What it returns has to be freed, and is there too,
// as far as it was read, where there is an error.
func (d *differ) hold(r io.Reader) (held, error) {
	s := &spool{d: d}
	_, err := io.Copy(s, d.metered(r))
	content := io.ReaderAt(bytes.NewReader(s.buf.Bytes()))
	size := int64(s.buf.Len())
	if s.file != nil {
		content, size = s.file, s.size
	}
	return held{io.NewSectionReader(content, 0, size), s.free}, err
}

// holdOpened is hold of what open gives.
func (d *differ) holdOpened(open func() (io.ReadCloser, error)) (held, error) {
	f, err := open()
	if err != nil {
		return held{io.NewSectionReader(bytes.NewReader(nil), 0, 0), func() {}}, err
	}
	defer f.Close()
	return d.hold(f)
}

// metered reads r as long as there is work left, and until the comparison is
// given up.
func (d *differ) metered(r io.Reader) io.Reader { return &meter{r, d} }

type meter struct {
	r io.Reader
	d *differ
}

func (m *meter) Read(p []byte) (int, error) {
	if err := m.d.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := m.r.Read(p)
	if m.d.work -= int64(n); m.d.work < 0 {
		return 0, errWork
	}
	return n, err
}

// streams shows how two files differ.
func (d *differ) streams(n *Node, at spot, openA, openB func() (io.ReadCloser, error)) {
	if n == nil {
		return
	}
	a, errA := d.holdOpened(openA)
	defer a.free()
	b, errB := d.holdOpened(openB)
	defer b.free()
	var much *tooMuch
	switch {
	case errA == nil && errB == nil:
		d.contents(n, at, a.SectionReader, b.SectionReader)
	case errors.As(errors.Join(errA, errB), &much):
		n.comment(much.Error())
		a.free()
		b.free()
		d.stream(n, openA, openB)
	default:
		d.failed(n, errA, errB)
		d.contents(n, at, a.SectionReader, b.SectionReader)
	}
}

// stream compares what is too long to be held, as bytes.
func (d *differ) stream(n *Node, openA, openB func() (io.ReadCloser, error)) {
	f, errA := openA()
	if errA == nil {
		defer f.Close()
	}
	g, errB := openB()
	if errB == nil {
		defer g.Close()
	}
	if errA != nil || errB != nil {
		d.failed(n, errA, errB)
		return
	}
	found, err := compareContent(io.LimitReader(f, maxStream), io.LimitReader(g, maxStream))
	if err != nil {
		n.comment(err.Error())
	}
	if found.sizeA == maxStream || found.sizeB == maxStream {
		n.comment(fmt.Sprintf("not compared behind byte %d", int64(maxStream)))
	}
	d.explain(n, found, 0)
}
