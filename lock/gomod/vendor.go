package gomod

import (
	"archive/zip"
	"bytes"
	"errors"
	"fmt"
	"go/version"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	"golang.org/x/mod/module"
	"golang.org/x/mod/semver"
)

// vendored is what vendor/modules.txt says.
type vendored struct {
	workspace bool
	modules   []module.Version                  // those that have packages, in order
	packages  map[string]module.Version         // by import path
	explicit  map[module.Version]bool           // named in a go.mod
	replaced  map[module.Version]module.Version // a folder has no version
}

// parseVendor reads a vendor/modules.txt. As the go command does, it passes
// over what it does not understand.
func parseVendor(b []byte) *vendored {
	v := &vendored{
		packages: make(map[string]module.Version),
		explicit: make(map[module.Version]bool),
		replaced: make(map[module.Version]module.Version),
	}
	var mod module.Version
	for line := range strings.SplitSeq(string(b), "\n") {
		if rest, ok := strings.CutPrefix(line, "## "); ok {
			for note := range strings.SplitSeq(rest, ";") {
				switch strings.TrimSpace(note) {
				case "explicit":
					v.explicit[mod] = mod.Path != ""
				case "workspace":
					v.workspace = v.workspace || mod.Path == ""
				}
			}
			continue
		}
		if strings.HasPrefix(line, "# ") {
			mod = v.moduleLine(strings.Fields(line)[1:], mod)
			continue
		}
		f := strings.Fields(line)
		if mod.Path == "" || len(f) != 1 || module.CheckImportPath(f[0]) != nil {
			continue
		}
		v.packages[f[0]] = mod
		if !slices.Contains(v.modules, mod) {
			v.modules = append(v.modules, mod)
		}
	}
	return v
}

// moduleLine reads "# PATH VERSION", perhaps with "=> PATH [VERSION]". What is
// none leaves the module that lines below it belong to undecided.
func (v *vendored) moduleLine(f []string, before module.Version) module.Version {
	if len(f) < 2 {
		return before
	}
	mod := module.Version{Path: f[0]}
	switch {
	case semver.IsValid(f[1]):
		mod.Version = f[1]
		f = f[2:]
	case f[1] == "=>":
		f = f[1:]
	default:
		return module.Version{}
	}
	switch {
	case len(f) == 2 && f[0] == "=>":
		v.replaced[mod] = module.Version{Path: f[1]}
	case len(f) == 3 && f[0] == "=>" && semver.IsValid(f[2]):
		v.replaced[mod] = module.Version{Path: f[1], Version: f[2]}
	}
	return mod
}

// CheckVendor compares the folder's vendor tree, if it has one, with go.mod as
// the go command does, and, as it does not, every file in it with the locked
// modules: needed is what Load returned, and fetch brings a module's zip. A tree
// without modules.txt is not one of the go command's.
// top is as Options.Top.
func CheckVendor(fsys fs.FS, top string, needed []Needed, fetch func(m Module) (string, error)) error {
	top = path.Clean(top)
	list := path.Join(top, "vendor/modules.txt")
	b, err := readFile(fsys, list)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	s, err := readSource(fsys, top)
	if err != nil {
		return err
	}
	v := parseVendor(b)
	if v.workspace != (s.work != nil) {
		return nil // it is not for this kind of source, and the go command leaves it alone
	}
	c := &vendorCheck{loader: &loader{source: s}, v: v, needed: needed, fetch: fetch, trees: make(map[module.Version]*tree)}
	defer c.close()
	if err := c.setReplacements(); err != nil {
		return err
	}
	if err := c.consistent(); err != nil {
		return fmt.Errorf("%s: %w; run `%s`", list, err, c.command())
	}
	return fs.WalkDir(fsys, path.Dir(list), func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || name == list {
			return err
		}
		return c.file(name, d)
	})
}

// vendorCheck is one comparison of a vendor tree.
type vendorCheck struct {
	*loader
	v      *vendored
	needed []Needed
	fetch  func(m Module) (string, error)
	trees  map[module.Version]*tree // of vendored modules
}

func (c *vendorCheck) command() string {
	if c.work != nil {
		return "go work vendor"
	}
	return "go mod vendor"
}

