package measure

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"strconv"
	"strings"

	"caisson/build/image/gpt"
	"caisson/build/image/uki"
	"caisson/build/image/verity"
)

// arch is what differs between architectures.
type arch struct {
	root, verity gpt.GUID
	name         string // as the Discoverable Partitions Specification has it
	loader       string // UEFI 2.10, section 3.5.1.1
	// Names of shim: what it starts by itself, its fallback, and the file
	// that this makes boot options of.
	second, fallback, csv string
	machine               uint16
}

func arches() []arch {
	return []arch{
		{gpt.TypeRootX86_64, gpt.TypeRootVerityX86_64, "x86-64", "EFI/BOOT/BOOTX64.EFI", "grubx64.efi", "fbx64.efi", "BOOTX64.CSV", uki.MachineAMD64},
		{gpt.TypeRootARM64, gpt.TypeRootVerityARM64, "arm64", "EFI/BOOT/BOOTAA64.EFI", "grubaa64.efi", "fbaa64.efi", "BOOTAA64.CSV", uki.MachineARM64},
	}
}

// parts are the partitions that a boot depends on.
type parts struct {
	arch       arch
	esp        *io.SectionReader
	root, tree *partition // of the types that these have; tree is nil where there is none
	all        []partition
}

// partition is one of the disk's, with what is in it.
type partition struct {
	gpt.Partition
	data *io.SectionReader
}

// findParts finds the one partition of each kind.
func findParts(disk io.ReaderAt, t *gpt.Table) (*parts, error) {
	p := &parts{arch: arches()[0]}
	for _, part := range t.Partitions {
		p.all = append(p.all, partition{part, io.NewSectionReader(disk, part.Start(), part.Size())})
		for _, a := range arches() {
			if part.Type == a.root {
				p.arch = a
			}
		}
	}
	only := func(kind string, guid gpt.GUID) (found *partition, err error) {
		for i, part := range p.all {
			if part.Type != guid {
				continue
			}
			if found != nil {
				return nil, fmt.Errorf("two %s partitions", kind)
			}
			found = &p.all[i]
		}
		return found, nil
	}
	var esp *partition
	for _, want := range []struct {
		kind string
		guid gpt.GUID
		to   **partition
	}{{"EFI system", gpt.TypeESP, &esp}, {"root", p.arch.root, &p.root}, {"root-verity", p.arch.verity, &p.tree}} {
		var err error
		if *want.to, err = only(want.kind, want.guid); err != nil {
			return nil, err
		}
		if *want.to == nil && want.to != &p.tree {
			return nil, fmt.Errorf("no %s partition (type %s)", want.kind, want.guid)
		}
	}
	p.esp = esp.data
	return p, nil
}

// checkRoot checks that the data of the root partition, the hash tree, the
// command line and the ids of the partitions that it leads to have the same root
// hash, and returns it in hex. The data is read once: a tree that is right from
// the root hash down to the data is that which the data makes.
func (p *parts) checkRoot(cmdline string) (string, error) {
	args, err := readRootArgs(cmdline)
	if err != nil {
		return "", err
	}
	want := args.hash
	data, err := p.device("root", args.data, p.root)
	if err != nil {
		return "", err
	}
	tree, err := p.device("root-verity", args.tree, p.tree)
	if err != nil {
		return "", err
	}
	if data != p.root {
		return "", fmt.Errorf("the command line says that the root's data is in partition %q, which has not the type of a root", data.Name)
	}
	limit := data.Size()
	if tree == data {
		limit = args.offset
	}
	if args.offset < 0 || args.offset >= tree.Size() || args.offset%512 != 0 {
		return "", fmt.Errorf("the command line says that the hash tree is at %d of a partition of %d bytes", args.offset, tree.Size())
	}
	area, kind := io.NewSectionReader(tree.data, args.offset, tree.Size()-args.offset), tree.kind(p)
	sb, err := verity.ReadSuperblock(area)
	if err != nil {
		return "", fmt.Errorf("%s partition: %w", kind, err)
	}
	size := sb.DataSize()
	if size > limit {
		return "", fmt.Errorf("%s partition: %d data blocks, the root partition has %d", kind, sb.DataBlocks, limit/int64(sb.DataBlock))
	}
	if err := verity.Verify(data.data, size, area, want); err != nil {
		return "", p.notTheRoot(data, size, sb, want, fmt.Errorf("%s partition: %w", kind, err))
	}
	for _, by := range []struct {
		kind, named string
		part        *partition
		half        []byte
	}{{"root", args.data, data, want[:16]}, {"root-verity", args.tree, tree, want[16:]}} {
		if id := gpt.FromBytes([16]byte(by.half)); by.named == "" && by.part.ID != id {
			return "", fmt.Errorf("the %s partition has the id %s, by the root hash it is %s", by.kind, by.part.ID, id)
		}
	}
	return hex.EncodeToString(want[:]), nil
}

