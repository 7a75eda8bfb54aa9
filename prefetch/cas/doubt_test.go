package cas

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"caisson/lock/digest"
)

// marks is how many files of a store are marked as damaged.
func marks(t *testing.T, s *Store) int {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(s.Dir(), "damaged", "*"))
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// Whatever bit of a file flips: whoever reads it to the end is told, it is
// marked, and the next who has the right bytes mends it.
func TestEveryBit(t *testing.T) {
	s := open(t)
	const content = "some bytes that a disk may damage"
	d := put(t, s, content)
	dir, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	for bit := range 8 * len(content) {
		bad := []byte(content)
		bad[bit/8] ^= 1 << (bit % 8)
		damage(t, s, d, string(bad))
		var e *DamagedError
		f, err := s.Open(d)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(f); !errors.As(err, &e) || e.Got != digest.Of(bad) {
			t.Fatalf("bit %d: got %v", bit, err)
		}
		f.Close()
		if !s.Doubted(d) {
			t.Fatalf("bit %d: not marked", bit)
		}
		if how, err := s.copyTo(d, dir, "copy"); how != Reflink && !errors.As(err, &e) {
			t.Fatalf("bit %d: copied by %s, %v", bit, how, err)
		}
		put(t, s, content)
		if err := s.Verify(d); err != nil || s.Doubted(d) || marks(t, s) > 0 {
			t.Fatalf("bit %d, mended: %v, marked %v", bit, err, s.Doubted(d))
		}
	}
	noTemporaries(t, s)
}

func TestDoubts(t *testing.T) {
	below := open(t)
	a, b := put(t, below, "a file"), put(t, below, "another")
	s := reopened(t, open(t), below.Dir())
	damage(t, below, a, "A file")
	if s.Verify(a) == nil || !s.Doubted(a) || below.Doubted(a) {
		t.Error("what is damaged below is to be marked above")
	}
	damage(t, below, a, "a file") // a disk that did not always read what it has
	if err := s.Verify(a); err != nil || s.Doubted(a) {
		t.Errorf("found to be sound: %v", err)
	}
	damage(t, below, b, "anothez")
	if below.Verify(b) == nil || !below.Doubted(b) {
		t.Error("not marked")
	}
	// Who goes on reading a file that has been replaced does no harm.
	f, err := below.Open(b)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, _, err := below.Put(bytes.NewReader([]byte("another")), b); err != nil || below.Doubted(b) {
		t.Errorf("%v, marked %v", err, below.Doubted(b))
	}
	if f.Verify() == nil || below.Verify(b) != nil || below.Doubted(b) {
		t.Error("the new file is not trusted")
	}
	os.WriteFile(filepath.Join(below.Dir(), "damaged", "a note"), nil, 0o644)
	damage(t, below, b, "anothez")
	below.Verify(b)
	forget(t, below)
	s.lower[0].lease.lock.Close()
	if gc(t, below, keep()).Removed.Files != 2 || marks(t, below) > 0 {
		t.Errorf("gc leaves %d marks", marks(t, below))
	}
}
