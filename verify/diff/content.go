package diff

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

const (
	window    = 64 << 10 // of content, kept to show
	hexWidth  = 16       // bytes of a line
	hexBefore = 1        // lines before the first difference
	hexLines  = 6        // lines shown
)

// blob is how two contents differ.
type blob struct {
	sizeA, sizeB int64
	first        int64 // the first differing offset, -1 where all is equal
	count        int64 // differing bytes, of those that both have; -1 where it is not known
	at           int64 // offset of the windows, a multiple of hexWidth
	a, b         []byte
	sized        bool // the sizes have been said
}

func (c *blob) equal() bool { return c.first < 0 }

// whole tells whether the windows are all there is.
func (c *blob) whole() bool {
	return c.at == 0 && int64(len(c.a)) == c.sizeA && int64(len(c.b)) == c.sizeB
}

// compareContent reads both to their ends. It keeps of each the window in
// which the first difference is.
func compareContent(a, b io.Reader) (blob, error) {
	c := blob{first: -1}
	x, y := make([]byte, window), make([]byte, window)
	for off := int64(0); ; off += window {
		n, errA := io.ReadFull(a, x)
		m, errB := io.ReadFull(b, y)
		c.sizeA, c.sizeB = c.sizeA+int64(n), c.sizeB+int64(m)
		if err := errors.Join(notEnd(errA), notEnd(errB)); err != nil {
			return c, err
		}
		if n == 0 && m == 0 {
			return c, nil
		}
		if bytes.Equal(x[:n], y[:m]) {
			continue
		}
		both := min(n, m)
		first := both
		for i := range both {
			if x[i] != y[i] {
				first = min(first, i)
				c.count++
			}
		}
		if c.first < 0 {
			c.first, c.at = off+int64(first), off
			c.a, c.b = bytes.Clone(x[:n]), bytes.Clone(y[:m])
		}
	}
}

func notEnd(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return nil
	}
	return err
}

// explain says how the contents differ: text by lines, all else by the bytes
// around the first difference. base is added to the offsets.
func (d *differ) explain(n *Node, c blob, base int64) {
	if n == nil || c.equal() {
		return
	}
	if c.whole() && base == 0 && d.asText(n, c, c.a, c.b) {
		return
	}
	if !c.sized {
		sizes(n, c)
	}
	switch {
	case c.count == 0:
		n.comment(fmt.Sprintf("one is the beginning of the other, which goes on at %s", place(c.first)))
	case c.sizeA != c.sizeB || c.count < 0:
		n.comment("the first difference is at " + place(c.first))
	default:
		n.comment(fmt.Sprintf("%s, the first at %s", count(c.count, "byte differs", "bytes differ"), place(c.first)))
	}
	d.hex(n, c.a, c.b, base+c.at, int(c.first-c.at))
}

// hex shows the lines around the difference at first of a and b, which lie at
// base.
func (d *differ) hex(n *Node, a, b []byte, base int64, first int) {
	from := max(0, first/hexWidth-hexBefore) * hexWidth
	cutOut := func(p []byte) []string {
		if from >= len(p) {
			return nil
		}
		return hexdump(p[from:min(len(p), from+hexLines*hexWidth)], base+int64(from))
	}
	d.text(n, cutOut(a), cutOut(b), (base+int64(from))/hexWidth+1)
}

// hexdump is the lines of a dump as xxd makes them.
func hexdump(b []byte, base int64) []string {
	var lines []string
	for off := 0; off < len(b); off += hexWidth {
		part := b[off:min(len(b), off+hexWidth)]
		var sb strings.Builder
		fmt.Fprintf(&sb, "%08x:", base+int64(off))
		for i := 0; i < hexWidth; i += 2 {
			switch {
			case i+1 < len(part):
				fmt.Fprintf(&sb, " %x", part[i:i+2])
			case i < len(part):
				fmt.Fprintf(&sb, " %x  ", part[i:])
			default:
				sb.WriteString("     ")
			}
		}
		sb.WriteString("  ")
		for _, c := range part {
			if c < ' ' || c > '~' {
				c = '.'
			}
			sb.WriteByte(c)
		}
		sb.WriteByte('\n')
		lines = append(lines, sb.String())
	}
	return lines
}

// isText tells whether content can be shown by lines.
func isText(b []byte) bool {
	b = bytes.TrimRight(b, "\x00")
	return len(b) < maxText && utf8.Valid(b) && bytes.IndexByte(b, 0) < 0 && bytes.Count(b, []byte{'\n'}) < maxTextLines
}

func splitLines(b []byte) []string {
	if len(b) == 0 {
		return nil
	}
	lines := strings.SplitAfter(string(b), "\n")
	if last := len(lines) - 1; lines[last] == "" {
		lines = lines[:last]
	}
	return lines
}

// raw says of a region of both sides where its bytes differ. where lists the
// spans, counted from base; at names what lies at an offset, "" for nothing.
func (d *differ) raw(n *Node, a, b io.ReaderAt, base int64, where spans, at func(off int64) string) {
	if n == nil || len(where) == 0 {
		return
	}
	first := where[0].off
	start := first / hexWidth * hexWidth
	x, y := readUpTo(a, start, window), readUpTo(b, start, window)
	total := int64(0)
	for _, s := range where {
		total += s.end - s.off
	}
	text := count(total, "byte differs", "bytes differ")
	if len(where) == maxSpans || total > 1<<24 {
		text = fmt.Sprintf("up to %d bytes differ", total)
	}
	n.comment(fmt.Sprintf("%s, the first at %s", text, place(base+first)))
	if at != nil {
		d.places(n, where, at)
	}
	back := start - max(0, start-hexWidth*hexBefore)
	x = append(readUpTo(a, start-back, back), x...)
	y = append(readUpTo(b, start-back, back), y...)
	d.hex(n, x, y, base+start-back, int(first-start+back))
}

// places names what lies where it differs.
func (d *differ) places(n *Node, where spans, at func(off int64) string) {
	const most = 10
	seen := map[string]bool{}
	for _, s := range where {
		name := at(s.off)
		if name == "" || seen[name] {
			continue
		}
		if seen[name] = true; len(seen) <= most {
			n.comment("there lies: " + name)
		}
	}
	if len(seen) > most {
		n.comment(fmt.Sprintf("and %d others", len(seen)-most))
	}
}

// place is an offset in both notations.
func place(off int64) string {
	if off < 10 {
		return fmt.Sprintf("byte %d", off)
	}
	return fmt.Sprintf("byte %d (%#x)", off, off)
}

func count(n int64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

func hexText(b []byte) string { return hex.EncodeToString(b) }
