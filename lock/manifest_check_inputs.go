package lock

import (
	"path"
	"strings"
)

func (m *manifestChecker) checkInputs() error {
	seen := map[string]bool{}
	add := func(where []any, name string) error {
		if err := m.checkName(below(where, "name"), name); err != nil {
			return err
		}
		if seen[name] {
			return m.errorf(below(where, "name"), "two inputs are called %q", name)
		}
		seen[name] = true
		return nil
	}
	for i, g := range m.Inputs.Go {
		where := at("inputs", "go", i)
		if err := add(where, g.Name); err != nil {
			return err
		}
		if err := m.checkDir(below(where, "dir"), g.Dir); err != nil {
			return err
		}
		if !strings.HasPrefix(g.Toolchain, "go1.") {
			return m.errorf(below(where, "toolchain"), "got %q; want a release of Go, such as go1.26.0", g.Toolchain)
		}
	}
	for i, c := range m.Inputs.Cargo {
		where := at("inputs", "cargo", i)
		if err := add(where, c.Name); err != nil {
			return err
		}
		if err := m.checkDir(below(where, "dir"), c.Dir); err != nil {
			return err
		}
	}
	for i, f := range m.Inputs.Files {
		where := at("inputs", "files", i)
		if err := add(where, f.Name); err != nil {
			return err
		}
		if err := m.checkFile(where, f); err != nil {
			return err
		}
	}
	return nil
}

// checkDir wants a path below or beside the manifest: an absolute one would
// be another on every machine.
func (m *manifestChecker) checkDir(where []any, dir string) error {
	if dir == "" || path.IsAbs(dir) {
		return m.errorf(where, "got %q; want a folder relative to the manifest", dir)
	}
	return nil
}

func (m *manifestChecker) checkFile(where []any, f ManifestFile) error {
	if f.URL == "" || path.IsAbs(f.URL) {
		return m.errorf(below(where, "url"), "got %q; want an address, or a path relative to the manifest", f.URL)
	}
	if f.SHA256 == "" {
		if isURL(f.URL) {
			return m.errorf(below(where, "sha256"), "%q needs the SHA-256 of what %s holds", f.Name, f.URL)
		}
		return nil
	}
	if _, err := parseSHA256(f.SHA256); err != nil {
		return m.errorf(below(where, "sha256"), "%w", err)
	}
	return nil
}
