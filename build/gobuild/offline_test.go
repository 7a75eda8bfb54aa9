package gobuild

import (
	"bytes"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"caisson/lock/gomod"

	"golang.org/x/mod/module"
	modzip "golang.org/x/mod/zip"
)

// missing skips a test that wants a tool; where tools are required it fails.
func missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("CAISSON_TOOLS") == "required" {
		t.Fatal(what)
	}
	t.Skip(what)
}

// goEnv is what the machine's go command says.
func goEnv(t *testing.T, key string) string {
	t.Helper()
	out, err := exec.Command("go", "env", key).Output()
	if err != nil {
		missing(t, "no go command: "+err.Error())
	}
	return strings.TrimSpace(string(out))
}

// build runs a job with no network and nothing but its environment.
func build(t *testing.T, j Job) ([]byte, error) {
	t.Helper()
	if err := exec.Command("unshare", "-rn", "true").Run(); err != nil {
		missing(t, "no network namespace: "+err.Error())
	}
	// Telemetry would go on writing when the command is done.
	write(t, j.Tmp, map[string]string{"home/.config/go/telemetry/mode": "off"})
	cmd := exec.Command("unshare", append([]string{"-rn"}, j.Args()...)...)
	cmd.Env = j.Env()
	cmd.Dir = "/"
	out, err := cmd.CombinedOutput()
	if err != nil {
		return out, err
	}
	return os.ReadFile(j.Out)
}

// memFile is a file of a module that is zipped.
type memFile struct{ name, content string }

func (f memFile) Path() string                { return f.name }
func (f memFile) Lstat() (os.FileInfo, error) { return fileInfo{f}, nil }
func (f memFile) Open() (io.ReadCloser, error) {
	return io.NopCloser(strings.NewReader(f.content)), nil
}

type fileInfo struct{ memFile }

func (f fileInfo) Name() string       { return path.Base(f.name) }
func (f fileInfo) Size() int64        { return int64(len(f.content)) }
func (f fileInfo) Mode() fs.FileMode  { return 0o644 }
func (f fileInfo) ModTime() time.Time { return time.Time{} }
func (f fileInfo) IsDir() bool        { return false }
func (f fileInfo) Sys() any           { return nil }

// store is a folder with the files of modules, and the go.sum lines of them.
type store struct {
	t     *testing.T
	dir   string
	files []File
	sum   strings.Builder
}

