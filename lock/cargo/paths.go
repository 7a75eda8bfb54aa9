package cargo

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
)

// localManifest is what we read of a Cargo.toml of the tree. Dependencies stay
// raw: a version alone or a table.
type localManifest struct {
	Package struct {
		Workspace string `toml:"workspace"` // the folder of its workspace
	} `toml:"package"`
	Workspace struct {
		Members      []string       `toml:"members"`
		Dependencies map[string]any `toml:"dependencies"`
	} `toml:"workspace"`
	manifestDeps
	Target  map[string]manifestDeps   `toml:"target"`
	Patch   map[string]map[string]any `toml:"patch"`
	Replace map[string]any            `toml:"replace"`
}

// Folders are those of the tree's own packages: top, a workspace's members, and
// what they reach by path. It is an error if one is outside of fsys or not
// there, for only what is there is an input of a build.
func Folders(fsys fs.FS, top string) ([]string, error) {
	top = path.Clean(top)
	seen := map[string]bool{top: true}
	queue := []string{top}
	for i := 0; i < len(queue); i++ {
		dirs, err := neighbours(fsys, queue[i])
		if err != nil {
			return nil, err
		}
		for _, d := range dirs {
			if !seen[d] {
				seen[d] = true
				queue = append(queue, d)
			}
		}
	}
	return queue, nil
}

// neighbours are the folders that the Cargo.toml of a folder names.
func neighbours(fsys fs.FS, dir string) ([]string, error) {
	name := path.Join(dir, "Cargo.toml")
	b, err := readFile(fsys, name, maxManifest)
	if err != nil {
		return nil, err
	}
	var m localManifest
	if _, err := toml.Decode(string(b), &m); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	var out []string
	add := func(what, p string) error {
		d := path.Join(dir, p)
		if path.IsAbs(p) || !fs.ValidPath(d) {
			return fmt.Errorf("%s: %s: %q is outside of the source folder; lock the folder that has both, the workspace's root", name, what, p)
		}
		if fi, err := fs.Stat(fsys, path.Join(d, "Cargo.toml")); err != nil || fi.IsDir() {
			return fmt.Errorf("%s: %s: there is no %s", name, what, path.Join(d, "Cargo.toml"))
		}
		out = append(out, d)
		return nil
	}
	if w := m.Package.Workspace; w != "" {
		if err := add("package.workspace", w); err != nil {
			return nil, err
		}
	}
	for _, t := range m.tables() {
		for _, dep := range sortedKeys(t.deps) {
			table, _ := t.deps[dep].(map[string]any)
			if p, ok := table["path"].(string); ok {
				if err := add(t.name+" "+dep, p); err != nil {
					return nil, err
				}
			}
		}
	}
	for _, pattern := range m.Workspace.Members {
		members, err := members(fsys, path.Join(dir, pattern))
		if err != nil {
			return nil, fmt.Errorf("%s: member %q: %w", name, pattern, err)
		}
		out = append(out, members...)
	}
	return out, nil
}

// members are the folders with a Cargo.toml that a pattern of a workspace's
// members means. Cargo passes over a folder without one only where there is a
// wildcard; that is for cargo to complain about.
func members(fsys fs.FS, pattern string) ([]string, error) {
	if !fs.ValidPath(pattern) {
		return nil, errors.New("outside of the source folder")
	}
	found, err := fs.Glob(fsys, path.Join(pattern, "Cargo.toml"))
	if err != nil {
		return nil, err
	}
	for i := range found {
		found[i] = path.Dir(found[i])
	}
	return found, nil
}

type depTable struct {
	name string
	deps map[string]any
}

// tables are all tables of dependencies, those of targets and patches too.
func (m *localManifest) tables() []depTable {
	out := []depTable{{"workspace.dependencies", m.Workspace.Dependencies}, {"replace", m.Replace}}
	of := func(prefix string, d manifestDeps) {
		out = append(out, depTable{prefix + "dependencies", d.Dependencies},
			depTable{prefix + "build-dependencies", d.Build}, depTable{prefix + "build-dependencies", d.BuildOld},
			depTable{prefix + "dev-dependencies", d.Dev}, depTable{prefix + "dev-dependencies", d.DevOld})
	}
	of("", m.manifestDeps)
	for _, t := range sortedKeys(m.Target) {
		of("target."+t+".", m.Target[t])
	}
	for _, source := range sortedKeys(m.Patch) {
		out = append(out, depTable{"patch." + source, m.Patch[source]})
	}
	return out
}

func sortedKeys[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.SortFunc(out, strings.Compare)
	return out
}
