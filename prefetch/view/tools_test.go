package view

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/rpmpack"

	"caisson/lock"
	"caisson/lock/digest"
	"caisson/lock/tooltest"
	"caisson/prefetch/cas"
)

func missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("CAISSON_TOOLS") == "required" {
		t.Fatal(what)
	}
	t.Skip(what)
}

// run runs a program in dir with more environment, and returns what it says.
func run(t *testing.T, dir string, env []string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, args[0], args[1:]...)
	c.Dir, c.Env = dir, append(os.Environ(), env...)
	out, err := c.CombinedOutput()
	return string(out), err
}

// offline is what a command begins with that is to have no network. Where this
// user may not take that away, it is nothing.
func offline(t *testing.T) []string {
	t.Helper()
	without := []string{tooltest.Find(t, "unshare"), "--net", "--"}
	if os.Geteuid() != 0 {
		without = []string{tooltest.Find(t, "unshare"), "--map-root-user", "--net", "--"}
	}
	if exec.Command(without[0], append(without[1:], "true")...).Run() != nil {
		return nil
	}
	return without
}

func newStore(t *testing.T) *cas.Store {
	t.Helper()
	s, err := cas.Open(filepath.Join(t.TempDir(), "store"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func put(t *testing.T, s *cas.Store, b []byte) digest.Digest {
	t.Helper()
	d, _, err := s.Put(bytes.NewReader(b), digest.Digest{})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// write makes the view in a new folder.
func write(t *testing.T, tree *Tree) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "view")
	if _, err := tree.Write(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

// listing is the files below dir with their digests.
func listing(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		b.WriteString(rel + " " + digest.Of(content).Hex() + "\n")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// pkg is a package to make.
type pkg struct {
	name, version, arch string
	epoch               uint32
	requires, provides  []string
	recommends          []string
	files               []string
}

func (p pkg) build(t testing.TB) []byte {
	t.Helper()
	md := rpmpack.RPMMetaData{
		Name: p.name, Version: p.version, Release: "1.el9", Arch: p.arch, Epoch: p.epoch, Summary: "the <" + p.name + "> & co",
		Description: "line one\nline two \"quoted\"", BuildTime: time.Unix(1700000000, 0), Compressor: "gzip",
		Licence: "MIT", Vendor: "Vendor", Group: "None", URL: "https://example.org/" + p.name,
	}
	for _, r := range []struct {
		from []string
		to   *rpmpack.Relations
	}{{p.requires, &md.Requires}, {p.provides, &md.Provides}, {p.recommends, &md.Recommends}} {
		for _, s := range r.from {
			if err := r.to.Set(s); err != nil {
				t.Fatal(err)
			}
		}
	}
	w, err := rpmpack.NewRPM(md)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range append([]string{"/usr/share/" + p.name + "/data"}, p.files...) {
		w.AddFile(rpmpack.RPMFile{Name: f, Body: []byte(p.name + p.version), Mode: 0o644, Owner: "root", Group: "root"})
	}
	w.AddFile(rpmpack.RPMFile{Name: "/usr/share/" + p.name, Mode: 0o40755, Owner: "root", Group: "root"})
	w.AddFile(rpmpack.RPMFile{Name: "/var/log/" + p.name, Type: rpmpack.GhostFile, Mode: 0o644, Owner: "root", Group: "root"})
	var b bytes.Buffer
	if err := w.Write(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// input puts a package into the store, and is its input.
func (p pkg) input(t *testing.T, s *cas.Store, repo string, arches ...string) lock.Input {
	t.Helper()
	b := p.build(t)
	in := lock.Input{
		Kind: lock.KindRPM, Name: p.name + "-" + p.version + "-1.el9." + p.arch, Repo: repo, Size: int64(len(b)), SHA256: put(t, s, b),
		URL: "Packages/" + p.name[:1] + "/" + p.name + "-" + p.version + "-1.el9." + p.arch + ".rpm",
		RPM: &lock.RPM{Name: p.name, Version: p.version, Release: "1.el9", Arch: p.arch, BuildTime: 1700000000},
	}
	for _, a := range arches {
		in.For = append(in.For, lock.Use{Arch: a, Set: "root", By: p.name})
	}
	return in
}
