package gobuild

import (
	"archive/zip"
	"bytes"
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"caisson/lock/gomod"
)

func TestProxy(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "proxy")
	files := []File{
		{"github.com/BurntSushi/toml", "v1.6.0", KindZip, "/store/aa", ""},
		{"github.com/BurntSushi/toml", "v1.6.0", KindMod, "/store/bb", ""},
	}
	if err := Proxy(dir, files); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"v1.6.0.zip": "/store/aa", "v1.6.0.mod": "/store/bb"} {
		got, err := os.Readlink(filepath.Join(dir, "github.com/!burnt!sushi/toml/@v", name))
		if err != nil || got != want {
			t.Errorf("%s: got %q, %v, want %q", name, got, err, want)
		}
	}
	for _, bad := range [][]File{
		files,                                    // there already
		{{"../x", "v1.0.0", KindZip, "/s", ""}},  // leaves the folder
		{{"a.b/c", "../v1", KindZip, "/s", ""}},  // likewise
		{{"a.b/c", "v1.0.0", "info", "/s", ""}},  // not a locked kind
		{{"a.b/c", "v1.0.0/..", "mod", "/", ""}}, // not a version
	} {
		if err := Proxy(dir, bad); err == nil {
			t.Errorf("%v was laid out", bad)
		}
	}
}

func TestJob(t *testing.T) {
	j := Job{Toolchain: "/go", Proxy: "/in/a proxy", Source: "/src", Out: "/out/agent", Package: "./cmd/agent", Epoch: 17}
	if got, want := j.Args(), []string{"/go/bin/go", "build", "-C", "/src", "-o", "/out/agent", "--", "./cmd/agent"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	for _, want := range []string{
		"GOPROXY=file:///in/a%20proxy", "GOSUMDB=off", "GOENV=off", "GOTOOLCHAIN=local", "GOWORK=off", "CGO_ENABLED=0",
		"GOFLAGS=-trimpath -mod=readonly -buildvcs=false -modcacherw", "GOCACHE=/tmp/gocache", "SOURCE_DATE_EPOCH=17",
	} {
		if !slices.Contains(j.Env(), want) {
			t.Errorf("no %s in %q", want, j.Env())
		}
	}
	j.Cgo, j.Workspace, j.LDFlags, j.Arch, j.Tmp = true, true, "-s -X a=b", "arm64", "/scratch"
	if !slices.Contains(j.Args(), "-ldflags=-s -X a=b") {
		t.Errorf("no linker flags in %q", j.Args())
	}
	env := strings.Join(j.Env(), "\n")
	for _, want := range []string{"\nCGO_ENABLED=1\n", "\nGOARCH=arm64\n", "\nGOCACHE=/scratch/gocache\n"} {
		if !strings.Contains(env, want) {
			t.Errorf("no %q in %s", want, env)
		}
	}
	if strings.Contains(env, "GOWORK") {
		t.Error("GOWORK is set for a workspace")
	}
}

// writeZip writes a zip of these names, each with its name as content.
func writeZip(t *testing.T, names ...string) string {
	t.Helper()
	var b bytes.Buffer
	zw := zip.NewWriter(&b)
	for _, name := range names {
		w, err := zw.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := zw.Close(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "toolchain.zip")
	if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestToolchain(t *testing.T) {
	const top = "golang.org/toolchain@v0.0.1-go1.26.0.linux-amd64/"
	ctx := context.Background()
	dir := filepath.Join(t.TempDir(), "go")
	names := []string{"bin/go", "pkg/tool/linux_amd64/compile", "src/_go.mod", "src/fmt/print.go", "VERSION"}
	full := make([]string, len(names))
	for i, n := range names {
		full[i] = top + n
	}
	if err := Toolchain(ctx, writeZip(t, full...), dir); err != nil {
		t.Fatal(err)
	}
	want := map[string]fs.FileMode{
		"bin/go": 0o755, "pkg/tool/linux_amd64/compile": 0o755,
		"src/go.mod": 0o644, "src/fmt/print.go": 0o644, "VERSION": 0o644,
	}
	got := map[string]fs.FileMode{}
	err := fs.WalkDir(os.DirFS(dir), ".", func(p string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			info, _ := d.Info()
			got[p] = info.Mode()
		}
		return err
	})
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	if err := Toolchain(ctx, writeZip(t, full...), dir); err == nil {
		t.Error("it was unpacked over another")
	}

	outside := filepath.Join(filepath.Dir(dir), "evil")
	for _, bad := range []string{
		top + "../../evil", top + "/abs", "evil", "golang.org/toolchain@v1", top + "a//b", top + `..\evil`, top + "bin/go",
	} {
		d := filepath.Join(t.TempDir(), "go")
		if err := Toolchain(ctx, writeZip(t, top+"bin/go", bad), d); err == nil {
			t.Errorf("a zip with %q was unpacked", bad)
		}
		if _, err := os.Lstat(outside); err == nil {
			t.Fatalf("%q left the folder", bad)
		}
	}
	if err := Toolchain(ctx, writeZip(t, top+"VERSION"), filepath.Join(t.TempDir(), "go")); err == nil {
		t.Error("a toolchain without a go command")
	}
	stopped, stop := context.WithCancel(ctx)
	stop()
	if err := Toolchain(stopped, writeZip(t, full...), filepath.Join(t.TempDir(), "go")); err == nil {
		t.Error("it went on after it was told to stop")
	}
}

func FuzzToolchain(f *testing.F) {
	f.Add("golang.org/toolchain@v0.0.1-go1.26.0.linux-amd64/bin/go")
	f.Add("golang.org/toolchain@v/../../x")
	f.Fuzz(func(t *testing.T, name string) {
		got, err := toolchainName(&zip.File{FileHeader: zip.FileHeader{Name: name}})
		if err == nil && !fs.ValidPath(got) {
			t.Errorf("%q is unpacked as %q", name, got)
		}
	})
}

func TestCheckSubset(t *testing.T) {
	used := []gomod.Module{{Path: "a.b/c", Version: "v1.0.0", ZipH1: "h1:x"}}
	if err := CheckSubset(used, append(used, gomod.Module{Path: "a.b/d", Version: "v1.0.0"})); err != nil {
		t.Error(err)
	}
	for want, locked := range map[string][]gomod.Module{
		"which is not locked":      {{Path: "a.b/c", Version: "v1.0.1", ZipH1: "h1:x"}},
		"v1.0.0, which is not":     {{Path: "a.b/c", Version: "v1.0.0"}},
		"got h1:x, want h1:y":      {{Path: "a.b/c", Version: "v1.0.0", ZipH1: "h1:y"}},
		"a.b/c v1.0.0, which is n": nil,
	} {
		if err := CheckSubset(used, locked); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q in it", err, want)
		}
	}
	if _, _, err := Modules(strings.NewReader("no program")); err == nil {
		t.Error("modules of what is no program")
	}
}
