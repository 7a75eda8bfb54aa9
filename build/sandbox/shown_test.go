package sandbox

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// id is what a file is called in Spec.Shown.
func id(t *testing.T, name string) FileID {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(name, &st); err != nil {
		t.Fatal(err)
	}
	return FileID{st.Dev, st.Ino}
}

// Programs see the files of Shown as they are to look, by every call there is,
// and all others as they are.
func TestShown(t *testing.T) {
	needTool(t, "getfattr", "stat", "find")
	s := hostRoot(t, "tree")
	dir := tempDir(t)
	for _, name := range []string{"set-uid", "null", "plain"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("12345"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/nowhere", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	s.Mounts = append(s.Mounts, Mount{Source: dir, Target: "/tree"})
	const at = 1700000000
	s.Shown = map[FileID]Shown{
		id(t, dir):            {Mode: unix.S_IFDIR | 0o755, Mtime: at},
		id(t, dir+"/set-uid"): {Mode: unix.S_IFREG | 0o4755, UID: 70000, GID: 12, Links: 3, Mtime: at, Xattrs: map[string][]byte{"security.capability": []byte("cap"), "user.b": {}, "user.a": []byte("A")}},
		id(t, dir+"/null"):    {Mode: unix.S_IFCHR | 0o666, Rdev: unix.Mkdev(1, 3), Mtime: at},
		id(t, dir+"/link"):    {Mode: unix.S_IFLNK | 0o777, UID: 5, Mtime: at, Xattrs: map[string][]byte{"security.selinux": []byte("label\x00")}},
		id(t, dir+"/folder"):  {Mode: unix.S_IFDIR | 0o1777, GID: 7, Mtime: at},
	}
	r, text := sh(t, s, `cd /tree
stat -c '%n %F %a %u:%g %h %s %t,%T %Y' set-uid null link
find . -printf '%p %y %m %U:%G %Ts\n' | sort
stat -c '%n %F %a' plain
getfattr -h -d -m - set-uid link 2>&1
getfattr -n user.none set-uid 2>&1
perl -e '@a=lstat("null"); @b=stat("set-uid"); open(F,"set-uid"); @c=stat(F); printf "%o %d %d %s\n", $a[2], $a[6], $b[4], "@b" eq "@c"' 2>&1
`)
	want := `set-uid regular file 4755 70000:12 3 5 0,0 1700000000
null character special file 666 0:0 1 5 1,3 1700000000
link symbolic link 777 5:0 1 8 0,0 1700000000
. d 755 0:0 1700000000
./folder d 1777 0:7 1700000000
./link l 777 5:0 1700000000
./null c 666 0:0 1700000000
./plain f 600 0:0 `
	if !strings.HasPrefix(text, want) {
		t.Errorf("exit code %d, got\n%s\nwant\n%s", r.ExitCode, text, want)
	}
	for _, l := range []string{
		"./set-uid f 4755 70000:12 1700000000\n", "plain regular file 600\n",
		"# file: set-uid\nsecurity.capability=\"cap\"\nuser.a=\"A\"\nuser.b=\"\"\n", "# file: link\nsecurity.selinux=\"label\"\n",
		"set-uid: user.none: No such attribute\n", "20666 259 70000 1\n",
	} {
		if !strings.Contains(text, l) {
			t.Errorf("got\n%s\nwant a line %q", text, l)
		}
	}
}
