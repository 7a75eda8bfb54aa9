package prefetch

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"caisson/lock"
	"caisson/lock/digest"
	"caisson/prefetch/cas"
)

func TestSigner(t *testing.T) {
	w, s := newWorld(t), newStore(t)
	in := w.find(t, "hello-2:1.0-3.noarch")
	if got, ok := Signer(w.lock, s, in); ok {
		t.Errorf("before anything was proved: %+v", got)
	}
	if got, err := ProveSigner(w.lock, s, in); err == nil {
		t.Errorf("proved before it was there: %+v", got)
	}
	if _, err := fill(t, w, s); err != nil {
		t.Fatal(err)
	}
	want := Signature{
		KeyID: fmt.Sprintf("%016X", w.key.entity.PrimaryKey.KeyId), Fingerprint: w.key.fingerprint, UserID: "Test <test@example.org>",
		Algorithm: "EdDSA", Hash: "SHA256", Time: when,
	}
	if got, ok := Signer(w.lock, s, in); !ok || got != want {
		t.Errorf("got %+v, %v, want %+v", got, ok, want)
	}
	// Another process, and a package that was there before.
	s2, err := cas.Open(s.Dir())
	if err != nil {
		t.Fatal(err)
	}
	if got, ok := Signer(w.lock, s2, in); !ok || got != want {
		t.Errorf("again: got %+v, %v", got, ok)
	}
	os.RemoveAll(filepath.Join(s.Dir(), "index"))
	if _, ok := Signer(w.lock, s, in); ok {
		t.Error("known though forgotten")
	}
	if got, err := ProveSigner(w.lock, s, in); err != nil || got != want {
		t.Errorf("proved where nothing is remembered: got %+v, %v", got, err)
	}
	if _, err := fill(t, w, s); err != nil {
		t.Fatal(err)
	}
	if got, ok := Signer(w.lock, s, in); !ok || got != want {
		t.Errorf("proved anew: got %+v, %v", got, ok)
	}
	// It goes with the package, and stays as long as that.
	if _, err := s.GC(context.Background(), cas.GCOptions{Keep: func(d digest.Digest) bool { return d == in.SHA256 }, Wait: time.Second}); err != nil {
		t.Fatal(err)
	}
	if got, ok := Signer(w.lock, s, in); !ok || got != want {
		t.Errorf("after a collection: got %+v, %v", got, ok)
	}

	for _, c := range []struct {
		name string
		do   func(in *lock.Input)
	}{
		{"no package", func(in *lock.Input) { in.RPM = nil }},
		{"not asked for", func(in *lock.Input) {
			in.RPM = &lock.RPM{Name: in.RPM.Name, Epoch: 2, Version: "1.0", Release: "3", Arch: "noarch"}
		}},
		{"another repository", func(in *lock.Input) { in.Repo = "other" }},
		{"another file", func(in *lock.Input) { in.SHA256[0] ^= 1 }},
	} {
		other := *in
		c.do(&other)
		if got, ok := Signer(w.lock, s, &other); ok {
			t.Errorf("%s: got %+v", c.name, got)
		}
	}
	w.lock.Repos[0].Keys = []string{newSigner(t).fingerprint}
	if got, ok := Signer(w.lock, s, in); ok {
		t.Errorf("by a key that is not trusted any more: %+v", got)
	}
}

// A noarch package that several machines need is fetched once.
func TestNoarch(t *testing.T) {
	w, s := newWorld(t), newStore(t)
	w.lock.Repos = append(w.lock.Repos, w.lock.Repos[0])
	w.lock.Repos[1].Arch = "aarch64"
	in := w.find(t, "hello-2:1.0-3.noarch")
	in.For = []lock.Use{{Arch: "aarch64", Set: "root"}, {Arch: "x86_64", Set: "root"}}
	twin := *w.find(t, "world-2:1.0-3.noarch")
	twin.Name, twin.For = "the same for another arch", []lock.Use{{Arch: "aarch64", Set: "root"}}
	w.lock.Inputs = append(w.lock.Inputs, twin)
	var packages atomic.Int64
	inner := w.srv.fault
	w.srv.fault = func(n int, rw http.ResponseWriter, r *http.Request) bool {
		if strings.HasPrefix(r.URL.Path, "/rpm/Packages/") {
			packages.Add(1)
		}
		return inner(n, rw, r)
	}
	stats, err := fill(t, w, s)
	if err != nil || packages.Load() != 2 || stats.Fetched+stats.Packed != len(w.lock.Inputs) {
		t.Errorf("%d requests for two packages, %+v, %v", packages.Load(), stats, err)
	}
}

// makeSourceRPM has rpmbuild make a source package.
func makeSourceRPM(t *testing.T) string {
	t.Helper()
	if _, err := exec.LookPath("rpmbuild"); err != nil {
		if os.Getenv("CAISSON_TOOLS") == "required" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	dir := t.TempDir()
	write(t, dir, map[string]string{"a.spec": "Name: hello\nEpoch: 2\nVersion: 1.0\nRelease: 3\nSummary: s\nLicense: MIT\nBuildArch: noarch\n%description\n%files\n"})
	if said, err := exec.Command("rpmbuild", "-bs", "--define", "_topdir "+dir, filepath.Join(dir, "a.spec")).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	b, err := os.ReadFile(filepath.Join(dir, "SRPMS", "hello-1.0-3.src.rpm"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// A source package is proved as any other.
func TestSourcePackage(t *testing.T) {
	w := newWorld(t)
	in := w.addServed("/rpm/Source/hello.src.rpm", lock.Input{Kind: lock.KindRPM, Name: "hello-2:1.0-3.src", URL: "Source/hello.src.rpm", Repo: "base",
		RPM: &lock.RPM{Name: "hello", Epoch: 2, Version: "1.0", Release: "3", Arch: "src"}}, makeSourceRPM(t))
	if _, err := fill(t, w, newStore(t)); err != nil {
		t.Fatal(err)
	}
	in.RPM.Arch = "noarch"
	if _, err := fill(t, w, newStore(t)); err == nil || !strings.Contains(err.Error(), "got hello-2:1.0-3.src, want hello-2:1.0-3.noarch") {
		t.Errorf("got %v", err)
	}
	in.RPM.Arch, in.RPM.Signed = "src", true
	if _, err := fill(t, w, newStore(t)); !isA[*SignatureError](err) {
		t.Errorf("got %v", err)
	}
}

// Progress says by kind what it says of all.
func TestProgressByKind(t *testing.T) {
	w, s := newWorld(t), newStore(t)
	var last Event
	opts := w.options()
	opts.Progress = func(e Event) { last = e }
	if _, err := Fill(context.Background(), w.lock, s, opts); err != nil {
		t.Fatal(err)
	}
	want := make(map[string]*KindEvent)
	for _, in := range w.lock.Inputs {
		k := want[in.Kind]
		if k == nil {
			k = &KindEvent{Kind: in.Kind}
			want[in.Kind] = k
		}
		k.Done++
		k.Total++
		k.Bytes += in.Size
		k.TotalBytes += in.Size
	}
	before := ""
	for _, k := range last.ByKind {
		if *want[k.Kind] != k || k.Kind <= before {
			t.Errorf("got %+v, want %+v", k, want[k.Kind])
		}
		before = k.Kind
	}
	if len(last.ByKind) != len(want) {
		t.Errorf("got %+v", last.ByKind)
	}
}
