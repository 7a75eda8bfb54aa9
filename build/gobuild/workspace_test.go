package gobuild

import (
	"context"
	"fmt"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/module"

	"caisson/lock/gomod"
)

// load asks for what a source needs of the store's modules.
func (s *store) load(dir string, packages ...gomod.Package) ([]gomod.Needed, error) {
	find := func(m module.Version, ext string) (File, error) {
		for _, f := range s.files {
			if f.Module == m.Path && f.Version == m.Version && "."+f.Kind == ext {
				return f, nil
			}
		}
		return File{}, fmt.Errorf("%s%s: %w", m, ext, os.ErrNotExist)
	}
	return gomod.Load(context.Background(), os.DirFS(dir), gomod.Options{
		Packages: packages, Arches: []string{"amd64"}, Toolchain: "go1.26.0",
		Fetch: func(_ context.Context, m module.Version, ext, h1 string) (string, error) {
			f, err := find(m, ext)
			if err == nil && h1 != "" && h1 != f.H1 {
				err = fmt.Errorf("%s%s: got %s, want %s", m, ext, f.H1, h1)
			}
			return f.Path, err
		},
		Unlisted: func(_ context.Context, path, version string) (string, bool, error) {
			v, isMod := strings.CutSuffix(version, "/go.mod")
			ext := ".zip"
			if isMod {
				ext = ".mod"
			}
			f, err := find(module.Version{Path: path, Version: v}, ext)
			return f.H1, true, err
		},
	})
}

func plain(needed []gomod.Needed) []gomod.Module {
	out := make([]gomod.Module, len(needed))
	for i, n := range needed {
		out[i] = n.Module
	}
	return out
}

// readOnly takes the right to write, in a way that holds for root too: the
// build sees the folder through a mount that is read-only.
func readOnly(t *testing.T, j Job) ([]byte, error) {
	t.Helper()
	script := `set -e
		mount --bind "$1" "$1"
		mount -o remount,bind,ro "$1"
		shift
		exec "$@"`
	cmd := exec.Command("unshare", append([]string{"-rmn", "sh", "-c", script, "sh", j.Source}, j.Args()...)...)
	cmd.Env, cmd.Dir = j.Env(), "/"
	if out, err := cmd.CombinedOutput(); err != nil {
		return out, err
	}
	return os.ReadFile(j.Out)
}

// raised is a workspace whose sum files lack what the go command fetches: one
// module raises another's dependency to a version that nobody lists.
func raised(t *testing.T) (*store, map[string]string) {
	s := &store{t: t, dir: t.TempDir()}
	part := func(mpath, version, mod, body string) string {
		s.sum.Reset()
		s.add(mpath, version, "module "+mpath+"\n\ngo 1.25\n"+mod, body)
		return s.sum.String()
	}
	modOnly := func(lines string) string { return lines[strings.Index(lines, "\n")+1:] }
	deep := part("example.org/deep", "v1.0.0", "", "package deep\n\nfunc Name() string { return \"deep1.0\" }\n")
	part("example.org/new", "v1.0.0", "", "package new\n\nfunc Name() string { return \"new\" }\n")
	deep11 := part("example.org/deep", "v1.1.0", "\nrequire example.org/new v1.0.0\n",
		"package deep\n\nimport \"example.org/new\"\n\nfunc Name() string { return \"deep1.1 \" + new.Name() }\n")
	one := part("example.org/one", "v1.0.0", "\nrequire example.org/deep v1.1.0\n", "package one\n\nfunc Name() string { return \"one\" }\n")
	return s, map[string]string{
		"go.work":    "go 1.25\n\nuse (\n\t./app\n\t./lib\n)\n",
		"app/go.mod": "module example.org/app\n\ngo 1.25\n\nrequire example.org/one v1.0.0\n",
		"app/go.sum": modOnly(deep11) + one,
		"app/main.go": "package main\n\nimport (\n\t\"example.org/lib\"\n\t\"example.org/one\"\n)\n\n" +
			"func main() { println(one.Name(), lib.Name()) }\n",
		"app/other/main.go": "package main\n\nfunc main() { println(\"other\") }\n",
		"lib/go.mod":        "module example.org/lib\n\ngo 1.25\n\nrequire example.org/deep v1.0.0\n",
		"lib/go.sum":        deep,
		"lib/lib.go":        "package lib\n\nimport \"example.org/deep\"\n\nfunc Name() string { return \"lib \" + deep.Name() }\n",
	}
}

