package build

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"caisson/build/image/erofs"
	"caisson/build/image/fat"
	"caisson/build/image/gpt"
	"caisson/build/image/qcow2"
	"caisson/build/image/uki"
	"caisson/build/image/verity"
	"caisson/build/rootfs"
	"caisson/lock"
	"caisson/lock/digest"
)

// align is what partitions begin and end at, in bytes.
const align = 1 << 20

// qcow2Level is the zstd level of the qcow2's clusters.
const qcow2Level = 3

// machine is what differs from architecture to architecture.
type machine struct {
	stub, loader     string // the EFI stub in the tools root, the UKI's place in the ESP
	root, rootVerity gpt.GUID
}

var machines = map[string]machine{
	"x86_64":  {"usr/lib/systemd/boot/efi/linuxx64.efi.stub", "EFI/BOOT/BOOTX64.EFI", gpt.TypeRootX86_64, gpt.TypeRootVerityX86_64},
	"aarch64": {"usr/lib/systemd/boot/efi/linuxaa64.efi.stub", "EFI/BOOT/BOOTAA64.EFI", gpt.TypeRootARM64, gpt.TypeRootVerityARM64},
}

// derive is an id of 16 bytes that depends on the parts alone: the same image
// has the same ids.
func derive(parts ...string) (id [16]byte) {
	h := sha256.Sum256([]byte("caisson\x00" + strings.Join(parts, "\x00")))
	copy(id[:], h[:])
	id[6] = id[6]&0x0f | 0x80 // RFC 9562 section 5.8: a UUID of version 8
	id[8] = id[8]&0x3f | 0x80
	return id
}

// disk is the disk being assembled: a sparse file.
type disk struct {
	*builder
	f       *os.File
	machine machine
	version string // the kernel's
	initrd  string // the initrd's file
	cmdline string
	root    [32]byte // the dm-verity root hash
	esp     extent
	data    extent
	hash    extent

	partitions []Partition
	files      []Output // the formats asked for
}

type extent struct{ start, size int64 }

func (e extent) end() int64 { return e.start + e.size }

func roundUp(n int64) int64 { return (n + align - 1) / align * align }

// assemble writes the disk and the formats it is asked for in, from the trees
// of root and initrd and from the tools' EFI stub.
func (b *builder) assemble(ctx context.Context, root, initrd *installed) (*disk, error) {
	version, err := kernelVersion(root.tree)
	if err != nil {
		return nil, err
	}
	m, ok := machines[b.Arch]
	if !ok {
		return nil, fmt.Errorf("images for %s cannot be assembled yet", b.Arch)
	}
	d := &disk{builder: b, machine: m, version: version}
	if d.initrd, err = b.writeInitrd(ctx, initrd.tree); err != nil {
		return nil, err
	}
	raw := filepath.Join(b.work, b.imageName()+".raw")
	if d.f, err = os.OpenFile(raw, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644); err != nil {
		return nil, err
	}
	defer d.f.Close()
	table, err := d.write(ctx, root)
	if err != nil {
		return nil, err
	}
	b.say("writing %s", strings.Join(b.image.Output, " and "))
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		d.partitions, err = d.hashPartitions(ctx, table)
		return err
	})
	g.Go(func() (err error) {
		d.files, err = d.outputs(ctx)
		return err
	})
	return d, g.Wait()
}

// describe is what there is to say of the disk.
func (d *disk) describe() *Image {
	return &Image{
		Name: d.Lock.Name, Variant: d.Variant, Arch: d.Arch, Lock: d.lockDigest, Epoch: d.Lock.Epoch,
		Kernel: d.version, Cmdline: d.cmdline, RootHash: fmt.Sprintf("%x", d.root),
		Files: d.files, Partitions: d.partitions,
	}
}

// imageName is the image's file name without its ending.
func (b *builder) imageName() string { return ImageName(b.Lock, b.Arch, b.Variant) }

// ImageName is the file name, without its ending, of the image of a lock:
// NAME, NAME-VARIANT, and with the arch at the end where the lock has several.
func ImageName(l *lock.Lock, arch, variant string) string {
	name := l.Name
	if variant != "" {
		name += "-" + variant
	}
	if len(l.Arches) > 1 {
		name += "-" + arch
	}
	return name
}

