package rootfs

import (
	"path"
	"slices"

	"golang.org/x/sys/unix"
)

// Rule is one known source of difference and what is done about it.
type Rule struct {
	Match  string // path.Match pattern of whole paths; a match takes all below it
	Keep   bool   // empty the folder, or the file, instead of removing it
	Reason string
}

// rules are all sources of difference that a root as rpm leaves it has, in
// one place. Modes are fixed by the sandbox's umask, owners by Owners, times
// by the writers, which give every file the lock's epoch.
var rules = []Rule{
	{"dev", true, "device nodes are the kernel's"},
	{"proc", true, "mounted at run time"},
	{"sys", true, "mounted at run time"},
	{"run", true, "empty at boot"},
	{"tmp", true, "left by scriptlets"},
	{"var/tmp", true, "left by scriptlets"},
	{"usr/lib/sysimage/rpm/rpmdb.sqlite-shm", false, "SQLite's shared memory: differs between runs"},
	{"usr/lib/sysimage/rpm/rpmdb.sqlite-wal", false, "SQLite's write-ahead log: empty once rpm has ended"},
	{"usr/lib/sysimage/rpm/.rpm.lock", false, "rpm's lock"},
	{"var/lib/rpm/.rpm.lock", false, "rpm's lock"},
	{"etc/passwd-", false, "back-up of an intermediate state"},
	{"etc/group-", false, "back-up of an intermediate state"},
	{"etc/shadow-", false, "back-up of an intermediate state"},
	{"etc/gshadow-", false, "back-up of an intermediate state"},
	{"etc/.pwd.lock", false, "lock of the user database"},
	{"var/lib/systemd/random-seed", false, "must be random for each machine"},
	{"var/lib/systemd/credential.secret", false, "must be secret for each machine"},
	{"var/lib/dbus/machine-id", false, "must be unique for each machine"},
	{"etc/machine-info", false, "written by firstboot"},
	{"var/cache/ldconfig/aux-cache", false, "holds inode numbers"},
	{"var/log/*", false, "time stamps of the build"},
	{"var/lib/dnf", false, "history with time stamps"},
	{"var/cache/dnf", false, "downloads"},
	{"etc/ssh/ssh_host_*", false, "keys must be made on each machine"},
}

// initrdRules take out of an initial RAM disk what it never reads, beside the
// rules of every root.
var initrdRules = []Rule{
	{"boot", true, "kernels are outside the initrd"},
	{"usr/lib/sysimage", false, "the package database describes an installed system"},
	{"var/lib/rpm", false, "the package database describes an installed system"},
	{"usr/share/doc", false, "documentation"},
	{"usr/share/man", false, "documentation"},
	{"usr/share/info", false, "documentation"},
	{"usr/share/lintian", false, "documentation"},
	{"usr/share/bug", false, "documentation"},
	{"usr/share/locale", false, "the initrd speaks C.UTF-8"},
	{"usr/share/bash-completion", false, "completions"},
	{"usr/share/zsh", false, "completions"},
	{"usr/lib/udev/hwdb.bin", false, "no device that the root needs is described there"},
	{"usr/lib/udev/hwdb.d", false, "sources of hwdb.bin"},
	{"etc/udev/hwdb.bin", false, "no device that the root needs is described there"},
	{"usr/lib/systemd/catalog", false, "explanations of journal messages"},
	{"var/lib/systemd/catalog", false, "explanations of journal messages"},
	{"usr/lib/*/gconv", false, "character sets other than UTF-8"},
	{"usr/lib/gconv", false, "character sets other than UTF-8"},
	{"usr/lib64/gconv", false, "character sets other than UTF-8"},
	{"usr/lib/locale", false, "the initrd speaks C.UTF-8, which the C library has built in"},
}

// Rules returns what Normalise does to a root, and to an initrd.
func Rules(initrd bool) []Rule {
	if initrd {
		return slices.Concat(rules, initrdRules)
	}
	return slices.Clone(rules)
}

// Normalise applies the rules and returns those that found something, for the
// build's log.
func (t *Tree) Normalise(rules []Rule) []Rule {
	var used []Rule
	all := t.Entries()
	for _, r := range rules {
		n := 0
		for _, e := range all {
			if ok, _ := path.Match(r.Match, e.Path); !ok || t.Get(e.Path) != e {
				continue
			}
			if r.Keep {
				n += t.empty(e, all)
			} else {
				n += t.Remove(e.Path)
			}
		}
		if n > 0 {
			used = append(used, r)
		}
	}
	return used
}

// empty removes what is below a folder and says how much there was.
func (t *Tree) empty(dir *Entry, all []*Entry) int {
	if !dir.Is(unix.S_IFDIR) {
		return 0
	}
	n := 0
	for _, e := range all {
		if path.Dir(e.Path) == dir.Path && t.Get(e.Path) == e {
			n += t.Remove(e.Path)
		}
	}
	return n
}
