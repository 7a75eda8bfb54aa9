package diff

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"caisson/build/image/cpio"
)

// Bounds of an initrd; real ones are far below.
const (
	maxMembers  = 1 << 18
	maxNames    = 64 << 20 // bytes of all names and targets
	maxUnpacked = 8 << 30  // bytes
	maxWindow   = 64 << 20 // of a zstd frame
	maxWanted   = 100      // members whose content is shown
)

// member is a file of an initrd. Its content is known by its digests, whole
// and by windows.
type member struct {
	entry
	ino   uint32
	sum   [sha256.Size]byte
	parts [][16]byte
}

// archive is what could be read of an initrd.
type archive struct {
	order  []string
	byPath map[string]*member
	err    error // where reading ended early
}

// ended is err with the place where reading ended.
func (a archive) ended() error {
	if a.err == nil || len(a.order) == 0 {
		return a.err
	}
	return fmt.Errorf("the initrd is damaged behind %s, and the rest of it not compared: %w", a.order[len(a.order)-1], a.err)
}

// initrd compares two initrds member by member. It says false where neither
// can be read.
func (d *differ) initrd(n *Node, path string, openA, openB func() io.Reader) bool {
	if n == nil {
		return true
	}
	a, b := readArchive(openA()), readArchive(openB())
	if len(a.order) == 0 && len(b.order) == 0 {
		d.failed(n, a.err, b.err)
		return false
	}
	c := &comparison{differ: d, part: "initrd", prefix: path + " → ", a: a.tree(), b: b.tree(), timed: true}
	c.shift = commonShift(c.a, c.b)
	if c.shift != nil {
		n.comment(fmt.Sprintf("the times of all members differ alike: %s and %s", timeText(c.shift[0]), timeText(c.shift[1])))
	}
	var wanted []wanted
	for _, p := range slices.Sorted(maps.Keys(union(c.a.byPath, c.b.byPath))) {
		x, y := a.byPath[p], b.byPath[p]
		switch {
		case x != nil && y != nil:
			wanted = append(wanted, c.member(n, x, y)...)
		case x != nil && b.err == nil:
			c.single(n, &x.entry, true)
		case y != nil && a.err == nil:
			c.single(n, &y.entry, false)
		}
	}
	d.wanted(wanted, openA, openB)
	d.failed(n, a.ended(), b.ended())
	if len(n.Details) > 0 || c.shift != nil {
		return true
	}
	if a.err == nil && b.err == nil {
		n.comment(sameMembers(a, b))
	}
	return false
}

// sameMembers says how archives differ whose members do not.
func sameMembers(a, b archive) string {
	if !slices.Equal(a.order, b.order) {
		return "the members are the same, in another order"
	}
	for p, x := range a.byPath {
		if x.ino != b.byPath[p].ino {
			return "the members are the same, their inode numbers are not"
		}
	}
	return "the members are the same, what is around them is not: padding, or the compression"
}

// wanted is content to show, and the node for it.
type wanted struct {
	n    *Node
	path string
	part int64 // the window in which the first difference is
	a, b *member
}

// member compares a member that both have.
func (c *comparison) member(parent *Node, x, y *member) []wanted {
	mtime := x.mtime != y.mtime && c.shift == nil
	attrs := mtime || !slices.Equal(x.attrs, y.attrs)
	content := x.sum != y.sum && x.mode&typeMask == typeRegular && y.mode&typeMask == typeRegular
	if !attrs && !content {
		return nil
	}
	n := c.child(parent, c.prefix+x.path)
	if n == nil {
		return nil
	}
	c.owner(n, c.part, x.path)
	if attrs {
		c.text(n, x.lines(mtime), y.lines(mtime), 1)
	}
	if !content {
		return nil
	}
	part := 0
	for part < len(x.parts) && part < len(y.parts) && x.parts[part] == y.parts[part] {
		part++
	}
	if attrs {
		n = c.child(n, c.prefix+x.path+" (content)")
	}
	return []wanted{{n: n, path: x.path, part: int64(part), a: x, b: y}}
}

// wanted reads both archives again, and shows the contents that differ.
func (d *differ) wanted(list []wanted, openA, openB func() io.Reader) {
	for _, w := range list[min(len(list), maxWanted):] {
		w.n.comment("the content differs")
	}
	list = list[:min(len(list), maxWanted)]
	if len(list) == 0 {
		return
	}
	a, b := windows(openA(), list), windows(openB(), list)
	for _, w := range list {
		c := blob{sizeA: w.a.size, sizeB: w.b.size, at: w.part * window, a: a[w.path], b: b[w.path], count: -1}
		both := min(len(c.a), len(c.b))
		first := both
		for i := both - 1; i >= 0; i-- {
			if c.a[i] != c.b[i] {
				first = i
			}
		}
		if first == both && c.sizeA != c.sizeB {
			c.count = 0
		}
		c.first = c.at + int64(first)
		d.explain(w.n, c, 0)
	}
}

