package prefetch

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"caisson/lock"
	"caisson/lock/digest"
	"caisson/prefetch/cas"
	"caisson/prefetch/rpmsig"
)

var errNoFolder = fs.ErrNotExist

func fill(t testing.TB, w *world, s *cas.Store) (Stats, error) {
	t.Helper()
	return Fill(context.Background(), w.lock, s, w.options())
}

// break1 damages a file of the store.
func break1(t testing.TB, s *cas.Store, d digest.Digest, content string) {
	t.Helper()
	os.Chmod(s.Path(d), 0o644)
	if err := os.WriteFile(s.Path(d), []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestFill(t *testing.T) {
	w, s := newWorld(t), newStore(t)
	var last Event
	opts := w.options()
	opts.Progress = func(e Event) { last = e }
	n := len(w.lock.Inputs)
	if got := len(Missing(w.lock, s)); got != n {
		t.Errorf("%d missing, want %d", got, n)
	}
	stats, err := Fill(context.Background(), w.lock, s, opts)
	if err != nil {
		t.Fatal(err)
	}
	var bytes int64
	for _, in := range w.lock.Inputs {
		bytes += in.Size
	}
	// Key and tree are local; config.json is asked for besides.
	if want := (Stats{Fetched: n - 2, Packed: 2, Bytes: bytes, Requests: int64(n - 2 + 1)}); stats != want {
		t.Errorf("got %+v, want %+v", stats, want)
	}
	if last.Done != n || last.Total != n || len(last.Active) != 0 || last.TotalBytes != bytes {
		t.Errorf("the last event: %+v", last)
	}
	if got := Missing(w.lock, s); len(got) != 0 {
		t.Errorf("missing: %v", got)
	}
	if err := VerifyAll(context.Background(), w.lock, s, ""); err != nil {
		t.Error(err)
	}
	sound(t, s)

	stats, err = Fill(context.Background(), w.lock, s, opts)
	if want := (Stats{Present: n}); err != nil || stats != want {
		t.Errorf("again: got %+v, %v, want %+v", stats, err, want)
	}
	// The store alone, with neither project nor server.
	stats, err = Fill(context.Background(), w.lock, s, Options{Config: Config{GoProxy: "off"}})
	if want := (Stats{Present: n}); err != nil || stats != want {
		t.Errorf("elsewhere: got %+v, %v, want %+v", stats, err, want)
	}
}

func TestFillSameFile(t *testing.T) {
	w, s := newWorld(t), newStore(t)
	twin := *w.find(t, "hello-2:1.0-3.noarch")
	twin.For = []lock.Use{{Arch: "aarch64", Set: "root"}}
	twin.Name += ".twin"
	w.lock.Inputs = append(w.lock.Inputs, twin)
	if _, err := fill(t, w, s); err != nil {
		t.Fatal(err)
	}
	if n := w.srv.n.Load(); n != int64(len(w.lock.Inputs)-3+1) {
		t.Errorf("%d requests", n)
	}
}

func TestFillRepairs(t *testing.T) {
	w, s := newWorld(t), newStore(t)
	if _, err := fill(t, w, s); err != nil {
		t.Fatal(err)
	}
	iso, rpm := w.find(t, "an.iso"), w.find(t, "hello-2:1.0-3.noarch")
	tree, key := w.find(t, "src"), w.find(t, "KEY")
	break1(t, s, iso.SHA256, "cut")
	var repaired []string
	opts := w.options()
	opts.Progress = func(e Event) {
		if e.Repaired != "" {
			repaired = append(repaired, e.Repaired)
		}
	}
	stats, err := Fill(context.Background(), w.lock, s, opts)
	if err != nil || stats.Repaired != 1 || stats.Fetched != 1 || len(repaired) != 1 || repaired[0] != "an.iso" {
		t.Errorf("got %+v, %q, %v", stats, repaired, err)
	}
	sound(t, s)

	// The same size: found by reading. What is local always is.
	flip := func(in *lock.Input) {
		b, _ := os.ReadFile(s.Path(in.SHA256))
		b[len(b)/2] ^= 1
		break1(t, s, in.SHA256, string(b))
	}
	for _, in := range []*lock.Input{iso, rpm, tree, key} {
		flip(in)
	}
	if stats, err = Fill(context.Background(), w.lock, s, w.options()); err != nil || stats.Repaired != 2 || stats.Packed != 2 {
		t.Errorf("without Verify: got %+v, %v", stats, err)
	}
	err = VerifyAll(context.Background(), w.lock, s, "")
	var damaged *cas.DamagedError
	if !errors.As(err, &damaged) || strings.Count(err.Error(), "\n") != 1 || !strings.Contains(err.Error(), "file an.iso: ") || !strings.Contains(err.Error(), "rpm hello-2:1.0-3.noarch: ") {
		t.Errorf("VerifyAll: got %v", err)
	}
	opts = w.options()
	opts.Verify = true
	if stats, err = Fill(context.Background(), w.lock, s, opts); err != nil || stats.Repaired != 2 || stats.Fetched != 2 {
		t.Errorf("with Verify: got %+v, %v", stats, err)
	}
	sound(t, s)
	os.Remove(s.Path(iso.SHA256))
	var missing *cas.MissingError
	if err := VerifyAll(context.Background(), w.lock, s, ""); !errors.As(err, &missing) || missing.Digest != iso.SHA256 || !strings.Contains(err.Error(), "an.iso") {
		t.Errorf("VerifyAll: got %v", err)
	}
}

// Each lie is found, named, and keeps the file out of the store.
func TestFillRefuses(t *testing.T) {
	for _, c := range []struct {
		name  string
		input string
		lie   func(t *testing.T, w *world, in *lock.Input)
		err   string
		is    func(error) bool
	}{
		{"wrong bytes", "an.iso", func(_ *testing.T, w *world, in *lock.Input) {
			w.srv.at["/files/iso"] = strings.Repeat("ISO", 10_000)
		}, "file an.iso: fetching", isA[*cas.MismatchError]},
		{"wrong size", "an.iso", func(_ *testing.T, w *world, in *lock.Input) { w.srv.at["/files/iso"] += "x" }, "got 30001 bytes, want 30000", isA[*SizeError]},
		{"not there", "serde-1.0.0.crate", func(_ *testing.T, w *world, in *lock.Input) { delete(w.srv.at, "/crates/dl/serde/1.0.0/download") },
			"crate serde-1.0.0.crate: fetching", func(err error) bool { return errors.Is(err, fs.ErrNotExist) }},
		{"h1 of a zip", "example.org/mod@v1.0.0.zip", func(_ *testing.T, _ *world, in *lock.Input) { in.Go.H1 = h1("x", "y") }, "want h1:", isA[*HashError]},
		{"h1 of a mod", "example.org/mod@v1.0.0.mod", func(_ *testing.T, _ *world, in *lock.Input) { in.Go.H1 = h1("x", "y") }, "want h1:", isA[*HashError]},
		{"no zip", "example.org/mod@v1.0.0.zip", func(_ *testing.T, w *world, in *lock.Input) { replace(w, in, "no zip") }, "reading the zip", nil},
		{"unsigned", "hello-2:1.0-3.noarch", func(t *testing.T, w *world, in *lock.Input) { replace(w, in, makeRPM(t, "hello", nil)) },
			"signature: not signed", func(err error) bool { return isA[*SignatureError](err) && errors.Is(err, rpmsig.ErrUnsigned) }},
		{"another's signature", "hello-2:1.0-3.noarch", func(t *testing.T, w *world, in *lock.Input) { replace(w, in, makeRPM(t, "hello", newSigner(t))) },
			"which is not trusted", isA[*SignatureError]},
		{"repository without keys", "hello-2:1.0-3.noarch", func(_ *testing.T, w *world, in *lock.Input) { in.Repo, in.URL = "other", w.url+"/rpm/"+in.URL },
			`no key of the repository "other"`, isA[*SignatureError]},
		{"another package", "hello-2:1.0-3.noarch", func(t *testing.T, w *world, in *lock.Input) { replace(w, in, makeRPM(t, "world", w.key)+"") },
			"got world-2:1.0-3.noarch, want hello-2:1.0-3.noarch", nil},
		{"another release", "hello-2:1.0-3.noarch", func(_ *testing.T, _ *world, in *lock.Input) { in.RPM.Release = "4" }, "want hello-2:1.0-4.noarch", nil},
		{"no package", "hello-2:1.0-3.noarch", func(_ *testing.T, w *world, in *lock.Input) { replace(w, in, strings.Repeat("no RPM", 100)) }, "no RPM: got magic", nil},
		{"repository unknown", "hello-2:1.0-3.noarch", func(_ *testing.T, w *world, in *lock.Input) { in.Repo = "gone" }, `no address for its repository "gone"`, nil},
		{"tree changed", "src", func(_ *testing.T, w *world, in *lock.Input) { w.trees["src"] = "another" }, "is not what was locked", isA[*TreeChangedError]},
		{"no tree", "src", func(_ *testing.T, w *world, in *lock.Input) { delete(w.trees, "src") }, "tree src", func(err error) bool { return errors.Is(err, fs.ErrNotExist) }},
		{"key changed", "KEY", func(t *testing.T, w *world, in *lock.Input) {
			write(t, w.dir, map[string]string{"keys/KEY": newSigner(t).public})
		},
			"key KEY: keys/KEY is not what was locked", isA[*TreeChangedError]},
		{"key of another", "KEY", func(_ *testing.T, w *world, in *lock.Input) { in.Fingerprint = "0000" }, "want 0000", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			w, s := newWorld(t), newStore(t)
			in := w.find(t, c.input)
			c.lie(t, w, in)
			stats, err := fill(t, w, s)
			if err == nil || !strings.Contains(err.Error(), c.err) || !strings.Contains(err.Error(), c.input) || c.is != nil && !c.is(err) {
				t.Fatalf("got %v, want %s", err, c.err)
			}
			if s.Has(in.SHA256) && in.Kind != lock.KindKey {
				t.Error("it is in the store")
			}
			if in.Kind != lock.KindKey && (stats.Fetched+stats.Packed+1 != len(w.lock.Inputs) || strings.Contains(err.Error(), "\n")) {
				t.Errorf("the others: %+v, %v", stats, err)
			}
			sound(t, s)
			if strings.Contains(c.name, "signature") || c.name == "another package" { // a copy in the store is proved too
				if _, _, err := s.Put(strings.NewReader(w.srv.at["/rpm/Packages/hello.rpm"]), in.SHA256); err != nil {
					t.Fatal(err)
				}
				if _, err := fill(t, w, s); err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("put there by others: got %v, want %s", err, c.err)
				}
			}
		})
	}
}

