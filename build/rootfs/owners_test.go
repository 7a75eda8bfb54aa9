package rootfs

import (
	"strings"
	"testing"

	"caisson/lock/filecap"
)

func ownersTree() *Tree {
	tree := New()
	tree.PutFile("usr/share/users", 0o644, []byte("root:x:0:0:::\n# comment\n\ndaemon:x:1:1:::\nbig:x:4294967294:5:::\n"))
	tree.PutLink("etc/passwd", "/usr/share/users")
	tree.PutFile("etc/group", 0o644, []byte("root:x:0:\nstaff:x:50:\n"))
	tree.PutLink("lib", "usr/lib")
	for _, p := range []string{"usr/lib/a", "usr/lib/b", "usr/lib/ghost", "plain"} {
		tree.PutFile(p, 0o644, nil)
	}
	return tree
}

func TestOwners(t *testing.T) {
	tree := ownersTree()
	for i, p := range []string{"usr/lib/a", "usr/lib/b"} {
		tree.Get(p).Ino, tree.Get(p).Dev = uint64(i+1), 9
	}
	p := &Package{NEVRA: "p", Files: []PackageFile{
		{Path: "/lib/a", Mode: reg, User: "daemon", Group: "staff", Caps: "cap_net_raw=ep"},
		{Path: "/usr/lib/b", Mode: reg, User: "big", Group: "staff", Caps: "cap_net_raw=ep"},
		{Path: "/usr/lib/ghost", Mode: reg, User: "daemon", Group: "root", Ghost: true},
		{Path: "/plain", Mode: dir, User: "nobody knows", Group: "x"}, // another type: not this file
		{Path: "/usr/lib/absent", Mode: reg, User: "nobody knows", Group: "x"},
	}}
	q := &Package{NEVRA: "q", Files: []PackageFile{{Path: "/usr/lib/a", Mode: reg, User: "daemon", Group: "root"}}}
	uid := uint32(77)
	claims, err := tree.Owners([]*Package{p, q}, func(dev, ino uint64) (Seen, bool) {
		return Seen{UID: &uid, Xattrs: map[string][]byte{"security.ima": {1}}}, dev == 9 && ino == 2
	})
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string][2]uint32{"usr/lib/a": {1, 0}, "usr/lib/b": {77, 50}, "usr/lib/ghost": {0, 0}, "plain": {0, 0}} {
		if e := tree.Get(path); e.UID != want[0] || e.GID != want[1] {
			t.Errorf("%s: got %d:%d, want %d:%d", path, e.UID, e.GID, want[0], want[1])
		}
	}
	if x := tree.Get("usr/lib/b").Xattrs; len(x) != 2 || x[filecap.Xattr] == nil {
		t.Errorf("attributes of a file with capabilities that a process set another one of: %v", x)
	}
	if n := len(claims["usr/lib/a"]); n != 2 {
		t.Errorf("/lib/a and /usr/lib/a are one file; got %d claims", n)
	}
	for _, c := range []struct {
		f    PackageFile
		want string
	}{
		{PackageFile{Path: "/usr/lib/a", Mode: reg, User: "gone", Group: "root"}, `user "gone"`},
		{PackageFile{Path: "/usr/lib/a", Mode: reg, User: "root", Group: "gone"}, `group "gone"`},
		{PackageFile{Path: "/usr/lib/a", Mode: reg, User: "root", Group: "root", Caps: "cap_nothing=ep"}, "cap_nothing"},
	} {
		_, err := ownersTree().Owners([]*Package{{NEVRA: "broken-1", Files: []PackageFile{c.f}}}, nil)
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "broken-1") {
			t.Errorf("got %v, want an error with %q and the package's name", err, c.want)
		}
	}
	for _, text := range []string{"root:x\n", "a:b:c:d\n", "a:x:-1:0\n", "a:x:99999999999:0\n"} {
		tree := ownersTree()
		tree.PutFile("etc/group", 0o644, []byte(text))
		if _, err := tree.Owners(nil, nil); err == nil || !strings.Contains(err.Error(), "etc/group:1") {
			t.Errorf("%q: got %v, want an error that names the line", text, err)
		}
	}
	if _, err := New().Owners([]*Package{{Files: []PackageFile{{Path: "/", Mode: dir, User: "root", Group: "root"}}}}, nil); err != nil {
		t.Errorf("a tree without /etc/passwd: %v", err)
	}
}
