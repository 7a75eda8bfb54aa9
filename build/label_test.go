package build

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"caisson/build/rootfs"
)

// labelled gives a small root its labels.
func labelled(t *testing.T, config, contexts string) (*rootfs.Tree, error) {
	t.Helper()
	i := &installed{tree: rootfs.New()}
	put := func(p string, mode uint32, content string) {
		t.Helper()
		if err := i.tree.Put(&rootfs.Entry{Path: p, Mode: mode, Content: []byte(content), Size: int64(len(content))}); err != nil {
			t.Fatal(err)
		}
	}
	put("etc/selinux/config", unix.S_IFREG|0o644, config)
	if contexts != "" {
		put("etc/selinux/targeted/contexts/files/file_contexts", unix.S_IFREG|0o644, contexts)
	}
	put("usr/bin/sh", unix.S_IFREG|0o755, "sh")
	put("usr/bin/no", unix.S_IFREG|0o755, "no")
	i.tree.Get("usr/bin/no").Xattrs = map[string][]byte{"security.selinux": []byte("of a scriptlet's"), "user.x": []byte("kept")}
	if err := i.tree.Put(&rootfs.Entry{Path: "bin", Mode: unix.S_IFLNK | 0o777, Target: "usr/bin"}); err != nil {
		t.Fatal(err)
	}
	return i.tree, i.label()
}

func TestLabel(t *testing.T) {
	const contexts = "/.*\td\n/\troot\n/usr/bin(/.*)?\t--\tbin_t\n/bin\t-l\tlink_t\n/usr/bin/no\t<<none>>\n"
	tree, err := labelled(t, "# x\nSELINUX=enforcing\nSELINUXTYPE=targeted\n", contexts)
	if err != nil {
		t.Fatal(err)
	}
	for p, want := range map[string]string{"": "root\x00", "usr": "d\x00", "usr/bin": "d\x00", "usr/bin/sh": "bin_t\x00", "bin": "link_t\x00", "usr/bin/no": ""} {
		if got := string(tree.Get(p).Xattrs["security.selinux"]); got != want {
			t.Errorf("/%s: got %q, want %q", p, got, want)
		}
	}
	if got := string(tree.Get("usr/bin/no").Xattrs["user.x"]); got != "kept" {
		t.Errorf("another attribute: got %q", got)
	}
	for _, config := range []string{"", "SELINUX=disabled\nSELINUXTYPE=targeted\n", "SELINUX=enforcing\n"} {
		tree, err := labelled(t, config, contexts)
		if err != nil || len(tree.Get("usr/bin/sh").Xattrs) != 0 {
			t.Errorf("%q: got %v, %v", config, tree.Get("usr/bin/sh").Xattrs, err)
		}
	}
	if tree, err := labelled(t, "SELINUXTYPE=targeted", ""); err != nil || len(tree.Get("usr/bin/sh").Xattrs) != 0 {
		t.Errorf("no policy: got %v", err)
	}
	for _, tt := range []struct{ config, contexts, want string }{
		{"SELINUXTYPE=targeted", "/( x\n", "file_contexts:1: "},
		{"SELINUXTYPE=../x", "/ x\n", `/etc/selinux/config: "../x" is not the name of a policy`},
	} {
		if _, err := labelled(t, tt.config, tt.contexts); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: got %v, want %q", tt.config, err, tt.want)
		}
	}
}
