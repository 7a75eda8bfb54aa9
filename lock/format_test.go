package lock

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"caisson/lock/digest"
)

// sample is a lock that has every field.
func sample() *Lock {
	sum := func(s string) digest.Digest { return digest.Of([]byte(s)) }
	h1 := "h1:1p2G5COR51f8Q3EQ4HLJQDDL2ytLEqfL/yTawB0Jr8w="
	image := Image{
		Overlay: []string{"rootfs"}, Services: Services{Enable: []string{"a.service"}, Disable: []string{"b.service"}},
		Cmdline: `console=ttyS0 <&> "x"`, Root: "erofs", Verity: "uki", Output: []string{"qcow2"},
	}
	debug := image
	debug.Cmdline += " debug"
	return &Lock{
		Version: Version, Revision: Revision, Name: "podvm", Manifest: sum("manifest"),
		Sources: []Source{{Name: "rpms.in.yaml", SHA256: sum("in")}}, Epoch: 1700000000, Arches: []string{"aarch64", "x86_64"},
		RPM: RPMOptions{WeakDeps: true, Best: true},
		Repos: []Repo{
			{ID: "base", Arch: "aarch64", BaseURL: "https://mirror.example/aarch64/", Repomd: sum("r1"), Priority: 99},
			{ID: "base", Arch: "x86_64", BaseURL: "https://mirror.example/x86_64/", Repomd: sum("r2"), Priority: 10, GPGCheck: true, RepoGPGCheck: true, Keys: []string{"ABCD"}},
		},
		Sets: []Set{
			{Name: "initrd", Packages: []string{"systemd"}, Modules: []string{"dm-verity"}},
			{Name: "root", Packages: []string{"bash"}, Only: []ArchPackages{{Arch: "x86_64", Packages: []string{"dmidecode"}}}, Exclude: []string{"dnf"}},
		},
		Payloads: []Payload{{Kind: "go", Name: "agent", Source: "agent", Toolchain: "go1.26.0"}, {Kind: "cargo", Name: "guest", Source: "guest"}},
		Steps: []Step{
			{Go: &GoStep{Input: "agent", Package: "./cmd/agent", To: "/usr/bin/agent", LDFlags: "-s"}},
			{Cargo: &CargoStep{Input: "guest", Bin: "guest", To: "/usr/bin/guest", Features: []string{"a"}}},
			{Run: "true"},
		},
		Image: image, Variants: []Variant{{Name: "debug", Image: debug}},
		Inputs: []Input{
			{Kind: KindCrate, Name: "itoa-1.0.18.crate", PURL: "pkg:cargo/itoa@1.0.18", URL: "itoa/1.0.18", SHA256: sum("itoa"), Registry: "registry+https://x", For: []Use{{Set: "cargo:guest", By: "guest", Dep: "Cargo.lock"}}},
			{Kind: KindFile, Name: "blob", URL: "https://example.org/blob", SHA256: sum("blob"), For: []Use{{By: "inputs.files blob"}}},
			{Kind: KindGo, Name: "a.b/c@v1.0.0.zip", PURL: "pkg:golang/a.b/c@v1.0.0", URL: "a.b/c/@v/v1.0.0.zip", Size: 5, SHA256: sum("go"), Go: &Go{Module: "a.b/c", Version: "v1.0.0", H1: h1}},
			{Kind: KindKey, Name: "KEY", URL: "KEY", Size: 3, SHA256: sum("key"), Fingerprint: "ABCD,EF01"},
			{Kind: KindRepodata, Name: "base-x86_64/repomd.xml", URL: "repodata/repomd.xml", Repo: "base", Size: 7, SHA256: sum("r2"), For: []Use{{Arch: "x86_64", By: "repository base"}}},
			{Kind: KindRPM, Name: "bash-1:5-1.noarch", PURL: "pkg:rpm/bash@5-1", URL: "b/bash.rpm", Repo: "base", Size: 9, SHA256: sum("bash"),
				RPM: &RPM{Name: "bash", Epoch: 1, Version: "5", Release: "1", Arch: "noarch", SourceRPM: "bash-5-1.src.rpm", Module: "m:s:1:c", BuildTime: 1700000000, Signed: true},
				For: []Use{{Arch: "aarch64", Set: "root", By: "bash"}, {Arch: "x86_64", Set: "root", By: "systemd-1-1.x86_64", Dep: "/bin/sh"}}},
			{Kind: KindToolchain, Name: "golang.org/toolchain@v0.0.1-go1.26.0.linux-amd64.zip", URL: "golang.org/toolchain/@v/x.zip", SHA256: sum("tc"), Go: &Go{Module: "golang.org/toolchain", Version: "v0.0.1-go1.26.0.linux-amd64", H1: h1}},
			{Kind: KindTree, Name: "agent", URL: "agent", Size: 1024, SHA256: sum("agent"), Tree: &Tree{Commit: "0123", Dirty: true}},
			{Kind: KindTree, Name: "guest", URL: "guest", Size: 1024, SHA256: sum("guest")},
			{Kind: KindTree, Name: "rootfs", URL: "rootfs", Size: 1024, SHA256: sum("rootfs")},
		},
	}
}

