package measure

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"

	"caisson/build/image/gpt"
	"caisson/build/image/uki"
)

// Event types of the TCG PC Client Platform Firmware Profile, section
// "Event Types".
const (
	evSeparator  = "EV_SEPARATOR"
	evAction     = "EV_EFI_ACTION"
	evVariable   = "EV_EFI_VARIABLE_DRIVER_CONFIG"
	evAuthority  = "EV_EFI_VARIABLE_AUTHORITY"
	evBootOption = "EV_EFI_VARIABLE_BOOT"
	evBoot       = "EV_EFI_BOOT_SERVICES_APPLICATION"
	evGPT        = "EV_EFI_GPT_EVENT"
	evIPL        = "EV_IPL"
	evTag        = "EV_EVENT_TAG"
)

// assumptions are what the prediction takes for granted.
func assumptions(p Platform) []string {
	seven := "PCR 7: Secure Boot is off, and PK, KEK, db and dbx are empty"
	if p.SecureBoot {
		seven = "PCR 7: Secure Boot is on, with the PK, KEK, db and dbx that were given"
	}
	return []string{
		"PCR 3: no option ROM is loaded, so that the firmware measures a separator only",
		"PCR 4: the firmware starts this disk first; a boot option that fails before it adds events",
		"PCR 5: the disk keeps its size; moving the backup partition table changes its header",
		seven,
		"PCR 9: the kernel's EFI stub measures its command line and its initrd, as Linux has done since 5.18",
		"PCR 12: the machine passes no command line by load options or SMBIOS",
	}
}

// firmwareEvents are the firmware's until it starts a program.
func (b *boot) firmwareEvents(table *gpt.Table) {
	separator := sumBytes(make([]byte, 4))
	for _, v := range b.platform.variables() {
		b.add(7, evVariable, v.name, variable(v.guid, v.name, v.data))
	}
	b.action(4, "Calling EFI Application from Boot Option")
	for _, pcr := range []int{3, 4, 5, 7} {
		b.add(pcr, evSeparator, "separator", separator)
	}
	b.add(5, evGPT, "partition table", sumBytes(gptEvent(table)))
}

func (r *Result) action(pcr int, text string) {
	r.add(pcr, evAction, text, sumBytes([]byte(text)))
}

// variable is the digests of a UEFI_VARIABLE_DATA structure.
func variable(id gpt.GUID, name string, data []byte) sums {
	text := wide(name)
	text = text[:len(text)-2]
	b := bytes.Clone(id[:])
	b = binary.LittleEndian.AppendUint64(b, uint64(len(text)/2))
	b = binary.LittleEndian.AppendUint64(b, uint64(len(data)))
	return sumBytes(append(append(b, text...), data...))
}

// gptEvent is a UEFI_GPT_DATA structure: the header, and the entries in use.
func gptEvent(t *gpt.Table) []byte {
	b := binary.LittleEndian.AppendUint64(t.Header(), uint64(len(t.Entries())))
	for _, e := range t.Entries() {
		b = append(b, e...)
	}
	return b
}

// sectionEvents are those of systemd-stub for the sections of a UKI.
func (b *boot) sectionEvents(im *image, rules rules) error {
	r := b.Result
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
		r.add(11, evIPL, name+" (name)", sumBytes(append([]byte(name), 0)))
		r.add(11, evIPL, name, digest)
	}
	return nil
}

// kernelEvents are those of the start of the kernel and of its EFI stub.
func (b *boot) kernelEvents(im *image, rules rules) error {
	r := b.Result
	linux, err := im.Section(".linux")
	if err != nil {
		return err
	}
	hash, err := sumOf(func(w io.Writer) error {
		return uki.WriteHashed(w, linux.Open(), int64(linux.VirtualSize))
	})
	if err != nil {
		return fmt.Errorf("section %q: %w", ".linux", err)
	}
	if rules.loadsKernel && !b.platform.SecureBoot {
		// With Secure Boot the stub starts the kernel past the firmware's
		// checks, its measurement among them.
		r.add(4, evBoot, ".linux", hash)
	}
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
	r.add(9, evTag, "LOADED_IMAGE::LoadOptions", sumBytes(wide(r.Cmdline)))
	r.add(9, evTag, "Linux initrd", digest)
	return nil
}

// exitEvents are the firmware's when the kernel takes over.
func (r *Result) exitEvents() {
	r.action(5, "Exit Boot Services Invocation")
	r.action(5, "Exit Boot Services Returned with Success")
}
