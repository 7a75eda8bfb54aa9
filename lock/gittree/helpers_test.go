package gittree

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

	"caisson/lock/tooltest"
)

// environment is git's without a person's configuration.
func environment() []string {
	return append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null", "GIT_ALLOW_PROTOCOL=file",
		"GIT_AUTHOR_NAME=Ann", "GIT_AUTHOR_EMAIL=a@example.org", "GIT_AUTHOR_DATE=1700000000 +0100",
		"GIT_COMMITTER_NAME=Ann", "GIT_COMMITTER_EMAIL=a@example.org", "GIT_COMMITTER_DATE=1700000001 +0100")
}

func gitInput(t testing.TB, dir, stdin string, args ...string) string {
	t.Helper()
	cmd := exec.Command(tooltest.Find(t, "git"), args...)
	cmd.Dir, cmd.Env, cmd.Stdin = dir, environment(), strings.NewReader(stdin)
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("git %s: %v\n%s%s", strings.Join(args, " "), err, out, errs.String())
	}
	return string(out)
}

func git(t testing.TB, dir string, args ...string) string {
	t.Helper()
	return strings.TrimSpace(gitInput(t, dir, "", args...))
}

// files makes files in a work tree: names that end in * are executable,
// contents that begin with -> are symbolic links.
func files(t testing.TB, dir string, all map[string]string) {
	t.Helper()
	for name, content := range all {
		name, exec := strings.CutSuffix(name, "*")
		at := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		mode := os.FileMode(0o644)
		if exec {
			mode = 0o755
		}
		var err error
		if target, ok := strings.CutPrefix(content, "->"); ok {
			err = os.Symlink(target, at)
		} else {
			err = os.WriteFile(at, []byte(content), mode)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// newRepo makes a repository with two commits; the second has the files.
func newRepo(t testing.TB, format string, all map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	git(t, dir, "init", "-q", "-b", "main", "--object-format="+format)
	files(t, dir, map[string]string{"old": "gone"})
	git(t, dir, "add", ".")
	git(t, dir, "commit", "-q", "-m", "first")
	os.Remove(filepath.Join(dir, "old"))
	files(t, dir, all)
	git(t, dir, "add", ".")
	git(t, dir, "commit", "-q", "-m", "second")
	return dir
}

// source reads objects with git cat-file.
func source(t testing.TB, dir, rev string) *Source {
	id := git(t, dir, "rev-parse", rev)
	s := &Source{ID: id, Open: func(id string) (*Object, error) {
		cmd := exec.Command("git", "cat-file", "--batch")
		cmd.Dir, cmd.Env, cmd.Stdin = dir, environment(), strings.NewReader(id+"\n")
		out, err := cmd.Output()
		if err != nil {
			return nil, err
		}
		head, body, _ := bytes.Cut(out, []byte("\n"))
		f := strings.Fields(string(head))
		if len(f) != 3 {
			return nil, fmt.Errorf("git has no %s", id)
		}
		n, err := strconv.ParseInt(f[2], 10, 64)
		if err != nil {
			return nil, err
		}
		return &Object{Type: f[1], Size: n, ReadCloser: io.NopCloser(bytes.NewReader(body[:n]))}, nil
	}}
	s.Module = func(m Submodule) (*Source, error) {
		sub := source(t, filepath.Join(dir, filepath.FromSlash(m.Path)), m.Commit)
		return sub, nil
	}
	return s
}

func write(t testing.TB, s *Source) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, s); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// awkward is a tree that has everything that git keeps.
func awkward() map[string]string {
	return map[string]string{
		"README": "hello\n", "run*": "#!/bin/sh\n", "empty": "", "link": "->README", "dangling": "->/no/where/../at all",
		"a/b/c": "deep", "a.b": "between", "a/b.c": "between", "a-b": "before a slash",
		"unicode-é-日本": "x", "latin1-\xe9": "not UTF-8", "line\nbreak": "x", `dev-disk-by\x2dlabel`: "x", "space at end ": "x",
		strings.Repeat("long/", 30) + strings.Repeat("n", 200): "long",
		"crlf.txt": "a\r\nb\r\n", ".gitattributes": "*.txt text eol=crlf export-subst\nREADME export-ignore\n", "subst.txt": "$Format:%H$\n",
		"zeros": strings.Repeat("\x00", 100_000), "big": strings.Repeat("0123456789", 50_000),
		"link-" + strings.Repeat("l", 90): "->" + strings.Repeat("t/", 300) + "é",
	}
}