func format(t *testing.T, l *Lock) []byte {
	t.Helper()
	b, err := Format(l)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestFormatGolden(t *testing.T) {
	got := format(t, sample())
	golden := filepath.Join("testdata", "golden.lock")
	if *update {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s: got\n%s", golden, got)
	}
	l, err := Parse(golden, want)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(l, sample()) {
		t.Errorf("Parse(Format(l)) is not l: got %+v", l)
	}
	d, err := l.Digest()
	if err != nil || d != digest.Of(want) {
		t.Errorf("digest: got %s, %v, want %s", d, err, digest.Of(want))
	}
}

// TestFormatNil checks that a list that is nil has the text of an empty one.
func TestFormatNil(t *testing.T) {
	a := &Lock{Version: Version, Revision: Revision, Name: "x", Manifest: digest.Of(nil), Sets: []Set{{Name: "root"}}, Variants: []Variant{{Name: "v"}}}
	b := format(t, a)
	if bytes.Contains(b, []byte("null")) {
		t.Errorf("got\n%s", b)
	}
	l, err := Parse("l", b)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(format(t, l), b) || a.Arches != nil || a.Sets[0].Packages != nil {
		t.Error("the text differs, or the lock was changed")
	}
	if _, err := Parse("l", bytes.Replace(b, []byte(`"repos": []`), []byte(`"repos": null`), 1)); err == nil {
		t.Error("null was accepted")
	}
}

// TestParseEdited edits the text of a lock.
func TestParseEdited(t *testing.T) {
	text := string(format(t, sample()))
	const by = "was it edited by hand? `caisson lock` writes it anew"
	for _, tt := range []struct{ old, new, want string }{
		{"", "", ""},
		{"  \"name\": \"podvm\",\n", "  \"name\":  \"podvm\",\n", "l:4: not as a lock is written: " + by},
		{"  \"name\": \"podvm\",\n", "", "l:4: not as a lock is written: " + by},
		{"  \"name\": \"podvm\",\n", "  \"name\": \"podvm\",\n  \"name\": \"podvm\",\n", "l:5: not as a lock is written: " + by},
		{"  \"name\":", "  \"Name\":", "l:4: not as a lock is written: " + by},
		{"  \"name\": \"podvm\",\n", "  \"name\": \"podvm\",\n  \"extra\": {\n  },\n", `l:5: unknown field "extra": not as a lock is written: ` + by},
		{"\"priority\": 10,", "\"priority\": 10,\n      \"price\": 3,", `l:37: unknown field "price": not as a lock is written: ` + by},
		{"<&>", `\u003c&>`, "l:120: not as a lock is written: " + by},
		{"\"dirty\": true", "\"dirty\": false", "l:264: not as a lock is written: " + by},
		{"\"version\": 1,\n  \"rev", "\"version\": 2,\n  \"future\": 1,\n  \"rev", "l: a lock of version 2; this Caisson reads version 1"},
		{"\"version\": 1,\n  \"rev", "\"version\": \"1\",\n  \"rev", "l:2: version: want a whole number, got string"},
		{"\"priority\": 10,", "\"priority\": 1.5,", "l:36: repos.priority: want a whole number, got number 1.5"},
		{"\"epoch\": 1700000000", "\"epoch\": true", "l:12: epoch: want a whole number, got bool"},
		{"\"manifest\": \"sha", "\"manifest\": 5, \"x\": \"sha", "l:5: manifest: want a string, got number"},
		{"\"revision\": 3,", "\"revision\": 0,", "l: revision 0: want 1 or more"},
		{"\"name\": \"podvm\"", "\"name\": \"Pod\"", `l: name "Pod": want lower-case letters, digits, '.', '_' and '-'`},
		{"\"epoch\": 1700000000", "\"epoch\": -1", "l: epoch -1: want seconds since 1970, at most 4294967295"},
	} {
		edited := strings.Replace(text, tt.old, tt.new, 1)
		if tt.old != "" && edited == text {
			t.Errorf("%q is not in the lock", tt.old)
		}
		_, err := Parse("l", []byte(edited))
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || err.Error() != tt.want) {
			t.Errorf("%q\ngot  %v\nwant %s", tt.new, err, tt.want)
		}
	}
	for _, tt := range []struct{ text, want string }{
		{"", "l:1: the file is empty"},
		{" \n", "l:1: the file is empty"},
		{"[]", "l:1: want an object, got array"},
		{"{}", "l: a lock of version 0; this Caisson reads version 1"},
		{text[:len(text)/2], "unexpected end of JSON input"},
		{text[:len(text)-1], "l:283: not as a lock is written: " + by},
		{text + "\n", "l:284: not as a lock is written: " + by},
		{text + "{}", "l:284: invalid character '{' after top-level value"},
		{strings.Replace(text, "sha256:", "md5:", 1), `l: digest "md5:`},
		{"\xef\xbb\xbf" + text, "l:1: invalid character"},
	} {
		if _, err := Parse("l", []byte(tt.text)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%.20q\ngot  %v\nwant %s", tt.text, err, tt.want)
		}
	}
	if _, err := Parse("l", make([]byte, maxLock+1)); err == nil || !strings.Contains(err.Error(), "more than the") {
		t.Errorf("got %v", err)
	}
}

