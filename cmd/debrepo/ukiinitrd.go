package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"

	"caisson/build/image/cpio"
	"caisson/cmd/debrepo/rpmwrite"
)

// ukiInitrd are the packages of the vendor's initrd; what they need comes with them. See defaultPackages for how alternatives are written.
var ukiInitrd = []string{"base-files", "bash", "coreutils", "util-linux", "mount", "systemd", "udev", "kmod", "dmsetup", "systemd-cryptsetup|",
	"liblzma5", "libzstd1"} // see loaded

// ukiModules are the kernel's modules in it, as kernel-uki-virt's has them: disks of virtual machines, and what a verified root is opened by.
var ukiModules = []string{"virtio_pci", "virtio_blk", "virtio_scsi", "sd_mod", "nvme", "hv_storvsc", "ahci", "dm-mod", "dm-verity", "dm-crypt", "erofs", "squashfs", "ext4", "overlay"}

// notInInitrd are folders that nothing reads before there is a root.
var notInInitrd = []string{"/usr/share/doc/", "/usr/share/man/", "/usr/share/info/", "/usr/share/locale/", "/usr/share/lintian/", "/usr/share/bash-completion/",
	"/usr/share/zsh/", "/usr/share/perl5/", "/usr/share/common-licenses/", "/usr/share/bug/", "/usr/share/doc-base/", "/usr/include/"}

// noTPM are units that extend a PCR through a library that the initrd has not: they would fail.
var noTPM = []string{"systemd-pcrphase-initrd.service", "systemd-pcrphase-sysinit.service", "systemd-pcrphase.service", "systemd-pcrmachine.service",
	"systemd-tpm2-setup.service", "systemd-tpm2-setup-early.service"}

// initrd writes the initrd and gives its name: the files of its packages as they are, everything root's, without what scriptlets would make.
func (m *ukiMaker) initrd(ctx context.Context, s *ukiSources, kernel *rpmwrite.Package, version string) (string, error) {
	packages, err := ownPackages(ctx, m.apt.archive(s.basePasswd), m.apt.archive(s.baseFiles))
	if err != nil {
		return "", err
	}
	for _, d := range s.initrd {
		p, err := m.read(ctx, d)
		if err != nil {
			return "", err
		}
		packages = append(packages, p)
	}
	tree := initrdTree{}
	for _, p := range packages {
		tree.addPackage(p)
	}
	modules, err := m.modules(ctx, kernel, version)
	if err != nil {
		return "", err
	}
	for name, b := range modules {
		tree.put(name, rpmwrite.TypeRegular|0o644, "", b)
	}
	release, ok := tree["/usr/lib/os-release"]
	if !ok {
		return "", fmt.Errorf("the initrd has no /usr/lib/os-release")
	}
	tree["/etc/initrd-release"] = release
	tree.put("/init", rpmwrite.TypeLink|0o777, "usr/lib/systemd/systemd", nil)
	tree.put("/etc/systemd/system/default.target", rpmwrite.TypeLink|0o777, "/usr/lib/systemd/system/initrd.target", nil)
	for _, u := range noTPM {
		tree.put("/etc/systemd/system/"+u, rpmwrite.TypeLink|0o777, "/dev/null", nil)
	}
	name := filepath.Join(m.work, "initrd")
	f, err := os.Create(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	z, err := zstd.NewWriter(f, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedDefault))
	if err != nil {
		return "", err
	}
	if err := tree.write(z, kernel.BuildTime.Unix()); err != nil {
		return "", err
	}
	if err := z.Close(); err != nil {
		return "", err
	}
	return name, f.Close()
}

// initrdTree are files by absolute path; one that another package has too is the same.
type initrdTree map[string]rpmwrite.File

func (t initrdTree) put(name string, mode uint32, target string, b []byte) {
	t[name] = rpmwrite.File{Path: name, Mode: mode, Target: target, Size: int64(len(b)), Open: func() (io.Reader, error) { return bytes.NewReader(b), nil }}
}

func (t initrdTree) addPackage(p *rpmwrite.Package) {
	for _, f := range p.Files {
		if !slices.ContainsFunc(notInInitrd, func(d string) bool { return strings.HasPrefix(f.Path, d) }) {
			t[f.Path] = f
		}
	}
}

// write writes the archive, folders before what is in them.
func (t initrdTree) write(w io.Writer, mtime int64) error {
	for _, name := range sortedKeys(t) {
		for d := path.Dir(name); d != "/"; d = path.Dir(d) {
			if _, ok := t[d]; !ok {
				t.put(d, rpmwrite.TypeDir|0o755, "", nil)
			}
		}
	}
	cw := cpio.NewWriter(w)
	for i, name := range sortedKeys(t) {
		f := t[name]
		h := cpio.Header{Name: name[1:], Mode: f.Mode, Nlink: 1, Mtime: mtime, Ino: uint32(i + 1)} //nolint:gosec // a count of names
		var from io.Reader = strings.NewReader(f.Target)
		switch f.Mode & rpmwrite.TypeMask {
		case rpmwrite.TypeLink:
			h.Size = int64(len(f.Target))
		case rpmwrite.TypeRegular:
			h.Size = f.Size
			var err error
			if from, err = f.Open(); err != nil {
				return err
			}
		}
		if err := cw.WriteHeader(h); err != nil {
			return fmt.Errorf("initrd: %s: %w", name, err)
		}
		if h.Size > 0 {
			if _, err := io.Copy(cw, from); err != nil {
				return fmt.Errorf("initrd: %s: %w", name, err)
			}
		}
	}
	return cw.Close()
}

// tool runs one of kmod's programs, which an ordinary user's PATH may not have.
func tool(ctx context.Context, name string, args ...string) (string, error) {
	at, err := exec.LookPath(name)
	if err != nil {
		at = "/usr/sbin/" + name
	}
	cmd := exec.CommandContext(ctx, at, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s (Debian package kmod): %w: %s", name, err, bytes.TrimSpace(stderr.Bytes()))
	}
	return stdout.String(), nil
}
