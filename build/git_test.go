package build

import (
	"bytes"
	"context"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"caisson/lock"
	"caisson/lock/gittree"
	"caisson/prefetch/gitfetch"
)

// addRepository adds a git repository with these files to lock and store.
func (d *distro) addRepository(t *testing.T, name string, files map[string]string) *lock.Input {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		if os.Getenv("CAISSON_TOOLS") == "required" {
			t.Fatal(err)
		}
		t.Skip("git is not installed")
	}
	dir := t.TempDir()
	for p, content := range files {
		p, x := strings.CutSuffix(p, "*")
		mode := os.FileMode(0o644)
		if x {
			mode = 0o755
		}
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(p)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, p), []byte(content), mode); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range []string{"init -q -b main", "add .", "-c user.name=a -c user.email=a@b commit -q -m m"} {
		cmd := exec.Command("git", strings.Fields(args)...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %s: %v\n%s", args, err, out)
		}
	}
	remote, err := gitfetch.Open(t.Context(), &url.URL{Scheme: "file", Path: dir}, gitfetch.Options{})
	if err != nil {
		t.Fatal(err)
	}
	id, err := remote.Resolve("main")
	if err != nil {
		t.Fatal(err)
	}
	repo, err := remote.Fetch(t.Context(), id, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer repo.Close()
	var b bytes.Buffer
	if err := gittree.Write(&b, &gittree.Source{ID: id, Open: repo.Open}); err != nil {
		t.Fatal(err)
	}
	info, err := gittree.Check(bytes.NewReader(b.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	in := lock.Input{
		Kind: lock.KindGit, Name: name, URL: "https://git.example/" + name, Size: int64(b.Len()),
		Git: &lock.Git{Ref: "main", Commit: info.Commit, Tree: info.Tree}, For: []lock.Use{{Set: "git:" + name, By: "inputs.git " + name}},
	}
	if in.SHA256, _, err = d.store.Put(&b, in.SHA256); err != nil {
		t.Fatal(err)
	}
	d.lock.Inputs = append(d.lock.Inputs, in)
	slices.SortStableFunc(d.lock.Inputs, func(a, b lock.Input) int { return strings.Compare(a.Kind+"\x00"+a.Name, b.Kind+"\x00"+b.Name) })
	return d.lock.Find(lock.KindGit, name)
}

// TestGitSteps builds an image whose steps take files out of a git tree, make
// something of them, and try to change them.
func TestGitSteps(t *testing.T) {
	d := newDistro(t)
	in := d.addRepository(t, "proj", map[string]string{"conf/a.conf": "a = 1\n", "run*": "#!/bin/sh\n", "empty": ""})
	commit := in.Git.Commit
	d.lock.Steps = []lock.Step{
		{Run: `install -D -m 0644 $IN/proj/conf/a.conf $OUT/etc/a.conf; test -x $IN/proj/run; (echo b > $IN/proj/conf/a.conf) 2>/dev/null && exit 1; (echo b > $IN/proj/new) 2>/dev/null && exit 1; true`},
		{Run: `cat $IN/proj/conf/a.conf $IN/proj/run > $OUT/made; : > $OUT/empty`},
	}
	out := t.TempDir()
	if _, err := Build(context.Background(), d.options(out)); err != nil {
		t.Fatal(err)
	}
	files := readFiles(t, out)
	for path, want := range map[string]Account{"root:/etc/a.conf": Placed, "root:/made": Compiled, "root:/empty": Compiled} {
		if f := files[path]; f.Account != want || !slices.Contains(f.Inputs, "git/proj") {
			t.Errorf("%s: got %s of %q, want %s of git/proj", path, f.Account, f.Inputs, want)
		}
	}
	e := readEvidence(t, out)
	if slices.Contains(e.Unused, "git/proj") {
		t.Errorf("unused: %q", e.Unused)
	}

	other := d.with(func(d *distro) { d.lock.Find(lock.KindGit, "proj").Git.Commit = strings.Repeat("0", 40) })
	if _, err := Build(context.Background(), other.options(t.TempDir())); err == nil || !strings.Contains(err.Error(), commit) {
		t.Errorf("another commit than the locked one: %v", err)
	}
}

func TestInputsOfGit(t *testing.T) {
	l := testLock()
	l.Inputs = []lock.Input{
		{Kind: lock.KindGit, Name: "proj", Git: &lock.Git{}, For: []lock.Use{{Set: "git:proj"}}},
		{Kind: lock.KindGit, Name: "crate@1", Git: &lock.Git{}, For: []lock.Use{{Set: "cargo:guest"}}},
	}
	if got := Inputs(l, "x86_64", ""); len(got) != 1 || got[0].Name != "proj" {
		t.Errorf("got %v", got)
	}
}
