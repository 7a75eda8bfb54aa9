package build

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
)

// moduleIndex is what depmod says of a kernel's modules, as the files of these
// names have it (modules.dep(5), modprobe.d(5)).
type moduleIndex struct {
	dep, builtin   string
	softdep, alias string // may be empty
}

// moduleName is a kernel module's name by its file: '-' and '_' are one.
func moduleName(file string) string {
	base, _, _ := strings.Cut(path.Base(file), ".ko")
	return strings.ReplaceAll(base, "-", "_")
}

// closure returns the files, relative to the modules' folder, of the modules
// named and of all that they depend on, sorted: what modprobe would load with
// them. So those count that a module says it wants before or after it (soft
// dependencies), where the kernel has them: libcrc32c, for one, finds its CRC
// only so. Modules that are built into the kernel need no file.
func (x *moduleIndex) closure(names []string) ([]string, error) {
	files, needs := map[string]string{}, map[string][]string{}
	for line := range strings.Lines(x.dep) {
		line = strings.TrimSuffix(line, "\n")
		file, list, ok := strings.Cut(line, ":")
		if !ok {
			return nil, fmt.Errorf("modules.dep: %q has no colon", line)
		}
		files[moduleName(file)] = file
		needs[file] = strings.Fields(list)
	}
	inKernel := map[string]bool{}
	for _, f := range strings.Fields(x.builtin) {
		inKernel[moduleName(f)] = true
	}
	soft := x.softDependencies()
	want := map[string]bool{}
	var add func(file string)
	add = func(file string) {
		if file == "" || want[file] {
			return
		}
		want[file] = true
		for _, n := range needs[file] {
			add(n)
		}
		for _, n := range soft[moduleName(file)] {
			for _, m := range x.named(n, files) {
				add(files[m])
			}
		}
	}
	for _, n := range names {
		name := moduleName(n)
		switch {
		case files[name] != "":
			add(files[name])
		case !inKernel[name]:
			return nil, fmt.Errorf("sets.initrd.modules: the kernel has no module %q", n)
		}
	}
	return slices.Sorted(maps.Keys(want)), nil
}

// check is the error where depmod of that set could not read the modules: kmod
// takes those for empty that are compressed in a way that it has no library
// for, says nothing, and would load none of them.
func (x *moduleIndex) check(set string) error {
	for line := range strings.Lines(x.dep) {
		file, _, _ := strings.Cut(line, ":")
		kind := path.Ext(file)
		if kind == ".ko" || strings.Contains(x.alias, "\nalias ") || strings.HasPrefix(x.alias, "alias ") {
			continue
		}
		return fmt.Errorf("depmod of the %s set found nothing in %s and the other modules: add the library that its kmod reads %s files by, such as xz-libs, liblzma5 or libzstd1", set, path.Base(file), kind)
	}
	return nil
}

// among is the index of some of the modules, with what an initrd's depmod says
// of them; without that of modules that the root's says nothing of either.
func (x *moduleIndex) among(files []string, alias string) *moduleIndex {
	some := &moduleIndex{alias: alias}
	for line := range strings.Lines(x.alias) {
		words := strings.Fields(line)
		for _, f := range files {
			if len(words) == 3 && words[0] == "alias" && words[2] == moduleName(f) {
				some.dep += f + ":\n"
			}
		}
	}
	return some
}

// softDependencies are the names that modules want beside them, by module:
// lines of "softdep MODULE pre: NAME… post: NAME…".
func (x *moduleIndex) softDependencies() map[string][]string {
	all := map[string][]string{}
	for line := range strings.Lines(x.softdep) {
		words := strings.Fields(line)
		if len(words) < 2 || words[0] != "softdep" {
			continue
		}
		kind := ""
		for _, w := range words[2:] {
			switch {
			case strings.HasSuffix(w, ":"):
				kind = w
			case kind == "pre:" || kind == "post:":
				all[moduleName(words[1])] = append(all[moduleName(words[1])], w)
			}
		}
	}
	return all
}

// named are the modules of a name or an alias; none where the kernel has none,
// or has it built in.
func (x *moduleIndex) named(name string, files map[string]string) []string {
	name = moduleName(name)
	if files[name] != "" {
		return []string{name}
	}
	var out []string
	for line := range strings.Lines(x.alias) {
		words := strings.Fields(line)
		if len(words) != 3 || words[0] != "alias" {
			continue
		}
		if ok, err := path.Match(strings.ReplaceAll(words[1], "-", "_"), name); ok && err == nil {
			out = append(out, moduleName(words[2]))
		}
	}
	return out
}
