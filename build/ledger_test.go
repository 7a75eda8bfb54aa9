package build

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"caisson/build/rootfs"
	"caisson/lock"
)

func TestLedger(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "root")
	if err := lay(dir, []file{
		{path: "a", mode: 0o644, content: "a"}, {path: "b", mode: 0o644, content: "b"}, {path: "c", mode: 0o644, content: "c"},
		{path: "closed/in", mode: 0o600, content: "in"}, {path: "closed", mode: os.ModeDir}, {path: "link", mode: os.ModeSymlink, content: "a"},
		{path: rpmdb + "/rpmdb.sqlite", mode: 0o644},
	}, false); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Chmod(filepath.Join(dir, "closed"), 0o700) })
	l := newLedger(dir)
	if err := l.step(byInstallation); err != nil {
		t.Fatal(err)
	}
	at := func(p string) string { return filepath.Join(dir, p) }
	for _, err := range []error{
		os.WriteFile(at("b"), []byte("B"), 0o644), // of the same size
		os.Remove(at("c")), os.Mkdir(at("c"), 0o755), os.WriteFile(at("c/new"), nil, 0o644),
		os.Remove(at("link")), os.Symlink("b", at("link")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := l.step(generated("services")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(at("ours"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := l.know(); err != nil {
		t.Fatal(err)
	}
	if err := l.step(generated("later")); err != nil {
		t.Fatal(err)
	}
	for p, want := range map[string]string{
		"a": "scriptlets", "b": "services", "c": "services", "c/new": "services", "link": "services", "ours": "",
		"closed": "installation", "closed/in": "scriptlets", rpmdb: "installation", rpmdb + "/rpmdb.sqlite": "rpm",
	} {
		if got := l.by[p].by; got != want {
			t.Errorf("%s: by %q, want %q", p, got, want)
		}
	}
	if st, err := os.Lstat(at("closed")); err != nil || st.Mode().Perm() != 0 {
		t.Errorf("a closed folder is now %v, %v", st.Mode(), err)
	}
	if err := newLedger(at("absent")).know(); err == nil {
		t.Error("an absent root was looked through")
	}
}

// TestNoAccount has files that nothing brought: in the folder, and in the tree.
func TestNoAccount(t *testing.T) {
	for name, sneak := range map[string]func(i *installed) error{
		"a file behind the ledger's back":   func(i *installed) error { return os.WriteFile(filepath.Join(i.dir, "sneaked"), nil, 0o644) },
		"a folder behind the ledger's back": func(i *installed) error { return os.Mkdir(filepath.Join(i.dir, "sneaked"), 0o755) },
		"an entry that is only in the tree": nil,
	} {
		b, err := testBuilder(t.TempDir(), testLock())
		if err != nil {
			t.Fatal(err)
		}
		root, _, err := testRoots(b, false)
		if err != nil {
			t.Fatal(err)
		}
		if sneak != nil {
			if err := sneak(root); err != nil {
				t.Fatal(err)
			}
		}
		if err := b.scan(context.Background(), root, rootfs.Rules(false)); err != nil {
			t.Fatal(err)
		}
		if sneak == nil {
			if err := root.tree.PutFile("sneaked", 0o644, nil); err != nil {
				t.Fatal(err)
			}
		}
		for _, e := range root.tree.Entries() {
			_, err := root.account(e)
			if (err != nil) != (e.Path == "sneaked") && e.Path != "" {
				t.Errorf("%s: /%s: %v", name, e.Path, err)
			}
			if e.Path == "sneaked" && (err == nil || !strings.Contains(err.Error(), "/sneaked of the root has no account")) {
				t.Errorf("%s: got %v", name, err)
			}
		}
		b.log.Close()
	}
}

func TestMatches(t *testing.T) {
	tree := rootfs.New()
	tree.PutFile("f", 0o600, []byte("x"))
	tree.PutLink("l", "target")
	tree.PutDir("d", 0o700)
	sum := tree.Get("f").SHA256.Hex()
	const reg, lnk, dir = unix.S_IFREG | 0o644, unix.S_IFLNK | 0o777, unix.S_IFDIR | 0o755
	for _, c := range []struct {
		name, path  string
		files       []rootfs.PackageFile
		same, ghost bool
	}{
		{"nobody", "f", nil, false, true},
		{"its content, another mode and owner", "f", []rootfs.PackageFile{{Mode: reg, SHA256: sum, User: "x"}}, true, false},
		{"other content", "f", []rootfs.PackageFile{{Mode: reg, SHA256: strings.Repeat("0", 64)}}, false, false},
		{"a digest that is not known", "f", []rootfs.PackageFile{{Mode: reg}}, false, false},
		{"a ghost", "f", []rootfs.PackageFile{{Mode: reg, Ghost: true, SHA256: sum}}, false, true},
		{"a ghost, and its content", "f", []rootfs.PackageFile{{Mode: reg, Ghost: true}, {Mode: reg, SHA256: sum}}, true, false},
		{"another type", "f", []rootfs.PackageFile{{Mode: lnk, Target: "x"}}, false, false},
		{"a target", "l", []rootfs.PackageFile{{Mode: lnk, Target: "target"}}, true, false},
		{"another target", "l", []rootfs.PackageFile{{Mode: lnk, Target: "other"}}, false, false},
		{"a file for a link", "l", []rootfs.PackageFile{{Mode: reg, SHA256: sum}}, false, false},
		{"a folder", "d", []rootfs.PackageFile{{Mode: dir}}, true, false},
		{"a ghost folder", "d", []rootfs.PackageFile{{Mode: dir, Ghost: true}}, true, true},
		{"a link for a folder", "d", []rootfs.PackageFile{{Mode: lnk}}, false, false},
	} {
		var claims []rootfs.Claim
		for i := range c.files {
			claims = append(claims, rootfs.Claim{File: &c.files[i]})
		}
		if same, ghost := matches(claims, tree.Get(c.path)); same != c.same || ghost != c.ghost {
			t.Errorf("%s: got %v, %v, want %v, %v", c.name, same, ghost, c.same, c.ghost)
		}
	}
}

// TestPlace lays files over a root with links that lead elsewhere.
func TestPlace(t *testing.T) {
	dir := t.TempDir()
	root := newInstalled(lock.SetRoot, filepath.Join(dir, "root"))
	if err := lay(root.dir, []file{
		{path: "usr/lib/a", mode: 0o644, content: "packaged"}, {path: "lib", mode: os.ModeSymlink, content: "usr/lib"},
		{path: "abs", mode: os.ModeSymlink, content: "/usr"}, {path: "out", mode: os.ModeSymlink, content: "../../../../outside"},
		{path: "target", mode: 0o644, content: "not to be written through"}, {path: "usr/link", mode: os.ModeSymlink, content: "../target"},
		{path: "loop", mode: os.ModeSymlink, content: "loop"}, {path: "folder/x", mode: 0o644},
	}, false); err != nil {
		t.Fatal(err)
	}
	from := filepath.Join(dir, "from")
	if err := lay(from, []file{
		{path: "lib/a", mode: 0o640, content: "placed"}, {path: "abs/lib/b", mode: 0o755, content: "b"}, {path: "out/victim", mode: 0o644, content: "in"},
		{path: "usr/link", mode: 0o644, content: "new"}, {path: "opt", mode: os.ModeDir | 0o750}, {path: "opt/l", mode: os.ModeSymlink, content: "/x"},
	}, false); err != nil {
		t.Fatal(err)
	}
	how := origin{account: Placed, by: "overlay"}
	if err := place(root, from, func(string) origin { return how }); err != nil {
		t.Fatal(err)
	}
	for p, want := range map[string]string{
		"usr/lib/a": "-rw-r----- placed", "usr/lib/b": "-rwxr-xr-x b", "outside/victim": "-rw-r--r-- in", "target": "-rw-r--r-- not to be written through",
		"usr/link": "-rw-r--r-- new", "opt": "drwxr-x--- ",
	} {
		st, err := os.Lstat(filepath.Join(root.dir, p))
		if err != nil {
			t.Error(err)
			continue
		}
		b, _ := os.ReadFile(filepath.Join(root.dir, p))
		if got := st.Mode().String() + " " + string(b); got != want {
			t.Errorf("%s: got %q, want %q", p, got, want)
		}
		if got := root.ledger.by[p]; p != "target" && got.account != Placed {
			t.Errorf("%s: the ledger has %+v", p, got)
		}
	}
	if _, ok := root.ledger.by["usr"]; ok {
		t.Error("a folder that was there is in the ledger")
	}
	for _, f := range []file{{path: "loop/x", mode: 0o644}, {path: "folder", mode: 0o644}, {path: "target/x", mode: 0o644}} {
		from := filepath.Join(t.TempDir(), "from")
		if err := lay(from, []file{f}, false); err != nil {
			t.Fatal(err)
		}
		if err := place(root, from, func(string) origin { return how }); err == nil || !strings.Contains(err.Error(), "placing /"+f.path) {
			t.Errorf("%s: got %v", f.path, err)
		}
	}
}