// notTheRoot says why the data, from which the hash tree does not lead to the
// root hash: because the data has another one, or else because the tree is wrong.
func (p *parts) notTheRoot(data *partition, size int64, sb verity.Superblock, want [32]byte, wrong error) error {
	got, err := verity.Root(data.data, size, sb.Params())
	if err != nil {
		return fmt.Errorf("root partition: %w", err)
	}
	if got != want {
		return fmt.Errorf("the root partition has the root hash %x, the command line says %x", got, want)
	}
	return wrong
}

func (part *partition) kind(p *parts) string {
	if part == p.root {
		return "root"
	}
	return "root-verity"
}

// device is the partition that the command line names by its id, or else the
// only one of its type: systemd takes the one whose id is a half of the root
// hash.
func (p *parts) device(kind, named string, usual *partition) (*partition, error) {
	if named == "" {
		if usual == nil {
			return nil, fmt.Errorf("no %s partition (type %s)", kind, p.arch.verity)
		}
		return usual, nil
	}
	text, ok := strings.CutPrefix(named, "PARTUUID=")
	if !ok {
		text, ok = strings.CutPrefix(named, "/dev/disk/by-partuuid/")
	}
	id, err := gpt.ParseGUID(text)
	if !ok || err != nil {
		return nil, fmt.Errorf("the command line names the %s partition %q: only ids are supported", kind, named)
	}
	for i := range p.all {
		if p.all[i].ID == id { // no two partitions have one
			return &p.all[i], nil
		}
	}
	return nil, fmt.Errorf("the command line names the %s partition %s, which there is not", kind, id)
}

// rootArgs are what a command line says of the root: its hash, the devices of
// data and hash tree, and where on its device the tree begins.
type rootArgs struct {
	hash       [32]byte
	data, tree string
	offset     int64
}

// readRootArgs reads them (systemd-veritysetup-generator(8)). Of words that
// are there several times the last counts; but two root hashes are refused.
func readRootArgs(cmdline string) (rootArgs, error) {
	var a rootArgs
	var hash string
	for _, word := range strings.Fields(cmdline) {
		name, value, _ := strings.Cut(word, "=")
		switch name {
		case "roothash":
			if hash != "" {
				return a, fmt.Errorf("command line %q has two root hashes", cmdline)
			}
			hash = value
		case "systemd.verity_root_data":
			a.data = value
		case "systemd.verity_root_hash":
			a.tree = value
		case "systemd.verity_root_options":
			var err error
			if a.offset, err = hashOffset(value); err != nil {
				return a, err
			}
		}
	}
	b, err := hex.DecodeString(hash)
	if err != nil || len(b) != len(a.hash) {
		return a, fmt.Errorf("command line %q: want roothash= and 64 hex digits", cmdline)
	}
	a.hash = [32]byte(b)
	return a, nil
}

// hashOffset finds in options (veritytab(5)) where the hash tree begins. Those
// that say otherwise than the tree's superblock what it is are refused.
func hashOffset(options string) (offset int64, err error) {
	for _, o := range strings.Split(options, ",") {
		name, value, _ := strings.Cut(o, "=")
		switch name {
		case "hash-offset":
			// A zero in front makes it an octal number for some versions.
			if offset, err = strconv.ParseInt(value, 10, 64); err != nil || strings.HasPrefix(value, "0") && value != "0" {
				return 0, fmt.Errorf("the command line has the hash tree at %q: want bytes, in decimal", value)
			}
		case "superblock", "format", "data-block-size", "hash-block-size", "data-blocks", "salt", "uuid", "hash":
			return 0, fmt.Errorf("the command line has the option %q for the root, which is not supported", o)
		}
	}
	return offset, nil
}

// hashPartitions lists the partitions with their digests.
func hashPartitions(disk io.ReaderAt, t *gpt.Table) ([]Partition, error) {
	var all []Partition
	buf := make([]byte, 1<<20) // whole clusters of an image at a time
	for _, p := range t.Partitions {
		h := sha256.New()
		if _, err := io.CopyBuffer(h, io.NewSectionReader(disk, p.Start(), p.Size()), buf); err != nil {
			return nil, fmt.Errorf("reading partition %q: %w", p.Name, err)
		}
		all = append(all, Partition{
			Name: p.Name, Type: typeName(p.Type), ID: p.ID.String(),
			Start: p.Start(), Size: p.Size(), SHA256: hex.EncodeToString(h.Sum(nil)),
		})
	}
	return all, nil
}

func typeName(t gpt.GUID) string {
	if t == gpt.TypeESP {
		return "esp"
	}
	for _, a := range arches() {
		switch t {
		case a.root:
			return "root-" + a.name
		case a.verity:
			return "root-" + a.name + "-verity"
		}
	}
	return t.String()
}
