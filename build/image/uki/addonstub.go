package uki

import (
	"encoding/binary"
	"fmt"
)

// Programs that .sdmagic names in a stub for addons: systemd's, and the one
// that AddonStub makes.
const (
	addonOfSystemd = "systemd-addon"
	addonOfOurs    = "caisson-addon"
)

// IsAddon tells whether a program's name, as LoaderInfo has it, is that of a
// stub for addons.
func IsAddon(name string) bool { return name == addonOfSystemd || name == addonOfOurs }

// AddonStub makes a stub for addons, for a machine that has none of systemd's:
// an EFI program that does nothing but return EFI_UNSUPPORTED. Systemd-stub has
// the firmware load an addon, which checks its signature, and reads its
// sections; it never starts it.
func AddonStub(machine uint16) ([]byte, error) {
	code, ok := map[uint16][]byte{
		// mov rax, EFI_UNSUPPORTED; ret
		MachineAMD64: {0x48, 0xb8, 3, 0, 0, 0, 0, 0, 0, 0x80, 0xc3},
		// mov x0, #3; movk x0, #0x8000, lsl #48; ret
		MachineARM64: {0x60, 0x00, 0x80, 0xd2, 0x00, 0x00, 0xf0, 0xf2, 0xc0, 0x03, 0x5f, 0xd6},
	}[machine]
	if !ok {
		return nil, fmt.Errorf("no addon can be made for machine type %#x", machine)
	}
	const (
		pe         = dosHeaderSize
		coff       = pe + 4
		opt        = coff + coffHeaderSize
		table      = opt + optionalFixed + 16*8
		headerSize = 0x400
		fileAlign  = 0x200
	)
	magic := "#### LoaderInfo: " + addonOfOurs + " 1 ####\x00"
	b := make([]byte, headerSize+2*fileAlign)
	le := binary.LittleEndian
	copy(b, "MZ")
	le.PutUint32(b[60:], pe)
	copy(b[pe:], "PE\x00\x00")
	le.PutUint16(b[coff:], machine)
	le.PutUint16(b[coff+coffSections:], 2)
	le.PutUint16(b[coff+coffOptional:], table-opt)
	le.PutUint16(b[coff+18:], 0x0002|0x0020|0x0200) // executable, addresses above 2 GiB, no debugging information
	le.PutUint16(b[opt:], magicPE32Plus)
	le.PutUint32(b[opt+4:], fileAlign)              // code
	le.PutUint32(b[opt+optInitialized:], fileAlign) // data
	le.PutUint32(b[opt+16:], page)                  // entry point
	le.PutUint32(b[opt+20:], page)                  // code
	le.PutUint32(b[opt+optAlignment:], page)
	le.PutUint32(b[opt+optFileAlign:], fileAlign)
	le.PutUint32(b[opt+optImageSize:], 3*page)
	le.PutUint32(b[opt+optHeadersSize:], headerSize)
	le.PutUint16(b[opt+68:], 10)                   // EFI application
	le.PutUint16(b[opt+70:], 0x0020|0x0040|0x0100) // any address, and no code in what can be written
	le.PutUint32(b[opt+optDirectories:], 16)
	for i, s := range []struct {
		name  string
		data  []byte
		flags uint32
	}{
		{".text", code, sectionCode | sectionExecute | sectionRead},
		{".sdmagic", []byte(magic), sectionInitialized | sectionRead},
	} {
		e := b[table+i*sectionHeaderSize:]
		copy(e[:8], s.name)
		le.PutUint32(e[8:], uint32(len(s.data)))
		le.PutUint32(e[12:], uint32(page*(i+1)))
		le.PutUint32(e[16:], fileAlign)
		le.PutUint32(e[20:], uint32(headerSize+i*fileAlign))
		le.PutUint32(e[36:], s.flags)
		copy(b[headerSize+i*fileAlign:], s.data)
	}
	return b, nil
}
