package diff

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
)

// pycHeader is the length of what is in front of compiled Python (PEP 552).
const pycHeader = 16

// pyc compares compiled Python: the header, in which is a time stamp or a hash
// of the source, and the code.
func (d *differ) pyc(n *Node, at spot, a, b *io.SectionReader) bool {
	x, y := readUpTo(a, 0, pycHeader), readUpTo(b, 0, pycHeader)
	fields := []field{{"version", 0, 4, hexText}, {"flags", 4, 4, decimal}}
	if x[4]&1 == 0 && y[4]&1 == 0 {
		fields = append(fields, field{"source modified", 8, 4, unixTime}, field{"size of the source", 12, 4, decimal})
	} else {
		fields = append(fields, field{"hash of the source", 8, 8, hexText})
	}
	if !bytes.Equal(x, y) {
		d.fields(d.child(n, at.below("header").path), x, y, 0, fields)
	}
	cut := func(r *io.SectionReader) io.Reader { return io.NewSectionReader(r, pycHeader, r.Size()-pycHeader) }
	found, err := compareContent(cut(a), cut(b))
	if err == nil && !found.equal() {
		d.explain(d.child(n, at.below("code").path), found, pycHeader)
	}
	return len(n.Details) > 0
}

// mo compares catalogs of translations (GNU gettext manual, "The Format of GNU
// MO Files").
func (d *differ) mo(n *Node, at spot, a, b *io.SectionReader) bool {
	x, okA := messages(readUpTo(a, 0, min(a.Size(), maxTable)))
	y, okB := messages(readUpTo(b, 0, min(b.Size(), maxTable)))
	if !okA || !okB {
		return false
	}
	before := n.UnifiedDiff
	d.text(n, x, y, 1)
	return n.UnifiedDiff != before
}

// messages are the translations of a catalog, a line each; false where it
// cannot be read.
func messages(b []byte) ([]string, bool) {
	order := order(b, "\xde\x12\x04\x95")
	number := func(off uint64) uint64 {
		if off > uint64(len(b)) || slice(b, int(off), 4) == nil {
			return 1 << 40
		}
		return uint64(order.Uint32(b[off:]))
	}
	count, ids, texts := number(8), number(12), number(16)
	if count > maxTextLines {
		return nil, false
	}
	var out []string
	held := uint64(0)
	for i := range count {
		var parts [2]string
		for j, table := range []uint64{ids, texts} {
			length, at := number(table+8*i), number(table+8*i+4)
			if held += length; at > uint64(len(b)) || length > uint64(len(b))-at || held > maxTable {
				return nil, false
			}
			parts[j] = string(b[at : at+length])
		}
		out = append(out, fmt.Sprintf("%q: %q\n", parts[0], parts[1]))
	}
	return out, true
}

// indentJSON gives both texts with each value on a line of its own, where both
// are JSON and that tells more of what differs.
func indentJSON(a, b []byte) (x, y []byte, ok bool) {
	const few = 3                                       // lines
	if nested(a) > maxNested || nested(b) > maxNested { // what is deep grows with its depth
		return nil, nil, false
	}
	if bytes.Count(bytes.TrimSpace(a), []byte{'\n'}) > few && bytes.Count(bytes.TrimSpace(b), []byte{'\n'}) > few || !braced(a) || !braced(b) {
		return nil, nil, false
	}
	var p, q bytes.Buffer
	if json.Indent(&p, a, "", "  ") != nil || json.Indent(&q, b, "", "  ") != nil || bytes.Equal(p.Bytes(), q.Bytes()) || max(p.Len(), q.Len()) > maxText {
		return nil, nil, false
	}
	return p.Bytes(), q.Bytes(), true
}

// maxNested is how deep JSON may be that is shown with each value on its line.
const maxNested = 50

// nested is how deep the brackets of a text are in each other.
func nested(b []byte) (deepest int) {
	depth := 0
	for _, c := range b {
		switch c {
		case '{', '[':
			depth++
			deepest = max(deepest, depth)
		case '}', ']':
			depth--
		}
	}
	return deepest
}

func braced(b []byte) bool {
	b = bytes.TrimSpace(b)
	return len(b) > 1 && (b[0] == '{' || b[0] == '[')
}
