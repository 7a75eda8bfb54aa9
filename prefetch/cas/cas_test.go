package cas

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"caisson/lock/digest"
)

// childEnv names the store that a child process is to fill until it is killed.
const childEnv = "CAISSON_CAS_CHILD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		fillForEver(dir)
		os.Exit(1)
	}
	if dir := os.Getenv(useEnv); dir != "" {
		fmt.Fprintln(os.Stderr, useForEver(dir))
		os.Exit(1)
	}
	if dir := os.Getenv(gcEnv); dir != "" {
		fmt.Fprintln(os.Stderr, gcForEver(dir))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// blob is the content of the n-th file of the process tests.
func blob(n int) []byte { return bytes.Repeat(fmt.Appendf(nil, "file %d\n", n), 1+n*37%5000) }

func fillForEver(dir string) {
	s, err := Open(dir)
	for n := 0; err == nil; n++ {
		b := blob(n % 200)
		_, _, err = s.Put(iotest.HalfReader(bytes.NewReader(b)), digest.Of(b))
		if err == nil {
			err = s.Remember(fmt.Sprint(n), digest.Of(b))
		}
	}
	fmt.Fprintln(os.Stderr, err)
}

func open(t *testing.T) *Store {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "store"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func put(t *testing.T, s *Store, content string) digest.Digest {
	t.Helper()
	d, n, err := s.Put(strings.NewReader(content), digest.Digest{})
	if err != nil {
		t.Fatal(err)
	}
	if n != int64(len(content)) || d != digest.Of([]byte(content)) {
		t.Fatalf("got %s, %d bytes", d, n)
	}
	return d
}

// damage changes a stored file behind the store's back.
func damage(t *testing.T, s *Store, d digest.Digest, content string) {
	t.Helper()
	if err := os.Chmod(s.Path(d), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.Path(d), []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func noTemporaries(t *testing.T, s *Store) {
	t.Helper()
	left, err := os.ReadDir(filepath.Join(s.Dir(), "tmp"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if len(left) != 0 {
		t.Errorf("%d temporary files are left", len(left))
	}
}

func TestPutAndOpen(t *testing.T) {
	s := open(t)
	for _, content := range []string{"", "hello", strings.Repeat("x", 200_000)} {
		d := put(t, s, content)
		if !s.Has(d) {
			t.Errorf("%s: not there", d)
		}
		want := filepath.Join(s.Dir(), "sha256", d.Hex()[:2], d.Hex())
		fi, err := os.Stat(want)
		if err != nil || s.Path(d) != want {
			t.Fatalf("%s: %v", s.Path(d), err)
		}
		if fi.Mode() != 0o444 {
			t.Errorf("got mode %v, want 0444", fi.Mode())
		}
		f, err := s.Open(d)
		if err != nil {
			t.Fatal(err)
		}
		if f.Size() != int64(len(content)) {
			t.Errorf("got size %d, want %d", f.Size(), len(content))
		}
		if err := iotest.TestReader(f, []byte(content)); err != nil {
			t.Error(err)
		}
		f.Close()
	}
	noTemporaries(t, s)
}

func TestPutReaders(t *testing.T) {
	s := open(t)
	content := strings.Repeat("caisson ", 5000)
	want := digest.Of([]byte(content))
	for _, r := range []func(io.Reader) io.Reader{iotest.HalfReader, iotest.OneByteReader, iotest.DataErrReader} {
		if d, _, err := s.Put(r(strings.NewReader(content)), want); err != nil || d != want {
			t.Errorf("got %s, %v", d, err)
		}
	}
	broken := errors.New("broken")
	other := "other " + content
	r := io.MultiReader(strings.NewReader(other), iotest.ErrReader(broken))
	if _, _, err := s.Put(r, digest.Digest{}); !errors.Is(err, broken) {
		t.Errorf("got %v, want %v", err, broken)
	}
	if s.Has(digest.Of([]byte(other))) {
		t.Error("what was only begun is in the store")
	}
	noTemporaries(t, s)
}

func TestPutMismatch(t *testing.T) {
	s := open(t)
	want := digest.Of([]byte("right"))
	_, _, err := s.Put(strings.NewReader("wrong"), want)
	var m *MismatchError
	if !errors.As(err, &m) || m.Want != want || m.Got != digest.Of([]byte("wrong")) {
		t.Fatalf("got %v", err)
	}
	if s.Has(want) || s.Has(m.Got) {
		t.Error("one of the two is in the store")
	}
	noTemporaries(t, s)
}

func TestMissing(t *testing.T) {
	s := open(t)
	d := digest.Of([]byte("nothing"))
	var m *MissingError
	if err := s.Verify(d); !errors.As(err, &m) || m.Digest != d || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	if s.Has(d) {
		t.Error("it is there")
	}
}

func TestDamaged(t *testing.T) {
	s := open(t)
	d := put(t, s, "sound")
	for _, bad := range []string{"saund", "soun", "sound and more", ""} {
		damage(t, s, d, bad)
		var e *DamagedError
		if err := s.Verify(d); !errors.As(err, &e) || e.Digest != d || e.Got != digest.Of([]byte(bad)) {
			t.Errorf("%q: got %v", bad, err)
		}
		tmp, err := s.Create()
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(tmp, "sound")
		replaced, err := tmp.Commit(d)
		if err != nil || !replaced {
			t.Errorf("%q: replaced %v, %v", bad, replaced, err)
		}
		if err := s.Verify(d); err != nil {
			t.Errorf("after it was replaced: %v", err)
		}
	}
	// A folder where the file should be.
	os.Remove(s.Path(d))
	os.MkdirAll(filepath.Join(s.Path(d), "sub"), 0o755)
	var e *DamagedError
	if err := s.Verify(d); !errors.As(err, &e) || s.Has(d) {
		t.Errorf("a folder: got %v", err)
	}
	put(t, s, "sound")
	if err := s.Verify(d); err != nil {
		t.Error(err)
	}
	// A sound file is left as it is.
	before, _ := os.Stat(s.Path(d))
	put(t, s, "sound")
	if after, _ := os.Stat(s.Path(d)); !os.SameFile(before, after) {
		t.Error("a sound file was replaced")
	}
}

func TestFileSeek(t *testing.T) {
	s := open(t)
	d := put(t, s, "0123456789")
	damage(t, s, d, "012345678X")
	read := func(f *File) (string, error) { b, err := io.ReadAll(f); return string(b), err }
	var e *DamagedError

	f, err := s.Open(d)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var p [4]byte
	if _, err := io.ReadFull(f, p[:]); err != nil {
		t.Fatal(err)
	}
	f.Seek(2, io.SeekStart) // back: nothing is left out
	if got, err := read(f); !errors.As(err, &e) || got != "2345678X" {
		t.Errorf("got %q, %v", got, err)
	}
	f.Seek(0, io.SeekStart)
	if _, err := read(f); !errors.As(err, &e) {
		t.Errorf("read again: got %v", err)
	}

	g, err := s.Open(d)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	g.Seek(5, io.SeekStart)
	if got, err := read(g); got != "5678X" || err != nil {
		t.Errorf("from the middle: got %q, %v", got, err)
	}
	if err := g.Verify(); !errors.As(err, &e) {
		t.Errorf("Verify: got %v", err)
	}
	if n, err := g.ReadAt(p[:], 1); n != 4 || err != nil || string(p[:]) != "1234" {
		t.Errorf("ReadAt: got %q, %v", p[:n], err)
	}
}

func TestTemp(t *testing.T) {
	s := open(t)
	tmp, err := s.Create()
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(tmp, "a false start")
	if err := tmp.Restart(); err != nil {
		t.Fatal(err)
	}
	io.WriteString(tmp, "right")
	if tmp.Size() != 5 || tmp.Sum() != digest.Of([]byte("right")) {
		t.Errorf("got %d bytes, %s", tmp.Size(), tmp.Sum())
	}
	if _, err := tmp.Commit(digest.Of([]byte("wrong"))); err == nil {
		t.Error("committed under another name")
	}
	if replaced, err := tmp.Commit(tmp.Sum()); err != nil || replaced {
		t.Errorf("got %v, %v", replaced, err)
	}
	tmp.Discard()
	if _, err := tmp.Commit(tmp.Sum()); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("committed twice: %v", err)
	}
	if err := s.Verify(digest.Of([]byte("right"))); err != nil {
		t.Error(err)
	}
}

func TestStaleTemporaries(t *testing.T) {
	s := open(t)
	alive, err := s.Create()
	if err != nil {
		t.Fatal(err)
	}
	defer alive.Discard()
	stale := filepath.Join(s.Dir(), "tmp", "0123456789abcdef")
	if err := os.WriteFile(stale, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(s.Dir()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(stale); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the stale one: %v", err)
	}
	if _, err := os.Stat(alive.Name()); err != nil {
		t.Errorf("the one being written: %v", err)
	}
}

// Opening stores all the time does not disturb who writes.
func TestOpenWhileWriting(t *testing.T) {
	s := open(t)
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for n := range 40 {
				b := blob(n + w)
				if _, _, err := s.Put(bytes.NewReader(b), digest.Of(b)); err != nil {
					t.Error(err)
				}
				if _, err := Open(s.Dir()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	noTemporaries(t, s)
}

func TestIndex(t *testing.T) {
	s := open(t)
	a, b := digest.Of([]byte("a")), digest.Of([]byte("b"))
	const key = "https://user:secret@example.org/"
	if _, ok := s.Lookup(key); ok {
		t.Error("found before it was remembered")
	}
	for _, d := range []digest.Digest{a, b} {
		if err := s.Remember(key, d); err != nil {
			t.Fatal(err)
		}
		if got, ok := s.Lookup(key); !ok || got != d {
			t.Errorf("got %s, %v", got, ok)
		}
	}
	if err := s.Remember(key, digest.Digest{}); err == nil {
		t.Error("an unknown digest was remembered")
	}
	for _, torn := range []string{"", "sha256:", b.String(), b.String()[:20] + "\n", "\n", strings.Repeat("\x00", 72)} {
		if err := os.WriteFile(s.indexPath(key), []byte(torn), 0o644); err != nil {
			t.Fatal(err)
		}
		if d, ok := s.Lookup(key); ok {
			t.Errorf("%q: found %s", torn, d)
		}
	}
	noTemporaries(t, s)
}

func TestOpenNoFolder(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	os.WriteFile(file, nil, 0o644)
	if _, err := Open(file); err == nil {
		t.Error("a file was opened as a store")
	}
}

// Processes that fill one store at the same time are killed, again and
// again: whatever has a final name is sound, and nothing is left behind.
func TestKilledProcesses(t *testing.T) {
	s := open(t)
	for round := range 6 {
		var children []*exec.Cmd
		for range 3 {
			c := exec.Command(os.Args[0])
			c.Env = append(os.Environ(), childEnv+"="+s.Dir())
			c.Stderr = os.Stderr
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			children = append(children, c)
		}
		time.Sleep(time.Duration(60+35*round) * time.Millisecond)
		for _, c := range children {
			c.Process.Kill() // SIGKILL
			err := c.Wait()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.Exited() {
				t.Errorf("a child ended by itself: %v", err)
			}
		}
		found := 0
		for n := range 200 {
			d := digest.Of(blob(n))
			if !s.Has(d) {
				continue
			}
			found++
			if err := s.Verify(d); err != nil {
				t.Error(err)
			}
		}
		if _, err := Open(s.Dir()); err != nil {
			t.Fatal(err)
		}
		noTemporaries(t, s)
		t.Logf("round %d: %d files", round, found)
	}
	files, err := filepath.Glob(filepath.Join(s.Dir(), "sha256", "*", "*"))
	if err != nil || len(files) == 0 || len(files) > 200 {
		t.Errorf("%d files, %v", len(files), err)
	}
}

func BenchmarkPut(b *testing.B) {
	s, err := Open(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	content := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	b.SetBytes(int64(len(content)))
	for i := 0; b.Loop(); i++ {
		copy(content, fmt.Sprint(i))
		if _, _, err := s.Put(bytes.NewReader(content), digest.Digest{}); err != nil {
			b.Fatal(err)
		}
	}
}
