package gittree

import (
	"errors"
	"io"
	"strings"
	"testing"
)

// endless is an object that says how large it is and gives an error where it is
// read.
func endless(typ string, size int64) *Object {
	return &Object{typ, size, io.NopCloser(unread{})}
}

type unread struct{}

func (unread) Read([]byte) (int, error) { return 0, errors.New("it was read") }

func object(typ, content string) *Object {
	return &Object{typ, int64(len(content)), io.NopCloser(strings.NewReader(content))}
}

// TestHugeTrees refuses what would take too much memory before it reads it: a
// tree, and trees in each other that are too large together.
func TestHugeTrees(t *testing.T) {
	commit, tree, inner := strings.Repeat("a", 40), strings.Repeat("b", 40), strings.Repeat("c", 40)
	meta := "tree " + tree + "\nauthor A <a@b> 1 +0000\ncommitter A <a@b> 1 +0000\n\nm\n"
	raw, err := treeObject([]entry{{ModeDir, "d", inner}})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		top  *Object
		most int64 // of the inner tree
		want string
	}{
		"one":    {endless(typeTree, maxTree+1), 0, "want 16777216 at most"},
		"nested": {object(typeTree, string(raw)), maxTree - int64(len(raw)) + 1, "want 16777188 at most"},
		"fits":   {object(typeTree, string(raw)), maxTree - int64(len(raw)), "it was read"},
	} {
		s := &Source{ID: commit, Open: func(id string) (*Object, error) {
			switch id {
			case commit:
				return object(typeCommit, meta), nil
			case tree:
				return c.top, nil
			}
			return endless(typeTree, c.most), nil
		}}
		if err := Write(io.Discard, s); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
}
