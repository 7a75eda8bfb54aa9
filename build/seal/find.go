package seal

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"caisson/build/image/gpt"
	"caisson/build/image/uki"
)

// arch is what differs between machines.
type arch struct {
	name         string // as the Discoverable Partitions Specification has it
	root, verity gpt.GUID
	machine      uint16
	loader       string // UEFI 2.10, section 3.5.1.1
}

func arches() []arch {
	return []arch{
		{"x86-64", gpt.TypeRootX86_64, gpt.TypeRootVerityX86_64, uki.MachineAMD64, "EFI/BOOT/BOOTX64.EFI"},
		{"arm64", gpt.TypeRootARM64, gpt.TypeRootVerityARM64, uki.MachineARM64, "EFI/BOOT/BOOTAA64.EFI"},
	}
}

// archOf is the one whose root, hash or machine type it is.
func archOf(is func(a arch) bool) (arch, bool) {
	for _, a := range arches() {
		if is(a) {
			return a, true
		}
	}
	return arch{}, false
}

// Types of partitions that have no root file system in them, but something
// around one.
var wrappers = map[string]string{
	"e6d6d379-f507-44c2-a23c-238f2a3df928": "LVM",
	"a19d880f-05fc-4d3b-a006-743f0f84911e": "RAID",
	"ca7d7ccb-63ed-4c53-861c-1742536059cc": "LUKS",
}

// openTable reads the partition table, and says what there is in its place.
func openTable(disk io.ReaderAt, size int64) (*gpt.Edit, error) {
	e, err := gpt.OpenEdit(disk, size)
	if err == nil {
		return e, nil
	}
	at := func(off int64, n int) string {
		b := make([]byte, n)
		got, _ := disk.ReadAt(b, off)
		return string(b[:got])
	}
	const signature = "EFI PART"
	switch {
	case at(gpt.SectorSize, len(signature)) == signature:
		return nil, fmt.Errorf("partition table: %w", err)
	case at(4096, len(signature)) == signature:
		return nil, errors.New("the disk has sectors of 4096 bytes: only disks with sectors of 512 bytes can be sealed")
	case at(510, 2) == "\x55\xaa":
		return nil, errors.New("the disk has no GUID partition table but an MBR: convert it with `sgdisk --mbrtogpt`, and give the root partition its type")
	}
	return nil, errors.New("the disk has no partition table")
}

// describe lists partitions for people.
func describe(parts []gpt.Numbered) string {
	if len(parts) == 0 {
		return "no partition"
	}
	var all []string
	for _, p := range parts {
		kind := p.Type.String()
		if a, ok := archOf(func(a arch) bool { return a.root == p.Type }); ok {
			kind = "root-" + a.name
		} else if p.Type == gpt.TypeESP {
			kind = "esp"
		} else if w := wrappers[kind]; w != "" {
			kind = w
		}
		all = append(all, fmt.Sprintf("%d %q (%s, %d MiB)", p.Number, p.Name, kind, p.Size()>>20))
	}
	return strings.Join(all, ", ")
}

// SealedError says that a disk has dm-verity already.
type SealedError struct{ What string }

func (e *SealedError) Error() string { return "the disk is sealed already: " + e.What }

// findRoot finds the root partition: the one that is named by number, label
// or id, or else the only one of a root's type.
func findRoot(parts []gpt.Numbered, which string) (gpt.Numbered, error) {
	var found []gpt.Numbered
	for _, p := range parts {
		if a, ok := archOf(func(a arch) bool { return a.verity == p.Type }); ok {
			return p, &SealedError{fmt.Sprintf("partition %d %q has the type root-%s-verity", p.Number, p.Name, a.name)}
		}
		_, isRoot := archOf(func(a arch) bool { return a.root == p.Type })
		switch which {
		case "":
			if isRoot {
				found = append(found, p)
			}
		case strconv.Itoa(p.Number), p.Name, p.ID.String(), strings.ToUpper(p.ID.String()):
			found = append(found, p)
		}
	}
	switch {
	case len(found) == 1 && found[0].Type == gpt.TypeESP:
		return found[0], fmt.Errorf("partition %d is the EFI system partition", found[0].Number)
	case len(found) == 1:
		if w := wrappers[found[0].Type.String()]; w != "" {
			return found[0], fmt.Errorf("partition %d is for %s: want a root file system in a partition of its own", found[0].Number, w)
		}
		return found[0], nil
	case len(found) > 1 && which == "":
		return found[0], fmt.Errorf("more than one root partition: %s; say which", describe(found))
	case len(found) > 1:
		return found[0], fmt.Errorf("more than one partition %q: %s", which, describe(found))
	case which != "":
		return gpt.Numbered{}, fmt.Errorf("no partition %q: there is %s", which, describe(parts))
	}
	for _, p := range parts {
		if w := wrappers[p.Type.String()]; w != "" {
			return p, fmt.Errorf("no root partition, but one for %s: want a root file system in a partition of its own; there is %s", w, describe(parts))
		}
	}
	return gpt.Numbered{}, fmt.Errorf("no partition of a root's type: say which is the root; there is %s", describe(parts))
}

// findESP finds the only EFI system partition.
func findESP(parts []gpt.Numbered) (gpt.Numbered, error) {
	var found []gpt.Numbered
	for _, p := range parts {
		if p.Type == gpt.TypeESP {
			found = append(found, p)
		}
	}
	switch len(found) {
	case 0:
		return gpt.Numbered{}, fmt.Errorf("no EFI system partition: there is %s", describe(parts))
	case 1:
		return found[0], nil
	}
	return found[0], fmt.Errorf("more than one EFI system partition: %s", describe(found))
}
