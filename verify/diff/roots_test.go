package diff

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"caisson/build/image/gpt"
)

// madeRoot is a disk whose root another program made of the files.
func madeRoot(t *testing.T, program []string, files map[string]string) mem {
	t.Helper()
	tool, err := exec.LookPath(program[0])
	if err != nil {
		if os.Getenv("CAISSON_TOOLS") == "required" {
			t.Fatal(err)
		}
		t.Skipf("%s is not installed", program[0])
	}
	dir, image := t.TempDir(), filepath.Join(t.TempDir(), "image")
	for name, text := range files {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	args := append([]string{dir, image}, program[1:]...)
	if program[0] == "mkfs.erofs" {
		args = append(program[1:len(program):len(program)], "-T1700000000", "-U00000000-0000-0000-0000-000000000001", image, dir)
	}
	cmd := exec.Command(tool, args...)
	cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH=1700000000")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd.Args, err, out)
	}
	b, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	m := make(mem, 8*mib)
	copy(m[mib:], b)
	if err := gpt.Write(m, int64(len(m)), gpt.Table{Partitions: []gpt.Partition{
		{Type: gpt.TypeRootX86_64, ID: gpt.GUID{2}, Name: "root", First: mib / sector, Last: 5*mib/sector - 1},
	}}); err != nil {
		t.Fatal(err)
	}
	return m
}

// TestCompressedRoots finds the file behind a difference in a root that is
// compressed, and shows what differs in it.
func TestCompressedRoots(t *testing.T) {
	for _, program := range []string{"mksquashfs -noappend -comp zstd", "mksquashfs -noappend -comp gzip -no-fragments", "mkfs.erofs -zlz4"} {
		t.Run(program, func(t *testing.T) {
			files := map[string]string{"etc/passwd": strings.Repeat(passwd, 200), "usr/bin/sh": strings.Repeat("sh\x00", 9000), "usr/lib/x": "x"}
			a := madeRoot(t, strings.Fields(program), files)
			if !bytes.Equal(a, madeRoot(t, strings.Fields(program), files)) {
				t.Fatal("the program makes other bytes each time")
			}
			files["etc/passwd"] = strings.Replace(files["etc/passwd"], "bash", "zsh!", 1)
			files["usr/lib/new"] = "new"
			got := text(t, compareDisks(t, a, madeRoot(t, strings.Fields(program), files), Options{}))
			for _, want := range []string{"/etc/passwd", "-root:x:0:0:root:/root:/bin/bash", "+root:x:0:0:root:/root:/bin/zsh!", "/usr/lib/new", "only in"} {
				if !strings.Contains(got, want) {
					t.Errorf("no %q in\n%s", want, got)
				}
			}
			if strings.Contains(got, "/usr/bin/sh\n") || strings.Contains(got, "/usr/lib/x\n") {
				t.Errorf("names files that are the same:\n%s", got)
			}
		})
	}
}
