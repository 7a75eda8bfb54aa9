package boot

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"caisson/verify/measure"
)

// need skips the test where booting is not possible.
func need(t *testing.T) {
	t.Helper()
	o := Options{Disk: os.DevNull, Format: "raw"}
	var missing *MissingError
	if _, err := newMachine(o); errors.As(err, &missing) {
		if os.Getenv("CAISSON_TOOLS") == "required" {
			t.Fatal(err)
		}
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
}

// emptyDisk is a disk that nothing boots from.
func emptyDisk(t *testing.T) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "a disk, empty")
	if err := os.WriteFile(name, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// TestNothingIsLeft ends a machine by its time, by ctx, and by itself.
func TestNothingIsLeft(t *testing.T) {
	need(t)
	disk, never := emptyDisk(t), []*regexp.Regexp{regexp.MustCompile("^never$")}
	for _, c := range []struct {
		name string
		want string
		ctx  time.Duration
		o    Options
	}{
		{"time", `"^never$" had not appeared`, time.Minute, Options{Disk: disk, Format: "raw", WaitFor: never, Timeout: time.Second}},
		{"ctx", context.DeadlineExceeded.Error(), time.Second, Options{Disk: disk, Format: "raw", WaitFor: never}},
		{"itself", "the machine ended", time.Minute, Options{Disk: disk, Format: "qcow2", WaitFor: never}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.o.Dir = t.TempDir()
			ctx, cancel := context.WithTimeout(context.Background(), c.ctx)
			defer cancel()
			r, err := Run(ctx, c.o)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
			if r == nil || r.Exit == "" {
				t.Errorf("got %+v, want a result", r)
			}
			if left, err := os.ReadDir(c.o.Dir); err != nil || len(left) > 0 {
				t.Errorf("files are left: %v, %v", left, err)
			}
			if procs := running(t, c.o.Dir); len(procs) > 0 {
				t.Errorf("processes are left: %q", procs)
			}
		})
	}
}

// running are the command lines of processes that name the folder.
func running(t *testing.T, dir string) []string {
	t.Helper()
	names, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, name := range names {
		if b, err := os.ReadFile(name); err == nil && strings.Contains(string(b), dir) {
			all = append(all, string(b))
		}
	}
	return all
}

