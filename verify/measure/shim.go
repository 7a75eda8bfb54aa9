package measure

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"unicode/utf16"

	"caisson/build/image/gpt"
)

// knownShims are the versions of shim whose measurements were compared with
// booted machines.
func knownShims() []string { return []string{"16.1"} }

// shimLock is the GUID of shim's variables.
func shimLock() gpt.GUID {
	return gpt.GUID{0x50, 0xab, 0x5d, 0x60, 0x46, 0xe0, 0x00, 0x43, 0xab, 0xb6, 0x3d, 0xd8, 0x10, 0xdd, 0x8b, 0x23}
}

// startShim follows shim. Where its fallback is beside it, that makes a boot
// option of the CSV file and resets the machine, as machines with a TPM do:
// what is measured then starts with the shim of that option.
func (b *boot) startShim(im *image) error {
	second := path.Join(path.Dir(im.path), b.esp.arch.second)
	if fallback := path.Join(path.Dir(im.path), b.esp.arch.fallback); b.esp.has(fallback) {
		var err error
		if im, second, err = b.bootOption(im); err != nil {
			return err
		}
		b.Resets = true
		b.Assumptions = append(b.Assumptions, "PCR 4: the machine keeps the boot option that shim's fallback makes, and is reset once")
	}
	if !slices.Contains(knownShims(), im.version) {
		return fmt.Errorf("%s: what shim %q measures is not known; known is %s", im.path, im.version, strings.Join(knownShims(), ", "))
	}
	for _, f := range b.esp.in(path.Dir(im.path)) {
		name := strings.ToLower(path.Base(f))
		if name == "options.csv" || strings.HasPrefix(name, "shim_certificate") || strings.HasPrefix(name, "revocations") {
			return fmt.Errorf("%q: options, certificates and revocations of shim are not supported", f)
		}
	}
	if err := b.load(im, shimName); err != nil {
		return err
	}
	if err := b.shimEvents(im); err != nil {
		return fmt.Errorf("%s: %w", im.path, err)
	}
	b.Assumptions = append(b.Assumptions, "PCR 7 and 14: shim's variables (MokList and others) are not set on the machine")
	// From here on shim allows what is started, and notes that by itself.
	b.measured, b.shim = map[string]bool{}, true
	uki, err := b.esp.open(second)
	if err != nil {
		return err
	}
	if uki.name != stubName {
		return fmt.Errorf("%s: %s %s, want %s", uki.path, uki.name, uki.version, stubName)
	}
	return b.startUKI(uki, false)
}

