package gittree

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"caisson/lock/tooltest"
)

// mirrorOf makes a repository of what write gave.
func mirrorOf(t *testing.T, b []byte, refs ...string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "mirror")
	if _, err := Repository(dir, bytes.NewReader(b), refs); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestGitReadsTheRepository has git check, clone and describe it.
func TestGitReadsTheRepository(t *testing.T) {
	for _, format := range []string{"sha1", "sha256"} {
		t.Run(format, func(t *testing.T) {
			dir := withSubmodules(t, format)
			m := mirrorOf(t, write(t, source(t, dir, "v1.0")), "refs/tags/v1.0", "refs/heads/release/one")
			for _, repo := range []string{m, ModuleDir(m, "ext/sub"), ModuleDir(m, "ext/sub/third%/party")} {
				if out := git(t, repo, "fsck", "--full", "--strict"); out != "" {
					t.Errorf("git fsck: %s", out)
				}
			}
			clone := filepath.Join(t.TempDir(), "clone")
			git(t, "", "clone", "-q", "--no-local", "file://"+m, clone)
			for _, rev := range []string{"HEAD", "HEAD^{tree}", "v1.0", "v1.0^{commit}"} {
				if got, want := git(t, clone, "rev-parse", rev), git(t, dir, "rev-parse", rev); got != want {
					t.Errorf("%s: got %s, want %s", rev, got, want)
				}
			}
			if got := git(t, clone, "rev-parse", "--abbrev-ref", "HEAD"); got != "release/one" {
				t.Errorf("HEAD is %s", got)
			}
			if got, want := gitInput(t, clone, "", "archive", "HEAD"), gitInput(t, dir, "", "archive", "HEAD"); got != want {
				t.Error("git archive gives another archive")
			}
			if got := git(t, clone, "rev-list", "--all"); strings.Contains(got, "\n") {
				t.Errorf("more than one commit: %s", got)
			}
		})
	}
}

// TestGitClonesSubmodules has git take the submodules from the mirror too.
func TestGitClonesSubmodules(t *testing.T) {
	dir := withSubmodules(t, "sha1")
	git(t, dir, "rm", "-q", "--cached", "nameless") // git clone refuses what .gitmodules does not name
	git(t, dir, "commit", "-q", "-m", "all named")
	b := write(t, source(t, dir, "HEAD"))
	info, err := Check(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	m := mirrorOf(t, b)
	clone := filepath.Join(t.TempDir(), "clone")
	args := []string{"-c", "protocol.file.allow=always"}
	sub := info.Submodules[0]
	for path, url := range map[string]string{sub.Path: sub.URL, sub.Path + "/" + sub.Info.Submodules[0].Path: sub.Info.Submodules[0].URL} {
		args = append(args, "-c", "url.file://"+ModuleDir(m, path)+".insteadOf="+url)
	}
	git(t, "", append(args, "clone", "-q", "--no-local", "--recurse-submodules", "file://"+m, clone)...)
	out := filepath.Join(t.TempDir(), "out")
	if _, err := Extract(out, bytes.NewReader(b)); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"ext/sub/sub", "ext/sub/third%/party/inner"} {
		got, err := os.ReadFile(filepath.Join(clone, p))
		want, err2 := os.ReadFile(filepath.Join(out, p))
		if err != nil || err2 != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %q, %v; extracted %q, %v", p, got, err, want, err2)
		}
	}
}

// TestRepositoryIsReproducible makes the same repository twice.
func TestRepositoryIsReproducible(t *testing.T) {
	dir := withSubmodules(t, "sha1")
	b := write(t, source(t, dir, "v1.0"))
	one := mirrorOf(t, b, "refs/heads/main", "refs/tags/v1.0")
	t.Setenv("TZ", "Asia/Tokyo")
	t.Setenv("TMPDIR", t.TempDir())
	if two := mirrorOf(t, b, "refs/heads/main", "refs/tags/v1.0"); contents(t, one) != contents(t, two) {
		t.Error("two repositories of the same file differ")
	}
}