func isA[E error](err error) bool {
	var e E
	return errors.As(err, &e)
}

// replace serves and locks other content for an input.
func replace(w *world, in *lock.Input, content string) {
	for path, old := range w.srv.at {
		if digest.Of([]byte(old)) == in.SHA256 {
			w.srv.at[path] = content
		}
	}
	in.SHA256, in.Size = digest.Of([]byte(content)), int64(len(content))
}

// What a key proved does not hold for another key.
func TestFillForgetsOtherKeys(t *testing.T) {
	w, s := newWorld(t), newStore(t)
	if _, err := fill(t, w, s); err != nil {
		t.Fatal(err)
	}
	other := newSigner(t)
	write(t, w.dir, map[string]string{"keys/KEY": other.public})
	key := w.find(t, "KEY")
	key.SHA256, key.Size, key.Fingerprint = digest.Of([]byte(other.public)), int64(len(other.public)), other.fingerprint
	w.lock.Repos[0].Keys = []string{other.fingerprint}
	_, err := fill(t, w, s)
	if !isA[*SignatureError](err) || strings.Count(err.Error(), "which is not trusted") != 2 {
		t.Errorf("got %v", err)
	}
}

func TestFillUnsignedRepository(t *testing.T) {
	w, s := newWorld(t), newStore(t)
	in := w.find(t, "hello-2:1.0-3.noarch")
	replace(w, in, makeRPM(t, "hello", nil))
	in.RPM.Signed = false
	if _, err := fill(t, w, s); err != nil {
		t.Fatal(err)
	}
	in.RPM.Signed = true // the same file, and now it has to be signed
	if _, err := fill(t, w, s); !isA[*SignatureError](err) {
		t.Errorf("got %v", err)
	}
}

