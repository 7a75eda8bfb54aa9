package lock

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/rpmpack"
	"golang.org/x/mod/module"
	"golang.org/x/mod/sumdb"
	"golang.org/x/mod/sumdb/dirhash"
	"golang.org/x/mod/sumdb/note"

	"caisson/lock/digest"
	"caisson/lock/tooltest"
)

// goModule puts a module into the world's proxy. It returns its go.sum lines.
func (w *world) goModule(path, version string, files map[string]string) string {
	w.t.Helper()
	dir := w.t.TempDir()
	zipName, modName := filepath.Join(dir, "zip"), filepath.Join(dir, "mod")
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for name, text := range files {
		f, err := z.Create(path + "@" + version + "/" + name)
		if err == nil {
			_, err = f.Write([]byte(text))
		}
		if err != nil {
			w.t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		w.t.Fatal(err)
	}
	writeFiles(w.t, dir, map[string]string{"zip": b.String(), "mod": files["go.mod"]})
	zipH1, err := dirhash.HashZip(zipName, dirhash.Hash1)
	if err != nil {
		w.t.Fatal(err)
	}
	modH1, err := dirhash.HashDir(dirOf(w.t, map[string]string{"go.mod": files["go.mod"]}), "", dirhash.Hash1)
	if err != nil {
		w.t.Fatal(err)
	}
	w.files[path+"/@v/"+version+".zip"] = zipName
	w.files[path+"/@v/"+version+".mod"] = modName
	return path + " " + version + " " + zipH1 + "\n" + path + " " + version + "/go.mod " + modH1 + "\n"
}

func dirOf(t *testing.T, files map[string]string) string { return writeFiles(t, t.TempDir(), files) }

// goSumDB serves a checksum database over go.sum lines.
func (w *world) goSumDB(lines string) {
	w.t.Helper()
	signer, verifier, err := note.GenerateKey(nil, "sum.example")
	if err != nil {
		w.t.Fatal(err)
	}
	w.opts.SumDBKey = verifier
	w.sumdb = sumdb.NewServer(sumdb.NewTestServer(signer, func(path, version string) ([]byte, error) {
		var out string
		for line := range strings.Lines(lines) {
			if strings.HasPrefix(line, path+" "+version) {
				out += line
			}
		}
		if out == "" {
			return nil, os.ErrNotExist
		}
		return []byte(out), nil
	}))
}

const goManifest = `version: 1
name: podvm
rpm: {repos: [{id: base, baseurl: "REPOS/base", gpgcheck: false}]}
inputs: {go: [{name: agent, dir: ./src/agent/, toolchain: go1.26.0}]}
steps: [{go: {input: agent, to: /usr/bin/agent}}]
`

func goWorld(t *testing.T) *world {
	w := newWorld(t)
	w.repo("base", "")
	sum := w.goModule("example.org/dep", "v1.2.3", map[string]string{"go.mod": "module example.org/dep\n\ngo 1.21\n", "dep.go": "package dep\n"})
	tc := w.goModule("golang.org/toolchain", "v0.0.1-go1.26.0.linux-amd64", map[string]string{"go.mod": "module golang.org/toolchain\n", "bin/go": "x"})
	tc += w.goModule("golang.org/toolchain", "v0.0.1-go1.26.0.linux-arm64", map[string]string{"go.mod": "module golang.org/toolchain\n", "bin/go": "y"})
	w.goSumDB(tc)
	writeFiles(t, w.dir, map[string]string{
		"src/agent/go.mod": "module agent\n\ngo 1.25\n\nrequire example.org/dep v1.2.3\n", "src/agent/go.sum": sum,
		"src/agent/main.go": "package main\n\nimport _ \"example.org/dep\"\n\nfunc main() {}\n",
	})
	return w
}

func TestResolveGo(t *testing.T) {
	w := goWorld(t)
	l := w.lock(strings.Replace(goManifest, "rpm:", "arches: [x86_64, aarch64]\nrpm:", 1))
	if want := []Payload{{Kind: "go", Name: "agent", Source: "src/agent", Toolchain: "go1.26.0"}}; !reflect.DeepEqual(l.Payloads, want) {
		t.Errorf("got %+v", l.Payloads)
	}
	if got := l.Steps[0].Go; got.Package != "." || got.Input != "agent" {
		t.Errorf("got %+v", got)
	}
	for kind, names := range map[string][]string{
		KindGo: {"example.org/dep@v1.2.3.mod", "example.org/dep@v1.2.3.zip"}, KindTree: {"src/agent"},
		KindToolchain: {"golang.org/toolchain@v0.0.1-go1.26.0.linux-amd64.zip", "golang.org/toolchain@v0.0.1-go1.26.0.linux-arm64.zip"},
	} {
		for _, name := range names {
			in := l.Find(kind, name)
			if in == nil {
				t.Errorf("%s %s is not there", kind, name)
				continue
			}
			if f, ok := w.files[in.URL]; ok {
				if b, err := os.ReadFile(f); err != nil || digest.Of(b) != in.SHA256 || in.Size != int64(len(b)) {
					t.Errorf("%s: got %+v, %v", name, in, err)
				}
			}
		}
	}
	if got, want := why(l, KindToolchain, "golang.org/toolchain@v0.0.1-go1.26.0.linux-arm64.zip"), "aarch64 go:agent toolchain go1.26.0"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, want := why(l, KindGo, "example.org/dep@v1.2.3.zip"), "go:agent src/agent go.mod"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	// What the old lock has is not fetched again.
	w.opts.Old, w.asked = l, nil
	again := w.lock(strings.Replace(goManifest, "rpm:", "arches: [x86_64, aarch64]\nrpm:", 1))
	for _, u := range w.asked {
		if !strings.Contains(u, "repodata") {
			t.Errorf("%s was fetched", u)
		}
	}
	if !bytes.Equal(format(t, l), format(t, again)) {
		t.Error("the lock has changed")
	}
}

func TestResolveGoErrors(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(w *world)
		want   string
	}{
		"another zip": {
			func(w *world) {
				w.goModule("example.org/dep", "v1.2.3", map[string]string{"go.mod": "module example.org/dep\n\ngo 1.21\n", "dep.go": "package evil\n"})
			},
			"inputs.go: agent: example.org/dep@v1.2.3.zip: ",
		},
		"no module": {func(w *world) { w.files = nil }, "inputs.go: agent: "},
		"no toolchain in the database": {
			func(w *world) { w.goSumDB("") },
			"inputs.go: agent: toolchain go1.26.0 for x86_64: looking up golang.org/toolchain@v0.0.1-go1.26.0.linux-amd64 in the checksum database: ",
		},
		"another database": {
			func(w *world) { w.opts.SumDBKey = "" },
			"inputs.go: agent: toolchain go1.26.0 for x86_64: looking up golang.org/toolchain@v0.0.1-go1.26.0.linux-amd64 in the checksum database: ",
		},
		"an old toolchain": {
			func(w *world) {
				writeFiles(t, w.dir, map[string]string{"src/agent/go.mod": "module agent\n\ngo 1.27.0\n"})
			},
			"inputs.go: agent: toolchain go1.26.0 is older than the go 1.27.0 that the source asks for",
		},
	} {
		w := goWorld(t)
		tt.change(w)
		if _, err := w.resolve(goManifest); err == nil || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %s", name, err, tt.want)
		}
	}
}

