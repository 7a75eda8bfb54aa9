package uki

import (
	"bytes"
	"encoding/binary"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// TestSplit takes signatures off and puts them on again.
func TestSplit(t *testing.T) {
	plain := append(write(t, testStub(0x400), testSections()), "odd"...)
	p, err := Split(bytes.NewReader(plain), int64(len(plain)))
	if err != nil || len(p.Signatures) != 0 || p.Size != int64(len(plain))+5 {
		t.Fatalf("got %+v, %v", p, err)
	}
	bytesOf := func(r *io.SectionReader, err error) []byte {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		b := all(t, r)
		if err := iotest.TestReader(io.NewSectionReader(r, 0, r.Size()), b); err != nil {
			t.Error(err)
		}
		return b
	}
	signed := bytesOf(p.With([][]byte{[]byte("a signature"), []byte("another one, longer")}))
	if len(signed) != int(p.Size)+8+16+32 || !bytes.Equal(signed[p.Size:][:8], []byte{19, 0, 0, 0, 0, 2, 2, 0}) {
		t.Errorf("signed it has %d bytes, its table begins with %x", len(signed), signed[p.Size:][:8])
	}
	q, err := Split(bytes.NewReader(signed), int64(len(signed)))
	if err != nil || q.Size != p.Size || len(q.Signatures) != 2 || string(q.Signatures[0]) != "a signature" || string(q.Signatures[1]) != "another one, longer" {
		t.Fatalf("got %+v, %v", q, err)
	}
	padded := append(bytes.Clone(plain), 0, 0, 0, 0, 0)
	if got := bytesOf(q.With(nil)); !bytes.Equal(got, padded) {
		t.Error("without its signatures it is not what it was")
	}
	checked := bytes.Clone(signed) // a tool that signs writes CheckSum
	binary.LittleEndian.PutUint32(checked[88+optCheckSum:], 7)
	c, err := Split(bytes.NewReader(checked), int64(len(checked)))
	if err != nil || !bytes.Equal(bytesOf(c.Unsigned(), nil), padded) {
		t.Errorf("with another CheckSum it is another program: %v", err)
	}
	if _, err := p.With([][]byte{make([]byte, maxCertificates)}); err == nil || !strings.Contains(err.Error(), "larger than an image can be") {
		t.Errorf("a signature of 1 MiB: got %v", err)
	}
	for name, b := range map[string][]byte{
		"bytes behind the table": append(bytes.Clone(signed), 0),
		"a table in the middle":  append(bytes.Clone(signed), make([]byte, 64)...),
		"a table cut off":        signed[:len(signed)-8],
	} {
		if _, err := Split(bytes.NewReader(b), int64(len(b))); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	broken, err := Split(bytes.NewReader(plain), int64(len(plain)))
	if err != nil {
		t.Fatal(err)
	}
	broken.r = bytes.NewReader(plain[:0x500])
	if _, err := io.ReadAll(broken.Unsigned()); err != io.ErrUnexpectedEOF {
		t.Errorf("a file that ends early: got %v", err)
	}
}
