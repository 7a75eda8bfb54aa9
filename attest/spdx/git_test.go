package spdx

import (
	"strings"
	"testing"

	"caisson/lock"
)

func TestGitPackage(t *testing.T) {
	id := strings.Repeat("a", 40)
	in := lock.Input{
		Kind: lock.KindGit, Name: "proj", PURL: "pkg:github/a/b@" + id, URL: "https://github.com/a/b",
		Git: &lock.Git{Ref: "v1", Commit: id, Tree: strings.Repeat("b", 40)},
	}
	w := &writer{Subject: Subject{Lock: &lock.Lock{Inputs: []lock.Input{in}}}}
	p, err := w.inputPackage(&in)
	if err != nil {
		t.Fatal(err)
	}
	if p.PackageVersion != id || p.PackageDownloadLocation != "git+https://github.com/a/b@"+id || len(p.PackageExternalReferences) != 1 {
		t.Errorf("got %+v", p)
	}
}
