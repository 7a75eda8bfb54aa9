package fat

import (
	"encoding/binary"
	"fmt"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

const (
	longUnits = 13  // UTF-16 code units of a long-name entry
	maxUnits  = 255 // of a long name

	lowerBase = 0x08 // flags of a short entry, as Windows NT introduced them
	lowerExt  = 0x10
)

// fold makes the form in which names are compared: the format ignores case.
func fold(name string) string { return strings.ToUpper(name) }

// checkName refuses what a long name cannot have ("Long Directory Entries").
func checkName(name string) error {
	switch {
	case name == "" || name == "." || name == "..":
		return fmt.Errorf("%q is no name", name)
	case !utf8.ValidString(name):
		return fmt.Errorf("name %q is not UTF-8", name)
	case strings.HasSuffix(name, ".") || strings.HasSuffix(name, " ") || name[0] == ' ':
		return fmt.Errorf("name %q starts with a blank, or ends in a blank or dot", name)
	case strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f || strings.ContainsRune(`"*/:<>?\|`, r) }):
		return fmt.Errorf("name %q has a character that FAT forbids", name)
	case len(utf16.Encode([]rune(name))) > maxUnits:
		return fmt.Errorf("name %q is longer than %d UTF-16 code units", name, maxUnits)
	}
	return nil
}

// shortRune tells whether a short name may have r.
func shortRune(r rune) bool {
	return r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("$%'-_@~`!(){}^#&", r)
}

// shortName is the short form of a name that needs no long one, and its
// flags.
func shortName(name string) (short [11]byte, flags byte, ok bool) {
	base, ext, dotted := strings.Cut(name, ".")
	if base == "" || len(base) > 8 || len(ext) > 3 || dotted && ext == "" {
		return short, 0, false
	}
	for i, part := range []struct {
		s     *string
		lower byte
	}{{&base, lowerBase}, {&ext, lowerExt}} {
		up := strings.ToUpper(*part.s)
		if strings.ContainsFunc(up, func(r rune) bool { return !shortRune(r) }) {
			return short, 0, false
		}
		if up != *part.s {
			if strings.ToLower(*part.s) != *part.s {
				return short, 0, false
			}
			flags |= []byte{lowerBase, lowerExt}[i]
			*part.s = up
		}
	}
	return pad83(base, ext), flags, true
}

// makeShort makes a short name for a long one, NAME~N.EXT, that is not taken
// ("Generating 8.3 names from long names").
func makeShort(name string, taken map[[11]byte]bool) ([11]byte, error) {
	up := strings.Map(func(r rune) rune {
		switch {
		case r == ' ':
			return -1
		case r == '.' || shortRune(r):
			return r
		}
		return '_'
	}, strings.ToUpper(name))
	up = strings.TrimLeft(up, ".")
	base, ext := up, ""
	if i := strings.LastIndexByte(up, '.'); i >= 0 {
		base, ext = up[:i], up[i+1:]
	}
	base, ext = strings.ReplaceAll(base, ".", ""), ext[:min(len(ext), 3)]
	for i := 1; i < 1_000_000; i++ {
		tail := fmt.Sprintf("~%d", i)
		short := pad83(base[:min(len(base), 8-len(tail))]+tail, ext)
		if !taken[short] {
			return short, nil
		}
	}
	return [11]byte{}, fmt.Errorf("no short name is left for %q", name)
}

func pad83(base, ext string) [11]byte {
	return [11]byte([]byte(fmt.Sprintf("%-8s%-3s", base, ext)))
}

// longEntries is how many entries a long name takes.
func longEntries(name string) int {
	return (len(utf16.Encode([]rune(name))) + longUnits - 1) / longUnits
}

// longPlaces are the offsets of the code units in a long-name entry.
var longPlaces = [longUnits]int{1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30}

// appendLong appends the entries of a long name, last part first.
func appendLong(b []byte, name string, short [11]byte) []byte {
	units := utf16.Encode([]rune(name))
	n := longEntries(name)
	if len(units) < n*longUnits {
		units = append(units, 0)
	}
	for len(units) < n*longUnits {
		units = append(units, 0xffff)
	}
	for i := n; i > 0; i-- {
		e := make([]byte, entrySize)
		e[0] = byte(i)
		if i == n {
			e[0] |= 0x40
		}
		e[11], e[13] = attrLong, checksum(short)
		for j, at := range longPlaces {
			binary.LittleEndian.PutUint16(e[at:], units[(i-1)*longUnits+j])
		}
		b = append(b, e...)
	}
	return b
}

// checksum ties long-name entries to their short one ("Long Directory Entry
// Structure").
func checksum(short [11]byte) byte {
	sum := byte(0)
	for _, c := range short {
		sum = sum<<7 | sum>>1
		sum += c
	}
	return sum
}
