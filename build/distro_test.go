package build

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"caisson/lock"
	"caisson/lock/tooltest"
	"caisson/prefetch/cas"
)

// distro is a distribution of a handful of packages, made by rpmbuild of this
// machine's own programs: enough for rpm to install into a root and for
// scriptlets to run there.
type distro struct {
	store *cas.Store
	lock  lock.Lock
}

// programs copies programs and the libraries that they need into a root.
func programs(t testing.TB, root string, names ...string) {
	t.Helper()
	lib := regexp.MustCompile(`(/\S+) \(0x`)
	for _, name := range names {
		p := tooltest.Find(t, name)
		out, err := exec.Command(tooltest.Find(t, "ldd"), p).Output()
		if err != nil {
			t.Fatalf("ldd %s: %v", p, err)
		}
		files := map[string]string{p: "usr/bin/" + name}
		for _, m := range lib.FindAllStringSubmatch(string(out), -1) {
			files[m[1]] = filepath.Join("usr", strings.TrimPrefix(m[1], "/usr"))
		}
		for from, to := range files {
			b, err := os.ReadFile(from)
			if err != nil {
				t.Fatal(err)
			}
			put(t, root, file{path: to, mode: 0o755, content: string(b)})
		}
	}
}

func put(t testing.TB, root string, files ...file) {
	t.Helper()
	if err := os.MkdirAll(root, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if _, err := os.Lstat(filepath.Join(root, f.path)); err == nil {
			continue
		}
		if err := layOne(root, f, 0); err != nil {
			t.Fatal(err)
		}
	}
}

// merged are the links of a root with merged /usr.
func merged() []file {
	var out []file
	for _, d := range []string{"bin", "sbin", "lib", "lib64"} {
		out = append(out, file{path: "usr/" + strings.Replace(d, "sbin", "bin", 1) + "/.keep", mode: 0o644},
			file{path: d, mode: os.ModeSymlink, content: "usr/" + strings.Replace(d, "sbin", "bin", 1)})
	}
	return out
}

// newDistro makes the packages that every build of a test needs.
func newDistro(t testing.TB) *distro {
	t.Helper()
	tooltest.Find(t, "rpmbuild")
	base := t.TempDir()
	d := &distro{}
	var err error
	if d.store, err = cas.Open(filepath.Join(base, "store")); err != nil {
		t.Fatal(err)
	}
	d.lock = *testLock()
	d.lock.Name, d.lock.Image.Output = "tiny", []string{"qcow2"}
	d.lock.Sets = []lock.Set{{Name: lock.SetTools}, {Name: lock.SetRoot}, {Name: lock.SetInitrd, Modules: []string{"one"}}}

	tools := filepath.Join(base, "tools")
	put(t, tools, merged()...)
	programs(t, tools, "rpm", "bash", "cat", "install", "sleep", "ls", "mkfifo", "chroot", "ln", "chmod")
	put(t, tools, file{path: "bin/sh", mode: os.ModeSymlink, content: "bash"})
	if out, err := exec.Command("cp", "-a", "/usr/lib/rpm", filepath.Join(tools, "usr/lib")).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	put(t, tools, file{path: testStub, mode: 0o644, content: string(pe())})
	d.add(t, lock.SetTools, "tools", tools, "")

	small := filepath.Join(base, "small")
	put(t, small, merged()...)
	programs(t, small, "bash")
	put(t, small, append([]file{
		{path: "bin/sh", mode: os.ModeSymlink, content: "bash"},
		{path: "usr/lib/systemd/systemd", mode: 0o755, content: "systemd"},
		{path: "usr/bin/depmod", mode: 0o755, content: "#!/bin/sh\nprintf index > /usr/lib/modules/$2/modules.dep.bin\n"},
	}, rootFiles()[:3]...)...)
	d.add(t, lock.SetInitrd, "small", small, "")

	root := filepath.Join(base, "root")
	put(t, root, merged()...)
	programs(t, root, "bash")
	put(t, root, append([]file{
		{path: "bin/sh", mode: os.ModeSymlink, content: "bash"},
		{path: "usr/bin/systemctl", mode: 0o755, content: "#!/bin/sh\nfor unit; do :; done\n[ \"$unit\" != broken.service ] || exit 3\nprintf x > /etc/enabled-$unit\n"},
		{path: kernelDir + "/modules.dep", mode: 0o644, content: "kernel/one.ko: kernel/two.ko\nkernel/two.ko:\nkernel/three.ko:\n"},
		{path: kernelDir + "/modules.builtin", mode: 0o644, content: "kernel/dm-verity.ko\nkernel/erofs.ko\nkernel/squashfs.ko\n"},
		{path: kernelDir + "/kernel/one.ko", mode: 0o644, content: "no ELF"}, {path: kernelDir + "/kernel/two.ko", mode: 0o644, content: "no ELF"},
		{path: kernelDir + "/kernel/three.ko", mode: 0o644, content: "no ELF"},
		{path: kernelDir + "/vmlinuz", mode: 0o600, content: string(pe())},
	}, rootFiles()[:3]...)...)
	d.add(t, lock.SetRoot, "base", root, "")
	return d
}

