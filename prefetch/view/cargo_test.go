package view

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"caisson/lock"
	"caisson/lock/cargo"
	"caisson/lock/tooltest"
	"caisson/prefetch/cas"
)

const alt = "sparse+https://crates.example.org/index/"

// crate makes a .crate as cargo publishes it.
func crate(t *testing.T, s *cas.Store, source, name, version, more, body string) lock.Input {
	t.Helper()
	var b bytes.Buffer
	gz := gzip.NewWriter(&b)
	tw := tar.NewWriter(gz)
	for _, f := range []struct{ name, content string }{
		{"Cargo.toml", "[package]\nedition = \"2021\"\nname = \"" + name + "\"\nversion = \"" + version + "\"\n" + more},
		{"src/lib.rs", body},
		{"make.rs", "fn main() { println!(\"cargo:rustc-env=HELPED={}\", helper::name()); }\n"},
	} {
		if err := tw.WriteHeader(&tar.Header{Name: name + "-" + version + "/" + f.name, Size: int64(len(f.content)), Mode: 0o644}); err != nil {
			t.Fatal(err)
		}
		if _, err := tw.Write([]byte(f.content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	if err := gz.Close(); err != nil {
		t.Fatal(err)
	}
	return lock.Input{
		Kind: lock.KindCrate, Name: name + "-" + version + ".crate", URL: name + "/" + version, Registry: source, SHA256: put(t, s, b.Bytes()),
	}
}

func realCargo(t *testing.T) string {
	t.Helper()
	if out, err := exec.Command("rustup", "which", "cargo").Output(); err == nil {
		return strings.TrimSpace(string(out))
	}
	return tooltest.Find(t, "cargo")
}

// cargoWorld is a program of crates of two registries.
func cargoWorld(t *testing.T, s *cas.Store) (l *lock.Lock, source string) {
	t.Helper()
	l = &lock.Lock{Inputs: []lock.Input{
		crate(t, s, cargo.CratesIO, "one", "1.2.0+meta", "[features]\nextra = [\"dep:two\"]\n[dependencies.two]\nversion = \"1\"\noptional = true\n",
			"pub fn name() -> String { format!(\"one {}\", two::name()) }\n"),
		crate(t, s, cargo.CratesIO, "two", "1.0.0", "", "pub fn name() -> &'static str { \"old two\" }\n"),
		crate(t, s, cargo.CratesIO, "two", "1.0.1", "", "pub fn name() -> &'static str { \"two\" }\n"),
		crate(t, s, alt, "other", "0.1.0", "", "pub fn name() -> &'static str { \"other\" }\n"),
	}}
	used := append(l.Inputs[:1:1], l.Inputs[2:]...) // not the old one
	text := cargoLock(used, map[string][]string{"app": {"one", "other"}, "one": {"two"}})
	source = t.TempDir()
	for name, content := range map[string]string{
		"Cargo.toml": "[package]\nname = \"app\"\nversion = \"0.1.0\"\nedition = \"2021\"\n\n[dependencies]\n" +
			"one = { version = \"1\", features = [\"extra\"] }\nother = { version = \"0.1\", registry = \"corp\" }\n",
		".cargo/config.toml": "[registries.corp]\nindex = \"" + alt + "\"\n",
		"Cargo.lock":         text,
		"src/main.rs":        "fn main() { println!(\"{} {}\", one::name(), other::name()); }\n",
	} {
		name = filepath.Join(source, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return l, source
}

func cargoTree(t *testing.T, s *cas.Store, l *lock.Lock, at string) *Tree {
	t.Helper()
	tree := New(s)
	sources, err := tree.Cargo(t.Context(), "", l)
	if err != nil {
		t.Fatal(err)
	}
	if err := tree.CargoConfig("", at, sources, nil); err != nil {
		t.Fatal(err)
	}
	return tree
}

func TestCargo(t *testing.T) {
	cargoTool := realCargo(t)
	s := newStore(t)
	l, source := cargoWorld(t, s)
	dir := filepath.Join(t.TempDir(), `a "view"`)
	tree := cargoTree(t, s, l, dir)
	if _, err := tree.Write(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	build := func() (string, error) {
		return run(t, source, []string{"CARGO_HOME=" + t.TempDir(), "PATH=" + filepath.Dir(cargoTool) + ":" + os.Getenv("PATH")},
			append(offline(t), cargoTool, "run", "--quiet", "--locked", "--offline", "--config", dir+"/config.toml", "--target-dir", t.TempDir())...)
	}
	if out, err := build(); err != nil || out != "one two other\n" {
		t.Errorf("%v\n%s", err, out)
	}
	// Another crate under the name of a locked one.
	evil := crate(t, s, cargo.CratesIO, "two", "1.0.1", "", "pub fn name() -> &'static str { \"evil\" }\n")
	l.Inputs[2].SHA256 = evil.SHA256
	if _, err := cargoTree(t, s, l, dir).Write(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	if out, err := build(); err == nil || !strings.Contains(out, "checksum") {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestCargoAgain makes a view from what the store remembers, and from a store
// that remembers nothing.
func TestCargoAgain(t *testing.T) {
	s := newStore(t)
	l, _ := cargoWorld(t, s)
	first := listing(t, write(t, cargoTree(t, s, l, "/at")))
	if !strings.Contains(first, "crates-io/index/3/t/two ") || !strings.Contains(first, "crates-io/two-1.0.1.crate "+l.Inputs[2].SHA256.Hex()) {
		t.Errorf("got\n%s", first)
	}
	if again := listing(t, write(t, cargoTree(t, s, l, "/at"))); again != first {
		t.Errorf("got %s\nwant %s", again, first)
	}
	other := newStore(t)
	o, _ := cargoWorld(t, other)
	if again := listing(t, write(t, cargoTree(t, other, o, "/at"))); again != first {
		t.Errorf("got %s\nwant %s", again, first)
	}
	l.Inputs[1].URL = l.Inputs[0].URL
	if _, err := New(s).Cargo(t.Context(), "", &lock.Lock{Inputs: l.Inputs[1:2]}); err == nil {
		t.Error("a crate with the name of another was taken")
	}
	// No crates: a registry all the same, for cargo not to ask for the index.
	dir := write(t, cargoTree(t, s, &lock.Lock{}, "/at"))
	if fi, err := os.Stat(dir + "/crates-io/index"); err != nil || !fi.IsDir() {
		t.Errorf("no index: %v", err)
	}
}
