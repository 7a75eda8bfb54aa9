package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"caisson/prefetch"
)

// The live line has the kinds that are still to do, and says what is waited
// for where nothing has come to its end for a while.
func TestProgress(t *testing.T) {
	var b bytes.Buffer
	u := &ui{err: &b, terminal: true, columns: func() int { return 200 }, said: time.Now()}
	u.clock.Do(func() {}) // the test is the clock
	last := func() string {
		s := b.String()
		return s[strings.LastIndex(s, "\x1b[K")+len("\x1b[K"):]
	}
	e := prefetch.Event{
		Done: 5, Total: 20, Bytes: 1 << 20, TotalBytes: 3 << 20, Active: []string{"kernel", "glibc", "bash"},
		ByKind: []prefetch.KindEvent{{Kind: "go", Done: 1, Total: 10}, {Kind: "key", Done: 2, Total: 2}, {Kind: "rpm", Done: 2, Total: 8}},
	}
	u.transferring(e)
	if want := "  go 1/10  rpm 2/8, 1.0 MiB of 3.0 MiB"; last() != want {
		t.Errorf("got %q, want %q", last(), want)
	}
	later := func(d time.Duration) {
		u.mu.Lock()
		defer u.mu.Unlock()
		u.silent(time.Now().Add(d))
	}
	b.Reset()
	if later(clockAfter / 2); b.Len() != 0 {
		t.Errorf("after a moment: %q", b.String())
	}
	later(3 * time.Second)
	if want := "  go 1/10  rpm 2/8, 1.0 MiB of 3.0 MiB, waiting for kernel and 2 more (3s)"; last() != want {
		t.Errorf("nothing comes: got %q, want %q", last(), want)
	}
	// Bytes come, and no input comes to its end.
	u.shown.ended = time.Now().Add(-5 * time.Second)
	e.Bytes, e.Active = 2<<20, e.Active[:1]
	u.transferring(e)
	if !strings.Contains(last(), "2.0 MiB of 3.0 MiB") || !strings.HasSuffix(last(), ", waiting for kernel (5s)") {
		t.Errorf("a large one: %q", last())
	}
	e.Done, e.ByKind[2].Done = 6, 8
	u.transferring(e)
	if !strings.HasPrefix(last(), "  go 1/10, 2.0 MiB") || strings.Contains(last(), "waiting") {
		t.Errorf("another one is there: %q", last())
	}
	// What comes after the transfer has the clock alone.
	u.stage("done")
	b.Reset()
	if later(4 * time.Second); b.String() != "\r\x1b[K    4s" {
		t.Errorf("after it: %q", b.String())
	}

	// Without kinds, and without a terminal.
	e.ByKind, e.TotalBytes = nil, 0
	u.transferring(e)
	if !strings.HasPrefix(last(), "  6 of 20, 2.0 MiB") {
		t.Errorf("without kinds: %q", last())
	}
	b.Reset()
	plain := &ui{err: &b, said: time.Now().Add(-plainInterval)}
	e.ByKind, e.TotalBytes, e.Repaired = []prefetch.KindEvent{{Kind: "rpm", Done: 6, Total: 20}}, 3<<20, "bash"
	plain.transferring(e)
	plain.said = time.Now().Add(-plainInterval)
	e.Repaired = ""
	plain.transferring(e)
	plain.transferring(e)
	if want := "  bash was damaged in the store and has been replaced\n  6 of 20, 2.0 MiB of 3.0 MiB\n"; b.String() != want {
		t.Errorf("no terminal: got %q, want %q", b.String(), want)
	}
}
