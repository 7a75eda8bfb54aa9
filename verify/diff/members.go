package diff

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
)

// Bounds of an archive; real ones are far below.
const (
	maxMembers = 1 << 18
	maxNames   = 64 << 20 // bytes of all names and targets
	maxWanted  = 100      // members that are looked into
)

// member is a file of an archive. Its content is known by its digest.
type member struct {
	entry
	framing string // what else its header says
	sum     [sha256.Size]byte
}

// walk calls fn for each member of an archive. Its path need not be unique,
// nor have a slash in front.
type walk func(fn func(m member, content io.Reader) error) error

// archive is what could be read of an archive.
type archive struct {
	order  []string
	byPath map[string]*member
	err    error // where reading ended early
}

// ended is err with the place where reading ended.
func (a archive) ended() error {
	var much *tooMuch
	switch {
	case a.err == nil || len(a.order) == 0:
		return a.err
	case errors.As(a.err, &much):
		return fmt.Errorf("%w; nothing behind %s is compared", a.err, a.order[len(a.order)-1])
	}
	return fmt.Errorf("damaged behind %s, and the rest of it not compared: %w", a.order[len(a.order)-1], a.err)
}

// members compares two archives member by member. It says false where neither
// can be read, and where all members are the same. part is as Source.Owner has
// it.
func (d *differ) members(n *Node, at spot, part string, walkA, walkB walk) bool {
	if n == nil {
		return true
	}
	a, b := d.readArchive(walkA), d.readArchive(walkB)
	if len(a.order) == 0 && len(b.order) == 0 {
		d.failed(n, a.err, b.err)
		return false
	}
	at.boot = false
	c := &comparison{differ: d, spot: spot{part: part}, prefix: at.below("").path, a: a.tree(), b: b.tree(), timed: true}
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
	d.wanted(at, wanted, walkA, walkB)
	d.failed(n, a.ended(), b.ended())
	if len(n.Details) > 0 || c.shift != nil {
		return true
	}
	if a.err == nil && b.err == nil {
		d.sameMembers(n, a, b)
	}
	return false
}

// sameMembers says how archives differ whose members do not.
func (d *differ) sameMembers(n *Node, a, b archive) {
	if !slices.Equal(a.order, b.order) {
		n.comment("the members are the same, in another order")
		return
	}
	var x, y []string
	for _, p := range a.order {
		if f, g := a.byPath[p].framing, b.byPath[p].framing; f != g {
			x, y = append(x, p+": "+f+"\n"), append(y, p+": "+g+"\n")
		}
	}
	if len(x) == 0 {
		n.comment("the members are the same, what is around them is not: padding, or the compression")
		return
	}
	n.comment("the members are the same, what is said of them is not")
	d.text(n, x, y, 1)
}

// wanted is content to show, and the node for it.
type wanted struct {
	n    *Node
	path string
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
	c.owner(n, x.path)
	if attrs {
		c.text(n, x.lines(mtime), y.lines(mtime), 1)
	}
	if !content {
		return nil
	}
	if attrs {
		n = c.child(n, c.prefix+x.path+" (content)")
	}
	return []wanted{{n, x.path}}
}

// wanted reads both archives again, and shows the contents that differ.
func (d *differ) wanted(at spot, list []wanted, walkA, walkB walk) {
	for _, w := range list[min(len(list), maxWanted):] {
		w.n.comment(fmt.Sprintf("the content differs; %sit is not one of the first %d members that do", notFurther, maxWanted))
	}
	list = list[:min(len(list), maxWanted)]
	if len(list) == 0 {
		return
	}
	a, errA := d.holdMembers(walkA, list)
	b, errB := d.holdMembers(walkB, list)
	for _, w := range list {
		x, inA := a[w.path]
		y, inB := b[w.path]
		if inA && inB {
			d.contents(w.n, at.below(w.path), x.SectionReader, y.SectionReader)
		} else if w.n != nil {
			w.n.comment("the content differs")
			d.failed(w.n, errA, errB)
		}
	}
	for _, held := range []map[string]held{a, b} {
		for _, h := range held {
			h.free()
		}
	}
}

var errAll = errors.New("all is read that was wanted")

// holdMembers reads the contents that are wanted, as far as the archive goes.
func (d *differ) holdMembers(walk walk, list []wanted) (map[string]held, error) {
	left := map[string]bool{}
	for _, w := range list {
		left[w.path] = true
	}
	out := map[string]held{}
	names := map[string]int{}
	err := walk(func(m member, content io.Reader) error {
		p := unique(names, m.path)
		if !left[p] {
			return nil
		}
		h, err := d.hold(content)
		if err != nil {
			h.free()
			return err
		}
		out[p] = h
		if delete(left, p); len(left) == 0 {
			return errAll
		}
		return nil
	})
	if errors.Is(err, errAll) {
		err = nil
	}
	return out, err
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

func (d *differ) readArchive(walk walk) archive {
	a := archive{byPath: map[string]*member{}}
	names, said := map[string]int{}, 0
	a.err = walk(func(m member, content io.Reader) error {
		if said += len(m.path); said > maxNames || len(a.order) >= maxMembers {
			return &tooMuch{fmt.Sprintf("more than %d members or %d bytes of names", maxMembers, maxNames)}
		}
		m.path = unique(names, m.path)
		if err := m.read(d.metered(content)); err != nil {
			return err
		}
		a.order = append(a.order, m.path)
		a.byPath[m.path] = &m
		return nil
	})
	return a
}

// read digests the content, and keeps the target of a symbolic link that is
// written as one.
func (m *member) read(r io.Reader) error {
	whole := sha256.New()
	b := make([]byte, window)
	first := true
	for {
		n, err := io.ReadFull(r, b)
		if n > 0 {
			if m.mode&typeMask == typeSymlink && first {
				m.attrs = append(m.attrs, attr{"target", cut(oneLine(string(b[:n])), page)})
			}
			first = false
			whole.Write(b[:n])
		}
		if err != nil {
			m.sum = [sha256.Size]byte(whole.Sum(nil))
			return notEnd(err)
		}
	}
}

// tree is the archive as a tree without contents.
func (a archive) tree() *tree {
	t := newTree()
	for _, p := range a.order {
		t.add(&a.byPath[p].entry)
	}
	return t
}

// modeOr is a mode with the type of a file where it has none.
func modeOr(mode uint32) uint32 { return cmp.Or(mode&typeMask, typeRegular) | mode&^typeMask }