// All that fails is said, in order; a dead server is not asked for ever.
func TestFillManyErrors(t *testing.T) {
	w, s := newWorld(t), newStore(t)
	for n := range 300 {
		w.add(lock.Input{Kind: lock.KindFile, Name: fmt.Sprintf("gone-%03d", n), URL: w.url + fmt.Sprintf("/gone/%d", n)}, fmt.Sprint("gone", n))
	}
	_, err := fill(t, w, s)
	lines := strings.Split(fmt.Sprint(err), "\n")
	if len(lines) != 300 || !strings.HasPrefix(lines[0], "file gone-000: ") || !strings.HasPrefix(lines[299], "file gone-299: ") {
		t.Errorf("%d lines, %s", len(lines), lines[0])
	}
	w.cfg.Retries = -1
	w.cfg.GoProxy = "off"
	for n := range 300 {
		w.srv.at[fmt.Sprintf("/gone/%d", n)] = "503"
	}
	s2 := newStore(t)
	_, err = Fill(context.Background(), w.lock, s2, w.options())
	lines = strings.Split(fmt.Sprint(err), "\n")
	if n := len(lines); n < maxUnreachable || n > maxUnreachable+20 || !strings.Contains(lines[n-1], "more inputs were not tried") {
		t.Errorf("%d lines, %s", n, lines[n-1])
	}
}

