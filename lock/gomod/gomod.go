// Package gomod reads what the go.mod and go.sum of a source folder name: the
// module files that an offline build of it needs, each with its hash.
//
// Read answers from the folder alone, so it knows what go.sum knows:
//
//   - Every /go.mod line is a needed .mod file.
//   - A zip line is needed if go.mod's require list has that version. Since
//     language version 1.17 the list is complete (the go command refuses to
//     build where it is not); for older modules and for workspaces every zip
//     line is taken, which is more than a build reads.
//   - A workspace's sum files may lack lines that the go command would fetch
//     and add. Load finds them: it follows the module graph and the imports of
//     what is built.
//   - A vendor folder is no source of anything: the go command does not check
//     its content against go.sum. The modules it was made of are read instead,
//     and CheckVendor compares it with them.
//
// Load follows the files that a build for Linux takes, without build tags of
// one's own. Test files count for nothing.
//
// A hash is the h1 of go.sum: the base64 of a SHA-256 over the sorted list of
// the files' SHA-256 and names. It is not a hash of a zip's own bytes.
package gomod

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"errors"
	"fmt"
	"go/version"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/module"
	"golang.org/x/mod/semver"
)

// maxFile bounds go.mod, go.sum and go.work, in bytes. The largest go.sum in
// public use are below 1 MiB.
const maxFile = 16 << 20

// emptyGoMod is a go.sum hash that an early go command wrote by mistake, for
// a go.mod without content; the go command drops such lines.
const emptyGoMod = "h1:G7mAYYxgmS0lVkHyy2hEOLQCFB0DlQFTMLWggykrydY="

// Module is one version of a module, and which of its files are needed.
type Module struct {
	Path, Version string
	ZipH1         string // h1 of the zip's files; empty: only go.mod is needed
	ModH1         string // h1 of go.mod
}

// Read returns the modules that a build of the source folder needs, sorted by
// path and version. It reads go.mod and go.sum at the top of fsys, and where
// there is a go.work (see Workspace) those of the folders it uses.
func Read(fsys fs.FS) ([]Module, error) {
	s, err := readSource(fsys, ".")
	if err != nil {
		return nil, err
	}
	return s.modules()
}

// readSource reads the go.work, go.mod and sum files of the folder top.
func readSource(fsys fs.FS, top string) (*source, error) {
	top = path.Clean(top)
	s := &source{
		fsys: fsys, top: top, sums: make(map[module.Version]Module),
		zips: make(map[module.Version]bool), excluded: make(map[module.Version]bool),
	}
	read := s.readModule
	if isFile(fsys, path.Join(top, "go.work")) {
		read = s.readWork
	}
	if err := read(); err != nil {
		return nil, err
	}
	for _, m := range s.mains {
		for _, e := range m.file.Exclude {
			s.excluded[e.Mod] = true
		}
	}
	return s, nil
}

// Workspace tells whether the folder has a go.work at its top.
func Workspace(fsys fs.FS) bool {
	_, err := fs.Stat(fsys, "go.work")
	return err == nil
}

// GoVersion is the language version that the folder asks for, such as "1.25.0":
// the go line of its go.work or go.mod. It is "1.16" where there is none.
func GoVersion(fsys fs.FS) (string, error) {
	name, goLine := "go.mod", ""
	if Workspace(fsys) {
		name = "go.work"
	}
	b, err := readFile(fsys, name)
	if err != nil {
		return "", err
	}
	if name == "go.work" {
		work, err := modfile.ParseWork(name, b, nil)
		if err != nil {
			return "", err
		}
		if work.Go != nil {
			goLine = work.Go.Version
		}
	} else {
		mod, err := modfile.ParseLax(name, b, nil)
		if err != nil {
			return "", err
		}
		if mod.Go != nil {
			goLine = mod.Go.Version
		}
	}
	if goLine == "" {
		return "1.16", nil
	}
	return goLine, nil
}

// source collects what a folder's files say.
type source struct {
	fsys fs.FS
	top  string // the folder of the go.mod or go.work
	sums map[module.Version]Module
	// zips are the modules of the build list; all takes every zip instead.
	zips map[module.Version]bool
	all  bool
	// mains are the modules of the folder; work is nil where it is one plain
	// module.
	mains    []mainModule
	work     *modfile.WorkFile
	excluded map[module.Version]bool
}

