package cpio

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestReaderTruncated(t *testing.T) {
	b := pack(t, testEntries()[:8], 0)
	for n := range b {
		_, err := unpack(bytes.NewReader(b[:n]))
		if !errors.Is(err, io.ErrUnexpectedEOF) || !strings.Contains(err.Error(), "offset") {
			t.Fatalf("%d of %d bytes: got %v, want %v with an offset", n, len(b), err, io.ErrUnexpectedEOF)
		}
		_, err = unpack(io.MultiReader(bytes.NewReader(b[:n]), iotest.ErrReader(iotest.ErrTimeout)))
		if !errors.Is(err, iotest.ErrTimeout) {
			t.Fatalf("error after %d of %d bytes: got %v, want %v", n, len(b), err, iotest.ErrTimeout)
		}
	}
}

func TestReaderRefuses(t *testing.T) {
	e := entry{Header{Name: "name", Mode: 0o100644, Nlink: 1, Size: 4}, "data"}
	good := string(pack(t, []entry{e}, 0))
	at := func(off int, s string) string { return good[:off] + s + good[off+len(s):] }
	const second = 110 + 6 + 4 // offset of the trailer
	for _, c := range []struct {
		name, archive, want string
	}{
		{"empty", "", "entry at offset 0: reading the header: unexpected EOF"},
		{"magic", at(0, "070708"), `entry at offset 0: magic is "070708", want "070701"`},
		{"second magic", at(second, "\x00"), `entry at offset 120: magic is "\x0070701"`},
		{"checksums", at(0, "070702"), "checksums are not supported"},
		{"binary", at(0, "\xc7\x71"), "want \"070701\""},
		{"sign", at(6, "-0000001"), `field at byte 6: "-0000001" is not a hexadecimal number`},
		{"space", at(54, " 0000004"), `field at byte 54: " 0000004"`},
		{"prefix", at(54, "0x000004"), "not a hexadecimal number"},
		{"control", at(54, "\x10\x11000004"), "not a hexadecimal number"},
		{"no name", at(94, "00000000"), "name has 0 bytes"},
		{"empty name", at(94, "00000001"), "name has 1 bytes"},
		{"oversized name", at(94, "00001001"), "name has 4097 bytes"},
		{"huge name", at(94, "ffffffff"), "name has 4294967295 bytes"},
		{"no NUL", at(114, "e"), "NUL not at its end"},
		{"NUL", at(112, "\x00"), "NUL not at its end"},
		{"data missing", at(54, "ffffffff"), "data at offset"},
		{"trailer with data", at(second+54, "00000001"), "the trailer has 1 bytes"},
	} {
		if _, err := unpack(strings.NewReader(c.archive)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want an error with %q", c.name, err, c.want)
		}
	}
	if _, err := unpack(strings.NewReader(at(54, "0000000A"))); err == nil {
		t.Error("data of another length: no error")
	}
}

func TestReaderErrorsStick(t *testing.T) {
	r := NewReader(strings.NewReader("070701"))
	_, first := r.Next()
	if _, err := r.Next(); err == nil || err != first {
		t.Errorf("second Next: got %v, want %v", err, first)
	}
	if _, err := r.Read(make([]byte, 1)); err != first {
		t.Errorf("Read: got %v, want %v", err, first)
	}
}

func TestWriterRefuses(t *testing.T) {
	for _, c := range []struct {
		h    Header
		want string
	}{
		{Header{}, "without a name"},
		{Header{Name: "a\x00b"}, "NUL"},
		{Header{Name: strings.Repeat("n", 4096)}, "4096 bytes, more than 4095"},
		{Header{Name: "TRAILER!!!"}, "marks the end"},
		{Header{Name: "n", Mtime: -1}, "mtime -1"},
		{Header{Name: "n", Mtime: 1 << 32}, "mtime 4294967296"},
		{Header{Name: "n", Size: -1}, "size -1"},
		{Header{Name: "n", Size: 1 << 32}, "size 4294967296"},
		{Header{Name: "n", Size: 4096, Mode: 0o120777}, "4096 bytes, more than 4095"},
	} {
		if err := NewWriter(io.Discard).WriteHeader(c.h); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+.40q: got %v, want an error with %q", c.h.Name, err, c.want)
		}
	}
}

func TestWriterWantsTheSize(t *testing.T) {
	w := NewWriter(io.Discard)
	if err := w.WriteHeader(Header{Name: "n", Size: 3}); err != nil {
		t.Fatal(err)
	}
	if n, err := w.Write([]byte("four")); n != 0 || err == nil {
		t.Errorf("too long: got %d, %v", n, err)
	}
	if _, err := w.Write([]byte("tw")); err != nil {
		t.Fatal(err)
	}
	if err := w.WriteHeader(Header{Name: "m"}); err == nil {
		t.Error("next header after too little: no error")
	}
	if err := w.Close(); err == nil {
		t.Error("Close after too little: no error")
	}
	if _, err := w.Write([]byte("o")); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := w.WriteHeader(Header{Name: "m"}); err == nil {
		t.Error("header after Close: no error")
	}
	if err := w.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

// full fails when n bytes have been written to it.
type full struct{ n int }

func (f *full) Write(p []byte) (int, error) {
	if f.n < len(p) {
		return f.n, io.ErrShortWrite
	}
	f.n -= len(p)
	return len(p), nil
}

func TestWriterFails(t *testing.T) {
	size := len(pack(t, testEntries(), 512))
	for n := range size {
		w := NewWriter(&full{n})
		w.BlockSize = 512
		var err error
		for _, e := range testEntries() {
			if err = w.WriteHeader(e.Header); err != nil {
				break
			}
			if _, err = io.WriteString(w, e.data); err != nil {
				break
			}
		}
		if err == nil {
			err = w.Close()
		}
		if !errors.Is(err, io.ErrShortWrite) {
			t.Fatalf("full after %d of %d bytes: got %v", n, size, err)
		}
	}
}

func FuzzReader(f *testing.F) {
	f.Add(pack(f, testEntries(), 0))
	f.Add(pack(f, testEntries()[5:7], 512))
	f.Add([]byte("07070X00000007\x00\x00data"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := NewReader(bytes.NewReader(b))
		r.Stripped = func(index uint32) (*Header, error) { return &Header{Name: "stripped", Size: int64(index)}, nil }
		var total int64
		for {
			h, err := r.Next()
			if err != nil {
				break
			}
			if h.Name == "" || strings.ContainsRune(h.Name, 0) {
				t.Errorf("name is %q", h.Name)
			}
			n, err := io.Copy(io.Discard, r)
			total += n
			if err == nil && n != h.Size {
				t.Errorf("%q: read %d bytes, want %d", h.Name, n, h.Size)
			}
		}
		if total > int64(len(b)) {
			t.Errorf("%d bytes of data in an archive of %d", total, len(b))
		}
	})
}
