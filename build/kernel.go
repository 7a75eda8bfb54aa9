package build

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"caisson/build/rootfs"
	"caisson/build/sandbox"
	"caisson/lock"
)

// kernelVersion is the version of the one kernel in the root: the folder of
// /usr/lib/modules that has a vmlinuz.
func kernelVersion(t *rootfs.Tree) (string, error) {
	var found []string
	for _, e := range t.Entries() {
		if ok, _ := path.Match("usr/lib/modules/*/vmlinuz", e.Path); ok && e.Is(unix.S_IFREG) {
			found = append(found, path.Base(path.Dir(e.Path)))
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return "", fmt.Errorf("the root has no /usr/lib/modules/*/vmlinuz: add a kernel package to the root set")
	}
	return "", fmt.Errorf("the root has %d kernels (%s): leave all but one out of the root set", len(found), strings.Join(found, ", "))
}

// checkRootModules checks that an initrd with these modules can mount the root:
// one that cannot would show only when it is booted.
func checkRootModules(files []string, builtin []byte, format string) error {
	have := map[string]bool{}
	for _, f := range slices.Concat(files, strings.Fields(string(builtin))) {
		have[moduleName(f)] = true
	}
	for _, m := range []string{"dm-verity", format} {
		if !have[moduleName(m)] {
			return fmt.Errorf("sets.initrd.modules lacks %q, without which the initrd cannot mount the root", m)
		}
	}
	return nil
}

// moduleLists are the files beside modules.dep from which depmod makes its
// indexes.
var moduleLists = []string{"modules.builtin", "modules.builtin.modinfo", "modules.order"}

// addModules copies the initrd's kernel modules out of the root and has the
// initrd's own depmod index them.
func (b *builder) addModules(ctx context.Context, root, initrd *installed, version string) error {
	dir := path.Join("usr/lib/modules", version)
	dep, err := root.tree.ReadFile(path.Join(dir, "modules.dep"))
	if err != nil {
		return fmt.Errorf("%w: the kernel package's scriptlets should have run depmod", err)
	}
	builtin, err := root.tree.ReadFile(path.Join(dir, "modules.builtin"))
	if err != nil {
		return err
	}
	index := moduleIndex{dep: string(dep), builtin: string(builtin)}
	for name, text := range map[string]*string{"modules.softdep": &index.softdep, "modules.alias": &index.alias} {
		if e := root.tree.Get(path.Join(dir, name)); e == nil {
			continue // depmod has nothing to say there
		}
		b, err := root.tree.ReadFile(path.Join(dir, name))
		if err != nil {
			return err
		}
		*text = string(b)
	}
	if err := index.check(lock.SetRoot); err != nil {
		return err
	}
	files, err := index.closure(b.initrdModules())
	if err != nil {
		return err
	}
	if err := checkRootModules(files, builtin, b.image.Root); err != nil {
		return err
	}
	for _, f := range slices.Concat(files, moduleLists) {
		e := root.tree.Get(path.Join(dir, f))
		if e == nil {
			if slices.Contains(moduleLists, f) {
				continue
			}
			return fmt.Errorf("/%s/%s is in modules.dep but not in the root", dir, f)
		}
		if err := copyModule(root, initrd, e); err != nil {
			return err
		}
	}
	if err := initrd.ledger.know(); err != nil {
		return err
	}
	res, _, err := b.run(ctx, nil, sandbox.Spec{
		Name: "depmod initrd", Root: initrd.dir, RootWritable: true, FakeOwnership: true,
		Args: []string{"depmod", "-a", version}, Files: initrd.seen,
	})
	if err != nil {
		return err
	}
	initrd.seen = res.Files
	made, err := os.ReadFile(filepath.Join(initrd.dir, dir, "modules.alias"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := index.among(files, string(made)).check(lock.SetInitrd); err != nil {
		return err
	}
	return initrd.ledger.step(generated("depmod"))
}

// copyModule copies a file of the root, and its account, into the initrd.
func copyModule(root, initrd *installed, e *rootfs.Entry) error {
	a, err := root.account(e)
	if err != nil {
		return err
	}
	how := origin{account: a.Account, inputs: a.Inputs, by: "kernel modules"}
	dst := filepath.Join(initrd.dir, e.Path)
	dirs, err := makeDirs(initrd.dir, path.Dir(e.Path))
	if err != nil {
		return err
	}
	for _, d := range dirs {
		initrd.ledger.set(d, origin{account: Generated, by: how.by})
	}
	initrd.ledger.set(e.Path, how)
	r, err := os.Open(filepath.Join(root.dir, e.Path))
	if err != nil {
		return err
	}
	defer r.Close()
	w, err := os.OpenFile(dst, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	if _, err := w.ReadFrom(r); err != nil {
		w.Close()
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	return os.Chmod(dst, 0o644)
}

// inputs are the packages, as KIND/NAME, that name a path.
func (i *installed) inputs(p string) []string {
	var out []string
	for _, c := range i.claims[p] {
		out = append(out, i.inputOf[c.Package])
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// initrdModules are the kernel modules that the initrd's set asks for.
func (b *builder) initrdModules() []string {
	name := b.Lock.SetFor(lock.SetInitrd, b.Variant)
	for _, s := range b.Lock.Sets {
		if s.Name == name {
			return s.Modules
		}
	}
	return nil
}
