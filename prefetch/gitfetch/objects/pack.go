package objects

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"

	"caisson/lock/gittree"
)

// The types of objects in a pack (gitformat-pack, "Object types").
const (
	typeCommit   = 1
	typeTag      = 4
	typeOfsDelta = 6
	typeRefDelta = 7
)

// typeNames are the types by their numbers.
var typeNames = [8]string{typeCommit: "commit", 2: "tree", 3: "blob", typeTag: "tag"}

func isDelta(typ byte) bool { return typ == typeOfsDelta || typ == typeRefDelta }

// packHead is the length of a pack's head, in bytes.
const packHead = 12

// packCount is how many objects a pack's head says that it has.
func packCount(head []byte) (uint32, error) {
	if len(head) < packHead || string(head[:4]) != "PACK" {
		return 0, errors.New("it is no pack")
	}
	if v := binary.BigEndian.Uint32(head[4:]); v != 2 && v != 3 {
		return 0, fmt.Errorf("a pack of version %d, want 2", v)
	}
	return binary.BigEndian.Uint32(head[8:]), nil
}

// entry is the head of an object in a pack.
type entry struct {
	typ    byte
	size   int64 // of what is deflated: the object, or the change
	offset int64 // of the base of a typeOfsDelta, from the pack's begin
	base   []byte
	data   int64 // where what is deflated begins
}

// readEntry reads the head of the object at an offset; idLen is the length of
// an id in bytes. It fails where the base is not before the object.
func readEntry(r io.ByteReader, at int64, idLen int) (entry, error) {
	c, err := r.ReadByte()
	if err != nil {
		return entry{}, noEOF(err)
	}
	e := entry{typ: c >> 4 & 7, size: int64(c & 15), data: at + 1}
	for shift := 4; c&0x80 != 0; shift += 7 {
		if c, err = r.ReadByte(); err != nil {
			return entry{}, noEOF(err)
		}
		e.data++
		if shift > 53 {
			return entry{}, errors.New("an object of more bytes than there can be")
		}
		e.size |= int64(c&0x7f) << shift
	}
	switch {
	case e.typ == typeOfsDelta:
		back := int64(-1)
		for c = 0x80; c&0x80 != 0; e.data++ {
			if c, err = r.ReadByte(); err != nil {
				return entry{}, noEOF(err)
			}
			if back = (back+1)<<7 | int64(c&0x7f); back > at {
				break
			}
		}
		if e.offset = at - back; back <= 0 || e.offset < packHead {
			return entry{}, errors.New("a change of something that is not before it")
		}
	case e.typ == typeRefDelta:
		e.base = make([]byte, idLen)
		for i := range e.base {
			if e.base[i], err = r.ReadByte(); err != nil {
				return entry{}, noEOF(err)
			}
		}
		e.data += int64(idLen)
	case typeNames[e.typ] == "":
		return entry{}, fmt.Errorf("an object of the type %d", e.typ)
	}
	return e, nil
}

// maxEntry is the most bytes that readEntry reads.
const maxEntry = 10 + 32

// pack is a pack and its index (gitformat-pack, "Version 2 pack-*.idx files").
type pack struct {
	f, idx *os.File
	number int64 // among the store's
	idLen  int
	end    int64 // of the objects
	fan    [256]uint32
}

// Where the parts of an index begin.
const (
	idxHead   = 8
	idxTables = idxHead + 256*4
)

func openPack(base string, idLen int) (*pack, error) {
	f, err := os.Open(base + ".pack")
	if err != nil {
		return nil, err
	}
	p := &pack{f: f, idLen: idLen}
	if p.idx, err = os.Open(base + ".idx"); err == nil {
		err = p.readIndex()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("reading the pack %s: %w", filepath.Base(base), err), p.close())
	}
	return p, nil
}

