package rootfs

import (
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Rule is one known source of difference and what is done about it.
type Rule struct {
	Match  string // path.Match pattern of whole paths
	Do     Action
	Reason string
}

// Action is what a rule does to a path that it matches.
type Action int

// The actions. An emptied folder, and the folders left by RemoveFiles, are as
// the packages have them.
const (
	Remove      Action = iota // the path and all below it
	Empty                     // all below the folder
	RemoveFiles               // all below the folder that is no folder
)

// rules are all sources of difference that a root as rpm leaves it has, in
// one place. Modes are fixed by the sandbox's umask, owners by Owners, times
// by the writers, which give every file the lock's epoch.
var rules = []Rule{
	{"dev", Empty, "device nodes are the kernel's"},
	{"proc", Empty, "mounted at run time"},
	{"sys", Empty, "mounted at run time"},
	{"run", Empty, "empty at boot"},
	{"tmp", Empty, "left by scriptlets"},
	{"var/tmp", Empty, "left by scriptlets"},
	{"usr/lib/sysimage/rpm/rpmdb.sqlite-shm", Remove, "SQLite's shared memory: differs between runs"},
	{"usr/lib/sysimage/rpm/rpmdb.sqlite-wal", Remove, "SQLite's write-ahead log: empty once rpm has ended"},
	{"usr/lib/sysimage/rpm/.rpm.lock", Remove, "rpm's lock"},
	{"var/lib/rpm/.rpm.lock", Remove, "rpm's lock"},
	{"etc/passwd-", Remove, "back-up of an intermediate state"},
	{"etc/group-", Remove, "back-up of an intermediate state"},
	{"etc/shadow-", Remove, "back-up of an intermediate state"},
	{"etc/gshadow-", Remove, "back-up of an intermediate state"},
	{"etc/subuid-", Remove, "back-up of an intermediate state"},
	{"etc/subgid-", Remove, "back-up of an intermediate state"},
	{"etc/.pwd.lock", Remove, "lock of the user database"},
	{"var/lib/systemd/random-seed", Remove, "must be random for each machine"},
	{"var/lib/systemd/credential.secret", Remove, "must be secret for each machine"},
	{"var/lib/dbus/machine-id", Remove, "must be unique for each machine"},
	{"etc/machine-info", Remove, "written by firstboot"},
	{"var/cache/ldconfig/aux-cache", Remove, "holds inode numbers"},
	{"var/log", RemoveFiles, "time stamps of the build"},
	{"var/lib/dnf", Remove, "history with time stamps"},
	{"var/cache/dnf", Remove, "downloads"},
	{"etc/ssh/ssh_host_*", Remove, "keys must be made on each machine"},
}

// initrdRules take out of an initial RAM disk what it never reads, beside the
// rules of every root.
var initrdRules = []Rule{
	{"boot", Empty, "kernels are outside the initrd"},
	{"usr/lib/sysimage", Remove, "the package database describes an installed system"},
	{"var/lib/rpm", Remove, "the package database describes an installed system"},
	{"usr/share/doc", Remove, "documentation"},
	{"usr/share/man", Remove, "documentation"},
	{"usr/share/info", Remove, "documentation"},
	{"usr/share/locale", Remove, "the initrd speaks C.UTF-8"},
	{"usr/share/bash-completion", Remove, "completions"},
	{"usr/share/zsh", Remove, "completions"},
	{"usr/lib/udev/hwdb.bin", Remove, "no device that the root needs is described there"},
	{"usr/lib/udev/hwdb.d", Remove, "sources of hwdb.bin"},
	{"etc/udev/hwdb.bin", Remove, "no device that the root needs is described there"},
	{"usr/lib/systemd/catalog", Remove, "explanations of journal messages"},
	{"var/lib/systemd/catalog", Remove, "explanations of journal messages"},
	{"usr/lib/*/gconv", Remove, "character sets other than UTF-8"},
	{"usr/lib/gconv", Remove, "character sets other than UTF-8"},
	{"usr/lib64/gconv", Remove, "character sets other than UTF-8"},
	{"usr/lib/locale", Remove, "the initrd speaks C.UTF-8, which the C library has built in"},
}

// Rules returns what Normalise does to a root, and to an initrd.
func Rules(initrd bool) []Rule {
	if initrd {
		return slices.Concat(rules, initrdRules)
	}
	return slices.Clone(rules)
}

// Normalise applies the rules and returns those that found something, for the
// build's log. What keep tells to keep is left where it is, with its folders:
// a file that somebody placed is an input, and no difference.
func (t *Tree) Normalise(rules []Rule, keep func(p string) bool) []Rule {
	var used []Rule
	all := t.Entries()
	for _, r := range rules {
		n := 0
		for _, e := range t.matches(r.Match, all) {
			if t.Get(e.Path) == e {
				n += t.apply(r.Do, e, all, keep)
			}
		}
		if n > 0 {
			used = append(used, r)
		}
	}
	return used
}

// matches are the entries that a pattern means.
func (t *Tree) matches(pattern string, all []*Entry) []*Entry {
	if !strings.ContainsAny(pattern, `*?[\`) {
		if e := t.Get(pattern); e != nil {
			return []*Entry{e}
		}
		return nil
	}
	var out []*Entry
	for _, e := range all {
		if ok, _ := path.Match(pattern, e.Path); ok {
			out = append(out, e)
		}
	}
	return out
}

// apply does to an entry what a rule says, and says how many entries went.
func (t *Tree) apply(do Action, at *Entry, all []*Entry, keep func(p string) bool) int {
	n := 0
	kept := map[string]bool{} // folders with something in them that stays
	for _, e := range slices.Backward(all) {
		below := strings.HasPrefix(e.Path, at.Path+"/")
		if t.Get(e.Path) != e || !below && (e != at || do != Remove) {
			continue
		}
		if do == RemoveFiles && e.Is(unix.S_IFDIR) {
			continue
		}
		if kept[e.Path] || keep != nil && keep(e.Path) {
			kept[path.Dir(e.Path)] = true
			continue
		}
		t.drop(e, e.Path) // a folder is empty by now
		n++
	}
	return n
}

// docRules take documentation and languages out of a root.
var docRules = []Rule{
	{"usr/share/doc", Empty, "documentation is left out"},
	{"usr/share/gtk-doc", Remove, "documentation is left out"},
	{"usr/share/man", RemoveFiles, "manual pages are left out"},
	{"usr/share/info", RemoveFiles, "documentation is left out"},
	{"usr/share/locale/*", Remove, "other languages are left out"},
}

// DocRules returns what takes out of a root the documentation and the
// languages that its packages have not marked as such, so that rpm installed
// them all the same. Licences are no documentation.
func DocRules() []Rule { return slices.Clone(docRules) }
