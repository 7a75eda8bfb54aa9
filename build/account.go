package build

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"caisson/build/rootfs"
	"caisson/lock"
)

// accounts says of every file of root, initrd and ESP how it came to be,
// sorted by part and path.
func (d *disk) accounts(root, initrd *installed) ([]File, error) {
	var out []File
	for _, i := range []*installed{root, initrd} {
		for _, e := range i.tree.Entries() {
			if e.Path == "" {
				continue
			}
			out = append(out, d.accountFor(i, e))
		}
	}
	esp, err := d.accountUKI(root, initrd)
	if err != nil {
		return nil, err
	}
	return append([]File{*esp}, slices.Concat(sortedPart(out, lock.SetInitrd), sortedPart(out, lock.SetRoot))...), nil
}

func sortedPart(files []File, part string) []File {
	var out []File
	for _, f := range files {
		if f.Part == part {
			out = append(out, f)
		}
	}
	return out
}

// accountFor is the account of one entry. Packaged files are compared with
// what the package's signed header says.
func (b *builder) accountFor(i *installed, e *rootfs.Entry) File {
	f := File{Part: i.set, Path: "/" + e.Path, Mode: e.Mode, UID: e.UID, GID: e.GID, Size: e.Size, Target: e.Target}
	if e.Is(unix.S_IFREG) {
		f.SHA256, f.SHA1 = &e.SHA256, e.SHA1
	}
	if p, ok := b.placed[e.Path]; ok && i.set == lock.SetRoot {
		f.Account, f.Inputs, f.By = p.account, p.inputs, p.by
		if in := b.fileInput(e); in != nil {
			f.Account, f.Inputs = Placed, []string{ref(in)}
		}
		return f
	}
	if inputs, ok := i.copied[e.Path]; ok {
		f.Account, f.Inputs, f.By = Vendor, inputs, "kernel modules"
		return f
	}
	claims := i.claims[e.Path]
	f.Inputs = i.inputs(e.Path)
	switch same, ghost := matches(claims, e); {
	case same:
		f.Account = Vendor
	case e.Content != nil || e.Ino == 0:
		f.Account, f.By = Generated, "normalise"
	case i.set == lock.SetInitrd && strings.HasPrefix(e.Path, "usr/lib/modules/"):
		f.Account, f.By = Generated, "depmod"
	case len(claims) > 0 && !ghost:
		f.Account, f.By = Changed, "scriptlets"
	case len(claims) > 0:
		f.Account, f.By = Generated, "scriptlets"
	case e.Is(unix.S_IFDIR):
		f.Account, f.By = Generated, "installation"
	default:
		f.Account, f.By = Generated, "scriptlets"
	}
	return f
}

// fileInput is the file input with an entry's content, or nil.
func (b *builder) fileInput(e *rootfs.Entry) *lock.Input {
	for i := range b.Lock.Inputs {
		if in := &b.Lock.Inputs[i]; in.Kind == lock.KindFile && e.Is(unix.S_IFREG) && in.SHA256 == e.SHA256 {
			return in
		}
	}
	return nil
}

// matches tells whether an entry is as one of the packages that name it has
// it, and whether all that name it leave its content open.
func matches(claims []rootfs.Claim, e *rootfs.Entry) (same, ghost bool) {
	ghost = true
	for _, c := range claims {
		f := c.File
		if !f.Ghost {
			ghost = false
		}
		if f.Mode&unix.S_IFMT != e.Mode&unix.S_IFMT {
			continue
		}
		switch {
		case e.Is(unix.S_IFREG):
			same = same || !f.Ghost && f.SHA256 == e.SHA256.Hex()
		case e.Is(unix.S_IFLNK):
			same = same || f.Target == e.Target
		default:
			same = true
		}
	}
	return same, ghost
}

// accountUKI accounts for the ESP's one file.
func (d *disk) accountUKI(root, initrd *installed) (*File, error) {
	out, err := describeBoth(path.Join(d.work, "uki.efi"))
	if err != nil {
		return nil, err
	}
	inputs := map[string]bool{}
	for _, in := range d.of(lock.SetInitrd) {
		inputs[ref(in)] = true
	}
	for _, in := range root.inputs(path.Join("usr/lib/modules", d.version, "vmlinuz")) {
		inputs[in] = true
	}
	stub, err := d.stubPackage()
	if err != nil {
		return nil, err
	}
	inputs[stub] = true
	var all []string
	for in := range inputs {
		all = append(all, in)
	}
	slices.Sort(all)
	out.Part, out.Path, out.Account, out.Inputs, out.By = "esp", "/"+d.machine.loader, Generated, all, "assembly"
	return out, nil
}

// stubPackage is the tools' package that has the EFI stub.
func (d *disk) stubPackage() (string, error) {
	for _, in := range d.of(lock.SetTools) {
		p, err := d.header(in)
		if err != nil {
			return "", err
		}
		for _, f := range p.Files {
			if f.Path == "/"+d.machine.stub {
				return ref(in), nil
			}
		}
	}
	return "", fmt.Errorf("no package of the tools set has /%s", d.machine.stub)
}

func describeBoth(name string) (*File, error) {
	e := &rootfs.Entry{Source: name, Mode: unix.S_IFREG | 0o644}
	if err := e.Hash(); err != nil {
		return nil, err
	}
	return &File{Mode: e.Mode, Size: e.Size, SHA256: &e.SHA256, SHA1: e.SHA1}, nil
}

// totals counts files, not folders, by account.
func totals(files []File) map[Account]Total {
	t := map[Account]Total{}
	for _, a := range []Account{Vendor, Changed, Compiled, Placed, Generated} {
		t[a] = Total{}
	}
	for _, f := range files {
		if f.Mode&unix.S_IFMT == unix.S_IFDIR {
			continue
		}
		n := t[f.Account]
		n.Files++
		n.Bytes += f.Size
		t[f.Account] = n
	}
	return t
}
