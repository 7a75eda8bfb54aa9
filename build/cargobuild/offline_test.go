package cargobuild

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"caisson/lock/cargo"
	"caisson/lock/digest"
	"caisson/prefetch/view"
)

// missing skips a test that wants a tool; where tools are required it fails.
func missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("CAISSON_TOOLS") == "required" {
		t.Fatal(what)
	}
	t.Skip(what)
}

// makeCrate writes a .crate as cargo publishes it: deps and more is what
// follows [package] in its manifest, body its lib.rs.
func makeCrate(t *testing.T, source, name, version, more, body string) File {
	t.Helper()
	files := []struct{ name, content string }{
		{"Cargo.toml", "[package]\nedition = \"2021\"\nname = \"" + name + "\"\nversion = \"" + version + "\"\n" + more},
		{"src/lib.rs", body},
	}
	if strings.Contains(more, "build-dependencies") {
		files = append(files, struct{ name, content string }{"build.rs", "fn main() { println!(\"cargo::rustc-env=HELPED={}\", helper::help()); }\n"})
	}
	var b bytes.Buffer
	gz := gzip.NewWriter(&b)
	tw := tar.NewWriter(gz)
	for _, f := range files {
		if err := tw.WriteHeader(&tar.Header{Name: name + "-" + version + "/" + f.name, Size: int64(len(f.content)), Mode: 0o644}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(tw, f.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	if err := gz.Close(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "blob")
	if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	c := cargo.Crate{Name: name, Version: version, Source: source, Checksum: digest.Of(b.Bytes()).Hex()}
	return File{Crate: c, Path: file}
}

// realCargo is the machine's cargo, beside its rustc: not rustup's.
func realCargo(t *testing.T) string {
	t.Helper()
	if out, err := exec.Command("rustup", "which", "cargo").Output(); err == nil {
		return strings.TrimSpace(string(out))
	}
	p, err := exec.LookPath("cargo")
	if err != nil {
		missing(t, "no cargo: "+err.Error())
	}
	return p
}

// build lays out crates and builds the program bin of a source folder, at
// paths that are the same for every build as in the sandbox, and with no
// network. It returns the program or, with the error, what cargo said.
func build(t *testing.T, source, bin string, features []string, files []File, repos ...view.GitRepo) ([]byte, error) {
	t.Helper()
	if out, err := exec.Command("unshare", "-rmn", "mount", "-t", "tmpfs", "none", "/mnt").CombinedOutput(); err != nil {
		missing(t, "no user namespace: "+string(out))
	}
	dir := t.TempDir()
	j := Job{
		Cargo: realCargo(t), Config: "/mnt/in/config.toml", Source: "/mnt/source", Tmp: "/mnt/tmp",
		Bin: bin, Features: features, Epoch: 1700000000,
	}
	if err := LocalRegistry(dir+"/registries", files); err != nil {
		t.Fatal(err)
	}
	locked := &cargo.Lock{}
	for _, f := range files {
		locked.Crates = append(locked.Crates, f.Crate)
	}
	for _, r := range repos {
		locked.Git = append(locked.Git, r.Git)
	}
	if len(repos) > 0 {
		j.Git = "/mnt/in/git"
		if err := view.GitRepositories(dir+"/git", j.Git, repos); err != nil {
			t.Fatal(err)
		}
	}
	config := Config("/mnt/in/registries", j, locked)
	if err := os.WriteFile(dir+"/config.toml", config, 0o600); err != nil {
		t.Fatal(err)
	}
	script := `set -e
		mount -t tmpfs none /mnt
		mkdir /mnt/in /mnt/source /mnt/tmp
		mount --bind "$1" /mnt/in
		mount --bind "$2" /mnt/source
		mount -o remount,bind,ro /mnt/source
		out=$3 program=$4
		shift 4
		cd /mnt/source
		"$@"
		cp "$program" "$out"`
	out := filepath.Join(dir, "program")
	cmd := exec.Command("unshare", append([]string{"-rmn", "sh", "-c", script, "sh", dir, source, out, j.Program()}, j.Args()...)...)
	cmd.Env = j.Env()
	if said, err := cmd.CombinedOutput(); err != nil {
		return said, err
	}
	return os.ReadFile(out)
}

func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, s := range files {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// lockOf is a Cargo.lock of the crates and of the package app.
func lockOf(files []File, deps map[string][]string) string {
	s := "version = 3\n"
	add := func(name, version, more string) {
		s += "\n[[package]]\nname = \"" + name + "\"\nversion = \"" + version + "\"\n" + more
		if d := deps[name]; len(d) > 0 {
			s += "dependencies = [\n \"" + strings.Join(d, "\",\n \"") + "\",\n]\n"
		}
	}
	add("app", "0.1.0", "")
	for _, f := range files {
		add(f.Crate.Name, f.Crate.Version, "source = \""+f.Crate.Source+"\"\nchecksum = \""+f.Crate.Checksum+"\"\n")
	}
	return s
}

// sample is a program with every kind of dependency that an index line has
// words for, from crates that no registry has.
func sample(t *testing.T) (map[string]string, []File) {
	files := []File{
		makeCrate(t, cargo.CratesIO, "direct", "1.2.0",
			"[features]\ndefault = [\"loud\"]\nloud = []\nextra = [\"dep:optional\", \"weak?/more\"]\n"+
				"[dependencies.optional]\nversion = \"1\"\noptional = true\n"+
				"[dependencies.weak]\nversion = \"1\"\noptional = true\n"+
				"[dependencies.alias]\nversion = \"0.3\"\npackage = \"Real_name\"\n"+
				"[target.'cfg(unix)'.dependencies.unixy]\nversion = \"1\"\n"+
				"[target.'cfg(windows)'.dependencies.unixy]\nversion = \"1\"\nfeatures = [\"never\"]\n"+
				"[dev-dependencies.nowhere]\nversion = \"9\"\n",
			"pub fn name() -> String { format!(\"direct {} {} {} {}\", alias::name(), unixy::name(), "+
				"cfg!(feature = \"loud\"), cfg!(feature = \"extra\")) }\n#[cfg(feature = \"extra\")] pub use optional::name as optional_name;\n"),
		makeCrate(t, cargo.CratesIO, "helper", "1.0.0", "", "pub fn help() -> String { \"built\".to_string() }\n"),
		makeCrate(t, cargo.CratesIO, "optional", "1.0.5", "", "pub fn name() -> &'static str { \"optional\" }\n"),
		makeCrate(t, cargo.CratesIO, "Real_name", "0.3.1", "[build-dependencies.helper]\nversion = \"1\"\n", "pub fn name() -> &'static str { env!(\"HELPED\") }\n"),
		makeCrate(t, cargo.CratesIO, "unixy", "1.0.0", "[features]\nnever = []\n", "pub fn name() -> &'static str { file!() }\n"),
		makeCrate(t, cargo.CratesIO, "weak", "1.0.0", "[features]\nmore = []\n", ""),
		makeCrate(t, alt, "other", "0.1.0", "[dependencies.unixy]\nversion = \"1\"\n", "pub fn name() -> &'static str { \"other\" }\n"),
	}
	lock := lockOf(files, map[string][]string{
		"app": {"direct", "other"}, "direct": {"Real_name", "optional", "unixy", "weak"}, "Real_name": {"helper"}, "other": {"unixy"},
	})
	return map[string]string{
		"Cargo.toml": "[package]\nname = \"app\"\nversion = \"0.1.0\"\nedition = \"2021\"\n\n[features]\nextra = [\"direct/extra\"]\n\n" +
			"[dependencies]\ndirect = \"1\"\nother = { version = \"0.1\", registry = \"corp\" }\n",
		".cargo/config.toml": "[registries.corp]\nindex = \"" + alt + "\"\n\n[build]\nrustflags = [\"--cfg\", \"from_source\"]\n",
		"Cargo.lock":         lock,
		"src/main.rs": "fn main() { println!(\"{} {} {} {}\", direct::name(), direct::optional_name(), other::name(), cfg!(from_source));\n" +
			"    if std::env::args().len() > 9 { panic!(\"too many\"); } }\n",
	}, files
}

// TestOfflineBuild builds a program twice, from two folders.
func TestOfflineBuild(t *testing.T) {
	source, files := sample(t)
	var programs [][]byte
	for _, name := range []string{"a", "a longer folder"} {
		dir := filepath.Join(t.TempDir(), name)
		write(t, dir, source)
		locked, err := cargo.Read(os.DirFS(dir))
		if err != nil || len(locked.Crates) != len(files) {
			t.Fatalf("got %v, %v, want %d crates", locked, err, len(files))
		}
		program, err := build(t, dir, "app", []string{"extra"}, files)
		if err != nil {
			t.Fatalf("%v\n%s", err, program)
		}
		programs = append(programs, program)
	}
	if !bytes.Equal(programs[0], programs[1]) {
		t.Error("two builds differ")
	}
	for _, path := range []string{"/mnt/", os.TempDir() + "/"} {
		if bytes.Contains(programs[0], []byte(path)) {
			t.Errorf("the program holds a path below %s", path)
		}
	}
	exe := filepath.Join(t.TempDir(), "app")
	if err := os.WriteFile(exe, programs[0], 0o700); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(exe).Output()
	if err != nil || !strings.HasPrefix(string(out), "direct built /crates/") ||
		!strings.HasSuffix(string(out), "/unixy-1.0.0/src/lib.rs true true optional other true\n") {
		t.Errorf("got %q, %v", out, err)
	}
}

// TestDamage shows who notices what does not fit the lock.
func TestDamage(t *testing.T) {
	source, files := sample(t)
	evil := makeCrate(t, cargo.CratesIO, "helper", "1.0.0", "", "pub fn help() -> String { \"evil\".to_string() }\n")
	// The registry is laid out for the true crate, and then has another file.
	evil.Crate, evil.Path, evil.Target = files[1].Crate, files[1].Path, evil.Path
	damaged := append([]File{evil}, append(files[:1:1], files[2:]...)...)
	dir := t.TempDir()
	write(t, dir, source)
	if out, err := build(t, dir, "app", []string{"extra"}, damaged); err == nil || !strings.Contains(string(out), "failed to verify the checksum") {
		t.Errorf("a damaged crate: %v\n%s", err, out)
	}
	if out, err := build(t, dir, "app", nil, files[1:]); err == nil || !strings.Contains(string(out), "direct") {
		t.Errorf("a missing crate: %v\n%s", err, out)
	}
	source["Cargo.toml"] += "unixy = \"1\"\n"
	write(t, dir, source)
	if out, err := build(t, dir, "app", nil, files); err == nil || !strings.Contains(string(out), "--locked") {
		t.Errorf("a lock that does not fit: %v\n%s", err, out)
	}
}
