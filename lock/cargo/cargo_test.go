package cargo

import (
	"io/fs"
	"os"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
)

const (
	sumA = "8f42a60cbdf9a97f5d2305f08a87dc4e09308d1276d28c869c684d7777685682"
	sumB = "cf8baf1c55e62ffcace7a9f06f4bd9cd3f0c4beb022d3b367256b91b87513d98"
	alt  = "sparse+https://crates.example.org/index/"
)

func lock(s string) fs.FS {
	return fstest.MapFS{"Cargo.lock": &fstest.MapFile{Data: []byte(s)}}
}

func entry(name, version, source, checksum string) string {
	s := "\n[[package]]\nname = \"" + name + "\"\nversion = \"" + version + "\"\n"
	if source != "" {
		s += "source = \"" + source + "\"\n"
	}
	if checksum != "" {
		s += "checksum = \"" + checksum + "\"\n"
	}
	return s
}

func TestRead(t *testing.T) {
	a, b := Crate{"itoa", "1.0.18", CratesIO, sumA, ""}, Crate{"memchr", "2.8.3", CratesIO, sumB, ""}
	old := entry("memchr", "2.8.3", CratesIO, "") + entry("itoa", "1.0.18", CratesIO, "") + entry("dep", "0.1.0", "", "") +
		"\n[metadata]\n\"checksum itoa 1.0.18 (" + CratesIO + ")\" = \"" + sumA + "\"\n" +
		"\"checksum memchr 2.8.3 (" + CratesIO + ")\" = \"" + sumB + "\"\n"
	for name, s := range map[string]string{
		"version 1": "[root]\nname = \"x\"\nversion = \"0.1.0\"\ndependencies = [\n \"itoa 1.0.18 (" + CratesIO + ")\",\n]\n" + old,
		"version 2": entry("x", "0.1.0", "", "") + entry("memchr", "2.8.3", CratesIO, sumB) + entry("itoa", "1.0.18", CratesIO, sumA),
		"version 3": "version = 3\n" + entry("x", "0.1.0", "", "") + entry("memchr", "2.8.3", CratesIO, sumB) + entry("itoa", "1.0.18", CratesIO, sumA),
		"version 4": "# generated\nversion = 4\n" + entry("itoa", "1.0.18", CratesIO, sumA) + entry("memchr", "2.8.3", CratesIO, sumB) +
			"\n[[patch.unused]]\nname = \"y\"\nversion = \"1.0.0\"\n",
	} {
		got, err := Read(lock(s))
		if want := []Crate{a, b}; err != nil || !reflect.DeepEqual(got.Crates, want) || "version "+strconv.Itoa(got.Version) != name {
			t.Errorf("%s: got %v, %v, want %v", name, got, err, want)
		}
	}
	// The same crate of two registries is two crates; versions are sorted as versions.
	s := "version = 4\n" + entry("itoa", "1.0.18", CratesIO, sumA) + entry("itoa", "1.0.9", CratesIO, sumB) + entry("itoa", "1.0.9", alt, sumB)
	got, err := Read(lock(s))
	want := []Crate{{"itoa", "1.0.9", CratesIO, sumB, ""}, {"itoa", "1.0.9", alt, sumB, ""}, a}
	if err != nil || !reflect.DeepEqual(got.Crates, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	if got, err := Read(lock("version = 4\n" + entry("x", "0.1.0", "", ""))); err != nil || len(got.Crates) != 0 {
		t.Errorf("no dependencies: got %v, %v", got, err)
	}
}

func TestReadErrors(t *testing.T) {
	for want, s := range map[string]string{
		"no checksum":           entry("x", "1.0.0", CratesIO, ""),
		"want 64 lower-case":    entry("x", "1.0.0", CratesIO, "abcd"),
		"listed twice":          entry("x", "1.0.0", CratesIO, sumA) + entry("x", "1.0.0", CratesIO, sumB),
		"version 5":             "version = 5\n",
		"not a crate's name":    entry("../x", "1.0.0", CratesIO, sumA),
		"not a crate's vers":    entry("x", "1.0.0/../..", CratesIO, sumA),
		"want \"registry+URL\"": entry("x", "1.0.0", "path+file:///x", sumA),
		"Cargo.lock: toml":      "version = \n",
	} {
		if _, err := Read(lock(s)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q in it", err, want)
		}
	}
	if _, err := Read(fstest.MapFS{}); err == nil || !strings.Contains(err.Error(), "cargo generate-lockfile") {
		t.Errorf("no lock: %v", err)
	}
}

func TestDemoLock(t *testing.T) {
	got, err := Read(os.DirFS("../../lockfiles/demo/payload/guest"))
	if err != nil {
		t.Fatal(err)
	}
	names := ""
	for _, c := range got.Crates {
		names += c.Name + " "
	}
	if want := "itoa memchr proc-macro2 quote serde serde_core serde_derive serde_json syn unicode-ident zmij "; names != want {
		t.Errorf("got %s, want %s", names, want)
	}
}

func TestIndexPath(t *testing.T) {
	for name, want := range map[string]string{
		"a": "1/a", "ab": "2/ab", "aBc": "3/a/abc", "Serde": "se/rd/serde", "x-y-z": "x-/y-/x-y-z",
	} {
		if got := IndexPath(name); got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
}

func FuzzRead(f *testing.F) {
	if b, err := os.ReadFile("../../lockfiles/demo/payload/guest/Cargo.lock"); err == nil {
		f.Add(string(b))
	}
	f.Add("[root]\nname = \"x\"\n[metadata]\n\"checksum x 1 (y)\" = \"<none>\"\n" + entry("x", "1.0.0", CratesIO, sumA))
	f.Fuzz(func(t *testing.T, s string) {
		crates, err := Read(lock(s))
		if err != nil {
			return
		}
		for _, g := range crates.Git {
			if !commitID.MatchString(g.Commit) || strings.HasPrefix(g.Ref, "-") || len(g.Refs()) != 1 {
				t.Errorf("got %+v", g)
			}
		}
		for _, c := range crates.Crates {
			if !fs.ValidPath(c.File()) || strings.Contains(c.File(), "/") || !fs.ValidPath(IndexPath(c.Name)) {
				t.Errorf("%v lies at %q", c, c.File())
			}
		}
	})
}