// So it is where there is no server at all.
func TestFillNoServer(t *testing.T) {
	l := manyFiles("http://127.0.0.1:1")
	for n := range 300 {
		in := l.Inputs[0]
		in.Name, in.SHA256 = fmt.Sprintf("more-%d", n), digest.Of(fmt.Append(nil, n))
		l.Inputs = append(l.Inputs, in)
	}
	_, err := Fill(context.Background(), l, newStore(t), Options{Config: quick()})
	if n := strings.Count(fmt.Sprint(err), "\n"); n > maxUnreachable+20 || !strings.Contains(err.Error(), "more inputs were not tried") {
		t.Errorf("%d lines, %v", n, err)
	}
}

func TestFillCancelled(t *testing.T) {
	w, s := newWorld(t), newStore(t)
	ctx, cancel := context.WithCancel(context.Background())
	inner := w.srv.fault
	w.srv.fault = func(n int, rw http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/files/iso" {
			cancel()
			<-r.Context().Done()
			return true
		}
		return inner(n, rw, r)
	}
	if _, err := Fill(ctx, w.lock, s, w.options()); !errors.Is(err, context.Canceled) || strings.Contains(err.Error(), "\n") {
		t.Errorf("got %v", err)
	}
	sound(t, s)
	w.srv.fault = inner
	if _, err := fill(t, w, s); err != nil {
		t.Error(err)
	}
	if err := VerifyAll(ctx, w.lock, s, ""); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// Environment of a child process that fills a store from a server until it is
// killed or done: the store, the address, and which of the locks below.
const childEnv = "CAISSON_PREFETCH_CHILD"

