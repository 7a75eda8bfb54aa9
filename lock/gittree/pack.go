package gittree

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/zlib"
	"crypto/sha1" //nolint:gosec // the pack format's checksum (gitformat-pack)
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
)

// packTypes are the types of objects as a pack has them (gitformat-pack).
var packTypes = map[string]byte{typeCommit: 1, typeTree: 2, typeBlob: 3, typeTag: 4}

// packObject is one object of a pack, as its index has it.
type packObject struct {
	id     string
	offset int64
	crc    uint32
}

// packWriter writes a pack of whole objects, each once, in the order in which
// they come, and its index.
type packWriter struct {
	dir     string
	f       *os.File
	w       *bufio.Writer
	z       *zlib.Writer
	hexLen  int
	at      int64 // where the next object begins
	objects []packObject
	have    map[string]bool
	pending packObject // one that has been written and has no id yet
	end     int64      // of that
}

// newPack begins a pack in an objects/pack folder.
func newPack(dir string, hexLen int) (*packWriter, error) {
	f, err := os.CreateTemp(dir, "tmp_pack_") // as git calls them
	if err != nil {
		return nil, err
	}
	p := &packWriter{dir: dir, f: f, w: bufio.NewWriterSize(f, 1<<16), z: zlib.NewWriter(nil), hexLen: hexLen, have: make(map[string]bool)}
	_, err = p.w.Write(p.header())
	p.at = 12
	return p, err
}

// header is the pack's, with the number of objects so far.
func (p *packWriter) header() []byte {
	return binary.BigEndian.AppendUint32([]byte("PACK\x00\x00\x00\x02"), uint32(len(p.objects))) //nolint:gosec // 4 million files at most
}

func (p *packWriter) newHash() hash.Hash {
	if p.hexLen == 40 {
		return sha1.New() //nolint:gosec // as above
	}
	return sha256.New()
}

// write writes an object whose id is not known yet.
func (p *packWriter) write(typ string, size int64, r io.Reader) error {
	crc := crc32.NewIEEE()
	n := &counter{w: io.MultiWriter(p.w, crc)}
	if _, err := n.Write(objectHeader(packTypes[typ], size)); err != nil {
		return err
	}
	p.z.Reset(n)
	if _, err := io.Copy(p.z, r); err != nil {
		return err
	}
	if err := p.z.Close(); err != nil {
		return err
	}
	p.pending, p.end = packObject{offset: p.at, crc: crc.Sum32()}, p.at+n.n
	return nil
}

// name gives the object that was written last its id. One that the pack has
// is taken out again.
func (p *packWriter) name(id string) error {
	if !p.have[id] {
		p.have[id] = true
		p.pending.id = id
		p.objects = append(p.objects, p.pending)
		p.at = p.end
		return nil
	}
	if err := p.w.Flush(); err != nil {
		return err
	}
	if err := p.f.Truncate(p.at); err != nil {
		return err
	}
	_, err := p.f.Seek(p.at, io.SeekStart)
	return err
}

// objectHeader is an object's type and size (gitformat-pack, "(n-byte type
// and length)").
func objectHeader(typ byte, size int64) []byte {
	b := []byte{typ<<4 | byte(size&15)}
	for size >>= 4; size > 0; size >>= 7 {
		b[len(b)-1] |= 0x80
		b = append(b, byte(size&0x7f))
	}
	return b
}

// counter counts what is written.
type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// close completes the pack, gives it its name and writes its index.
func (p *packWriter) close() error {
	sum, err := p.seal()
	if err = errors.Join(err, p.f.Close()); err != nil {
		return fmt.Errorf("writing a pack: %w", err)
	}
	base := filepath.Join(p.dir, "pack-"+hex.EncodeToString(sum))
	if err := os.WriteFile(base+".idx", p.index(sum), 0o444); err != nil { //nolint:gosec // as git has it
		return err
	}
	if err := os.Chmod(p.f.Name(), 0o444); err != nil { //nolint:gosec // as git has it
		return err
	}
	return os.Rename(p.f.Name(), base+".pack")
}

// drop removes the pack where it has not been closed.
func (p *packWriter) drop() {
	p.f.Close()
	os.Remove(p.f.Name())
}

// seal writes the number of objects and the checksum over everything.
func (p *packWriter) seal() ([]byte, error) {
	if err := p.w.Flush(); err != nil {
		return nil, err
	}
	if _, err := p.f.WriteAt(p.header(), 0); err != nil {
		return nil, err
	}
	h := p.newHash()
	if _, err := io.Copy(h, io.NewSectionReader(p.f, 0, p.at)); err != nil {
		return nil, err
	}
	sum := h.Sum(nil)
	_, err := p.f.WriteAt(sum, p.at)
	return sum, err
}

// index is the pack's index, version 2 (gitformat-pack).
func (p *packWriter) index(sum []byte) []byte {
	slices.SortFunc(p.objects, func(a, b packObject) int { return cmp.Compare(a.id, b.id) })
	var fan [256]uint32
	var ids, crcs, offsets, large []byte
	for _, o := range p.objects {
		id, err := hex.DecodeString(o.id)
		if err != nil {
			continue // ids are made by hashObject
		}
		for i := int(id[0]); i < 256; i++ {
			fan[i]++
		}
		ids = append(ids, id...)
		crcs = binary.BigEndian.AppendUint32(crcs, o.crc)
		if o.offset <= math.MaxInt32 {
			offsets = binary.BigEndian.AppendUint32(offsets, uint32(o.offset))
			continue
		}
		offsets = binary.BigEndian.AppendUint32(offsets, 1<<31|uint32(len(large)/8)) //nolint:gosec // fewer than 4 million
		large = binary.BigEndian.AppendUint64(large, uint64(o.offset))
	}
	out := []byte("\xfftOc\x00\x00\x00\x02")
	for _, n := range fan {
		out = binary.BigEndian.AppendUint32(out, n)
	}
	out = append(bytes.Join([][]byte{out, ids, crcs, offsets, large}, nil), sum...)
	h := p.newHash()
	h.Write(out)
	return h.Sum(out)
}