func TestResolveCargoFilesTrees(t *testing.T) {
	w := newWorld(t)
	w.repo("base", "")
	sum := strings.Repeat("ab", 32)
	writeFiles(t, w.dir, map[string]string{
		"guest/Cargo.lock": "version = 4\n\n[[package]]\nname = \"itoa\"\nversion = \"1.0.18\"\nsource = \"registry+https://github.com/rust-lang/crates.io-index\"\nchecksum = \"" + sum + "\"\n",
		"guest/Cargo.toml": "", "rootfs/etc/motd": "hello\n", "more/x": "", "files/near": "near",
	})
	l := w.lock(`version: 1
name: podvm
rpm: {repos: [{id: base, baseurl: "REPOS/base", gpgcheck: false}]}
inputs:
  cargo: [{name: guest, dir: guest}]
  files:
  - {name: near, url: files/near}
  - {name: far, url: "https://example.org/far", sha256: "sha256:` + sum + `"}
steps: [{cargo: {input: guest, to: /usr/bin/guest}}, {run: "true"}]
image: {overlay: [rootfs, ./rootfs/]}
variants: {debug: {image: {overlay: [more, guest]}}}
`)
	crate := l.Find(KindCrate, "itoa-1.0.18.crate")
	if crate == nil || crate.SHA256.Hex() != sum || crate.URL != "itoa/1.0.18" || why(l, KindCrate, crate.Name) != "cargo:guest guest Cargo.lock" {
		t.Errorf("got %+v", crate)
	}
	if got := l.Steps[0].Cargo; got.Bin != "guest" {
		t.Errorf("got %+v", got)
	}
	if near := l.Find(KindFile, "near"); near.SHA256 != digest.Of([]byte("near")) || near.Size != 4 || near.URL != "files/near" {
		t.Errorf("got %+v", near)
	}
	if far := l.Find(KindFile, "far"); far.SHA256.Hex() != sum || far.Size != 0 || far.PURL != "pkg:generic/far?checksum=sha256:"+sum {
		t.Errorf("got %+v", far)
	}
	if len(w.asked) != 6 { // repomd, primary and repomd once more, twice
		t.Errorf("fetched %q", w.asked)
	}
	if !reflect.DeepEqual(l.Image.Overlay, []string{"rootfs", "rootfs"}) || !reflect.DeepEqual(l.Variants[0].Image.Overlay, []string{"rootfs", "rootfs", "more", "guest"}) {
		t.Errorf("got %+v, %+v", l.Image, l.Variants)
	}
	if got, want := why(l, KindTree, "guest"), "variants.debug.image.overlay; cargo:guest inputs.cargo guest"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestResolveFrom takes repositories and packages from a Konflux file.
func TestResolveFrom(t *testing.T) {
	w := newWorld(t)
	w.repo("base", "", base()...)
	w.repo("more", "", pkg{name: "extra", evr: "1-1", arch: "x86_64"}, pkg{name: "unwanted", evr: "1-1", arch: "noarch"})
	writeFiles(t, w.dir, map[string]string{
		"ci/rpms.in.yaml": "packages: [app, unwanted, {name: extra, arches: {only: x86_64}}]\nexcludePackages: [unwanted]\ninstallWeakDeps: false\narches: [x86_64]\ncontentOrigin: {repofiles: [x.repo]}\n",
		"ci/x.repo":       "[more]\nbaseurl=" + w.repos + "more\ngpgkey=../KEY2\nrepo_gpgcheck=0\n",
	})
	m := `version: 1
name: podvm
arches: [x86_64, aarch64]
rpm:
  from: ci/rpms.in.yaml
  set: tools
  repos: [{id: base, baseurl: "REPOS/base", gpgcheck: false}]
sets: {tools: {packages: [docs]}, root: {packages: [data]}}
variants: {v: {sets: {tools: {packages: [tool]}}}}
`
	l := w.lock(m)
	for _, tt := range []struct{ arch, set, want string }{
		{"x86_64", "root", "data-1-1.noarch@base"},
		{"x86_64", "tools", "app-1:2.0-1.x86_64@base data-1-1.noarch@base docs-1-1.noarch@base extra-1-1.x86_64@more libapp-1.5-1.x86_64@base"},
		{"aarch64", "tools", "app-1:2.0-1.aarch64@base data-1-1.noarch@base docs-1-1.noarch@base libapp-1.5-1.aarch64@base"},
		{"x86_64", "tools+v", "app-1:2.0-1.x86_64@base data-1-1.noarch@base docs-1-1.noarch@base extra-1-1.x86_64@more libapp-1.5-1.x86_64@base tool-1-1.x86_64@base"},
	} {
		if got := chosen(l, tt.arch, tt.set); got != tt.want {
			t.Errorf("%s %s: got %s, want %s", tt.arch, tt.set, got, tt.want)
		}
	}
	if s := l.Sets[1]; s.Name != "tools" || !reflect.DeepEqual(s.Packages, []string{"app", "docs"}) || !reflect.DeepEqual(s.Only, []ArchPackages{{"x86_64", []string{"extra"}}}) {
		t.Errorf("got %+v", l.Sets)
	}
	if l.RPM.WeakDeps || len(l.Sources) != 2 || l.Sources[1].Name != "ci/x.repo" || l.Find(KindKey, "KEY2") == nil {
		t.Errorf("got %+v, %+v", l.RPM, l.Sources)
	}
	if !w.lock(strings.Replace(m, "  set:", "  weakDeps: true\n  set:", 1)).RPM.WeakDeps {
		t.Error("the manifest does not overrule")
	}
	writeFiles(t, w.dir, map[string]string{"ci/x.repo": "\n[base]\nbaseurl=https://x\ngpgkey=k\n"})
	w.fails(m, `ci/x.repo:2: two repositories are called "base"`)
	writeFiles(t, w.dir, map[string]string{"ci/x.repo": "[b]\nbaseurl=https://x\n"})
	w.fails(m, `ci/x.repo:1: gpgkey: "b" has none; give the key that its packages are signed by, or say gpgcheck: false`)
	writeFiles(t, w.dir, map[string]string{"ci/x.repo": ""})
	w.fails(strings.Replace(m, "  repos:", "  vars: {}\n#", 1), "ci/rpms.in.yaml: it names no repository, and the manifest has none")
}

// TestResolveTree has the commit of a folder stay as long as its content.
func TestResolveTree(t *testing.T) {
	w := newWorld(t)
	w.repo("base", "")
	writeFiles(t, w.dir, map[string]string{"rootfs/a": "a"})
	const m = oneRepo + "image: {overlay: [rootfs]}\n"
	tree := func() Tree {
		t.Helper()
		l := w.lock(m)
		w.opts.Old = l
		if in := l.Find(KindTree, "rootfs"); in.Tree != nil {
			return *in.Tree
		}
		return Tree{}
	}
	commit := func() string {
		runGit(t, w.dir, "add", "-A")
		runGit(t, w.dir, "commit", "-q", "--allow-empty", "-m", "x")
		return strings.TrimSpace(runGit(t, w.dir, "rev-parse", "HEAD"))
	}
	if got := tree(); got.Commit != "" {
		t.Errorf("got %+v", got)
	}
	runGit(t, w.dir, "init", "-q")
	first := commit()
	if got := tree(); got.Commit != first || got.Dirty {
		t.Errorf("got %+v, want %s", got, first)
	}
	second := commit()
	if got := tree(); got.Commit != first || got.Dirty {
		t.Errorf("another commit: got %+v, want %s", got, first)
	}
	writeFiles(t, w.dir, map[string]string{"rootfs/a": "b"})
	if got := tree(); got.Commit != second || !got.Dirty {
		t.Errorf("changed: got %+v, want %s, dirty", got, second)
	}
	third := commit()
	if got := tree(); got.Commit != third || got.Dirty {
		t.Errorf("committed: got %+v, want %s", got, third)
	}
}

// TestCheck changes each thing that a lock depends on.
func TestCheck(t *testing.T) {
	w := newWorld(t)
	w.repo("base", "")
	files := map[string]string{
		"KEY": "key AA11\n", "rootfs/a": "a", "near": "n", "ci/in.yaml": "packages: []\ncontentOrigin: {repofiles: [x.repo]}\n", "ci/x.repo": "# none\n",
	}
	writeFiles(t, w.dir, files)
	l := w.lock(strings.Replace(oneRepo, "{repos", "{from: ci/in.yaml, repos", 1) + "inputs: {files: [{name: near, url: near}]}\nimage: {overlay: [rootfs]}\n")
	for name, content := range files {
		at := filepath.Join(w.dir, name)
		if err := os.WriteFile(at, []byte("changed"), 0o644); err != nil {
			t.Fatal(err)
		}
		what := name
		if name == "rootfs/a" {
			what = "rootfs"
		}
		if err := Check(l, l.Manifest, w.dir); err == nil || !strings.HasPrefix(err.Error(), what+" has changed: got sha256:") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got %v", name, err)
		}
		if err := os.Remove(at); err != nil {
			t.Fatal(err)
		}
		if err := Check(l, l.Manifest, w.dir); err == nil || what == name && !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is gone: got %v", name, err)
		}
		writeFiles(t, w.dir, map[string]string{name: content})
	}
	if err := Check(l, l.Manifest, w.dir); err != nil {
		t.Errorf("all is as it was: %v", err)
	}
	other := digest.Of([]byte("other"))
	if err := Check(l, other, w.dir); err == nil || err.Error() != "the manifest has changed: got "+other.String()+", the lock was made for "+l.Manifest.String() {
		t.Errorf("got %v", err)
	}
	writeFiles(t, w.dir, map[string]string{"rootfs/b": "", "near": "N", "rootfs/caisson.lock": "{}"})
	if err := Check(l, other, w.dir); err == nil || strings.Count(err.Error(), "has changed") != 3 {
		t.Errorf("got %v", err)
	}
}

