package rpmmd

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// maxMirrorLine bounds one line of a list of mirrors, in bytes.
const maxMirrorLine = 64 << 10

// ParseMirrorlist reads a list of mirrors: one address a line, in the order in
// which they are to be tried. Comments (#) and lines without "://" are left
// out, as are addresses that are there already; variables stay as they are. A
// list without an address is an error, one that says so where it is a metalink.
func ParseMirrorlist(r io.Reader) ([]string, error) {
	in := bufio.NewScanner(io.LimitReader(r, MaxMetalink+1))
	in.Buffer(nil, maxMirrorLine)
	var out []string
	odd, size := "", 0
	seen := make(map[string]bool)
	for line := 1; in.Scan(); line++ {
		if size += len(in.Bytes()) + 1; size > MaxMetalink {
			return nil, fmt.Errorf("mirrorlist: more than %d bytes", MaxMetalink)
		}
		b := bytes.TrimSpace(in.Bytes())
		switch {
		case !utf8.Valid(b) || slices.ContainsFunc(b, func(c byte) bool { return c < ' ' && c != '\t' || c == 0x7f }):
			return nil, fmt.Errorf("mirrorlist: line %d: %.80q is not plain text", line, b)
		case len(b) == 0 || b[0] == '#':
			continue
		case bytes.HasPrefix(b, []byte("<metalink")):
			return nil, errors.New("mirrorlist: this is a metalink: give its address as metalink, not as mirrorlist")
		case b[0] == '<' || !bytes.Contains(b, []byte("://")):
			if odd == "" {
				odd = string(b)
			}
			continue
		case seen[string(b)]:
			continue
		}
		if len(out) == MaxMirrors {
			return nil, fmt.Errorf("mirrorlist: more than %d mirrors", MaxMirrors)
		}
		seen[string(b)] = true
		out = append(out, string(b))
	}
	if err := in.Err(); err != nil {
		return nil, fmt.Errorf("mirrorlist: %w", err)
	}
	switch {
	case len(out) > 0:
		return out, nil
	case odd != "":
		return nil, fmt.Errorf("mirrorlist: no address in it; it says %.200q", strings.TrimSpace(odd))
	}
	return nil, errors.New("mirrorlist: no address in it")
}
