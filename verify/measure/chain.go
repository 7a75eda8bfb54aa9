package measure

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"caisson/build/image/uki"
)

// Programs on the way to the kernel.
const (
	stubName   = "systemd-stub"
	loaderName = "systemd-boot"
	addonName  = "systemd-addon"
	shimName   = "shim"
)

// boot follows the way from the firmware to the kernel.
type boot struct {
	*Result
	esp      *esp
	platform Platform
	// measured are the entries of db by which something was allowed to start:
	// each is measured once.
	measured map[string]bool
	shim     bool // whether shim has been started, which then decides
}

// load adds the events of a program that is started.
func (b *boot) load(im *image, what string) error {
	if err := b.authorize(im); err != nil {
		return fmt.Errorf("%s: %w", im.path, err)
	}
	if err := b.confidential(im); err != nil {
		return fmt.Errorf("%s: %w", im.path, err)
	}
	b.add(4, evBoot, what, im.hash)
	if im.name != "" {
		b.Chain = append(b.Chain, fmt.Sprintf("%s (%s %s)", im.path, im.name, im.version))
	}
	return nil
}

// start follows the program that the firmware starts by itself from a disk
// that no boot option names.
func (b *boot) start() error {
	im, err := b.esp.open(b.esp.arch.loader)
	if err != nil {
		return err
	}
	switch im.name {
	case stubName:
		return b.startUKI(im, false)
	case loaderName:
		return b.startLoader(im)
	case shimName:
		return b.startShim(im)
	}
	return fmt.Errorf("%s: %s is not what starts a kernel", im.path, im.name)
}

// startLoader follows systemd-boot to the one kernel image that it can start.
func (b *boot) startLoader(im *image) error {
	rules, assumed, err := findRules(loaderName, im.version)
	if err != nil {
		return fmt.Errorf("%s: %w", im.path, err)
	}
	b.assume(assumed)
	if err := b.load(im, loaderName); err != nil {
		return err
	}
	if err := b.esp.refuse("drivers, keys to enroll and boot entries are", "EFI/systemd/drivers/", "loader/keys/", "loader/entries/"); err != nil {
		return err
	}
	var kernel string
	for _, f := range b.esp.in("EFI/Linux") {
		if !strings.HasSuffix(strings.ToLower(f), ".efi") {
			continue
		}
		if kernel != "" {
			return fmt.Errorf("%s: two kernel images, %q and %q: which one is started is not known", im.path, kernel, f)
		}
		kernel = f
	}
	if kernel == "" {
		return fmt.Errorf("%s: no kernel image in EFI/Linux", im.path)
	}
	name := strings.ToLower(path.Base(kernel))
	if strings.HasPrefix(name, "auto-") || strings.Contains(name, "+") {
		return fmt.Errorf("%s: %q: names that are counted by, or that systemd-boot passes over, are not supported", im.path, kernel)
	}
	if err := b.loaderConf(rules, name); err != nil {
		return err
	}
	next, err := b.esp.open(kernel)
	if err != nil {
		return err
	}
	if next.name != stubName {
		return fmt.Errorf("%s: %s %s, want %s", next.path, next.name, next.version, stubName)
	}
	return b.startUKI(next, rules.passes)
}

// loaderConf reads systemd-boot's settings, refuses those by which another
// kernel than the one of that name could be started, and adds the file's
// event.
func (b *boot) loaderConf(rules rules, kernel string) error {
	const name = "loader/loader.conf"
	if !b.esp.has(name) {
		return nil
	}
	text, err := b.esp.text(name)
	if err != nil {
		return err
	}
	if len(text) == 0 {
		return fmt.Errorf("%s is empty", name)
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		value := strings.Join(fields[1:], " ")
		switch fields[0] {
		case "timeout", "editor", "console-mode", "auto-entries", "auto-firmware", "beep", "random-seed-mode":
		case "default":
			if ok, err := path.Match(strings.ToLower(value), kernel); err != nil || !ok {
				return fmt.Errorf("%s: default %q is not %q", name, value, kernel)
			}
		default:
			return fmt.Errorf("%s: %q is not supported", name, strings.TrimSpace(line))
		}
	}
	if rules.loaderConf {
		b.add(5, evTag, "loader.conf", sumBytes(text))
	}
	return nil
}

// startUKI adds the events from the start of a kernel image to that of the
// kernel. Passed tells whether systemd-boot passes the image its own command
// line.
func (b *boot) startUKI(im *image, passed bool) error {
	rules, err := b.readImage(im)
	if err != nil {
		return fmt.Errorf("%s: %w", im.path, err)
	}
	if err := b.load(im, "UKI"); err != nil {
		return err
	}
	b.UKI = im.path
	if passed {
		// By the loader, and again by the stub, which takes it only where
		// Secure Boot is off.
		cmdline := sumBytes(wide(b.Cmdline))
		b.add(12, evIPL, "command line passed", cmdline)
		if !b.platform.SecureBoot {
			b.add(12, evIPL, "command line received", cmdline)
		}
	}
	if err := b.sectionEvents(im, rules); err != nil {
		return fmt.Errorf("%s: %w", im.path, err)
	}
	if err := b.addons(im, rules); err != nil {
		return err
	}
	if rules.asksMachine {
		if err := b.askMachine(); err != nil {
			return fmt.Errorf("%s: %w", im.path, err)
		}
	}
	if err := b.kernelEvents(im, rules); err != nil {
		return fmt.Errorf("%s: %w", im.path, err)
	}
	return nil
}

