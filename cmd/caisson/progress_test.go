package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"caisson/cmd/caisson/internal/vttest"
	"caisson/prefetch"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares a text with a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	name = filepath.Join("testdata", name)
	if *update {
		must(t, os.MkdirAll(filepath.Dir(name), 0o755))
		must(t, os.WriteFile(name, []byte(got), 0o644))
	}
	want, err := os.ReadFile(name)
	must(t, err)
	if got != string(want) {
		t.Errorf("%s is otherwise; got\n%s", name, got)
	}
}

// shown is a ui whose terminal is t, and whose clock does not run: the test
// calls refresh.
func shown(t *vttest.Terminal) *ui {
	u := &ui{err: t, out: &bytes.Buffer{}, said: time.Now(), over: make(chan struct{}), ticks: true}
	u.useTerminal(t.Size)
	return u
}

// at is a moment of the transfer that the tests show.
func at(seconds float64) time.Time {
	return time.Unix(1_700_000_000, 0).Add(time.Duration(seconds * float64(time.Second)))
}

// someTransfer is a transfer of which some files take long.
func someTransfer() *transfer {
	t := &transfer{moved: at(0)}
	e := prefetch.Event{Total: 198, TotalBytes: 320 << 20, ByKind: []prefetch.KindEvent{
		{Kind: "crate", Done: 11, Total: 11, Bytes: 2 << 20, TotalBytes: 2 << 20},
		{Kind: "git", Done: 0, Total: 1, TotalBytes: 8 << 20},
		{Kind: "go", Done: 3, Total: 7, Bytes: 1 << 20, TotalBytes: 3 << 20},
		{Kind: "key", Done: 1, Total: 1},
		{Kind: "rpm", Done: 130, Total: 171, Bytes: 120 << 20, TotalBytes: 300 << 20},
		{Kind: "toolchain", Done: 0, Total: 1, Bytes: 7 << 20, TotalBytes: 7 << 20},
	}}
	for i := range 21 {
		e.Bytes, e.Done = int64(i)*6500<<10, 7*i
		t.update(e, at(float64(i)/2))
		t.rate.add(at(float64(i)/2), e.Bytes)
	}
	active := func(kind, name, host string, try int, since, moved float64, bytes, size int64) {
		t.event.Active = append(t.event.Active, prefetch.Active{Kind: kind, Name: name, Host: host, Try: try, Since: at(since), Moved: at(moved), Bytes: bytes << 20, Size: size << 20})
	}
	active("rpm", "kernel-core-6.12.0-55.el10.x86_64", "mirror.example:8080", 3, 1, 2, 30, 90)
	active("git", "kata", "github.com", 1, 2, 9.9, 0, 8)
	active("toolchain", "golang.org/toolchain@v0.0.1-go1.26.0.linux-amd64.zip", "proxy.golang.org", 1, 0, 5, 7, 7)
	active("rpm", "glibc-2.39-9.el10.x86_64\x1b[2J", "mirror.example:8080", 1, 4, 9.5, 1, 2)
	active("rpm", "queued-1-1.noarch", "", 0, 5, 5, 0, 1)
	active("rpm", "new-1-1.noarch", "mirror.example:8080", 1, 9.5, 9.5, 0, 1)
	return t
}

// The frames at several widths, as a person sees them.
func TestTransferFrames(t *testing.T) {
	var b strings.Builder
	for _, columns := range []int{24, 40, 80, 200} {
		term := vttest.New(columns, 30)
		u := shown(term)
		u.work = someTransfer()
		u.mu.Lock()
		u.refresh(at(10))
		u.mu.Unlock()
		fmt.Fprintf(&b, "%d columns\n%s\n\n", columns, strings.Join(term.Lines(), "\n"))
		if term.Wrapped > 0 || len(term.Unknown) > 0 || term.Colours > 0 {
			t.Errorf("%d columns: %d wrapped, %d colours, unknown %q", columns, term.Wrapped, term.Colours, term.Unknown)
		}
		u.done()
		if lines := term.Lines(); len(lines) > 0 {
			t.Errorf("%d columns: at the end there is left %q", columns, lines)
		}
	}
	tr := someTransfer()
	fmt.Fprintf(&b, "a line\n%s\n", tr.plain(at(10)))
	golden(t, "progress/transfer.txt", b.String())
}