// bootOption reads the one CSV file that shim's fallback makes a boot option
// of: the shim that it starts, and the program that this one is to start.
func (b *boot) bootOption(first *image) (*image, string, error) {
	var csv string
	for _, f := range b.esp.files {
		if !strings.EqualFold(path.Base(f), b.esp.arch.csv) {
			continue
		}
		if csv != "" {
			return nil, "", fmt.Errorf("two files of boot options, %q and %q", csv, f)
		}
		if csv = f; !strings.EqualFold(path.Dir(path.Dir(f)), "EFI") || strings.EqualFold(path.Dir(f), "EFI/BOOT") {
			return nil, "", fmt.Errorf("%q: want it in a folder of EFI that is not BOOT", f)
		}
	}
	if csv == "" {
		return nil, "", fmt.Errorf("%s: its fallback finds no %s", first.path, b.esp.arch.csv)
	}
	text, err := b.esp.text(csv)
	if err != nil {
		return nil, "", err
	}
	file, options, err := csvEntry(text)
	if err != nil {
		return nil, "", fmt.Errorf("%s: %w", csv, err)
	}
	im, err := b.esp.open(path.Join(path.Dir(csv), file))
	if err != nil {
		return nil, "", err
	}
	if im.name != shimName {
		return nil, "", fmt.Errorf("%s: %s %s, want %s", im.path, im.name, im.version, shimName)
	}
	// shim's options are the path of what it starts, up to a blank.
	second, rest, _ := strings.Cut(options, " ")
	if rest != "" {
		return nil, "", fmt.Errorf("%s: options %q: a command line for the kernel image is not supported", csv, options)
	}
	if second == "" {
		return im, path.Join(path.Dir(im.path), b.esp.arch.second), nil
	}
	if !strings.HasPrefix(second, `\`) {
		return nil, "", fmt.Errorf("%s: options %q: want a path that starts with a backslash", csv, options)
	}
	return im, strings.ReplaceAll(second[1:], `\`, "/"), nil
}

// csvEntry is the file and the options of a file of boot options that has one
// line: file, title, options, description, in UTF-16.
func csvEntry(b []byte) (file, options string, err error) {
	b, ok := bytes.CutPrefix(b, []byte{0xff, 0xfe})
	if !ok || len(b)%2 != 0 {
		return "", "", errors.New("not UTF-16 with a byte order mark")
	}
	var units []uint16
	for c := range len(b) / 2 {
		units = append(units, binary.LittleEndian.Uint16(b[2*c:]))
	}
	text := strings.TrimRight(string(utf16.Decode(units)), "\r\n\x00")
	fields := strings.Split(text, ",")
	if strings.ContainsAny(text, "\r\n\x00") || len(fields) < 3 || len(fields) > 4 {
		return "", "", fmt.Errorf("got %q, want one line of file, title, options, description", text)
	}
	if fields[0] == "" || strings.ContainsAny(fields[0], `\/`) {
		return "", "", fmt.Errorf("file %q: want a name in the same folder", fields[0])
	}
	return fields[0], fields[2], nil
}

// Values of shim's variables where nobody has set them and Secure Boot is off.
const (
	sbatOriginal = "sbat,1,2021030218\n" // shim's SBAT_VAR_ORIGINAL
	mokTrusted   = "\x01"
)

// shimEvents are the variables that shim measures: what it has built in, as
// long as the machine's own are not set.
func (b *boot) shimEvents(im *image) error {
	list, listX, err := im.vendorLists()
	if err != nil {
		return err
	}
	level := sbatOriginal
	if b.platform.SecureBoot {
		if level, err = im.sbatLevel(); err != nil {
			return err
		}
	}
	b.add(14, evIPL, "MokList", sumBytes(list))
	b.add(14, evIPL, "MokListX", sumBytes(listX))
	b.add(7, evAuthority, "SbatLevel", variable(shimLock(), "SbatLevel", []byte(level)))
	b.add(14, evIPL, "MokListTrusted", sumBytes([]byte(mokTrusted)))
	return nil
}

// content is that of the one section that matches: names of more than eight
// bytes, as some of shim's are, are not in the section table.
func (im *image) content(match func([]byte) bool) ([]byte, error) {
	var found []byte
	for i := range im.Sections {
		s := &im.Sections[i]
		if s.VirtualSize > maxText {
			continue
		}
		b := make([]byte, s.VirtualSize)
		if _, err := s.Open().ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("reading section %q: %w", s.Name, err)
		}
		if !match(b) {
			continue
		}
		if found != nil {
			return nil, errors.New("two sections of one kind")
		}
		found = b
	}
	return found, nil
}

// vendorLists are the signature lists that shim makes of the certificate and
// the list of revoked things that are built into it, its section .vendor_cert:
// the sizes of both, where each starts, and their bytes.
func (im *image) vendorLists() (list, listX []byte, err error) {
	const fields = 16
	b, err := im.content(func(b []byte) bool {
		if len(b) < fields {
			return false
		}
		size, sizeX := binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:])
		at, atX := binary.LittleEndian.Uint32(b[8:]), binary.LittleEndian.Uint32(b[12:])
		return at == fields && uint64(atX) == uint64(at)+uint64(size) && uint64(atX)+uint64(sizeX) == uint64(len(b))
	})
	if err != nil {
		return nil, nil, err
	}
	if b == nil {
		return nil, nil, errors.New("no section \".vendor_cert\"")
	}
	atX := binary.LittleEndian.Uint32(b[12:])
	cert, revoked := b[fields:atX], b[atX:]
	if len(cert) < 2 || cert[0] != 0x30 || cert[1] != 0x82 {
		return nil, nil, errors.New("section \".vendor_cert\" has no certificate: lists of them are not supported")
	}
	if len(revoked) == 0 {
		return nil, nil, errors.New("section \".vendor_cert\" revokes nothing: what shim measures then is not known")
	}
	return signatureList(certX509(), shimLock(), cert), revoked, nil
}

// sbatLevel is the revocation level that shim sets with Secure Boot: its
// section .sbatlevel has a version, where two texts start behind that, and the
// texts, the first of which it is.
func (im *image) sbatLevel() (string, error) {
	const fields = 12
	b, err := im.content(func(b []byte) bool {
		return len(b) > fields && binary.LittleEndian.Uint32(b) == 0 && binary.LittleEndian.Uint32(b[4:]) == fields-4 &&
			bytes.HasPrefix(b[fields:], []byte("sbat,1,"))
	})
	if err != nil {
		return "", err
	}
	if b == nil {
		return "", errors.New("no section \".sbatlevel\"")
	}
	text, _, _ := bytes.Cut(b[fields:], []byte{0})
	return string(text), nil
}
