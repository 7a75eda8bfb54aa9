package gitfetch

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Pkt-lines (gitprotocol-common): four hex digits of length, then the text.
// Those below four are signs.
const (
	flushPkt = "0000"
	delimPkt = "0001"
	maxPkt   = 65520
)

// pktLine is a text as a pkt-line.
func pktLine(format string, a ...any) string {
	s := fmt.Sprintf(format, a...)
	return fmt.Sprintf("%04x%s", len(s)+4, s)
}

// pktReader reads pkt-lines.
type pktReader struct {
	r   *bufio.Reader
	buf []byte
}

func newPktReader(r io.Reader) *pktReader { return &pktReader{r: bufio.NewReaderSize(r, maxPkt)} }

// errSign is returned instead of a line where there is a sign.
type errSign string

func (e errSign) Error() string { return "the server has ended where more was expected" }

const (
	errFlush = errSign(flushPkt)
	errDelim = errSign(delimPkt)
	errEnd   = errSign("0002") // of an answer, where connections are kept
)

// next reads a line, which holds until the next call. A message of the server
// that something is wrong is an error.
func (p *pktReader) next() ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(p.r, head[:]); err != nil {
		return nil, err
	}
	n, err := strconv.ParseUint(string(head[:]), 16, 16)
	if err != nil || n == 3 || n > maxPkt {
		return nil, fmt.Errorf("the server does not speak git's protocol: it sends %q", head[:])
	}
	if n < 4 {
		return nil, errSign(strings.ToLower(string(head[:])))
	}
	if p.buf == nil {
		p.buf = make([]byte, maxPkt)
	}
	line := p.buf[:n-4]
	if _, err := io.ReadFull(p.r, line); err != nil {
		return nil, noEOF(err)
	}
	if said, ok := bytes.CutPrefix(line, []byte("ERR ")); ok {
		return nil, serverError(said)
	}
	return line, nil
}

// text reads a line without what ends it.
func (p *pktReader) text() (string, error) {
	b, err := p.next()
	return strings.TrimSuffix(string(b), "\n"), err
}

// serverError is what a server says went wrong.
type serverError string

func (e serverError) Error() string {
	s := strings.Map(func(c rune) rune {
		if !strconv.IsPrint(c) {
			return ' '
		}
		return c
	}, string(e[:min(len(e), 300)]))
	return "the server says: " + strings.TrimSpace(s)
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// The bands of an answer (gitprotocol-v2, "fetch").
const (
	bandData     = 1
	bandProgress = 2
	bandError    = 3
)

// banded is the pack in an answer that has it on a band, until the flush.
type banded struct {
	p    *pktReader
	left []byte
}

func (b *banded) Read(to []byte) (int, error) {
	for len(b.left) == 0 {
		line, err := b.p.next()
		switch {
		case errors.Is(err, errFlush), errors.Is(err, errEnd):
			return 0, io.EOF
		case err != nil:
			return 0, noEOF(err)
		case len(line) == 0:
			return 0, errors.New("the server sends a line on no band")
		}
		switch line[0] {
		case bandData:
			b.left = line[1:]
		case bandProgress:
		case bandError:
			return 0, serverError(string(line[1:]))
		default:
			return 0, fmt.Errorf("the server sends on band %d", line[0])
		}
	}
	n := copy(to, b.left)
	b.left = b.left[n:]
	return n, nil
}
