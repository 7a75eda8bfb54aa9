package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"caisson/build"
	"caisson/cmd/caisson/internal/vttest"
	"caisson/lock/digest"
	"caisson/verify"
)

// someBuild is a build in the middle of its work.
func someBuild() *building {
	b := &building{}
	for _, name := range []string{"check the inputs", "unpack the tools", "install root", "install initrd", "step 1: go build ./cmd/agent", "step 2: cargo build guest", "finish the root", "hash the root for dm-verity"} {
		b.update(build.Event{Step: name, State: build.Planned}, at(0))
	}
	for _, e := range []struct {
		at float64
		build.Event
	}{
		{0, build.Event{Step: "check the inputs", State: build.Begun}},
		{0, build.Event{Step: "unpack the tools", State: build.Begun}},
		{1.5, build.Event{Step: "check the inputs", State: build.Ended, Done: 198, Total: 198, Unit: "files"}},
		{4, build.Event{Step: "unpack the tools", State: build.Ended, Done: 126, Total: 126, Unit: "packages"}},
		{4, build.Event{Step: "install root", State: build.Begun}},
		{4, build.Event{Step: "step 1: go build ./cmd/agent", State: build.Begun}},
		{5, build.Event{Step: "install root", State: build.Moved, Done: 24, Total: 177, Unit: "packages", At: "linux-image-6.1.0-56-cloud-amd64-6.1.192-2.x86_64"}},
		{6, build.Event{Step: "hash the root for dm-verity", State: build.Begun}},
		{6, build.Event{Step: "hash the root for dm-verity", State: build.Moved, Done: 3 << 20, Total: 4 << 20, Unit: "bytes"}},
	} {
		b.update(e.Event, at(e.at))
	}
	return b
}

func TestBuildFrames(t *testing.T) {
	var out strings.Builder
	for _, columns := range []int{24, 40, 80, 200} {
		term := vttest.New(columns, 30)
		u := shown(term)
		u.work = someBuild()
		u.mu.Lock()
		u.refresh(at(75))
		u.mu.Unlock()
		fmt.Fprintf(&out, "%d columns\n%s\n\n", columns, strings.Join(term.Lines(), "\n"))
		if term.Wrapped > 0 || len(term.Unknown) > 0 {
			t.Errorf("%d columns: %d wrapped, unknown %q", columns, term.Wrapped, term.Unknown)
		}
	}
	b := someBuild()
	fmt.Fprintf(&out, "a line\n%s\n\n", b.plain(at(75)))
	for _, e := range []build.Event{
		{Step: "hash the root for dm-verity", State: build.Ended, Done: 4 << 20, Total: 4 << 20, Unit: "bytes"},
		{Step: "install root", State: build.Ended, Done: 177, Total: 177, Unit: "packages"},
		{Step: "step 1: go build ./cmd/agent", State: build.Ended},
	} {
		fmt.Fprintln(&out, b.update(e, at(80)))
	}
	golden(t, "progress/build.txt", out.String())
}

// What another program tells of its build comes through, whatever the pipe does
// to it, and what is no event is kept.
func TestEventLines(t *testing.T) {
	want := []build.Event{{Step: "a", State: build.Planned}, {Step: "a", State: build.Moved, Done: 1, Total: 2, Unit: "packages", At: "b\nc"}}
	text := "caisson: something\n"
	for _, e := range want {
		b, err := json.Marshal(e)
		must(t, err)
		text += string(b) + "\n"
	}
	text += "{\"step\": 7}\n"
	for n := 1; n <= len(text); n += 13 {
		var got []build.Event
		w := &eventLines{tell: func(e build.Event) { got = append(got, e) }}
		for rest := text; rest != ""; {
			part := rest[:min(n, len(rest))]
			rest = rest[len(part):]
			if k, err := w.Write([]byte(part)); k != len(part) || err != nil {
				t.Fatal(k, err)
			}
		}
		if !slices.Equal(got, want) || w.said.String() != "caisson: something\n{\"step\": 7}\n" {
			t.Errorf("%d bytes at a time: got %+v and %q", n, got, w.said.String())
		}
	}
	w := &eventLines{tell: func(build.Event) { t.Error("an event") }}
	for range 100 {
		w.Write([]byte(strings.Repeat("x", 10_000)))
	}
	if len(w.part) > 2*maxEvent {
		t.Errorf("%d bytes of a line without end are kept", len(w.part))
	}
}

