package build

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// TestRemoveAll removes a tree of many folders, some of them closed to their
// owner, and follows no link out of it.
func TestRemoveAll(t *testing.T) {
	dir := t.TempDir()
	outside, tree := filepath.Join(dir, "outside"), filepath.Join(dir, "tree")
	var closed []string
	for _, base := range []string{outside, tree} {
		for i := range 40 {
			at := filepath.Join(base, fmt.Sprint(i%7), "a", fmt.Sprint(i))
			put(t, at, file{path: "b/c", mode: 0o400, content: "c"}, file{path: "d", mode: 0o644})
			if base == tree && i%5 == 0 {
				closed = append(closed, filepath.Join(at, "b"), at)
			}
		}
	}
	put(t, tree, file{path: "0/link", mode: os.ModeSymlink, content: outside}, file{path: "link", mode: os.ModeSymlink, content: outside + "/0/a"})
	slices.Sort(closed)
	slices.Reverse(closed) // what is below first
	for _, d := range closed {
		if err := os.Chmod(d, 0); err != nil {
			t.Fatal(err)
		}
	}
	before := state(t, outside)
	if err := removeAll(tree); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(tree); !os.IsNotExist(err) {
		t.Errorf("the tree: %v", err)
	}
	if state(t, outside) != before {
		t.Error("what links led to has changed")
	}
	if err := removeAll(tree); err != nil {
		t.Errorf("what is not there: %v", err)
	}
}

// testRemoved looks which folders there are once the image has been written.
func testRemoved(t *testing.T, d *distro) {
	for _, keep := range []bool{false, true} {
		o := d.options(t.TempDir())
		o.Keep = keep
		var left []string
		o.Events = func(e Event) {
			if e.Step == stepAccount && e.State == Begun {
				left, _ = filepath.Glob(filepath.Join(o.Out, workPrefix+"*", "*", "*"))
			}
		}
		if _, err := Build(context.Background(), o); err != nil {
			t.Fatal(err)
		}
		if keep != (len(left) > 0) {
			t.Errorf("keep %v: there are %v", keep, left)
		}
	}
}
