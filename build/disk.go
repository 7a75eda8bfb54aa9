package build

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"caisson/build/esp"
	"caisson/build/image/erofs"
	"caisson/build/image/gpt"
	"caisson/build/image/uki"
	"caisson/build/image/verity"
	"caisson/build/rootfs"
	"caisson/lock"
	"caisson/lock/digest"
)

// align is what partitions begin and end at, in bytes.
const align = 1 << 20

// machine is what differs from architecture to architecture.
type machine struct {
	efi              string // in the names of EFI programs
	pe               uint16 // in their headers
	root, rootVerity gpt.GUID
}

// loader is the program that firmware starts by itself (UEFI 2.10, section
// 3.5.1.1).
func (m machine) loader() string { return "EFI/BOOT/BOOT" + strings.ToUpper(m.efi) + ".EFI" }

var machines = map[string]machine{
	"x86_64":  {"x64", uki.MachineAMD64, gpt.TypeRootX86_64, gpt.TypeRootVerityX86_64},
	"aarch64": {"aa64", uki.MachineARM64, gpt.TypeRootARM64, gpt.TypeRootVerityARM64},
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
	version string   // the kernel's
	initrd  string   // the initrd's file
	root    [32]byte // the dm-verity root hash
	esp     extent
	data    extent
	hash    extent

	ukiPath       string // on the ESP
	vendorCmdline string // in a vendor's UKI
	stubVersion   int    // major, of the UKI; 0 where it is not known
	espFiles      []espFile
	signed        []SignedProgram
	sums          []File      // of the ESP, without their accounts
	opened        []io.Closer // what the ESP is written from

	partitions []Partition
	files      []Output // the formats asked for
}

type extent struct{ start, size int64 }

func (e extent) end() int64 { return e.start + e.size }

// sizes are those that are given; 0 where they are not.
func (d *disk) sizes() lock.Disk {
	if d.image.Disk == nil {
		return lock.Disk{}
	}
	return *d.image.Disk
}

// fit is the size that is given, if any, for what needs some bytes.
func fit(key, what string, need, given int64) (int64, error) {
	if given == 0 {
		return need, nil
	}
	if given < need {
		return 0, fmt.Errorf("image.disk.%s is %s; %s needs %s", key, lock.FormatSize(given), what, lock.FormatSize(need))
	}
	return given, nil
}

func roundUp(n int64) int64 { return (n + align - 1) / align * align }

// assemble writes the disk and the formats it is asked for in, from the trees
// of root and initrd and from the tools' EFI stub. The folders that they are
// read from are gone then.
func (b *builder) assemble(ctx context.Context, root, initrd *installed) (*disk, error) {
	m, ok := machines[b.Arch]
	if !ok {
		return nil, fmt.Errorf("images for %s cannot be assembled yet", b.Arch)
	}
	d := &disk{builder: b, machine: m}
	var err error
	if initrd != nil {
		if err := d.checkTree(initrd.tree); err != nil {
			return nil, err
		}
		if d.version, err = kernelVersion(root.tree); err != nil {
			return nil, err
		}
		if err := b.during(stepPackInitrd, func() error { d.initrd, err = b.writeInitrd(ctx, initrd.tree); return err }); err != nil {
			return nil, err
		}
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
	p := b.begin(stepOutputs)
	defer p.end()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		d.partitions, err = d.hashPartitions(ctx, table)
		return err
	})
	g.Go(func() (err error) {
		d.files, err = d.outputs(ctx, p)
		return err
	})
	g.Go(func() error { return d.removeRoots(ctx) })
	return d, g.Wait()
}

// describe is what there is to say of the disk.
func (d *disk) describe() *Image {
	return &Image{
		Name: d.Lock.Name, Variant: d.Variant, Arch: d.Arch, Lock: d.lockDigest, Epoch: d.Lock.Epoch,
		Kernel: d.version, Cmdline: d.cmdline(), RootHash: fmt.Sprintf("%x", d.root),
		Files: d.files, Partitions: d.partitions, Signed: d.signed,
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
// kernel's command line, so the ESP is planned with a hash of zeros and filled
// last.
func (d *disk) write(ctx context.Context, root *installed) (table *gpt.Table, err error) {
	defer func() { err = errors.Join(err, d.closeAll()) }()
	if err := d.planESP(root); err != nil {
		return nil, err
	}
	given := d.sizes()
	d.esp = extent{start: align}
	if d.esp.size, err = fit("esp", "the files of the ESP with room for their signatures", roundUp(esp.MinSize(d.plain())), given.ESP); err != nil {
		return nil, err
	}
	d.data.start = d.esp.end()
	if d.data.size, err = d.writeRoot(ctx, root.tree); err != nil {
		return nil, err
	}
	if d.data.size, err = fit("root", "the root file system", d.data.size, given.Root); err != nil {
		return nil, err
	}
	if err := d.writeVerity(ctx); err != nil {
		return nil, err
	}
	defer d.begin(stepESP).end()
	if err := d.writeESP(); err != nil {
		return nil, err
	}
	if err := d.sumESP(); err != nil {
		return nil, err
	}
	return d.writeTable()
}

// writeRoot writes the root file system and returns the partition's size.
func (d *disk) writeRoot(ctx context.Context, t *rootfs.Tree) (int64, error) {
	p := d.begin(stepFileSystem)
	defer p.end()
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
	size, err := erofs.Write(io.NewOffsetWriter(tracked{untilDone{ctx, d.f}, p.of(sizeOf(t), "bytes")}, d.data.start), entries, erofs.Options{UUID: id, BuildTime: d.Lock.Epoch, Label: "root"})
	if err != nil {
		return 0, fmt.Errorf("writing the root: %w", err)
	}
	return roundUp(size), nil
}

// writeVerity hashes the whole partition, what is behind the file system
// included. The hash tree follows, whether in the same partition or another.
func (d *disk) writeVerity(ctx context.Context) error {
	p := d.begin(stepVerity).of(d.data.size, "bytes")
	defer p.end()
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
	d.root, err = verity.Write(io.NewSectionReader(tracked{f, p}, d.data.start, d.data.size), d.data.size,
		io.NewOffsetWriter(f, d.hash.start), verity.Params{UUID: derive("verity", d.Lock.Name, d.Variant), Salt: salt[:]})
	return err
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
		part(d.machine.root, [16]byte(d.root[:16]), "root", d.rootPartition(), gpt.AttrReadOnly),
	}}
	if d.image.Tree != lock.TreeAppended {
		t.Partitions = append(t.Partitions, part(d.machine.rootVerity, [16]byte(d.root[16:]), "root-verity", d.hash, gpt.AttrReadOnly))
	}
	size, err := fit("size", "the disk with its partitions", d.hash.end()+align, d.sizes().Size)
	if err != nil {
		return nil, err
	}
	return t, gpt.Write(d.f, size, *t)
}

// rootPartition is the data, and the hash tree where that is appended to it.
func (d *disk) rootPartition() extent {
	if d.image.Tree == lock.TreeAppended {
		return extent{d.data.start, d.data.size + d.hash.size}
	}
	return d.data
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

// Hole tells whether a part of the file was never written: a disk is mostly that
// where it is given a size.
func (u untilDone) Hole(off, n int64) bool {
	if u.ctx.Err() != nil {
		return false
	}
	data, err := unix.Seek(int(u.f.Fd()), off, unix.SEEK_DATA) // it is read by ReadAt, so its position counts for nothing
	return errors.Is(err, unix.ENXIO) || err == nil && data >= off+n
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
