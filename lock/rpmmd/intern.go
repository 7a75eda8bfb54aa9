package rpmmd

import (
	"bytes"
	"unicode/utf8"
)

// interner gives equal texts one string, and checks each text once.
type interner struct {
	s    *scanner
	seen map[string]string
}

func newInterner(s *scanner) *interner {
	return &interner{s: s, seen: map[string]string{}}
}

// plain returns b, which has no references left, as a string.
func (in *interner) plain(b []byte) (string, error) {
	if v, ok := in.seen[string(b)]; ok {
		return v, nil
	}
	v, err := in.checked(b)
	if err == nil {
		in.seen[v] = v
	}
	return v, err
}

// checked returns b as a string of its own. XML 1.0 section 2.2 allows no
// control characters; the rest of a lock, and a terminal, want none either.
func (in *interner) checked(b []byte) (string, error) {
	if !utf8.Valid(b) {
		return "", in.s.errorf("%.40q is not UTF-8", b)
	}
	for _, c := range b {
		if c < ' ' && c != '\t' && c != '\n' && c != '\r' {
			return "", in.s.errorf("%.40q has a control character", b)
		}
	}
	return string(b), nil
}

// attr returns the value of an attribute, "" where it is absent.
func (in *interner) attr(name string) (string, error) {
	return in.value(in.s.attr(name))
}

// value resolves the references of an attribute's value.
func (in *interner) value(raw []byte) (string, error) {
	if bytes.IndexByte(raw, '&') >= 0 {
		in.s.decoded = in.s.decoded[:0]
		if err := in.s.unescape(raw); err != nil {
			return "", err
		}
		raw = in.s.decoded
	}
	return in.plain(raw)
}

// text returns the text of the present element.
func (in *interner) text() (string, error) {
	b, err := in.s.text()
	if err != nil {
		return "", err
	}
	return in.plain(b)
}

// uniqueText is text for what hardly ever repeats, which is not remembered.
func (in *interner) uniqueText() (string, error) {
	b, err := in.s.text()
	if err != nil {
		return "", err
	}
	return in.checked(b)
}
