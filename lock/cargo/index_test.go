package cargo

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"caisson/lock/digest"
)

// manifest1 has everything that an index line can say.
const manifest1 = `
[package]
name = "Demo_crate"
version = "1.2.3-rc.1+build"
edition = "2021"
rust-version = "1.71"
links = "z"

[lib]
path = "src/lib.rs"

[dependencies.serde]
version = "1.0"
features = ["derive", "std"]
optional = true
default-features = false

[dependencies.renamed]
version = "^2"
package = "original"

[dependencies.other]
version = "0.3"
registry-index = "sparse+https://crates.example.org/index/"

[dependencies]
short = "0.1"

[build-dependencies.cc]
version = "1"

[dev-dependencies.criterion]
version = "0.5"

[target.'cfg(windows)'.dependencies.winapi]
version = "0.3"
features = ["a<b"]

[target.x86_64-unknown-linux-gnu.build_dependencies.oldstyle]
version = "1"
default_features = false

[features]
default = ["std"]
std = []
json = ["dep:serde", "serde?/alloc"]
`

const line1 = `{"name":"Demo_crate","vers":"1.2.3-rc.1+build","deps":[` +
	`{"name":"cc","req":"1","features":[],"optional":false,"default_features":true,"target":null,"kind":"build"},` +
	`{"name":"oldstyle","req":"1","features":[],"optional":false,"default_features":false,"target":"x86_64-unknown-linux-gnu","kind":"build"},` +
	`{"name":"criterion","req":"0.5","features":[],"optional":false,"default_features":true,"target":null,"kind":"dev"},` +
	`{"name":"other","req":"0.3","features":[],"optional":false,"default_features":true,"target":null,"kind":"normal","registry":"sparse+https://crates.example.org/index/"},` +
	`{"name":"renamed","req":"^2","features":[],"optional":false,"default_features":true,"target":null,"kind":"normal","package":"original"},` +
	`{"name":"serde","req":"1.0","features":["derive","std"],"optional":true,"default_features":false,"target":null,"kind":"normal"},` +
	`{"name":"short","req":"0.1","features":[],"optional":false,"default_features":true,"target":null,"kind":"normal"},` +
	`{"name":"winapi","req":"0.3","features":["a<b"],"optional":false,"default_features":true,"target":"cfg(windows)","kind":"normal"}],` +
	`"cksum":"CKSUM","features":{"default":["std"],"std":[]},"features2":{"json":["dep:serde","serde?/alloc"]},` +
	`"yanked":false,"links":"z","rust_version":"1.71","v":2}`

