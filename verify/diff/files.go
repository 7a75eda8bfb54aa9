package diff

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"sort"
	"strings"
)

// recorder remembers what was read, so that it is known which bytes of a file
// system say what. While it is dry it reads nothing and only remembers.
type recorder struct {
	r    io.ReaderAt
	size int64
	dry  bool
	done bool // nothing is remembered any more
	read []span
}

func (r *recorder) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off >= r.size {
		return 0, io.EOF
	}
	if r.done {
		return r.r.ReadAt(p, off)
	}
	if !r.dry {
		n, err := r.r.ReadAt(p, off)
		r.read = append(r.read, span{off, off + int64(n)})
		return n, err
	}
	n := int(min(int64(len(p)), r.size-off))
	r.read = append(r.read, span{off, off + int64(n)})
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// take returns what was read since it was called last.
func (r *recorder) take() []span {
	read := r.read
	r.read = nil
	return read
}

// place returns where the content lies that open gives.
func (r *recorder) place(open func() (io.ReadCloser, error)) spans {
	f, err := open()
	if err != nil {
		return nil
	}
	defer f.Close()
	r.take()
	r.dry = true
	defer func() { r.dry = false }()
	if _, err := io.Copy(io.Discard, f); err != nil {
		r.take()
		return nil
	}
	return normalise(r.take())
}

// entry is a file of a file system.
type entry struct {
	path  string // with a slash in front
	mode  uint32
	attrs []attr
	mtime int64
	size  int64
	// open is nil where there is no content: no regular file, or another
	// name of one.
	open func() (io.ReadCloser, error)
	meta spans // where it is described
	data spans // where its content lies
}

// attr is something that is said of a file, in words.
type attr struct{ name, value string }

func (e *entry) lines(mtime bool) []string {
	out := make([]string, 0, len(e.attrs)+1)
	for _, a := range e.attrs {
		out = append(out, a.name+": "+a.value+"\n")
	}
	if mtime {
		out = append(out, "modified: "+timeText(e.mtime)+"\n")
	}
	return out
}

// tree is what could be read of a file system.
type tree struct {
	entries []*entry
	byPath  map[string]*entry
	err     error // where reading ended early
	places  []named
	regions []named                                // what belongs to no file and has a name
	inode   func(off int64) (start int64, ok bool) // nil where inodes have no places of their own
	owners  owners                                 // nil until they are wanted
}

// named is a span and what lies in it.
type named struct {
	span
	path string
	meta bool
}

func newTree() *tree { return &tree{byPath: map[string]*entry{}} }

func (t *tree) add(e *entry) {
	t.entries = append(t.entries, e)
	t.byPath[e.path] = e
}

// index makes it known what lies where.
func (t *tree) index() {
	for _, e := range t.entries {
		for _, s := range e.meta {
			t.places = append(t.places, named{s, e.path, true})
		}
		for _, s := range e.data {
			t.places = append(t.places, named{s, e.path, false})
		}
	}
	slices.SortStableFunc(t.places, func(a, b named) int { return cmp.Compare(a.off, b.off) })
}

// at says what lies at an offset.
func (t *tree) at(off int64) string {
	i := sort.Search(len(t.places), func(i int) bool { return t.places[i].off > off })
	// Spans of what several entries share overlap, but only nearly.
	for j := i - 1; j >= max(0, i-8); j-- {
		if p := t.places[j]; off < p.end {
			if p.meta {
				return "the inode or the folder of " + p.path
			}
			return "the content of " + p.path
		}
	}
	return ""
}

// all is all that was read for entries.
func (t *tree) all() spans {
	list := make([]span, 0, len(t.places))
	for _, p := range t.places {
		list = append(list, p.span)
	}
	return normalise(list)
}

// comparison is that of two trees.
type comparison struct {
	*differ
	spot      spot   // of the tree
	measured  string // where what belongs to no file is measured
	prefix    string // of the paths of nodes
	a, b      *tree
	changed   spans
	explained []span // that nodes have been made for
	shift     *[2]int64
	timed     bool // the files' times are known
}

// sameLayout tells whether every entry of both trees lies at the same place.
func (c *comparison) sameLayout() bool {
	return slices.EqualFunc(c.a.places, c.b.places, func(x, y named) bool { return x == y })
}

// trees makes a node below n for each entry that differs.
func (c *comparison) trees(n *Node) {
	c.shift = commonShift(c.a, c.b)
	if c.shift != nil {
		n.comment(fmt.Sprintf("the times of all files differ alike: %s and %s", timeText(c.shift[0]), timeText(c.shift[1])))
	}
	paths := slices.SortedFunc(maps.Keys(union(c.a.byPath, c.b.byPath)), func(x, y string) int {
		return cmp.Compare(strings.ReplaceAll(x, "/", "\x00"), strings.ReplaceAll(y, "/", "\x00"))
	})
	for _, p := range paths {
		x, y := c.a.byPath[p], c.b.byPath[p]
		switch {
		case x == nil || y == nil:
			c.single(n, cmp.Or(x, y), y == nil)
		default:
			c.both(n, x, y)
		}
	}
}

func union(a, b map[string]*entry) map[string]*entry {
	all := maps.Clone(a)
	maps.Copy(all, b)
	return all
}

// commonShift is the one pair of times by which many entries differ, nil
// where there is none.
func commonShift(a, b *tree) *[2]int64 {
	const many = 4
	seen := 0
	var shift [2]int64
	for _, x := range a.entries {
		y := b.byPath[x.path]
		if y == nil || x.mtime == y.mtime {
			continue
		}
		if pair := [2]int64{x.mtime, y.mtime}; seen == 0 {
			shift = pair
		} else if pair != shift {
			return nil
		}
		seen++
	}
	if seen < many {
		return nil
	}
	return &shift
}

