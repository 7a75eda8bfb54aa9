package objects

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"sort"
)

// made marks the type of an object that a change has made.
const made = 0x80

// base is an object on the way to its changes.
type base struct {
	content
	typ  byte
	todo []uint32 // of the changes that name its id
	next uint32   // of the others
}

// resolve makes what changes make, and gives it its ids: depth first, so that
// only the objects on the way are kept.
func (x *indexer) resolve() error {
	for n := range x.offsets {
		if isDelta(x.types[n]) || x.types[n]&made != 0 || !x.hasChanges(n) {
			continue
		}
		b, err := x.whole(n)
		if err != nil {
			return fmt.Errorf("the object at byte %d: %w", x.offsets[n], err)
		}
		if err := x.descend(b); err != nil {
			return err
		}
	}
	if x.changes > 0 {
		return fmt.Errorf("%d of its changes are of objects that it does not have", x.changes)
	}
	return nil
}

// hasChanges tells whether others are changes of an object with an id.
func (x *indexer) hasChanges(n int) bool { return x.child[n] != 0 || len(x.named(n)) > 0 }

// named are the changes that name an object by its id.
func (x *indexer) named(n int) []refChange {
	var id [32]byte
	copy(id[:], x.id(n))
	from := sort.Search(len(x.byID), func(i int) bool { return bytes.Compare(x.byID[i].base[:], id[:]) >= 0 })
	to := from
	for to < len(x.byID) && x.byID[to].base == id {
		to++
	}
	return x.byID[from:to]
}

// begin keeps an object for its changes.
func (x *indexer) begin(n int, c content) *base {
	b := &base{content: c, typ: x.types[n] &^ made, next: x.child[n]}
	for _, c := range x.named(n) {
		if isDelta(x.types[c.n]) { // an object that is there twice has them once
			b.todo = append(b.todo, c.n)
		}
	}
	return b
}

// whole keeps an object that is no change.
func (x *indexer) whole(n int) (*base, error) {
	r, e, err := x.inflated(n)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	c, err := x.bases.keep(r, e.size)
	if err != nil {
		return nil, err
	}
	return x.begin(n, c), nil
}

// inflated is what is deflated of an object.
func (x *indexer) inflated(n int) (io.ReadCloser, entry, error) {
	p := &pack{f: x.f, end: x.end, idLen: x.idLen}
	at := x.offsets[n]
	r := bufio.NewReaderSize(io.NewSectionReader(x.f, at, min(maxEntry, x.end-at)), maxEntry)
	e, err := readEntry(r, at, x.idLen)
	if err != nil {
		return nil, e, err
	}
	b, err := x.z.inflated(p, e)
	return b, e, err
}

// descend resolves all that is below an object.
func (x *indexer) descend(first *base) error {
	for way := []*base{first}; len(way) > 0; {
		b := way[len(way)-1]
		n, ok := b.pop(x)
		if !ok {
			x.bases.drop(b.content)
			way = way[:len(way)-1]
			continue
		}
		if len(way) > maxChain {
			return fmt.Errorf("more than %d changes of each other", maxChain)
		}
		below, err := x.change(n, b)
		if err != nil {
			return fmt.Errorf("the object at byte %d: %w", x.offsets[n], err)
		}
		if below != nil {
			way = append(way, below)
		}
	}
	return nil
}

// pop is the number of the next change.
func (b *base) pop(x *indexer) (int, bool) {
	if k := len(b.todo); k > 0 {
		n := b.todo[k-1]
		b.todo = b.todo[:k-1]
		return int(n), true
	}
	if b.next == 0 {
		return 0, false
	}
	n := b.next - 1
	b.next = x.next[n]
	return int(n), true
}

// change gives what a change makes its id, and keeps it where others are
// changes of it.
func (x *indexer) change(n int, b *base) (*base, error) {
	err := x.applied(n, b, func(r io.Reader, size int64) error {
		if err := x.allow(size); err != nil {
			return err
		}
		return x.hash(n, r, b.typ, size)
	})
	if err != nil {
		return nil, err
	}
	x.changes--
	x.types[n] |= made
	if !x.hasChanges(n) {
		return nil, nil
	}
	var below *base
	err = x.applied(n, b, func(r io.Reader, size int64) error {
		c, err := x.bases.keep(r, size)
		below = x.begin(n, c)
		return err
	})
	return below, err
}

// applied gives f what a change makes.
func (x *indexer) applied(n int, b *base, f func(r io.Reader, size int64) error) error {
	r, _, err := x.inflated(n)
	if err != nil {
		return err
	}
	defer r.Close()
	x.buf.Reset(r)
	d, size, err := newDelta(b.content, x.buf)
	if err != nil {
		return err
	}
	return f(d, size)
}
