package gobuild

import (
	"debug/buildinfo"
	"fmt"
	"io"

	"caisson/lock/gomod"
)

// Modules reads from a Go program which modules it was made of, sorted, with
// the h1 that the go command verified, and the toolchain's version
// ("go1.26.0"). Folders of the source tree, the main module among them, are
// left out: they have no version.
func Modules(program io.ReaderAt) (mods []gomod.Module, goVersion string, err error) {
	info, err := buildinfo.Read(program)
	if err != nil {
		return nil, "", fmt.Errorf("reading a Go program's build information: %w", err)
	}
	for _, d := range info.Deps {
		if d.Replace != nil {
			d = d.Replace
		}
		// A workspace's other modules are "(devel)", replaced folders have no
		// version at all.
		if d.Sum == "" && (d.Version == "" || d.Version == "(devel)") {
			continue
		}
		mods = append(mods, gomod.Module{Path: d.Path, Version: d.Version, ZipH1: d.Sum})
	}
	gomod.Sort(mods)
	return mods, info.GoVersion, nil
}

// CheckSubset is an error unless every module that was used is a locked one,
// with the same h1.
func CheckSubset(used, locked []gomod.Module) error {
	type id struct{ path, version string }
	want := make(map[id]string, len(locked))
	for _, m := range locked {
		want[id{m.Path, m.Version}] = m.ZipH1
	}
	for _, m := range used {
		h1, ok := want[id{m.Path, m.Version}]
		if !ok || h1 == "" {
			return fmt.Errorf("the program was made with %s %s, which is not locked", m.Path, m.Version)
		}
		if h1 != m.ZipH1 {
			return fmt.Errorf("the program was made with %s %s: got %s, want %s", m.Path, m.Version, m.ZipH1, h1)
		}
	}
	return nil
}