// single shows an entry that one side has.
func (c *comparison) single(parent *Node, e *entry, first bool) {
	n := c.only(parent, c.prefix+e.path, first)
	c.owner(n, e.path)
	c.explained = append(append(c.explained, e.meta...), e.data...)
	if n == nil {
		return
	}
	lines := e.lines(c.timed)
	if e.mode&typeMask == typeRegular {
		lines = append(lines, fmt.Sprintf("size: %d\n", e.size))
	}
	if first {
		c.text(n, lines, nil, 1)
	} else {
		c.text(n, nil, lines, 1)
	}
}

// both compares an entry that both sides have.
func (c *comparison) both(parent *Node, x, y *entry) {
	mtime := x.mtime != y.mtime && c.shift == nil
	attrs := mtime || !slices.Equal(x.attrs, y.attrs)
	content := c.contentDiffers(x, y)
	if !attrs && !content {
		return
	}
	c.explained = append(append(append(c.explained, x.meta...), y.meta...), append(x.data, y.data...)...)
	n := c.child(parent, c.prefix+x.path)
	if n == nil {
		return
	}
	c.owner(n, x.path)
	if attrs {
		at := n
		if content {
			at = c.child(n, c.prefix+x.path+" (attributes)")
		}
		c.text(at, x.lines(mtime), y.lines(mtime), 1)
	}
	if content {
		c.content(n, x, y)
	}
}

// contentDiffers tells whether the contents of two entries differ, without
// reading them where they lie at the same place.
func (c *comparison) contentDiffers(x, y *entry) bool {
	if x.open == nil || y.open == nil {
		return false // their kinds differ, or what they are names of is compared
	}
	if x.size != y.size {
		return true
	}
	if x.data != nil && slices.Equal(x.data, y.data) {
		return c.changed.touchesAny(x.data)
	}
	differ, err := c.differs(x, y)
	return err != nil || differ
}

// differs reads two contents until one differs from the other.
func (d *differ) differs(x, y *entry) (bool, error) {
	f, err := x.open()
	if err != nil {
		return false, err
	}
	defer f.Close()
	g, err := y.open()
	if err != nil {
		return false, err
	}
	defer g.Close()
	p, q := make([]byte, window), make([]byte, window)
	for {
		n, errF := io.ReadFull(f, p)
		m, errG := io.ReadFull(g, q)
		d.reads -= int64(n) + int64(m)
		switch {
		case d.reads < 0:
			return false, errReads
		case d.ctx.Err() != nil:
			return false, d.ctx.Err()
		case notEnd(errF) != nil || notEnd(errG) != nil:
			return false, cmp.Or(notEnd(errF), notEnd(errG))
		case !bytes.Equal(p[:n], q[:m]):
			return true, nil
		case n < len(p):
			return false, nil
		}
	}
}

// content shows how the contents of two entries differ.
func (c *comparison) content(n *Node, x, y *entry) {
	if c.spot.boot && !startsMZ(x) && !startsMZ(y) {
		n.comment("in no PCR, unless the firmware or a boot loader measures the file")
	}
	if c.reads < 0 {
		n.comment(errReads.Error() + "; whether the content differs is not known")
		return
	}
	at := c.spot
	at.path = c.prefix + x.path
	c.streams(n, at, x.open, y.open)
}

// startsMZ tells whether a file may be an EFI program.
func startsMZ(e *entry) bool {
	r, err := e.open()
	if err != nil {
		return false
	}
	defer r.Close()
	b := make([]byte, 2)
	_, err = io.ReadFull(r, b)
	return err == nil && string(b) == "MZ"
}

// rest shows what differs and has no node yet: what is described and not
// shown, and what belongs to no file.
func (c *comparison) rest(n *Node, r [2]io.ReaderAt, known spans, slack string) {
	readA, readB := c.a.all(), c.b.all()
	all := normalise(slices.Concat(readA, readB, known))
	left := c.bookkeeping(n, r, c.changed.minus(all))
	if len(left) > 0 {
		s := c.child(n, beside(c.prefix, slack))
		s.comment("belongs to no file: padding, or space that is not used")
		if c.measured != "" {
			s.comment(c.measured)
		}
		c.raw(s, r[0], r[1], 0, left, nil)
	}
	left = c.changed.minus(normalise(c.explained)).minus(known).and(normalise(slices.Concat(readA, readB)))
	if len(left) == 0 {
		return
	}
	if !c.sameLayout() {
		if len(c.explained) == 0 {
			n.comment("both have the same files, at other places")
			c.raw(n, r[0], r[1], 0, left, c.a.at)
		}
		return
	}
	if c.shift == nil {
		s := c.child(n, beside(c.prefix, "metadata"))
		s.comment("the files are the same; what describes them is written otherwise")
		c.inodeFields(s, left)
		c.raw(s, r[0], r[1], 0, left, c.a.at)
	}
}

// bookkeeping shows what differs of what a file system keeps of itself, and
// returns what is left.
func (c *comparison) bookkeeping(n *Node, r [2]io.ReaderAt, left spans) spans {
	var list []span
	for _, t := range []*tree{c.a, c.b} {
		for _, x := range t.regions {
			list = append(list, x.span)
		}
	}
	regions := normalise(list)
	inside := left.and(regions)
	if len(inside) == 0 {
		return left
	}
	s := c.child(n, beside(c.prefix, "bookkeeping"))
	s.comment("what the file system keeps of itself")
	c.raw(s, r[0], r[1], 0, inside, func(off int64) string {
		for _, t := range []*tree{c.a, c.b} {
			for _, x := range t.regions {
				if x.off <= off && off < x.end {
					return x.path
				}
			}
		}
		return ""
	})
	return left.minus(regions)
}
