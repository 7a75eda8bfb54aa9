package solve

import "strings"

// isGlob reports whether a spec has a wildcard.
func isGlob(s string) bool { return strings.ContainsAny(s, "*?[") }

// matchGlob reports whether all of s matches a glob as fnmatch(3) without
// flags: * and ? also match slashes, a set may be negated by ! or ^, and a
// backslash quotes. A set that is not closed stands for itself.
func matchGlob(glob, s string) bool {
	star, from := -1, 0 // where to go on after the last star
	g, i := 0, 0
	for i < len(s) || g < len(glob) {
		if g < len(glob) {
			if glob[g] == '*' {
				star, from = g, i
				g++
				continue
			}
			if i < len(s) {
				if n, ok := matchOne(glob[g:], s[i]); ok {
					g += n
					i++
					continue
				}
			}
		}
		if star < 0 || from >= len(s) {
			return false
		}
		from++
		g, i = star+1, from
	}
	return true
}

// matchOne matches one byte with the front of a glob that is not a star, and
// returns how long that front is.
func matchOne(glob string, c byte) (int, bool) {
	switch glob[0] {
	case '?':
		return 1, true
	case '\\':
		if len(glob) > 1 {
			return 2, glob[1] == c
		}
	case '[':
		if n, in, ok := matchSet(glob, c); ok {
			return n, in
		}
	}
	return 1, glob[0] == c
}

// matchSet matches a byte with a set such as [a-z_]. ok is false where the
// set is not closed.
func matchSet(glob string, c byte) (n int, in, ok bool) {
	i := 1
	negated := i < len(glob) && (glob[i] == '!' || glob[i] == '^')
	if negated {
		i++
	}
	for first := true; i < len(glob); first = false {
		if glob[i] == ']' && !first {
			return i + 1, in != negated, true
		}
		low := glob[i]
		high := low
		if i+2 < len(glob) && glob[i+1] == '-' && glob[i+2] != ']' {
			high = glob[i+2]
			i += 2
		}
		if low <= c && c <= high {
			in = true
		}
		i++
	}
	return 0, false, false
}
