// Package tdx predicts what an Intel TDX machine measures: MRTD, which is the
// firmware as it was when the machine was built, and RTMR 0 to 3, the registers
// that firmware, boot loader and kernel extend where a machine without TDX
// extends PCRs.
//
// Limits first. The machine is one of QEMU and KVM, its firmware is of EDK II
// with TDX metadata, given as one file with its variables in it (-bios), and it
// has no TPM. What is predicted depends on
//
//   - MRTD: the firmware file, and nothing else;
//   - RTMR 0: the firmware file, the machine's memory, its ACPI tables, its
//     boot options. The last two are QEMU's and the machine's own: their events
//     are listed without a value, and the register has none;
//   - RTMR 1 and 2: the image, and the firmware's Secure Boot variables;
//   - RTMR 3: nothing before user space: it is zero.
//
// RTMR 1 is what measure.Result has of the PCRs 2 to 6, RTMR 2 what it has of 8
// to 15 (UEFI 2.10, section 38.4.1), in the order of time, as far as the
// programs know the protocol for it: systemd-stub does since 256 and Linux
// since 6.9, and whether those of the image do is looked up in their bytes. Of
// a machine with a TPM too only MRTD is right: programs may measure into that
// instead.
//
// Not computed are machines that start a kernel directly, those with an IGVM
// file, MRCONFIGID, MROWNER and the attributes of the machine (XFAM), which
// whoever starts it chooses, and the measurements of the TDX module.
package tdx

import (
	"bytes"
	"crypto/sha512"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"

	"caisson/build/image/gpt"
	"caisson/verify/measure"
	"caisson/verify/measure/ovmf"
)

// bank is the bank of the RTMRs, and of MRTD.
const bank = "sha384"

// Kinds of sections (Intel, TDX Virtual Firmware Design Guide, section
// "TDVF Metadata").
const (
	sectionCode   = 0 // BFV, boot firmware volume
	sectionConfig = 1 // CFV, configuration firmware volume
	sectionHOB    = 2 // where the monitor describes the memory
	sectionMemory = 3 // added before the start
)

// Attributes of sections.
const (
	attrExtend = 1 // its contents are measured
	attrAug    = 2 // its pages are not added before the start
)

// maxMemory bounds what all sections of a firmware are together, in bytes:
// OVMF has 4 MiB of itself and less than 1 MiB beside.
const maxMemory = 1 << 30

// section is a part of the firmware, or memory that it wants to be there.
type section struct {
	offset, raw   uint32 // in the file
	address, size uint64 // in memory
	kind, attr    uint32
}

func tdxMetadata() gpt.GUID {
	return gpt.GUID{0x35, 0x65, 0x7a, 0xe4, 0x4a, 0x98, 0x98, 0x47, 0x86, 0x5e, 0x46, 0x85, 0xa7, 0xbf, 0x8e, 0xc2}
}

// sections are those of the firmware, in order.
func sections(f *ovmf.Firmware) ([]section, error) {
	items, ok, err := f.List(tdxMetadata(), "TDVF", 32)
	if err != nil {
		return nil, err
	}
	if !ok || len(items) == 0 {
		return nil, errors.New("it has no metadata for TDX: a machine with it does not start")
	}
	le := binary.LittleEndian
	var all []section
	var memory uint64
	for i, b := range items {
		s := section{
			offset: le.Uint32(b), raw: le.Uint32(b[4:]), address: le.Uint64(b[8:]), size: le.Uint64(b[16:]),
			kind: le.Uint32(b[24:]), attr: le.Uint32(b[28:]),
		}
		if err := s.check(len(f.Data)); err != nil {
			return nil, fmt.Errorf("section %d: %w", i, err)
		}
		if memory += s.size; memory > maxMemory {
			return nil, fmt.Errorf("section %d: its sections have more than %d bytes", i, maxMemory)
		}
		all = append(all, s)
	}
	return all, nil
}

