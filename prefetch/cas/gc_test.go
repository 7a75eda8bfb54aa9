package cas

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"caisson/lock/digest"
)

// reopened is the store as another process would open it.
func reopened(t testing.TB, s *Store, lower ...string) *Store {
	t.Helper()
	o, err := Open(s.Dir(), lower...)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// forget ends the leases of those who have used the store until now.
func forget(t *testing.T, s *Store) {
	t.Helper()
	if s.lease.file != nil {
		s.lease.file.Close()
	}
	old := time.Now().Add(-2 * time.Hour)
	for _, pattern := range []string{"leases/*", "sha256/*/*", "index/*/*", "partial/*"} {
		names, _ := filepath.Glob(filepath.Join(s.Dir(), pattern))
		for _, n := range names {
			if err := os.Chtimes(n, old, old); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func keep(ds ...digest.Digest) GCOptions {
	return GCOptions{Keep: func(d digest.Digest) bool { return slices.Contains(ds, d) }, Grace: time.Hour, Wait: 200 * time.Millisecond}
}

func gc(t *testing.T, s *Store, o GCOptions) GCStats {
	t.Helper()
	st, err := reopened(t, s).GC(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func TestGC(t *testing.T) {
	s := open(t)
	needed, unused, linked := put(t, s, "needed"), put(t, s, "unused"), put(t, s, "linked")
	for _, d := range []digest.Digest{needed, unused} {
		if err := s.Remember(d.Hex(), d); err != nil {
			t.Fatal(err)
		}
	}
	os.WriteFile(filepath.Join(s.Dir(), "sha256", needed.Hex()[:2], "a note"), []byte("not ours"), 0o644)
	if err := os.Link(s.Path(linked), filepath.Join(t.TempDir(), "view")); err != nil {
		t.Fatal(err)
	}
	if got, want := gc(t, s, keep(needed)), (GCStats{Kept: Count{1, 6}, InUse: Count{2, 12}}); got != want {
		t.Errorf("in use: got %+v, want %+v", got, want)
	}
	s.lease.file.Close()
	if got, want := gc(t, s, keep(needed)), (GCStats{Kept: Count{1, 6}, Fresh: Count{2, 12}}); got != want {
		t.Errorf("fresh: got %+v, want %+v", got, want)
	}
	s = reopened(t, s)
	forget(t, s)
	want := GCStats{Kept: Count{1, 6}, Removed: Count{2, 12}, Linked: Count{1, 6}}
	dry := keep(needed)
	dry.DryRun = true
	if got := gc(t, s, dry); got != want || got.Freed() != 6 {
		t.Errorf("dry run: got %+v, want %+v", got, want)
	}
	if got := gc(t, s, keep(needed)); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if !s.Has(needed) || s.Has(unused) || s.Has(linked) {
		t.Error("other files than those that were to be removed")
	}
	_, has := s.Lookup(needed.Hex())
	if _, gone := s.Lookup(unused.Hex()); !has || gone {
		t.Errorf("remembered: %v, %v", has, gone)
	}
}

// What a process that has ended asked for stays for the grace period, however
// old the file is.
func TestGCAfterUse(t *testing.T) {
	s := open(t)
	used, other := put(t, s, "used"), put(t, s, "other")
	forget(t, s)
	reader := reopened(t, s)
	reader.Has(used)
	if err := reader.Check(context.Background(), other, nil); err != nil { // does not count
		t.Fatal(err)
	}
	if got, want := gc(t, s, keep()), (GCStats{InUse: Count{1, 4}, Removed: Count{1, 5}}); got != want {
		t.Errorf("while it runs: got %+v, want %+v", got, want)
	}
	reader.lease.file.Close()
	if got, want := gc(t, s, keep()), (GCStats{Fresh: Count{1, 4}}); got != want {
		t.Errorf("when it has ended: got %+v, want %+v", got, want)
	}
	o := keep()
	o.Grace = 0
	if got, want := gc(t, s, o), (GCStats{Removed: Count{1, 4}}); got != want {
		t.Errorf("without grace: got %+v, want %+v", got, want)
	}
	forget(t, s)
	old := time.Now().Add(-2 * MaxGrace)
	names, _ := filepath.Glob(filepath.Join(s.Dir(), "leases", "*"))
	for _, n := range names {
		os.Chtimes(n, old, old)
	}
	reopened(t, s)
	if left, _ := filepath.Glob(filepath.Join(s.Dir(), "leases", "*")); len(left) > 0 {
		t.Errorf("leases are left: %s", left)
	}
}

// A reader that may not write holds the whole store.
func TestGCReadOnlyUser(t *testing.T) {
	s := open(t)
	d := put(t, s, "needed below")
	forget(t, s)
	top, err := Open(t.TempDir(), s.Dir())
	if err != nil {
		t.Fatal(err)
	}
	if err := top.Verify(d); err != nil {
		t.Fatal(err)
	}
	_, err = reopened(t, s).GC(context.Background(), keep())
	var busy *BusyError
	if !errors.As(err, &busy) || !s.Has(d) {
		t.Errorf("got %v", err)
	}
	top.lower[0].lease.lock.Close()
	s.lease = lease{}
	forget(t, s)
	if got := gc(t, s, keep()); got.Removed.Files != 1 {
		t.Errorf("got %+v", got)
	}
}

func TestGCPartials(t *testing.T) {
	s := open(t)
	a, b := digest.Of([]byte("a")), digest.Of([]byte("b"))
	for _, d := range []digest.Digest{a, b} {
		tmp, err := s.Create()
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(tmp, "half")
		tmp.Keep(d, "https://example.org", `"v1"`)
		tmp.Discard()
	}
	if got := gc(t, s, keep(a)); got != (GCStats{}) {
		t.Errorf("fresh: got %+v", got)
	}
	forget(t, s)
	if got := gc(t, s, keep(a)); got != (GCStats{Partial: Count{1, 4}}) || got.Freed() != 4 {
		t.Errorf("got %+v", got)
	}
	tmp, err := s.Create()
	if err != nil {
		t.Fatal(err)
	}
	defer tmp.Drop()
	if tmp.Resume(b, "https://example.org") != "" || tmp.Resume(a, "https://example.com") != "" {
		t.Error("it went on from what is not there")
	}
	if tmp.Resume(a, "https://example.org") != `"v1"` || tmp.Size() != 4 {
		t.Errorf("got %d bytes", tmp.Size())
	}
	forget(t, s) // it is being written: it stays
	if got := gc(t, s, keep()); got != (GCStats{}) {
		t.Errorf("being written: got %+v", got)
	}
	tmp.Discard()
	old := time.Now().Add(-2 * partialKept)
	names, _ := filepath.Glob(filepath.Join(s.Dir(), "partial", "*"))
	for _, n := range names {
		os.Chtimes(n, old, old)
	}
	reopened(t, s)
	if left, _ := filepath.Glob(filepath.Join(s.Dir(), "partial", "*")); len(left) > 0 || len(names) != 2 {
		t.Errorf("%d were kept, left are %s", len(names), left)
	}
}

// useEnv names the store in which a child process uses files until it is killed.
const useEnv = "CAISSON_CAS_USER"

// useForEver does what a prefetch and then a build do: what the store has is
// used, what it does not have is put there. From the moment in which the
// store said that it has a file, the file has to stay.
func useForEver(dir string) error {
	for n := 0; ; n++ {
		s, err := Open(dir)
		if err != nil {
			return err
		}
		var mine []digest.Digest
		for i := range 5 {
			b := blob((n*7 + i*11) % 200)
			d := digest.Of(b)
			if !s.Has(d) {
				if _, _, err := s.Put(bytes.NewReader(b), d); err != nil {
					return err
				}
			}
			mine = append(mine, d)
		}
		for _, d := range mine {
			if err := s.Verify(d); err != nil {
				return err
			}
		}
		s.lease.file.Close()
		s.lease.lock.Close()
	}
}

// GC without any grace, again and again, beside processes that use the store.
func TestGCBesideUsers(t *testing.T) {
	s := open(t)
	var children []*exec.Cmd
	var said [3]bytes.Buffer
	for i := range said {
		c := exec.Command(os.Args[0])
		c.Env = append(os.Environ(), useEnv+"="+s.Dir())
		c.Stderr = &said[i]
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		children = append(children, c)
	}
	var removed, used int
	o := keep()
	o.Grace = 0
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); {
		st := gc(t, s, o)
		removed += st.Removed.Files
		used += st.InUse.Files
	}
	for i, c := range children {
		c.Process.Kill()
		c.Wait()
		if said[i].Len() > 0 {
			t.Errorf("a user said: %s", said[i].String())
		}
	}
	t.Logf("%d removed, %d times one was in use", removed, used)
	if removed == 0 || used == 0 {
		t.Error("nothing was tried")
	}
}

// gcEnv names the store that a child process collects until it is killed.
const gcEnv = "CAISSON_CAS_GC"

func gcForEver(dir string) error {
	for {
		s, err := Open(dir)
		if err != nil {
			return err
		}
		if _, err := s.GC(context.Background(), GCOptions{Keep: func(d digest.Digest) bool { return d[0] < 32 }, Wait: time.Minute}); err != nil {
			return err
		}
	}
}

// Processes that collect a store, several at once, are killed at any moment
// beside others that use it, some of which are killed as well. Nothing that a
// live one was promised goes, and the next gc does all that was left to do.
func TestGCKilled(t *testing.T) {
	s := open(t)
	type child struct {
		*exec.Cmd
		said *bytes.Buffer
	}
	start := func(env string) child {
		c := child{exec.Command(os.Args[0]), new(bytes.Buffer)}
		c.Env = append(os.Environ(), env+"="+s.Dir())
		c.Stderr = c.said
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		return c
	}
	kill := func(c child) {
		c.Process.Kill() // SIGKILL
		c.Wait()
		if c.said.Len() > 0 {
			t.Errorf("a child said: %s", c.said)
		}
	}
	stays := start(useEnv)
	for round := range 12 {
		a, b, user := start(gcEnv), start(gcEnv), start(useEnv)
		time.Sleep(time.Duration(50+17*round) * time.Millisecond)
		kill(a)
		kill(user)
		kill(b)
	}
	kill(stays)
	if err := s.Walk(func(e Entry) error { return s.Check(context.Background(), e.Digest, nil) }, func(p string) error {
		t.Errorf("a foreign file: %s", p)
		return nil
	}); err != nil {
		t.Error(err)
	}
	forget(t, s)
	gc(t, s, keep())
	noTemporaries(t, s)
	for _, pattern := range []string{"sha256/*/*", "index/*/*", "partial/*"} {
		if left, _ := filepath.Glob(filepath.Join(s.Dir(), pattern)); len(left) > 0 {
			t.Errorf("left are %s", left)
		}
	}
}

func TestWalk(t *testing.T) {
	s := open(t)
	a, b := put(t, s, "a"), put(t, s, "b")
	os.Remove(s.Path(b))
	os.Mkdir(s.Path(b), 0o755)
	os.MkdirAll(filepath.Join(s.Dir(), "sha256", "zz", a.Hex()), 0o755)
	var got []string
	foreign := 0
	if err := s.Walk(func(e Entry) error {
		got = append(got, fmt.Sprintf("%s %v", e.Digest.Hex()[:8], e.Regular))
		return nil
	}, func(string) error {
		foreign++
		return nil
	}); err != nil || foreign != 1 {
		t.Fatal(err)
	}
	want := []string{a.Hex()[:8] + " true", b.Hex()[:8] + " false"}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestLayers(t *testing.T) {
	below := open(t)
	a, b := put(t, below, "both"), put(t, below, "below")
	if err := below.Remember("k", b); err != nil {
		t.Fatal(err)
	}
	top, err := Open(filepath.Join(t.TempDir(), "top"), below.Dir())
	if err != nil {
		t.Fatal(err)
	}
	put(t, top, "both")
	c := put(t, top, "top")
	if _, err := os.Lstat(top.path(a)); err == nil {
		t.Error("what is below was written again")
	}
	for _, d := range []digest.Digest{a, b, c} {
		if err := top.Verify(d); err != nil || !top.Has(d) {
			t.Error(err)
		}
	}
	if top.Path(b) != below.Path(b) || top.Path(c) != top.path(c) {
		t.Errorf("got %s, %s", top.Path(b), top.Path(c))
	}
	if d, ok := top.Lookup("k"); !ok || d != b {
		t.Error("what is remembered below is not found")
	}
	if dirs := top.Dirs(); !slices.Equal(dirs, []string{top.Dir(), below.Dir()}) {
		t.Errorf("got %s", dirs)
	}

	damage(t, below, b, "bilow")
	var e *DamagedError
	if err := top.Verify(b); !errors.As(err, &e) || !strings.HasPrefix(e.Path, below.Dir()) {
		t.Errorf("got %v", err)
	}
	tmp, err := top.Create()
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(tmp, "below")
	if replaced, err := tmp.Commit(b); err != nil || !replaced {
		t.Errorf("got %v, %v", replaced, err)
	}
	if err := top.Verify(b); err != nil || top.Path(b) != top.path(b) {
		t.Errorf("after it was healed: %v", err)
	}
	if err := below.Verify(b); !errors.As(err, &e) {
		t.Errorf("the store below was written to: %v", err)
	}
	if _, err := Open(t.TempDir(), filepath.Join(t.TempDir(), "absent")); err == nil {
		t.Error("a store below that is not there was opened")
	}
}

// A store below that nobody may write to.
func TestLayersReadOnly(t *testing.T) {
	below := open(t)
	d := put(t, below, "below")
	if err := filepath.WalkDir(below.Dir(), func(p string, e os.DirEntry, err error) error {
		if err == nil && e.IsDir() {
			return os.Chmod(p, 0o555)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		filepath.WalkDir(below.Dir(), func(p string, e os.DirEntry, _ error) error { return os.Chmod(p, 0o755) })
	})
	for _, s := range []*Store{reopened(t, below), reopened(t, open(t), below.Dir())} {
		if err := s.Verify(d); err != nil {
			t.Error(err)
		}
	}
}

func BenchmarkWalk(b *testing.B) {
	s := many(b)
	for b.Loop() {
		n := 0
		if err := s.Walk(func(Entry) error { n++; return nil }, nil); err != nil || n < 100_000 {
			b.Fatal(n, err)
		}
	}
}

// many makes a store of 100,000 files.
func many(b *testing.B) *Store {
	s, err := Open(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	for n := range 100_000 {
		d := digest.Of(fmt.Append(nil, n))
		os.MkdirAll(filepath.Dir(s.path(d)), 0o755)
		if err := os.WriteFile(s.path(d), nil, 0o444); err != nil {
			b.Fatal(err)
		}
	}
	return s
}

// Looking for 2,000 files in a store that has no others, and in one of
// 100,000: what a run over a full store does of them.
func BenchmarkSize(b *testing.B) {
	for _, large := range []bool{false, true} {
		b.Run(fmt.Sprintf("large=%v", large), func(b *testing.B) {
			var s *Store
			if large {
				s = many(b)
			} else {
				s, _ = Open(b.TempDir())
			}
			var ds []digest.Digest
			for n := range 2000 {
				d, _, err := s.Put(strings.NewReader(fmt.Sprint("x", n)), digest.Digest{})
				if err != nil {
					b.Fatal(err)
				}
				ds = append(ds, d)
			}
			for b.Loop() {
				o, err := Open(s.Dir())
				if err != nil {
					b.Fatal(err)
				}
				o.Reserve(ds)
				for _, d := range ds {
					if !o.Has(d) {
						b.Fatal(d)
					}
				}
				o.lease.file.Close()
			}
		})
	}
}