// Each byte is counted once, by who brought it.
func TestWeigh(t *testing.T) {
	file := func(part, path, content string, a build.Account, by string, inputs ...string) build.File {
		d := digest.Of([]byte(content))
		return build.File{Part: part, Path: path, Mode: 0o100644, Size: int64(len(content)), SHA256: &d, Account: a, By: by, Inputs: inputs}
	}
	files := []build.File{
		file("esp", "/EFI/BOOT/BOOTX64.EFI", strings.Repeat("u", 5000), build.Generated, "assembly", "rpm/kernel"),
		{Part: "root", Path: "/usr", Mode: 0o40755, Size: 4096, Account: build.Vendor, Inputs: []string{"rpm/base"}},
		{Part: "root", Path: "/bin", Mode: 0o120777, Size: 7, Target: "usr/bin", Account: build.Vendor, Inputs: []string{"rpm/base"}},
		file("root", "/usr/bin/git", strings.Repeat("g", 1000), build.Vendor, "", "rpm/git"),
		file("root", "/usr/bin/git-add", strings.Repeat("g", 1000), build.Vendor, "", "rpm/git"),
		file("root", "/etc/passwd", "changed", build.Changed, "scriptlets", "rpm/setup", "rpm/other"),
		file("root", "/usr/bin/agent", strings.Repeat("a", 300), build.Compiled, "step 1", "go/x", "tree/agent"),
		file("root", "/usr/share/license", "mit", build.Placed, "step 2", "file/license"),
		file("root", "/etc/ld.so.cache", "cache", build.Generated, "scriptlets"),
		file("initrd", "/usr/bin/git", strings.Repeat("g", 1000), build.Vendor, "", "rpm/git"),
		{Part: "initrd", Path: "/odd", Mode: 0o100644, Account: build.Vendor},
	}
	parts, from := weigh(files)
	if want := (build.Total{Files: 7, Bytes: 1000 + 7 + 300 + 3 + 5}); parts["root"] != want {
		t.Errorf("root: got %+v, want %+v", parts["root"], want)
	}
	if parts["initrd"] != (build.Total{Files: 2, Bytes: 1000}) || parts["esp"] != (build.Total{Files: 1, Bytes: 5000}) {
		t.Errorf("initrd %+v, esp %+v", parts["initrd"], parts["esp"])
	}
	var got []string
	for _, f := range from {
		got = append(got, fmt.Sprintf("%s %d/%d %d/%d", f.From, f.Root.Bytes, f.Root.Files, f.Initrd.Bytes, f.Initrd.Files))
	}
	want := []string{"rpm/git 1000/2 1000/1", "step 1 300/1 0/0", "rpm/setup 7/1 0/0", "scriptlets 5/1 0/0", "file/license 3/1 0/0", "rpm/base 0/1 0/0", "vendor 0/0 0/1"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// The table has the ten largest of each and the sum of the rest.
func TestSpentTable(t *testing.T) {
	s := &spent{Parts: map[string]build.Total{"root": {Files: 5000, Bytes: 300 << 20}, "initrd": {Files: 900, Bytes: 80 << 20}}}
	for i := range 13 {
		s.Steps = append(s.Steps, stepSpent{Step: fmt.Sprint("step ", i), Seconds: float64(30 - i), Amount: int64(i), Unit: "packages"})
		s.From = append(s.From, fromSpent{From: fmt.Sprint("rpm/p", i), Root: build.Total{Files: 1, Bytes: int64(30-i) << 20}, Initrd: build.Total{Files: i, Bytes: 1 << 10}})
	}
	s.Steps[1].Unit = "bytes"
	var b strings.Builder
	s.show(&ui{err: &b, over: make(chan struct{})})
	golden(t, "progress/spent.txt", b.String())
	quiet := &ui{err: &b, over: make(chan struct{}), quiet: true}
	b.Reset()
	if s.show(quiet); b.Len() > 0 {
		t.Errorf("quiet: %q", b.String())
	}
	if _, err := spentOn(t.TempDir(), &verify.Description{}, &building{}, 0); err == nil {
		t.Error("no files.json, and no error")
	}
}