// readIndex reads the first table, and checks the files' sizes.
func (p *pack) readIndex() error {
	st, err := p.f.Stat()
	if err != nil {
		return err
	}
	p.end = st.Size() - int64(p.idLen)
	var head [idxTables]byte
	if _, err := p.idx.ReadAt(head[:], 0); err != nil {
		return noEOF(err)
	}
	if !bytes.Equal(head[:idxHead], idxMagic) {
		return errors.New("its index is not of version 2")
	}
	for i := range p.fan {
		if p.fan[i] = binary.BigEndian.Uint32(head[idxHead+4*i:]); i > 0 && p.fan[i] < p.fan[i-1] {
			return errors.New("its index is not sorted")
		}
	}
	if st, err = p.idx.Stat(); err != nil {
		return err
	}
	if least := idxTables + p.count()*int64(p.idLen+8) + 2*int64(p.idLen); st.Size() < least {
		return fmt.Errorf("its index has %d bytes, want %d at least", st.Size(), least)
	}
	return nil
}

var idxMagic = []byte("\xfftOc\x00\x00\x00\x02")

func (p *pack) count() int64 { return int64(p.fan[255]) }

func (p *pack) close() error {
	err := p.f.Close()
	if p.idx != nil {
		err = errors.Join(err, p.idx.Close())
	}
	return err
}

// id reads the i-th id.
func (p *pack) id(i int64, to []byte) error {
	_, err := p.idx.ReadAt(to, idxTables+i*int64(p.idLen))
	return noEOF(err)
}

// search is the place of the first id that is not before raw.
func (p *pack) search(raw []byte) (int64, error) {
	low, high := 0, int(p.fan[raw[0]])
	if raw[0] > 0 {
		low = int(p.fan[raw[0]-1])
	}
	var failed error
	id := make([]byte, p.idLen)
	n := sort.Search(high-low, func(i int) bool {
		if err := p.id(int64(low+i), id); err != nil {
			failed = err
		}
		return bytes.Compare(id, raw) >= 0
	})
	return int64(low + n), failed
}

// find is where in the pack an object begins.
func (p *pack) find(raw []byte) (at int64, ok bool, err error) {
	i, err := p.search(raw)
	if err != nil || i >= p.count() {
		return 0, false, err
	}
	id := make([]byte, p.idLen)
	if err := p.id(i, id); err != nil || !bytes.Equal(id, raw) {
		return 0, false, err
	}
	at, err = p.offset(i)
	return at, err == nil, err
}

// offset reads the i-th offset.
func (p *pack) offset(i int64) (int64, error) {
	var b [8]byte
	offsets := idxTables + p.count()*int64(p.idLen+4)
	if _, err := p.idx.ReadAt(b[:4], offsets+4*i); err != nil {
		return 0, noEOF(err)
	}
	at := int64(binary.BigEndian.Uint32(b[:4]))
	if at&idxLarge != 0 {
		if _, err := p.idx.ReadAt(b[:], offsets+4*p.count()+8*(at&^idxLarge)); err != nil {
			return 0, noEOF(err)
		}
		at = int64(binary.BigEndian.Uint64(b[:])) //nolint:gosec // what is too large is negative, and refused
	}
	if at < packHead || at >= p.end {
		return 0, fmt.Errorf("the index has an object at byte %d of a pack of %d", at, p.end)
	}
	return at, nil
}

// idxLarge marks the place of a larger offset.
const idxLarge = 1 << 31

// withPrefix are the ids that begin so.
func (p *pack) withPrefix(raw []byte) ([]string, error) {
	i, err := p.search(raw)
	if err != nil {
		return nil, err
	}
	var out []string
	id := make([]byte, p.idLen)
	for ; i < p.count(); i++ {
		if err := p.id(i, id); err != nil {
			return nil, err
		}
		if !bytes.HasPrefix(id, raw) {
			break
		}
		out = append(out, hex.EncodeToString(id))
	}
	return out, nil
}

// entry reads the head of the object at an offset.
func (p *pack) entry(at int64) (entry, error) {
	r := bufio.NewReaderSize(io.NewSectionReader(p.f, at, min(maxEntry, p.end-at)), maxEntry)
	e, err := readEntry(r, at, p.idLen)
	if err == nil && e.typ == typeRefDelta {
		var ok bool
		if e.offset, ok, err = p.find(e.base); err == nil && !ok {
			err = fmt.Errorf("a change of %x, which the pack does not have", e.base)
		}
	}
	return e, err
}

