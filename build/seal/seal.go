// Package seal puts a vendor's disk on dm-verity: it adds a hash tree of the
// root partition in a partition of its own, and an addon that tells the
// vendor's unified kernel image the root hash. The root partition's content is
// not changed, nor anything else but the partition table and the folder of the
// EFI system partition that the addon is put in.
//
// Limits first: disks with a GUID partition table, sectors of 512 bytes, one
// EFI system partition, and a root file system in a partition of its own, of
// any kind. One that would have to be recovered before it can be mounted is
// refused: from a sealed disk nothing can be recovered. Of ext4, XFS and btrfs
// that is known; of others it is not looked at.
//
// What comes out is what systemd-repart makes of such a disk with Verity=data
// and Verity=hash: the root partition keeps its place, size, label and
// attributes and gets the first half of the root hash as its id; behind all
// partitions comes one of the type of a root's hash tree with the second half,
// read-only, and the label that is the name of its type ("Discoverable
// Partitions Specification"). The addon's command line is that of the pipeline
// that ran systemd-repart and ukify: roothash=, and systemd.volatile=overlay.
//
// The same disk and options give the same bytes: salt and id of the hash tree
// are, unless they are given, derived from the root's entry in the partition
// table and from the beginning of its file system, where its own id is.
package seal

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"

	"caisson/build/image/gpt"
	"caisson/build/image/verity"
	"caisson/build/imagefile"
)

// align is what new partitions begin and end at, in bytes.
const align = 1 << 20

// DefaultCmdline is what the addon says beside the root hash.
const DefaultCmdline = "systemd.volatile=overlay"

// DefaultFree is how much is left free behind the hash tree, 2500 MiB: images
// of confidential containers make a scratch partition there when they boot.
const DefaultFree = 2500 << 20

// Storage keeps the hash tree, about 1/127 of the root.
type Storage interface {
	io.ReaderAt
	io.WriterAt
}

// Options say what to seal, and how.
type Options struct {
	Disk io.ReaderAt
	Size int64 // bytes
	// Tree is empty storage, such as a new file.
	Tree Storage
	// Root is the number, label or id of the root partition; where it is
	// empty, the only one of a root's type is taken.
	Root string
	// Free is how many bytes the disk has at least behind the hash tree.
	Free int64
	// Salt is of the hash tree; nil to derive it.
	Salt []byte
	// Cmdline is what the addon says beside the root hash.
	Cmdline string
	// NoAddon leaves the EFI system partition alone.
	NoAddon bool
	// AddonPath is where the addon goes on the EFI system partition; empty for
	// beside the kernel image.
	AddonPath string
	// AddonStub is the EFI program that the addon's sections are added to,
	// such as systemd's addonx64.efi.stub; nil for our own.
	AddonStub []byte
	// Sign returns the addon with a Secure Boot signature; nil for none.
	Sign func(addon []byte) ([]byte, error)
	// Time is of the addon and of its folder, in seconds since 1970.
	Time int64
	// Dirty seals a root file system that has to be recovered all the same.
	Dirty bool
	// Progress is told what begins; it may be nil.
	Progress func(stage string)
}

// Result is what became of a disk.
type Result struct {
	RootHash string `json:"rootHash"` // 64 hex digits
	Salt     string `json:"salt"`     // hex
	// Cmdline is what has to be added to the kernel's command line; the addon
	// does.
	Cmdline    string    `json:"cmdline"`
	Root       Partition `json:"root"`
	Verity     Partition `json:"verity"`
	FileSystem string    `json:"fileSystem,omitempty"` // of the root; empty where it is not known
	Addon      *Addon    `json:"addon,omitempty"`      // nil where there is none
	DiskSize   int64     `json:"diskSize"`             // bytes
	Warnings   []string  `json:"warnings,omitempty"`
}

// Partition is one of the sealed disk's.
type Partition struct {
	Number int    `json:"number"`
	Name   string `json:"name"`
	Type   string `json:"type"`            // GUID
	ID     string `json:"id"`              // GUID
	OldID  string `json:"oldId,omitempty"` // GUID, before
	Start  int64  `json:"start"`           // bytes
	Size   int64  `json:"size"`            // bytes
}

// Addon is what tells the kernel image the root hash.
type Addon struct {
	Path string `json:"path"` // on the EFI system partition
	Size int64  `json:"size"` // bytes
	// SHA256 is of the file, Authenticode of what firmware measures of it into
	// PCR 4 and what a signature signs, both hex.
	SHA256       string `json:"sha256"`
	Authenticode string `json:"authenticode"`
	// Kernel is the kernel image that reads it; empty for all.
	Kernel string `json:"kernel,omitempty"`
}