// mainModule is a module of the folder.
type mainModule struct {
	dir  string
	file *modfile.File
}

func (m mainModule) path() string {
	if m.file.Module == nil {
		return ""
	}
	return m.file.Module.Mod.Path
}

// readModule reads a single module at the top of the folder.
func (s *source) readModule() error {
	mod, err := s.readMod(s.top)
	if err != nil {
		return err
	}
	// A module without requirements has no go.sum.
	if err := s.readSum(path.Join(s.top, "go.sum")); err != nil {
		return err
	}
	s.all = mod.Go == nil || version.Compare("go"+mod.Go.Version, "go1.17") < 0
	return s.require(mod, mod.Replace, s.top, nil)
}

// readWork reads a workspace: its go.work, and the modules that it uses.
func (s *source) readWork() error {
	name := path.Join(s.top, "go.work")
	b, err := readFile(s.fsys, name)
	if err != nil {
		return err
	}
	work, err := modfile.ParseWork(name, b, nil)
	if err != nil {
		return err
	}
	if err := s.readSum(path.Join(s.top, "go.work.sum")); err != nil {
		return err
	}
	s.all, s.work = true, work
	used := make(map[string]bool)
	for _, u := range work.Use {
		dir, err := inside(s.top, u.Path)
		if err != nil {
			return fmt.Errorf("%s: use %s: %w", name, u.Path, err)
		}
		mod, err := s.readMod(dir)
		if err != nil {
			return err
		}
		if err := s.readSum(path.Join(dir, "go.sum")); err != nil {
			return err
		}
		if mod.Module == nil {
			return fmt.Errorf("%s: there is no module line", path.Join(dir, "go.mod"))
		}
		if used[mod.Module.Mod.Path] {
			return fmt.Errorf("%s: two modules are called %s", name, mod.Module.Mod.Path)
		}
		used[mod.Module.Mod.Path] = true
	}
	if err := s.localReplacements(work.Replace, s.top, name); err != nil {
		return err
	}
	for _, m := range s.mains {
		// A replacement of go.work wins over one of a module.
		replace := slices.Concat(m.file.Replace, work.Replace)
		if err := s.require(m.file, replace, m.dir, used); err != nil {
			return err
		}
	}
	return nil
}

// readMod parses the go.mod of a folder.
func (s *source) readMod(dir string) (*modfile.File, error) {
	name := path.Join(dir, "go.mod")
	b, err := readFile(s.fsys, name)
	if err != nil {
		return nil, err
	}
	mod, err := modfile.Parse(name, b, nil)
	if err != nil {
		return nil, err
	}
	s.mains = append(s.mains, mainModule{dir, mod})
	return mod, nil
}

// require notes what a go.mod asks for, after replacement, and checks that
// the sum files know it. Modules of used are part of the workspace.
func (s *source) require(mod *modfile.File, replace []*modfile.Replace, dir string, used map[string]bool) error {
	name := path.Join(dir, "go.mod")
	if err := s.localReplacements(mod.Replace, dir, name); err != nil {
		return err
	}
	byOld := make(map[module.Version]module.Version)
	for _, r := range replace {
		byOld[r.Old] = r.New
	}
	for _, r := range mod.Require {
		m := r.Mod
		if used[m.Path] || s.excluded[m] {
			continue
		}
		repl, ok := byOld[m]
		if !ok {
			repl, ok = byOld[module.Version{Path: m.Path}]
		}
		if ok && repl.Version == "" {
			continue // a folder of the tree
		}
		if ok {
			m = repl
		}
		if s.sums[m].ModH1 == "" && s.work == nil {
			return fmt.Errorf("%s: require %s %s: go.sum has no hash for the go.mod of %s %s; run `go mod tidy`",
				name, r.Mod.Path, r.Mod.Version, m.Path, m.Version)
		}
		s.zips[m] = true
	}
	return nil
}