// writeCrate writes a .crate with these files below its top folder.
func writeCrate(t *testing.T, name, version string, files map[string]string) (string, Crate) {
	t.Helper()
	var b bytes.Buffer
	gz := gzip.NewWriter(&b)
	tw := tar.NewWriter(gz)
	for _, file := range []string{"src/lib.rs", "Cargo.toml"} {
		s, ok := files[file]
		if !ok {
			continue
		}
		if err := tw.WriteHeader(&tar.Header{Name: name + "-" + version + "/" + file, Size: int64(len(s)), Mode: 0o644, Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(tw, s); err != nil {
			t.Fatal(err)
		}
	}
	tw.Close()
	gz.Close()
	file := filepath.Join(t.TempDir(), "crate")
	if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return file, Crate{name, version, CratesIO, digest.Of(b.Bytes()).Hex(), ""}
}

func TestIndexLine(t *testing.T) {
	file, c := writeCrate(t, "Demo_crate", "1.2.3-rc.1+build", map[string]string{"Cargo.toml": manifest1, "src/lib.rs": "// " + strings.Repeat("x", 1<<16)})
	for range 5 { // tables have no order of their own
		got, err := IndexLine(c, file)
		if want := strings.Replace(line1, "CKSUM", c.Checksum, 1); err != nil || string(got) != want {
			t.Fatalf("got %s, %v\nwant %s", got, err, want)
		}
	}
	// In another registry, crates.io is the other one.
	c.Source = alt
	got, err := IndexLine(c, file)
	if err != nil {
		t.Fatal(err)
	}
	var line indexLine
	if err := json.Unmarshal(got, &line); err != nil {
		t.Fatal(err)
	}
	for _, d := range line.Deps {
		want := "https://github.com/rust-lang/crates.io-index"
		if d.Name == "other" {
			if d.Registry != nil {
				t.Errorf("%s is of %s, want its own registry", d.Name, *d.Registry)
			}
		} else if d.Registry == nil || *d.Registry != want {
			t.Errorf("%s is of its own registry, want %s", d.Name, want)
		}
	}
}

func TestIndexLineErrors(t *testing.T) {
	const top = "[package]\nname = \"x\"\nversion = \"1.0.0\"\n"
	for _, tt := range []struct{ manifest, want string }{
		{"[package]\nname = \"y\"\nversion = \"1.0.0\"\n", `it is "y" "1.0.0", want "x" "1.0.0"`},
		{top + "[dependencies]\na = 1\n", `normal dependency "a": neither a version nor a table`},
		{top + "[dependencies.a]\noptional = \"yes\"\n", "optional: got a string, want a bool"},
		{top + "[dev-dependencies.a]\nfeatures = [1]\n", "features: got a int64, want a string"},
		{top + "[target.'cfg(unix)'.dependencies.a]\nworkspace = true\n", "target cfg(unix): normal dependency \"a\": workspace: inherited"},
		{"[package\n", "toml"},
	} {
		file, c := writeCrate(t, "x", "1.0.0", map[string]string{"Cargo.toml": tt.manifest})
		if _, err := IndexLine(c, file); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("got %v, want %q in it", err, tt.want)
		}
	}
	file, c := writeCrate(t, "x", "1.0.0", map[string]string{"src/lib.rs": ""})
	if _, err := IndexLine(c, file); err == nil || !strings.Contains(err.Error(), "no x-1.0.0/Cargo.toml in it") {
		t.Errorf("without a manifest: %v", err)
	}
	file, c = writeCrate(t, "x", "1.0.0", map[string]string{"Cargo.toml": top})
	c.Checksum = sumA
	if _, err := IndexLine(c, file); err == nil || !strings.Contains(err.Error(), "want sha256:"+sumA) {
		t.Errorf("another checksum: %v", err)
	}
	if _, err := IndexLine(c, "index_test.go"); err == nil {
		t.Error("a line for what is no crate")
	}
	if _, err := IndexLine(c, file+".none"); err == nil {
		t.Error("a line for a file that is not there")
	}
}

func TestReadManifest(t *testing.T) {
	file, _ := writeCrate(t, "x", "1.0.0", map[string]string{"Cargo.toml": "m", "src/lib.rs": strings.Repeat("y", 5000)})
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	got, err := readManifest(iotest.HalfReader(iotest.OneByteReader(bytes.NewReader(b))), "x-1.0.0/Cargo.toml")
	if err != nil || string(got) != "m" {
		t.Errorf("got %q, %v", got, err)
	}
	broken := io.MultiReader(bytes.NewReader(b[:len(b)/2]), iotest.ErrReader(io.ErrClosedPipe))
	if _, err := readManifest(broken, "x-1.0.0/Cargo.toml"); err == nil {
		t.Error("a broken file was read")
	}
}

// TestOwnIndex compares the lines that we make with those of crates.io, for
// every crate that the machine's cargo has kept both of.
func TestOwnIndex(t *testing.T) {
	home, err := os.UserHomeDir()
	if err != nil {
		t.Skip(err)
	}
	crates, _ := filepath.Glob(filepath.Join(home, ".cargo/registry/cache/index.crates.io-*/*.crate"))
	compared := 0
	for _, file := range crates {
		if compareWithIndex(t, file) {
			compared++
		}
	}
	if compared == 0 {
		t.Skip("cargo has kept no crates with their index; `cargo fetch` brings some")
	}
	t.Logf("%d crates", compared)
}

// compareWithIndex tells whether there was a line to compare with.
func compareWithIndex(t *testing.T, file string) bool {
	sum, err := fileSum(file)
	if err != nil {
		t.Fatal(err)
	}
	stem := strings.TrimSuffix(filepath.Base(file), ".crate")
	for i := len(stem) - 1; i > 0; i-- {
		if stem[i] != '-' {
			continue
		}
		name, version := stem[:i], stem[i+1:]
		index := filepath.Join(strings.Replace(filepath.Dir(file), "/cache/", "/index/", 1), ".cache", IndexPath(name))
		b, err := os.ReadFile(index)
		if err != nil {
			continue
		}
		// A cache file has the version and the line of each, ended by zeros.
		for _, field := range bytes.Split(b, []byte{0}) {
			if !bytes.HasPrefix(field, []byte(`{"name":`)) || !bytes.Contains(field, []byte(sum)) {
				continue
			}
			got, err := IndexLine(Crate{name, version, CratesIO, sum, ""}, file)
			if err != nil {
				t.Error(err)
				return true
			}
			g, w := comparable(t, got), comparable(t, field)
			for key, want := range w {
				if !reflect.DeepEqual(g[key], want) {
					t.Errorf("%s: %s: got %v, want %v", stem, key, g[key], want)
				}
			}
			return true
		}
	}
	return false
}

func fileSum(file string) (string, error) {
	b, err := os.ReadFile(file)
	return digest.Of(b).Hex(), err
}

// comparable is an index line's content without what a crate cannot tell
// (yanked, the time of publication, the registry's choice of v) and without
// the order of its dependencies. crates.io writes "^1" for "1".
func comparable(t *testing.T, b []byte) map[string]any {
	t.Helper()
	var l indexLine
	if err := json.Unmarshal(b, &l); err != nil {
		t.Fatal(err)
	}
	deps := make(map[string]indexDep)
	for _, d := range l.Deps {
		if d.Req != "" && d.Req[0] >= '0' && d.Req[0] <= '9' {
			d.Req = "^" + d.Req
		}
		d.Req = strings.ReplaceAll(d.Req, " ", "")
		target := ""
		if d.Target != nil {
			target = *d.Target
			d.Target = nil
		}
		if d.Package != nil {
			d.Name = *d.Package + " as " + d.Name
			d.Package = nil
		}
		features := make(map[string]bool)
		for _, f := range d.Features {
			features[f] = true
		}
		key := d.Kind + " " + d.Name + " " + target + " " + strings.Join(slices.Sorted(maps.Keys(features)), ",")
		d.Features = nil
		deps[key] = d
	}
	features := make(map[string][]string)
	for _, m := range []map[string][]string{l.Features, l.Features2} {
		for k, v := range m {
			features[k] = v
		}
	}
	links := ""
	if l.Links != nil {
		links = *l.Links
	}
	return map[string]any{"name": l.Name, "vers": l.Vers, "deps": deps, "features": features, "links": links, "cksum": l.Cksum, "rust": l.RustVersion}
}

func FuzzLine(f *testing.F) {
	f.Add([]byte(manifest1))
	if b, err := os.ReadFile("../../lockfiles/demo/payload/guest/Cargo.toml"); err == nil {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		line, err := lineOf(Crate{"Demo_crate", "1.2.3-rc.1+build", CratesIO, sumA, ""}, b)
		if err != nil {
			return
		}
		var l indexLine
		if err := json.Unmarshal(line, &l); err != nil || bytes.ContainsRune(line, '\n') {
			t.Errorf("line %q: %v", line, err)
		}
	})
}

func FuzzManifest(f *testing.F) {
	f.Add([]byte{0x1f, 0x8b})
	f.Fuzz(func(_ *testing.T, b []byte) {
		_, _ = readManifest(bytes.NewReader(b), "x-1.0.0/Cargo.toml")
	})
}