// inflated is what is deflated in an entry.
func (s *Store) inflated(p *pack, e entry) (*body, error) {
	z, err := s.inflate(io.NewSectionReader(p.f, e.data, p.end-e.data))
	if err != nil {
		return nil, err
	}
	return &body{r: exactly(z, e.size), close: func() error {
		s.idle.Put(z)
		return nil
	}}, nil
}

// packedSize is the size of an object of a pack.
func (s *Store) packedSize(p *pack, at int64) (int64, error) {
	e, err := p.entry(at)
	if err != nil || !isDelta(e.typ) {
		return e.size, err
	}
	r, err := s.inflated(p, e)
	if err != nil {
		return 0, err
	}
	defer r.Close()
	_, size, err := deltaSizes(bufio.NewReaderSize(r, 2*binary.MaxVarintLen64))
	return size, err
}

// openPacked opens an object of a pack, by way of all that it is a change of.
func (s *Store) openPacked(p *pack, at int64) (*gittree.Object, error) {
	var changes []entry // the last one is of the whole object
	e, err := p.entry(at)
	for err == nil && isDelta(e.typ) {
		if len(changes) == maxChain {
			return nil, fmt.Errorf("more than %d changes of each other", maxChain)
		}
		changes = append(changes, e)
		e, err = p.entry(e.offset)
	}
	if err != nil {
		return nil, err
	}
	o := &gittree.Object{Type: typeNames[e.typ], Size: e.size}
	if len(changes) == 0 {
		o.ReadCloser, err = s.inflated(p, e)
		return o, err
	}
	w := &rewrite{s: s, p: p, stacks: [2]stack{{dir: s.temp}, {dir: s.temp}}}
	if o.ReadCloser, o.Size, err = w.run(changes, e); err != nil {
		return nil, errors.Join(err, w.close())
	}
	return o, nil
}

// rewrite makes an object out of its base and changes, one after another: at
// any time two contents are kept, in turn on one stack and the other.
type rewrite struct {
	s      *Store
	p      *pack
	stacks [2]stack
}

func (w *rewrite) close() error { return errors.Join(w.stacks[0].close(), w.stacks[1].close()) }

// run applies changes, from the last to the first. What comes back closes w.
func (w *rewrite) run(changes []entry, whole entry) (io.ReadCloser, int64, error) {
	var base content
	i := 0 // the change to begin with
	for ; i < len(changes); i++ {
		if b, ok := w.s.bases.Get(w.p.key(changes[i].offset)); ok {
			base = inMemory(b)
			break
		}
	}
	if i == len(changes) {
		i--
		first, err := w.s.inflated(w.p, whole)
		if err != nil {
			return nil, 0, err
		}
		if base, err = w.keep(first, whole.size, changes[i].offset, i); err != nil {
			return nil, 0, err
		}
	}
	for ; ; i-- {
		src, err := w.s.inflated(w.p, changes[i])
		if err != nil {
			return nil, 0, err
		}
		d, size, err := newDelta(base, bufio.NewReaderSize(src, bufferSize))
		if err != nil {
			return nil, 0, errors.Join(err, src.Close())
		}
		if i == 0 {
			return &body{r: d, close: func() error { return errors.Join(src.Close(), w.close()) }}, size, nil
		}
		if base, err = w.keep(&body{r: d, close: src.Close}, size, changes[i-1].offset, i); err != nil {
			return nil, 0, err
		}
	}
}

// keep keeps what is the base of a change, the object at an offset. Small ones
// are remembered, as others may be changes of them too.
func (w *rewrite) keep(r io.ReadCloser, size, at int64, i int) (content, error) {
	st := &w.stacks[i%2]
	st.top, st.mem = 0, 0
	c, err := st.keep(r, size)
	if err == nil && len(c.mem) >= worthCaching {
		w.s.bases.Put(w.p.key(at), c.mem)
	}
	return c, errors.Join(err, r.Close())
}

// worthCaching is the size in bytes below which a base is made anew.
const worthCaching = 1 << 10

// key is what an object of the pack is remembered by.
func (p *pack) key(at int64) int64 { return p.number<<48 | at }
