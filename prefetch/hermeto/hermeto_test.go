package hermeto

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"os"
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
	dir := t.TempDir()
	write(t, dir, map[string]string{"c": "", "k": "", "ca": ""})
	p, _, err := plan(t, `{"type": "rpm", "options": {"ssl": {"client_cert": "`+dir+`/c", "client_key": "`+dir+`/k", "ca_bundle": "`+dir+`/ca"}}}`, map[string]string{"rpms.lock.yaml": rpmsLock})
	if err != nil {
		t.Fatal(err)
	}
	want := &lock.Auth{TLS: &lock.AuthTLS{Cert: dir + "/c", Key: dir + "/k", CA: dir + "/ca"}}
	for _, r := range p.Lock.Repos {
		if !reflect.DeepEqual(r.Auth, want) {
			t.Errorf("%s: got %+v", r.ID, r.Auth)
		}
	}
	if b := p.Lock.Find(lock.KindRPM, "b-1-1.x86_64"); b == nil || !reflect.DeepEqual(b.Auth, want) {
		t.Errorf("without a repository: got %+v", b)
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

// TestToolchain: where the lock has a Go toolchain, the standard library's
// packages are listed with what they import.
func TestToolchain(t *testing.T) {
	dir, s := t.TempDir(), newStore(t)
	write(t, dir, map[string]string{"go.mod": "module m\n\ngo 1.26.0\n\ntoolchain go1.26.1\n", "m.go": "package main\n\nimport _ \"net\"\n"})
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for name, imports := range map[string]string{"net": "golang.org/x/net/dns", "vendor/golang.org/x/net/dns": "internal/abi", "internal/abi": "unsafe", "unsafe": "", "runtime": "internal/abi", "other": ""} {
		w, err := z.Create("golang.org/toolchain@v0.0.1-go1.26.1.linux-amd64/src/" + name + "/x.go")
		if err != nil {
			t.Fatal(err)
		}
		text := "package x\n"
		if imports != "" {
			text += "\nimport _ \"" + imports + "\"\n"
		}
		if _, err := w.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	d, _, err := s.Put(&b, digest.Digest{})
	if err != nil {
		t.Fatal(err)
	}
	in, err := konflux.ReadPrefetchInput("in", []byte("gomod"))
	if err != nil {
		t.Fatal(err)
	}
	l := &lock.Lock{Arches: []string{"x86_64"}, Inputs: []lock.Input{
		{Kind: lock.KindToolchain, Name: "t", SHA256: d, Go: &lock.Go{Module: "golang.org/toolchain", Version: "v0.0.1-go1.26.1.linux-amd64"}},
	}}
	p := &Plan{Lock: l, repos: map[string]*repository{}, req: Request{Input: in, Source: dir, Store: s}}
	all, err := p.goComponents(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range all {
		got = append(got, c.PURL)
	}
	want := []string{"pkg:golang/m?type=module"}
	for _, name := range []string{"m", "net", "vendor/golang.org/x/net/dns", "internal/abi", "unsafe", "runtime"} {
		want = append(want, "pkg:golang/"+name+"?type=package")
	}
	same(t, got, want)
}

func TestPURL(t *testing.T) {
	got := purl("rpm", "centos/x y", "libstdc++", "1~2^3+4", map[string]string{"b": "a&b=c", "a": "sha256:00", "none": ""}, "")
	if want := "pkg:rpm/centos/x%20y/libstdc%2B%2B@1~2%5E3%2B4?a=sha256:00&b=a%26b%3Dc"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	for in, want := range map[string]string{
		"HTTPS://Example.com:443/a b?x=1 2#f": "https://example.com/a%20b?x=1%202#f", "https://h/%7e%2F": "https://h/%7e%2F", "http://h:80": "http://h/", "https://h:8443/x/../y": "https://h:8443/y",
		"https://u:p@h/ä": "https://h/%C3%A4", "https://h?x": "https://h/?x", "file:///x": "file:///x", "https://h/a/./b//c?": "https://h/a/b//c?",
	} {
		if got := webURL(in); got != want {
			t.Errorf("%s: got %s, want %s", in, got, want)
		}
	}
	for vendor, want := range map[string]string{"Red Hat, Inc.": "redhat", "Fedora Project": "fedora", "SUSE LLC": "suse", "Rocky Enterprise Software Foundation": "rocky_enterprise_software_foundation", "": ""} {
		if got := rpmNamespace(vendor); got != want {
			t.Errorf("%s: got %s, want %s", vendor, got, want)
		}
	}
}
