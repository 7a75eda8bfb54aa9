package vm

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"caisson/lock/digest"
)

func sumOf(b []byte) written { return written{int64(len(b)), digest.Digest(sha256.Sum256(b))} }

func TestResults(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	files := map[string]string{"tiny.qcow2": strings.Repeat("image", 100_000), "build.log": "log\n", "empty": ""}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(from, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var b bytes.Buffer
	w, err := writeResults(&b, from)
	if err != nil {
		t.Fatal(err)
	}
	disk := append(b.Bytes(), make([]byte, 1<<20)...) // which is larger than what is on it
	all := func(name string) bool { _, ok := files[name]; return ok }
	if err := readResults(context.Background(), bytes.NewReader(disk), w, to, all); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		if got, err := os.ReadFile(filepath.Join(to, name)); err != nil || string(got) != text {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
	if err := os.Symlink("build.log", filepath.Join(from, "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(from, "folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := writeResults(&b, from); err == nil || !strings.Contains(err.Error(), "folder is no file") {
		t.Errorf("a folder among the results: %v", err)
	}
}

// archive is a tar archive of one entry, with so many bytes behind it.
func archive(h *tar.Header, data string) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if h.Format == 0 {
		h.Format = tar.FormatPAX
	}
	if err := w.WriteHeader(h); err != nil {
		panic(err)
	}
	_, _ = w.Write([]byte(data))
	_ = w.Close()
	return b.Bytes()
}

// What a machine may not leave: nothing of it is outside the folder, and no link is
// in it.
func TestHostileResults(t *testing.T) {
	many := func() []byte {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for range maxResults + 1 {
			_ = w.WriteHeader(&tar.Header{Name: "good"})
		}
		_ = w.Close()
		return b.Bytes()
	}
	good := archive(&tar.Header{Name: "good", Size: 4}, "good")
	twice := append(good[:1024:1024], good...)
	long := bytes.Clone(good)
	copy(long[124:], "77777777777\x00") // the size
	var sum int
	copy(long[148:156], "        ")
	for _, c := range long[:512] {
		sum += int(c)
	}
	copy(long[148:], []byte{byte('0' + sum>>15&7), byte('0' + sum>>12&7), byte('0' + sum>>9&7), byte('0' + sum>>6&7), byte('0' + sum>>3&7), byte('0' + sum&7), 0, ' '})
	for _, tt := range []struct {
		name string
		b    []byte
		said *written
		want string
	}{
		{name: "climbing", b: archive(&tar.Header{Name: "../good", Size: 1}, "x"), want: `"../good" is no file that a build leaves`},
		{name: "absolute", b: archive(&tar.Header{Name: "/etc/good", Size: 1}, "x"), want: "no file that a build leaves"},
		{name: "in a folder", b: archive(&tar.Header{Name: "a/good", Size: 1}, "x"), want: "no file that a build leaves"},
		{name: "hidden", b: archive(&tar.Header{Name: ".good", Size: 1}, "x"), want: "no file that a build leaves"},
		{name: "other name", b: archive(&tar.Header{Name: "image.json", Size: 1}, "x"), want: "no file that a build leaves"},
		{name: "symbolic link", b: archive(&tar.Header{Name: "good", Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"}, ""), want: "no regular file"},
		{name: "hard link", b: archive(&tar.Header{Name: "good", Typeflag: tar.TypeLink, Linkname: "/etc/passwd"}, ""), want: "no regular file"},
		{name: "device", b: archive(&tar.Header{Name: "good", Typeflag: tar.TypeBlock}, ""), want: "no regular file"},
		{name: "folder", b: archive(&tar.Header{Name: "good/", Typeflag: tar.TypeDir}, ""), want: "no regular file"},
		{name: "twice", b: twice, want: "file exists"},
		{name: "too long", b: long, want: "more than the machine wrote"},
		{name: "cut off", b: good[:514], want: "unexpected EOF"},
		{name: "no archive", b: bytes.Repeat([]byte("x"), 2048), want: "invalid tar header"},
		{name: "many", b: many(), want: "file exists"},
		{name: "other bytes", b: good, said: &written{Size: int64(len(good))}, want: "and the machine said"},
		{name: "fewer bytes", b: good, said: &written{Size: 1 << 40}, want: "and the machine said"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			above := t.TempDir()
			dir := filepath.Join(above, "results")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			said := sumOf(tt.b)
			if tt.said != nil {
				said = *tt.said
			}
			err := readResults(context.Background(), bytes.NewReader(tt.b), said, dir, func(name string) bool { return name == "good" })
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if left, _ := os.ReadDir(above); len(left) != 1 {
				t.Errorf("beside the folder there are %v", left)
			}
		})
	}
}

func FuzzResults(f *testing.F) {
	f.Add(archive(&tar.Header{Name: "good", Size: 4}, "good"))
	f.Add(archive(&tar.Header{Name: "../good", Typeflag: tar.TypeSymlink, Linkname: "x"}, ""))
	f.Fuzz(func(t *testing.T, b []byte) {
		above := t.TempDir()
		dir := filepath.Join(above, "results")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		_ = readResults(context.Background(), bytes.NewReader(b), sumOf(b), dir, func(name string) bool { return name == "good" })
		if left, _ := os.ReadDir(above); len(left) != 1 {
			t.Errorf("beside the folder there are %v", left)
		}
		in, _ := os.ReadDir(dir)
		for _, e := range in {
			st, err := e.Info()
			if err != nil || e.Name() != "good" || !st.Mode().IsRegular() || st.Size() > int64(len(b)) {
				t.Errorf("%v, %v", st, err)
			}
		}
	})
}
