package gitfetch

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// testPack is a pack of objects that are given as header and what is
// deflated; it claims to have n.
func testPack(n uint32, objects ...[2]string) []byte {
	b := binary.BigEndian.AppendUint32([]byte("PACK\x00\x00\x00\x02"), n)
	for _, o := range objects {
		b = append(b, o[0]...)
		var z bytes.Buffer
		w := zlib.NewWriter(&z)
		w.Write([]byte(o[1]))
		w.Close()
		b = append(b, z.Bytes()...)
	}
	return append(b, make([]byte, 20)...)
}

func TestHostilePacks(t *testing.T) {
	blob := [2]string{"\x33", "abc"}
	if err := checkPack(bytes.NewReader(testPack(1, blob))); err != nil {
		t.Fatal(err)
	}
	for name, pack := range map[string][]byte{
		"empty":       {},
		"count":       testPack(0xffffffff),
		"fewer":       testPack(2, blob),
		"large":       testPack(1, [2]string{"\xb0\x80\x80\x80\x80\x10", "abc"}),
		"longer":      testPack(1, [2]string{"\x33", strings.Repeat("a", 100_000)}),
		"delta":       testPack(2, blob, [2]string{"\x6a\x0c", "\x03\xff\xff\xff\xff\x0f\x90\x03aa"}),
		"delta short": testPack(2, blob, [2]string{"\x61\x0c", "\x03"}),
		"type":        testPack(1, [2]string{"\x53", "abc"}),
	} {
		if err := checkPack(bytes.NewReader(pack)); err == nil {
			t.Errorf("%s: was accepted", name)
		}
	}
}

// TestReceive indexes what git packs, and finds nothing in what is damaged.
func TestReceive(t *testing.T) {
	pack := realPack(t)
	w := newWatch(time.Minute, func() {})
	defer w.stop()
	repo, err := newRepo(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer repo.Close()
	if err := repo.receive(bytes.NewReader(pack), w, 1<<20); err != nil {
		t.Fatal(err)
	}
	if id, err := repo.Find("78981922613b2afb"); err == nil {
		t.Errorf("a blob was taken for the commit %s", id)
	}
	o, err := repo.Open("78981922613b2afb6025042ff6bd878ac1994e85")
	if err != nil || o.Type != "blob" || o.Size != 2 {
		t.Errorf("got %+v, %v", o, err)
	}
	for at := 12; at < len(pack)-20; at += 7 {
		bad := bytes.Clone(pack)
		bad[at] ^= 0x10
		repo, err := newRepo(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		if repo.receive(bytes.NewReader(bad), w, 1<<20) == nil {
			if _, err := repo.Find("78981922613b2afb"); err == nil {
				t.Errorf("byte %d: a blob was taken for a commit", at)
			}
		}
		repo.Close()
	}
	if err := repo.receive(bytes.NewReader(pack), w, 50); err == nil {
		t.Error("more than the limit was taken")
	}
}

func realPack(t testing.TB) []byte {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		if os.Getenv("CAISSON_TOOLS") == "required" {
			t.Fatal(err)
		}
		t.Skip("git is not installed")
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "f"), []byte("a\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	var out []byte
	for _, line := range []string{"git init -q", "git add .", "git -c user.name=a -c user.email=a@b commit -q -m m", "echo HEAD | git pack-objects -q --revs --stdout"} {
		cmd := exec.Command("sh", "-c", line)
		cmd.Dir = dir
		var err error
		if out, err = cmd.Output(); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
	}
	return out
}

func FuzzPack(f *testing.F) {
	f.Add(realPack(f))
	f.Add(testPack(2, [2]string{"\x33", "abc"}, [2]string{"\x66\x0c", "\x03\x04\x90\x03\x01a"}))
	f.Fuzz(func(t *testing.T, b []byte) {
		repo, err := newRepo(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		defer repo.Close()
		w := newWatch(time.Minute, func() {})
		defer w.stop()
		if repo.receive(bytes.NewReader(b), w, 1<<20) == nil {
			_, _ = repo.Find("00")
		}
	})
}

func TestParse(t *testing.T) {
	for raw, want := range map[string]string{
		"https://h/x": "https://h/x", "ssh://git@h:22/x": "ssh://git@h:22/x", "git@h:x/y.git": "ssh://git@h/x/y.git", "h:/abs": "ssh://h/abs", "file:///x": "file:///x",
		"ext::sh -c id": "", "-oProxyCommand=x:y": "", "../x": "", "/x": "", "": "", "https://": "", "git@h\n:x": "",
	} {
		u, err := Parse(raw)
		if (err == nil) != (want != "") || err == nil && u.String() != want {
			t.Errorf("%q: got %v, %v, want %q", raw, u, err, want)
		}
	}
}
