package prefetch

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"caisson/lock/digest"
	"caisson/prefetch/cas"
)

// flip inverts a bit of a stored file.
func flip(t testing.TB, s *cas.Store, d digest.Digest) {
	t.Helper()
	b, err := os.ReadFile(s.Path(d))
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 4
	break1(t, s, d, string(b))
}

// A disk flips a bit. A run that looks at sizes does not see it; who reads the
// file is told, and the run after that mends it without being asked to look.
func TestNextRunMends(t *testing.T) {
	w, s := newWorld(t), newStore(t)
	if _, err := fill(t, w, s); err != nil {
		t.Fatal(err)
	}
	n := len(w.lock.Inputs)
	for _, name := range []string{"an.iso", "hello-2:1.0-3.noarch", "example.org/mod@v1.0.0.zip", "serde-1.0.0.crate"} {
		in := w.find(t, name)
		flip(t, s, in.SHA256)
		if stats, err := fill(t, w, s); err != nil || stats != (Stats{Present: n}) {
			t.Errorf("%s: got %+v, %v", name, stats, err)
		}
		if err := VerifyAll(t.Context(), w.lock, s, ""); !isA[*cas.DamagedError](err) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: got %v", name, err)
		}
		again, err := cas.Open(s.Dir()) // another process
		if err != nil {
			t.Fatal(err)
		}
		if stats, err := fill(t, w, again); err != nil || stats.Repaired != 1 || stats.Fetched != 1 || stats.Present != n-1 {
			t.Errorf("%s: got %+v, %v", name, stats, err)
		}
		if stats, err := fill(t, w, s); err != nil || stats.Fetched != 0 {
			t.Errorf("%s, mended: got %+v, %v", name, stats, err)
		}
		if err := VerifyAll(t.Context(), w.lock, s, ""); err != nil {
			t.Error(err)
		}
	}
	clean(t, s)
}

// What is marked and cannot be had again stays refused, and is said to be damaged.
func TestMendingFails(t *testing.T) {
	w, s := newWorld(t), newStore(t)
	if _, err := fill(t, w, s); err != nil {
		t.Fatal(err)
	}
	in := w.find(t, "an.iso")
	flip(t, s, in.SHA256)
	right := w.srv.at["/files/iso"]
	for _, served := range []string{"404", strings.ToUpper(right)} {
		w.srv.at["/files/iso"] = served
		if s.Verify(in.SHA256) == nil {
			t.Fatal("the damage is not seen")
		}
		if _, err := fill(t, w, s); err == nil || !strings.HasPrefix(err.Error(), "file an.iso: fetching ") {
			t.Errorf("got %v", err)
		}
		if s.Verify(in.SHA256) == nil {
			t.Error("it is sound")
		}
	}
	w.srv.at["/files/iso"] = right
	if stats, err := fill(t, w, s); err != nil || stats.Repaired != 1 {
		t.Errorf("got %+v, %v", stats, err)
	}
	clean(t, s)
}

// gc without any grace beside processes that fill the store, and that are
// killed: what they have asked for stays until they have ended.
func TestGCBesideFill(t *testing.T) {
	at := make(map[string]string)
	for n := range manyCount {
		at[fmt.Sprintf("/%d", n)] = manyContent(n)
	}
	srv := newFiles(at)
	inner := srv.fault
	srv.fault = func(n int, w http.ResponseWriter, r *http.Request) bool {
		time.Sleep(5 * time.Millisecond)
		return inner(n, w, r)
	}
	url, s := serve(t, srv), newStore(t)
	all := cas.GCOptions{Keep: func(digest.Digest) bool { return false }, Wait: time.Minute}
	collect := func() (st cas.GCStats) {
		g, err := cas.Open(s.Dir())
		if err == nil {
			st, err = g.GC(context.Background(), all)
		}
		if err != nil {
			t.Error(err)
		}
		return st
	}
	for round := range 3 {
		killed := child(s.Dir() + " " + url)
		c := child(s.Dir() + " " + url)
		if err := errors.Join(killed.Start(), c.Start()); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- c.Wait() }()
		used := 0
		for ended := false; !ended; {
			used += collect().InUse.Files
			select {
			case err := <-done:
				if ended = true; err != nil {
					t.Errorf("a prefetch beside gc: %v", err)
				}
			case <-time.After(10 * time.Millisecond):
			}
			if used > manyCount*(round+1) {
				killed.Process.Kill()
			}
		}
		killed.Process.Kill()
		killed.Wait()
		if used == 0 {
			t.Error("nothing was in use")
		}
		if st := collect(); st.InUse.Files != 0 || st.Kept.Files != 0 {
			t.Errorf("when all have ended: got %+v", st)
		}
	}
	sound(t, s)
	if files, _ := filepath.Glob(filepath.Join(s.Dir(), "sha256", "*", "*")); len(files) > 0 {
		t.Errorf("%d files are left", len(files))
	}
	// A store that somebody uses: what the lock needs stays, with no other
	// lock, until the build that has asked for it ends.
	build, err := cas.Open(s.Dir())
	if err != nil {
		t.Fatal(err)
	}
	l := manyFiles(url)
	if _, err := Fill(t.Context(), l, build, Options{Config: quick()}); err != nil {
		t.Fatal(err)
	}
	if st := collect(); st.InUse.Files != manyCount || st.Removed.Files != 0 {
		t.Errorf("beside a build: got %+v", st)
	}
	if err := VerifyAll(t.Context(), l, build, ""); err != nil {
		t.Error(err)
	}
}

// Who may only read a store is told what is damaged, and can neither mark it
// nor collect anything.
func TestReadOnlyDisk(t *testing.T) {
	w, s := newWorld(t), newStore(t)
	if _, err := fill(t, w, s); err != nil {
		t.Fatal(err)
	}
	in := w.find(t, "an.iso")
	flip(t, s, in.SHA256)
	readOnly(t, s.Dir())
	s, err := cas.Open(s.Dir())
	if err != nil {
		t.Fatal(err)
	}
	if err := VerifyAll(t.Context(), w.lock, s, ""); !isA[*cas.DamagedError](err) || s.Doubted(in.SHA256) {
		t.Errorf("got %v, marked %v", err, s.Doubted(in.SHA256))
	}
	if _, err := s.GC(t.Context(), cas.GCOptions{Keep: func(digest.Digest) bool { return false }}); !isReadOnly(err) || !strings.HasPrefix(err.Error(), "writing to the store: ") {
		t.Errorf("gc: got %v", err)
	}
	opts := w.options()
	opts.Verify = true
	if _, err := Fill(t.Context(), w.lock, s, opts); !isReadOnly(err) || !strings.Contains(err.Error(), "file an.iso: writing to the store: ") {
		t.Errorf("fill: got %v", err)
	}
	if _, _, err := s.Put(strings.NewReader("x"), digest.Digest{}); !isReadOnly(err) {
		t.Errorf("put: got %v", err)
	}
	// In a store above it can be mended.
	top, err := cas.Open(t.TempDir(), s.Dir())
	if err != nil {
		t.Fatal(err)
	}
	if err := VerifyAll(t.Context(), w.lock, top, ""); !isA[*cas.DamagedError](err) {
		t.Errorf("got %v", err)
	}
	if stats, err := fill(t, w, top); err != nil || stats.Repaired != 1 {
		t.Errorf("got %+v, %v", stats, err)
	}
	if err := VerifyAll(t.Context(), w.lock, top, ""); err != nil {
		t.Error(err)
	}
}