func TestMain(m *testing.M) {
	if v := os.Getenv(childEnv); v != "" {
		dir, url, _ := strings.Cut(v, " ")
		url, what, _ := strings.Cut(url, " ")
		if path, ok := strings.CutPrefix(what, lockPrefix); ok {
			os.Exit(fillLock(dir, url, path))
		}
		l := manyFiles(url)
		switch what {
		case "iso":
			l = isoLock(url)
		case "git":
			os.Exit(fetchGitAlone(dir, url))
		case "small":
			os.Exit(fillSmall(dir, url))
		}
		s, err := cas.Open(dir)
		if err == nil {
			_, err = Fill(context.Background(), l, s, Options{Config: quick(), Parallel: 4})
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

const manyCount = 60

func manyContent(n int) string { return strings.Repeat(fmt.Sprintf("file %d\n", n), 4000) }

func manyFiles(url string) *lock.Lock {
	l := new(lock.Lock)
	for n := range manyCount {
		content := manyContent(n)
		l.Inputs = append(l.Inputs, lock.Input{Kind: lock.KindFile, Name: fmt.Sprint(n), URL: fmt.Sprintf("%s/%d", url, n),
			SHA256: digest.Of([]byte(content)), Size: int64(len(content))})
	}
	return l
}

// Processes are killed while they fill a store; the next one goes on from
// there, and no finished file is fetched again.
func TestKilled(t *testing.T) {
	srv := newFiles(make(map[string]string))
	for n := range manyCount {
		srv.at[fmt.Sprintf("/%d", n)] = manyContent(n)
	}
	inner := srv.fault
	srv.fault = func(n int, w http.ResponseWriter, r *http.Request) bool {
		content := srv.at[r.URL.Path]
		w.Header().Set("Content-Length", fmt.Sprint(len(content)))
		for part := range strings.SplitSeq(content, "\n\n") { // one part; slow, so that the kill meets it
			w.Write([]byte(part[:len(part)/2]))
			http.NewResponseController(w).Flush()
			time.Sleep(30 * time.Millisecond)
			w.Write([]byte(part[len(part)/2:]))
		}
		return true
	}
	url := serve(t, srv)
	s := newStore(t)
	l := manyFiles(url)
	start := func() *exec.Cmd {
		c := exec.Command(os.Args[0])
		c.Env = append(os.Environ(), childEnv+"="+s.Dir()+" "+url)
		c.Stderr = os.Stderr
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		return c
	}
	left := manyCount
	for round := 0; round < 3; round++ {
		a, b := start(), start()
		for deadline := time.Now().Add(10 * time.Second); len(Missing(l, s)) > left-12 && time.Now().Before(deadline); {
			time.Sleep(5 * time.Millisecond)
		}
		a.Process.Kill() // SIGKILL
		b.Process.Kill()
		a.Wait()
		b.Wait()
		for _, in := range l.Inputs {
			if s.Has(in.SHA256) {
				if err := s.Verify(in.SHA256); err != nil {
					t.Error(err)
				}
			}
		}
		now := len(Missing(l, s))
		t.Logf("round %d: %d missing", round, now)
		if now >= left || now == 0 {
			t.Fatalf("%d are missing, %d before", now, left)
		}
		left = now
	}
	srv.fault = inner
	srv.n.Store(0)
	s, err := cas.Open(s.Dir())
	if err != nil {
		t.Fatal(err)
	}
	stats, err := Fill(context.Background(), l, s, Options{Config: quick()})
	if err != nil || stats.Fetched != left || stats.Present != manyCount-left || int(srv.n.Load()) != left {
		t.Errorf("got %+v, %v, %d requests, want %d", stats, err, srv.n.Load(), left)
	}
	sound(t, s)
}

// Several fills of one store at the same time, in one process and in others.
func TestTogether(t *testing.T) {
	srv := newFiles(make(map[string]string))
	for n := range manyCount {
		srv.at[fmt.Sprintf("/%d", n)] = manyContent(n)
	}
	url := serve(t, srv)
	s := newStore(t)
	errs := make(chan error)
	for n := range 4 {
		go func() {
			if n%2 == 0 {
				c := exec.Command(os.Args[0])
				c.Env = append(os.Environ(), childEnv+"="+s.Dir()+" "+url)
				c.Stderr = os.Stderr
				errs <- c.Run()
				return
			}
			_, err := Fill(context.Background(), manyFiles(url), s, Options{Config: quick()})
			errs <- err
		}()
	}
	for range 4 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if err := VerifyAll(context.Background(), manyFiles(url), s, ""); err != nil {
		t.Error(err)
	}
	sound(t, s)
}
