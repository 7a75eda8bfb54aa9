package prefetch

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"caisson/lock"
	"caisson/lock/digest"
	"caisson/prefetch/cas"
)

// buildRepo builds a package of some version with rpmbuild, its source package
// too, and makes a repository of both.
func buildRepo(t *testing.T, version string) string {
	t.Helper()
	for _, name := range []string{"rpmbuild", "createrepo_c"} {
		if _, err := exec.LookPath(name); err != nil {
			if os.Getenv("CAISSON_TOOLS") == "required" {
				t.Fatal(err)
			}
			t.Skipf("%s is not installed", name)
		}
	}
	dir := t.TempDir()
	spec := filepath.Join(dir, "app.spec")
	text := "Name: app\nEpoch: 3\nVersion: " + version + "\nRelease: 1\nSummary: x\nLicense: x\nBuildArch: noarch\n%description\nx\n%install\nmkdir -p %{buildroot}/opt\necho " + version + " > %{buildroot}/opt/app\n%files\n/opt/app\n"
	if err := os.WriteFile(spec, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	repo := filepath.Join(dir, "repo")
	for _, args := range [][]string{
		{"rpmbuild", "-ba", "--quiet", "--define", "_topdir " + dir, "--define", "_rpmdir " + repo, "--define", "_srcrpmdir " + repo, spec},
		{"createrepo_c", "-q", "--simple-md-filenames", repo},
	} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", args[0], err, out)
		}
	}
	return repo
}

// TestMovingRepository locks and fills from a server whose repository is
// replaced by another one while it is read.
func TestMovingRepository(t *testing.T) {
	dirs := []string{buildRepo(t, "1.0"), buildRepo(t, "2.00")}
	var now, changes atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "primary") && changes.Add(-1) >= 0 {
			now.Store(1 - now.Load())
		}
		http.ServeFile(w, r, filepath.Join(dirs[now.Load()], filepath.FromSlash(r.URL.Path)))
	}))
	defer server.Close()
	store, err := cas.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	client, err := NewClient(Config{})
	if err != nil {
		t.Fatal(err)
	}
	text := []byte("version: 1\nname: x\nrpm: {sources: yes, repos: [{id: base, baseurl: '" + server.URL + "', gpgcheck: false}]}\nsets: {root: {packages: [app]}}\n")
	m, err := lock.ParseManifest("m", text)
	if err != nil {
		t.Fatal(err)
	}
	o := lock.Options{Manifest: m, Digest: digest.Of(text), Fetch: NewFetcher(store, client, Config{}).Fetch}

	changes.Store(1)
	l, err := lock.Resolve(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"app-3:2.00-1.noarch", "app-3:2.00-1.src"} {
		if l.Find(lock.KindRPM, name) == nil {
			t.Errorf("the lock has no %s: %+v", name, l.Inputs)
		}
	}
	// The source package is proved to be one: the header's own architecture is noarch.
	if _, err := Fill(context.Background(), l, store, Options{Client: client}); err != nil {
		t.Error(err)
	}
	src := l.Find(lock.KindRPM, "app-3:2.00-1.src")
	src.RPM.Arch = "nosrc"
	if _, err := Fill(context.Background(), l, store, Options{Client: client}); err == nil || !strings.Contains(err.Error(), "got app-3:2.00-1.src, want app-3:2.00-1.nosrc") {
		t.Errorf("got %v", err)
	}

	// A repository that is never at rest.
	if store, err = cas.Open(t.TempDir()); err != nil {
		t.Fatal(err)
	}
	o.Fetch = NewFetcher(store, client, Config{}).Fetch
	changes.Store(1 << 20)
	_, err = lock.Resolve(context.Background(), o)
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{`repository "base" (x86_64)`, "repodata/primary.xml.gz", "repomd.xml (sha256:", "got ", ", want ", "(tried 3 times); wait until"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q in it", err, want)
		}
	}
}

