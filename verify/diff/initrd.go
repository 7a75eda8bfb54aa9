package diff

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"compress/gzip"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"

	"caisson/build/image/cpio"
	"caisson/lock/rpmmd/xz"
)

// Bounds of what is compressed.
const (
	maxUnpacked = 8 << 30  // bytes of an initrd
	maxWindow   = 64 << 20 // of a zstd frame, and a dictionary of xz
)

// initrd compares two initrds member by member. It says false where neither
// can be read, and where all members are the same.
func (d *differ) initrd(n *Node, at spot, openA, openB func() io.Reader) bool {
	part := ""
	if at.boot {
		part = "initrd"
	}
	return d.members(n, at, part, walkCPIO(openA), walkCPIO(openB))
}

// cpio compares archives that are not compressed, or only in part.
func (d *differ) cpio(n *Node, at spot, a, b *io.SectionReader) bool {
	return d.initrd(n, at, reopen(a), reopen(b))
}

// reopen gives a content from its beginning each time.
func reopen(r *io.SectionReader) func() io.Reader {
	return func() io.Reader { return io.NewSectionReader(r, 0, r.Size()) }
}

func walkCPIO(open func() io.Reader) walk {
	return func(fn func(m member, content io.Reader) error) error {
		return WalkInitrd(open(), func(h *cpio.Header, content io.Reader) error {
			e := entry{path: h.Name, mode: h.Mode, mtime: h.Mtime, size: h.Size, attrs: cpioAttrs(h)}
			return fn(member{entry: e, framing: fmt.Sprintf("inode %d", h.Ino)}, content)
		})
	}
}

func cpioAttrs(h *cpio.Header) []attr {
	list := []attr{
		{"type", typeName(h.Mode)}, {"mode", octal(h.Mode &^ typeMask)}, {"owner", fmt.Sprintf("%d:%d", h.UID, h.GID)},
		{"links", fmt.Sprint(h.Nlink)}, {"on device", fmt.Sprintf("%d:%d", h.DevMajor, h.DevMinor)},
	}
	if t := h.Mode & typeMask; t == typeChar || t == typeBlock {
		list = append(list, attr{"device", fmt.Sprintf("%d:%d", h.RdevMajor, h.RdevMinor)})
	}
	return list
}

// WalkInitrd calls fn for each member of an initrd: cpio archives one after
// the other, each as it is or compressed (Linux,
// Documentation/driver-api/early-userspace/buffer-format.rst).
func WalkInitrd(r io.Reader, fn func(h *cpio.Header, content io.Reader) error) error {
	return walkSegments(bufio.NewReaderSize(r, window), fn, false)
}

func walkSegments(r *bufio.Reader, fn func(h *cpio.Header, content io.Reader) error, unpacked bool) error {
	for {
		if err := skipZeros(r); err != nil {
			return notEnd(err)
		}
		head, err := r.Peek(6)
		if err != nil && err != io.EOF {
			return err
		}
		if bytes.HasPrefix(head, []byte("07070")) {
			if err := walkArchive(cpio.NewReader(r), fn); err != nil {
				return err
			}
			continue
		}
		if unpacked {
			return fmt.Errorf("%x is not the beginning of a cpio archive", head)
		}
		in, stop, err := unpack(r)
		if err != nil {
			return err
		}
		err = walkSegments(bufio.NewReaderSize(io.LimitReader(in, maxUnpacked), window), fn, true)
		stop()
		return err
	}
}

func skipZeros(r *bufio.Reader) error {
	for {
		c, err := r.ReadByte()
		if err != nil {
			return err
		}
		if c != 0 {
			return r.UnreadByte()
		}
	}
}

func walkArchive(r *cpio.Reader, fn func(h *cpio.Header, content io.Reader) error) error {
	for {
		h, err := r.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := fn(h, r); err != nil {
			return err
		}
	}
}

// unpack returns a reader of what is compressed, known by how it begins.
func unpack(r *bufio.Reader) (in io.Reader, stop func(), err error) {
	head, err := r.Peek(10)
	if err != nil && err != io.EOF {
		return nil, nil, err
	}
	stop, err = func() {}, nil
	switch compression(head) {
	case "zstd":
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, nil, err
		}
		return z, z.Close, nil
	case "gzip":
		in, err = gzip.NewReader(r)
	case "xz":
		in = xz.NewReader(r, maxWindow)
	case "bzip2":
		in = bzip2.NewReader(r)
	case "lz4":
		in = lz4.NewReader(r)
	default:
		err = errors.New("neither a cpio archive nor compressed with zstd, gzip, xz, bzip2 or lz4")
	}
	return in, stop, err
}

// packed compares what is compressed: headers, and what is in it.
func (d *differ) packed(n *Node, at spot, a, b *io.SectionReader) bool {
	openA, openB := unpacked(a), unpacked(b)
	if startsCPIO(openA) && startsCPIO(openB) {
		return d.initrd(n, at, reopen(a), reopen(b))
	}
	x, errA := d.holdOpened(openA)
	defer x.free()
	y, errB := d.holdOpened(openB)
	defer y.free()
	d.failed(n, errA, errB)
	d.gzipHeaders(n, a, b)
	var much *tooMuch
	if x.Size() == 0 && y.Size() == 0 || errors.As(errors.Join(errA, errB), &much) {
		return n.UnifiedDiff != nil
	}
	c := d.child(n, at.below("unpacked").path)
	d.contents(c, at.below("unpacked"), x.SectionReader, y.SectionReader)
	if c == nil || c.said() {
		return true
	}
	n.Details = n.Details[:len(n.Details)-1]
	if errA != nil || errB != nil {
		return false
	}
	n.comment("what is compressed is the same")
	return n.UnifiedDiff != nil
}

// unpacked opens what is compressed.
func unpacked(r *io.SectionReader) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) {
		in, stop, err := unpack(bufio.NewReaderSize(reopen(r)(), window))
		if err != nil {
			return nil, err
		}
		return stopped{in, stop}, nil
	}
}

// stopped is a reader that has to be told when it is not read any more.
type stopped struct {
	io.Reader
	stop func()
}

func (s stopped) Close() error {
	s.stop()
	return nil
}

// startsCPIO tells whether what is compressed is an initrd.
func startsCPIO(open func() (io.ReadCloser, error)) bool {
	r, err := open()
	if err != nil {
		return false
	}
	defer r.Close()
	b := make([]byte, 5)
	_, err = io.ReadFull(r, b)
	return err == nil && string(b) == "07070"
}

// gzipHeaders shows what the headers of gzip say otherwise (RFC 1952, section
// 2.3).
func (d *differ) gzipHeaders(n *Node, a, b *io.SectionReader) {
	x, errA := gzip.NewReader(reopen(a)())
	y, errB := gzip.NewReader(reopen(b)())
	if errA != nil || errB != nil {
		return
	}
	lines := func(z *gzip.Reader) []string {
		mtime := int64(0)
		if !z.ModTime.IsZero() {
			mtime = z.ModTime.Unix()
		}
		return []string{
			"name: " + fmt.Sprintf("%q", z.Name) + "\n", "comment: " + fmt.Sprintf("%q", z.Comment) + "\n",
			"modified: " + timeText(mtime) + "\n", fmt.Sprintf("system: %d\n", z.OS), fmt.Sprintf("extra: %x\n", z.Extra),
		}
	}
	d.text(n, lines(x), lines(y), 1)
}
