package build

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"caisson/build/rootfs"
	"caisson/lock"
)

// scriptKinds are the scripts of packages that an installation runs; %s is how the
// program is named.
func scriptKinds() map[string]string {
	return map[string]string{
		"pretrans": "%%pretrans %s", "pre": "%%pre %s", "post": "%%post %s", "posttrans": "%%posttrans %s",
		"triggerprein": "%%triggerprein %s -- later", "triggerin": "%%triggerin %s -- later",
		"filetriggerin": "%%filetriggerin %s -- /opt/later", "transfiletriggerin": "%%transfiletriggerin %s -- /opt/later",
	}
}

// installing is the distribution's tools root, unpacked once, in which roots are
// installed that are not made images of.
type installing struct{ tools string }

func newInstalling(t *testing.T, d *distro) *installing {
	t.Helper()
	b, err := testBuilder(t.TempDir(), &d.lock)
	if err != nil {
		t.Fatal(err)
	}
	b.Store = d.store
	if err := b.unpackTools(context.Background()); err != nil {
		t.Fatal(err)
	}
	return &installing{b.tools}
}

func (i *installing) root(t *testing.T, d *distro) (*installed, error) {
	t.Helper()
	b, err := testBuilder(t.TempDir(), &d.lock)
	if err != nil {
		t.Fatal(err)
	}
	b.Store, b.tools = d.store, i.tools
	defer b.log.Close()
	return b.install(context.Background(), lock.SetRoot)
}

// testScripts installs packages with every kind of script, by the shell and by Lua:
// each runs, and none fails without the installation failing.
func testScripts(t *testing.T, d *distro) {
	later := t.TempDir()
	put(t, later, file{path: "opt/later/a", mode: 0o644, content: "a"})
	d = d.with(func(d *distro) { d.add(t, lock.SetRoot, "later", later, "") })
	tools := newInstalling(t, d)
	type fail struct {
		kind string
		d    *distro
	}
	var fails []fail
	var all strings.Builder
	for kind, head := range scriptKinds() {
		fails = append(fails, fail{kind + " in Lua", d.with(func(d *distro) {
			d.add(t, lock.SetRoot, "early", "", fmt.Sprintf(head, "-p <lua>")+"\nerror(\"no good\")\n%files\n")
		})})
		fmt.Fprintf(&all, "%s\nposix.mkdir(\"/opt\") posix.mkdir(\"/opt/%s-lua\")\n", fmt.Sprintf(head, "-p <lua>"), kind)
		if kind == "pretrans" {
			continue // before there is a shell
		}
		fails = append(fails, fail{kind + " in the shell", d.with(func(d *distro) {
			d.add(t, lock.SetRoot, "early", "", fmt.Sprintf(head, "")+"\nexit 7\n%files\n")
		})})
	}
	whole := d.with(func(d *distro) { d.add(t, lock.SetRoot, "early", "", all.String()+"%files\n") })
	t.Run("all", func(t *testing.T) {
		for _, f := range fails {
			t.Run(f.kind, func(t *testing.T) {
				t.Parallel()
				if _, err := tools.root(t, f.d); err == nil || !strings.Contains(err.Error(), "early-1-1.x86_64") && !strings.Contains(err.Error(), "no good") {
					t.Errorf("got %v, want an error that names the package or its message", err)
				}
			})
		}
		t.Run("that succeed", func(t *testing.T) {
			t.Parallel()
			i, err := tools.root(t, whole)
			if err != nil {
				t.Fatal(err)
			}
			for kind := range scriptKinds() {
				if _, err := os.Stat(filepath.Join(i.dir, "opt", kind+"-lua")); err != nil {
					t.Errorf("%s did not run: %v", kind, err)
				}
			}
		})
	})
}

// testPayloads installs packages of every compression that rpm knows.
func testPayloads(t *testing.T, d *distro) {
	tree := t.TempDir()
	put(t, tree, file{path: "opt/p/a", mode: 0o644, content: strings.Repeat("content ", 9999)})
	if err := os.Link(filepath.Join(tree, "opt/p/a"), filepath.Join(tree, "opt/p/c")); err != nil {
		t.Fatal(err)
	}
	tools := newInstalling(t, d)
	for name, how := range map[string]string{"gzip": "w9.gzdio", "bzip2": "w9.bzdio", "xz": "w6.xzdio", "zstd": "w19.zstdio", "none": "w.ufdio", "lzma": "w6.lzdio"} {
		t.Run(name, func(t *testing.T) {
			d := d.with(func(d *distro) { d.addPacked(t, lock.SetRoot, "packed", tree, how, "") })
			i, err := tools.root(t, d)
			if err != nil {
				t.Fatal(err)
			}
			a, err := os.Stat(filepath.Join(i.dir, "opt/p/a"))
			if err != nil || a.Size() != 8*9999 {
				t.Fatalf("got %v, %v", a, err)
			}
			if c, err := os.Stat(filepath.Join(i.dir, "opt/p/c")); err != nil || !os.SameFile(a, c) {
				t.Errorf("the second name is another file: %v", err)
			}
		})
	}
}

// testLargeFile installs a file of more than 4 GiB, for which rpm has other tags
// and another form of cpio, beside one with two names. CAISSON_LARGE asks for it: it
// writes 9 GB.
func testLargeFile(t *testing.T, d *distro) {
	if os.Getenv("CAISSON_LARGE") == "" {
		t.Skip("CAISSON_LARGE is not set")
	}
	const size = 4<<30 + 12345
	tree := t.TempDir()
	put(t, tree, file{path: "opt/p/large", mode: 0o644}, file{path: "opt/p/one", mode: 0o644, content: "one"})
	for _, err := range []error{os.Truncate(filepath.Join(tree, "opt/p/large"), size), os.Link(filepath.Join(tree, "opt/p/one"), filepath.Join(tree, "opt/p/two"))} {
		if err != nil {
			t.Fatal(err)
		}
	}
	d = d.with(func(d *distro) { d.addPacked(t, lock.SetRoot, "large", tree, "w1.zstdio", "") })
	i, err := newInstalling(t, d).root(t, d)
	if err != nil {
		t.Fatal(err)
	}
	b, err := testBuilder(t.TempDir(), &d.lock)
	if err != nil {
		t.Fatal(err)
	}
	defer b.log.Close()
	if err := b.scan(context.Background(), i, nil); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"large", "one", "two"} {
		f, err := i.account(i.tree.Get("opt/p/" + name))
		if err != nil || f.Account != Vendor || name == "large" && f.Size != size {
			t.Errorf("%s: %+v, %v", name, f, err)
		}
	}
	// And as a tool: unpacked by us.
	at := filepath.Join(t.TempDir(), "tools")
	if err := os.Mkdir(at, 0o755); err != nil {
		t.Fatal(err)
	}
	in := d.lock.Inputs[slices.IndexFunc(d.lock.Inputs, func(in lock.Input) bool { return in.RPM.Name == "large" })]
	if err := rootfs.Unpack(context.Background(), at, []rootfs.RPM{{Name: in.Name, Open: func() (io.ReadCloser, error) { return d.store.Open(in.SHA256) }}}); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(filepath.Join(at, "opt/p/large")); err != nil || st.Size() != size {
		t.Errorf("unpacked: %v, %v", st, err)
	}
}
