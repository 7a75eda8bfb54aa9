package sandbox

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// needTool skips the test where the machine lacks a tool.
func needTool(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			if os.Getenv("CAISSON_TOOLS") == "required" {
				t.Fatal(err)
			}
			t.Skipf("%s is not installed", name)
		}
	}
}

// byPath are the records by the path that they have at the end.
func byPath(r *Result) map[string]Recorded {
	m := map[string]Recorded{}
	for _, f := range r.Files {
		m[f.Path] = f
	}
	return m
}

// owners is "UID:GID" of a record, "-" for what is not recorded.
func owners(f Recorded) string {
	text := func(id *uint32) string {
		if id == nil {
			return "-"
		}
		return fmt.Sprint(*id)
	}
	return text(f.UID) + ":" + text(f.GID)
}

func TestOwnership(t *testing.T) {
	s := hostRoot(t, "sysroot")
	out := tempDir(t)
	for _, d := range []string{"usr", "proc", "dev", "sub"} {
		if err := os.Mkdir(filepath.Join(out, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s.Mounts = append(s.Mounts, Mount{Source: out, Target: "/sysroot", Writable: true}, Mount{Source: "/usr", Target: "/sysroot/usr"})
	s.ProcIn, s.DevIn = []string{"/sysroot"}, []string{"/sysroot"}
	s.FakeOwnership = true
	r, text := sh(t, s, `set -e; cd /sysroot
ln -s usr/bin bin; ln -s usr/lib lib; ln -s usr/lib64 lib64
touch a b c d e f gone 'new
line'; ln -s a link; ln -s /nowhere dangling
chown 5:6 a; chown 7 a                         # the last one wins, for each
chown 8:9 b; mv b renamed                      # the file, not the name
chown -h 10:11 link; chown -h 12:13 dangling; chown :14 c
chown 1:1 gone; rm gone; touch reused          # not the next file with its number
chmod 4755 d; chown 15:16 d                    # as a real chown, it takes set-uid away
(cd sub && touch ../sub/s && chown 17:17 ../sub/s)
chown 18:18 'new
line'
chroot /sysroot /bin/sh -c 'touch /in-chroot && chown 19:19 /in-chroot && ls -d /proc/self /dev/null && cd sub && touch r && chown 20:20 r'
chown 21:21 /proc/self/cwd/sub
exec 7<f; chown 22:22 /proc/self/fd/7; chown 23:23 /dev/fd/7
mknod null c 1 3; chmod 666 null; chown 24:25 null; mv null node
umask 077; mknod sub/blk b 259 70000; umask 022; mknod pipe p
! mknod node c 1 3; ! mknod nowhere/x c 1 3; ! chown 1:1 missing; ! chown 1:1 /usr/bin/env
test -f node; test -p pipe; stat -c "%A %n" d node
`)
	if want := "-rwxr-xr-x d\n-rw-rw-rw- node\n"; r.ExitCode != 0 || !strings.HasSuffix(text, want) {
		t.Fatalf("exit code %d\n%s", r.ExitCode, text)
	}
	got := map[string]string{}
	for name, f := range byPath(r) {
		got[name] = owners(f)
	}
	want := map[string]string{
		"/sysroot/a": "7:6", "/sysroot/renamed": "8:9", "/sysroot/link": "10:11", "/sysroot/dangling": "12:13", "/sysroot/c": "-:14",
		"/sysroot/d": "15:16", "/sysroot/sub/s": "17:17", "/sysroot/new\nline": "18:18", "/sysroot/in-chroot": "19:19",
		"/sysroot/sub/r": "20:20", "/sysroot/sub": "21:21", "/sysroot/f": "23:23", "/sysroot/node": "24:25", "/sysroot/sub/blk": "-:-",
	}
	if !maps.Equal(got, want) {
		t.Errorf("recorded %v\nwant     %v", got, want)
	}
	if d := byPath(r)["/sysroot/node"].Device; d == nil || *d != (Device{Major: 1, Minor: 3}) {
		t.Errorf("device %+v; want character device 1:3", d)
	}
	if d := byPath(r)["/sysroot/sub/blk"].Device; d == nil || *d != (Device{Block: true, Major: 259, Minor: 70000}) {
		t.Errorf("device %+v; want block device 259:70000", d)
	}
	if st, err := os.Stat(filepath.Join(out, "sub/blk")); err != nil || st.Mode() != 0o600 {
		t.Errorf("made for a device under umask 077: %v, %v; want mode 600", st, err)
	}
	s.Files = r.Files
	r, text = sh(t, s, "cd /sysroot && rm a && touch b new && chown 30 c && mv d moved")
	if r.ExitCode != 0 {
		t.Fatalf("second run: exit code %d\n%s", r.ExitCode, text)
	}
	for name, want := range map[string]string{"c": "30:14", "moved": "15:16", "new": "-:-", "b": "-:-", "renamed": "8:9"} {
		if got := owners(byPath(r)["/sysroot/"+name]); got != want {
			t.Errorf("after the second run %s has %s; want %s", name, got, want)
		}
	}
	if len(r.Files) != len(want)-1 {
		t.Errorf("%d records after the second run; want one less than %d", len(r.Files), len(want))
	}
	s.Args = []string{"setpriv", "--reuid", "1234", "--regid", "1234", "--clear-groups", "true"}
	r, _ = runOK(t, s)
	if r.ExitCode != 0 {
		t.Errorf("changing the user: exit code %d", r.ExitCode)
	}
	if r.Evidence.Faked["setgroups"] == 0 || r.Evidence.Faked["setresuid"] == 0 {
		t.Errorf("faked: %v", r.Evidence.Faked)
	}
}

func TestXattrs(t *testing.T) {
	s := hostRoot(t)
	s.RootWritable, s.FakeOwnership = true, true
	s.Env, s.Args = []string{"SANDBOX_GUEST=xattrs"}, []string{"/guest"}
	r, text := runOK(t, s)
	if r.ExitCode != 0 {
		t.Fatalf("exit code %d\n%s", r.ExitCode, text)
	}
	got := byPath(r)
	for name, want := range map[string]string{
		"/a": "map[security.capability:two security.selinux:]", "/b": "map[]", "/chowned": "map[security.selinux:label]",
	} {
		text := fmt.Sprintf("%s", got[name].Xattrs)
		if text != want {
			t.Errorf("%s has %s; want %s", name, text, want)
		}
	}
	if len(got) != 3 {
		t.Errorf("recorded %v; want 3 files", got)
	}
}

// TestNotFaked checks that without FakeOwnership a chown fails as it does.
func TestNotFaked(t *testing.T) {
	s := hostRoot(t)
	s.RootWritable = true
	r, text := sh(t, s, "touch /x && chown 0:0 /x && chown 1:1 /x")
	if r.ExitCode != 1 || !strings.Contains(text, "Invalid argument") || len(r.Files) != 0 {
		t.Errorf("exit code %d, files %v\n%s", r.ExitCode, r.Files, text)
	}
}

// testSpec makes three packages: one with named owners, capabilities, a device,
// a set-uid file and shell scriptlets, one with a Lua scriptlet, one whose Lua fails.
const testSpec = `
Name: one
Version: 1
Release: 1
Summary: test
License: none
BuildArch: noarch
%description
%pre
echo "messagebus:x:101:102::/:/bin/false" >> /etc/passwd
echo "messagebus:x:102:" >> /etc/group
%post
touch /var/by-post && chown messagebus:messagebus /var/by-post && chmod 4750 /var/by-post
mknod /var/null c 1 3 && chmod 666 /var/null
test -r /proc/self/status && test -c /dev/null && test "$(id -u)" = 0
%files
%attr(640, messagebus, messagebus) /usr/share/one/owned
%attr(4755, root, root) /usr/share/one/setuid
%caps(cap_net_raw=ep) /usr/share/one/capable
%dev(c, 5, 1) %attr(600, root, root) /dev/console
/usr/share/one/hard1
/usr/share/one/hard2
%package -n two
Summary: test
%description -n two
%post -n two -p <lua>
local f = assert(io.open("/var/by-lua", "w")) f:close()
assert(posix.chown("/var/by-lua", 7, 8) == 0)
assert(posix.chmod("/var/by-lua", "0604") == 0)
%files -n two
/usr/share/two
%install
mkdir -p %{buildroot}/usr/share/one %{buildroot}/usr/share/two
for f in owned setuid capable hard1; do echo $f > %{buildroot}/usr/share/one/$f; done
ln %{buildroot}/usr/share/one/hard1 %{buildroot}/usr/share/one/hard2
`

// buildRPMs builds testSpec and returns the folder with the packages.
func buildRPMs(t *testing.T) string {
	t.Helper()
	top := tempDir(t)
	spec := filepath.Join(top, "t.spec")
	if err := os.WriteFile(spec, []byte(testSpec), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("rpmbuild", "-bb", "--define", "_topdir "+top, "--define", "_rpmdir "+top+"/rpms",
		"--define", "_dbpath "+top+"/db", spec)
	cmd.Env = append(os.Environ(), "HOME="+top)
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("rpmbuild: %v\n%s", err, b)
	}
	return filepath.Join(top, "rpms/noarch")
}

// TestRPM installs packages into an empty root by the machine's rpm.
func TestRPM(t *testing.T) {
	needTool(t, "rpm", "rpmbuild")
	rpms := buildRPMs(t)
	s := hostRoot(t, "sysroot", "rpms")
	out := tempDir(t)
	for _, d := range []string{"usr/bin", "usr/lib/x86_64-linux-gnu", "usr/lib64", "proc", "dev", "etc", "var"} {
		if err := os.MkdirAll(filepath.Join(out, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// The scriptlets' programs; files, so that the rest of the root's /usr is empty.
	s.Mounts = append(s.Mounts, Mount{Source: rpms, Target: "/rpms"}, Mount{Source: out, Target: "/sysroot", Writable: true})
	for _, d := range []string{"usr/bin", "usr/lib/x86_64-linux-gnu", "usr/lib64"} {
		s.Mounts = append(s.Mounts, Mount{Source: "/" + d, Target: "/sysroot/" + d})
	}
	s.ProcIn, s.DevIn = []string{"/sysroot"}, []string{"/sysroot"}
	s.FakeOwnership, s.Timeout = true, time.Minute
	r, text := sh(t, s, `set -e; cd /sysroot; ln -s usr/bin bin; ln -s usr/lib lib; ln -s usr/lib64 lib64
echo root:x:0:0::/root:/bin/sh > etc/passwd; echo root:x:0: > etc/group
rpm --root /sysroot --dbpath /usr/lib/sysimage/rpm --nodeps --nosignature --excludepath=/dev -ivh /rpms/*.rpm
rpm --root /sysroot --dbpath /usr/lib/sysimage/rpm -qa | sort`)
	if r.ExitCode != 0 || !strings.HasSuffix(text, "one-1-1.noarch\ntwo-1-1.noarch\n") {
		t.Fatalf("exit code %d\n%s", r.ExitCode, text)
	}
	for _, word := range []string{"error", "warning", "failed"} {
		if strings.Contains(text, word) {
			t.Errorf("rpm says %s:\n%s", word, text)
		}
	}
	if a := r.Evidence.NetworkAttempts(); len(a) > 0 {
		t.Errorf("network attempts: %+v", a)
	}
	got := byPath(r)
	for name, want := range map[string]string{
		"/sysroot/var/by-post": "101:102", "/sysroot/var/by-lua": "7:8", "/sysroot/usr/share/one/owned": "101:102",
		"/sysroot/usr/share/one/setuid": "0:0",
	} {
		if owners(got[name]) != want {
			t.Errorf("%s belongs to %s; want %s", name, owners(got[name]), want)
		}
	}
	if len(got["/sysroot/usr/share/one/capable"].Xattrs["security.capability"]) == 0 {
		t.Errorf("no capability recorded: %+v", got)
	}
	if d := got["/sysroot/var/null"].Device; d == nil || d.Major != 1 || d.Minor != 3 {
		t.Errorf("/var/null is %+v; want character device 1:3", d)
	}
	for name, want := range map[string]os.FileMode{
		"var/by-post": 0o750 | os.ModeSetuid, "var/by-lua": 0o604, "usr/share/one/setuid": 0o755 | os.ModeSetuid, "var/null": 0o666,
	} {
		if st, err := os.Stat(filepath.Join(out, name)); err != nil || st.Mode() != want {
			t.Errorf("%s: %v, %v; want mode %v", name, st, err, want)
		}
	}
	t.Logf("%s\nfaked %v", text, r.Evidence.Faked)
}
