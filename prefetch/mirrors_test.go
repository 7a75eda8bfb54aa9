package prefetch

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"strings"
	"testing"

	"caisson/lock"
	"caisson/lock/digest"
	"caisson/prefetch/cas"
)

func TestMirrors(t *testing.T) {
	sum := digest.Of([]byte(hello))
	good := serve(t, newFiles(map[string]string{"/a": hello}))
	gone := serve(t, http.NotFoundHandler())
	wrong := serve(t, newFiles(map[string]string{"/a": strings.ToUpper(hello)}))
	long := serve(t, newFiles(map[string]string{"/a": hello + "more"}))
	broken := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { drop(w, http.StatusOK, len(hello), hello[:5]) }))
	forbidden := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }))
	dead := down(t)
	for _, c := range []struct {
		name   string
		places []string
		errs   []string // of what is said where no place has it
		gone   bool
	}{
		{"the first", []string{good, wrong}, nil, false},
		{"not there", []string{gone, good}, nil, false},
		{"nobody there", []string{dead, good}, nil, false},
		{"other bytes", []string{wrong, good}, nil, false},
		{"too many bytes", []string{long, good}, nil, false},
		{"cut off", []string{broken, good}, nil, false},
		{"forbidden", []string{forbidden, good}, nil, false},
		{"no address", []string{"://", good}, nil, false},
		{"all of it", []string{gone, dead, wrong, long, broken, forbidden, good}, nil, false},
		{"nowhere", []string{gone, gone + "/x"}, []string{gone + "/a: 404", gone + "/x/a: 404"}, true},
		{"nowhere as it seems", []string{gone, dead}, []string{gone + "/a: 404", dead + "/a: dial"}, false},
		{"nowhere sound", []string{wrong, gone, broken}, []string{"want " + sum.String(), "404", "the body ends early"}, false},
		{"many", []string{gone, gone, gone, gone, gone, gone, gone, gone, gone, gone}, []string{"and 2 more places"}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := quick()
			cfg.Retries = 1
			f := fetcher(t, cfg)
			w := lock.Want{Kind: lock.KindFile, URL: c.places[0] + "/a", SHA256: sum, Size: int64(len(hello))}
			for _, p := range c.places[1:] {
				w.Mirrors = append(w.Mirrors, p+"/a")
			}
			b, err := f.Fetch(context.Background(), w)
			if c.errs == nil {
				if err != nil || b.SHA256 != sum {
					t.Errorf("got %v, %v", b, err)
				}
			}
			for _, want := range c.errs {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("got %v, want %s", err, want)
				}
			}
			if errors.Is(err, fs.ErrNotExist) != c.gone {
				t.Errorf("that it does not exist: got %v, want %v", !c.gone, c.gone)
			}
			sound(t, f.store)
		})
	}
}

// An address without a digest is asked for at the mirrors too.
func TestMirrorsWithoutDigest(t *testing.T) {
	good := newFiles(map[string]string{"/b": hello})
	f := fetcher(t, quick())
	w := lock.Want{Kind: lock.KindRepodata, URL: serve(t, http.NotFoundHandler()) + "/a", Mirrors: []string{serve(t, good) + "/b"}}
	for n, want := range []int64{0, 304} {
		b, err := f.Fetch(context.Background(), w)
		if err != nil || b.SHA256 != digest.Of([]byte(hello)) {
			t.Errorf("%d: got %v, %v (%d)", n, b, err, want)
		}
	}
}

// What has come from one mirror is gone on with at the next.
func TestMirrorsResume(t *testing.T) {
	sum := digest.Of([]byte(anISO))
	for _, c := range []struct {
		name   string
		part   string // of the first mirror, which then fails
		etag   string
		want   string // the Range header at the second one
		again  string // another one after it
		second func(w http.ResponseWriter) bool
	}{
		{"goes on", anISO[:2<<20], `"a"`, "bytes=2097152-", "none", nil},
		{"without a validator", anISO[:2<<20], "", "bytes=2097152-", "none", nil},
		{"with other bytes", strings.ToUpper(anISO[:2<<20]), `"a"`, "bytes=2097152-", "", nil},
		{"at one that knows no ranges", anISO[:2<<20], `"a"`, "bytes=2097152-", "none", func(w http.ResponseWriter) bool {
			io.WriteString(w, anISO)
			return true
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			first := &faulty{content: anISO, etag: c.etag}
			first.fault = func(n int, w http.ResponseWriter, _ *http.Request) bool {
				if n > 0 {
					w.WriteHeader(http.StatusForbidden)
					return true
				}
				drop(w, http.StatusOK, len(anISO), c.part)
				return true
			}
			second := &faulty{content: anISO, etag: `"b"`}
			if c.second != nil {
				second.fault = func(_ int, w http.ResponseWriter, _ *http.Request) bool { return c.second(w) }
			}
			s := newStore(t)
			l := isoLock(serve(t, first))
			l.Inputs[0].Mirrors = []string{serve(t, second)}
			var last Event
			stats, err := Fill(context.Background(), l, s, Options{Config: quick(), Progress: func(e Event) { last = e }})
			if err != nil || !s.Has(sum) || last.Bytes != int64(len(anISO)) {
				t.Fatalf("got %+v, %v, %+v", stats, err, last)
			}
			got := append(second.ranges, "none", "none")[:2]
			if got[0] != c.want || got[1] != c.again {
				t.Errorf("asked for %q, want %q", got, []string{c.want, c.again})
			}
			sound(t, s)
			if left := kept(t, s); len(left) > 0 {
				t.Errorf("left over: %s", left)
			}
		})
	}
}

// What an earlier run has left is gone on with at whichever mirror.
func TestMirrorsResumeLater(t *testing.T) {
	f := &faulty{content: anISO, etag: `"v1"`}
	s, url := newStore(t), serve(t, f)
	cut(t, s, f, url, anISO[:2<<20])
	other := &faulty{content: anISO, etag: `"other"`}
	l := isoLock(serve(t, other))
	if stats, err := Fill(context.Background(), l, s, Options{Config: quick()}); err != nil || stats.Requests != 1 || other.ranges[0] != "bytes=2097152-" {
		t.Errorf("got %+v, %v, %q", stats, err, other.ranges)
	}
	sound(t, s)
}

// The mirrors of a repository serve its packages, each checked.
func TestFillMirrors(t *testing.T) {
	w, s := newWorld(t), newStore(t)
	evil := newFiles(map[string]string{"/x/Packages/hello.rpm": makeRPM(t, "hello", newSigner(t)), "/x/Packages/world.rpm": "short"})
	w.lock.Repos[0].Mirrors = []string{serve(t, evil) + "/x/", w.lock.Repos[0].BaseURL}
	w.lock.Repos[0].BaseURL = down(t) + "/"
	w.cfg.Retries = -1
	stats, err := fill(t, w, s)
	if err != nil || stats.Fetched != len(w.lock.Inputs)-2 {
		t.Errorf("got %+v, %v", stats, err)
	}
	if evil.n.Load() != 3 {
		t.Errorf("the mirror was asked %d times, want 3", evil.n.Load())
	}
	sound(t, s)
	w.lock.Repos[0].Mirrors = w.lock.Repos[0].Mirrors[:1]
	_, err = Fill(context.Background(), w.lock, newStore(t), w.options())
	var m *cas.MismatchError
	if !errors.As(err, &m) && !errors.As(err, new(*SizeError)) || !strings.Contains(err.Error(), "could not be reached") && !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("got %v", err)
	}
}
