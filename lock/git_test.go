package lock

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTreeInfo(t *testing.T) {
	info := func(dir string) *Tree {
		t.Helper()
		tree, err := treeInfo(dir)
		if err != nil {
			t.Fatal(err)
		}
		return tree
	}
	dir := writeFiles(t, t.TempDir(), map[string]string{
		"a": "a", "sub/b": "b", "sub/run*": "x", "sub/link": "->b", "other/c": "c", "sub/caisson.lock": "{}", ".gitignore": "*.o\n",
	})
	if got := info(dir); got != nil {
		t.Errorf("outside git: got %+v", got)
	}
	runGit(t, dir, "init", "-q")
	if got := info(dir); got != nil {
		t.Errorf("before the first commit: got %+v", got)
	}
	runGit(t, dir, "add", "-A")
	runGit(t, dir, "commit", "-q", "-m", "one")
	head := strings.TrimSpace(runGit(t, dir, "rev-parse", "HEAD"))
	sub := filepath.Join(dir, "sub")
	want := func(what string, dir string, dirty bool) {
		t.Helper()
		got := info(dir)
		if got == nil || got.Commit != head || got.Dirty != dirty {
			t.Errorf("%s: got %+v, want commit %s, dirty %v", what, got, head, dirty)
		}
	}
	want("clean", dir, false)
	want("clean sub-folder", sub, false)
	writeFiles(t, dir, map[string]string{"sub/x.o": "", "sub/caisson.lock": "{...}"})
	want("an ignored file, another lock", sub, false)

	worktree := filepath.Join(t.TempDir(), "wt")
	runGit(t, dir, "worktree", "add", "-q", worktree)
	if st, err := os.Lstat(filepath.Join(worktree, ".git")); err != nil || !st.Mode().IsRegular() {
		t.Fatalf("a worktree's .git is no file: %v", err)
	}
	want("work tree", worktree, false)
	want("work tree, sub-folder", filepath.Join(worktree, "sub"), false)

	for what, change := range map[string]func(dir string) error{
		"content":      func(d string) error { return os.WriteFile(filepath.Join(d, "b"), []byte("B"), 0o644) },
		"mode":         func(d string) error { return os.Chmod(filepath.Join(d, "b"), 0o755) },
		"new file":     func(d string) error { return os.WriteFile(filepath.Join(d, "new"), nil, 0o644) },
		"removed file": func(d string) error { return os.Remove(filepath.Join(d, "b")) },
		"renamed file": func(d string) error { return os.Rename(filepath.Join(d, "b"), filepath.Join(d, "B")) },
		"link's target": func(d string) error {
			os.Remove(filepath.Join(d, "link"))
			return os.Symlink("run", filepath.Join(d, "link"))
		},
		"link, now a file": func(d string) error {
			os.Remove(filepath.Join(d, "link"))
			return os.WriteFile(filepath.Join(d, "link"), []byte("b"), 0o644)
		},
	} {
		runGit(t, worktree, "checkout", "-q", ".")
		runGit(t, worktree, "clean", "-qfd")
		if err := change(filepath.Join(worktree, "sub")); err != nil {
			t.Fatal(err)
		}
		want(what, filepath.Join(worktree, "sub"), true)
		want(what+", seen from above", worktree, true)
		want(what+", seen from beside", filepath.Join(worktree, "other"), false)
	}
	writeFiles(t, dir, map[string]string{"fresh/x": ""})
	want("a folder that no commit has", filepath.Join(dir, "fresh"), true)
}

// TestTreeInfoIgnored has a file that was committed although it is ignored:
// without it the source would not be what was committed.
func TestTreeInfoIgnored(t *testing.T) {
	dir := writeFiles(t, t.TempDir(), map[string]string{"src/main.go": "", "src/bin/tool": "x", ".gitignore": "bin/\n"})
	runGit(t, dir, "init", "-q")
	runGit(t, dir, "add", "-A", "-f")
	runGit(t, dir, "commit", "-q", "-m", "one")
	src := filepath.Join(dir, "src")
	_, err := treeInfo(src)
	want := src + ": bin/tool is committed, but a .gitignore names it and so it is left out; change the .gitignore, or take the file out of git"
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

func TestTreeInfoBroken(t *testing.T) {
	dir := writeFiles(t, t.TempDir(), map[string]string{".git/HEAD": "rubbish", "a": ""})
	if got, err := treeInfo(dir); got != nil || err != nil {
		t.Errorf("got %+v, %v", got, err)
	}
}
