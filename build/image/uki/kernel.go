package uki

import (
	"fmt"
	"io"
	"strings"
)

// ukiSBAT is the revocation level of unified kernel images, as ukify writes it.
const ukiSBAT = "uki,1,UKI,uki,1,https://uapi-group.org/specifications/specs/unified_kernel_image/\n"

const optDLLCharacteristics = 70

// nxCompat is IMAGE_DLLCHARACTERISTICS_NX_COMPAT: the image runs where memory is
// either written or executed.
const nxCompat = 0x0100

// Kernel is what an image has to take over from the kernel in it.
type Kernel struct {
	// NX tells whether it is marked NX_COMPAT. Firmware that holds images to that
	// mark does not start a UKI with it whose kernel cannot bear it.
	NX   bool
	SBAT string // its revocation levels; "" where it has none
}

// ReadKernel reads a kernel that firmware can start: a PE32+ image of size bytes.
func ReadKernel(r io.ReaderAt, size int64) (Kernel, error) {
	h, err := readHeaders(r, size)
	if err != nil {
		return Kernel{}, err
	}
	k := Kernel{NX: h.u16(h.opt+optDLLCharacteristics)&nxCompat != 0}
	k.SBAT, err = readSBAT(r, size)
	return k, err
}

// SBAT is the section of that name of a UKI: the revocation levels of the stub,
// of the kernel, and of UKIs, so that each of them can be revoked.
func SBAT(stub io.ReaderAt, stubSize int64, k Kernel) (string, error) {
	own, err := readSBAT(stub, stubSize)
	if err != nil {
		return "", fmt.Errorf("reading the stub: %w", err)
	}
	var all strings.Builder
	all.WriteString(sbatHeader)
	for _, text := range []string{own, k.SBAT} {
		for line := range strings.Lines(text) {
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "sbat,") {
				all.WriteString(line + "\n")
			}
		}
	}
	all.WriteString(ukiSBAT)
	return all.String(), nil
}

// readSBAT is an image's section .sbat up to its first NUL; "" if it has none.
func readSBAT(r io.ReaderAt, size int64) (string, error) {
	im, err := Read(r, size)
	if err != nil {
		return "", err
	}
	s, err := im.Section(sectionSBAT)
	if err != nil || s == nil {
		return "", err
	}
	if s.VirtualSize > maxAddonText {
		return "", fmt.Errorf("section %q has %d bytes, more than %d", sectionSBAT, s.VirtualSize, maxAddonText)
	}
	b := make([]byte, s.VirtualSize)
	if err := readAt(s.data, int64(len(b)), b, 0); err != nil {
		return "", fmt.Errorf("reading section %q: %w", sectionSBAT, err)
	}
	text, _, _ := strings.Cut(string(b), "\x00")
	return text, nil
}