// resolveAndFill locks one repository, fills a store, and makes the choice
// again out of it.
func resolveAndFill(t *testing.T, repo string, dir string) *lock.Lock {
	t.Helper()
	store, err := cas.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{Dir: dir}
	client, err := NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	text := []byte("version: 1\nname: x\nrpm: {sources: yes, repos: [{id: base, gpgcheck: false, " + repo + "}]}\nsets: {root: {packages: [app]}}\n" +
		"inputs: {files: [{name: image.iso, url: image.iso}]}\n")
	m, err := lock.ParseManifest("m", text)
	if err != nil {
		t.Fatal(err)
	}
	l, err := lock.Resolve(context.Background(), lock.Options{Dir: dir, Manifest: m, Digest: digest.Of(text), Fetch: NewFetcher(store, client, cfg).Fetch})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Fill(context.Background(), l, store, Options{Client: client, Config: cfg}); err != nil {
		t.Fatal(err)
	}
	again, err := lock.Replay(context.Background(), l, func(d digest.Digest) (string, error) { return store.Path(d), store.Verify(d) })
	if err != nil || again.Packages != 2 || again.Different != nil || again.Kept != nil {
		t.Errorf("replay: got %+v, %v", again, err)
	}
	return l
}

// TestMetalink locks and fills from the mirrors of a metalink: one is stale,
// one is not there.
func TestMetalink(t *testing.T) {
	stale, good := buildRepo(t, "1.0"), buildRepo(t, "2.00")
	repomd, err := os.ReadFile(filepath.Join(good, "repodata/repomd.xml"))
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/stale/", http.StripPrefix("/stale/", http.FileServer(http.Dir(stale))))
	mux.Handle("/good/", http.StripPrefix("/good/", http.FileServer(http.Dir(good))))
	server := httptest.NewServer(mux)
	defer server.Close()
	mux.HandleFunc("/metalink", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `<metalink version="3.0"><files><file name="repomd.xml"><size>%d</size><verification><hash type="sha256">%s</hash></verification><resources>
<url preference="100">%[3]s/stale/repodata/repomd.xml</url><url preference="90">%[3]s/none/repodata/repomd.xml</url><url preference="80">%[3]s/good/repodata/repomd.xml</url>
</resources></file></files></metalink>`, len(repomd), digest.Of(repomd).Hex(), server.URL)
	})
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "image.iso"), []byte("unused"), 0o644); err != nil {
		t.Fatal(err)
	}
	l := resolveAndFill(t, "metalink: '"+server.URL+"/metalink'", dir)
	if r := l.Repos[0]; r.BaseURL != server.URL+"/stale/" || len(r.Mirrors) != 2 || r.Repomd != digest.Of(repomd) || l.Find(lock.KindRPM, "app-3:2.00-1.noarch") == nil {
		t.Errorf("got %+v", r)
	}
}

// TestImageRepository locks and fills from a repository in an ISO image.
func TestImageRepository(t *testing.T) {
	xorriso, err := exec.LookPath("xorriso")
	if err != nil {
		if os.Getenv("CAISSON_TOOLS") == "required" {
			t.Fatal(err)
		}
		t.Skip("xorriso is not installed")
	}
	dir := t.TempDir()
	cmd := exec.Command(xorriso, "-as", "mkisofs", "-quiet", "-R", "-o", filepath.Join(dir, "image.iso"), "-graft-points", "BaseOS="+buildRepo(t, "1.0"))
	var out bytes.Buffer
	if cmd.Stderr = &out; cmd.Run() != nil {
		t.Fatalf("%s", out.Bytes())
	}
	l := resolveAndFill(t, "iso: image.iso/BaseOS", dir)
	if r := l.Repos[0]; r.BaseURL != "iso:image.iso/BaseOS/" || l.Find(lock.KindRPM, "app-3:1.0-1.src") == nil {
		t.Errorf("got %+v", r)
	}
}