// TestResolveCreaterepo locks a repository of real packages, described by
// createrepo_c.
func TestResolveCreaterepo(t *testing.T) {
	createrepo := tooltest.Find(t, "createrepo_c")
	w := newWorld(t)
	dir := filepath.Join(strings.TrimPrefix(w.repos, "file://"), "base")
	write := func(m rpmpack.RPMMetaData, file string) digest.Digest {
		m.OS, m.Version, m.Release, m.Compressor, m.BuildTime = "linux", "1.0", "1", "gzip", time.Unix(1700000000, 0)
		r, err := rpmpack.NewRPM(m)
		if err != nil {
			t.Fatal(err)
		}
		r.AddFile(rpmpack.RPMFile{Name: file, Body: []byte(m.Name), Mode: 0o755, Owner: "root", Group: "root"})
		var b bytes.Buffer
		if err := r.Write(&b); err != nil {
			t.Fatal(err)
		}
		writeFiles(t, dir, map[string]string{m.Name + ".rpm": b.String()})
		return digest.Of(b.Bytes())
	}
	need := func(s string) rpmpack.Relations {
		var r rpmpack.Relations
		if err := r.Set(s); err != nil {
			t.Fatal(err)
		}
		return r
	}
	write(rpmpack.RPMMetaData{Name: "app", Arch: "x86_64", Epoch: 2, Requires: need("/usr/libexec/helper")}, "/usr/bin/app")
	sum := write(rpmpack.RPMMetaData{Name: "helper", Arch: "noarch", Epoch: rpmpack.NoEpoch}, "/usr/libexec/helper")
	if out, err := exec.CommandContext(context.Background(), createrepo, "-q", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	l := w.lock(oneRepo + "sets: {root: {packages: [app]}}\n")
	if got, want := chosen(l, "x86_64", "root"), "app-2:1.0-1.x86_64@base helper-1.0-1.noarch@base"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	in := l.Find(KindRPM, "helper-1.0-1.noarch")
	if in.SHA256 != sum || in.URL != "helper.rpm" || l.Epoch != 1700000000 || why(l, KindRPM, in.Name) != "x86_64 root app-2:1.0-1.x86_64 /usr/libexec/helper" {
		t.Errorf("got %+v, epoch %d", in, l.Epoch)
	}
	if l.Find(KindRepodata, "base-x86_64/filelists") == nil {
		t.Error("the filelists that were asked are not an input")
	}
}

// TestResolvePURLs checks that every input's purl says what it is.
func TestResolvePURLs(t *testing.T) {
	w := goWorld(t)
	l := w.lock(goManifest)
	for _, in := range l.Inputs {
		if in.Go == nil {
			continue
		}
		if err := module.Check(in.Go.Module, in.Go.Version); in.Kind == KindGo && err != nil {
			t.Error(err)
		}
		if want := "pkg:golang/" + in.Go.Module + "@" + in.Go.Version; in.PURL != want {
			t.Errorf("got %s, want %s", in.PURL, want)
		}
		if _, err := hex.DecodeString(in.SHA256.Hex()); err != nil || !strings.HasPrefix(in.Go.H1, "h1:") {
			t.Errorf("got %+v", in)
		}
	}
}
