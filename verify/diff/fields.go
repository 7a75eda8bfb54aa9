package diff

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"time"
)

// field is a named part of an on-disk structure, and its text form.
type field struct {
	name     string
	off, len int
	show     func(b []byte) string
}

// maxField is the longest field that is shown by its value, in characters.
const maxField = 160

// fields gives n a unified diff of the fields of a structure, of which a and
// b are the bytes and base the offset on the disk or in the file. Bytes that
// differ in no field are shown as such.
func (d *differ) fields(n *Node, a, b []byte, base int64, list []field) {
	if bytes.Equal(a, b) {
		return
	}
	covered := make([]bool, max(len(a), len(b)))
	var linesA, linesB []string
	for _, f := range list {
		x, y := slice(a, f.off, f.len), slice(b, f.off, f.len)
		if x == nil && y == nil {
			continue
		}
		lineA, lineB := line(f, x), line(f, y)
		if !bytes.Equal(x, y) && (lineA == lineB || len(lineA) > maxField || len(lineB) > maxField) {
			n.comment(f.name + " differs")
			continue // its bytes are shown
		}
		for i := f.off; i < f.off+f.len && i < len(covered); i++ {
			covered[i] = true
		}
		if !bytes.Equal(x, y) {
			linesA, linesB = append(linesA, lineA), append(linesB, lineB)
		}
	}
	for off := 0; off < len(covered); off += hexWidth {
		if !differsUncovered(a, b, covered, off) {
			continue
		}
		if x := slice(a, off, min(hexWidth, len(a)-off)); x != nil {
			linesA = append(linesA, hexdump(x, base+int64(off))...)
		}
		if y := slice(b, off, min(hexWidth, len(b)-off)); y != nil {
			linesB = append(linesB, hexdump(y, base+int64(off))...)
		}
	}
	d.text(n, linesA, linesB, 1)
}

func line(f field, b []byte) string {
	if b == nil {
		return f.name + ": cut off\n"
	}
	return f.name + ": " + Printable(f.show(b)) + "\n"
}

// differsUncovered tells whether one of the bytes of a line that are in no
// field differs.
func differsUncovered(a, b []byte, covered []bool, off int) bool {
	for i := off; i < off+hexWidth && i < len(covered); i++ {
		if !covered[i] && (i >= len(a) || i >= len(b) || a[i] != b[i]) {
			return true
		}
	}
	return false
}

// slice is b[off:off+n], nil where b does not have all of it.
func slice(b []byte, off, n int) []byte {
	if off < 0 || n <= 0 || off > len(b) || n > len(b)-off {
		return nil
	}
	return b[off : off+n]
}

// number shows a little-endian number of 1 to 8 bytes.
func number(b []byte) uint64 {
	var wide [8]byte
	copy(wide[:], b)
	return binary.LittleEndian.Uint64(wide[:])
}

func decimal(b []byte) string     { return fmt.Sprint(number(b)) }
func hexadecimal(b []byte) string { return fmt.Sprintf("0x%0*x", 2*len(b), number(b)) }
func octal(v uint32) string       { return fmt.Sprintf("%#o", v) }
func quoted(b []byte) string      { return fmt.Sprintf("%q", strings.TrimRight(string(b), " \x00")) }

// uuid shows 16 bytes that are in the order of the text form.
func uuid(b []byte) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:16])
}

// unixTime shows seconds since 1970.
func unixTime(b []byte) string { return timeText(int64(number(b))) } //nolint:gosec // any value is shown

func timeText(seconds int64) string {
	if seconds < 0 || seconds > 253402300799 { // 9999-12-31
		return fmt.Sprint(seconds)
	}
	return fmt.Sprintf("%d (%s)", seconds, time.Unix(seconds, 0).UTC().Format("2006-01-02 15:04:05 UTC"))
}
