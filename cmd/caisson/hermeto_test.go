package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"crypto/sha512"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/rpmpack"
	"github.com/rogpeppe/go-internal/testscript"

	"caisson/lock/digest"
	"caisson/lock/gomod"
)

// cmdMakeInputs makes what a project needs: a module and a crate, packages
// and files in SERVED, which is served at URL, and in SRC a Go program, a Rust
// program and the lock files that name all of it. CARGO_BIN becomes the folder
// of the machine's cargo, where rustup would ask which, GO_CACHE go's cache.
func cmdMakeInputs(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 3 {
		ts.Fatalf("usage: mkinputs SERVED SRC URL")
	}
	m := inputsMaker{ts: ts, served: ts.MkAbs(args[0]), src: ts.MkAbs(args[1]), url: args[2]}
	if out, err := exec.Command("rustup", "which", "cargo").Output(); err == nil {
		ts.Setenv("CARGO_BIN", filepath.Dir(strings.TrimSpace(string(out))))
	}
	if out, err := exec.Command("go", "env", "GOCACHE").Output(); err == nil {
		ts.Setenv("GO_CACHE", strings.TrimSpace(string(out)))
	}
	m.goSource()
	m.rustSource()
	m.packages()
	m.artifacts()
}

type inputsMaker struct {
	ts               *testscript.TestScript
	served, src, url string
}

func (m *inputsMaker) write(dir string, files map[string]string) {
	for name, content := range files {
		name = filepath.Join(dir, name)
		m.ts.Check(os.MkdirAll(filepath.Dir(name), 0o755))
		m.ts.Check(os.WriteFile(name, []byte(content), 0o644))
	}
}

func (m *inputsMaker) goSource() {
	mod := "module example.com/Lib\n\ngo 1.21\n"
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, f := range [][2]string{{"go.mod", mod}, {"lib.go", "package lib\n\nconst Text = \"from the library\"\n"}} {
		out, err := w.Create("example.com/Lib@v1.2.3/" + f[0])
		m.ts.Check(err)
		_, err = out.Write([]byte(f[1]))
		m.ts.Check(err)
	}
	m.ts.Check(w.Close())
	at := "goproxy/example.com/!lib/@v/v1.2.3"
	m.write(m.served, map[string]string{at + ".zip": b.String(), at + ".mod": mod, at + ".info": `{"Version":"v1.2.3"}`})
	h1, err := gomod.ZipHash(filepath.Join(m.served, at+".zip"))
	m.ts.Check(err)
	modH1, err := gomod.ModHash([]byte(mod))
	m.ts.Check(err)
	m.write(m.src, map[string]string{
		"go.mod":  "module example.org/app\n\ngo 1.21\n\nrequire example.com/Lib v1.2.3\n",
		"go.sum":  "example.com/Lib v1.2.3 " + h1 + "\nexample.com/Lib v1.2.3/go.mod " + modH1 + "\n",
		"main.go": "package main\n\nimport \"example.com/Lib\"\n\nfunc main() { println(lib.Text) }\n",
	})
}

func (m *inputsMaker) rustSource() {
	var b bytes.Buffer
	gz := gzip.NewWriter(&b)
	w := tar.NewWriter(gz)
	for _, f := range [][2]string{
		{"Cargo.toml", "[package]\nname = \"dep\"\nversion = \"1.0.0\"\nedition = \"2021\"\n"},
		{"src/lib.rs", "pub const TEXT: &str = \"from the crate\";\n"},
	} {
		m.ts.Check(w.WriteHeader(&tar.Header{Name: "dep-1.0.0/" + f[0], Size: int64(len(f[1])), Mode: 0o644}))
		_, err := w.Write([]byte(f[1]))
		m.ts.Check(err)
	}
	m.ts.Check(w.Close())
	m.ts.Check(gz.Close())
	m.write(m.served, map[string]string{
		"crates/dep/1.0.0/download": b.String(),
		"index/config.json":         `{"dl":"` + m.url + `/crates"}`,
	})
	m.write(m.src+"/guest", map[string]string{
		"Cargo.toml": "[package]\nname = \"guest\"\nversion = \"0.1.0\"\nedition = \"2021\"\n\n[dependencies]\ndep = \"1\"\n",
		"Cargo.lock": "version = 3\n\n[[package]]\nname = \"dep\"\nversion = \"1.0.0\"\nsource = \"registry+https://github.com/rust-lang/crates.io-index\"\nchecksum = \"" +
			digest.Of(b.Bytes()).Hex() + "\"\n\n[[package]]\nname = \"guest\"\nversion = \"0.1.0\"\ndependencies = [\n \"dep\",\n]\n",
		"src/main.rs":        "fn main() { println!(\"{} {}\", dep::TEXT, env!(\"PRICE\")); }\n",
		".cargo/config.toml": "[env]\nPRICE = \"$5\"\n\n[source.crates-io]\nreplace-with = \"mirror\"\n\n[source.mirror]\nregistry = \"sparse+" + m.url + "/index/\"\n",
	})
}

