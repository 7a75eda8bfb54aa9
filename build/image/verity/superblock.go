package verity

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
)

const (
	signature      = "verity\x00\x00"
	superblockSize = 512
	maxSalt        = 256
	algorithm      = "sha256"
)

// Superblock is what the superblock of a hash area says. What else is in it
// is the same for all that this package reads and writes.
type Superblock struct {
	UUID       [16]byte
	Salt       []byte
	DataBlock  int   // bytes
	DataBlocks int64 // of DataBlock bytes
}

// DataSize is how many bytes of data the hash area is of, and HashSize how many
// it has itself.
func (s Superblock) DataSize() int64 { return s.DataBlocks * int64(s.DataBlock) }

// HashSize is the size in bytes of the hash area.
func (s Superblock) HashSize() int64 { return s.Params().HashSize(s.DataSize()) }

// Params is what the hash area was made with.
func (s Superblock) Params() Params {
	return Params{UUID: s.UUID, Salt: s.Salt, DataBlock: s.DataBlock}
}

// Offsets within the superblock (struct verity_sb of cryptsetup).
const (
	sbVersion       = 8  // u32: 1
	sbHashType      = 12 // u32: 1
	sbUUID          = 16 // 16 bytes
	sbAlgorithm     = 32 // 32 bytes, filled up with NUL
	sbDataBlockSize = 64 // u32
	sbHashBlockSize = 68 // u32
	sbDataBlocks    = 72 // u64
	sbSaltSize      = 80 // u16, then 6 bytes of zeros
	sbSalt          = 88 // 256 bytes, then zeros up to 512
)

// encode returns the first block of a hash area.
func (s Superblock) encode() ([]byte, error) {
	if len(s.Salt) > maxSalt {
		return nil, fmt.Errorf("salt has %d bytes, more than %d", len(s.Salt), maxSalt)
	}
	b := make([]byte, BlockSize)
	le := binary.LittleEndian
	copy(b, signature)
	le.PutUint32(b[sbVersion:], 1)
	le.PutUint32(b[sbHashType:], 1)
	copy(b[sbUUID:], s.UUID[:])
	copy(b[sbAlgorithm:], algorithm)
	le.PutUint32(b[sbDataBlockSize:], uint32(s.DataBlock))
	le.PutUint32(b[sbHashBlockSize:], BlockSize)
	le.PutUint64(b[sbDataBlocks:], uint64(s.DataBlocks))
	le.PutUint16(b[sbSaltSize:], uint16(len(s.Salt)))
	copy(b[sbSalt:], s.Salt)
	return b, nil
}

// ReadSuperblock reads the superblock at the start of a hash area. It fails
// where the hash area is of a variant that this package does not know.
func ReadSuperblock(r io.ReaderAt) (Superblock, error) {
	b := make([]byte, superblockSize)
	if err := readFull(r, b, 0); err != nil {
		return Superblock{}, fmt.Errorf("reading the superblock: %w", err)
	}
	if string(b[:len(signature)]) != signature {
		return Superblock{}, fmt.Errorf("no verity superblock: signature is %q, want %q", b[:len(signature)], signature)
	}
	le := binary.LittleEndian
	for _, f := range []struct {
		name string
		at   int
		want uint32
	}{
		{"version", sbVersion, 1},
		{"hash type", sbHashType, 1},
		{"hash block size", sbHashBlockSize, BlockSize},
	} {
		if got := le.Uint32(b[f.at:]); got != f.want {
			return Superblock{}, fmt.Errorf("verity superblock: %s is %d, want %d", f.name, got, f.want)
		}
	}
	name, _, _ := bytes.Cut(b[sbAlgorithm:sbDataBlockSize], []byte{0})
	if string(name) != algorithm {
		return Superblock{}, fmt.Errorf("verity superblock: algorithm is %q, want %q", name, algorithm)
	}
	block := int(le.Uint32(b[sbDataBlockSize:]))
	if !isDataBlock(block) {
		return Superblock{}, fmt.Errorf("verity superblock: data block size is %d, want 512, 1024, 2048 or %d", block, BlockSize)
	}
	n := le.Uint64(b[sbDataBlocks:])
	if most := uint64(MaxDataSize / block); n == 0 || n > most {
		return Superblock{}, fmt.Errorf("verity superblock: %d data blocks, want 1 to %d", n, most)
	}
	saltSize := int(le.Uint16(b[sbSaltSize:]))
	if saltSize > maxSalt {
		return Superblock{}, fmt.Errorf("verity superblock: salt has %d bytes, more than %d", saltSize, maxSalt)
	}
	s := Superblock{DataBlock: block, DataBlocks: int64(n), Salt: bytes.Clone(b[sbSalt : sbSalt+saltSize])}
	copy(s.UUID[:], b[sbUUID:])
	return s, nil
}

// readFull is ReadAt of the whole of b: an end before that is
// io.ErrUnexpectedEOF.
func readFull(r io.ReaderAt, b []byte, off int64) error {
	n, err := r.ReadAt(b, off)
	switch {
	case n == len(b):
		return nil
	case err == nil || err == io.EOF:
		return io.ErrUnexpectedEOF
	}
	return err
}