// add makes a module; its package has one function, Name.
func (s *store) add(mpath, version, gomodText, body string) {
	s.t.Helper()
	base := filepath.Join(s.dir, strings.ReplaceAll(mpath+version, "/", "_"))
	m := module.Version{Path: mpath, Version: version}
	zipFile, err := os.Create(base + ".zip")
	if err != nil {
		s.t.Fatal(err)
	}
	defer zipFile.Close()
	err = modzip.Create(zipFile, m, []modzip.File{memFile{"go.mod", gomodText}, memFile{"p.go", body}})
	if err == nil {
		err = os.WriteFile(base+".mod", []byte(gomodText), 0o600)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	zipH1, err := gomod.ZipHash(base + ".zip")
	if err != nil {
		s.t.Fatal(err)
	}
	modH1, err := gomod.ModHash([]byte(gomodText))
	if err != nil {
		s.t.Fatal(err)
	}
	s.sum.WriteString(mpath + " " + version + " " + zipH1 + "\n" + mpath + " " + version + "/go.mod " + modH1 + "\n")
	s.files = append(s.files,
		File{mpath, version, KindZip, base + ".zip", zipH1}, File{mpath, version, KindMod, base + ".mod", modH1})
}

// locked keeps the files that the lock asks for.
func (s *store) locked(mods []gomod.Module) []File {
	need := make(map[File]bool)
	for _, m := range mods {
		need[File{Module: m.Path, Version: m.Version, Kind: KindMod}] = true
		if m.ZipH1 != "" {
			need[File{Module: m.Path, Version: m.Version, Kind: KindZip}] = true
		}
	}
	var out []File
	for _, f := range s.files {
		if need[File{Module: f.Module, Version: f.Version, Kind: f.Kind}] {
			out = append(out, f)
		}
	}
	return out
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

// TestOfflineBuild compiles the runtime from source, but no more of the
// standard library.
func TestOfflineBuild(t *testing.T) {
	tmp := t.TempDir()
	t.Run("module", func(t *testing.T) { testModule(t, tmp) })
	t.Run("workspace", func(t *testing.T) { testWorkspace(t, tmp) })
	t.Run("cgo", testCgo)
}

// testModule builds a program from modules that no proxy in the world has,
// twice, in other folders, the second time with its caches in tmp.
func testModule(t *testing.T, tmp string) {
	goroot := goEnv(t, "GOROOT")
	s := &store{t: t, dir: t.TempDir()}
	s.add("example.org/Upper", "v1.1.0", "module example.org/Upper\n\ngo 1.25\n\nrequire example.org/deep v1.2.0\n",
		"package Upper\n\nimport \"example.org/deep\"\n\nfunc Name() string { return \"upper1.1 \" + deep.Name() }\n")
	s.add("example.org/Upper", "v1.0.0", "module example.org/Upper\n\ngo 1.25\n", "package Upper\n\nfunc Name() string { return \"upper1.0\" }\n")
	s.add("example.org/deep", "v1.2.0", "module example.org/deep\n\ngo 1.25\n", "package deep\n\nfunc Name() string { return \"deep1.2\" }\n")
	s.add("example.org/deep", "v1.3.0", "module example.org/deep\n\ngo 1.25\n", "package deep\n\nfunc Name() string { return \"deep1.3\" }\n")
	s.add("example.org/fork", "v0.1.0", "module example.org/orig\n\ngo 1.25\n", "package orig\n\nfunc Name() string { return \"fork\" }\n")
	source := map[string]string{
		"go.mod": "module main.example.org\n\ngo 1.25\n\nrequire (\n\texample.org/Upper v1.1.0\n\texample.org/orig v1.0.0\n" +
			"\texample.org/local v0.0.0\n)\n\nrequire example.org/deep v1.3.0 // indirect\n\n" +
			"replace example.org/orig => example.org/fork v0.1.0\n\nreplace example.org/local => ./local\n",
		"go.sum":       s.sum.String(),
		"local/go.mod": "module example.org/local\n\ngo 1.25\n",
		"local/p.go":   "package local\n\nfunc Name() string { return \"local\" }\n",
		"cmd/x/x.go": "package main\n\nimport (\n\t\"example.org/Upper\"\n\t\"example.org/local\"\n\t\"example.org/orig\"\n)\n\n" +
			"var version = \"unset\"\n\nfunc main() { println(Upper.Name(), local.Name(), orig.Name(), version) }\n",
		"vendor/modules.txt": "# example.org/none v1.0.0\n",
	}
	var programs [][]byte
	var locked []gomod.Module
	for _, tmp := range []string{filepath.Join(t.TempDir(), "a longer name"), tmp} {
		dir := t.TempDir()
		j := Job{
			Toolchain: goroot, Proxy: dir + "/proxy", Source: dir + "/source", Out: dir + "/x", Tmp: tmp,
			Package: "./cmd/x", LDFlags: "-X main.version=locked",
		}
		write(t, j.Source, source)
		if err := os.MkdirAll(j.Tmp, 0o755); err != nil {
			t.Fatal(err)
		}
		mods, err := gomod.Read(os.DirFS(j.Source))
		if err != nil {
			t.Fatal(err)
		}
		locked = mods
		if err := Proxy(j.Proxy, s.locked(mods)); err != nil {
			t.Fatal(err)
		}
		program, err := build(t, j)
		if err != nil {
			t.Fatalf("%v: %v\n%s", j.Args(), err, program)
		}
		programs = append(programs, program)
		out, err := exec.Command(j.Out).CombinedOutput()
		if want := "upper1.1 deep1.3 local fork locked\n"; err != nil || string(out) != want {
			t.Errorf("got %q, %v, want %q", out, err, want)
		}
	}
	if !bytes.Equal(programs[0], programs[1]) {
		t.Error("two builds in two folders differ")
	}
	zips := 0
	for _, m := range locked {
		if m.ZipH1 != "" {
			zips++
		}
	}
	if zips != 3 {
		t.Errorf("%d zips were locked, want 3: %v", zips, locked)
	}
	used, _, err := Modules(bytes.NewReader(programs[0]))
	if err != nil || len(used) != 3 {
		t.Errorf("got %v, %v, want 3 modules", used, err)
	}
	if err := CheckSubset(used, locked); err != nil {
		t.Error(err)
	}
	if err := CheckSubset(used, locked[2:]); err == nil || !strings.Contains(err.Error(), "example.org/Upper v1.1.0, which is not locked") {
		t.Errorf("got %v for a lock without %v", err, locked[:2])
	}
	if bytes.Contains(programs[0], []byte(os.TempDir())) {
		t.Errorf("the program holds a path below %s", os.TempDir())
	}
}

// testWorkspace builds a program of one module of a workspace that uses
// another one, with caches that have the runtime already.
func testWorkspace(t *testing.T, tmp string) {
	s := &store{t: t, dir: t.TempDir()}
	s.add("example.org/a", "v1.0.0", "module example.org/a\n\ngo 1.25\n", "package a\n\nfunc Name() string { return \"a\" }\n")
	dir := t.TempDir()
	j := Job{
		Toolchain: goEnv(t, "GOROOT"), Proxy: dir + "/proxy", Source: dir + "/source", Out: dir + "/x", Tmp: tmp,
		Package: "./cmd/x", Workspace: true,
	}
	write(t, j.Source, map[string]string{
		"go.work":    "go 1.25\n\nuse (\n\t./cmd\n\t./lib\n)\n",
		"cmd/go.mod": "module example.org/cmd\n\ngo 1.25\n",
		"cmd/x/x.go": "package main\n\nimport \"example.org/lib\"\n\nfunc main() { println(lib.Name()) }\n",
		"lib/go.mod": "module example.org/lib\n\ngo 1.25\n\nrequire example.org/a v1.0.0\n",
		"lib/go.sum": s.sum.String(),
		"lib/lib.go": "package lib\n\nimport \"example.org/a\"\n\nfunc Name() string { return \"lib \" + a.Name() }\n",
	})
	if !gomod.Workspace(os.DirFS(j.Source)) {
		t.Error("a folder with go.work is no workspace")
	}
	mods, err := gomod.Read(os.DirFS(j.Source))
	if err != nil {
		t.Fatal(err)
	}
	if err := Proxy(j.Proxy, s.locked(mods)); err != nil {
		t.Fatal(err)
	}
	program, err := build(t, j)
	if err != nil {
		t.Fatalf("%v: %v\n%s", j.Args(), err, program)
	}
	if out, err := exec.Command(j.Out).CombinedOutput(); err != nil || string(out) != "lib a\n" {
		t.Errorf("got %q, %v", out, err)
	}
	used, _, err := Modules(bytes.NewReader(program))
	if err != nil || len(used) != 1 {
		t.Errorf("got %v, %v, want one module", used, err)
	}
	if err := CheckSubset(used, mods); err != nil {
		t.Error(err)
	}
}

// testCgo builds a program that calls C, twice, in other folders, and wants a
// build without cgo to say what it lacks.
func testCgo(t *testing.T) {
	if _, err := exec.LookPath("gcc"); err != nil {
		missing(t, err.Error())
	}
	var programs [][]byte
	for _, name := range []string{"a", "a longer name"} {
		dir := filepath.Join(t.TempDir(), name)
		j := Job{Toolchain: goEnv(t, "GOROOT"), Proxy: dir + "/proxy", Source: dir + "/source", Out: dir + "/x", Tmp: dir + "/tmp", Package: ".", Cgo: true, Epoch: 17}
		write(t, j.Source, map[string]string{
			"go.mod": "module m\n\ngo 1.25\n",
			"m.go":   "package main\n\n// static int twice(int n) { return 2 * n; }\nimport \"C\"\n\nfunc main() { println(int(C.twice(21))) }\n",
		})
		program, err := build(t, j)
		if err != nil {
			t.Fatalf("%v\n%s", err, program)
		}
		if out, err := exec.Command(j.Out).CombinedOutput(); err != nil || string(out) != "42\n" {
			t.Errorf("got %q, %v", out, err)
		}
		programs = append(programs, program)
		j.Cgo = false
		if out, err := build(t, j); err == nil || !strings.Contains(string(out), "build constraints exclude all Go files") {
			t.Errorf("without cgo: %v: %s", err, out)
		}
	}
	if !bytes.Equal(programs[0], programs[1]) {
		t.Error("two builds in two folders differ")
	}
}

// TestDamagedModule shows who notices a zip that is not the locked one.
func TestDamagedModule(t *testing.T) {
	s := &store{t: t, dir: t.TempDir()}
	s.add("example.org/a", "v1.0.0", "module example.org/a\n\ngo 1.25\n", "package a\n\nfunc F() {}\n")
	sum := s.sum.String()
	s.files = nil
	s.add("example.org/a", "v1.0.0", "module example.org/a\n\ngo 1.25\n", "package a\n\nfunc F() { panic(1) }\n")
	dir := t.TempDir()
	write(t, dir+"/source", map[string]string{
		"go.mod": "module m\n\ngo 1.25\n\nrequire example.org/a v1.0.0\n", "go.sum": sum,
		"m.go": "package main\n\nimport \"example.org/a\"\n\nfunc main() { a.F() }\n",
	})
	if err := Proxy(dir+"/proxy", s.files); err != nil {
		t.Fatal(err)
	}
	write(t, dir, map[string]string{"tmp/x": ""})
	j := Job{Toolchain: goEnv(t, "GOROOT"), Proxy: dir + "/proxy", Source: dir + "/source", Out: dir + "/x", Tmp: dir + "/tmp", Package: "."}
	out, err := build(t, j)
	if err == nil || !strings.Contains(string(out), "SECURITY ERROR") {
		t.Errorf("got %v: %s", err, out)
	}
}
