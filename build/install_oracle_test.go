package build

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"caisson/build/rootfs"
	"caisson/lock"
	"caisson/lock/digest"
)

// withEverything is the distribution with packages that have every kind of file
// and of script that rpm installs.
func withEverything(t *testing.T, d *distro) *distro {
	t.Helper()
	const order = "/opt/order"
	sh := func(kind string) string { return fmt.Sprintf("echo sh %s $1 $2 >> %s\n", kind, order) }
	inLua := func(kind string) string {
		return fmt.Sprintf("posix.mkdir(\"/opt\") local f = io.open(%q, \"a\") f:write(\"lua %s \" .. (arg and arg[2] or \"\") .. \"\\n\") f:close()\n", order, kind)
	}
	var shell, lua strings.Builder
	for kind, head := range scriptKinds() {
		if kind != "pretrans" { // before there is a shell
			fmt.Fprintf(&shell, "%s\n%s", fmt.Sprintf(head, ""), sh(kind))
		}
		fmt.Fprintf(&lua, "%s\n%s", fmt.Sprintf(head, "-p <lua>"), inLua(kind))
	}
	for _, kind := range []string{"%%preun", "%%postun", "%%triggerun -- later", "%%triggerpostun -- later", "%%filetriggerun -- /opt/later", "%%transfiletriggerun -- /opt/later"} {
		fmt.Fprintf(&shell, kind+"\n%s", sh("on removal"))
	}
	tools, sysusers, files, later := t.TempDir(), t.TempDir(), t.TempDir(), t.TempDir()
	programs(t, tools, "mknod", "chown", "chgrp", "chmod", "setcap", "ln", "mv", "rm", "cp", "cat", "systemd-sysusers")
	put(t, sysusers, file{path: "usr/lib/sysusers.d/svc.conf", mode: 0o644, content: "g grp 700\nu svc 701:700 \"A service\" /var/lib/svc\nm svc daemon\n"})
	put(t, later, file{path: "opt/later/a", mode: 0o644, content: "a"})
	put(t, files, file{path: "opt/f/plain", mode: 0o640, content: "plain"}, file{path: "opt/f/setuid", mode: 0o755, content: "setuid"},
		file{path: "opt/f/caps", mode: 0o755, content: "caps"}, file{path: "opt/f/empty", mode: 0o444}, file{path: "opt/f/conf", mode: 0o644, content: "conf\n"},
		file{path: "opt/f/kept", mode: 0o644, content: "kept\n"}, file{path: "opt/f/link", mode: os.ModeSymlink, content: "../../etc/passwd"},
		file{path: "opt/f/closed", mode: 0, content: "closed"}, file{path: "opt/f/one", mode: 0o644, content: strings.Repeat("one", 5000)},
		file{path: "opt/f/aé", mode: 0o644, content: "odd"}, file{path: "opt/f/sticky/x", mode: 0o600, content: "x"},
		file{path: "opt/f/c1", mode: 0o644, content: "c1"}, file{path: "opt/f/c2", mode: 0o644, content: "c2"})
	for _, name := range []string{"two", "sticky/three"} {
		if err := os.Link(filepath.Join(files, "opt/f/one"), filepath.Join(files, "opt/f", name)); err != nil {
			t.Fatal(err)
		}
	}
	many := t.TempDir()
	for i := range 6000 { // a header of some 500 KB
		put(t, many, file{path: fmt.Sprintf("opt/many/%02d/a file with a name of some length %04d", i%50, i), mode: 0o644})
	}
	return d.with(func(d *distro) {
		d.add(t, lock.SetRoot, "base2", tools, "")
		d.add(t, lock.SetRoot, "early", "", shell.String()+"%files\n")
		d.add(t, lock.SetRoot, "early2", "", lua.String()+"%files\n")
		d.add(t, lock.SetRoot, "later", later, "")
		d.addPacked(t, lock.SetRoot, "many", many, "w19.zstdio", "")
		d.add(t, lock.SetRoot, "p-users", sysusers, "Requires(post): base2\n%post\nsystemd-sysusers\n%files\n/*\n")
		d.addPacked(t, lock.SetRoot, "q-files", files, "w6.xzdio", `Requires(pre,post): base2 p-users
%post
chown svc:grp /opt/f/c1
chgrp 34 /opt/f/c2; chmod 2755 /opt/f/c2
setcap cap_net_admin+ep /opt/f/plain
mknod -m 640 /opt/f/made b 7 3; chown 12:34 /opt/f/made
echo more >> /opt/f/conf
echo ghost > /opt/f/ghost; chown daemon /opt/f/ghost
cp -p /opt/f/closed /opt/f/copy; mv /opt/f/copy /opt/f/moved
ln /opt/f/moved /opt/f/again; ln -s nowhere /opt/f/dangling
chown -h svc /opt/f/dangling
%files
%dir /opt/f
%attr(0640,svc,grp) /opt/f/plain
%attr(6755,root,daemon) /opt/f/setuid
%caps(cap_net_raw,cap_setuid=ep) %attr(0755,svc,root) /opt/f/caps
%config /opt/f/conf
%config(noreplace) %attr(0600,root,grp) /opt/f/kept
%ghost %attr(0600,svc,grp) /opt/f/ghost
%dev(c,1,9) %attr(0666,root,grp) /opt/f/char
%dev(b,7,1) %attr(0660,root,daemon) /opt/f/block
%attr(-,svc,-) /opt/f/link
%attr(1777,svc,grp) %dir /opt/f/sticky
/opt/f/sticky/*
/opt/f/empty
/opt/f/closed
/opt/f/one
/opt/f/two
/opt/f/a*
/opt/f/c1
/opt/f/c2
`)
	})
}