func contents(t *testing.T, dir string) string {
	t.Helper()
	out, err := exec.Command("sh", "-c", "cd '"+dir+"' && find . -printf '%p %m %l\n' | sort && find . -type f | sort | xargs -d '\n' sha256sum").Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func TestBadRefs(t *testing.T) {
	b := write(t, source(t, newRepo(t, "sha1", one()), "HEAD"))
	for _, ref := range []string{"main", "refs/../x", "refs/heads/a..b", "refs/heads/", "/refs/heads/x", "refs/heads/x.lock", "HEAD"} {
		if _, err := Repository(filepath.Join(t.TempDir(), "m"), bytes.NewReader(b), []string{ref}); err == nil {
			t.Errorf("%q was accepted", ref)
		}
	}
}

func one() map[string]string { return map[string]string{"f": "x"} }

// TestCargoBuildsFromTheRepository is a build with a git dependency that is a
// member of a workspace with a submodule, without a network and from the
// mirror alone.
func TestCargoBuildsFromTheRepository(t *testing.T) {
	cargo := tooltest.Find(t, "cargo")
	lib := newRepo(t, "sha1", map[string]string{
		"Cargo.toml":        "[workspace]\nmembers = [\"lib\"]\n[workspace.package]\nedition = \"2021\"\n",
		"lib/Cargo.toml":    "[package]\nname = \"lib\"\nversion = \"0.1.0\"\nedition.workspace = true\n",
		"lib/src/lib.rs":    "pub fn answer() -> u32 { include!(\"../../data/forty-two\") }\n",
		"data/forty-two":    "42",
		"lib/tests/link.rs": "->../src/lib.rs",
	})
	git(t, lib, "tag", "-a", "-m", "m", "v0.1.0")
	commit := git(t, lib, "rev-parse", "HEAD")
	for _, c := range []struct{ key, value, ref string }{
		{"tag", "v0.1.0", "refs/tags/v0.1.0"},
		{"branch", "main", "refs/heads/main"},
		{"rev", commit, ""},
		{"rev", commit[:9], "refs/heads/main"},
		{"", "", ""},
	} {
		var refs []string
		if c.ref != "" {
			refs = []string{c.ref}
		}
		spec, query := "", ""
		if c.key != "" {
			spec, query = c.key+" = \""+c.value+"\"", "?"+c.key+"="+c.value
		}
		app := t.TempDir()
		const url = "https://git.invalid/lib"
		m := mirrorOf(t, write(t, source(t, lib, "v0.1.0")), refs...)
		locked := "version = 4\n\n[[package]]\nname = \"app\"\nversion = \"0.1.0\"\ndependencies = [\n \"lib\",\n]\n\n" +
			"[[package]]\nname = \"lib\"\nversion = \"0.1.0\"\nsource = \"git+" + url + query + "#" + commit + "\"\n"
		files(t, app, map[string]string{
			"Cargo.toml":  "[package]\nname = \"app\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[dependencies.lib]\ngit = \"" + url + "\"\n" + spec,
			"Cargo.lock":  locked,
			"src/main.rs": "fn main() { println!(\"{}\", lib::answer()) }\n",
			".cargo/config.toml": "[source.m]\ngit = \"file://" + m + "\"\n" + spec + "\n" +
				"[source.x]\ngit = \"" + url + "\"\n" + spec + "\nreplace-with = \"m\"\n",
		})
		cmd := exec.Command(cargo, "run", "-q", "--locked")
		cmd.Dir = app
		cmd.Env = append(environment(), "CARGO_HOME="+t.TempDir())
		out, err := cmd.CombinedOutput()
		if err != nil || strings.TrimSpace(string(out)) != "42" {
			t.Errorf("%s: %v\n%s", spec, err, out)
		}
	}
}

// TestGoReadsTheRepository has go take a module from the mirror alone, as it
// would from its server.
func TestGoReadsTheRepository(t *testing.T) {
	goTool := tooltest.Find(t, "go")
	lib := newRepo(t, "sha1", map[string]string{"go.mod": "module git.invalid/lib.git\n\ngo 1.21\n", "lib.go": "package lib\n\nconst Answer = 42\n"})
	git(t, lib, "tag", "-a", "-m", "m", "v1.2.3")
	m := mirrorOf(t, write(t, source(t, lib, "v1.2.3")), "refs/tags/v1.2.3", "refs/heads/main")
	app := t.TempDir()
	files(t, app, map[string]string{
		"go.mod":  "module app\n\ngo 1.21\n\nrequire git.invalid/lib.git v1.2.3\n",
		"main.go": "package main\n\nimport lib \"git.invalid/lib.git\"\n\nfunc main() { println(lib.Answer) }\n",
	})
	cmd := exec.Command(goTool, "run", "-mod=mod", "-modcacherw", ".")
	cmd.Dir = app
	cmd.Env = append(environment(), "GIT_ALLOW_PROTOCOL=file:https", "GOPROXY=direct", "GONOSUMDB=*", "GOENV=off", "GOWORK=off", "GOFLAGS=", "GOTOOLCHAIN=local", "GOMODCACHE="+t.TempDir(),
		"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=url.file://"+m+".insteadOf", "GIT_CONFIG_VALUE_0=https://git.invalid/lib")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.HasSuffix(strings.TrimSpace(string(out)), "42") {
		t.Errorf("%v\n%s", err, out)
	}
}
