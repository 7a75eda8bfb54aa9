package rpmmd

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
)

const modulesText = `%YAML 1.2
---
document: modulemd
version: 2
data:
  name: perl
  stream: 5.30
  version: 8040020200923213406
  context: 466ea64f
  arch: x86_64
  summary: a text with
    two lines
  dependencies:
  - buildrequires: {platform: [el8]}
    requires:
      platform: [el8]
      runtime: [-old, "2", 3.10]
  - requires:
      other: []
  profiles:
    minimal:
      rpms: [perl-interpreter]
    common:
      description: >-
        text
      rpms:
      - perl-core
  artifacts:
    rpms:
    - perl-4:5.30.1-452.x86_64
    - perl-4:5.30.1-452.src
  demodularized:
    rpms: [perl-Old]
...
---
document: modulemd
version: 1
data:
  name: old
  stream: "1"
  version: 3
  static_context: true
  context: c
  dependencies:
    requires: {platform: f28}
---
document: modulemd-defaults
version: 1
data:
  module: perl
  modified: 201909270000
  stream: "5.30"
  profiles:
    5.30: [common]
--- # nothing but a comment
---
document: modulemd-translations
version: 1
data: {}
`

func TestParseModules(t *testing.T) {
	want := &Modules{
		Streams: []ModuleStream{{
			Name: "perl", Stream: "5.30", Context: "466ea64f", Arch: "x86_64", Version: 8040020200923213406,
			Requires:  []ModuleRequirement{{"platform", []string{"el8"}}, {"runtime", []string{"-old", "2", "3.10"}}, {"other", []string{}}},
			Profiles:  []ModuleProfile{{"common", []string{"perl-core"}}, {"minimal", []string{"perl-interpreter"}}},
			Artifacts: []string{"perl-4:5.30.1-452.x86_64", "perl-4:5.30.1-452.src"}, Demodularized: []string{"perl-Old"},
		}, {
			Name: "old", Stream: "1", Version: 3, StaticContext: true, Context: "c",
			Requires: []ModuleRequirement{{"platform", []string{"f28"}}},
		}},
		Defaults: []ModuleDefaults{{"perl", "5.30", map[string][]string{"5.30": {"common"}}, 201909270000}},
	}
	for _, text := range []string{modulesText, strings.ReplaceAll(modulesText, "\n", "\r\n")} {
		got, err := ParseModules(iotest.HalfReader(strings.NewReader(text)))
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v\nwant %+v", got, want)
		}
	}
	if id := want.Streams[0].ID(); id != "perl:5.30:8040020200923213406:466ea64f" {
		t.Errorf("ID is %s", id)
	}
}

func TestParseModulesErrors(t *testing.T) {
	doc := func(data string) string { return "---\ndocument: modulemd\nversion: 2\ndata: " + data + "\n" }
	bomb := "---\ndocument: modulemd\nversion: 2\ndata:\n  a: &a [x,x,x,x,x,x,x,x,x,x]\n"
	for c := 'b'; c <= 'i'; c++ {
		bomb += "  " + string(c) + ": &" + string(c) + " [" + strings.TrimSuffix(strings.Repeat("*"+string(c-1)+",", 10), ",") + "]\n"
	}
	for _, c := range []struct{ name, text, want string }{
		{"not YAML", "\n\n---\na: [", "document at line 3"},
		{"not a document", "--- 1", "want a mapping"},
		{"no kind", "---\nversion: 1", "does not say what document it is"},
		{"no name", doc("{stream: x}"), "want both names"},
		{"version", "---\ndocument: modulemd\nversion: 3\ndata: {name: a, stream: b}", `of version "3", want 1 or 2`},
		{"defaults", "---\ndocument: modulemd-defaults\nversion: 2\ndata: {}", `of version "2", want 1`},
		{"control character", doc(`{name: a, stream: "b\e[1m"}`), "is not a name"},
		{"artifact", doc(`{name: a, stream: b, artifacts: {rpms: ["x y"]}}`), "is not a name"},
		{"type", doc(`{name: a, stream: b, artifacts: {rpms: 1}}`), "want a list"},
		{"alias bomb", bomb + "  name: a\n  stream: b\n  profiles: {x: {rpms: *i}}\n", "want a list"},
		{"twice", "---\ndocument: a\ndocument: a", "there twice"},
		{"long document", "---\n" + strings.Repeat("a: b\n", maxModuleDocument/4), "more than"},
		{"long line", strings.Repeat("a", maxModuleDocument+1), "more than"},
	} {
		_, err := ParseModules(strings.NewReader(c.text))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
	if _, err := ParseModules(io.MultiReader(strings.NewReader("---\n"), iotest.ErrReader(io.ErrClosedPipe))); err == nil {
		t.Error("no error of the reader")
	}
}

func c9sModules(t testing.TB) []byte {
	t.Helper()
	names, err := filepath.Glob("../../../shared/data/rpm-md/c9s-appstream/repodata/*-modules.yaml.xz")
	if err != nil || len(names) != 1 {
		t.Skip("no shared data rpm-md")
	}
	b, err := os.ReadFile(names[0])
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestParseModulesC9S(t *testing.T) {
	m, err := ParseModules(bytes.NewReader(c9sModules(t)))
	if err != nil {
		t.Fatal(err)
	}
	artifacts := 0
	for _, s := range m.Streams {
		artifacts += len(s.Artifacts)
	}
	if len(m.Streams) != 31 || len(m.Defaults) != 8 || artifacts == 0 {
		t.Errorf("%d streams, %d defaults, %d artifacts; want 31 and 8", len(m.Streams), len(m.Defaults), artifacts)
	}
}

func BenchmarkParseModules(b *testing.B) {
	data := c9sModules(b)
	b.SetBytes(135261) // decompressed
	for b.Loop() {
		if _, err := ParseModules(bytes.NewReader(data)); err != nil {
			b.Fatal(err)
		}
	}
}

func FuzzParseModules(f *testing.F) {
	f.Add([]byte(modulesText))
	f.Add([]byte("%YAML 1.2\n--- {document: modulemd, version: 2, data: &a {name: a, stream: b, profiles: {p: {rpms: [*a]}}}}\n..."))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := ParseModules(bytes.NewReader(b))
		if err != nil {
			return
		}
		for _, s := range m.Streams {
			if s.Name == "" || s.Stream == "" {
				t.Errorf("a stream without a name: %+v", s)
			}
		}
	})
}