// addons adds the events of the addons that the stub reads: the global ones,
// then those of the image, and what they add to the command line.
func (b *boot) addons(im *image, rules rules) error {
	extra := im.path + ".extra.d"
	if err := b.esp.refuse("credentials and extensions are", "loader/credentials/", "loader/extensions/"); err != nil {
		return err
	}
	for _, f := range b.esp.files {
		if dir := path.Dir(f); strings.EqualFold(dir, extra) || strings.EqualFold(dir, "loader/addons") {
			if !strings.HasSuffix(strings.ToLower(f), addonSuffix) {
				return fmt.Errorf("%q: beside addons, nothing is supported there", f)
			}
		}
	}
	var groups []string
	for _, folder := range []string{"loader/addons", extra} {
		names := b.esp.in(folder)
		if len(names) == 0 {
			continue
		}
		if rules.addons == addonsNone {
			return fmt.Errorf("%q: systemd-stub %s reads no addons", names[0], rules.major)
		}
		texts, err := b.addonGroup(im, rules, names)
		if err != nil {
			return err
		}
		group := strings.TrimRight(strings.Join(texts, " "), " ")
		groups = append(groups, group)
		if rules.addons == addonsGrouped {
			b.add(12, evIPL, "command line of the addons in "+folder, sumBytes(wide(group)))
		}
	}
	if len(groups) == 0 {
		return nil
	}
	all := strings.Join(groups, " ")
	if rules.addons == addonsJoined {
		b.add(12, evIPL, "command line of the addons", sumBytes(wide(all)))
	}
	b.Cmdline += " " + all
	return nil
}

// askMachine refuses what would have the stub add the machine's consoles, and
// notes what has to be so that it adds no secret to the initrd.
func (b *boot) askMachine() error {
	if !slices.ContainsFunc(strings.Split(b.Cmdline, " "), func(word string) bool { return strings.HasPrefix(word, "console=") }) {
		return errors.New("the command line has no console=: systemd-stub adds what consoles the machine has")
	}
	if !b.esp.readOnly(randomSeed) {
		b.assume("PCR 9: the firmware has no random numbers, by which systemd-stub would add a secret to the initrd; a read-only " + randomSeed + " keeps it from that")
	}
	return nil
}

// randomSeed is where systemd's programs keep a seed. Where it is read-only,
// they leave all that alone that needs one.
const randomSeed = "loader/random-seed"

const addonSuffix = ".addon.efi"

// addonGroup adds the events of the addons in one folder, and returns their
// parts of the command line, in order.
func (b *boot) addonGroup(im *image, rules rules, names []string) ([]string, error) {
	sortUTF16(names)
	var texts []string
	for _, name := range names {
		addon, err := b.esp.open(name)
		if err != nil {
			return nil, err
		}
		if !uki.IsAddon(addon.name) {
			return nil, fmt.Errorf("%s: %s %s, want %s", name, addon.name, addon.version, addonName)
		}
		text, err := addon.addonCmdline(im, rules)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if err := b.load(addon, "addon "+path.Base(name)); err != nil {
			return nil, err
		}
		texts = append(texts, text)
	}
	return texts, nil
}

// addonCmdline is what an addon adds to the command line of the image.
func (im *image) addonCmdline(kernel *image, rules rules) (string, error) {
	for _, s := range im.Sections {
		switch s.Name {
		case ".text", ".rodata", ".data", ".reloc", ".sdmagic", ".sbat", ".cmdline":
		case ".uname":
			same, err := sameSection(im, kernel, s.Name)
			if err != nil {
				return "", err
			}
			if !same {
				return "", errors.New("section \".uname\" is not that of the kernel image")
			}
		default:
			return "", fmt.Errorf("section %q is not supported in an addon", s.Name)
		}
	}
	if s, err := im.Section(".cmdline"); err != nil {
		return "", err
	} else if s == nil {
		return "", errors.New("no section \".cmdline\"")
	}
	section, err := im.text(".cmdline")
	if err != nil {
		return "", err
	}
	text, err := mangle(section)
	if err != nil {
		return "", err
	}
	if rules.addons == addonsJoined {
		text = strings.Trim(text, " ")
	}
	if strings.TrimSpace(text) == "" {
		return "", errors.New("an empty command line")
	}
	return text, nil
}

// sameSection compares small sections of two images.
func sameSection(a, b *image, name string) (bool, error) {
	if s, err := b.Section(name); err != nil || s == nil {
		return false, err
	}
	x, err := a.text(name)
	if err != nil {
		return false, err
	}
	y, err := b.text(name)
	return string(x) == string(y), err
}
