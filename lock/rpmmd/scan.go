package rpmmd

import (
	"bytes"
	"fmt"
	"io"
)

const (
	maxToken = 1 << 20 // bytes of one tag or of one text that is asked for
	maxDepth = 64
)

// token is what next returns.
type token uint8

const (
	tokenEnd   token = iota // an end tag, or the second half of <a/>
	tokenStart              // a start tag: name and attrs are set
	tokenEOF                // the document element is closed and nothing follows
)

// attr is an attribute; its value still has its entities.
type attr struct{ name, value []byte }

// scanner splits XML into tags. name and attrs are valid until the next call.
// Text is skipped unless text is called after a start tag.
type scanner struct {
	r         io.Reader
	kind      string // the file's kind, for errors
	buf       []byte
	pos, end  int
	consumed  int64 // bytes dropped from buf
	lines     int   // line feeds among them
	eof       bool
	name      []byte
	attrs     []attr
	selfClose bool // the next token is the end of this element
	open      []byte
	depths    []int // start of each open element's name in open
	rooted    bool  // a document element was seen
	decoded   []byte
}

func newScanner(r io.Reader, kind string) *scanner {
	return &scanner{r: r, kind: kind, buf: make([]byte, 64<<10)}
}

// offset is the present position, in bytes.
func (s *scanner) offset() int64 { return s.consumed + int64(s.pos) }

// errorf reports a problem at the present position.
func (s *scanner) errorf(format string, args ...any) error {
	line := s.lines + bytes.Count(s.buf[:s.pos], []byte{'\n'}) + 1
	return fmt.Errorf("%s: line %d (byte %d): %w", s.kind, line, s.offset(), fmt.Errorf(format, args...))
}

// fill reads more, keeping what lies after pos. It reports io.EOF when there
// is no more.
func (s *scanner) fill() error {
	if s.eof {
		return io.EOF
	}
	if s.pos > 0 {
		s.lines += bytes.Count(s.buf[:s.pos], []byte{'\n'})
		s.consumed += int64(s.pos)
		copy(s.buf, s.buf[s.pos:s.end])
		s.end -= s.pos
		s.pos = 0
	}
	if s.end == len(s.buf) {
		if len(s.buf) >= maxToken {
			return s.errorf("a tag or text is longer than %d bytes", maxToken)
		}
		s.buf = append(s.buf, make([]byte, len(s.buf))...)
	}
	for range 100 {
		n, err := s.r.Read(s.buf[s.end:])
		s.end += n
		switch {
		case err == io.EOF:
			s.eof = true
			if n > 0 {
				return nil
			}
			return io.EOF
		case err != nil:
			return s.errorf("%w", err)
		case n > 0:
			return nil
		}
	}
	return s.errorf("%w", io.ErrNoProgress)
}

// need makes the next n bytes available.
func (s *scanner) need(n int) error {
	for s.end-s.pos < n {
		if err := s.fill(); err != nil {
			return s.unexpected(err)
		}
	}
	return nil
}

// unexpected turns the end of the input into an error with its place.
func (s *scanner) unexpected(err error) error {
	if err == io.EOF {
		s.pos = s.end
		return s.errorf("%w", io.ErrUnexpectedEOF)
	}
	return err
}

// next returns the next tag.
func (s *scanner) next() (token, error) {
	if s.selfClose {
		s.selfClose = false
		return tokenEnd, s.pop()
	}
	for {
		if err := s.skipText(); err != nil {
			if err == io.EOF && len(s.depths) == 0 && s.rooted {
				return tokenEOF, nil
			}
			return 0, s.unexpected(err)
		}
		if err := s.need(2); err != nil {
			return 0, err
		}
		switch s.buf[s.pos+1] {
		case '/':
			return tokenEnd, s.endTag()
		case '?':
			if err := s.skipPast("?>"); err != nil {
				return 0, err
			}
		case '!':
			if err := s.markup(); err != nil {
				return 0, err
			}
		default:
			return tokenStart, s.startTag()
		}
	}
}

// skipText moves to the next "<". Outside of the document element there may
// be white space only.
func (s *scanner) skipText() error {
	for {
		text := s.buf[s.pos:s.end]
		i := bytes.IndexByte(text, '<')
		if i >= 0 {
			text = text[:i]
		}
		if len(s.depths) == 0 {
			if s.consumed == 0 && s.pos == 0 {
				text = bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))
			}
			if len(bytes.TrimLeft(text, " \t\r\n")) > 0 {
				return s.errorf("text outside of the document element")
			}
		}
		if i >= 0 {
			s.pos += i
			return nil
		}
		s.pos = s.end
		if err := s.fill(); err != nil {
			return err
		}
	}
}

// skipPast moves behind the next occurrence of mark.
func (s *scanner) skipPast(mark string) error {
	for {
		if i := bytes.Index(s.buf[s.pos:s.end], []byte(mark)); i >= 0 {
			if head := s.buf[s.pos : s.pos+i]; bytes.HasPrefix(head, []byte("<?xml ")) {
				if err := s.checkEncoding(head); err != nil {
					return err
				}
			}
			s.pos += i + len(mark)
			return nil
		}
		if keep := len(mark) - 1; s.end-s.pos > keep && !bytes.HasPrefix(s.buf[s.pos:s.end], []byte("<?xml ")) {
			s.pos = s.end - keep
		}
		if err := s.fill(); err != nil {
			return s.unexpected(err)
		}
	}
}

