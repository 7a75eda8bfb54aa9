package measure

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
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
	arch           arch
	esp            *io.SectionReader
	root, tree     *io.SectionReader
	rootID, treeID gpt.GUID
}

// findParts finds the one partition of each kind.
func findParts(disk io.ReaderAt, t *gpt.Table) (*parts, error) {
	only := func(kind string, guid gpt.GUID) (*io.SectionReader, gpt.GUID, error) {
		var found *gpt.Partition
		for i, p := range t.Partitions {
			if p.Type != guid {
				continue
			}
			if found != nil {
				return nil, gpt.GUID{}, fmt.Errorf("two %s partitions", kind)
			}
			found = &t.Partitions[i]
		}
		if found == nil {
			return nil, gpt.GUID{}, fmt.Errorf("no %s partition (type %s)", kind, guid)
		}
		return io.NewSectionReader(disk, found.Start(), found.Size()), found.ID, nil
	}
	p := &parts{arch: arches()[0]}
	for _, a := range arches() {
		for _, part := range t.Partitions {
			if part.Type == a.root {
				p.arch = a
			}
		}
	}
	var err error
	if p.esp, _, err = only("EFI system", gpt.TypeESP); err != nil {
		return nil, err
	}
	if p.root, p.rootID, err = only("root", p.arch.root); err != nil {
		return nil, err
	}
	if p.tree, p.treeID, err = only("root-verity", p.arch.verity); err != nil {
		return nil, err
	}
	return p, nil
}

// checkRoot derives the root hash from the root partition's data, and checks
// that the command line, the hash tree and the ids of both partitions have
// the same one. It returns it in hex.
func (p *parts) checkRoot(cmdline string) (string, error) {
	want, err := cmdlineHash(cmdline)
	if err != nil {
		return "", err
	}
	sb, err := verity.ReadSuperblock(p.tree)
	if err != nil {
		return "", fmt.Errorf("root-verity partition: %w", err)
	}
	if sb.DataBlocks > p.root.Size()/verity.BlockSize {
		return "", fmt.Errorf("root-verity partition: %d data blocks, the root partition has %d", sb.DataBlocks, p.root.Size()/verity.BlockSize)
	}
	size := sb.DataBlocks * verity.BlockSize
	got, err := verity.Root(p.root, size, sb.Salt)
	if err != nil {
		return "", fmt.Errorf("root partition: %w", err)
	}
	if got != want {
		return "", fmt.Errorf("the root partition has the root hash %x, the command line says %x", got, want)
	}
	if err := verity.Verify(p.root, size, p.tree, got); err != nil {
		return "", fmt.Errorf("root-verity partition: %w", err)
	}
	for _, id := range []struct {
		kind      string
		got, want gpt.GUID
	}{
		{"root", p.rootID, gpt.FromBytes([16]byte(got[:16]))},
		{"root-verity", p.treeID, gpt.FromBytes([16]byte(got[16:]))},
	} {
		if id.got != id.want {
			return "", fmt.Errorf("the %s partition has the id %s, by the root hash it is %s", id.kind, id.got, id.want)
		}
	}
	return hex.EncodeToString(got[:]), nil
}

// cmdlineHash is the one root hash that a command line has.
func cmdlineHash(cmdline string) ([32]byte, error) {
	var found string
	for _, word := range strings.Fields(cmdline) {
		value, ok := strings.CutPrefix(word, "roothash=")
		if !ok {
			continue
		}
		if found != "" {
			return [32]byte{}, fmt.Errorf("command line %q has two root hashes", cmdline)
		}
		found = value
	}
	b, err := hex.DecodeString(found)
	if err != nil || len(b) != 32 {
		return [32]byte{}, fmt.Errorf("command line %q: want roothash= and 64 hex digits", cmdline)
	}
	return [32]byte(b), nil
}

// hashPartitions lists the partitions with their digests.
func hashPartitions(disk io.ReaderAt, t *gpt.Table) ([]Partition, error) {
	var all []Partition
	for _, p := range t.Partitions {
		h := sha256.New()
		if _, err := io.Copy(h, io.NewSectionReader(disk, p.Start(), p.Size())); err != nil {
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
