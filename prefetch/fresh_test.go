package prefetch

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"caisson/lock"
	"caisson/lock/digest"
)

// versioned serves one file and writes down what it answered.
type versioned struct {
	content, etag string
	modified      time.Time
	said          []string // "STATUS BYTES"
}

func (c *versioned) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if c.etag != "" {
		w.Header().Set("ETag", c.etag)
	}
	cw := &versionedWriter{ResponseWriter: w, status: http.StatusOK}
	http.ServeContent(cw, r, "", c.modified, strings.NewReader(c.content))
	c.said = append(c.said, fmt.Sprintf("%d %d", cw.status, cw.n))
}

type versionedWriter struct {
	http.ResponseWriter
	status, n int
}

func (w *versionedWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

func (w *versionedWriter) Write(p []byte) (int, error) {
	n, err := w.ResponseWriter.Write(p)
	w.n += n
	return n, err
}

// An address without a digest is asked again, and comes again only where it
// has changed.
func TestConditional(t *testing.T) {
	whole, other := fmt.Sprintf("200 %d", len(hello)), fmt.Sprintf("200 %d", len(hello)+1)
	changed := func(c *versioned) {
		c.content, c.modified = hello+"2", when.Add(time.Hour)
		if c.etag != "" {
			c.etag = `"2"`
		}
	}
	for _, c := range []struct {
		name     string
		etag     string
		modified time.Time
		between  func(c *versioned, f *Fetcher)
		second   string // what the server then says
	}{
		{"entity tag", `"1"`, time.Time{}, nil, "304 0"},
		{"weak entity tag", `W/"1"`, time.Time{}, nil, "304 0"},
		{"date", "", when, nil, "304 0"},
		{"both", `"1"`, when, nil, "304 0"},
		{"neither", "", time.Time{}, nil, whole},
		{"a date of this moment", "", time.Now().Add(time.Second), nil, whole},
		{"changed, by its tag", `"1"`, time.Time{}, func(c *versioned, _ *Fetcher) { changed(c) }, other},
		{"changed, by its date", "", when, func(c *versioned, _ *Fetcher) { changed(c) }, other},
		{"damaged in the store", `"1"`, when, func(_ *versioned, f *Fetcher) {
			path := f.store.Path(digest.Of([]byte(hello)))
			os.Chmod(path, 0o644)
			os.WriteFile(path, []byte("damage"), 0o644)
		}, whole},
		{"gone from the store", `"1"`, when, func(_ *versioned, f *Fetcher) { os.Remove(f.store.Path(digest.Of([]byte(hello)))) }, whole},
		{"forgotten", `"1"`, when, func(_ *versioned, f *Fetcher) { os.RemoveAll(filepath.Join(f.store.Dir(), "index")) }, whole},
	} {
		t.Run(c.name, func(t *testing.T) {
			srv := &versioned{content: hello, etag: c.etag, modified: c.modified}
			w := lock.Want{Kind: lock.KindRepodata, URL: serve(t, srv) + "/repodata/repomd.xml"}
			f := fetcher(t, quick())
			for n := range 2 {
				if n == 1 && c.between != nil {
					c.between(srv, f)
				}
				b, err := f.Fetch(context.Background(), w)
				if err != nil || b.SHA256 != digest.Of([]byte(srv.content)) {
					t.Fatalf("%d: got %+v, %v", n, b, err)
				}
			}
			if want := whole + "|" + c.second; strings.Join(srv.said, "|") != want {
				t.Errorf("the server said %q, want %q", srv.said, want)
			}
			// Another process with the same store.
			again := NewFetcher(f.store, newClient(t, quick()), quick())
			if _, err := again.Fetch(context.Background(), w); err != nil {
				t.Error(err)
			}
			if c.etag != "" && srv.said[len(srv.said)-1] != "304 0" {
				t.Errorf("the server said %q", srv.said)
			}
		})
	}
}

// That a file has not changed counts from the server only that gave it.
func TestConditionalElsewhere(t *testing.T) {
	a, b := &versioned{content: "of a", etag: `"same"`}, &versioned{content: "of b", etag: `"same"`}
	at := []string{serve(t, a), serve(t, b)}
	turn := 0
	url := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, fmt.Sprintf("%s/x?n=%d", at[turn], time.Now().UnixNano()), http.StatusFound)
	}))
	f := fetcher(t, quick())
	for n, want := range []string{"of a", "of a", "of b", "of b"} {
		turn = n / 2
		blob, err := f.Fetch(context.Background(), lock.Want{Kind: lock.KindRepodata, URL: url})
		if err != nil || blob.SHA256 != digest.Of([]byte(want)) {
			t.Errorf("%d: got %+v, %v, want %s", n, blob, err, want)
		}
	}
	if got := strings.Join(a.said, "|") + " " + strings.Join(b.said, "|"); got != "200 4|304 0 304 0|200 4|304 0" {
		t.Errorf("they said %s", got)
	}
}

// A server that says so unasked has nothing.
func TestNotModifiedUnasked(t *testing.T) {
	url := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotModified) }))
	if b, err := fetcher(t, quick()).Fetch(context.Background(), lock.Want{Kind: lock.KindRepodata, URL: url}); err == nil || !strings.Contains(err.Error(), "304") {
		t.Errorf("got %+v, %v", b, err)
	}
}

func TestMax(t *testing.T) {
	f := fetcher(t, quick())
	w := lock.Want{Kind: lock.KindRepodata, URL: serve(t, newFiles(map[string]string{"/a": hello})) + "/a", Max: int64(len(hello)) - 1}
	if b, err := f.Fetch(context.Background(), w); !isA[*SizeError](err) {
		t.Errorf("got %+v, %v", b, err)
	}
	w.Max++
	if _, err := f.Fetch(context.Background(), w); err != nil {
		t.Error(err)
	}
}

func TestFileIsAlwaysRead(t *testing.T) {
	dir := t.TempDir()
	f := fetcher(t, quick())
	for _, content := range []string{"one", "two", "two"} {
		write(t, dir, map[string]string{"a": content})
		b, err := f.Fetch(context.Background(), lock.Want{Kind: lock.KindRepodata, URL: "file://" + dir + "/a"})
		if err != nil || b.SHA256 != digest.Of([]byte(content)) {
			t.Errorf("got %+v, %v", b, err)
		}
	}
}
