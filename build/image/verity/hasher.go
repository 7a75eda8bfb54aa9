package verity

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"sync"
)

// workers is how many chunks are worked on at a time. It bounds memory
// (about 16 MiB) and how many CPUs are of use.
const workers = 32

// hasher is what one goroutine works with.
type hasher struct {
	salt []byte
	h    hash.Hash
	data []byte // a chunk
	tree []byte // a hash block
	zero []byte // the hash block of a chunk of zeros; nil until there was one
}

func newHasher(salt []byte) *hasher {
	return &hasher{salt: salt, h: sha256.New(), tree: make([]byte, BlockSize)}
}

// sum returns the digest of a block.
func (h *hasher) sum(block []byte) (d [digestSize]byte) {
	h.h.Reset()
	h.h.Write(h.salt)
	h.h.Write(block)
	h.h.Sum(d[:0])
	return d
}

// readData returns n blocks of data from the given block on. They are valid
// until the next call.
func (h *hasher) readData(data io.ReaderAt, l layout, at, n int64) ([]byte, error) {
	if h.data == nil {
		h.data = make([]byte, l.chunk())
	}
	b := h.data[:n*l.dataBlock]
	if err := readFull(data, b, at*l.dataBlock); err != nil {
		return nil, fmt.Errorf("reading data blocks %d to %d: %w", at, at+n-1, err)
	}
	return b, nil
}

// readChunk returns the data below block i of the lowest level.
func (h *hasher) readChunk(data io.ReaderAt, l layout, i int64) ([]byte, error) {
	at := i * perBlock
	return h.readData(data, l, at, min(perBlock, l.dataBlocks-at))
}

// hashChunk returns block i of the lowest level. It is valid until the next
// call.
func (h *hasher) hashChunk(data io.ReaderAt, l layout, i int64) ([]byte, error) {
	b, err := h.readChunk(data, l, i)
	if err != nil {
		return nil, err
	}
	if int64(len(b)) == l.chunk() && isZero(b) {
		copy(h.tree, h.zeroBlock(b[:l.dataBlock]))
		return h.tree, nil
	}
	clear(h.tree)
	for n := 0; len(b) > 0; n += digestSize {
		d := h.sum(b[:l.dataBlock])
		copy(h.tree[n:], d[:])
		b = b[l.dataBlock:]
	}
	return h.tree, nil
}

// zeroBlock is the hash block of a chunk of zeros, of which sparse disks have
// many.
func (h *hasher) zeroBlock(block []byte) []byte {
	if h.zero == nil {
		d := h.sum(block)
		h.zero = bytes.Repeat(d[:], perBlock)
	}
	return h.zero
}

func isZero(b []byte) bool {
	var zeros [BlockSize]byte
	for len(b) > 0 {
		n := min(len(b), BlockSize)
		if !bytes.Equal(b[:n], zeros[:n]) {
			return false
		}
		b = b[n:]
	}
	return true
}

// parallel calls do for 0 to n-1, several at a time, until one fails. It
// returns the error of the smallest number that fails: numbers are handed
// out in order, and those that were handed out are finished.
func parallel(n int64, salt []byte, do func(h *hasher, i int64) error) error {
	var (
		mu       sync.Mutex
		next     int64
		failed   error
		failedAt int64
		wg       sync.WaitGroup
	)
	take := func() (int64, bool) {
		mu.Lock()
		defer mu.Unlock()
		if failed != nil || next == n {
			return 0, false
		}
		next++
		return next - 1, true
	}
	for range min(n, workers) {
		wg.Go(func() {
			h := newHasher(salt)
			for {
				i, ok := take()
				if !ok {
					return
				}
				if err := do(h, i); err != nil {
					mu.Lock()
					if failed == nil || i < failedAt {
						failed, failedAt = err, i
					}
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	return failed
}
