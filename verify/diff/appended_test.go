package diff

import (
	"strings"
	"testing"
)

// TestAppended compares disks whose hash trees are in the root's partition.
func TestAppended(t *testing.T) {
	text := func(change func(s *spec), bytes func(m mem)) string {
		t.Helper()
		spec := func() *spec { s := baseSpec(); s.appended = true; return s }
		s := spec()
		if change != nil {
			change(s)
		}
		a, b := spec().build(t), s.build(t)
		if bytes != nil {
			bytes(b)
		}
		nodes, err := Disks(t.Context(), Source{Name: "a", Disk: a, Size: int64(len(a)), Owner: owner}, Source{Name: "b", Disk: b, Size: int64(len(b))}, Options{})
		if err != nil {
			t.Fatal(err)
		}
		var sb strings.Builder
		if err := Text(&sb, nodes); err != nil {
			t.Fatal(err)
		}
		return sb.String()
	}
	const tree = "root hash tree: hash tree"
	for _, c := range []struct {
		change    func(s *spec)
		bytes     func(m mem)
		want, not []string
	}{
		{func(s *spec) {
			*find(s.root, "etc/passwd") = file("etc/passwd", strings.Replace(passwd, "bash", "zsh!", 1))
		}, nil,
			[]string{"root:/etc/passwd", "-root:x:0:0:root:/root:/bin/bash", tree, "level 0 of the tree"}, []string{"partition 3", "between the files"}},
		{nil, func(m mem) { m[hashAt+4099] ^= 1 }, []string{tree, "1 of 3 hash blocks differ", "level 1 of the tree"}, []string{"root:/"}},
		{nil, func(m mem) { m[hashAt+20] ^= 1 }, []string{"root hash tree: superblock", "uuid"}, []string{"root:/"}},
		{nil, func(m mem) { m[hashAt+mib-1] ^= 1 }, []string{"root hash tree: around the hash tree"}, []string{"root:/"}},
		// No tree to be found on one side: the bytes are compared.
		{nil, func(m mem) { m[hashAt] ^= 1 }, []string{"root (partition 2)", "1 byte differs, the first at byte 1048576"}, nil},
	} {
		got := text(c.change, c.bytes)
		for _, want := range c.want {
			if !strings.Contains(got, want) {
				t.Errorf("nothing says %q:\n%s", want, got)
			}
		}
		for _, not := range c.not {
			if strings.Contains(got, not) {
				t.Errorf("something says %q:\n%s", not, got)
			}
		}
	}
}
