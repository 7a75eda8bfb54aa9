package build

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"caisson/build/rootfs"
	"caisson/lock"
)

// accounts says of every file of root, initrd and ESP how it came to be,
// the ESP first, then initrd and root, each sorted by path.
func (d *disk) accounts(root, initrd *installed) ([]File, error) {
	out, err := d.accountESP()
	if err != nil {
		return nil, err
	}
	more, err := d.accountRoots(initrd, root)
	return append(out, more...), err
}

// accountRoots says it of the files of roots, those that there are.
func (b *builder) accountRoots(roots ...*installed) ([]File, error) {
	var out []File
	for _, i := range roots {
		if i == nil {
			continue
		}
		for _, e := range i.tree.Entries() {
			if e.Path == "" {
				continue
			}
			f, err := i.account(e)
			if err != nil {
				return nil, err
			}
			if from := b.placedFrom(&f); from != nil {
				f.Account, f.Inputs = Placed, from
			}
			out = append(out, f)
		}
	}
	return out, nil
}

// account is the account of one entry. What a package names is compared with
// what its signed header says; the rest is what the ledger has. An entry that
// no package, no step and no rule brought is an error.
func (i *installed) account(e *rootfs.Entry) (File, error) {
	f := File{Part: i.set, Path: "/" + e.Path, Mode: e.Mode, UID: e.UID, GID: e.GID, Size: e.Size, Target: e.Target}
	if e.Is(unix.S_IFREG) {
		f.SHA256, f.SHA1 = &e.SHA256, e.SHA1
	}
	how, ok := i.ledger.by[e.Path]
	if !ok || how.account == "" {
		return f, fmt.Errorf("/%s of the %s has no account: no package, no step and no rule brought it", e.Path, i.set)
	}
	f.Account, f.Inputs, f.By = how.account, how.inputs, how.by
	if how.account == Generated { // else it has the owner that it was placed with
		f.SetBy = i.setBy[e.Path]
	}
	if how.account != Generated && !how.onRoot {
		return f, nil // placed there by us, after rpm
	}
	claims := i.claims[e.Path]
	if len(claims) == 0 {
		return f, nil
	}
	packages := i.inputs(e.Path)
	switch same, ghost := matches(claims, e); {
	case same:
		f.Account, f.Inputs, f.By = Vendor, packages, ""
	case !ghost:
		f.Account = Changed
		fallthrough
	default:
		f.Inputs = slices.Compact(slices.Sorted(slices.Values(slices.Concat(packages, how.inputs))))
	}
	return f, nil
}

// placedFrom are the inputs of what a step only put into its place: a file, one
// of a git tree, a blob of an image, or the archive of one. It is nil for what a step made.
func (b *builder) placedFrom(f *File) []string {
	if f.Account != Compiled || f.SHA256 == nil {
		return nil
	}
	for i := range b.Lock.Inputs {
		in := &b.Lock.Inputs[i]
		if (in.Kind == lock.KindFile || isImagePart(in, b.Arch)) && in.SHA256 == *f.SHA256 {
			return []string{ref(in)}
		}
	}
	if in := b.gitFile(f); in != nil {
		return []string{ref(in)}
	}
	for _, a := range b.archives {
		if a.sum == *f.SHA256 {
			return a.inputs
		}
	}
	return nil
}

// matches tells whether an entry is as one of the packages that name it has
// it: a file by content, a link by target, others by type; owners and modes do
// not count. ghost is whether all that name it leave it to be made later,
// which says nothing of its content.
func matches(claims []rootfs.Claim, e *rootfs.Entry) (same, ghost bool) {
	ghost = true
	for _, c := range claims {
		f := c.File
		ghost = ghost && f.Ghost
		if f.Mode&unix.S_IFMT != e.Mode&unix.S_IFMT || f.Ghost && !e.Is(unix.S_IFDIR) {
			continue
		}
		switch {
		case e.Is(unix.S_IFREG):
			same = same || f.SHA256 == e.SHA256.Hex()
		case e.Is(unix.S_IFLNK):
			same = same || f.Target == e.Target
		case e.Is(unix.S_IFCHR), e.Is(unix.S_IFBLK):
			same = same || f.Rdev == e.Rdev
		default:
			same = true
		}
	}
	return same, ghost
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
