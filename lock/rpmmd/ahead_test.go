package rpmmd

import (
	"bytes"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

type closeCounter struct {
	io.Reader
	closed int
}

func (c *closeCounter) Close() error { c.closed++; return nil }

func TestReadAhead(t *testing.T) {
	text := []byte(strings.Repeat("0123456789", 100_000))
	boom := errors.New("boom")
	for _, r := range []io.Reader{
		bytes.NewReader(text), iotest.HalfReader(bytes.NewReader(text)), iotest.DataErrReader(bytes.NewReader(text)),
	} {
		c := &closeCounter{Reader: io.MultiReader(r, iotest.ErrReader(boom))}
		a := readAhead(c)
		got, err := io.ReadAll(a)
		if !errors.Is(err, boom) || !bytes.Equal(got, text) {
			t.Errorf("got %d bytes and %v, want %d and the error", len(got), err, len(text))
		}
		if _, err := a.Read(make([]byte, 1)); !errors.Is(err, boom) {
			t.Errorf("the error is gone: %v", err)
		}
		if a.Close(); c.closed != 1 {
			t.Errorf("closed %d times", c.closed)
		}
	}
	if err := iotest.TestReader(readAhead(io.NopCloser(bytes.NewReader(text))), text); err != nil {
		t.Error(err)
	}
}

func TestReadAheadStops(t *testing.T) {
	before := runtime.NumGoroutine()
	a := readAhead(io.NopCloser(strings.NewReader(strings.Repeat("x", 10<<20))))
	if _, err := a.Read(make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	a.Close()
	for range 100 {
		if runtime.NumGoroutine() <= before {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("the goroutine goes on")
}
