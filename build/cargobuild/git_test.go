package cargobuild

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"caisson/lock/cargo"
	"caisson/lock/gittree"
	"caisson/prefetch/view"
)

// git runs git in a folder, with no configuration but the test's.
func git(t *testing.T, dir string, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		missing(t, err.Error())
	}
	cmd := exec.Command("git", append([]string{
		"-C", dir, "-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "protocol.file.allow=always", "-c", "init.defaultBranch=main",
	}, args...)...)
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %s: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// source reads objects from a repository, and its submodules beside it.
func source(t *testing.T, dir, id string, modules map[string]string) *gittree.Source {
	return &gittree.Source{
		ID: id,
		Open: func(id string) (*gittree.Object, error) {
			typ := git(t, dir, "cat-file", "-t", id)
			cmd := exec.Command("git", "-C", dir, "cat-file", typ, id)
			out, err := cmd.Output()
			if err != nil {
				return nil, err
			}
			size, err := strconv.ParseInt(git(t, dir, "cat-file", "-s", id), 10, 64)
			return &gittree.Object{Type: typ, Size: size, ReadCloser: io.NopCloser(bytes.NewReader(out))}, err
		},
		Module: func(s gittree.Submodule) (*gittree.Source, error) {
			return source(t, modules[s.Path], s.Commit, modules), nil
		},
	}
}

// commit makes a repository with these files, or one more commit.
func commit(t *testing.T, dir string, files map[string]string) string {
	t.Helper()
	if _, err := os.Stat(filepath.Join(dir, ".git")); err != nil {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		git(t, dir, "init", "-q")
	}
	write(t, dir, files)
	git(t, dir, "add", "-A")
	git(t, dir, "commit", "-q", "-m", "x")
	return git(t, dir, "rev-parse", "HEAD")
}

// mono is a repository with a workspace of two packages, one of which takes
// its edition from the workspace, and the other its words from a submodule.
func mono(t *testing.T, top, word string) map[string]string {
	return map[string]string{
		"Cargo.toml":     "[workspace]\nmembers = [\"one\", \"two\"]\nresolver = \"2\"\n\n[workspace.package]\nedition = \"2021\"\n",
		"one/Cargo.toml": "[package]\nname = \"one\"\nversion = \"0.1.0\"\nedition.workspace = true\n\n[dependencies]\ntwo = { path = \"../two\" }\n",
		"one/src/lib.rs": "pub fn word() -> String { format!(\"" + word + " {}\", two::word()) }\n",
		"two/Cargo.toml": "[package]\nname = \"two\"\nversion = \"0.1.0\"\nedition.workspace = true\n",
		"two/src/lib.rs": "pub fn word() -> &'static str { include_str!(\"../../sub/WORD\").trim() }\n",
	}
}

// TestOfflineGit has cargo lock a program that takes packages from a git
// repository by every kind of reference, and builds it without the repository.
func TestOfflineGit(t *testing.T) {
	realCargo(t)
	top := t.TempDir()
	repo, sub, other := filepath.Join(top, "mono"), filepath.Join(top, "sub"), filepath.Join(top, "other")
	commit(t, sub, map[string]string{"WORD": "submodule\n"})
	commit(t, repo, mono(t, top, "first"))
	git(t, repo, "submodule", "--quiet", "add", "../sub", "sub")
	commit(t, repo, map[string]string{"x": "1"})
	git(t, repo, "tag", "-a", "-m", "x", "v1.0")
	commit(t, repo, mono(t, top, "second"))
	git(t, repo, "branch", "feature/a+b")
	commit(t, repo, mono(t, top, "third"))
	otherCommit := commit(t, other, map[string]string{
		"Cargo.toml": "[package]\nname = \"other\"\nversion = \"0.2.0\"\nedition = \"2021\"\n", "src/lib.rs": "pub fn word() -> &'static str { \"other\" }\n",
	})
	commit(t, other, map[string]string{"src/lib.rs": "pub fn word() -> &'static str { \"wrong\" }\n"})

	for _, tt := range []struct{ ref, want string }{
		{"", "third submodule"}, {"tag = \"v1.0\"", "first submodule"}, {"branch = \"feature/a+b\"", "second submodule"},
		{"rev = \"" + git(t, repo, "rev-parse", "feature/a+b")[:10] + "\"", "second submodule"},
	} {
		t.Run(tt.ref, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "app")
			dep := fmt.Sprintf("{ git = \"file://%s\"", repo)
			if tt.ref != "" {
				dep += ", " + tt.ref
			}
			write(t, dir, map[string]string{
				"Cargo.toml": "[package]\nname = \"app\"\nversion = \"0.1.0\"\nedition = \"2021\"\n\n[dependencies]\none = " + dep + " }\n" +
					"other = { git = \"file://" + other + "\", rev = \"" + otherCommit + "\" }\n",
				"src/main.rs": "fn main() { println!(\"{} {}\", one::word(), other::word()); }\n",
			})
			cmd := exec.Command(realCargo(t), "generate-lockfile")
			cmd.Dir, cmd.Env = dir, append(os.Environ(), "CARGO_HOME="+t.TempDir())
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			locked, err := cargo.Read(os.DirFS(dir))
			if err != nil || len(locked.Git) != 2 {
				t.Fatalf("got %+v, %v, want two repositories", locked, err)
			}
			var repos []view.GitRepo
			for _, g := range locked.Git {
				from := strings.TrimPrefix(g.URL, "file://")
				var b bytes.Buffer
				if err := gittree.Write(&b, source(t, from, g.Commit, map[string]string{"sub": sub})); err != nil {
					t.Fatal(err)
				}
				repos = append(repos, view.GitRepo{Git: g, Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil }})
			}
			hidden := top + "-hidden"
			if err := os.Rename(top, hidden); err != nil {
				t.Fatal(err)
			}
			defer os.Rename(hidden, top)
			var programs [][]byte
			for range 2 {
				program, err := build(t, dir, "app", nil, nil, repos...)
				if err != nil {
					t.Fatalf("%v\n%s", err, program)
				}
				programs = append(programs, program)
			}
			if !bytes.Equal(programs[0], programs[1]) {
				t.Error("two builds differ")
			}
			exe := filepath.Join(t.TempDir(), "app")
			if err := os.WriteFile(exe, programs[0], 0o700); err != nil {
				t.Fatal(err)
			}
			if out, err := exec.Command(exe).Output(); err != nil || string(out) != tt.want+" other\n" {
				t.Errorf("got %q, %v, want %q", out, err, tt.want)
			}
		})
	}
}
