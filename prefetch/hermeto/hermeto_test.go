package hermeto

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"caisson/lock"
	"caisson/lock/digest"
	"caisson/lock/konflux"
	"caisson/prefetch/cas"
)

func newStore(t *testing.T) *cas.Store {
	t.Helper()
	s, err := cas.Open(filepath.Join(t.TempDir(), "store"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, s := range files {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// plan makes one of a source with these files.
func plan(t *testing.T, input string, files map[string]string) (*Plan, *lock.Manifest, error) {
	t.Helper()
	in, err := konflux.ReadPrefetchInput("in", []byte(input))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write(t, dir, files)
	var asked *lock.Manifest
	p, err := New(t.Context(), Request{
		Input: in, Digest: digest.Of([]byte(input)), Source: dir, Arches: []string{"x86_64"}, Store: newStore(t),
		Fetch: func(context.Context, lock.Want) (lock.Blob, error) { return lock.Blob{}, errors.New("no network") },
		Resolve: func(_ context.Context, m *lock.Manifest) (*lock.Lock, error) {
			asked = m
			return &lock.Lock{Arches: m.Arches}, nil
		},
	})
	return p, asked, err
}

const rpmsLock = `lockfileVersion: 1
lockfileVendor: redhat
arches:
- arch: aarch64
  packages:
  - {url: https://h/os/Packages/a-1-1.noarch.rpm, repoid: r, checksum: "sha256:1111111111111111111111111111111111111111111111111111111111111111", name: a, evr: 1-1}
- arch: x86_64
  packages:
  - {url: https://h/os/Packages/a-1-1.noarch.rpm, repoid: r, checksum: "sha256:1111111111111111111111111111111111111111111111111111111111111111", name: a, evr: 1-1}
  - {url: https://h/x/b-1-1.x86_64.rpm, checksum: "sha256:2222222222222222222222222222222222222222222222222222222222222222", name: b, evr: 1-1}
`

// TestSources: which toolchain and arches are asked for, and what the lock
// says of the files that say so.
func TestSources(t *testing.T) {
	p, m, err := plan(t, `[{"type": "gomod"}, {"type": "gomod", "path": "w"}, {"type": "gomod", "path": "old"}, {"type": "cargo", "path": "c"}, {"type": "rpm"}]`, map[string]string{
		"go.mod": "module x\n\ngo 1.21\n\ntoolchain go1.26.1\n", "go.sum": "",
		"w/go.work": "go 1.25.0\n\ntoolchain default\n", "old/go.mod": "module y\n",
		"c/Cargo.toml": "[package]\n", "c/Cargo.lock": "version = 3\n", "rpms.lock.yaml": rpmsLock,
	})
	if err != nil {
		t.Fatal(err)
	}
	want := lock.ManifestInputs{
		Go:    []lock.ManifestGo{{Name: ".", Dir: ".", Toolchain: "go1.26.1"}, {Name: "w", Dir: "w"}, {Name: "old", Dir: "old"}},
		Cargo: []lock.ManifestCargo{{Name: "c", Dir: "c"}},
	}
	if !reflect.DeepEqual(m.Inputs, want) || !reflect.DeepEqual(m.Arches, []string{"aarch64", "x86_64"}) {
		t.Errorf("got %+v for %v", m.Inputs, m.Arches)
	}
	var names []string
	for _, s := range p.Lock.Sources {
		names = append(names, s.Name)
	}
	if got := strings.Join(names, " "); got != "c/Cargo.lock c/Cargo.toml go.mod go.sum old/go.mod rpms.lock.yaml w/go.work" {
		t.Errorf("sources %s", got)
	}
	if len(p.Lock.Inputs) != 2 || p.Lock.Imported != lock.ImportedPrefetch || len(p.Lock.Inputs[0].For) != 2 {
		t.Errorf("got %+v", p.Lock)
	}
	b, err := lock.Format(p.Lock)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lock.Parse("l", b); err != nil {
		t.Error(err)
	}
}

// TestTLS: options.ssl becomes the repositories' login.
func TestTLS(t *testing.T) {
	p, _, err := plan(t, `{"type": "rpm", "options": {"ssl": {"client_cert": "/c", "client_key": "/k", "ca_bundle": "/ca"}}}`, map[string]string{"rpms.lock.yaml": rpmsLock})
	if err != nil {
		t.Fatal(err)
	}
	want := &lock.Auth{TLS: &lock.AuthTLS{Cert: "/c", Key: "/k", CA: "/ca"}}
	for _, r := range p.Lock.Repos {
		if !reflect.DeepEqual(r.Auth, want) {
			t.Errorf("%s: got %+v", r.ID, r.Auth)
		}
	}
	if b := p.Lock.Find(lock.KindRPM, "b-1-1.x86_64"); b == nil || !reflect.DeepEqual(b.Auth, want) {
		t.Errorf("without a repository: got %+v", b)
	}
}

func TestAuth(t *testing.T) {
	for _, tt := range []struct {
		in   konflux.ArtifactAuth
		want lock.Auth
		err  string
	}{
		{konflux.ArtifactAuth{Basic: &konflux.ArtifactBasic{Username: "me", Password: "${PASS}"}}, lock.Auth{Basic: &lock.AuthBasic{Username: "me", Password: "$PASS"}}, ""},
		{konflux.ArtifactAuth{Basic: &konflux.ArtifactBasic{Username: "$ME", Password: "$PASS"}}, lock.Auth{Basic: &lock.AuthBasic{Username: "$ME", Password: "$PASS"}}, ""},
		{konflux.ArtifactAuth{Bearer: &konflux.ArtifactBearer{Header: "Authorization", Value: "Bearer $T"}}, lock.Auth{Bearer: &lock.AuthBearer{Token: "$T"}}, ""},
		{konflux.ArtifactAuth{Bearer: &konflux.ArtifactBearer{Header: "PRIVATE-TOKEN", Value: "$T"}}, lock.Auth{Bearer: &lock.AuthBearer{Token: "$T", Header: "PRIVATE-TOKEN"}}, ""},
		{konflux.ArtifactAuth{Basic: &konflux.ArtifactBasic{Username: "me", Password: "hunter2"}}, lock.Auth{}, "password"},
		{konflux.ArtifactAuth{Basic: &konflux.ArtifactBasic{Username: "a$B", Password: "$P"}}, lock.Auth{}, "username"},
		{konflux.ArtifactAuth{Bearer: &konflux.ArtifactBearer{Header: "Authorization", Value: "hunter2"}}, lock.Auth{}, "Bearer $TOKEN"},
		{konflux.ArtifactAuth{Bearer: &konflux.ArtifactBearer{Header: "Authorization", Value: "Bearer hunter2"}}, lock.Auth{}, "one variable"},
	} {
		got, err := auth(&tt.in)
		switch {
		case tt.err == "" && (err != nil || !reflect.DeepEqual(*got, tt.want)):
			t.Errorf("got %+v, %v, want %+v", got, err, tt.want)
		case tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err) || strings.Contains(err.Error(), "hunter2")):
			t.Errorf("got %v, want %q", err, tt.err)
		}
	}
}

// TestLinksOut: a lock file that lies elsewhere is not read.
func TestLinksOut(t *testing.T) {
	out := t.TempDir()
	write(t, out, map[string]string{"rpms.lock.yaml": rpmsLock})
	in, err := konflux.ReadPrefetchInput("in", []byte("rpm"))
	if err != nil {
		t.Fatal(err)
	}
	src := t.TempDir()
	if err := os.Symlink(out+"/rpms.lock.yaml", src+"/rpms.lock.yaml"); err != nil {
		t.Fatal(err)
	}
	_, err = New(t.Context(), Request{Input: in, Digest: digest.Of(nil), Source: src, Store: newStore(t)})
	if err == nil || !strings.Contains(err.Error(), "leads out of the source") {
		t.Errorf("got %v", err)
	}
}

func TestGit(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		if os.Getenv("CAISSON_TOOLS") == "required" {
			t.Fatal(err)
		}
		t.Skip("git is not installed")
	}
	dir := t.TempDir()
	write(t, dir, map[string]string{"sub/go.mod": "module example.org/x/sub\n", "go.mod": "module example.org/x/v2\n", "c/Cargo.toml": "[package]\nname = \"c\"\nversion.workspace = true\n\n[workspace.package]\nversion = \"3.0\"\n",
		"c/Cargo.lock": "version = 3\n\n[[package]]\nname = \"g\"\nversion = \"0.1.0\"\nsource = \"git+https://h/g?branch=main#0123456789012345678901234567890123456789\"\n"})
	for _, args := range [][]string{
		{"init", "-q"}, {"remote", "add", "origin", "git@example.org:x/y.git"}, {"add", "."}, {"commit", "-q", "-m", "x"}, {"tag", "v2.1.0"}, {"tag", "v9.0.0"}, {"tag", "-a", "-m", "x", "v2.3.0"},
	} {
		c := exec.Command("git", args...)
		c.Dir = dir
		c.Env = append(os.Environ(), "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@b", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@b",
			"GIT_AUTHOR_DATE=1700000000 +0000", "GIT_COMMITTER_DATE=1700000000 +0000", "GIT_CONFIG_GLOBAL=/dev/null")
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	r, err := readGit(dir + "/sub")
	if err != nil || r == nil {
		t.Fatal(r, err)
	}
	in, err := konflux.ReadPrefetchInput("in", []byte(`[{"type": "gomod"}, {"type": "gomod", "path": "sub"}, {"type": "cargo", "path": "c"}]`))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]Component{}
	p := &Plan{req: Request{Input: in, Source: dir}}
	if err := p.mains(all); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range append(all["gomod"], all["cargo"]...) {
		got = append(got, c.PURL)
	}
	vcs := "vcs_url=git%2Bssh://git%40example.org/x/y.git%40" + r.commit
	want := []string{
		"pkg:golang/example.org/x/v2@v2.3.0?type=module&" + vcs,
		"pkg:golang/example.org/x/sub@v0.0.0-20231114221320-" + r.commit[:12] + "?type=module&" + vcs,
		"pkg:cargo/g@0.1.0?vcs_url=git%2Bhttps://h/g%400123456789012345678901234567890123456789",
		"pkg:cargo/c@3.0?" + vcs + "#c",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if n, err := Commit(dir); err != nil || n != 1700000000 {
		t.Errorf("got %d, %v", n, err)
	}
	if n, err := Commit(t.TempDir()); err != nil || n != 0 {
		t.Errorf("outside git: got %d, %v", n, err)
	}
	for in, want := range map[string]string{
		"https://me:secret@h/x": "https://h/x", "h:x/y": "ssh://h/x/y", "/a/b": "/a/b", "ssh://git@h/x": "ssh://git@h/x", "file:///x": "file:///x",
	} {
		if got := canonicalOrigin(in); got != want {
			t.Errorf("%s: got %s, want %s", in, got, want)
		}
	}
}

func TestPURL(t *testing.T) {
	got := purl("rpm", "centos/x y", "libstdc++", "1~2^3+4", map[string]string{"b": "a&b=c", "a": "sha256:00", "none": ""}, "")
	if want := "pkg:rpm/centos/x%20y/libstdc%2B%2B@1~2%5E3%2B4?a=sha256:00&b=a%26b%3Dc"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	for vendor, want := range map[string]string{"Red Hat, Inc.": "redhat", "Fedora Project": "fedora", "SUSE LLC": "suse", "Rocky Enterprise Software Foundation": "rocky_enterprise_software_foundation", "": ""} {
		if got := rpmNamespace(vendor); got != want {
			t.Errorf("%s: got %s, want %s", vendor, got, want)
		}
	}
}
