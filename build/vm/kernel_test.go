package vm

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"caisson/build"
	"caisson/build/rootfs/rpmtest"
	"caisson/lock"
	"caisson/lock/digest"
	"caisson/lock/tooltest"
	"caisson/prefetch/cas"
)

// packageOf adds a package with some files to a store, and to a lock's set.
func packageOf(t *testing.T, s *cas.Store, l *lock.Lock, set, name string, files map[string]string) {
	t.Helper()
	var entries []rpmtest.Entry
	for p, text := range files {
		entries = append(entries, rpmtest.Entry{Name: "." + p, Mode: unix.S_IFREG | 0o644, Data: text})
	}
	slices.SortFunc(entries, func(a, b rpmtest.Entry) int { return strings.Compare(a.Name, b.Name) })
	payload, err := rpmtest.Archive(entries...)
	if err != nil {
		t.Fatal(err)
	}
	p := rpmtest.Package{Name: name, Files: rpmtest.Named(entries...), Payload: payload}
	b := p.Bytes()
	sum, n, err := s.Put(bytes.NewReader(b), digest.Of(b))
	if err != nil {
		t.Fatal(err)
	}
	l.Inputs = append(l.Inputs, lock.Input{Kind: lock.KindRPM, Name: name, SHA256: sum, Size: n, For: []lock.Use{{Set: set}}})
	if !slices.ContainsFunc(l.Sets, func(s lock.Set) bool { return s.Name == set }) {
		l.Sets = append(l.Sets, lock.Set{Name: set})
	}
}

const modulesDir = "/usr/lib/modules/6.1.0/"

func TestFindKernel(t *testing.T) {
	store, _ := newStore(t)
	modules := map[string]string{modulesDir + "kernel/virtio_pci.ko": string(ko()), modulesDir + "kernel/virtio_blk.ko": string(ko("depends=virtio_pci"))}
	for _, tt := range []struct {
		name string
		add  func(l *lock.Lock)
		want string // package, set and path; or an error
		from []string
	}{
		{"root", func(l *lock.Lock) {
			packageOf(t, store, l, lock.SetRoot, "bash", map[string]string{"/usr/bin/bash": "x"})
			packageOf(t, store, l, lock.SetRoot, "kernel", map[string]string{modulesDir + "vmlinuz": "linux", modulesDir + "modules.builtin": "virtio_console.ko\n"})
			packageOf(t, store, l, lock.SetRoot, "modules", modules)
			packageOf(t, store, l, lock.SetRoot, "other", map[string]string{"/usr/lib/modules/5.14.0/kernel/x.ko": "x"})
		}, "kernel of root: " + modulesDir + "vmlinuz", []string{"kernel", "modules"}},
		{"initrd", func(l *lock.Lock) {
			packageOf(t, store, l, lock.SetRoot, "bash", map[string]string{"/usr/bin/bash": "x"})
			packageOf(t, store, l, lock.SetInitrd, "kernel", map[string]string{"/boot/vmlinuz-6.1.0": "linux"})
			packageOf(t, store, l, lock.SetInitrd, "modules", modules)
		}, "kernel of initrd: /boot/vmlinuz-6.1.0", []string{"modules", "kernel"}},
		{"its own set first", func(l *lock.Lock) {
			packageOf(t, store, l, lock.SetRoot, "kernel", map[string]string{modulesDir + "vmlinuz": "linux"})
			packageOf(t, store, l, lock.SetVM, "kernel-vm", map[string]string{"/lib/modules/6.12/vmlinuz": "linux"})
		}, "kernel-vm of vm: /lib/modules/6.12/vmlinuz", []string{"kernel-vm"}},
		{"nothing but its own set", func(l *lock.Lock) {
			packageOf(t, store, l, lock.SetRoot, "kernel", map[string]string{modulesDir + "vmlinuz": "linux"})
			packageOf(t, store, l, lock.SetVM, "bash-vm", map[string]string{"/usr/bin/bash": "x"})
		}, "the lock has no kernel for the virtual machine: no package of sets.vm has a vmlinuz", nil},
		{"none", func(l *lock.Lock) {
			packageOf(t, store, l, lock.SetRoot, "bash", map[string]string{"/usr/bin/bash": "x"})
		}, "the lock has no kernel for the virtual machine: no package of sets.root or of sets.initrd has a vmlinuz", nil},
		{"two", func(l *lock.Lock) {
			packageOf(t, store, l, lock.SetRoot, "kernel", map[string]string{modulesDir + "vmlinuz": "linux"})
			packageOf(t, store, l, lock.SetRoot, "kernel-rt", map[string]string{"/usr/lib/modules/6.2/vmlinuz": "linux"})
		}, "the root set has more than one kernel (6.1.0, 6.2): name the one for the virtual machine in sets.vm", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := &lock.Lock{}
			tt.add(l)
			k, from, err := findKernel(l, store, "x86_64", "")
			if err != nil {
				if err.Error() != tt.want {
					t.Errorf("got %v, want %s", err, tt.want)
				}
				return
			}
			if got := k.kernel.Package + " of " + k.kernel.Set + ": " + k.path; got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
			var names []string
			for _, in := range from {
				names = append(names, in.Name)
			}
			if !slices.Equal(names, tt.from) {
				t.Errorf("got %q, want %q", names, tt.from)
			}
		})
	}
}

