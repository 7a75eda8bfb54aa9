package rpmmd

import (
	"bytes"
	"fmt"
	"strconv"
	"unicode/utf8"
)

// root reads the start tag of the document element.
func (s *scanner) root(name string) error {
	t, err := s.next()
	if err != nil {
		return err
	}
	if t != tokenStart || string(s.name) != name {
		return s.errorf("document element is <%.40s>, want <%s>", s.name, name)
	}
	return nil
}

// children calls f after the start tag of each child of the element whose
// start tag was just read, and consumes the end tag. f must consume its
// element's end. For the document element, nothing may follow.
func (s *scanner) children(f func(name []byte) error) error {
	depth := len(s.depths)
	for {
		t, err := s.next()
		if err != nil {
			return err
		}
		if t == tokenEnd {
			break
		}
		if err := f(s.name); err != nil {
			return err
		}
	}
	if depth == 1 {
		if _, err := s.next(); err != nil {
			return err
		}
	}
	return nil
}

// skip consumes the rest of the element whose start tag was just read.
func (s *scanner) skip() error {
	for depth := len(s.depths); len(s.depths) >= depth; {
		if _, err := s.next(); err != nil {
			return err
		}
	}
	return nil
}

// text returns the text of the element whose start tag was just read, up to
// its end tag, which it consumes. Valid until the next call.
func (s *scanner) text() ([]byte, error) {
	s.decoded = s.decoded[:0]
	if s.selfClose {
		s.selfClose = false
		return s.decoded, s.pop()
	}
	for {
		i := bytes.IndexByte(s.buf[s.pos:s.end], '<')
		if i < 0 {
			if err := s.fill(); err != nil {
				return nil, s.unexpected(err)
			}
			continue
		}
		if err := s.unescape(s.buf[s.pos : s.pos+i]); err != nil {
			return nil, err
		}
		s.pos += i
		if len(s.decoded) > maxToken {
			return nil, s.errorf("a text is longer than %d bytes", maxToken)
		}
		if err := s.need(4); err != nil {
			return nil, err
		}
		var err error
		switch c := s.buf[s.pos+1]; {
		case c == '/':
			return s.decoded, s.endTag()
		case c == '?':
			err = s.skipPast("?>")
		case c == '!' && s.buf[s.pos+2] == '[':
			err = s.cdata()
		case c == '!':
			err = s.markup()
		default:
			err = s.errorf("an element where text was expected")
		}
		if err != nil {
			return nil, err
		}
	}
}

// cdata appends a CDATA section to decoded.
func (s *scanner) cdata() error {
	const head = "<![CDATA["
	if err := s.need(len(head)); err != nil {
		return err
	}
	if string(s.buf[s.pos:s.pos+len(head)]) != head {
		return s.errorf("malformed CDATA section")
	}
	for {
		b := s.buf[s.pos+len(head) : s.end]
		if i := bytes.Index(b, []byte("]]>")); i >= 0 {
			s.decoded = append(s.decoded, b[:i]...)
			s.pos += len(head) + i + 3
			return nil
		}
		if err := s.fill(); err != nil {
			return s.unexpected(err)
		}
	}
}

// unescape appends raw to decoded, its references resolved.
func (s *scanner) unescape(raw []byte) error {
	for {
		i := bytes.IndexByte(raw, '&')
		if i < 0 {
			s.decoded = append(s.decoded, raw...)
			return nil
		}
		s.decoded = append(s.decoded, raw[:i]...)
		n := bytes.IndexByte(raw[i:min(len(raw), i+12)], ';')
		if n < 0 {
			return s.errorf("stray & in %.20q", raw[i:])
		}
		c, err := reference(raw[i+1 : i+n])
		if err != nil {
			return s.errorf("%w", err)
		}
		s.decoded = utf8.AppendRune(s.decoded, c)
		raw = raw[i+n+1:]
	}
}

// reference resolves a predefined entity or a character reference.
func reference(name []byte) (rune, error) {
	switch string(name) {
	case "amp":
		return '&', nil
	case "lt":
		return '<', nil
	case "gt":
		return '>', nil
	case "quot":
		return '"', nil
	case "apos":
		return '\'', nil
	}
	if len(name) > 1 && name[0] == '#' {
		base, digits := 10, name[1:]
		if digits[0] == 'x' {
			base, digits = 16, digits[1:]
		}
		if n, err := strconv.ParseUint(string(digits), base, 31); err == nil && n > 0 && utf8.ValidRune(rune(n)) {
			return rune(n), nil
		}
	}
	return 0, fmt.Errorf("entity &%s; is not known", name)
}