func (m *inputsMaker) packages() {
	lock := "lockfileVersion: 1\nlockfileVendor: redhat\narches:\n"
	for _, arch := range []string{"aarch64", "x86_64"} {
		lock += "- arch: " + arch + "\n  packages:\n"
		for _, p := range [][2]string{{"app", arch}, {"data", "noarch"}} {
			md := rpmpack.RPMMetaData{
				Name: p[0], Version: "1.0", Release: "1.el9", Arch: p[1], BuildTime: when, Compressor: "gzip", Summary: "what " + p[0] + " is",
				Vendor: "Red Hat, Inc.",
			}
			if p[0] == "app" {
				m.ts.Check(md.Requires.Set("data"))
				md.Epoch = 2
			}
			r, err := rpmpack.NewRPM(md)
			m.ts.Check(err)
			r.AddFile(rpmpack.RPMFile{Name: "/usr/share/" + p[0], Body: []byte(p[0]), Mode: 0o644, Owner: "root", Group: "root"})
			var b bytes.Buffer
			m.ts.Check(r.Write(&b))
			name := "baseos/Packages/" + p[0] + "-1.0-1.el9." + p[1] + ".rpm"
			m.write(m.served, map[string]string{name: b.String()})
			evr := "1.0-1.el9"
			if p[0] == "app" {
				evr = "2:" + evr
			}
			lock += fmt.Sprintf("  - url: %s/%s\n    repoid: baseos\n    size: %d\n    checksum: %s\n    name: %s\n    evr: %s\n", m.url, name, b.Len(), digest.Of(b.Bytes()), p[0], evr)
		}
		modules := "baseos/repodata/" + arch + "-modules.yaml"
		text := "---\ndocument: modulemd-defaults\nversion: 1\ndata:\n  module: m\n"
		m.write(m.served, map[string]string{modules: text})
		lock += fmt.Sprintf("  source: []\n  module_metadata:\n  - url: %s/%s\n    repoid: baseos\n    size: %d\n    checksum: %s\n", m.url, modules, len(text), digest.Of([]byte(text)))
	}
	m.write(m.src, map[string]string{"rpms.lock.yaml": lock})
}

func (m *inputsMaker) artifacts() {
	files := map[string]string{"files/one.bin": "one", "files/two.bin": "two", "maven/org/x/lib/2.0/lib-2.0-sources.jar": "jar"}
	m.write(m.served, files)
	var names []string
	for _, f := range slices.Sorted(maps.Keys(files)) {
		names = append(names, digest.Of([]byte(files[f])).String())
	}
	m.write(m.src, map[string]string{"artifacts.lock.yaml": fmt.Sprintf(`metadata:
  version: "2.0"
artifacts:
- download_url: %[1]s/files/one.bin
  checksum: %[2]s
  filename: sub/first.bin
- download_url: %[1]s/files/two.bin
  checksum: sha512:%[3]x
- type: maven
  checksum: %[4]s
  attributes:
    repository_url: %[1]s/maven
    group_id: org.x
    artifact_id: lib
    version: "2.0"
    classifier: sources
`, m.url, names[0], sha512.Sum512([]byte("two")), names[2])})
}

// cmdSubst puts a script's variables into a file.
func cmdSubst(ts *testscript.TestScript, _ bool, args []string) {
	b := ts.ReadFile(ts.MkAbs(args[0]))
	for _, name := range args[1:] {
		b = strings.ReplaceAll(b, "$"+name, ts.Getenv(name))
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(b), 0o644))
}
