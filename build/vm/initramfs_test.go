package vm

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"caisson/build/image/cpio"
	"caisson/lock/tooltest"
)

func TestInitramfs(t *testing.T) {
	modules := []module{{"virtio", []byte("one")}, {"virtio_blk", []byte("two")}}
	write := func() []byte {
		var b bytes.Buffer
		if err := writeInitramfs(&b, strings.NewReader("program"), 7, modules); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	b := write()
	if !bytes.Equal(b, write()) {
		t.Error("another time it is another archive")
	}
	var got []string
	for r := cpio.NewReader(bytes.NewReader(b)); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprintf("%s %o %d:%d %s", h.Name, h.Mode, h.RdevMajor, h.RdevMinor, content))
	}
	want := []string{
		"dev 40755 0:0 ", "proc 40755 0:0 ", "sys 40755 0:0 ", "root 40755 0:0 ", "modules 40755 0:0 ", "dev/console 20600 5:1 ",
		"init 100755 0:0 program", "modules/000-virtio.ko 100644 0:0 one", "modules/001-virtio_blk.ko 100644 0:0 two",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// A program that wants libraries is refused, by the name of what loads them.
func TestStatic(t *testing.T) {
	f, err := os.Open(tooltest.Find(t, "true"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var dynamic *DynamicError
	if err := checkStatic(f); !errors.As(err, &dynamic) || !strings.HasPrefix(dynamic.Interpreter, "/lib") {
		t.Errorf("got %v", err)
	}
	if err := checkStatic(strings.NewReader("#!/bin/sh")); err == nil || errors.As(err, &dynamic) {
		t.Errorf("got %v", err)
	}
}

// The swap header is one by the system's own tool.
func TestSwapHeader(t *testing.T) {
	blkid := tooltest.Find(t, "blkid")
	const size = 64 << 20
	name := t.TempDir() + "/swap"
	if err := os.WriteFile(name, swapHeader(4096, size), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(name, size); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(blkid, "-p", "-o", "value", "-s", "TYPE", name).CombinedOutput()
	if err != nil || strings.TrimSpace(string(out)) != "swap" {
		t.Errorf("%s, %v", out, err)
	}
}