// TestParseCheck changes locks in ways that their text does not show.
func TestParseCheck(t *testing.T) {
	var zero digest.Digest
	for _, tt := range []struct {
		change func(l *Lock)
		want   string
	}{
		{func(l *Lock) { l.Manifest = zero }, "no digest of the manifest"},
		{func(l *Lock) { l.Repos[0].ID = "" }, "a repository without an id"},
		{func(l *Lock) { l.Repos[0], l.Repos[1] = l.Repos[1], l.Repos[0] }, `repository "base" (aarch64) is there twice, or not in its place`},
		{func(l *Lock) { l.Repos[1].Arch = "aarch64" }, `repository "base" (aarch64) is there twice, or not in its place`},
		{func(l *Lock) { l.Repos[0].BaseURL = "https://x" }, `repository "base" (aarch64): baseurl "https://x" does not end in a slash`},
		{func(l *Lock) { l.Repos[0].Repomd = zero }, `repository "base" (aarch64): no digest of its repomd.xml`},
		{func(l *Lock) { l.Repos[1].Keys = nil }, `repository "base" (x86_64): its signatures are to be checked, and it has no key`},
		{func(l *Lock) { l.Inputs[0], l.Inputs[1] = l.Inputs[1], l.Inputs[0] }, "input crate itoa-1.0.18.crate is not in its place: they are sorted by kind and name"},
		{func(l *Lock) { l.Inputs[8].Name = "agent" }, "input tree agent is there twice"},
		{func(l *Lock) { l.Inputs[0].Name = "" }, "input crate : no name"},
		{func(l *Lock) { l.Inputs[0].Name += "\x00\x1b[2J" }, `input "crate" "itoa-1.0.18.crate\x00\x1b[2J": url "itoa/1.0.18": want no control characters`},
		{func(l *Lock) { l.Inputs[1].URL = "a\nb" }, `input "file" "blob": url "a\nb": want no control characters`},
		{func(l *Lock) { l.Inputs[1].SHA256 = zero }, "input file blob: no sha256"},
		{func(l *Lock) { l.Inputs[1].Size = -1 }, "input file blob: size -1"},
		{func(l *Lock) { l.Inputs[1].Kind = "fle" }, `input fle blob: kind "fle" is not known to this Caisson`},
		{func(l *Lock) { l.Inputs[5].RPM = nil }, "input rpm bash-1:5-1.noarch: rpm details belong to packages, and packages have them"},
		{func(l *Lock) { l.Inputs[1].RPM = &RPM{} }, "input file blob: rpm details belong to packages, and packages have them"},
		{func(l *Lock) { l.Inputs[2].Go = nil }, "input go a.b/c@v1.0.0.zip: go details belong to Go modules and toolchains, and these have them"},
		{func(l *Lock) { l.Inputs[5].Repo = "none" }, `input rpm bash-1:5-1.noarch: there is no repository "none"`},
		{func(l *Lock) { l.Inputs[5].Repo = "" }, "input rpm bash-1:5-1.noarch: no repository"},
		{func(l *Lock) { l.Inputs[5].URL = "../x.rpm" }, `input rpm bash-1:5-1.noarch: url "../x.rpm" is not below its repository`},
		{func(l *Lock) { l.Inputs[5].URL = "/x.rpm" }, `input rpm bash-1:5-1.noarch: url "/x.rpm" is not below its repository`},
		{func(l *Lock) { l.Inputs[2].URL = "" }, `input go a.b/c@v1.0.0.zip: url "" is not below its repository`},
		{func(l *Lock) { f := l.Inputs[5].For; f[0], f[1] = f[1], f[0] }, "input rpm bash-1:5-1.noarch: its uses are not sorted, or one is there twice"},
		{func(l *Lock) { f := l.Inputs[5].For; f[0] = f[1] }, "input rpm bash-1:5-1.noarch: its uses are not sorted, or one is there twice"},
		{func(l *Lock) { l.Payloads[0].Source = "none" }, `payload "agent": its source "none" is not among the inputs`},
		{func(l *Lock) { l.Steps[0].Go.Input = "none" }, `step 0: there is no Go payload "none"`},
		{func(l *Lock) { l.Steps[0].Go.Arch = "arm64" }, `step 0: a Go program for "arm64" is not made, or not with cgo`},
		{func(l *Lock) { l.Steps[1].Cargo.Input = "agent" }, `step 1: there is no Cargo payload "agent"`},
		{func(l *Lock) { l.Steps[2].Run = "" }, "step 2: want exactly one of go, cargo, run"},
		{func(l *Lock) { l.Steps[0].Run = "x" }, "step 0: want exactly one of go, cargo, run"},
		{func(l *Lock) { l.Image.Overlay = []string{"none"} }, `overlay "none" is not among the inputs`},
		{func(l *Lock) { l.Variants[0].Image.Overlay = []string{"none"} }, `overlay "none" is not among the inputs`},
	} {
		l := sample()
		tt.change(l)
		if _, err := Parse("l", format(t, l)); err == nil || err.Error() != "l: "+tt.want {
			t.Errorf("got  %v\nwant l: %s", err, tt.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	b, err := os.ReadFile(filepath.Join("testdata", "golden.lock"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"version": 1}`))
	f.Add([]byte(`{"version": 1, "repos": null, "inputs": [{"rpm": {}}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := Parse("l", b)
		if err != nil {
			return
		}
		again, err := Format(l)
		if err != nil || !bytes.Equal(again, b) {
			t.Errorf("Format(Parse(b)) is not b: %v\n%s", err, again)
		}
	})
}

func TestQuestions(t *testing.T) {
	l := sample()
	if in := l.Find(KindKey, "KEY"); !reflect.DeepEqual(in.Fingerprints(), []string{"ABCD", "EF01"}) || l.Find(KindKey, "x") != nil {
		t.Errorf("got %+v", in)
	}
	if got := l.Of("x86_64", "root"); len(got) != 1 || got[0].RPM.EVR() != "1:5-1" {
		t.Errorf("got %v", got)
	}
	if got := l.Of("s390x", "root"); got != nil {
		t.Errorf("got %v", got)
	}
	if got := l.Of("x86_64", "cargo:guest"); len(got) != 1 {
		t.Errorf("got %v", got)
	}
	for name, want := range map[string]string{
		"bash-1:5-1.noarch": "https://mirror.example/aarch64/b/bash.rpm", "base-x86_64/repomd.xml": "https://mirror.example/x86_64/repodata/repomd.xml",
		"blob": "https://example.org/blob", "itoa-1.0.18.crate": "",
	} {
		for i := range l.Inputs {
			if in := &l.Inputs[i]; in.Name == name {
				if got, ok := l.RepoURL(in); ok != (want != "") || ok && got != want {
					t.Errorf("%s: got %q, %v, want %q", name, got, ok, want)
				}
			}
		}
	}
	if got := l.Sets[1].PackagesFor("x86_64"); !reflect.DeepEqual(got, []string{"bash", "dmidecode"}) {
		t.Errorf("got %v", got)
	}
	if got := l.Sets[1].PackagesFor("aarch64"); !reflect.DeepEqual(got, []string{"bash"}) {
		t.Errorf("got %v", got)
	}
	if im, ok := l.ImageFor("debug"); !ok || !strings.HasSuffix(im.Cmdline, " debug") {
		t.Errorf("got %+v", im)
	}
	if _, ok := l.ImageFor("none"); ok {
		t.Error("there is no such variant")
	}
	if im, ok := l.ImageFor(""); !ok || strings.HasSuffix(im.Cmdline, "debug") {
		t.Errorf("got %+v", im)
	}
	l.Sets = append(l.Sets, Set{Name: SetName("root", "debug")})
	if a, b := l.SetFor("root", "debug"), l.SetFor("initrd", "debug"); a != "root+debug" || b != "initrd" {
		t.Errorf("got %s, %s", a, b)
	}
}