// consistent compares modules.txt with the requirements and replacements, as
// the go command does before it builds from a vendor tree.
func (c *vendorCheck) consistent() error {
	old := c.work == nil && version.Compare(goLine(c.mains[0].file), "go1.14") < 0
	asked := make(map[module.Version]bool)
	for _, m := range c.mains {
		for _, r := range m.file.Require {
			asked[r.Mod] = true
			if !old && !c.v.explicit[r.Mod] {
				return fmt.Errorf("go.mod requires %s, which is not marked as explicit there", r.Mod)
			}
			for _, have := range c.v.modules {
				if old && have.Path == r.Mod.Path && have.Version != r.Mod.Version {
					return fmt.Errorf("go.mod requires %s, and %s is there", r.Mod, have)
				}
			}
		}
	}
	for _, m := range c.v.modules {
		if c.v.explicit[m] && !asked[m] {
			return fmt.Errorf("%s is marked as explicit there, and go.mod does not require it", m)
		}
	}
	if old {
		return nil // modules.txt did not have all replacements
	}
	return c.sameReplacements()
}

func (c *vendorCheck) sameReplacements() error {
	for _, m := range sortedVersions(c.replaced) {
		r := c.replaced[m]
		if r.dir != "" {
			r.Version = module.Version{Path: r.dir}
		}
		got, ok := c.v.replaced[m]
		if ok && got.Version == "" {
			got.Path = path.Join(c.top, got.Path)
		}
		if got != r.Version {
			return fmt.Errorf("%s is replaced by %s in the source, and by %q there", m, r.Version, got)
		}
	}
	for _, m := range sortedVersions(c.v.replaced) {
		_, one := c.replaced[m]
		if _, all := c.replaced[module.Version{Path: m.Path}]; !one && !all {
			return fmt.Errorf("%s is replaced by %s there, and not in the source", m, c.v.replaced[m])
		}
	}
	return nil
}

func sortedVersions[V any](m map[module.Version]V) []module.Version {
	out := make([]module.Version, 0, len(m))
	for v := range m {
		out = append(out, v)
	}
	slices.SortFunc(out, compareVersions)
	return out
}

// file compares a vendored file with the module's that it is from: that of the
// package it belongs to, or, where it lies beside packages (a licence, what is
// embedded), one of those whose path is above it.
func (c *vendorCheck) file(name string, d fs.DirEntry) error {
	if !d.Type().IsRegular() {
		return fmt.Errorf("%s: not a regular file", name)
	}
	rel := strings.TrimPrefix(strings.TrimPrefix(name, c.top+"/"), "vendor/")
	var from []module.Version
	if m, ok := c.v.packages[path.Dir(rel)]; ok {
		from = []module.Version{m}
	} else {
		for _, m := range c.v.modules {
			if strings.HasPrefix(rel, m.Path+"/") {
				from = append(from, m)
			}
		}
	}
	if len(from) == 0 {
		return fmt.Errorf("%s: of no module in vendor/modules.txt", name)
	}
	got, err := readFile(c.fsys, name)
	if err != nil {
		return err
	}
	for _, m := range from {
		t, err := c.vendoredTree(m)
		if err != nil {
			return err
		}
		same, err := t.holds(path.Join(t.dir, strings.TrimPrefix(rel, m.Path+"/")), got)
		if same || err != nil {
			return err
		}
	}
	return fmt.Errorf("%s: not the file of %s; run `%s`, and see what has changed", name, from[0], c.command())
}

// holds tells whether a file of the tree has that content.
func (t *tree) holds(name string, want []byte) (bool, error) {
	f, err := t.fsys.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	got, err := io.ReadAll(io.LimitReader(f, int64(len(want))+1))
	return bytes.Equal(got, want), err
}

// vendoredTree opens a module that modules.txt names.
func (c *vendorCheck) vendoredTree(m module.Version) (*tree, error) {
	if t := c.trees[m]; t != nil {
		return t, nil
	}
	r := c.actual(m)
	t := &tree{fsys: c.fsys, dir: r.dir}
	if r.dir == "" {
		i := slices.IndexFunc(c.needed, func(n Needed) bool {
			return n.Path == r.Path && n.Module.Version == r.Version.Version && n.ZipH1 != ""
		})
		if i < 0 {
			return nil, fmt.Errorf("vendor/modules.txt: go.sum has no hash for %s; run `go mod tidy`", r.Version)
		}
		file, err := c.fetch(c.needed[i].Module)
		if err != nil {
			return nil, err
		}
		z, err := zip.OpenReader(file)
		if err != nil {
			return nil, fmt.Errorf("%s.zip: %w", r.Version, err)
		}
		t = &tree{fsys: z, dir: r.Version.String(), close: z.Close}
	}
	c.trees[m] = t
	return t, nil
}

func (c *vendorCheck) close() {
	for _, t := range c.trees {
		if t.close != nil {
			_ = t.close()
		}
	}
}