// write lays the disk out: ESP, root, hash tree. The root hash goes into the
// UKI's command line, so the ESP is sized with a hash of zeros and filled last.
func (d *disk) write(ctx context.Context, root *installed) (*gpt.Table, error) {
	d.setCmdline()
	sections, stub, err := d.ukiSections(root.tree)
	if err != nil {
		return nil, err
	}
	defer stub.Close()
	st, err := stub.Stat()
	if err != nil {
		return nil, err
	}
	ukiSize, err := uki.Size(stub, st.Size(), sections)
	if err != nil {
		return nil, err
	}
	d.esp = extent{align, roundUp(fat.MinSize([]fat.File{{Path: d.machine.loader, Size: ukiSize}}))}
	d.data.start = d.esp.end()
	if d.data.size, err = d.writeRoot(ctx, root.tree); err != nil {
		return nil, err
	}
	if err := d.writeVerity(ctx); err != nil {
		return nil, err
	}
	d.setCmdline()
	if sections, stub, err = d.ukiSections(root.tree); err != nil {
		return nil, err
	}
	defer stub.Close()
	if err := d.writeESP(stub, st.Size(), sections); err != nil {
		return nil, err
	}
	return d.writeTable()
}

// setCmdline is the manifest's command line and what the root needs.
func (d *disk) setCmdline() {
	words := strings.Fields(d.image.Cmdline)
	for _, w := range []string{"ro", "rootfstype=" + d.image.Root} {
		if !slices.Contains(words, w) {
			words = append(words, w)
		}
	}
	d.cmdline = strings.Join(append(words, fmt.Sprintf("roothash=%x", d.root)), " ")
}

func (d *disk) ukiSections(root *rootfs.Tree) ([]uki.Section, *os.File, error) {
	stub, err := os.Open(filepath.Join(d.tools, d.machine.stub))
	if err != nil {
		return nil, nil, fmt.Errorf("the tools set has no EFI stub: %w", err)
	}
	release, err := root.ReadFile("etc/os-release")
	if err != nil {
		stub.Close()
		return nil, nil, err
	}
	initrd, err := os.Stat(d.initrd)
	if err != nil {
		stub.Close()
		return nil, nil, err
	}
	kernel := root.Get(path.Join("usr/lib/modules", d.version, "vmlinuz"))
	text := func(name string, b []byte) uki.Section {
		return uki.Section{Name: name, Size: int64(len(b)), Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }}
	}
	return []uki.Section{
		text(".osrel", release),
		text(".cmdline", []byte(d.cmdline)),
		text(".uname", []byte(d.version)),
		{Name: ".initrd", Size: initrd.Size(), Open: func() (io.ReadCloser, error) { return os.Open(d.initrd) }},
		{Name: ".linux", Size: kernel.Size, Open: kernel.Open},
	}, stub, nil
}

// writeRoot writes the root file system and returns the partition's size.
func (d *disk) writeRoot(ctx context.Context, t *rootfs.Tree) (int64, error) {
	if d.image.Compression != nil {
		return d.makeRoot(ctx, t)
	}
	var entries []erofs.Entry
	for _, e := range t.Entries() {
		x := erofs.Entry{
			Path: e.Path, Mode: e.Mode, UID: e.UID, GID: e.GID, Mtime: d.Lock.Epoch,
			Target: e.Target, HardLink: e.HardLink, Rdev: e.Rdev, Xattrs: e.Xattrs,
		}
		if e.Is(unix.S_IFREG) {
			x.Size, x.Open = e.Size, e.Open
		}
		entries = append(entries, x)
	}
	id := derive("root", d.Lock.Name, d.Variant)
	size, err := erofs.Write(io.NewOffsetWriter(untilDone{ctx, d.f}, d.data.start), entries, erofs.Options{UUID: id, BuildTime: d.Lock.Epoch, Label: "root"})
	if err != nil {
		return 0, fmt.Errorf("writing the root: %w", err)
	}
	return roundUp(size), nil
}

// writeVerity hashes the whole partition, what is behind the file system
// included.
func (d *disk) writeVerity(ctx context.Context) error {
	if err := d.f.Truncate(d.data.end()); err != nil {
		return err
	}
	d.hash = extent{d.data.end(), roundUp(verity.HashSize(d.data.size))}
	if err := d.f.Truncate(d.hash.end() + align); err != nil {
		return err
	}
	salt := sha256.Sum256([]byte("caisson\x00salt\x00" + d.Lock.Name + "\x00" + d.Variant))
	var err error
	f := untilDone{ctx, d.f}
	d.root, err = verity.Write(io.NewSectionReader(f, d.data.start, d.data.size), d.data.size,
		io.NewOffsetWriter(f, d.hash.start), verity.Params{UUID: derive("verity", d.Lock.Name, d.Variant), Salt: salt[:]})
	return err
}

