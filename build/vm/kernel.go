package vm

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"caisson/build"
	"caisson/build/image/uki"
	"caisson/build/rootfs"
	"caisson/lock"
	"caisson/prefetch/cas"
)

// NoKernelError says that a lock has no kernel to start a machine by.
type NoKernelError struct{ Sets []string }

func (e *NoKernelError) Error() string {
	return fmt.Sprintf("the lock has no kernel for the virtual machine: no package of sets.%s has a vmlinuz", strings.Join(e.Sets, " or of sets."))
}

// kernelFiles is where kernels are in packages: as Fedora, CentOS and RHEL have them,
// and Debian, and as part of a vendor's UKI; the best first.
func kernelFiles() []string {
	return []string{"/usr/lib/modules/*/vmlinuz", "/lib/modules/*/vmlinuz", "/boot/vmlinuz-*", "/usr/lib/modules/*/vmlinuz*.efi", "/lib/modules/*/vmlinuz*.efi"}
}

// place is a kernel in a package.
type place struct {
	kernel build.VMKernel
	path   string
	rank   int
}

// findKernel chooses a lock's kernel, and the packages of the same set that have its
// modules.
func findKernel(l *lock.Lock, store *cas.Store, arch, variant string) (*place, []*lock.Input, error) {
	sets := []string{lock.SetRoot, lock.SetInitrd}
	if set := l.SetFor(lock.SetVM, variant); slices.ContainsFunc(l.Sets, func(s lock.Set) bool { return s.Name == set }) {
		sets = []string{lock.SetVM}
	}
	for _, name := range sets {
		found, from, err := kernelOf(store, name, l.Of(arch, l.SetFor(name, variant)))
		if err != nil || found != nil {
			return found, from, err
		}
	}
	return nil, nil, &NoKernelError{sets}
}

// kernelOf looks for a kernel in a set; nil where it has none.
func kernelOf(store *cas.Store, set string, inputs []*lock.Input) (*place, []*lock.Input, error) {
	var best *place
	modules := map[string][]*lock.Input{} // packages by kernel version
	for _, in := range inputs {
		if in.Kind != lock.KindRPM {
			continue
		}
		p, err := header(store, in)
		if err != nil {
			return nil, nil, err
		}
		versions := map[string]bool{}
		for i := range p.Files {
			f := &p.Files[i]
			if f.Ghost || f.Mode&unix.S_IFMT != unix.S_IFREG {
				continue
			}
			if v := versionOf(f.Path); v != "" && !versions[v] {
				versions[v] = true
				modules[v] = append(modules[v], in)
			}
			for rank, pattern := range kernelFiles() {
				if ok, _ := path.Match(pattern, f.Path); !ok {
					continue
				}
				found := &place{build.VMKernel{Package: in.Name, SHA256: in.SHA256, Set: set, Version: versionOf(f.Path)}, f.Path, rank}
				if found.kernel.Version == "" {
					found.kernel.Version = strings.TrimPrefix(path.Base(f.Path), "vmlinuz-")
				}
				if best == nil || rank < best.rank {
					best = found
				} else if rank == best.rank && found.kernel.Version != best.kernel.Version {
					return nil, nil, fmt.Errorf("the %s set has more than one kernel (%s, %s): name the one for the virtual machine in sets.%s", set, best.kernel.Version, found.kernel.Version, lock.SetVM)
				}
			}
		}
	}
	if best == nil {
		return nil, nil, nil
	}
	from := modules[best.kernel.Version]
	if i := slices.IndexFunc(inputs, func(in *lock.Input) bool { return in.Name == best.kernel.Package }); !slices.Contains(from, inputs[i]) {
		from = append(from, inputs[i])
	}
	return best, from, nil
}

// versionOf is the version of the kernel whose folder of modules a path is in.
func versionOf(p string) string {
	rest, ok := strings.CutPrefix(strings.TrimPrefix(p, "/usr"), "/lib/modules/")
	if !ok {
		return ""
	}
	v, _, _ := strings.Cut(rest, "/")
	return v
}

func header(store *cas.Store, in *lock.Input) (*rootfs.Package, error) {
	f, err := open(store, in)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	p, err := rootfs.ReadPackage(bufio.NewReader(f))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", in.Name, err)
	}
	return p, nil
}

// open reads an input from the store; its last Read says whether the bytes are the
// locked ones.
func open(store *cas.Store, in *lock.Input) (*cas.File, error) {
	f, err := store.Open(in.SHA256)
	return f, named(err, in)
}

// named puts the input's name into the store's errors.
func named(err error, in *lock.Input) error {
	var missing *cas.MissingError
	var damaged *cas.DamagedError
	switch {
	case errors.As(err, &missing):
		missing.Name = in.Kind + "/" + in.Name
	case errors.As(err, &damaged):
		damaged.Name = in.Kind + "/" + in.Name
	}
	return err
}

// namedReader gives the store's error at the end of a file the input's name.
type namedReader struct {
	*cas.File
	in *lock.Input
}

func (r namedReader) Read(b []byte) (int, error) {
	n, err := r.File.Read(b)
	return n, named(err, r.in)
}

// unpackKernel writes a kernel to a file, and returns the modules that it needs in the
// order in which they are loaded. scratch is an empty folder, which is removed.
func unpackKernel(ctx context.Context, store *cas.Store, k *place, from []*lock.Input, to, scratch string) ([]module, error) {
	var rpms []rootfs.RPM
	for _, in := range from {
		rpms = append(rpms, rootfs.RPM{Name: in.Name, Open: func() (io.ReadCloser, error) {
			f, err := open(store, in)
			if err != nil {
				return nil, err
			}
			return namedReader{f, in}, nil
		}})
	}
	if err := os.Mkdir(scratch, 0o700); err != nil {
		return nil, err
	}
	defer os.RemoveAll(scratch)
	if err := rootfs.Unpack(ctx, scratch, rpms); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(scratch)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	if err := writeKernel(root, strings.TrimPrefix(k.path, "/"), to); err != nil {
		return nil, fmt.Errorf("%s of %s: %w", k.path, k.kernel.Package, err)
	}
	for _, lib := range []string{"usr/lib/modules", "lib/modules"} {
		folder, err := fs.Sub(root.FS(), path.Join(lib, k.kernel.Version))
		if err != nil {
			return nil, err
		}
		if _, err := fs.Stat(folder, "."); err != nil {
			continue
		}
		x, err := readModules(folder)
		if err != nil {
			return nil, fmt.Errorf("the modules of kernel %s: %w", k.kernel.Version, err)
		}
		all, err := x.order(neededModules())
		if err != nil {
			return nil, fmt.Errorf("the modules of kernel %s: %w; name a kernel with them in sets.%s", k.kernel.Version, err, lock.SetVM)
		}
		return all, nil
	}
	return nil, fmt.Errorf("no package of the %s set has the modules of kernel %s; name a kernel with its modules in sets.%s", k.kernel.Set, k.kernel.Version, lock.SetVM)
}

// writeKernel copies a kernel; of a UKI the part that is one.
func writeKernel(root *os.Root, name, to string) error {
	r, err := root.Open(name)
	if err != nil {
		return err
	}
	defer r.Close()
	var from io.Reader = r
	if filepath.Ext(name) == ".efi" {
		st, err := r.Stat()
		if err != nil {
			return err
		}
		image, err := uki.Read(r, st.Size())
		if err != nil {
			return err
		}
		linux, err := image.Section(".linux")
		if err != nil {
			return err
		}
		from = linux.Open()
	}
	w, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, from)
	return errors.Join(err, w.Close())
}
