package tdx

import (
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// Sizes and numbers of hand-off blocks (PI 1.7, volume 3, chapter 5), and of
// QEMU's q35 machine (hw/i386/pc_q35.c): what memory is below 4 GiB.
const (
	hobHandoff  = 1
	hobResource = 3
	hobVersion  = 9

	resourceMemory     = 0 // accepted
	resourceUnaccepted = 7
	resourceAttributes = 7 // present, initialized, tested

	handoffSize  = 56
	resourceSize = 48
	endSize      = 8

	lowLimit = 0xb0000000 // with less memory all of it is below 4 GiB
	lowSplit = 0x80000000 // with more, so much of it
	highBase = 1 << 32
)

// MinMemory and MaxMemory bound a machine's memory, in bytes.
const (
	MinMemory = 128 << 20
	MaxMemory = 1 << 46
)

type memoryRange struct {
	start, size uint64
	accepted    bool
}

// handoff is the digest of the hand-off blocks in which QEMU describes a
// machine's memory to the firmware (hw/i386/tdvf-hob.c), up to the one that
// ends them: what sections of the firmware want is accepted, the rest is not.
func handoff(all []section, memory uint64) (string, error) {
	if memory < MinMemory || memory > MaxMemory || memory%(1<<20) != 0 {
		return "", fmt.Errorf("memory of %d bytes, want whole MiB from %d to %d", memory, MinMemory, uint64(MaxMemory))
	}
	ranges := []memoryRange{{size: memory}}
	if memory >= lowLimit {
		ranges = []memoryRange{{size: lowSplit}, {start: highBase, size: memory - lowSplit}}
	}
	var base uint64
	for _, s := range all {
		switch s.kind {
		case sectionHOB:
			if base != 0 {
				return "", errors.New("firmware: two sections for the description of the memory")
			}
			base = s.address
		case sectionMemory:
		default:
			continue
		}
		var err error
		if ranges, err = accept(ranges, s); err != nil {
			return "", fmt.Errorf("firmware: %w", err)
		}
	}
	if base == 0 {
		return "", errors.New("firmware: no section for the description of the memory")
	}
	le := binary.LittleEndian
	b := le.AppendUint16(nil, hobHandoff)
	b = le.AppendUint16(b, handoffSize)
	b = le.AppendUint64(b, hobVersion<<32) // reserved, version
	b = append(b, make([]byte, 4+4*8)...)  // boot mode, memory and free memory: not used
	b = le.AppendUint64(b, base+handoffSize+uint64(len(ranges))*resourceSize+endSize)
	for _, r := range ranges {
		kind := uint32(resourceUnaccepted)
		if r.accepted {
			kind = resourceMemory
		}
		b = le.AppendUint16(b, hobResource)
		b = le.AppendUint16(b, resourceSize)
		b = append(b, make([]byte, 4+16)...) // reserved, owner
		b = le.AppendUint32(b, kind)
		b = le.AppendUint32(b, resourceAttributes)
		b = le.AppendUint64(b, r.start)
		b = le.AppendUint64(b, r.size)
	}
	return hexOf(sha512.Sum384(b)), nil
}

// accept takes the section out of the memory that is not accepted yet.
func accept(ranges []memoryRange, s section) ([]memoryRange, error) {
	for i, r := range ranges {
		if r.accepted || s.address < r.start || s.address+s.size > r.start+r.size {
			continue
		}
		var parts []memoryRange
		for _, p := range []memoryRange{
			{start: r.start, size: s.address - r.start},
			{start: s.address, size: s.size, accepted: true},
			{start: s.address + s.size, size: r.start + r.size - s.address - s.size},
		} {
			if p.size > 0 {
				parts = append(parts, p)
			}
		}
		return slices.Replace(ranges, i, i+1, parts...), nil
	}
	return nil, fmt.Errorf("a section of %d bytes at %#x is not in memory that is free", s.size, s.address)
}
