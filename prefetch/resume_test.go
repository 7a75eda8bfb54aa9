package prefetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"caisson/lock"
	"caisson/lock/digest"
	"caisson/prefetch/cas"
)

// anISO is large enough to be kept when its transfer is cut.
var anISO = strings.Repeat("0123456789abcde\n", 4<<16)

func isoLock(url string) *lock.Lock {
	return &lock.Lock{Inputs: []lock.Input{{Kind: lock.KindFile, Name: "an.iso", URL: url, SHA256: digest.Of([]byte(anISO)), Size: int64(len(anISO))}}}
}

func kept(t *testing.T, s *cas.Store) []string {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(s.Dir(), "partial", "*"))
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// waitKept waits until a transfer of so many bytes is kept.
func waitKept(t *testing.T, s *cas.Store, size int64) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		all := kept(t, s)
		if len(all) != 2 {
			continue
		}
		if fi, err := os.Stat(all[0]); err == nil && fi.Size() == size {
			return
		}
	}
	t.Fatalf("nothing of that size was kept: %s", kept(t, s))
}

// A process that is killed in the middle of a large file: the next run asks
// for the rest only.
func TestResumeAfterKill(t *testing.T) {
	const got = 3 << 20
	f := &faulty{content: anISO, etag: `"v1"`, fault: func(n int, w http.ResponseWriter, r *http.Request) bool {
		if n == 0 {
			slowly(w, r, anISO[:got])
		}
		return n == 0
	}}
	s, url := newStore(t), serve(t, f)
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), childEnv+"="+s.Dir()+" "+url+" iso")
	c.Stderr = os.Stderr
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	waitKept(t, s, got)
	c.Process.Kill() // SIGKILL
	c.Wait()

	s, err := cas.Open(s.Dir()) // what is stale is removed; this is not
	if err != nil {
		t.Fatal(err)
	}
	stats, err := Fill(context.Background(), isoLock(url), s, Options{})
	if err != nil || stats.Fetched != 1 || stats.Requests != 1 {
		t.Fatalf("%+v, %v", stats, err)
	}
	if want := fmt.Sprintf("bytes=%d-", got); f.ranges[1] != want {
		t.Errorf("asked for %q, want %q", f.ranges[1], want)
	}
	sound(t, s)
	if left := kept(t, s); len(left) > 0 {
		t.Errorf("left over: %s", left)
	}
}

// cut leaves a transfer of which part has come.
func cut(t *testing.T, s *cas.Store, f *faulty, url, part string) {
	t.Helper()
	f.fault = func(_ int, w http.ResponseWriter, r *http.Request) bool {
		slowly(w, r, part)
		return true
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan error)
	go func() {
		_, err := Fill(ctx, isoLock(url), s, Options{})
		done <- err
	}()
	waitKept(t, s, int64(len(part)))
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	f.fault = nil
}

func TestResumeLater(t *testing.T) {
	part := anISO[:2<<20]
	damaged := []byte(part)
	damaged[100] ^= 1
	for _, c := range []struct {
		name     string
		part     string
		change   func(s *cas.Store, f *faulty)
		requests int64
		asked    string // the last Range
		wrong    bool   // it cannot be had
	}{
		{"goes on", part, nil, 1, "bytes=2097152-", false},
		{"all had come", part, func(s *cas.Store, _ *faulty) { os.WriteFile(kept(t, s)[0], []byte(anISO), 0o600) }, 0, "", false},
		{"another version with the same bytes", part, func(_ *cas.Store, f *faulty) { f.etag = `"v2"` }, 1, "bytes=2097152-", false},
		{"another version", part, func(_ *cas.Store, f *faulty) { f.etag, f.content = `"v2"`, strings.ToUpper(anISO) }, 1, "bytes=2097152-", true},
		{"a flipped bit of what had come", string(damaged), nil, 2, "", false},
		{"more than all had come", part, func(s *cas.Store, _ *faulty) {
			os.WriteFile(kept(t, s)[0], []byte(anISO+anISO), 0o600)
		}, 1, "", false},
		{"no validator", part, func(s *cas.Store, _ *faulty) { os.Remove(kept(t, s)[1]) }, 1, "", false},
		{"a torn validator", part, func(s *cas.Store, _ *faulty) { os.WriteFile(kept(t, s)[1], []byte(`"v`), 0o600) }, 1, "", false},
		{"a link in its place", part, func(s *cas.Store, _ *faulty) {
			name := kept(t, s)[0]
			os.Rename(name, name+"x")
			os.Symlink(name+"x", name)
		}, 1, "", false},
		{"the server does not do ranges", part, func(_ *cas.Store, f *faulty) {
			f.fault = func(_ int, w http.ResponseWriter, _ *http.Request) bool {
				io.WriteString(w, anISO)
				return true
			}
		}, 1, "bytes=2097152-", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, f := newStore(t), &faulty{content: anISO, etag: `"v1"`}
			url := serve(t, f)
			cut(t, s, f, url, c.part)
			if c.change != nil {
				c.change(s, f)
			}
			var last Event
			stats, err := Fill(context.Background(), isoLock(url), s, Options{Progress: func(e Event) { last = e }})
			if c.wrong {
				var m *cas.MismatchError
				if !errors.As(err, &m) || s.Has(digest.Of([]byte(anISO))) {
					t.Errorf("got %v", err)
				}
				if left := kept(t, s); len(left) > 0 {
					t.Errorf("left over: %s", left)
				}
				return
			}
			if err != nil || stats.Requests != c.requests {
				t.Fatalf("%+v, %v", stats, err)
			}
			if last.Bytes != int64(len(anISO)) {
				t.Errorf("progress says %d bytes", last.Bytes)
			}
			if got := f.ranges[len(f.ranges)-1]; c.requests > 0 && got != c.asked {
				t.Errorf("asked for %q, want %q", got, c.asked)
			}
			sound(t, s)
		})
	}
}

// Two processes fetch the same file: one of them keeps it, both get it.
func TestResumeTwoAtOnce(t *testing.T) {
	f := &faulty{content: anISO, etag: `"v1"`}
	s, url := newStore(t), serve(t, f)
	cut(t, s, f, url, anISO[:2<<20])
	a, err := s.Create()
	if err != nil {
		t.Fatal(err)
	}
	want := digest.Of([]byte(anISO))
	if !strings.HasSuffix(a.Resume(want, ""), ` "v1"`) || a.Size() != 2<<20 {
		t.Fatalf("got %d bytes", a.Size())
	}
	if stats, err := Fill(context.Background(), isoLock(url), s, Options{}); err != nil || stats.Fetched != 1 {
		t.Fatalf("%+v, %v", stats, err)
	}
	if f.ranges[len(f.ranges)-1] != "" {
		t.Error("the second went on from what the first has")
	}
	io.WriteString(a, anISO[2<<20:])
	if _, err := a.Commit(want); err != nil {
		t.Error(err)
	}
	sound(t, s)
	if left := kept(t, s); len(left) > 0 {
		t.Errorf("left over: %s", left)
	}
}
