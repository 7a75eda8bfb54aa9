package measure

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"

	"caisson/build/image/uki"
)

// linuxName is the kernel's name in Result.Confidential.
const linuxName = "linux"

// confidential notes which programs measure by the firmware's protocol for
// confidential machines too: the program itself, and the kernel in a UKI.
func (b *boot) confidential(im *image) error {
	for i := range im.Sections {
		s := &im.Sections[i]
		name := im.name
		switch {
		case s.Name == ".initrd" || name == addonName:
			continue
		case s.Name == ".linux":
			name = linuxName
		}
		if slices.Contains(b.Confidential, name) {
			continue
		}
		found, err := hasProtocol(s)
		if err != nil {
			return fmt.Errorf("reading section %q: %w", s.Name, err)
		}
		if found {
			b.Confidential = append(b.Confidential, name)
		}
	}
	return nil
}

// maxProgram bounds a section that is searched, in bytes: Linux has 15 MB.
const maxProgram = 256 << 20

// hasProtocol tells whether a section has EFI_CC_MEASUREMENT_PROTOCOL_GUID
// (UEFI 2.10, section 38.2.2), without which no program finds that protocol.
// Compilers put it there whole, or as two numbers of eight bytes.
func hasProtocol(s *uki.ImageSection) (bool, error) {
	halves := [][]byte{
		{0x3d, 0x1a, 0x75, 0x96, 0xf4, 0x72, 0xa6, 0x41},
		{0xa7, 0x94, 0xed, 0x5d, 0x0e, 0x67, 0xae, 0x6b},
	}
	const overlap = 7
	b := make([]byte, overlap+1<<16)
	r := io.LimitReader(s.Open(), maxProgram)
	for kept := 0; ; {
		n, err := io.ReadFull(r, b[kept:])
		n += kept
		halves = slices.DeleteFunc(halves, func(h []byte) bool { return bytes.Contains(b[:n], h) })
		switch {
		case len(halves) == 0:
			return true, nil
		case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
			return false, nil
		case err != nil:
			return false, err
		}
		kept = copy(b, b[n-overlap:n])
	}
}
