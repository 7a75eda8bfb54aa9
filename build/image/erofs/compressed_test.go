package erofs

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"math/rand"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// mixed makes a folder of files that compress well, badly, not at all and in
// parts, of sizes around those of blocks and packs.
func mixed(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	r := rand.New(rand.NewSource(3))
	write := func(name string, b []byte) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	noise := func(n int) []byte {
		b := make([]byte, n)
		r.Read(b)
		return b
	}
	words := func(n int) []byte {
		var b []byte
		for len(b) < n {
			b = append(b, fmt.Sprintf("word %d of %d, ", r.Intn(1000), n)...)
		}
		return b[:n]
	}
	for _, n := range []int{0, 1, 100, 4095, 4096, 4097, 8192, 40000, 65536, 131072, 262145, 1 << 20, 3<<20 + 17} {
		write(fmt.Sprintf("words/%d", n), words(n))
		write(fmt.Sprintf("noise/%d", n), noise(n))
		write(fmt.Sprintf("same/%d", n), bytes.Repeat([]byte("x"), n))
	}
	for i := range 30 {
		var b []byte
		for range 1 + r.Intn(20) {
			switch r.Intn(3) {
			case 0:
				b = append(b, noise(r.Intn(20000))...)
			case 1:
				b = append(b, words(r.Intn(50000))...)
			default:
				b = append(b, make([]byte, r.Intn(100000))...)
			}
		}
		write(fmt.Sprintf("parts/%d", i), b)
	}
	return dir
}

// TestReadCompressed reads what mkfs.erofs compressed, with each kind of index
// and of extent that it makes.
func TestReadCompressed(t *testing.T) {
	dir := mixed(t)
	want := map[string]string{}
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			var b []byte
			b, err = os.ReadFile(name)
			want[strings.TrimPrefix(name, dir+"/")] = fmt.Sprintf("%x", sha256.Sum256(b))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range []string{
		"-zlz4", "-zlz4hc,12", "-zlz4 -C65536", "-zlz4hc -C262144",
		"-zlz4 -Eforce-inode-extended", "-zlz4 -Enoinline_data",
	} {
		t.Run(args, func(t *testing.T) {
			name := filepath.Join(t.TempDir(), "image")
			run(t, "mkfs.erofs", append(strings.Fields(args), name, dir)...)
			image, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			f, err := Open(bytes.NewReader(image))
			if err != nil {
				t.Fatal(err)
			}
			files, stored := 0, int64(0)
			err = f.Walk(func(e Entry) error {
				if e.Open == nil {
					return nil
				}
				files++
				for _, x := range e.Extents {
					stored += x[1]
				}
				r, err := e.Open()
				if err != nil {
					return fmt.Errorf("%s: %w", e.Path, err)
				}
				b, err := io.ReadAll(r)
				if got := fmt.Sprintf("%x", sha256.Sum256(b)); err != nil || got != want[e.Path] {
					t.Errorf("%s: %d bytes of %d, %v", e.Path, len(b), e.Size, err)
				}
				return nil
			})
			if err != nil || files != len(want) {
				t.Errorf("%d files of %d, %v", files, len(want), err)
			}
			if stored > int64(len(image)) || stored < int64(len(image))*9/10 {
				t.Errorf("the files' extents have %d bytes, the image %d", stored, len(image))
			}
		})
	}
}

// TestDamagedCompressed changes bytes: an error, or other content.
func TestDamagedCompressed(t *testing.T) {
	dir, name := t.TempDir(), filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(filepath.Join(dir, "f"), bytes.Repeat([]byte("some words and 123 "), 5000), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []string{"-C4096", "-C65536"} {
		run(t, "mkfs.erofs", "-zlz4", c, name, dir)
		image, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		image = withoutChecksum(image)
		r := rand.New(rand.NewSource(9))
		for range 500 {
			b := slices.Clone(image)
			for range 1 + r.Intn(3) {
				at := 1024 + r.Intn(1024)
				b[at] = byte(r.Intn(256))
			}
			_, _, _, _ = walk(b)
		}
	}
}