func TestRunRefuses(t *testing.T) {
	need(t)
	disk := emptyDisk(t)
	for want, o := range map[string]Options{
		"no such file":       {Disk: disk + "x", Format: "raw"},
		`disk format "vmdk"`: {Disk: disk, Format: "vmdk"},
		"want both files":    {Disk: disk, Format: "raw", Code: "code"},
		"copying the firmwa": {Disk: disk, Format: "raw", Code: "code", Vars: "/nonexistent"},
	} {
		o.Dir, o.WaitFor = t.TempDir(), []*regexp.Regexp{regexp.MustCompile("login:")}
		if _, err := Run(context.Background(), o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
	if _, err := Run(context.Background(), Options{Disk: disk, Format: "raw"}); err == nil || !strings.Contains(err.Error(), "nothing to wait for") {
		t.Errorf("got %v, want an error for nothing to wait for", err)
	}
	t.Setenv("PATH", "")
	var missing *MissingError
	_, err := Run(context.Background(), Options{Disk: disk, Format: "raw", WaitFor: []*regexp.Regexp{regexp.MustCompile("login:")}})
	if !errors.As(err, &missing) || missing.Package != "qemu-system-x86" {
		t.Errorf("got %v, want the Debian package of QEMU", err)
	}
}

func TestConsole(t *testing.T) {
	text := "\x1b[2J\x1b[01;01Hfirst \x1b[31mline\x1b[0m\r\nsecond\r\nhost login: "
	for _, c := range []struct {
		want []string
		seen bool
	}{
		{[]string{"^first line$"}, true},
		{[]string{"second", "login:"}, true},
		{[]string{"login:", "first", "second"}, true},
		{[]string{"firstline"}, false},
		{[]string{"second.*login"}, false},
		{nil, true},
	} {
		var patterns []*regexp.Regexp
		for _, w := range c.want {
			patterns = append(patterns, regexp.MustCompile(w))
		}
		var out strings.Builder
		console := newConsole(&out, patterns)
		for i := range len(text) { // byte by byte
			if _, err := io.WriteString(console, text[i:i+1]); err != nil {
				t.Fatal(err)
			}
		}
		seen := false
		select {
		case <-console.all:
			seen = true
		default:
		}
		if seen != c.seen || out.String() != text || console.text() != text {
			t.Errorf("%q: seen %v, want %v; passed on %q, kept %q", c.want, seen, c.seen, out.String(), console.text())
		}
	}
	flood := newConsole(nil, []*regexp.Regexp{regexp.MustCompile("end")})
	for range 100 {
		if _, err := flood.Write(make([]byte, 1<<18)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := flood.Write([]byte("end")); err != nil || len(flood.text()) != maxText || flood.missing() != "" {
		t.Errorf("a flood: kept %d bytes, missing %q", len(flood.text()), flood.missing())
	}
}

// TestRunAgain has programs of its own for swtpm and QEMU: the first machine
// has a starved timer, the second one boots.
func TestRunAgain(t *testing.T) {
	bin := t.TempDir()
	log, err := filepath.Abs("testdata/swtpm-0.7.1.log")
	if err != nil {
		t.Fatal(err)
	}
	for name, script := range map[string]string{
		"swtpm": "#!/bin/sh\ncp '" + log + "' tpm.log\n: >tpm.sock\nexec sleep 60\n",
		"qemu-system-x86_64": "#!/bin/sh\nif [ -e " + bin + "/again ]; then echo host login:; exec sleep 60; fi\n" +
			": >" + bin + "/again\necho \"" + starved + "\"\necho goodbye >&2\nexit 3\n",
		"code.fd": "", "vars.fd": "",
	} {
		if err := os.WriteFile(filepath.Join(bin, name), []byte(script), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", bin)
	o := Options{
		Disk: emptyDisk(t), Format: "raw", Dir: t.TempDir(),
		Code: filepath.Join(bin, "code.fd"), Vars: filepath.Join(bin, "vars.fd"),
		WaitFor: []*regexp.Regexp{regexp.MustCompile("login:")},
	}
	r, err := Run(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	if r.Attempts != 2 || r.Exit != "ended by Run" || r.Serial != "host login:\n" {
		t.Errorf("got %d attempts, exit %q, console %q", r.Attempts, r.Exit, r.Serial)
	}
	const pcr11 = "24698bc391ec29a05075e2f15a9a5d3fc29ce21afc6a801c6f5023093459a77f"
	if r.PCRs[11] != pcr11 || measure.Replay(r.Takeover[11]) != pcr11 || len(r.Takeover[5]) != 4 {
		t.Errorf("got PCR 11 %s, at takeover %v", r.PCRs[11], r.Takeover)
	}
	o.WaitFor = []*regexp.Regexp{regexp.MustCompile("never")}
	o.Timeout = 100 * time.Millisecond
	if r, err := Run(context.Background(), o); err == nil || r.Attempts != 1 {
		t.Errorf("got %+v, %v, want one attempt and an error", r, err)
	}
	faulting := "#!/bin/sh\ncase \"$*\" in *cx16=off*) echo host login:;; *) echo '[   45.0] Oops: double fault: 0000';; esac\nexec sleep 60\n"
	if err := os.WriteFile(filepath.Join(bin, "qemu-system-x86_64"), []byte(faulting), 0o700); err != nil {
		t.Fatal(err)
	}
	o.WaitFor, o.Timeout = []*regexp.Regexp{regexp.MustCompile("login:")}, time.Minute
	if r, err := Run(context.Background(), o); err != nil || r.Attempts != 2 {
		t.Errorf("a kernel that faults: got %v, want no error after two attempts", err)
	}
}