// describeTree is a line for every file that an installation left.
func describeTree(t *rootfs.Tree) []string {
	var out []string
	for _, e := range t.Entries() {
		top, _, _ := strings.Cut(e.Path, "/")
		if top == "dev" || top == "proc" || e.Path == "" || strings.HasPrefix(e.Path, rpmdb+"/") {
			continue
		}
		size := e.Size
		if !e.Is(unix.S_IFREG) {
			size = 0
		}
		line := fmt.Sprintf("%q %o %d:%d %d %q same as %q %x", e.Path, e.Mode, e.UID, e.GID, size, e.Target, e.HardLink, e.Rdev)
		if e.Is(unix.S_IFREG) && e.HardLink == "" {
			line += " " + e.SHA256.Hex()
		}
		for _, name := range []string{"security.capability"} {
			if v, ok := e.Xattrs[name]; ok {
				line += fmt.Sprintf(" %s=%x", name, v)
			}
		}
		out = append(out, line)
	}
	return out
}

// byRealRoot installs the packages by the machine's own rpm, as the machine's root,
// and reads the tree with the owners, devices and attributes that are on the disk.
func (d *distro) byRealRoot(t *testing.T) (dir string, lines []string) {
	t.Helper()
	view, dir := t.TempDir(), t.TempDir()
	for _, name := range excluded {
		if err := makeDir(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mknod(filepath.Join(dir, "dev/null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))); err != nil {
		t.Skipf("making devices as root: %v", err)
	}
	script := `umask 022; exec rpm --root "$1" --dbpath /usr/lib/sysimage/rpm --define "_db_backend sqlite" --nosignature -iv --excludepath=/dev --excludepath=/proc "$2"/*`
	for i := range d.lock.Inputs {
		in := &d.lock.Inputs[i]
		if in.For[0].Set != lock.SetRoot {
			continue
		}
		if err := os.Symlink(d.store.Path(in.SHA256), filepath.Join(view, in.Name+".rpm")); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("bash", "-c", script, "bash", dir, view)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "LC_ALL=C.UTF-8", "HOME=/tmp", "SYSTEMD_OFFLINE=1", fmt.Sprint("SOURCE_DATE_EPOCH=", d.lock.Epoch)}
	if out, err := cmd.CombinedOutput(); err != nil || rpmTrouble.Match(out) {
		t.Fatalf("%v\n%s", err, out)
	}
	tree, err := rootfs.Scan(context.Background(), dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range tree.Entries() {
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(dir, e.Path), &st); err != nil {
			t.Fatal(err)
		}
		e.UID, e.GID, e.Rdev = st.Uid, st.Gid, 0
		if e.Is(unix.S_IFCHR) || e.Is(unix.S_IFBLK) {
			e.Rdev = uint32(st.Rdev)
		}
		value := make([]byte, 64)
		if n, err := unix.Lgetxattr(filepath.Join(dir, e.Path), "security.capability", value); err == nil {
			e.Xattrs = map[string][]byte{"security.capability": value[:n]}
		}
	}
	return dir, describeTree(tree)
}

// testLikeRealRoot compares an installation in the sandbox with one by the
// machine's root: the same files, owners, modes, capabilities and devices, the same
// database, and scripts in the same order.
func testLikeRealRoot(t *testing.T, d *distro) {
	if os.Getuid() != 0 {
		t.Skip("only root can install as root")
	}
	d = withEverything(t, d)
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
	dir, want := d.byRealRoot(t)
	got := describeTree(i.tree)
	for _, l := range got {
		if !slices.Contains(want, l) {
			t.Errorf("only in the sandbox: %s", l)
		}
	}
	for _, l := range want {
		if !slices.Contains(got, l) {
			t.Errorf("only as root:        %s", l)
		}
	}
	order, err := os.ReadFile(filepath.Join(i.dir, "opt/order"))
	if err != nil {
		t.Fatal(err)
	}
	for kind := range scriptKinds() {
		for _, language := range []string{"sh", "lua"} {
			if ran := bytes.Contains(order, []byte(language+" "+kind+" ")); !ran && language+kind != "shpretrans" {
				t.Errorf("%s in %s did not run:\n%s", kind, language, order)
			}
		}
	}
	if bytes.Contains(order, []byte("removal")) {
		t.Errorf("what is for a removal ran:\n%s", order)
	}
	const database = rpmdb + "/rpmdb.sqlite"
	ours, err1 := os.ReadFile(filepath.Join(i.dir, database))
	theirs, err2 := os.ReadFile(filepath.Join(dir, database))
	if err1 != nil || err2 != nil || digest.Of(ours) != digest.Of(theirs) {
		t.Errorf("the databases differ: %v, %v", err1, err2)
	}
	testAttributed(t, i)
}

// testAttributed looks whom files are put down to.
func testAttributed(t *testing.T, i *installed) {
	t.Helper()
	const post = "post of q-files-1-1.x86_64"
	for p, want := range map[string][2]string{
		"opt/f/c1": {"", post}, "opt/f/c2": {"", post}, "opt/f/plain": {"", post}, "opt/f/made": {post, post}, "opt/f/conf": {post, ""},
		"opt/f/ghost": {post, post}, "opt/f/moved": {post, ""}, "opt/f/again": {post, ""}, "opt/f/dangling": {post, post},
		"opt/f/caps": {"", ""}, "opt/f/char": {"", ""}, "opt/f/kept": {"", ""}, "etc/passwd": {"post of p-users-1-1.x86_64", ""},
		"opt/order": {"scriptlets of early2-1-1.x86_64", ""},
	} {
		f, err := i.account(i.tree.Get(p))
		if err != nil {
			t.Error(err)
			continue
		}
		if by := f.By; by != want[0] && (p != "opt/order" || !strings.HasPrefix(by, want[0])) || want[1] != "" && f.SetBy != want[1] || want[1] == "" && f.SetBy != "" && want[0] == "" {
			t.Errorf("%s: by %q, set by %q; want %q", p, f.By, f.SetBy, want)
		}
	}
}
