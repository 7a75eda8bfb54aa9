package facts

import (
	"archive/zip"
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/rpmpack"

	"caisson/attest/internal/fixture"
	"caisson/attest/spdx"
	"caisson/build"
	"caisson/lock"
	"caisson/lock/digest"
	"caisson/lock/license"
	"caisson/prefetch/cas"
)

const mit = "MIT License\n\n" // the text comes from the fixture

func licenseOf(t *testing.T) string {
	t.Helper()
	b := fixture.Archive(&lock.Input{Kind: lock.KindGo, Name: "m@v1.zip", Go: &lock.Go{Module: "m", Version: "v1"}})
	z, err := zip.NewReader(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	text, err := zipText(z.File[0])
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestModule(t *testing.T) {
	text := licenseOf(t)
	for _, id := range common {
		if e := license.Parse(id); len(e.Refs) > 0 {
			t.Errorf("%s is not in the SPDX list", id)
		}
	}
	for name, c := range map[string]struct {
		files map[string]string
		want  string // the licence
		none  bool   // no text at all
	}{
		"one":          {files: map[string]string{"LICENSE": text}, want: "MIT"},
		"small":        {files: map[string]string{"license.md": mit + text}, want: "MIT"},
		"below":        {files: map[string]string{"sub/LICENSE": text, "main.go": "package main"}, none: true},
		"nothing":      {files: map[string]string{"go.mod": "module m"}, none: true},
		"words":        {files: map[string]string{"LICENSE": "You may look at this on Sundays, and show it to your friends."}},
		"mostly words": {files: map[string]string{"COPYING": strings.Repeat("Nobody knows what this means here. ", 100) + text}},
		"twice":        {files: map[string]string{"LICENSE": text, "LICENSE-MIT": text}, want: "MIT"},
	} {
		b := fixture.Zip("m@v1/", c.files)
		f, err := ofModule(bytes.NewReader(b), int64(len(b)), "m@v1/")
		switch {
		case err != nil:
			t.Errorf("%s: %v", name, err)
		case c.none != (f.Text == nil):
			t.Errorf("%s: got %+v", name, f.Text)
		case f.Text != nil && f.Text.License != c.want:
			t.Errorf("%s: got %q (%.1f%%), want %q", name, f.Text.License, f.Text.Percent, c.want)
		}
	}
	if _, err := ofModule(bytes.NewReader([]byte("PK")), 2, "m@v1/"); err == nil {
		t.Error("a cut zip is read")
	}
	long := fixture.Zip("m@v1/", map[string]string{"LICENSE": strings.Repeat("x", maxText+1)})
	if _, err := ofModule(bytes.NewReader(long), int64(len(long)), "m@v1/"); err == nil || !strings.Contains(err.Error(), "LICENSE") {
		t.Errorf("a licence without end: got %v", err)
	}
}

func TestCrate(t *testing.T) {
	text := licenseOf(t)
	for name, c := range map[string]struct {
		files         map[string]string
		license, text string
		fails         bool
	}{
		"declared":  {files: map[string]string{"Cargo.toml": "[package]\nlicense = \"MIT OR Apache-2.0\"\n"}, license: "MIT OR Apache-2.0"},
		"older":     {files: map[string]string{"Cargo.toml": "[package]\nlicense = \"MIT/Apache-2.0\"\n"}, license: "MIT OR Apache-2.0"},
		"file":      {files: map[string]string{"Cargo.toml": "[package]\nlicense-file = \"LICENSE\"\n", "LICENSE": text}, text: "MIT"},
		"neither":   {files: map[string]string{"Cargo.toml": "[package]\nname = \"x\"\n"}},
		"no TOML":   {files: map[string]string{"Cargo.toml": "[package"}, fails: true},
		"very long": {files: map[string]string{"Cargo.toml": strings.Repeat("#", maxText+1)}, fails: true},
	} {
		b := fixture.Crate("x-1.0.0", c.files)
		f, err := ofCrate(iotest.HalfReader(bytes.NewReader(b)), "x-1.0.0")
		if (err != nil) != c.fails {
			t.Errorf("%s: got %v", name, err)
			continue
		}
		got := ""
		if f.Text != nil {
			got = f.Text.License
		}
		if f.License != c.license || got != c.text {
			t.Errorf("%s: got %q and %q, want %q and %q", name, f.License, got, c.license, c.text)
		}
	}
	if _, err := ofCrate(iotest.ErrReader(bytes.ErrTooLarge), "x-1.0.0"); err == nil {
		t.Error("an error of the reader is lost")
	}
}

// TestSystem reads an os-release out of a package.
func TestSystem(t *testing.T) {
	store, err := cas.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	r, err := rpmpack.NewRPM(rpmpack.RPMMetaData{Name: "example-release", Version: "9", Release: "1", Arch: "noarch", Vendor: "Example", Licence: "GPLv2",
		Requires: rpmpack.Relations{{Name: "setup", Version: "2.8-1", Sense: rpmpack.SenseGreater | rpmpack.SenseEqual}}})
	if err != nil {
		t.Fatal(err)
	}
	body := "NAME=\"Example Linux\"\nID='example'\nVERSION_ID=\"9\"\n# a comment\nCPE_NAME=\"cpe:/o:example:example:9\"\n"
	r.AddFile(rpmpack.RPMFile{Name: osRelease, Body: []byte(body), Mode: 0o100644, Owner: "root", Group: "root"})
	var b bytes.Buffer
	if err := r.Write(&b); err != nil {
		t.Fatal(err)
	}
	in := lock.Input{Kind: lock.KindRPM, Name: "example-release-9-1.noarch", RPM: &lock.RPM{Name: "example-release"}}
	if in.SHA256, _, err = store.Put(&b, digest.Digest{}); err != nil {
		t.Fatal(err)
	}
	l := &lock.Lock{Inputs: []lock.Input{in}}
	files := []build.File{{Part: "initrd", Path: osRelease}, {Part: "root", Path: osRelease, Inputs: []string{"tree/rootfs", "rpm/" + in.Name}}}
	got, err := System(store, l, files)
	want := spdx.System{Input: "rpm/" + in.Name, ID: "example", VersionID: "9", CPE: "cpe:/o:example:example:9"}
	if err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	if got, err := System(store, l, files[:1]); err != nil || got != (spdx.System{}) {
		t.Errorf("without the file: got %+v, %v", got, err)
	}
	f, err := Of(store)(&in)
	if err != nil {
		t.Fatal(err)
	}
	if f.License != "GPLv2" || f.Vendor != "Example" || len(f.Paths) != 1 || f.Paths[0] != osRelease {
		t.Errorf("got %+v", f)
	}
	if !strings.Contains(strings.Join(text(f.Requires), "\n"), "setup >= 2.8-1") {
		t.Errorf("got the requirements %v", f.Requires)
	}
	in.SHA256 = digest.Of([]byte("elsewhere"))
	if _, err := Of(store)(&in); err == nil {
		t.Error("a package that the store does not have is read")
	}
}

func text(deps []spdx.Dependency) []string {
	var out []string
	for _, d := range deps {
		out = append(out, d.String())
	}
	return out
}

// TestRealPackages reads what distributions have built.
func TestRealPackages(t *testing.T) {
	names, err := filepath.Glob("../../../../shared/data/rpms/*.rpm")
	if err != nil {
		t.Fatal(err)
	}
	if len(names) == 0 {
		t.Skip("no packages in ../shared/data")
	}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		facts, err := ofRPM(bytes.NewReader(b))
		if err != nil {
			t.Logf("%s: %v", filepath.Base(name), err) // one of them is damaged on purpose
			continue
		}
		if facts.License == "" || len(facts.Provides) == 0 {
			t.Errorf("%s: got %+v", name, facts)
		}
	}
}

func FuzzCrate(f *testing.F) {
	f.Add(fixture.Crate("x-1.0.0", map[string]string{"Cargo.toml": "[package]\nlicense = \"MIT\"\n", "LICENSE": "text"}))
	f.Fuzz(func(_ *testing.T, b []byte) {
		_, _ = ofCrate(bytes.NewReader(b), "x-1.0.0")
	})
}

func FuzzModule(f *testing.F) {
	f.Add(fixture.Zip("m@v1/", map[string]string{"LICENSE": "text", "go.mod": "module m"}))
	f.Fuzz(func(_ *testing.T, b []byte) {
		_, _ = ofModule(bytes.NewReader(b), int64(len(b)), "m@v1/")
	})
}