// checkEncoding refuses an XML declaration with another encoding than UTF-8.
func (s *scanner) checkEncoding(decl []byte) error {
	_, after, ok := bytes.Cut(decl, []byte("encoding="))
	if !ok || len(after) < 2 {
		return nil
	}
	name, _, _ := bytes.Cut(after[1:], after[:1])
	for _, known := range []string{"utf-8", "utf8", "us-ascii", "ascii"} {
		if bytes.EqualFold(name, []byte(known)) {
			return nil
		}
	}
	return s.errorf("encoding %q: only UTF-8 is read", name)
}

// markup skips a comment, a CDATA section outside of wanted text, or a
// document type without internal subset.
func (s *scanner) markup() error {
	if err := s.need(4); err != nil {
		return err
	}
	switch {
	case bytes.HasPrefix(s.buf[s.pos:s.end], []byte("<!--")):
		s.pos += 4
		return s.skipPast("-->")
	case bytes.HasPrefix(s.buf[s.pos:s.end], []byte("<![")):
		if len(s.depths) == 0 {
			return s.errorf("text outside of the document element")
		}
		return s.skipPast("]]>")
	}
	for n := 0; ; n++ {
		if err := s.need(n + 1); err != nil {
			return err
		}
		switch s.buf[s.pos+n] {
		case '[':
			return s.errorf("a document type with an internal subset is refused")
		case '>':
			s.pos += n + 1
			return nil
		}
	}
}

// nameLength returns how many bytes of b are an element's or attribute's name.
func nameLength(b []byte) int {
	for i, c := range b {
		if c <= ' ' || c == '=' || c == '>' || c == '/' || c == '<' || c == '"' || c == '\'' || c == '&' {
			return i
		}
	}
	return len(b)
}

func (s *scanner) endTag() error {
	for {
		b := s.buf[s.pos+2 : s.end]
		if i := bytes.IndexByte(b, '>'); i >= 0 {
			name := bytes.TrimRight(b[:i], " \t\r\n")
			if len(s.depths) == 0 || !bytes.Equal(name, s.open[s.depths[len(s.depths)-1]:]) {
				return s.errorf("unexpected end tag </%.40s>", name)
			}
			s.pos += 2 + i + 1
			return s.pop()
		}
		if err := s.fill(); err != nil {
			return s.unexpected(err)
		}
	}
}

func (s *scanner) pop() error {
	top := len(s.depths) - 1
	s.open = s.open[:s.depths[top]]
	s.depths = s.depths[:top]
	return nil
}

func (s *scanner) startTag() error {
	for {
		n, err := s.parseTag(s.buf[s.pos:s.end])
		if err != nil {
			return err
		}
		if n > 0 {
			s.pos += n
			break
		}
		if err := s.fill(); err != nil {
			return s.unexpected(err)
		}
	}
	if len(s.depths) == 0 && s.rooted {
		return s.errorf("a second document element <%.40s>", s.name)
	}
	if len(s.depths) == maxDepth {
		return s.errorf("elements are nested deeper than %d", maxDepth)
	}
	s.rooted = true
	s.depths = append(s.depths, len(s.open))
	s.open = append(s.open, s.name...)
	return nil
}

// parseTag reads a whole start tag at the front of b and returns its length,
// or 0 where b ends before the tag does.
func (s *scanner) parseTag(b []byte) (int, error) {
	i := 1 + nameLength(b[1:])
	s.name, s.attrs, s.selfClose = b[1:i], s.attrs[:0], false
	if i == 1 && len(b) > 1 {
		return 0, s.errorf("a tag without a name")
	}
	for {
		for i < len(b) && (b[i] == ' ' || b[i] == '\n' || b[i] == '\t' || b[i] == '\r') {
			i++
		}
		if i == len(b) {
			return 0, nil
		}
		switch b[i] {
		case '>':
			return i + 1, nil
		case '/':
			if i+1 == len(b) {
				return 0, nil
			}
			if b[i+1] != '>' {
				return 0, s.errorf("stray / in <%.40s>", s.name)
			}
			s.selfClose = true
			return i + 2, nil
		}
		n, a, err := s.parseAttr(b[i:])
		if n == 0 || err != nil {
			return 0, err
		}
		s.attrs = append(s.attrs, a)
		i += n
	}
}

// parseAttr reads name="value" at the front of b and returns its length, or 0
// where b ends before it does.
func (s *scanner) parseAttr(b []byte) (int, attr, error) {
	n := nameLength(b)
	if n == len(b) {
		return 0, attr{}, nil
	}
	if n == 0 || b[n] != '=' {
		return 0, attr{}, s.errorf("malformed attribute in <%.40s>", s.name)
	}
	if n+1 == len(b) {
		return 0, attr{}, nil
	}
	quote := b[n+1]
	if quote != '"' && quote != '\'' {
		return 0, attr{}, s.errorf("attribute %.40s of <%.40s> is not quoted", b[:n], s.name)
	}
	v := bytes.IndexByte(b[n+2:], quote)
	if v < 0 {
		return 0, attr{}, nil
	}
	return n + 2 + v + 1, attr{b[:n], b[n+2 : n+2+v]}, nil
}

// attr returns the raw value of an attribute, or nil.
func (s *scanner) attr(name string) []byte {
	for i := range s.attrs {
		if string(s.attrs[i].name) == name {
			return s.attrs[i].value
		}
	}
	return nil
}
