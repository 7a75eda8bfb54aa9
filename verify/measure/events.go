package measure

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"

	"caisson/build/image/gpt"
	"caisson/build/image/uki"
)

// Event types of the TCG PC Client Platform Firmware Profile, section
// "Event Types".
const (
	evSeparator = "EV_SEPARATOR"
	evAction    = "EV_EFI_ACTION"
	evVariable  = "EV_EFI_VARIABLE_DRIVER_CONFIG"
	evBoot      = "EV_EFI_BOOT_SERVICES_APPLICATION"
	evGPT       = "EV_EFI_GPT_EVENT"
	evIPL       = "EV_IPL"
	evTag       = "EV_EVENT_TAG"
)

// assumptions are what the prediction takes for granted.
func assumptions() []string {
	return []string{
		"PCR 3: no option ROM is loaded, so that the firmware measures a separator only",
		"PCR 4: the firmware starts this disk first; a boot option that fails before it adds events",
		"PCR 5: the disk keeps its size; moving the backup partition table changes its header",
		"PCR 7: Secure Boot is off, and PK, KEK, db and dbx are empty",
		"PCR 9: the kernel's EFI stub measures its command line and its initrd, as Linux has done since 5.18",
		"PCR 12: the machine passes no command line by load options or SMBIOS",
	}
}

// firmwareEvents are the firmware's until it starts the UKI with the given
// Authenticode hash.
func (r *Result) firmwareEvents(table *gpt.Table, hash [32]byte) {
	separator := sha256.Sum256(make([]byte, 4))
	var (
		global   = gpt.GUID{0x61, 0xdf, 0xe4, 0x8b, 0xca, 0x93, 0xd2, 0x11, 0xaa, 0x0d, 0x00, 0xe0, 0x98, 0x03, 0x2b, 0x8c} // EFI_GLOBAL_VARIABLE
		security = gpt.GUID{0xcb, 0xb2, 0x19, 0xd7, 0x3a, 0x3d, 0x96, 0x45, 0xa3, 0xbc, 0xda, 0xd0, 0x0e, 0x67, 0x65, 0x6f} // EFI_IMAGE_SECURITY_DATABASE_GUID
	)
	for _, v := range []struct {
		guid gpt.GUID
		name string
		data []byte
	}{
		{global, "SecureBoot", []byte{0}}, {global, "PK", nil}, {global, "KEK", nil}, {security, "db", nil}, {security, "dbx", nil},
	} {
		r.add(7, evVariable, v.name, variable(v.guid, v.name, v.data))
	}
	r.action(4, "Calling EFI Application from Boot Option")
	for _, pcr := range []int{3, 4, 5, 7} {
		r.add(pcr, evSeparator, "separator", separator)
	}
	r.add(5, evGPT, "partition table", sha256.Sum256(gptEvent(table)))
	r.add(4, evBoot, "UKI", hash)
}

func (r *Result) action(pcr int, text string) {
	r.add(pcr, evAction, text, sha256.Sum256([]byte(text)))
}

// variable is the digest of a UEFI_VARIABLE_DATA structure.
func variable(id gpt.GUID, name string, data []byte) [32]byte {
	text := wide(name)
	text = text[:len(text)-2]
	b := bytes.Clone(id[:])
	b = binary.LittleEndian.AppendUint64(b, uint64(len(text)/2))
	b = binary.LittleEndian.AppendUint64(b, uint64(len(data)))
	return sha256.Sum256(append(append(b, text...), data...))
}

// gptEvent is a UEFI_GPT_DATA structure: the header, and the entries in use.
func gptEvent(t *gpt.Table) []byte {
	b := binary.LittleEndian.AppendUint64(t.Header(), uint64(len(t.Entries())))
	for _, e := range t.Entries() {
		b = append(b, e...)
	}
	return b
}

// stubEvents are those of systemd-stub and of the EFI stub of the kernel.
func (r *Result) stubEvents(im *image, rules rules) error {
	for _, name := range rules.measured {
		s, err := im.Section(name)
		if err != nil {
			return err
		}
		if s == nil || s.VirtualSize == 0 {
			continue
		}
		digest, err := sum(s.Open())
		if err != nil {
			return fmt.Errorf("reading section %q: %w", name, err)
		}
		r.add(11, evIPL, name+" (name)", sha256.Sum256(append([]byte(name), 0)))
		r.add(11, evIPL, name, digest)
	}
	linux, err := im.Section(".linux")
	if err != nil {
		return err
	}
	hash, err := uki.Authenticode(linux.Open(), int64(linux.VirtualSize))
	if err != nil {
		return fmt.Errorf("section %q: %w", ".linux", err)
	}
	r.add(4, evBoot, ".linux", hash)
	initrd, err := im.Section(".initrd")
	if err != nil {
		return err
	}
	tail, err := im.initrdTail(rules, int64(initrd.VirtualSize))
	if err != nil {
		return err
	}
	digest, err := sum(io.MultiReader(initrd.Open(), bytes.NewReader(tail)))
	if err != nil {
		return fmt.Errorf("reading section %q: %w", ".initrd", err)
	}
	r.add(9, evTag, "LOADED_IMAGE::LoadOptions", sha256.Sum256(wide(r.Cmdline)))
	r.add(9, evTag, "Linux initrd", digest)
	return nil
}

// exitEvents are the firmware's when the kernel takes over.
func (r *Result) exitEvents() {
	r.action(5, "Exit Boot Services Invocation")
	r.action(5, "Exit Boot Services Returned with Success")
}

func sum(r io.Reader) ([32]byte, error) {
	h := sha256.New()
	if _, err := io.Copy(h, r); err != nil {
		return [32]byte{}, err
	}
	return [32]byte(h.Sum(nil)), nil
}