// Disk is a sealed disk: what it has besides the original is in memory and in
// Options.Tree, and the original is read through it.
type Disk struct {
	io.ReaderAt
	Result Result
}

// Size is the disk's size in bytes.
func (d *Disk) Size() int64 { return d.Result.DiskSize }

// sealing is one call of Seal.
type sealing struct {
	Options
	disk  *overlay
	table *gpt.Edit
	parts []gpt.Numbered
	root  gpt.Numbered
	arch  arch
	data  int64 // bytes of the root that are hashed
	salt  []byte

	esp    gpt.Numbered
	addon  string  // its path
	kernel *kernel // nil for all
	hash   [32]byte
	tree   gpt.Partition
	result Result
}

// Seal finds the root of a disk, hashes it, and returns the sealed disk. A
// disk that has dm-verity already is a [*SealedError].
func Seal(ctx context.Context, o Options) (*Disk, error) {
	s := &sealing{Options: o, disk: newOverlay(imagefile.UntilDone(ctx, o.Disk), o.Size)}
	if err := s.find(); err != nil {
		return nil, err
	}
	if err := s.place(); err != nil {
		return nil, err
	}
	s.say("hashing %d MiB of the root (partition %d)", s.data>>20, s.root.Number)
	if err := s.hashRoot(); err != nil {
		return nil, err
	}
	if err := s.addAddon(); err != nil {
		return nil, err
	}
	if err := s.writeTable(); err != nil {
		return nil, err
	}
	s.result.DiskSize = s.disk.size
	return &Disk{ReaderAt: s.disk, Result: s.result}, nil
}

func (s *sealing) say(format string, args ...any) {
	if s.Progress != nil {
		s.Progress(fmt.Sprintf(format, args...))
	}
}

func (s *sealing) warn(text string) {
	if text != "" {
		s.result.Warnings = append(s.result.Warnings, text)
	}
}

// find finds the partitions and the kernel image, and checks the root.
func (s *sealing) find() error {
	var err error
	if s.table, err = openTable(s.disk, s.Size); err != nil {
		return err
	}
	s.parts = s.table.Partitions()
	if s.root, err = findRoot(s.parts, s.Root); err != nil {
		return err
	}
	if err := s.checkRoot(); err != nil {
		return err
	}
	var known bool
	s.arch, known = archOf(func(a arch) bool { return a.root == s.root.Type })
	if s.NoAddon {
		if !known {
			return fmt.Errorf("partition %d has the type %s: for which machine its root is is not known; give it a root's type", s.root.Number, s.root.Type)
		}
		return nil
	}
	if s.esp, err = findESP(s.parts); err != nil {
		return err
	}
	return s.findKernel(known)
}

// findKernel finds the kernel image; where the machine is not known from the
// root's type, it is the image's.
func (s *sealing) findKernel(known bool) error {
	candidates := arches()
	if known {
		candidates = []arch{s.arch}
	}
	var err error
	for _, a := range candidates {
		var e *esp
		if e, err = readESP(s.espDisk(), s.esp.Size(), a); err != nil {
			return err
		}
		if s.addon, s.kernel, err = e.choose(s.AddonPath, a); err != nil {
			continue
		}
		if !known {
			if s.kernel == nil {
				return fmt.Errorf("partition %d has the type %s: for which machine its root is is not known; give it a root's type", s.root.Number, s.root.Type)
			}
			if s.kernel.machine != a.machine {
				continue
			}
		}
		s.arch = a
		if s.kernel == nil {
			return nil
		}
		return s.kernel.check(a)
	}
	if err == nil {
		err = fmt.Errorf("%s is for machine type %#x, which is not supported", s.kernel.path, s.kernel.machine)
	}
	return err
}

// espDisk is the EFI system partition.
func (s *sealing) espDisk() part { return part{s.disk, s.esp.Start(), s.esp.Size()} }

// checkRoot checks the root's file system.
func (s *sealing) checkRoot() error {
	fail := func(format string, args ...any) error {
		return fmt.Errorf("root partition %d %q: "+format, append([]any{s.root.Number, s.root.Name}, args...)...)
	}
	s.data = s.root.Size() / verity.BlockSize * verity.BlockSize
	root := part{s.disk, s.root.Start(), s.root.Size()}
	f, err := probe(root, root.size)
	if err != nil {
		return fail("%w", err)
	}
	switch {
	case s.data == 0:
		return fail("it has %d bytes, less than a block", s.root.Size())
	case s.data > verity.MaxDataSize:
		return fail("it has %d bytes, more than %d", s.data, int64(verity.MaxDataSize))
	case f.size > s.data:
		return fail("its %s has %d bytes, more than the %d that whole blocks of the partition have", f.name, f.size, s.data)
	case f.dirty != "" && !s.Dirty:
		return &DirtyError{fail("it cannot be mounted read-only: %s (%s)", f.dirty, f.name)}
	case f.dirty != "":
		s.warn(fmt.Sprintf("the root's file system (%s) cannot be mounted read-only as it is: %s", f.name, f.dirty))
	}
	s.warn(f.warning)
	s.result.FileSystem = f.name
	return nil
}