// windows reads the windows that are wanted, as far as the archive goes.
func windows(r io.Reader, list []wanted) map[string][]byte {
	at := map[string]int64{}
	for _, w := range list {
		at[w.path] = w.part
	}
	out := map[string][]byte{}
	names := map[string]int{}
	err := WalkInitrd(r, func(h *cpio.Header, content io.Reader) error {
		p := unique(names, h.Name)
		part, ok := at[p]
		if !ok {
			return nil
		}
		if _, err := io.CopyN(io.Discard, content, part*window); err != nil {
			return notEnd(err)
		}
		b := make([]byte, window)
		n, err := io.ReadFull(content, b)
		out[p] = b[:n]
		return notEnd(err)
	})
	if err != nil {
		return out // what ended the first reading ends this one
	}
	return out
}

// unique is the path of a member: one that comes again has a number.
func unique(seen map[string]int, name string) string {
	p := absolute(name)
	if p == "/." {
		p = "/"
	}
	if seen[p]++; seen[p] > 1 {
		return fmt.Sprintf("%s (%d)", p, seen[p])
	}
	return p
}

func readArchive(r io.Reader) archive {
	a := archive{byPath: map[string]*member{}}
	names, held := map[string]int{}, 0
	a.err = WalkInitrd(r, func(h *cpio.Header, content io.Reader) error {
		if held += len(h.Name); held > maxNames || len(a.order) >= maxMembers {
			return fmt.Errorf("more than %d members or %d bytes of names", maxMembers, maxNames)
		}
		m := &member{ino: h.Ino, entry: entry{path: unique(names, h.Name), mode: h.Mode, mtime: h.Mtime, size: h.Size}}
		m.attrs = cpioAttrs(h)
		if err := m.read(content); err != nil {
			return err
		}
		a.order = append(a.order, m.path)
		a.byPath[m.path] = m
		return nil
	})
	return a
}

// read digests the content, and keeps the target of a symbolic link.
func (m *member) read(r io.Reader) error {
	whole := sha256.New()
	b := make([]byte, window)
	for {
		n, err := io.ReadFull(r, b)
		if n > 0 {
			if m.mode&typeMask == typeSymlink && len(m.parts) == 0 {
				m.attrs = append(m.attrs, attr{"target", cut(oneLine(string(b[:n])), page)})
			}
			whole.Write(b[:n])
			part := sha256.Sum256(b[:n])
			m.parts = append(m.parts, [16]byte(part[:]))
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			m.sum = [sha256.Size]byte(whole.Sum(nil))
			return nil
		}
		if err != nil {
			return err
		}
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

// tree is the archive as a tree without contents.
func (a archive) tree() *tree {
	t := newTree()
	for _, p := range a.order {
		t.add(&a.byPath[p].entry)
	}
	return t
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
		in, stop, err := unpack(head, r)
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
func unpack(head []byte, r *bufio.Reader) (in io.Reader, stop func(), err error) {
	switch {
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, nil, err
		}
		return z, z.Close, nil
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		in, err = gzip.NewReader(r)
	case bytes.HasPrefix(head, []byte("\xfd7zXZ\x00")):
		if err = checkXz(r); err == nil {
			in, err = xz.ReaderConfig{DictCap: page}.NewReader(r)
		}
	default:
		err = errors.New("neither a cpio archive nor compressed with zstd, gzip or xz")
	}
	return in, func() {}, err
}

// checkXz refuses a stream whose first block has a dictionary that is too
// large to be held (The .xz File Format 1.2.0, sections 3.1 and 5.3.1).
func checkXz(r *bufio.Reader) error {
	b, err := r.Peek(48)
	if err != nil && err != io.EOF {
		return err
	}
	if len(b) < 20 || b[12] == 0 { // no block
		return nil
	}
	flags, at := b[13], 14
	skip := func() { // a number of variable length
		for at < len(b) && b[at]&0x80 != 0 {
			at++
		}
		at++
	}
	for _, present := range []byte{0x40, 0x80} { // compressed and uncompressed size
		if flags&present != 0 {
			skip()
		}
	}
	if at+3 > len(b) || b[at] != 0x21 {
		return errors.New("xz: the first filter is not LZMA2")
	}
	if bits := b[at+2]; bits > 40 || int64(2|bits&1)<<(bits/2+11) > maxWindow {
		return fmt.Errorf("xz: the dictionary has more than %d bytes", maxWindow)
	}
	return nil
}
