package snp

import (
	"encoding/binary"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"caisson/verify/measure/ovmf"
)

// resetVector is where the first CPU starts.
const resetVector = 0xfffffff0

// Offsets in the save area (AMD64 Architecture Programmer's Manual, volume 2,
// table B-4). A segment is selector, attributes, limit and base.
const (
	offES       = 0x000
	offCS       = 0x010
	offSS       = 0x020
	offDS       = 0x030
	offFS       = 0x040
	offGS       = 0x050
	offGDTR     = 0x060
	offLDTR     = 0x070
	offIDTR     = 0x080
	offTR       = 0x090
	offEFER     = 0x0d0
	offCR4      = 0x148
	offCR0      = 0x158
	offDR7      = 0x160
	offDR6      = 0x168
	offRFLAGS   = 0x170
	offRIP      = 0x178
	offPAT      = 0x268
	offRDX      = 0x310
	offFeatures = 0x3b0
	offXCR0     = 0x3e8
	offMXCSR    = 0x408
	offFCW      = 0x410
)

// initial is what monitors start a CPU with differently.
type initial struct {
	code, stack, task uint16 // attributes of the segments CS, SS and TR
	pat, rdx          uint64
	mxcsr             uint32
	fcw               uint16
}

const usualPAT = 0x0007040600070406

// initials is how a monitor starts a CPU at an address.
func initials(m Machine, at uint32) (initial, error) {
	switch m.VMM {
	case QEMU:
		return initial{code: 0x9b, stack: 0x93, task: 0x8b, pat: usualPAT, rdx: uint64(m.Signature), mxcsr: 0x1f80, fcw: 0x37f}, nil
	case EC2:
		i := initial{code: 0x9b, stack: 0x92, task: 0x83, pat: usualPAT, rdx: 0x600}
		if at == resetVector {
			i.code = 0x9a
		}
		return i, nil
	case GCE:
		return initial{code: 0x9b, stack: 0x93, task: 0x8b, pat: 0x70106, rdx: 0x600}, nil
	}
	return initial{}, fmt.Errorf("virtual machine monitor %q is not known, these are: %v", m.VMM, VMMs())
}

// state is the page of the save area of a CPU that starts at an address.
func state(at uint32, m Machine) ([]byte, error) {
	i, err := initials(m, at)
	if err != nil {
		return nil, err
	}
	b := make([]byte, ovmf.PageSize)
	le := binary.LittleEndian
	segment := func(off int, selector, attributes uint16, base uint32) {
		le.PutUint16(b[off:], selector)
		le.PutUint16(b[off+2:], attributes)
		le.PutUint32(b[off+4:], 0xffff)
		le.PutUint64(b[off+8:], uint64(base))
	}
	segment(offES, 0, 0x93, 0)
	segment(offCS, 0xf000, i.code, at&0xffff0000)
	segment(offSS, 0, i.stack, 0)
	segment(offDS, 0, 0x93, 0)
	segment(offFS, 0, 0x93, 0)
	segment(offGS, 0, 0x93, 0)
	segment(offGDTR, 0, 0, 0)
	segment(offLDTR, 0, 0x82, 0)
	segment(offIDTR, 0, 0, 0)
	segment(offTR, 0, i.task, 0)
	for off, v := range map[int]uint64{
		offEFER:     0x1000, // SVME, which KVM sets
		offCR4:      0x40,   // MCE, which KVM sets
		offCR0:      0x10,
		offDR7:      0x400,
		offDR6:      0xffff0ff0,
		offRFLAGS:   2,
		offRIP:      uint64(at & 0xffff),
		offPAT:      i.pat,
		offRDX:      i.rdx,
		offFeatures: m.Features,
		offXCR0:     1,
	} {
		le.PutUint64(b[off:], v)
	}
	le.PutUint32(b[offMXCSR:], i.mxcsr)
	le.PutUint16(b[offFCW:], i.fcw)
	return b, nil
}

// models are QEMU's CPUs that have SEV-SNP, or pass for it: family, model,
// stepping.
func models() map[string][3]uint32 {
	return map[string][3]uint32{
		"EPYC":       {23, 1, 2},
		"EPYC-IBPB":  {23, 1, 2},
		"EPYC-Rome":  {23, 49, 0},
		"EPYC-Milan": {25, 1, 1},
		"EPYC-Genoa": {25, 17, 0},
		"EPYC-Turin": {26, 0, 0},
	}
}

// Types are the names that Signature knows.
func Types() []string {
	var names []string
	for name := range models() {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Signature is CPUID Fn0000_0001_EAX of one of QEMU's CPUs, such as EPYC-Milan
// or EPYC-v4. The versions of a CPU differ in features, not in their signature.
func Signature(name string) (uint32, error) {
	base := regexp.MustCompile(`-v[1-9]$`).ReplaceAllString(name, "")
	m, ok := models()[base]
	if !ok {
		return 0, fmt.Errorf("virtual CPU %q is not known, these are: %s; -v1 and so on may follow", name, strings.Join(Types(), ", "))
	}
	return FamilySignature(m[0], m[1], m[2]), nil
}

// FamilySignature is CPUID Fn0000_0001_EAX of a family, model and stepping
// (AMD, CPUID Specification, "Family, Model, Stepping Identifiers").
func FamilySignature(family, model, stepping uint32) uint32 {
	low, high := family, uint32(0)
	if family > 0xf {
		low, high = 0xf, (family-0xf)&0xff
	}
	return high<<20 | (model>>4&0xf)<<16 | low<<8 | (model&0xf)<<4 | stepping&0xf
}
