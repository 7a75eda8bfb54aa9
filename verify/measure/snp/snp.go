// Package snp computes what an AMD SEV-SNP machine is measured as when it is
// launched: the launch digest, which is the field MEASUREMENT of its
// attestation report.
//
// Limits first. It is a function of the firmware file and of the shape of the
// machine: the number and kind of its virtual CPUs, the virtual machine
// monitor (QEMU, ec2, gce) and the guest's features; of an image only where
// the machine starts its kernel directly and the firmware checks that (QEMU
// with kernel-hashes=on). What an image that boots by itself does is in the
// PCRs of a TPM, not here. Not computed are machines with a module of their
// own between firmware and monitor (SVSM), with an IGVM file, and SEV and
// SEV-ES, which do not have this digest.
//
// The digest is a chain over the pages of the launch (SEV Secure Nested Paging
// Firmware ABI, section "SNP_LAUNCH_UPDATE", structure PAGE_INFO): the
// firmware, what its metadata asks for, and the first state of each CPU.
package snp

import (
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"

	"caisson/build/image/gpt"
	"caisson/verify/measure/ovmf"
)

// VMM is a virtual machine monitor; they differ in the state in which a CPU
// starts, and in how they add some pages.
type VMM string

// The monitors whose launches are known.
const (
	QEMU VMM = "QEMU"
	EC2  VMM = "ec2"
	GCE  VMM = "gce"
)

// VMMs are the known ones.
func VMMs() []VMM { return []VMM{QEMU, EC2, GCE} }

// MaxVCPUs bounds the virtual CPUs of a machine, as KVM does.
const MaxVCPUs = 4096

// FeatureSNP is the bit of SEV_FEATURES that every SNP machine has.
const FeatureSNP = 1

// Machine is what is measured beside the firmware.
type Machine struct {
	VCPUs int
	// Signature is CPUID Fn0000_0001_EAX of the virtual CPUs. QEMU alone puts
	// it in their first state.
	Signature uint32
	VMM       VMM
	Features  uint64  // SEV_FEATURES (AMD64 Architecture Programmer's Manual, volume 2, table B-4)
	Direct    *Direct // where the machine starts a kernel itself
}

// Direct is a kernel that the machine starts directly: SHA-256 of the files
// given with -kernel and -initrd (of nothing where there is no initrd), and
// the text given with -append.
type Direct struct {
	Kernel, Initrd [32]byte
	Cmdline        string
}

// Kinds of pages (PAGE_TYPE).
const (
	pageNormal     = 1
	pageVMSA       = 2
	pageZero       = 3
	pageUnmeasured = 4
	pageSecrets    = 5
	pageCPUID      = 6
)

// vmsaAddress is what the pages of the CPUs' states are measured at: the
// address -1, in the bits that an address has.
const vmsaAddress = 0xfffffffff000

// chain is the digest so far.
type chain [sha512.Size384]byte

// add extends the chain with the PAGE_INFO of a page.
func (c *chain) add(kind byte, address uint64, contents [sha512.Size384]byte) {
	b := append(c[:], contents[:]...)
	b = binary.LittleEndian.AppendUint16(b, 0x70) // size of PAGE_INFO
	b = append(b, kind, 0, 0, 0, 0, 0)            // no migration image, permissions of VMPL 3 to 1, reserved
	*c = sha512.Sum384(binary.LittleEndian.AppendUint64(b, address))
}

// data adds pages with contents.
func (c *chain) data(address uint64, b []byte) {
	for ; len(b) > 0; b = b[ovmf.PageSize:] {
		c.add(pageNormal, address, sha512.Sum384(b[:ovmf.PageSize]))
		address += ovmf.PageSize
	}
}

// empty adds pages whose contents are not measured.
func (c *chain) empty(kind byte, address, size uint64) {
	for at := uint64(0); at < size; at += ovmf.PageSize {
		c.add(kind, address+at, [sha512.Size384]byte{})
	}
}

