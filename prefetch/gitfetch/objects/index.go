package objects

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha1" //nolint:gosec // git's ids and checksums
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
)

// Limits are on what a pack may have.
type Limits struct {
	Object int64 // bytes of an object
	// Total is the most bytes that all objects may have together, each change
	// counted as what it makes. It keeps a small pack from taking for ever.
	Total int64
}

// Index makes the index of a pack, a file in a folder called "pack", and gives
// both their names there. hexLen is as Open has it. The checksum of the pack is
// proved, and that it is whole: all changes are of objects that it has.
func Index(ctx context.Context, f *os.File, hexLen int, l Limits) error {
	x := &indexer{ctx: ctx, f: f, idLen: hexLen / 2, limit: l, left: l.Total, bases: stack{dir: filepath.Dir(f.Name())},
		buf: bufio.NewReaderSize(nil, bufferSize), h: newHash(hexLen / 2)}
	defer x.bases.close()
	err := x.scan()
	if err == nil {
		err = x.resolve()
	}
	if err != nil {
		return err
	}
	base := filepath.Join(filepath.Dir(f.Name()), "pack-"+hex.EncodeToString(x.sum))
	if err := x.write(base + ".idx"); err != nil {
		return err
	}
	return os.Rename(f.Name(), base+".pack")
}

// indexer is one run of Index. Of each object, by its number in the pack, it
// has a place in the slices.
type indexer struct {
	ctx   context.Context //nolint:containedctx // lives as long as one call
	f     *os.File
	idLen int
	limit Limits
	left  int64 // of limit.Total
	sum   []byte
	end   int64 // of the objects

	offsets []int64 // ascending
	crcs    []uint32
	types   []byte // of an object that is not resolved, those of changes
	ids     []byte
	changes int // objects that are not resolved

	// The changes of an object are a list: child is its first, next each one's
	// successor; 0 for none, else the number and 1.
	child, next []uint32
	byID        []refChange // changes that name their base by its id, sorted by that

	bases  stack
	z      Store    // for its inflaters
	stream inflater // of the pack, from its begin
	buf    *bufio.Reader
	h      hash.Hash
	copied [bufferSize]byte
}

// refChange is a change that names its base by its id.
type refChange struct {
	base [32]byte
	n    uint32
}

func newHash(idLen int) hash.Hash {
	if idLen == sha1.Size {
		return sha1.New() //nolint:gosec // as above
	}
	return sha256.New()
}

// scan reads the pack from its begin to its end, and hashes the objects that
// are whole.
func (x *indexer) scan() error {
	if _, err := x.f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	r := newPackReader(x.f, newHash(x.idLen))
	head := make([]byte, packHead)
	if _, err := io.ReadFull(r, head); err != nil {
		return noEOF(err)
	}
	n, err := packCount(head)
	if err != nil {
		return err
	}
	if n > maxObjects {
		return fmt.Errorf("it has %d objects, want %d at most", n, maxObjects)
	}
	if err := x.grow(int64(n)); err != nil {
		return err
	}
	for range n {
		at := r.at
		r.begin()
		if err := x.object(r); err != nil {
			return fmt.Errorf("the object at byte %d: %w", at, err)
		}
		x.crcs = append(x.crcs, r.crc())
	}
	x.end = r.at
	x.sum = r.sum()
	trailer := make([]byte, x.idLen)
	if _, err := io.ReadFull(r, trailer); err != nil {
		return noEOF(err)
	}
	if !bytes.Equal(trailer, x.sum) {
		return fmt.Errorf("its checksum is %x, want %x", x.sum, trailer)
	}
	if _, err := r.ReadByte(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the pack")
	}
	slices.SortFunc(x.byID, func(a, b refChange) int { return bytes.Compare(a.base[:], b.base[:]) })
	return nil
}

// leastObject is how many bytes an object takes in a pack at least.
const leastObject = 9

// grow makes room for n objects, if the pack can have so many.
func (x *indexer) grow(n int64) error {
	st, err := x.f.Stat()
	if err != nil {
		return err
	}
	if n > st.Size()/leastObject {
		return fmt.Errorf("it says that it has %d objects, and has %d bytes", n, st.Size())
	}
	x.offsets, x.crcs, x.types = make([]int64, 0, n), make([]uint32, 0, n), make([]byte, 0, n)
	x.ids = make([]byte, 0, n*int64(x.idLen))
	x.child, x.next = make([]uint32, 0, n), make([]uint32, 0, n)
	return nil
}

