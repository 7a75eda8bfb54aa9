package lock

import (
	"strings"
	"testing"

	"caisson/lock/digest"
)

func TestMerge(t *testing.T) {
	d := digest.Of([]byte("request"))
	file := func(name, content, by string) Input {
		return Input{Kind: KindFile, Name: name, URL: "https://h/" + name, SHA256: digest.Of([]byte(content)), For: []Use{{By: by}}}
	}
	repo := Repo{ID: "r", Arch: "x86_64", BaseURL: "https://h/", Priority: 99}
	a := &Lock{Arches: []string{"x86_64"}, Epoch: 5, Repos: []Repo{repo}, Sources: []Source{{Name: "z", SHA256: d}}, Inputs: []Input{file("b", "1", "x"), file("a", "2", "x")}}
	b := &Lock{Arches: []string{"aarch64", "x86_64"}, Epoch: 3, Repos: []Repo{repo}, Sources: []Source{{Name: "y", SHA256: d}, {Name: "z", SHA256: d}}, Inputs: []Input{file("a", "2", "w")}}
	l, err := Merge("n", d, a, b)
	if err != nil {
		t.Fatal(err)
	}
	text, err := Format(l)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := Parse("l", text); err != nil || again.Imported != ImportedPrefetch {
		t.Errorf("got %+v, %v", again, err)
	}
	if len(l.Inputs) != 2 || len(l.Inputs[0].For) != 2 || len(l.Repos) != 1 || len(l.Arches) != 2 || len(l.Sources) != 2 || l.Epoch != 5 {
		t.Errorf("got %s", text)
	}
	if len(a.Inputs[1].For) != 1 || len(b.Inputs[0].For) != 1 {
		t.Error("a merged lock was changed")
	}
	b.Inputs[0].SHA256 = d
	if _, err := Merge("n", d, a, b); err == nil || !strings.Contains(err.Error(), "two different files are both file a") {
		t.Errorf("got %v", err)
	}
	b.Inputs, b.Repos[0].BaseURL = nil, "https://elsewhere/"
	if _, err := Merge("n", d, a, b); err == nil || !strings.Contains(err.Error(), `repository "r" (x86_64) is asked for in two ways`) {
		t.Errorf("got %v", err)
	}
}