// Launch is the launch digest of a machine with such a firmware.
func Launch(f *ovmf.Firmware, m Machine) ([sha512.Size384]byte, error) {
	var c chain
	if m.VCPUs < 1 || m.VCPUs > MaxVCPUs {
		return c, fmt.Errorf("%d virtual CPUs, want 1 to %d", m.VCPUs, MaxVCPUs)
	}
	if m.Features&FeatureSNP == 0 {
		return c, fmt.Errorf("guest features %#x: a machine without SEV-SNP, bit 0, has no launch digest", m.Features)
	}
	all, err := sections(f)
	if err != nil {
		return c, fmt.Errorf("firmware: %w", err)
	}
	c.data(f.Base(), f.Data)
	hashes := false
	for _, s := range all {
		switch {
		case s.kind != sectionHashes || m.Direct == nil:
			s.add(&c, m.VMM)
		default:
			page, err := m.Direct.page(f, s)
			if err != nil {
				return c, fmt.Errorf("firmware: %w", err)
			}
			c.data(uint64(s.address), page)
			hashes = true
		}
	}
	if m.VMM == EC2 { // which adds these last
		for _, s := range all {
			if s.kind == sectionCPUID {
				c.empty(pageCPUID, uint64(s.address), uint64(s.size))
			}
		}
	}
	if m.Direct != nil && !hashes {
		return c, errors.New("firmware: it has no page for the hashes of a kernel: it does not check what a machine starts directly")
	}
	return c, c.addCPUs(f, m)
}

// addCPUs adds the first state of each CPU: the first starts at the reset
// vector, the others where the firmware says.
func (c *chain) addCPUs(f *ovmf.Firmware, m Machine) error {
	entry, ok := f.Number(resetBlock())
	if !ok || entry == 0 && m.VCPUs > 1 {
		return fmt.Errorf("firmware: no entry %s that says where CPUs start", resetBlock())
	}
	first, err := state(resetVector, m)
	if err != nil {
		return err
	}
	c.add(pageVMSA, vmsaAddress, sha512.Sum384(first))
	other, err := state(entry, m)
	if err != nil {
		return err
	}
	contents := sha512.Sum384(other)
	for range m.VCPUs - 1 {
		c.add(pageVMSA, vmsaAddress, contents)
	}
	return nil
}

// Kinds of sections (OvmfPkg/ResetVector/X64/OvmfSevMetadata.asm).
const (
	sectionMemory  = 1
	sectionSecrets = 2
	sectionCPUID   = 3
	sectionCalling = 4 // area for calls to an SVSM
	sectionHashes  = 0x10
)

// maxMemory bounds what all sections of a firmware are together, in bytes: it
// has less than 1 MiB.
const maxMemory = 1 << 30

// section is memory that the firmware wants to be there when it starts.
type section struct{ address, size, kind uint32 }

func sevMetadata() gpt.GUID {
	return gpt.GUID{0x66, 0x65, 0x88, 0xdc, 0x4a, 0x98, 0x98, 0x47, 0xa7, 0x5e, 0x55, 0x85, 0xa7, 0xbf, 0x67, 0xcc}
}

func resetBlock() gpt.GUID {
	return gpt.GUID{0xde, 0x71, 0xf7, 0x00, 0x7e, 0x1a, 0xcb, 0x4f, 0x89, 0x0e, 0x68, 0xc7, 0x7e, 0x2f, 0xb4, 0x4e}
}

// sections are those of the firmware, in order.
func sections(f *ovmf.Firmware) ([]section, error) {
	items, ok, err := f.List(sevMetadata(), "ASEV", 12)
	if err != nil {
		return nil, err
	}
	if !ok || len(items) == 0 {
		return nil, errors.New("it has no metadata for SEV-SNP: a machine with it does not start")
	}
	var all []section
	var memory uint64
	for i, b := range items {
		s := section{binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:]), binary.LittleEndian.Uint32(b[8:])}
		if s.address%ovmf.PageSize != 0 || s.size%ovmf.PageSize != 0 {
			return nil, fmt.Errorf("section %d: %d bytes at %#x are not whole pages", i, s.size, s.address)
		}
		if memory += uint64(s.size); memory > maxMemory {
			return nil, fmt.Errorf("section %d: its sections have more than %d bytes", i, maxMemory)
		}
		switch s.kind {
		case sectionMemory, sectionCalling:
		case sectionSecrets, sectionCPUID, sectionHashes:
			if s.size != ovmf.PageSize {
				return nil, fmt.Errorf("section %d of kind %d: %d bytes, want a page", i, s.kind, s.size)
			}
		default:
			return nil, fmt.Errorf("section %d: kind %d is not known", i, s.kind)
		}
		all = append(all, s)
	}
	return all, nil
}

// add adds the pages of a section in which nothing is when it is measured.
func (s section) add(c *chain, vmm VMM) {
	kind := byte(pageZero)
	switch s.kind {
	case sectionMemory:
		if vmm == GCE {
			kind = pageUnmeasured
		}
	case sectionSecrets:
		kind = pageSecrets
	case sectionCPUID:
		if vmm == EC2 {
			return
		}
		kind = pageCPUID
	}
	c.empty(kind, uint64(s.address), uint64(s.size))
}