// add makes a package of a folder and puts it into a set; more is what its
// spec says besides.
func (d *distro) add(t testing.TB, set, name, tree, more string) {
	t.Helper()
	d.addPacked(t, set, name, tree, "w3.gzdio", more)
}

// addPacked is add with rpmbuild's name for how the payload is compressed. A first
// line of more that begins with Requires comes before the description.
func (d *distro) addPacked(t testing.TB, set, name, tree, packed, more string) {
	t.Helper()
	requires := ""
	if strings.HasPrefix(more, "Requires") {
		requires, more, _ = strings.Cut(more, "\n")
	}
	before, files, ok := strings.Cut(more, "%files\n")
	if !ok {
		files = "/*\n"
	}
	if tree == "" {
		tree = t.TempDir()
	}
	spec := filepath.Join(t.TempDir(), name+".spec")
	text := fmt.Sprintf(`Name: %s
Version: 1
Release: 1
Summary: s
License: l
AutoReqProv: no
%s
%%global debug_package %%{nil}
%%global __os_install_post %%{nil}
%%global _build_id_links none
%%description
d
%%install
mkdir -p %%{buildroot}
cp -a %s/. %%{buildroot}
%s
%%files
%%defattr(-,root,root,-)
%s`, name, requires, tree, before, files)
	if err := os.WriteFile(spec, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(tooltest.Find(t, "rpmbuild"), "-bb", "--quiet", "--define", "_topdir "+filepath.Dir(spec), "--define", "_rpmdir "+filepath.Dir(spec), "--define", "_binary_payload "+packed, spec)
	cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH=1600000000")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s\n%s", err, out, text)
	}
	b, err := os.ReadFile(filepath.Join(filepath.Dir(spec), "x86_64", name+"-1-1.x86_64.rpm"))
	if err != nil {
		t.Fatal(err)
	}
	if err := removeAll(filepath.Dir(spec)); err != nil { // rpmbuild leaves a copy of the tree
		t.Fatal(err)
	}
	d.addRPM(t, set, name, b)
}

// addRPM puts an RPM that is there already into a set.
func (d *distro) addRPM(t testing.TB, set, name string, b []byte) {
	t.Helper()
	sum, size, err := d.store.Put(bytes.NewReader(b), [32]byte{})
	if err != nil {
		t.Fatal(err)
	}
	d.lock.Inputs = append(d.lock.Inputs, lock.Input{
		Kind: lock.KindRPM, Name: name + "-1-1.x86_64", URL: name + ".rpm", SHA256: sum, Size: size,
		RPM: &lock.RPM{Name: name, Version: "1", Release: "1", Arch: "x86_64"},
		For: []lock.Use{{Arch: "x86_64", Set: set, By: name}},
	})
	slices.SortFunc(d.lock.Inputs, func(a, b lock.Input) int { return strings.Compare(a.Kind+a.Name, b.Kind+b.Name) })
}

// with is the distribution with other packages or steps, of the same store.
func (d *distro) with(change func(d *distro)) *distro {
	c := *d
	c.lock.Inputs = slices.Clone(d.lock.Inputs)
	c.lock.Steps = slices.Clone(d.lock.Steps)
	change(&c)
	return &c
}

func (d *distro) options(out string) Options {
	return Options{Lock: &d.lock, Store: d.store, Arch: "x86_64", Out: out}
}