// object reads one object.
func (x *indexer) object(r *packReader) error {
	e, err := readEntry(r, r.start, x.idLen)
	if err != nil {
		return err
	}
	n := len(x.offsets)
	x.offsets, x.types = append(x.offsets, r.start), append(x.types, e.typ)
	x.ids = append(x.ids, make([]byte, x.idLen)...)
	x.child, x.next = append(x.child, 0), append(x.next, 0)
	if err := x.stream.reset(r); err != nil {
		return err
	}
	if err := x.allow(e.size); err != nil {
		return err
	}
	if !isDelta(e.typ) {
		return x.hash(n, exactly(&x.stream, e.size), e.typ, e.size)
	}
	if err := x.note(n, e); err != nil {
		return err
	}
	x.buf.Reset(exactly(&x.stream, e.size))
	if _, size, err := deltaSizes(x.buf); err != nil {
		return err
	} else if size > x.limit.Object {
		return fmt.Errorf("it makes %d bytes, want %d at most", size, x.limit.Object)
	}
	_, err = x.buf.WriteTo(io.Discard)
	return err
}

// note keeps what a change is of.
func (x *indexer) note(n int, e entry) error {
	x.changes++
	if e.typ == typeRefDelta {
		c := refChange{n: uint32(n)} //nolint:gosec // there are maxObjects at most
		copy(c.base[:], e.base)
		x.byID = append(x.byID, c)
		return nil
	}
	base, ok := slices.BinarySearch(x.offsets[:n], e.offset)
	if !ok {
		return fmt.Errorf("a change of what is at byte %d, where no object begins", e.offset)
	}
	x.next[n], x.child[base] = x.child[base], uint32(n)+1 //nolint:gosec // as above
	return nil
}

// allow counts an object's bytes.
func (x *indexer) allow(size int64) error {
	if size > x.limit.Object {
		return fmt.Errorf("an object of %d bytes, want %d at most", size, x.limit.Object)
	}
	if x.left -= size; x.left < 0 {
		return fmt.Errorf("its objects have more than %d bytes together", x.limit.Total)
	}
	return x.ctx.Err()
}

// hash reads an object and gives it its id.
func (x *indexer) hash(n int, r io.Reader, typ byte, size int64) error {
	x.h.Reset()
	fmt.Fprintf(x.h, "%s %d\x00", typeNames[typ], size)
	if _, err := io.CopyBuffer(checked{x.ctx, x.h}, r, x.copied[:]); err != nil {
		return err
	}
	x.h.Sum(x.ids[n*x.idLen : n*x.idLen])
	x.types[n] = typ
	return nil
}

// checked ends where a context does.
type checked struct {
	ctx context.Context //nolint:containedctx // lives as long as one call
	io.Writer
}

func (c checked) Write(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.Writer.Write(p)
}

func (x *indexer) id(n int) []byte { return x.ids[n*x.idLen : (n+1)*x.idLen] }

// write writes the index (gitformat-pack, "Version 2 pack-*.idx files").
func (x *indexer) write(name string) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	h := newHash(x.idLen)
	w := bufio.NewWriterSize(io.MultiWriter(f, h), 1<<16)
	x.tables(table{w})
	if err = w.Flush(); err == nil {
		_, err = f.Write(h.Sum(nil))
	}
	return errors.Join(err, f.Close())
}

// table writes a table. Errors stay in the writer, for Flush.
type table struct{ *bufio.Writer }

func (t table) bytes(b []byte)  { _, _ = t.Write(b) }
func (t table) number(n uint32) { t.bytes(binary.BigEndian.AppendUint32(t.AvailableBuffer(), n)) }
func (t table) large(n int64) {
	t.bytes(binary.BigEndian.AppendUint64(t.AvailableBuffer(), uint64(n))) //nolint:gosec // it is no negative one
}

// tables writes the tables, and the pack's checksum.
func (x *indexer) tables(t table) {
	order := x.child[:0] // which is not needed any more
	for n := range x.offsets {
		order = append(order, uint32(n)) //nolint:gosec // there are maxObjects at most
	}
	slices.SortFunc(order, func(a, b uint32) int { return bytes.Compare(x.id(int(a)), x.id(int(b))) })
	t.bytes(idxMagic)
	var fan [256]uint32
	for n := range x.offsets {
		fan[x.ids[n*x.idLen]]++
	}
	total := uint32(0)
	for _, n := range fan {
		total += n
		t.number(total)
	}
	for _, n := range order {
		t.bytes(x.id(int(n)))
	}
	for _, n := range order {
		t.number(x.crcs[n])
	}
	var large []int64
	for _, n := range order {
		at := x.offsets[n]
		if at > math.MaxInt32 {
			large = append(large, at)
			t.number(idxLarge | uint32(len(large)-1)) //nolint:gosec // as above
			continue
		}
		t.number(uint32(at)) //nolint:gosec // checked here
	}
	for _, at := range large {
		t.large(at)
	}
	t.bytes(x.sum)
}