// TestIncompleteWorkSum locks and builds a workspace whose sum files lack
// what the go command would fetch, from a source that it cannot write to.
func TestIncompleteWorkSum(t *testing.T) {
	s, source := raised(t)
	dir := t.TempDir()
	j := Job{
		Toolchain: goEnv(t, "GOROOT"), Proxy: dir + "/proxy", Source: dir + "/source", Out: dir + "/x", Tmp: dir + "/tmp",
		Package: "./app", Workspace: true,
	}
	write(t, j.Source, source)
	write(t, j.Tmp, map[string]string{"x": ""})
	needed, err := s.load(j.Source, gomod.Package{Path: "./app"}, gomod.Package{Path: "./app/other"})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, n := range needed {
		got = append(got, fmt.Sprintf("%s@%s by %s zip %t", n.Path, n.Version, n.By, n.ZipH1 != ""))
	}
	want := []string{
		"example.org/deep@v1.0.0 by @ zip true", "example.org/deep@v1.1.0 by example.org/one@v1.0.0 zip true",
		"example.org/new@v1.0.0 by example.org/deep@v1.1.0 zip true", "example.org/one@v1.0.0 by @ zip true",
	}
	for i := range got {
		got[i] = strings.Replace(got[i], "by  ", "by @ ", 1)
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	files := s.locked(plain(needed))
	if err := Proxy(j.Proxy, files); err != nil {
		t.Fatal(err)
	}
	if exec.Command("unshare", "-rmn", "true").Run() != nil {
		missing(t, "no user namespace")
	}
	if out, err := readOnly(t, j); err == nil {
		t.Errorf("go did not want to complete go.work.sum: the test shows nothing\n%.200s", out)
	}
	if err := CompleteWorkSum(j.Source, files); err != nil {
		t.Fatal(err)
	}
	program, err := readOnly(t, j)
	if err != nil {
		t.Fatalf("%v\n%s", err, program)
	}
	out, err := exec.Command(j.Out).CombinedOutput()
	if want := "one lib deep1.1 new\n"; err != nil || string(out) != want {
		t.Errorf("got %q, %v, want %q", out, err, want)
	}
	f, err := os.Open(j.Out)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	used, _, err := Modules(f)
	if err != nil || len(used) != 3 {
		t.Errorf("got %v, %v, want 3 modules", used, err)
	}
	if err := CheckSubset(used, plain(needed)); err != nil {
		t.Error(err)
	}
	j.Package, j.Out = "./app/other", dir+"/y"
	if program, err := readOnly(t, j); err != nil {
		t.Errorf("the second program: %v\n%s", err, program)
	}
}

// TestRandomSources makes modules that require each other at random, has go
// make a tidy source of them, and compares what Load finds for it with what
// the go command downloads: nothing of that may be missing, and with nothing
// but what Load finds the go command must be content.
func TestRandomSources(t *testing.T) {
	goroot := goEnv(t, "GOROOT")
	s, r := &store{t: t, dir: t.TempDir()}, rand.New(rand.NewSource(7))
	const modules, versions = 9, 3
	modPath := func(m int) string { return fmt.Sprintf("example.org/m%d", m/2) + []string{"", "/sub"}[m%2] }
	for m := range modules {
		for v := range versions {
			mod := fmt.Sprintf("module %s\n\ngo %s\n", modPath(m), []string{"1.16", "1.21", "1.25"}[r.Intn(3)])
			body := "package p\n\nimport _ \"fmt\"\n"
			for d := range modules {
				if d == m || r.Intn(3) != 0 || d < m && r.Intn(4) != 0 {
					continue
				}
				mod += fmt.Sprintf("\nrequire %s v1.%d.0\n", modPath(d), r.Intn(versions))
				if d > m && r.Intn(3) != 0 {
					body += fmt.Sprintf("import _ %q\n", modPath(d))
				}
			}
			s.add(modPath(m), fmt.Sprintf("v1.%d.0", v), mod, body)
		}
	}
	all := t.TempDir()
	if err := Proxy(all, s.files); err != nil {
		t.Fatal(err)
	}
	for _, f := range s.files { // tidy asks for lists
		p := filepath.Join(all, filepath.Dir(gomod.ModPath(gomod.Module{Path: f.Module, Version: f.Version})))
		write(t, p, map[string]string{"list": "v1.0.0\nv1.1.0\nv1.2.0\n", f.Version + ".info": `{"Version":"` + f.Version + `"}`})
	}
	for round := range 12 {
		work := round%3 != 0
		dir := t.TempDir()
		cache := filepath.Join(dir, "cache")
		run := func(proxy, modcache, goWork string, in string, args ...string) (string, error) {
			cmd := exec.Command(filepath.Join(goroot, "bin/go"), args...)
			cmd.Dir = filepath.Join(dir, "src", in)
			cmd.Env = []string{
				"HOME=" + dir, "PATH=/usr/bin:/bin", "GOPROXY=file://" + proxy, "GOSUMDB=off", "GOMODCACHE=" + modcache,
				"GOCACHE=" + dir + "/gocache", "GOFLAGS=-modcacherw", "GOTOOLCHAIN=local", "GOENV=off", goWork,
			}
			out, err := cmd.CombinedOutput()
			return string(out), err
		}
		members := []string{"."}
		if work {
			members = []string{"a", "b", "c"}
			write(t, dir, map[string]string{"src/go.work": "go 1.25\n\nuse (\n\t./a\n\t./b\n\t./c\n)\n"})
		}
		for i, m := range members {
			mod := fmt.Sprintf("module example.com/member%d\n\ngo %s\n", i, []string{"1.16", "1.21", "1.25"}[r.Intn(3)])
			body := "package main\n\n"
			for d := range modules {
				if r.Intn(3) == 0 {
					mod += fmt.Sprintf("\nrequire %s v1.%d.0\n", modPath(d), r.Intn(versions))
					body += fmt.Sprintf("import _ %q\n", modPath(d))
				}
			}
			write(t, dir, map[string]string{filepath.Join("src", m, "go.mod"): mod, filepath.Join("src", m, "main.go"): body + "\nfunc main() {}\n"})
			if out, err := run(all, cache+"-tidy", "GOWORK=off", m, "mod", "tidy"); err != nil {
				t.Fatalf("round %d: tidy: %v\n%s", round, err, out)
			}
		}
		goWork, list, packages := "GOWORK=off", []string{"list", "-deps"}, []gomod.Package{}
		if work {
			goWork = "GOWORK="
		}
		for _, m := range members {
			p := "./" + m
			list, packages = append(list, p), append(packages, gomod.Package{Path: p})
		}
		src := filepath.Join(dir, "src")
		needed, err := s.load(src, packages...)
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		files := s.locked(plain(needed))
		some := filepath.Join(dir, "proxy")
		if err := Proxy(some, files); err != nil {
			t.Fatal(err)
		}
		if work {
			if err := CompleteWorkSum(src, files); err != nil {
				t.Fatal(err)
			}
		}
		before, _ := os.ReadFile(filepath.Join(src, "go.work.sum"))
		if out, err := run(some, cache, goWork, ".", list...); err != nil {
			t.Errorf("round %d: %v\n%s", round, err, out)
		}
		if after, _ := os.ReadFile(filepath.Join(src, "go.work.sum")); string(after) != string(before) {
			t.Errorf("round %d: go.work.sum was not complete:\n%s\n%s", round, before, after)
		}
		os.Remove(filepath.Join(src, "go.work.sum"))
		if out, err := run(all, cache+"-all", goWork, ".", list...); err != nil {
			t.Errorf("round %d: %v\n%s", round, err, out)
		}
		compareDownloads(t, round, filepath.Join(cache+"-all", "cache/download"), needed)
	}
}

// compareDownloads wants every file of a module cache to be a needed one.
func compareDownloads(t *testing.T, round int, cache string, needed []gomod.Needed) {
	t.Helper()
	need := make(map[string]bool)
	for _, n := range needed {
		need[gomod.ModPath(n.Module)] = n.ModH1 != ""
		need[gomod.ZipPath(n.Module)] = n.ZipH1 != ""
	}
	downloaded := 0
	err := filepath.WalkDir(cache, func(name string, _ os.DirEntry, err error) error {
		if ext := filepath.Ext(name); err == nil && (ext == ".mod" || ext == ".zip") {
			rel, _ := filepath.Rel(cache, name)
			downloaded++
			if !need[rel] {
				t.Errorf("round %d: go downloads %s, which is not locked", round, rel)
			}
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if downloaded == 0 {
		t.Errorf("round %d: go downloads nothing: the test shows nothing", round)
	}
}