func TestUnpackKernel(t *testing.T) {
	store, _ := newStore(t)
	l := &lock.Lock{}
	packageOf(t, store, l, lock.SetRoot, "kernel", map[string]string{modulesDir + "vmlinuz": "linux", modulesDir + "modules.builtin": "kernel/virtio_console.ko\n"})
	packageOf(t, store, l, lock.SetRoot, "modules", map[string]string{modulesDir + "kernel/virtio_pci.ko": string(ko()), modulesDir + "kernel/virtio_blk.ko": string(ko("depends=virtio_pci"))})
	k, from, err := findKernel(l, store, "x86_64", "")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	modules, err := unpackKernel(context.Background(), store, k, from, filepath.Join(dir, "vmlinuz"), filepath.Join(dir, "scratch"))
	if err != nil || len(modules) != 2 || modules[0].name != "virtio_pci" || modules[1].name != "virtio_blk" {
		t.Errorf("%v, %v", modules, err)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "vmlinuz")); err != nil || string(b) != "linux" {
		t.Errorf("%q, %v", b, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "scratch")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what was unpacked is left: %v", err)
	}
	_, err = unpackKernel(context.Background(), store, k, from[:1], filepath.Join(dir, "again"), filepath.Join(dir, "scratch"))
	if err == nil || !strings.Contains(err.Error(), "there is no virtio_pci; name a kernel with them in sets.vm") {
		t.Errorf("without its modules: %v", err)
	}
}

// A machine has the devices that are named, and no network card.
func TestMachine(t *testing.T) {
	for _, m := range []*Machine{
		{VM: vmOf("q35", "max", TCG)}, {VM: vmOf("virt", "max,pauth-impdef=on", TCG)}, {VM: vmOf("q35", "host", KVM), sandbox: true},
	} {
		args := strings.Join(m.args("/a,b"), " ")
		for _, want := range []string{"-nodefaults ", "-no-user-config ", "-nic none ", "-accel " + m.Accelerator, "file=/a,,b/inputs ", "readonly=on,file=/a,,b/inputs", " -- " + initArg + " "} {
			if !strings.Contains(args+" ", want) {
				t.Errorf("%s: %q is missing", args, want)
			}
		}
		for _, none := range []string{"netdev", "virtio-net", "e1000", "hostfwd", "-virtfs"} {
			if strings.Contains(args, none) {
				t.Errorf("%s: there is %q", args, none)
			}
		}
		if got := strings.Contains(args, "-sandbox on"); got != m.sandbox {
			t.Errorf("%s: confined: %v", args, got)
		}
		if got := strings.Contains(m.commandLine(), " clearcpuid=cx16,rep_good "); got != (m.Machine == "q35" && m.Accelerator == TCG) {
			t.Errorf("%s", m.commandLine())
		}
	}
}

func vmOf(machine, cpu, accelerator string) build.VM {
	return build.VM{Machine: machine, CPU: cpu, Accelerator: accelerator, CPUs: 2, Memory: 1 << 30}
}

// Memory is what a build can use, or what is free, and too little is an error.
func TestMemory(t *testing.T) {
	qemu := tooltest.Find(t, "qemu-system-x86_64")
	for _, tt := range []struct{ need, free, want int64 }{{1 << 30, 64 << 30, 4 << 30}, {8 << 30, 4 << 30, 3 << 30}, {1 << 30, 1 << 30, 0}} {
		m, err := newMachine(context.Background(), "x86_64", Wish{}, tt.need, tt.free)
		if tt.want == 0 {
			if err == nil || !strings.Contains(err.Error(), "a virtual machine needs 1024 MiB of memory, and of the 1024 MiB that are free it may have 768") {
				t.Errorf("%v", err)
			}
			continue
		}
		if err != nil || m.Memory != tt.want || m.program != qemu || !strings.HasPrefix(m.QEMU, "QEMU emulator version ") {
			t.Errorf("%+v, %v", m, err)
		}
	}
}