// Where nothing moves at all, what waits for no server is named too, and no
// rate is shown.
func TestTransferStands(t *testing.T) {
	tr := &transfer{moved: at(0)}
	tr.update(prefetch.Event{Done: 1, Total: 2, Bytes: 10, TotalBytes: 20, Active: []prefetch.Active{{Kind: "tree", Name: "rootfs", Since: at(0), Moved: at(0), Size: 10}}}, at(0))
	if w := tr.waiting(at(1)); len(w) > 0 {
		t.Errorf("after a second: waiting for %v", w)
	}
	for s := range 20 {
		tr.speed(at(float64(s)))
	}
	if got, want := tr.plain(at(20)), "1 of 2, 10 B of 20 B; waiting for rootfs, 20s"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// The rate is that of the last seconds; what comes in bursts does not make it
// jump, and when nothing comes it ends.
func TestMeter(t *testing.T) {
	var m meter
	for i := range 100 { // 1 MB each second, at its end
		rate := m.add(at(float64(i)/4), int64(i/4)*1e6)
		if i > 40 && (rate < 0.8e6 || rate > 1.2e6) {
			t.Errorf("after %d quarters of a second: %.0f bytes a second", i, rate)
		}
	}
	for i := range 40 {
		m.add(at(25+float64(i)/4), 24e6)
	}
	if rate := m.add(at(35), 24e6); rate != 0 {
		t.Errorf("after ten seconds of nothing: %.0f bytes a second", rate)
	}
	if rate := m.add(at(36), 10); rate != 0 {
		t.Errorf("the first of another: %.0f bytes a second", rate)
	}
}

// Lines of a log pass above the bars and stay as they are.
func TestLinesAbove(t *testing.T) {
	term := vttest.New(60, 12)
	u := shown(term)
	tell, end := u.transfer("fetch")
	tell(prefetch.Event{Total: 9, TotalBytes: 9})
	var want []string
	for i := range 30 {
		u.stage("warning %d", i)
		want = append(want, fmt.Sprintf("  warning %d", i))
		u.mu.Lock()
		u.refresh(time.Now())
		u.mu.Unlock()
		if lines := term.Lines(); !slices.Equal(lines[:len(lines)-1], want) || !strings.HasPrefix(lines[len(lines)-1], "  total [") {
			t.Fatalf("after %d warnings: %q", i+1, lines)
		}
	}
	tell(prefetch.Event{Total: 9, TotalBytes: 9, Repaired: "bash"})
	want = append(want, "  bash was damaged in the store and has been replaced")
	end()
	u.print("the result")
	if lines := term.Lines(); !slices.Equal(lines, want) {
		t.Errorf("in the end: %q", lines)
	}
	if got := u.out.(*bytes.Buffer).String(); got != "the result\n" {
		t.Errorf("the result is %q", got)
	}
}

// Without a terminal there is a line at the beginning and one now and then, and
// without a word nothing.
func TestPlain(t *testing.T) {
	var b bytes.Buffer
	u := &ui{err: &b, over: make(chan struct{}), ticks: true}
	tell, end := u.transfer("fetch")
	e := prefetch.Event{Done: 1, Total: 20, TotalBytes: 3 << 20, ByKind: []prefetch.KindEvent{{Kind: "key", Total: 1}, {Kind: "rpm", Done: 6, Total: 19, TotalBytes: 3 << 20}}}
	for range 5 {
		e.Done++
		tell(e)
	}
	refresh := func(d time.Duration) {
		u.mu.Lock()
		defer u.mu.Unlock()
		u.refresh(time.Now().Add(d))
	}
	refresh(0)
	refresh(plainInterval - time.Second)
	if want := "  3.0 MiB to fetch: rpm 3.0 MiB\n"; b.String() != want {
		t.Errorf("at the beginning: got %q, want %q", b.String(), want)
	}
	b.Reset()
	refresh(plainInterval + time.Second)
	refresh(plainInterval + 2*time.Second)
	if want := "  6 of 20, 0 B of 3.0 MiB\n"; b.String() != want {
		t.Errorf("later: got %q, want %q", b.String(), want)
	}
	end()
	b.Reset()
	refresh(time.Hour)
	u.quiet = true
	u.begin(someTransfer())
	u.stage("nothing of this")
	if b.Len() > 0 {
		t.Errorf("after it, and quiet: %q", b.String())
	}
}

// A stage that says nothing for a while shows a clock, which the next line
// takes away; run has a line of its own above.
func TestClock(t *testing.T) {
	term := vttest.New(80, 24)
	u := shown(term)
	u.stage("reading the metadata")
	refresh := func(d time.Duration) []string {
		u.mu.Lock()
		defer u.mu.Unlock()
		u.refresh(u.said.Add(d))
		return term.Lines()
	}
	if got, want := refresh(time.Second), []string{"  reading the metadata"}; !slices.Equal(got, want) {
		t.Errorf("after a second: %q", got)
	}
	if got, want := refresh(65*time.Second), []string{"  reading the metadata", "    1m5s"}; !slices.Equal(got, want) {
		t.Errorf("after a minute: %q", got)
	}
	u.course = &course{names: []string{"lock", "prefetch"}, at: 1, began: u.said.Add(-time.Minute)}
	if got, want := refresh(3*time.Second), []string{"  reading the metadata", "  stage 2 of 2, prefetch: 1m3s so far", "    3s"}; !slices.Equal(got, want) {
		t.Errorf("in a run: %q", got)
	}
	u.stage("solving")
	if got, want := term.Lines(), []string{"  reading the metadata", "  solving"}; !slices.Equal(got, want) {
		t.Errorf("afterwards: %q", got)
	}
}
