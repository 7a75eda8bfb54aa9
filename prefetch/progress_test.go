package prefetch

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"caisson/lock"
	"caisson/lock/digest"
)

// events keeps what Fill tells.
type events struct {
	mu  sync.Mutex
	all []Event
}

func (e *events) tell(ev Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, ev)
}

func (e *events) last() (last Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.all) > 0 {
		last = e.all[len(e.all)-1]
	}
	return last
}

// until waits for an event that is as wanted.
func (e *events) until(t *testing.T, what string, is func(Event) bool) Event {
	t.Helper()
	for range 100 {
		if last := e.last(); is(last) {
			return last
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatalf("no event says %s; the last is %+v", what, e.last())
	return Event{}
}

// What is waited for is told of with server and try, also where nothing happens
// after it; no login is in it.
func TestProgressActive(t *testing.T) {
	content := strings.Repeat("slow", 1000)
	asked := make(chan struct{}, 10)
	srv := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		if len(asked) < 3 {
			http.Error(w, "later", http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Length", "4000")
		w.Write([]byte(content[:1000]))
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}))
	l := &lock.Lock{Inputs: []lock.Input{{
		Kind: lock.KindFile, Name: "a", Size: 4000, SHA256: digest.Of([]byte(content)),
		URL: strings.Replace(srv, "http://", "http://user:secret@", 1) + "/file?token=secret",
	}}}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var seen events
	ended := make(chan error)
	began := time.Now()
	go func() {
		_, err := Fill(ctx, l, newStore(t), Options{Config: quick(), Progress: seen.tell})
		ended <- err
	}()
	e := seen.until(t, "that a thousand bytes have come", func(e Event) bool { return e.Bytes == 1000 })
	if len(e.Active) != 1 || e.Total != 1 || e.Done != 0 || e.TotalBytes != 4000 || len(e.ByKind) != 1 || e.ByKind[0].Bytes != 1000 {
		t.Fatalf("got %+v", e)
	}
	a := e.Active[0]
	if a.Since.Before(began) || a.Moved.Before(a.Since) {
		t.Errorf("begun at %s, since %s, moved %s", began, a.Since, a.Moved)
	}
	a.Since, a.Moved = time.Time{}, time.Time{}
	if want := (Active{Kind: "file", Name: "a", Host: strings.TrimPrefix(srv, "http://"), Try: 3, Bytes: 1000, Size: 4000}); a != want {
		t.Errorf("got %+v, want %+v", a, want)
	}
	cancel()
	<-ended
	n := len(seen.all)
	time.Sleep(2 * eventInterval)
	if len(seen.all) != n {
		t.Error("it was told after the end")
	}
}

// A git repository's server and try are told of too.
func TestProgressGit(t *testing.T) {
	f := newForge(t)
	backend := f.backend(t)
	var n int
	srv := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n++; n == 1 {
			http.Error(w, "later", http.StatusServiceUnavailable)
			return
		}
		if r.Method == http.MethodPost {
			time.Sleep(3 * eventInterval)
		}
		backend.ServeHTTP(w, r)
	}))
	b, err := fetcher(t, quick()).Fetch(t.Context(), lock.Want{Kind: lock.KindGit, URL: "file://" + f.dir + "/project.git", Ref: "main"})
	if err != nil {
		t.Fatal(err)
	}
	info := ids(t, b)
	l := &lock.Lock{Inputs: []lock.Input{{
		Kind: lock.KindGit, Name: "project", URL: srv + "/project.git", Size: b.Size, SHA256: b.SHA256, Git: &lock.Git{Ref: "main", Commit: info.Commit, Tree: info.Tree},
	}}}
	var seen events
	if _, err := Fill(t.Context(), l, newStore(t), Options{Config: quick(), Progress: seen.tell}); err != nil {
		t.Fatal(err)
	}
	var hosts []string
	for _, e := range seen.all {
		for _, a := range e.Active {
			if a.Try == 2 {
				hosts = append(hosts, a.Host)
			}
		}
	}
	if len(hosts) == 0 || hosts[0] != strings.TrimPrefix(srv, "http://") {
		t.Errorf("the second try was told of at %q", hosts)
	}
	if last := seen.last(); last.Done != 1 || last.Bytes != b.Size || len(last.Active) != 0 {
		t.Errorf("the last event: %+v", last)
	}
}
