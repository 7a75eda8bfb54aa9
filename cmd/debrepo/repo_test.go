package main

import (
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// The sets of the demo, and how many packages each is.
var (
	rootSet = strings.Fields(`filesystem setup base-files bash coreutils util-linux mount login passwd systemd systemd-sysv udev dbus kmod
		libpam-runtime libpam-modules cryptsetup-bin dmsetup linux-image-cloud-amd64 systemd-boot-efi grep sed`)
	initrdSet = strings.Fields(`filesystem setup base-files bash coreutils util-linux mount systemd udev kmod dmsetup`)
)

const (
	rootCount   = 78
	initrdCount = 53
)

// madeRepository is a repository that debrepo made of its default packages: the tests of it take a minute.
func madeRepository(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("CAISSON_DEBREPO")
	if dir == "" {
		t.Skip("CAISSON_DEBREPO does not name a repository that debrepo made")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// dnf runs dnf over the repository, with signatures of packages and metadata checked.
func dnf(t *testing.T, repo, root string, args ...string) (string, error) {
	t.Helper()
	need(t, "dnf")
	conf, scratch := filepath.Join(t.TempDir(), "dnf.conf"), t.TempDir()
	text := strings.NewReplacer("SCRATCH", scratch, "REPO", "file://"+repo).Replace(`[main]
reposdir=/nonexistent
pluginpath=/nonexistent
cachedir=SCRATCH
logdir=SCRATCH
install_weak_deps=0
[debrepo]
name=debrepo
baseurl=REPO
gpgcheck=1
repo_gpgcheck=1
gpgkey=REPO/RPM-GPG-KEY-debrepo
`)
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("dnf", append([]string{"-c", conf, "--installroot=" + root, "--releasever=12", "-y"}, args...)...)
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func asRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("installing into a root needs root")
	}
}

func TestRepositorySignatures(t *testing.T) {
	dir := madeRepository(t)
	need(t, "rpmkeys")
	rpms, err := filepath.Glob(filepath.Join(dir, "Packages", "*.rpm"))
	if err != nil || len(rpms) == 0 {
		t.Fatalf("no packages in %s: %v", dir, err)
	}
	public, err := filepath.Abs(filepath.Join(dir, "RPM-GPG-KEY-debrepo"))
	if err != nil {
		t.Fatal(err)
	}
	db := t.TempDir()
	run(t, "rpmkeys", "--dbpath", db, "--import", public)
	for line := range strings.Lines(run(t, "rpmkeys", append([]string{"--dbpath", db, "-K"}, rpms...)...)) {
		if !strings.HasSuffix(line, ": digests signatures OK\n") {
			t.Errorf("rpmkeys -K: %s", line)
		}
	}
}

// TestRepositoryCloses asks dnf for everything at once: all dependencies resolve, and nothing conflicts.
func TestRepositoryCloses(t *testing.T) {
	dir := madeRepository(t)
	var s state
	b, err := os.ReadFile(filepath.Join(dir, ".state.json"))
	if err == nil {
		err = json.Unmarshal(b, &s)
	}
	if err != nil {
		t.Fatal(err)
	}
	out, _ := dnf(t, dir, t.TempDir(), "--assumeno", "install", "*")
	m := regexp.MustCompile(`(?m)^Install +(\d+) Packages$`).FindStringSubmatch(out)
	if m == nil || m[1] != strconv.Itoa(len(s.Packages)) {
		t.Errorf("got %v, want all %d packages to be installable together:\n%s", m, len(s.Packages), out)
	}
}

// TestRepositoryInstall installs the two sets by dnf, with all scriptlets, and looks at what they did.
func TestRepositoryInstall(t *testing.T) {
	dir := madeRepository(t)
	asRoot(t)
	for _, c := range []struct {
		name     string
		packages []string
		count    int
		made     []string
		not      []string
	}{
		{"root", rootSet, rootCount, []string{"usr/lib/modules/*/modules.dep.bin", "usr/lib/udev/hwdb.bin", "var/lib/systemd/catalog/database",
			"etc/systemd/system/default.target", "etc/systemd/system/multi-user.target.wants/remote-fs.target", "etc/pam.d/login", "usr/bin/awk",
			"usr/lib/modules/*/vmlinuz", "etc/machine-id", "etc/os-release"}, []string{"boot/*", "etc/fstab"}},
		{"initrd", initrdSet, initrdCount, []string{"usr/lib/udev/hwdb.bin", "usr/bin/sh"},
			[]string{"usr/lib/modules/*", "etc/systemd/system/default.target", "boot/*"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := t.TempDir()
			out, err := dnf(t, dir, root, append([]string{"install"}, c.packages...)...)
			if err != nil {
				t.Fatalf("dnf: %v\n%s", err, out)
			}
			if bad := regexp.MustCompile(`(?mi)^(error|warning|failed|.*scriptlet failed).*$`).FindString(out); bad != "" {
				t.Errorf("dnf says %q", bad)
			}
			names := strings.Fields(run(t, "rpm", "--dbpath", findDatabase(t, root), "-qa", "--qf", "%{name}\n"))
			names = slices.DeleteFunc(names, func(n string) bool { return n == "gpg-pubkey" })
			if len(names) != c.count {
				t.Errorf("got %d packages, want %d: %s", len(names), c.count, strings.Join(names, " "))
			}
			for _, pattern := range c.made {
				if m, err := filepath.Glob(filepath.Join(root, pattern)); err != nil || len(m) == 0 {
					t.Errorf("%s is not there", pattern)
				}
			}
			for _, pattern := range c.not {
				if m, err := filepath.Glob(filepath.Join(root, pattern)); err != nil || len(m) > 0 {
					t.Errorf("%s is there", pattern)
				}
			}
			passwd, err := os.ReadFile(filepath.Join(root, "etc/passwd"))
			if err != nil || !strings.Contains(string(passwd), "systemd-network:x:") {
				t.Errorf("systemd-sysusers did not add its accounts to passwd: %v", err)
			}
		})
	}
}

// findDatabase gives the folder of the rpm database below root: Debian's dnf has it below HOME.
func findDatabase(t *testing.T, root string) string {
	t.Helper()
	found := ""
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.Name() == "rpmdb.sqlite" {
			found = filepath.Dir(p)
		}
		return err
	})
	if err != nil || found == "" {
		t.Fatalf("no rpm database in %s: %v", root, err)
	}
	return found
}