// DirtyError says that a root file system has to be recovered first.
type DirtyError struct{ error }

func (e *DirtyError) Unwrap() error { return e.error }

// place finds the place of the hash tree, and makes the disk larger where it
// has no room: behind it come the bytes that are to be left free, and the
// second copy of the partition table.
func (s *sealing) place() error {
	if s.Free < 0 || len(s.Salt) > 256 {
		return fmt.Errorf("%d bytes to be left free, a salt of %d bytes: want 0 or more, and at most 256", s.Free, len(s.Salt))
	}
	end := int64(align)
	for _, p := range s.parts {
		end = max(end, p.Start()+p.Size())
	}
	length := verity.HashSize(s.data)
	start := roundUp(end)
	end = start + roundUp(length)
	size := max(roundUp(s.Size), end+roundUp(s.Free)+align)
	// What lies there now is nobody's: the old copy of the table among it.
	from, to := s.table.Backup()
	zeros := layer{start: from, end: to}
	s.disk.size = size
	s.disk.layers = append(s.disk.layers, zeros, layer{start: start, end: end, r: s.Tree, length: length})
	s.tree = gpt.Partition{
		Type: s.arch.verity, Name: "root-" + s.arch.name + "-verity", Attrs: gpt.AttrReadOnly,
		First: uint64(start / gpt.SectorSize), Last: uint64(end/gpt.SectorSize - 1), //nolint:gosec // offsets on a disk are positive
	}
	return nil
}

func roundUp(n int64) int64 { return (n + align - 1) / align * align }

// derive is the start of what salt and id are derived from.
func (s *sealing) derive(what string) ([32]byte, error) {
	h := sha256.New()
	fmt.Fprintf(h, "caisson\x00seal\x00%s\x00%s\x00%d\x00%d\x00", what, s.root.ID, s.root.First, s.root.Last)
	if _, err := io.Copy(h, io.NewSectionReader(s.disk, s.root.Start(), min(s.root.Size(), probeSize))); err != nil {
		return [32]byte{}, fmt.Errorf("reading the root partition: %w", err)
	}
	return [32]byte(h.Sum(nil)), nil
}

// hashRoot writes the hash tree.
func (s *sealing) hashRoot() error {
	id, err := s.derive("id")
	if err != nil {
		return err
	}
	id[6] = id[6]&0x0f | 0x80 // RFC 9562 section 5.8: a UUID of version 8
	id[8] = id[8]&0x3f | 0x80
	if s.salt = s.Salt; s.salt == nil {
		salt, err := s.derive("salt")
		if err != nil {
			return err
		}
		s.salt = salt[:]
	}
	root := part{s.disk, s.root.Start(), s.root.Size()}
	if s.hash, err = verity.Write(root, s.data, s.Tree, verity.Params{UUID: [16]byte(id[:16]), Salt: s.salt}); err != nil {
		return fmt.Errorf("hashing the root partition: %w", err)
	}
	s.result.RootHash, s.result.Salt = hex.EncodeToString(s.hash[:]), hex.EncodeToString(s.salt)
	return nil
}

// writeTable gives the root partition its new id, adds that of the hash tree,
// and writes both copies of the table.
func (s *sealing) writeTable() error {
	old := s.root.ID
	s.root.ID, s.root.Type = gpt.FromBytes([16]byte(s.hash[:16])), s.arch.root
	s.tree.ID = gpt.FromBytes([16]byte(s.hash[16:]))
	if err := s.table.Set(s.root); err != nil {
		return err
	}
	number, err := s.table.Add(s.tree)
	if err != nil {
		return err
	}
	if err := s.table.Write(s.disk, s.disk.size); err != nil {
		return err
	}
	s.result.Root, s.result.Verity = describePart(s.root), describePart(gpt.Numbered{Number: number, Partition: s.tree})
	s.result.Root.OldID = old.String()
	return nil
}

func describePart(p gpt.Numbered) Partition {
	return Partition{Number: p.Number, Name: p.Name, Type: p.Type.String(), ID: p.ID.String(), Start: p.Start(), Size: p.Size()}
}
