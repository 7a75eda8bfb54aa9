package lock

import (
	"bytes"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"caisson/lock/cargo"
	"caisson/lock/gittree"
	"caisson/lock/tooltest"
)

const cargoManifest = `version: 1
name: podvm
rpm: {repos: [{id: base, baseurl: "REPOS/base", gpgcheck: false}]}
inputs: {cargo: [{name: guest, dir: guest}, {name: other, dir: ./other/}]}
`

// cargoLock is a Cargo.lock of packages "NAME VERSION [SOURCE [CHECKSUM]]".
func cargoLock(pkgs ...string) string {
	var b strings.Builder
	b.WriteString("version = 4\n")
	for _, p := range pkgs {
		f := strings.SplitN(p, " -> ", 2)
		w := strings.Fields(f[0])
		b.WriteString("\n[[package]]\nname = \"" + w[0] + "\"\nversion = \"" + w[1] + "\"\n")
		if len(w) > 2 {
			b.WriteString("source = \"" + w[2] + "\"\n")
		}
		if len(w) > 3 {
			b.WriteString("checksum = \"" + strings.Repeat(w[3], 32) + "\"\n")
		}
		if len(f) > 1 {
			b.WriteString("dependencies = [\n \"" + f[1] + "\",\n]\n")
		}
	}
	return b.String()
}

// TestResolveCrates has two crates of one name and version, of two registries.
func TestResolveCrates(t *testing.T) {
	const alt = "sparse+https://crates.example/index/"
	w := newWorld(t)
	w.repo("base", "")
	writeFiles(t, w.dir, map[string]string{
		"guest/Cargo.toml": "", "other/Cargo.toml": "",
		"guest/Cargo.lock": cargoLock("guest 0.1.0 -> a", "a 1.0.0 "+cargo.CratesIO+" aa -> b", "b 1.0.0 "+cargo.CratesIO+" bb"),
		"other/Cargo.lock": cargoLock("other 0.1.0 -> b", "b 1.0.0 "+alt+" cc -> c", "c 1.0.0 "+alt+" dd", "a 1.0.0 "+cargo.CratesIO+" aa"),
	})
	l := w.lock(cargoManifest)
	for name, want := range map[string]struct{ why, registry, purl, sum string }{
		"a-1.0.0.crate":           {"cargo:guest guest Cargo.lock; cargo:other other Cargo.lock", cargo.CratesIO, "pkg:cargo/a@1.0.0?checksum=sha256:", "aa"},
		"b-1.0.0.crate":           {"cargo:guest a 1.0.0 Cargo.lock", cargo.CratesIO, "pkg:cargo/b@1.0.0?checksum=sha256:", "bb"},
		"b-1.0.0.crate of " + alt: {"cargo:other other Cargo.lock", alt, "pkg:cargo/b@1.0.0?checksum=sha256:", "cc"},
		"c-1.0.0.crate":           {"cargo:other b 1.0.0 Cargo.lock", alt, "pkg:cargo/c@1.0.0?checksum=sha256:", "dd"},
	} {
		in := l.Find(KindCrate, name)
		if in == nil {
			t.Errorf("%s is not there", name)
			continue
		}
		if got := why(l, KindCrate, name); got != want.why || in.Registry != want.registry || in.SHA256.Hex() != strings.Repeat(want.sum, 32) ||
			!strings.HasPrefix(in.PURL, want.purl) || (want.registry == alt) != strings.Contains(in.PURL, "&repository_url=https:") {
			t.Errorf("%s: got %q, %+v", name, got, in)
		}
	}
}

func TestResolveCargoErrors(t *testing.T) {
	for want, files := range map[string]map[string]string{
		`inputs.cargo: guest: there is no Cargo.lock; the folder belongs to the workspace in ".": give that as dir, and the program's name as the step's bin`: {
			"Cargo.lock": cargoLock(), "guest/Cargo.toml": "",
		},
		"inputs.cargo: guest: reading Cargo.lock: open Cargo.lock: no such file or directory; run `cargo generate-lockfile`": {"guest/Cargo.toml": ""},
		`inputs.cargo: guest: Cargo.toml: dependencies a: "../a" is outside of the source folder; lock the folder that has both, the workspace's root`: {
			"guest/Cargo.lock": cargoLock(), "guest/Cargo.toml": "[dependencies]\na = { path = \"../a\" }\n", "a/Cargo.toml": "",
		},
	} {
		w := newWorld(t)
		w.repo("base", "")
		writeFiles(t, w.dir, files)
		w.fails(strings.Replace(cargoManifest, ", {name: other, dir: ./other/}", "", 1), want)
	}
}

// repositoryFile makes a repository with one commit, in the form of package
// gittree.
func repositoryFile(t *testing.T) (file, commit string) {
	t.Helper()
	tooltest.Find(t, "git")
	dir := writeFiles(t, t.TempDir(), map[string]string{"Cargo.toml": "[workspace]\n"})
	runGit(t, dir, "init", "-q")
	runGit(t, dir, "add", "-A")
	runGit(t, dir, "commit", "-q", "-m", "x")
	commit = strings.TrimSpace(runGit(t, dir, "rev-parse", "HEAD"))
	var b bytes.Buffer
	err := gittree.Write(&b, &gittree.Source{ID: commit, Open: func(id string) (*gittree.Object, error) {
		typ := strings.TrimSpace(runGit(t, dir, "cat-file", "-t", id))
		content := runGit(t, dir, "cat-file", typ, id)
		return &gittree.Object{Type: typ, Size: int64(len(content)), ReadCloser: io.NopCloser(strings.NewReader(content))}, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	writeFiles(t, dir, map[string]string{"repository": b.String()})
	return filepath.Join(dir, "repository"), commit
}

// TestResolveCargoGit locks a repository that two packages come from, once.
func TestResolveCargoGit(t *testing.T) {
	const url = "https://git.example/mono"
	w := newWorld(t)
	w.repo("base", "")
	file, commit := repositoryFile(t)
	w.files[url] = file
	source := "git+" + url + "?branch=main#" + commit
	writeFiles(t, w.dir, map[string]string{
		"guest/Cargo.toml": "", "other/Cargo.toml": "",
		"guest/Cargo.lock": cargoLock("guest 0.1.0 -> a", "a 1.0.0 "+cargo.CratesIO+" aa -> one", "one 1.0.0 "+source, "two 1.0.0 "+source),
		"other/Cargo.lock": cargoLock("other 0.1.0 -> one", "one 1.0.0 "+strings.Replace(source, "branch=main", "tag=v1", 1)),
	})
	l := w.lock(cargoManifest)
	var found []*Input
	for i := range l.Inputs {
		if l.Inputs[i].Kind == KindGit {
			found = append(found, &l.Inputs[i])
		}
	}
	if len(found) != 1 || found[0].Git.Commit != commit || !found[0].Git.Submodules || found[0].URL != url {
		t.Fatalf("got %+v", found)
	}
	if got, want := why(l, KindGit, found[0].Name), "cargo:guest a 1.0.0 Cargo.lock; cargo:other other Cargo.lock"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	w.opts.Old = l
	if again := w.lock(cargoManifest); !bytes.Equal(format(t, l), format(t, again)) {
		t.Error("the lock has changed")
	}
}