// TestRepositoryScriptlets installs the root set by rpm itself, twice: no message but rpm's greeting, the same tree, and rpm -V is content.
func TestRepositoryScriptlets(t *testing.T) {
	dir := madeRepository(t)
	asRoot(t)
	need(t, "rpm")
	out, _ := dnf(t, dir, t.TempDir(), append([]string{"--assumeno", "install"}, rootSet...)...)
	var rpms []string
	for _, m := range regexp.MustCompile(`(?m)^ (\S+) +(x86_64|noarch) +(?:\d+:)?(\S+) +debrepo`).FindAllStringSubmatch(out, -1) {
		rpms = append(rpms, filepath.Join(dir, "Packages", m[1]+"-"+m[3]+"."+m[2]+".rpm"))
	}
	if len(rpms) != rootCount {
		t.Fatalf("got %d packages, want %d:\n%s", len(rpms), rootCount, out)
	}
	slices.Sort(rpms)
	var trees []string
	for range 2 {
		root := t.TempDir()
		cmd := exec.Command("rpm", append([]string{"--root", root, "--dbpath", "/usr/lib/sysimage/rpm", "--nosignature", "--excludepath=/dev", "-i"}, rpms...)...)
		cmd.Env = []string{"PATH=/usr/sbin:/usr/bin", "SOURCE_DATE_EPOCH=1700000000"}
		b, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("rpm: %v", err)
		}
		for line := range strings.Lines(string(b)) {
			if !strings.HasPrefix(line, "rpm: ") {
				t.Errorf("rpm says %q", line)
			}
		}
		verify := exec.Command("rpm", "--root", root, "--dbpath", "/usr/lib/sysimage/rpm", "-Va", "--noghost")
		if b, err := verify.CombinedOutput(); err != nil {
			t.Errorf("rpm -Va: %v\n%s", err, b)
		}
		trees = append(trees, treeDigests(t, root))
	}
	if trees[0] != trees[1] {
		a, b := strings.Split(trees[0], "\n"), strings.Split(trees[1], "\n")
		for i := range min(len(a), len(b)) {
			if a[i] != b[i] {
				t.Fatalf("two installations differ, first in\n%s\n%s", a[i], b[i])
			}
		}
		t.Fatalf("two installations have %d and %d files", len(a), len(b))
	}
}

// treeDigests has a line a path: mode and content. The database's shared memory is no part of it.
func treeDigests(t *testing.T, root string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil || strings.HasSuffix(p, "rpmdb.sqlite-shm") {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		content := ""
		switch {
		case info.Mode().IsRegular():
			content, err = fileDigest(p)
		case info.Mode()&fs.ModeSymlink != 0:
			content, err = os.Readlink(p)
		}
		b.WriteString(strings.TrimPrefix(p, root) + " " + info.Mode().String() + " " + content + "\n")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}
