package main

import (
	"reflect"
	"strings"
	"testing"

	"caisson/lock"
)

func gitLock(name, ref, commit string) *lock.Lock {
	return &lock.Lock{Inputs: []lock.Input{{Kind: lock.KindGit, Name: name, URL: "https://h/proj", Git: &lock.Git{Ref: ref, Commit: commit}}}}
}

// TestDiffGit tells a ref that has moved from one that was changed.
func TestDiffGit(t *testing.T) {
	a, b := strings.Repeat("a", 40), strings.Repeat("b", 40)
	for _, c := range []struct {
		old, now  *lock.Lock
		direction string
	}{
		{gitLock("proj", "v1", a), gitLock("proj", "v1", b), "moved"},
		{gitLock("proj", "v1", a), gitLock("proj", "v2", b), ""},
		{gitLock("proj@"+a, a, a), gitLock("proj@"+b, b, b), ""},
	} {
		d, err := compareLocks(c.old, c.now, nil)
		if err != nil {
			t.Fatal(err)
		}
		if len(d.Changed) != 1 || !reflect.DeepEqual(d.Changed[0], lockChange{Input: "git proj", Old: a, New: b, Direction: c.direction}) {
			t.Errorf("%s: got %+v", c.direction, d)
		}
	}
	in := &gitLock("proj@"+a, a, a).Inputs[0]
	for _, name := range []string{"proj", "https://h/proj", a, "proj@" + a} {
		if !named(in, name) {
			t.Errorf("%s is not found", name)
		}
	}
}