// localReplacements checks that modules replaced by folders are in the tree.
func (s *source) localReplacements(replace []*modfile.Replace, dir, name string) error {
	for _, r := range replace {
		if r.New.Version != "" {
			continue
		}
		p, err := inside(dir, r.New.Path)
		if err == nil {
			_, err = fs.Stat(s.fsys, path.Join(p, "go.mod"))
		}
		if err != nil {
			return fmt.Errorf("%s: replace %s => %s: %w", name, r.Old.Path, r.New.Path, err)
		}
	}
	return nil
}

// modules is what was collected, sorted.
func (s *source) modules() ([]Module, error) {
	out := make([]Module, 0, len(s.sums))
	for v, m := range s.sums {
		if !s.all && !s.zips[v] {
			m.ZipH1 = ""
		}
		if m.ZipH1 != "" && m.ModH1 == "" {
			return nil, fmt.Errorf("go.sum: %s %s has a hash for its zip, none for its go.mod; run `go mod tidy`", m.Path, m.Version)
		}
		if m.ModH1 == "" {
			continue
		}
		out = append(out, m)
	}
	Sort(out)
	return out, nil
}

// Sort orders modules by path, then by version.
func Sort(ms []Module) {
	slices.SortFunc(ms, compareModules)
}

func compareModules(a, b Module) int {
	return compareVersions(module.Version{Path: a.Path, Version: a.Version}, module.Version{Path: b.Path, Version: b.Version})
}

func compareVersions(a, b module.Version) int {
	return cmp.Or(cmp.Compare(a.Path, b.Path), semver.Compare(a.Version, b.Version), cmp.Compare(a.Version, b.Version))
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// inside joins a folder of the tree and a relative path in it; a path that
// leaves the tree is an error.
func inside(dir, p string) (string, error) {
	joined := path.Join(dir, p)
	if path.IsAbs(p) || !fs.ValidPath(joined) {
		return "", errors.New("outside of the source folder, so not an input of the build")
	}
	return joined, nil
}

// readSum adds the lines of a sum file. A file that is not there has none.
func (s *source) readSum(name string) error {
	b, err := readFile(s.fsys, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return parseSum(name, b, s.sums)
}

// parseSum adds the lines of a go.sum to sums. As in the go command, lines
// with a hash of another kind than h1 are passed over.
func parseSum(name string, b []byte, sums map[module.Version]Module) error {
	for n := 1; len(b) > 0; n++ {
		var line []byte
		line, b, _ = bytes.Cut(b, []byte("\n"))
		f := strings.Fields(string(line))
		if len(f) == 0 || len(f) == 3 && (f[2] == emptyGoMod || !strings.HasPrefix(f[2], "h1:")) {
			continue
		}
		if len(f) != 3 {
			return fmt.Errorf("%s:%d: got %d fields, want module, version and hash", name, n, len(f))
		}
		if err := addSum(sums, f[0], f[1], f[2]); err != nil {
			return fmt.Errorf("%s:%d: %w", name, n, err)
		}
	}
	return nil
}

func addSum(sums map[module.Version]Module, mpath, vers, h1 string) error {
	if err := checkH1(h1); err != nil {
		return err
	}
	vers, isMod := strings.CutSuffix(vers, "/go.mod")
	if err := module.Check(mpath, vers); err != nil {
		return err
	}
	v := module.Version{Path: mpath, Version: vers}
	m := sums[v]
	m.Path, m.Version = mpath, vers
	field := &m.ZipH1
	if isMod {
		field = &m.ModH1
	}
	if *field != "" && *field != h1 {
		return fmt.Errorf("%s %s: two hashes, %s and %s", mpath, vers, *field, h1)
	}
	*field = h1
	sums[v] = m
	return nil
}

// checkH1 checks the form of a go.sum hash: "h1:" and base64 of 32 bytes.
func checkH1(h1 string) error {
	s, ok := strings.CutPrefix(h1, "h1:")
	if b, err := base64.StdEncoding.DecodeString(s); !ok || err != nil || len(b) != 32 {
		return fmt.Errorf("hash %q: want \"h1:\" and the base64 of 32 bytes", h1)
	}
	return nil
}

// readFile reads a file of the folder, up to maxFile bytes.
func readFile(fsys fs.FS, name string) ([]byte, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	if len(b) > maxFile {
		return nil, fmt.Errorf("reading %s: larger than %d bytes", name, maxFile)
	}
	return b, nil
}
