package hermeto

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"caisson/lock"
	"caisson/lock/cargo"
	"caisson/lock/digest"
	"caisson/lock/gittree"
	"caisson/lock/konflux"
)

// missing skips a test that wants a tool; where tools are required it fails.
func missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("CAISSON_TOOLS") == "required" {
		t.Fatal(what)
	}
	t.Skip(what)
}

func run(t *testing.T, dir string, env []string, args ...string) (string, error) {
	t.Helper()
	c := exec.Command(args[0], args[1:]...)
	c.Dir, c.Env = dir, append(os.Environ(), env...)
	out, err := c.CombinedOutput()
	return string(out), err
}

// runGit runs git with no configuration but the test's.
func runGit(t *testing.T, dir string, args ...string) string {
	t.Helper()
	out, err := run(t, dir, []string{"GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null"},
		append([]string{"git", "-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "protocol.file.allow=always", "-c", "init.defaultBranch=main"}, args...)...)
	if err != nil {
		t.Fatalf("git %s: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(out)
}

// gitSource reads a repository's objects, and its submodule's.
func gitSource(t *testing.T, dir, id, sub string) *gittree.Source {
	return &gittree.Source{
		ID: id,
		Open: func(id string) (*gittree.Object, error) {
			typ := runGit(t, dir, "cat-file", "-t", id)
			out, err := exec.Command("git", "-C", dir, "cat-file", typ, id).Output()
			return &gittree.Object{Type: typ, Size: int64(len(out)), ReadCloser: io.NopCloser(bytes.NewReader(out))}, err
		},
		Module: func(s gittree.Submodule) (*gittree.Source, error) { return gitSource(t, sub, s.Commit, ""), nil },
	}
}

// TestCargoGit builds a program of a crate in a git repository with a
// submodule, from the output, when neither is there any more.
func TestCargoGit(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		missing(t, err.Error())
	}
	cargoTool, err := run(t, "", nil, "rustup", "which", "cargo")
	if err != nil {
		if cargoTool, err = exec.LookPath("cargo"); err != nil {
			missing(t, err.Error())
		}
	}
	cargoTool = strings.TrimSpace(cargoTool)
	env := []string{"PATH=" + filepath.Dir(cargoTool) + ":" + os.Getenv("PATH"), "CARGO_HOME=" + t.TempDir()}

	top := filepath.Join(t.TempDir(), "top")
	repo, sub := top+"/repo", top+"/sub"
	write(t, sub, map[string]string{"WORD": "submodule"})
	write(t, repo, map[string]string{
		"dep/Cargo.toml": "[package]\nname = \"dep\"\nversion = \"0.1.0\"\nedition = \"2021\"\n", "dep/src/lib.rs": "pub const W: &str = include_str!(\"../../sub/WORD\");\n",
	})
	for _, dir := range []string{sub, repo} {
		runGit(t, dir, "init", "-q")
		if dir == repo {
			runGit(t, dir, "submodule", "--quiet", "add", "../sub", "sub")
		}
		runGit(t, dir, "add", "-A")
		runGit(t, dir, "commit", "-q", "-m", "x")
	}
	commit := runGit(t, repo, "rev-parse", "HEAD")

	src := t.TempDir()
	write(t, src, map[string]string{
		"Cargo.toml": "[package]\nname = \"app\"\nversion = \"0.1.0\"\nedition = \"2021\"\n\n[dependencies]\ndep = { git = \"file://" + repo + "\", branch = \"main\" }\n",
		"Cargo.lock": "version = 3\n\n[[package]]\nname = \"app\"\nversion = \"0.1.0\"\ndependencies = [\n \"dep\",\n]\n\n[[package]]\nname = \"dep\"\nversion = \"0.1.0\"\nsource = \"git+file://" +
			repo + "?branch=main#" + commit + "\"\n",
		"src/main.rs": "fn main() { println!(\"from {}\", dep::W); }\n",
	})
	locked, err := cargo.Read(os.DirFS(src))
	if err != nil || len(locked.Git) != 1 {
		t.Fatalf("got %+v, %v", locked, err)
	}
	var b bytes.Buffer
	if err := gittree.Write(&b, gitSource(t, repo, commit, sub)); err != nil {
		t.Fatal(err)
	}
	s := newStore(t)
	d, n, err := s.Put(bytes.NewReader(b.Bytes()), digest.Digest{})
	if err != nil {
		t.Fatal(err)
	}
	l := &lock.Lock{Inputs: []lock.Input{{Kind: lock.KindGit, Name: "repo", URL: locked.Git[0].URL, SHA256: d, Size: n, Git: &lock.Git{Commit: commit}}}}
	p := &Plan{Lock: l, req: Request{Input: &konflux.PrefetchInput{Packages: []konflux.PrefetchPackage{{Type: "cargo", Path: "."}}}, Source: src, Store: s}}

	if err := os.Rename(top, top+"-gone"); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "out")
	if _, err := p.Write(t.Context(), out, false); err != nil {
		t.Fatal(err)
	}
	// A build finds it elsewhere.
	built := out
	out = filepath.Join(t.TempDir(), "moved to")
	if err := os.Rename(built, out); err != nil {
		t.Fatal(err)
	}
	c, err := ReadConfig(out)
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []string{"/cachi2/output", out} {
		if wrote, err := c.Inject(out, at, "hermeto"); err != nil || len(wrote) != 2 {
			t.Fatal(wrote, err)
		}
	}
	if wrote, err := c.Inject(out, out, "hermeto"); err != nil || len(wrote) != 1 {
		t.Fatal(wrote, err)
	}
	vars, err := c.resolved(out)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range vars {
		env = append(env, v.Name+"="+v.Value)
	}
	if got, err := run(t, src, env, cargoTool, "run", "--quiet", "--locked", "--target-dir", t.TempDir()); err != nil || got != "from submodule\n" {
		t.Errorf("%v\n%s", err, got)
	}
	bom, err := os.ReadFile(out + "/bom.json")
	if want := "pkg:cargo/dep@0.1.0?vcs_url=git%2Bfile://" + repo + "%40" + commit; err != nil || !strings.Contains(string(bom), want) {
		t.Errorf("no %s in %s, %v", want, bom, err)
	}
}
