package lock

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestCheckCommit changes a clone in every way in which it is no longer its
// commit.
func TestCheckCommit(t *testing.T) {
	origin := writeFiles(t, t.TempDir(), map[string]string{
		"app/caisson.yaml": "m", "app/caisson.lock": "l", "app/src/a": "a", "app/src/run*": "x", "app/src/link": "->a", "app/src/deep/b": "b",
		"app/src.owners": "/a 0600 - -\n", "app/key.asc": "k", "app/linked.asc": "->key.asc", ".gitignore": "*.o\n", "other": "o",
	})
	part := writeFiles(t, t.TempDir(), map[string]string{"c": "c"})
	for _, dir := range []string{part, origin} {
		runGit(t, dir, "init", "-q")
		if dir == origin {
			runGit(t, dir, "-c", "protocol.file.allow=always", "submodule", "add", "-q", part, "app/src/part")
		}
		runGit(t, dir, "add", "-A")
		runGit(t, dir, "commit", "-q", "-m", "one")
	}
	head := strings.TrimSpace(runGit(t, origin, "rev-parse", "HEAD"))
	tree := strings.TrimSpace(runGit(t, origin, "rev-parse", "HEAD:app/src/deep"))
	l := &Lock{Sources: []Source{{Name: "https://example.org/x"}}, Inputs: []Input{
		{Kind: KindTree, URL: "src"}, {Kind: KindKey, URL: "key.asc"}, {Kind: KindKey, URL: "linked.asc"}, {Kind: KindRPM, URL: "https://example.org/a.rpm"},
	}}
	write := func(name, text string) func(string) error {
		return func(dir string) error { return os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644) }
	}
	for _, tt := range []struct {
		name   string
		change func(dir string) error
		url    string
		commit string
		want   string // empty: it is the commit
	}{
		{"nothing", func(string) error { return nil }, origin, head, ""},
		{"its address with another end", func(string) error { return nil }, origin + ".git/", head, ""},
		{"what the lock does not have", write("other", "changed"), "", head, ""},
		{"an ignored file", write("app/src/x.o", ""), "", head, ""},
		{"another commit", func(string) error { return nil }, "", strings.Repeat("1", 40), "the source is at commit " + head + ", not at 111"},
		{"another address", func(string) error { return nil }, "https://me:secret@example.org/x.git", head, ", not from https://example.org/x"},
		{"manifest", write("app/caisson.yaml", "M"), "", head, "app/caisson.yaml is not as in commit"},
		{"lock", write("app/caisson.lock", "L"), "", head, "app/caisson.lock is not as in commit"},
		{"key", write("app/key.asc", "K"), "", head, "app/key.asc is not as in commit"},
		{"owners", write("app/src.owners", "/a 4755 - -\n"), "", head, "app/src.owners is not as in commit"},
		{"content", write("app/src/deep/b", "B"), "", head, "app/src/deep/b is not as in commit"},
		{"new file", write("app/src/new", ""), "", head, "app/src/new is not in commit"},
		{"removed file", func(d string) error { return os.Remove(filepath.Join(d, "app/src/deep/b")) }, "", head, "app/src/deep/b is in commit"},
		{"mode", func(d string) error { return os.Chmod(filepath.Join(d, "app/src/a"), 0o755) }, "", head, "app/src/a has another mode"},
		{"a key outside", func(d string) error {
			name := filepath.Join(d, "app/key.asc")
			os.Remove(name)
			return os.Symlink("/etc/hostname", name)
		}, "", head, "app/key.asc is outside of the source"},
		{"a submodule's file", write("app/src/part/c", "C"), "", head, "app/src/part/c is not as in commit"},
		{"a submodule's commit", func(d string) error {
			runGit(t, filepath.Join(d, "app/src/part"), "commit", "-q", "--allow-empty", "-m", "two")
			return nil
		}, "", head, "the submodule app/src/part is at commit"},
		{"no repository", func(d string) error { return os.RemoveAll(filepath.Join(d, ".git")) }, "", head, "is in no git repository"},
		{"a folder and its object removed", func(d string) error {
			os.RemoveAll(filepath.Join(d, "app/src/deep"))
			return os.Remove(filepath.Join(d, ".git/objects", tree[:2], tree[2:]))
		}, "", head, "reading the git object " + tree},
		{"an object that is another", func(d string) error {
			os.RemoveAll(filepath.Join(d, "app/src/deep"))
			empty := strings.TrimSpace(runGit(t, d, "mktree"))
			b, err := os.ReadFile(filepath.Join(d, ".git/objects", empty[:2], empty[2:]))
			if err != nil {
				return err
			}
			name := filepath.Join(d, ".git/objects", tree[:2], tree[2:])
			os.Remove(name)
			return os.WriteFile(name, b, 0o644)
		}, "", head, "the git object " + tree + " is damaged"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "clone")
			runGit(t, origin, "-c", "protocol.file.allow=always", "clone", "-q", "--recurse-submodules", "--no-hardlinks", origin, dir)
			if err := tt.change(dir); err != nil {
				t.Fatal(err)
			}
			err := CheckCommit(l, filepath.Join(dir, "app"), tt.url, tt.commit, "caisson.yaml", "caisson.lock")
			switch {
			case tt.want == "" && err != nil:
				t.Errorf("got %v", err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("got %v, want %q", err, tt.want)
			case err != nil && strings.Contains(err.Error(), "secret"):
				t.Errorf("it repeats a password: %v", err)
			}
		})
	}
}
