package vm

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	"caisson/lock/rpmmd"
)

// maxModule is the most bytes that a module may have, uncompressed.
const maxModule = 64 << 20

// neededModules are what a kernel has to have, built in or as a module: for the disks,
// and for the line by which the machine says what goes on.
func neededModules() []string { return []string{"virtio_pci", "virtio_blk", "virtio_console"} }

// module is a kernel module as finit_module(2) takes it.
type module struct {
	name    string
	content []byte
}

// moduleFolder is a kernel's folder of modules, as it is packaged: what depmod adds
// when a package is installed is not there.
type moduleFolder struct {
	fs      fs.FS
	files   map[string]string // by name
	builtin map[string]bool
}

// moduleName is a module's name by its file's: '-' and '_' are one.
func moduleName(file string) string {
	base, _, _ := strings.Cut(path.Base(file), ".ko")
	return strings.ReplaceAll(base, "-", "_")
}

func readModules(folder fs.FS) (*moduleFolder, error) {
	x := &moduleFolder{fs: folder, files: map[string]string{}, builtin: map[string]bool{}}
	list, err := fs.ReadFile(folder, "modules.builtin")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, f := range strings.Fields(string(list)) {
		x.builtin[moduleName(f)] = true
	}
	err = fs.WalkDir(folder, ".", func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && strings.Contains(path.Base(p), ".ko") {
			if n := moduleName(p); x.files[n] == "" || p < x.files[n] {
				x.files[n] = p
			}
		}
		return err
	})
	return x, err
}

// order reads modules and all that they depend on, each behind what it depends on.
// What is built into the kernel needs no file. A module that one wants before it, but
// does not depend on, is taken where the kernel has it.
func (x *moduleFolder) order(names []string) ([]module, error) {
	var out []module
	done, above := map[string]bool{}, []string{}
	var add func(name string) error
	add = func(name string) error {
		name = moduleName(name)
		switch {
		case done[name]:
			return nil
		case slices.Contains(above, name):
			return fmt.Errorf("%s depends on itself", name)
		case x.files[name] == "" && x.builtin[name]:
			return nil
		case x.files[name] == "":
			return fmt.Errorf("there is no %s", name)
		}
		above = append(above, name)
		defer func() { above = above[:len(above)-1] }()
		b, err := x.read(x.files[name])
		if err != nil {
			return err
		}
		needs, wants, err := dependencies(b)
		if err != nil {
			return fmt.Errorf("%s: %w", x.files[name], err)
		}
		for _, n := range wants {
			if n = moduleName(n); x.files[n] != "" && !slices.Contains(above, n) {
				if err := add(n); err != nil {
					return err
				}
			}
		}
		for _, n := range needs {
			if err := add(n); err != nil {
				return err
			}
		}
		done[name] = true
		out = append(out, module{name, b})
		return nil
	}
	for _, n := range names {
		if err := add(n); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// read returns a module's bytes, uncompressed: which compressors a kernel knows is its
// own matter.
func (x *moduleFolder) read(file string) ([]byte, error) {
	f, err := x.fs.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r, err := rpmmd.Decompress(f, maxModule)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return b, nil
}

// dependencies reads what a module says of itself, NUL-terminated KEY=VALUE in its
// section .modinfo: the modules whose symbols it uses ("depends"), and those that it
// wants loaded before it ("softdep").
func dependencies(b []byte) (needs, wants []string, err error) {
	f, err := elf.NewFile(bytes.NewReader(b))
	if err != nil {
		return nil, nil, err
	}
	s := f.Section(".modinfo")
	if s == nil {
		return nil, nil, errors.New("it is no kernel module: no .modinfo")
	}
	info, err := s.Data()
	if err != nil {
		return nil, nil, fmt.Errorf(".modinfo: %w", err)
	}
	for _, line := range strings.Split(string(info), "\x00") {
		key, value, _ := strings.Cut(line, "=")
		switch key {
		case "depends":
			needs = append(needs, strings.FieldsFunc(value, func(r rune) bool { return r == ',' })...)
		case "softdep":
			before := false
			for _, w := range strings.Fields(value) {
				if strings.HasSuffix(w, ":") {
					before = w == "pre:"
				} else if before {
					wants = append(wants, w)
				}
			}
		}
	}
	return needs, wants, nil
}
