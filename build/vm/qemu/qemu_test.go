package qemu

import (
	"bytes"
	"context"
	"errors"
	"os/exec"
	"strings"
	"testing"
	"time"

	"caisson/lock/tooltest"
)

// A program's end is told with what it said, of which no more is kept than there may be.
func TestProcess(t *testing.T) {
	sh := tooltest.Find(t, "sh")
	var out bytes.Buffer
	p, err := Start(context.Background(), t.TempDir(), &out, sh, "-c", `echo "$0 $TMPDIR $HOME"; echo "it broke" >&2; exit 3`)
	if err != nil {
		t.Fatal(err)
	}
	<-p.Done()
	if p.Success() || p.Exit() != "exit status 3: it broke" || strings.Contains(out.String(), "root") {
		t.Errorf("%s; %s", p.Exit(), out.String())
	}
	p, err = Start(context.Background(), t.TempDir(), nil, sh, "-c", `head -c 1000000 /dev/zero >&2`)
	if err != nil {
		t.Fatal(err)
	}
	<-p.Done()
	if n := p.said.text.Len(); !p.Success() || n != maxSaid {
		t.Errorf("%d bytes are kept, of %d that may be", n, maxSaid)
	}
	if _, err := Start(context.Background(), t.TempDir(), nil, "/no/such/program"); err == nil || !strings.Contains(err.Error(), "starting program: ") {
		t.Errorf("got %v", err)
	}
}

// One that does not listen is killed, and one whose caller has no time any more.
func TestStop(t *testing.T) {
	sh := tooltest.Find(t, "sh")
	p, err := Start(context.Background(), t.TempDir(), nil, sh, "-c", "exec sleep 600")
	if err != nil {
		t.Fatal(err)
	}
	p.Stop()
	if p.Exit() != "signal: terminated" {
		t.Errorf("%s", p.Exit())
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if p, err = Start(ctx, t.TempDir(), nil, sh, "-c", "trap '' TERM; exec sleep 600"); err != nil {
		t.Fatal(err)
	}
	<-p.Done()
	if p.Exit() != "signal: killed" {
		t.Errorf("%s", p.Exit())
	}
}

func TestProgram(t *testing.T) {
	name, err := Program("x86_64")
	if err != nil {
		tooltest.Missing(t, "qemu-system-x86_64")
	}
	v, err := Version(context.Background(), name)
	if err != nil || !strings.Contains(v, "version") {
		t.Errorf("%q, %v", v, err)
	}
	for option, want := range map[string]bool{"-accel ": true, "-no-such-option ": false} {
		if got, err := Has(context.Background(), name, option); err != nil || got != want {
			t.Errorf("%s: %v, %v", option, got, err)
		}
	}
	t.Setenv("PATH", t.TempDir())
	if name, err := Program("none"); !errors.Is(err, exec.ErrNotFound) && name != "/usr/libexec/qemu-kvm" {
		t.Errorf("%s, %v", name, err)
	}
	if got := Option("a,b"); got != "a,,b" {
		t.Errorf("got %s", got)
	}
}