// check fails where QEMU would, or where it would read past what it was told.
func (s section) check(file int) error {
	const maxAddress = 1 << 52
	switch {
	case s.address%ovmf.PageSize != 0 || s.size%ovmf.PageSize != 0 || s.size == 0:
		return fmt.Errorf("%d bytes at %#x are not whole pages", s.size, s.address)
	case s.size > maxMemory || s.address > maxAddress:
		return fmt.Errorf("%d bytes at %#x", s.size, s.address)
	case uint64(s.offset)+uint64(s.raw) > uint64(file):
		return fmt.Errorf("%d bytes at %d of a file of %d", s.raw, s.offset, file)
	case s.attr&^(attrExtend|attrAug) != 0 || s.attr == attrExtend|attrAug:
		return fmt.Errorf("attributes %#x", s.attr)
	}
	switch s.kind {
	case sectionCode, sectionConfig:
		if uint64(s.raw) != s.size {
			return fmt.Errorf("%d bytes of the file for %d of memory", s.raw, s.size)
		}
	case sectionHOB, sectionMemory:
		if s.raw != 0 {
			return fmt.Errorf("kind %d with %d bytes of the file", s.kind, s.raw)
		}
	default:
		return fmt.Errorf("kind %d is not known", s.kind)
	}
	return nil
}

// MRTD is the measurement of a machine with such a firmware before it starts:
// SHA-384 over a record for each page that is added, and where its contents
// count one with each 256 bytes (Intel TDX Module ABI, TDH.MEM.PAGE.ADD and
// TDH.MR.EXTEND), a page after the other, as KVM does.
func MRTD(f *ovmf.Firmware) ([sha512.Size384]byte, error) {
	const chunk = 256
	h := sha512.New384()
	record := func(operation string, address uint64) {
		var b [128]byte
		copy(b[:], operation)
		binary.LittleEndian.PutUint64(b[16:], address)
		h.Write(b[:])
	}
	all, err := sections(f)
	if err != nil {
		return [sha512.Size384]byte{}, fmt.Errorf("firmware: %w", err)
	}
	empty := make([]byte, ovmf.PageSize)
	for _, s := range all {
		if s.attr&attrAug != 0 {
			continue
		}
		for at := uint64(0); at < s.size; at += ovmf.PageSize {
			record("MEM.PAGE.ADD", s.address+at)
			if s.attr&attrExtend == 0 {
				continue
			}
			page := empty
			if s.raw != 0 {
				page = f.Data[uint64(s.offset)+at:][:ovmf.PageSize]
			}
			for c := uint64(0); c < ovmf.PageSize; c += chunk {
				record("MR.EXTEND", s.address+at+c)
				h.Write(page[c : c+chunk])
			}
		}
	}
	return [sha512.Size384]byte(h.Sum(nil)), nil
}

// config is the section of the firmware's variables.
func config(f *ovmf.Firmware, all []section) ([]byte, error) {
	var found []byte
	for _, s := range all {
		if s.kind != sectionConfig {
			continue
		}
		if found != nil {
			return nil, errors.New("two sections of variables")
		}
		found = f.Data[s.offset:][:s.raw]
	}
	if found == nil {
		return nil, errors.New("no section of variables")
	}
	return found, nil
}

func hexOf(b [sha512.Size384]byte) string { return hex.EncodeToString(b[:]) }

// Values are what a machine measures.
type Values struct {
	MRTD string `json:"mrtd"` // SHA-384, hex
	// RTMRs are the values when the kernel takes over, by number; those
	// alone that are predicted.
	RTMRs map[string]string `json:"rtmrs"`
	// Events are what the RTMRs are extended with, those without a value too,
	// for each register in order.
	Events      []Event  `json:"events"`
	Assumptions []string `json:"assumptions"`
}

// Event is one extension of an RTMR, or what stands for several.
type Event struct {
	RTMR        int    `json:"rtmr"`
	Type        string `json:"type"`
	Description string `json:"description"`
	Digest      string `json:"digest,omitempty"` // SHA-384, hex; none where it is not known
	// Several tells that any number of such events stands here, one at least.
	Several bool `json:"several,omitempty"`
}

// Platform is the Secure Boot settings that the firmware's own variables make:
// what an image is to be measured on that a machine with it starts.
func Platform(f *ovmf.Firmware) (measure.Platform, error) {
	all, err := sections(f)
	if err != nil {
		return measure.Platform{}, fmt.Errorf("firmware: %w", err)
	}
	vars, err := config(f, all)
	if err != nil {
		return measure.Platform{}, fmt.Errorf("firmware: %w", err)
	}
	p, err := measure.ReadVariables(bytes.NewReader(vars))
	if err != nil {
		return measure.Platform{}, fmt.Errorf("firmware: its variables: %w", err)
	}
	return p, nil
}