func (d *disk) writeESP(stub io.ReaderAt, stubSize int64, sections []uki.Section) error {
	name := filepath.Join(d.work, "uki.efi")
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	size, err := uki.Write(f, stub, stubSize, sections)
	if err != nil {
		return fmt.Errorf("writing the UKI: %w", err)
	}
	serial := derive("esp", fmt.Sprintf("%x", d.root))
	files := []fat.File{{Path: d.machine.loader, Size: size, Open: func() (io.ReadCloser, error) { return os.Open(name) }}}
	err = fat.Write(io.NewOffsetWriter(d.f, d.esp.start), d.esp.size, files, fat.Options{
		Serial: uint32(serial[0]) | uint32(serial[1])<<8 | uint32(serial[2])<<16 | uint32(serial[3])<<24, Label: "ESP", Time: d.Lock.Epoch,
	})
	if err != nil {
		return fmt.Errorf("writing the ESP: %w", err)
	}
	return nil
}

// writeTable writes the partition table. The ids of root and hash tree are
// the halves of the root hash, by which systemd finds them (Discoverable
// Partitions Specification, "Partition UUIDs").
func (d *disk) writeTable() (*gpt.Table, error) {
	hash := fmt.Sprintf("%x", d.root)
	part := func(typ gpt.GUID, id [16]byte, name string, e extent, attrs uint64) gpt.Partition {
		return gpt.Partition{
			Type: typ, ID: gpt.FromBytes(id), Name: name, Attrs: attrs,
			First: uint64(e.start / gpt.SectorSize), Last: uint64(e.end()/gpt.SectorSize - 1), //nolint:gosec // offsets on a disk are positive
		}
	}
	t := &gpt.Table{DiskID: gpt.FromBytes(derive("disk", hash)), Partitions: []gpt.Partition{
		part(gpt.TypeESP, derive("esp", hash), "esp", d.esp, 0),
		part(d.machine.root, [16]byte(d.root[:16]), "root", d.data, gpt.AttrReadOnly),
		part(d.machine.rootVerity, [16]byte(d.root[16:]), "root-verity", d.hash, gpt.AttrReadOnly),
	}}
	return t, gpt.Write(d.f, d.hash.end()+align, *t)
}

func (d *disk) hashPartitions(ctx context.Context, t *gpt.Table) ([]Partition, error) {
	var out []Partition
	for _, p := range t.Partitions {
		sum, _, err := digest.Reader(io.NewSectionReader(untilDone{ctx, d.f}, p.Start(), p.Size()))
		if err != nil {
			return nil, err
		}
		out = append(out, Partition{Name: p.Name, Type: p.Type.String(), ID: p.ID.String(), Start: p.Start(), Size: p.Size(), SHA256: sum})
	}
	return out, nil
}

// outputs writes the container formats asked for.
func (d *disk) outputs(ctx context.Context) ([]Output, error) {
	st, err := d.f.Stat()
	if err != nil {
		return nil, err
	}
	var all []Output
	for _, o := range d.image.Output {
		name := filepath.Join(d.work, d.imageName()+"."+o)
		if o == "qcow2" {
			if err := writeQcow2(name, untilDone{ctx, d.f}, st.Size()); err != nil {
				return nil, err
			}
		}
		out, err := describeSynced(name)
		if err != nil {
			return nil, err
		}
		all = append(all, out)
	}
	return all, nil
}

func writeQcow2(name string, disk io.ReaderAt, size int64) error {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := qcow2.Write(f, disk, size, qcow2.Options{Compress: true, Level: qcow2Level}); err != nil {
		return fmt.Errorf("writing the qcow2: %w", err)
	}
	return f.Close()
}

// describeSynced describes a file while it is written to the disk.
func describeSynced(name string) (out Output, err error) {
	var g errgroup.Group
	g.Go(func() error {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		return f.Sync()
	})
	g.Go(func() (err error) {
		out, err = describe(name)
		return err
	})
	return out, g.Wait()
}

// untilDone is a file that can be read and written until ctx is done: the
// writers of formats know nothing of contexts.
type untilDone struct {
	ctx context.Context //nolint:containedctx // it lives as long as one call
	f   *os.File
}

func (u untilDone) ReadAt(p []byte, off int64) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	return u.f.ReadAt(p, off)
}

func (u untilDone) WriteAt(p []byte, off int64) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	return u.f.WriteAt(p, off)
}

func (u untilDone) Write(p []byte) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	return u.f.Write(p)
}
