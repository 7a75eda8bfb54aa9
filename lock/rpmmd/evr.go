package rpmmd

import (
	"fmt"
	"strconv"
	"strings"
)

// EVR is an epoch, version and release. An absent epoch is 0. In a
// dependency, an empty Release stands for any release.
type EVR struct {
	Epoch            int
	Version, Release string
}

// ParseEVR reads "[epoch:]version[-release]".
func ParseEVR(s string) (EVR, error) {
	var e EVR
	rest := s
	if epoch, after, ok := strings.Cut(s, ":"); ok {
		n, err := parseEpoch(epoch)
		if err != nil {
			return EVR{}, fmt.Errorf("version %q: %w", s, err)
		}
		e.Epoch, rest = n, after
	}
	if strings.Contains(rest, ":") {
		return EVR{}, fmt.Errorf("version %q has two colons", s)
	}
	if i := strings.LastIndexByte(rest, '-'); i >= 0 {
		rest, e.Release = rest[:i], rest[i+1:]
	}
	e.Version = rest
	if e.Version == "" {
		return EVR{}, fmt.Errorf("version %q is empty", s)
	}
	return e, nil
}

// parseEpoch reads an epoch, an unsigned number of at most 31 bits; empty is 0.
func parseEpoch(s string) (int, error) {
	if s == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil {
		return 0, fmt.Errorf("epoch %q is not a number", s)
	}
	return int(n), nil
}

// String returns "[epoch:]version[-release]", without an epoch of 0.
func (e EVR) String() string {
	s := e.Version
	if e.Release != "" {
		s += "-" + e.Release
	}
	if e.Epoch != 0 {
		s = strconv.Itoa(e.Epoch) + ":" + s
	}
	return s
}

// Compare orders two EVRs as rpm does: by epoch, version, release. An empty
// release sorts before any other.
func (e EVR) Compare(o EVR) int {
	if e.Epoch != o.Epoch {
		if e.Epoch < o.Epoch {
			return -1
		}
		return 1
	}
	if c := CompareVersions(e.Version, o.Version); c != 0 || e.Release == o.Release {
		return c
	}
	switch {
	case e.Release == "":
		return -1
	case o.Release == "":
		return 1
	}
	return CompareVersions(e.Release, o.Release)
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }
func isAlpha(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }

// CompareVersions orders two versions, or two releases, as rpm's rpmvercmp:
// runs of digits compare as numbers, runs of letters as text, a number is
// newer than letters, what lies between separates only; "~" sorts before
// everything, the end included, and "^" after the end but before anything
// else. It returns -1, 0 or 1.
func CompareVersions(a, b string) int {
	if a == b {
		return 0
	}
	for {
		a, b = skipSeparators(a), skipSeparators(b)
		if c, done := compareMarks(&a, &b); done {
			return c
		} else if c != 0 {
			continue
		}
		if a == "" || b == "" {
			break
		}
		var c int
		if isDigit(a[0]) || isDigit(b[0]) {
			c = compareRun(&a, &b, isDigit, true)
		} else {
			c = compareRun(&a, &b, isAlpha, false)
		}
		if c != 0 {
			return c
		}
	}
	switch {
	case a != "":
		return 1
	case b != "":
		return -1
	}
	return 0
}

func skipSeparators(s string) string {
	i := 0
	for i < len(s) && !isDigit(s[i]) && !isAlpha(s[i]) && s[i] != '~' && s[i] != '^' {
		i++
	}
	return s[i:]
}

// compareMarks handles "~" and "^" at the front. It returns done with the
// order where one of them decides, or 1 and not done where it consumed the
// same mark from both.
func compareMarks(a, b *string) (c int, done bool) {
	at := func(s string, mark byte) bool { return s != "" && s[0] == mark }
	for _, mark := range []byte{'~', '^'} {
		inA, inB := at(*a, mark), at(*b, mark)
		switch {
		case inA && inB:
			*a, *b = (*a)[1:], (*b)[1:]
			return 1, false
		case inA && (mark == '~' || *b != ""):
			return -1, true
		case inA:
			return 1, true
		case inB && (mark == '~' || *a != ""):
			return 1, true
		case inB:
			return -1, true
		}
	}
	return 0, false
}

// compareRun compares the leading runs of a class of bytes and cuts them off.
// Where one side has no such run, the side with digits is newer.
func compareRun(a, b *string, class func(byte) bool, number bool) int {
	cut := func(s *string) string {
		i := 0
		for i < len(*s) && class((*s)[i]) {
			i++
		}
		run := (*s)[:i]
		*s = (*s)[i:]
		if number {
			run = strings.TrimLeft(run, "0")
			if run == "" && i > 0 {
				run = "0"
			}
		}
		return run
	}
	x, y := cut(a), cut(b)
	if number && len(x) != len(y) {
		if len(x) < len(y) {
			return -1
		}
		return 1
	}
	return strings.Compare(x, y)
}
