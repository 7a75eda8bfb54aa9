package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"caisson/build/image/cpio"
	"caisson/build/rootfs"
)

// finishInitrd reads an initrd's folder and gives it what makes a root of
// packages one: /init, initrd-release, and initrd.target as what is started.
func (b *builder) finishInitrd(ctx context.Context, initrd *installed) error {
	if err := b.scan(ctx, initrd, rootfs.Rules(true)); err != nil {
		return err
	}
	if err := initrd.addState(false); err != nil {
		return err
	}
	t := initrd.tree
	release, err := t.ReadFile("etc/os-release")
	if err != nil {
		return fmt.Errorf("initrd: %w: add the distribution's release package to the initrd set", err)
	}
	if err := initrd.putFile("etc/initrd-release", 0o644, release); err != nil {
		return err
	}
	if t.Resolve("usr/lib/systemd/systemd") == nil {
		return errors.New("the initrd has no /usr/lib/systemd/systemd: add systemd to the initrd set")
	}
	if err := initrd.putLink("init", "usr/lib/systemd/systemd"); err != nil {
		return err
	}
	if err := initrd.putLink("etc/systemd/system/default.target", "/usr/lib/systemd/system/initrd.target"); err != nil {
		return err
	}
	for _, d := range []string{"sysroot", "tmp", "var/tmp"} {
		if err := initrd.putDir(d, 0o755); err != nil {
			return err
		}
	}
	return initrd.maskPhases()
}

// maskPhases switches off the units that extend PCR 11 by boot phase where
// the library through which they reach the TPM is not there: they would fail.
func (i *installed) maskPhases() error {
	if hasTPMLibrary(i.tree) {
		return nil
	}
	for _, u := range []string{"systemd-pcrphase-initrd.service", "systemd-pcrphase-sysinit.service", "systemd-pcrphase.service"} {
		if i.tree.Get("usr/lib/systemd/system/"+u) == nil {
			continue
		}
		if err := i.putLink("etc/systemd/system/"+u, "/dev/null"); err != nil {
			return err
		}
	}
	return nil
}

// hasTPMLibrary tells whether systemd finds the library it uses a TPM by.
func hasTPMLibrary(t *rootfs.Tree) bool {
	return slices.ContainsFunc(t.Entries(), func(e *rootfs.Entry) bool {
		return strings.HasPrefix(path.Base(e.Path), "libtss2-esys.so.0")
	})
}

// writeInitrd writes the tree as a newc archive, compressed with zstd by one
// encoder, so that the bytes do not depend on the number of CPUs.
func (b *builder) writeInitrd(ctx context.Context, t *rootfs.Tree) (string, error) {
	name := filepath.Join(b.work, "initrd.img")
	f, err := os.Create(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	z, err := zstd.NewWriter(untilDone{ctx, f}, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedBetterCompression), zstd.WithWindowSize(8<<20))
	if err != nil {
		return "", err
	}
	if err := writeCpio(z, t, b.Lock.Epoch); err != nil {
		return "", fmt.Errorf("writing the initrd: %w", err)
	}
	if err := z.Close(); err != nil {
		return "", err
	}
	return name, f.Close()
}

func writeCpio(w io.Writer, t *rootfs.Tree, epoch int64) error {
	names := map[string][]string{} // the other names of a file with several
	for _, e := range t.Entries() {
		if e.HardLink != "" {
			names[e.HardLink] = append(names[e.HardLink], e.Path)
		}
	}
	cw := cpio.NewWriter(w)
	ino := uint32(0)
	for _, e := range t.Entries() {
		if e.HardLink != "" {
			continue // written with its first name
		}
		ino++
		all := append([]string{e.Path}, names[e.Path]...)
		for i, p := range all {
			// The kernel takes the content from the first name that has some
			// and links the others to it.
			if err := writeCpioEntry(cw, e, p, ino, uint32(len(all)), i == 0, epoch); err != nil { //nolint:gosec // a count of names
				return fmt.Errorf("/%s: %w", p, err)
			}
		}
	}
	return cw.Close()
}

func writeCpioEntry(cw *cpio.Writer, e *rootfs.Entry, name string, ino, nlink uint32, content bool, epoch int64) error {
	if name == "" {
		name = "."
	}
	h := cpio.Header{
		Name: name, Mode: e.Mode, UID: e.UID, GID: e.GID, Nlink: nlink, Mtime: epoch, Ino: ino,
		RdevMajor: unix.Major(uint64(e.Rdev)), RdevMinor: unix.Minor(uint64(e.Rdev)),
	}
	switch {
	case e.Is(unix.S_IFLNK):
		h.Size = int64(len(e.Target))
	case e.Is(unix.S_IFREG) && content:
		h.Size = e.Size
	}
	if err := cw.WriteHeader(h); err != nil {
		return err
	}
	if e.Is(unix.S_IFLNK) {
		_, err := io.WriteString(cw, e.Target)
		return err
	}
	if h.Size == 0 {
		return nil
	}
	r, err := e.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = io.Copy(cw, r)
	return err
}
