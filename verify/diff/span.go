package diff

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"sort"
	"sync"
)

// span is the bytes from off up to, and without, end.
type span struct{ off, end int64 }

// spans are in order and do not overlap.
type spans []span

// normalise makes spans of a list in any order.
func normalise(list []span) spans {
	sorted := slices.Clone(list)
	slices.SortFunc(sorted, func(a, b span) int { return cmp.Compare(a.off, b.off) })
	var out spans
	for _, s := range sorted {
		switch last := len(out) - 1; {
		case s.end <= s.off:
		case last >= 0 && s.off <= out[last].end:
			out[last].end = max(out[last].end, s.end)
		default:
			out = append(out, s)
		}
	}
	return out
}

// from is the index of the first span that ends behind off.
func (s spans) from(off int64) int {
	return sort.Search(len(s), func(i int) bool { return s[i].end > off })
}

// within is the part of s in w, counted from the start of w.
func (s spans) within(w span) spans {
	var out spans
	for _, x := range s[s.from(w.off):] {
		if x.off >= w.end {
			break
		}
		out = append(out, span{max(x.off, w.off) - w.off, min(x.end, w.end) - w.off})
	}
	return out
}

func (s spans) touches(w span) bool {
	i := s.from(w.off)
	return i < len(s) && s[i].off < w.end && w.off < w.end
}

// touchesAny tells whether s and o have a byte in common.
func (s spans) touchesAny(o spans) bool {
	return slices.ContainsFunc(o, s.touches)
}

// minus is what of s is not in o.
func (s spans) minus(o spans) spans {
	var out spans
	for _, x := range s {
		for _, y := range o[o.from(x.off):] {
			if y.off >= x.end {
				break
			}
			if y.off > x.off {
				out = append(out, span{x.off, y.off})
			}
			x.off = min(y.end, x.end)
		}
		if x.off < x.end {
			out = append(out, x)
		}
	}
	return out
}

// and is what s and o have in common.
func (s spans) and(o spans) spans { return s.minus(s.minus(o)) }

const (
	chunk    = 1 << 20 // read at a time
	page     = 4096
	maxSpans = 1 << 15 // kept; beyond, near ones become one
)

// collector gathers differing bytes in order. When there are too many spans,
// those that are near to each other become one, so that what is kept is
// bounded and covers all differences.
type collector struct {
	list spans
	gap  int64 // spans so near become one
}

func (c *collector) add(s span) {
	if last := len(c.list) - 1; last >= 0 && s.off-c.list[last].end <= c.gap {
		c.list[last].end = s.end
		return
	}
	if c.list = append(c.list, s); len(c.list) <= maxSpans {
		return
	}
	c.gap = max(16, 4*c.gap)
	all := c.list
	c.list = nil
	for _, s := range all {
		c.add(s)
	}
}

// compare returns where the first size bytes of a and b differ. It reads both
// sides at the same time.
func compare(ctx context.Context, a, b io.ReaderAt, size int64) (spans, error) {
	var c collector
	x, y := make([]byte, chunk), make([]byte, chunk)
	for off := int64(0); off < size; off += chunk {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		n := min(chunk, size-off)
		var wg sync.WaitGroup
		var errB error
		wg.Go(func() { errB = readFull(b, y[:n], off) })
		errA := readFull(a, x[:n], off)
		wg.Wait()
		if errA != nil {
			return nil, fmt.Errorf("reading the first disk at %d: %w", off, errA)
		}
		if errB != nil {
			return nil, fmt.Errorf("reading the second disk at %d: %w", off, errB)
		}
		if !bytes.Equal(x[:n], y[:n]) {
			c.compare(x[:n], y[:n], off)
		}
	}
	return c.list, nil
}

// compare adds where x and y, of the same length, differ.
func (c *collector) compare(x, y []byte, off int64) {
	for at := 0; at < len(x); at += page {
		end := min(at+page, len(x))
		if bytes.Equal(x[at:end], y[at:end]) {
			continue
		}
		for i := at; i < end; i++ {
			if x[i] == y[i] {
				continue
			}
			start := i
			for i < end && x[i] != y[i] {
				i++
			}
			c.add(span{off + int64(start), off + int64(i)})
		}
	}
}

// readFull fills b: io.ReaderAt may end with io.EOF beside the last bytes.
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

// readUpTo reads n bytes, or what there is of them.
func readUpTo(r io.ReaderAt, off, n int64) []byte {
	b := make([]byte, n)
	got, err := r.ReadAt(b, off)
	if err != nil && got < 0 {
		return nil
	}
	return b[:got]
}
