package measure

import (
	"encoding/binary"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
)

// maxText bounds the sections that are kept in memory: .cmdline, and what the
// stub wraps in an archive for the initrd.
const maxText = 1 << 20

// rules are what a version of systemd-stub does, as far as it can be measured.
type rules struct {
	major    string
	measured []string // sections in PCR 11, in order
	// archived are the sections that the stub appends to the initrd, padded
	// to four bytes then, in order.
	archived []archived
	addons   addonRule
	// loadsKernel tells whether the firmware loads the kernel, and measures it
	// where Secure Boot is off; later stubs start it themselves.
	loadsKernel bool
	// asksMachine tells whether the stub adds what depends on the machine: the
	// consoles that it has to a command line without one, and to the initrd a
	// secret that is kept in the firmware's variables, where there are random
	// numbers to make it of.
	asksMachine bool
	// What systemd-boot of the same version does: whether it passes the
	// command line of the kernel image to it, and measures loader.conf.
	passes, loaderConf bool
}

// addonRule is how a stub measures the command lines of addons.
type addonRule int

const (
	addonsNone    addonRule = iota // it reads none
	addonsGrouped                  // an event for the global ones, another for those of the image
	addonsJoined                   // one event, each without blanks around it
)

// archived is a section that becomes a file of an archive of its own.
type archived struct{ section, file string }

// knownStubs are the versions whose measurements were compared with booted
// machines.
func knownStubs() []rules {
	signed := []archived{{".pcrsig", "tpm2-pcr-signature.json"}, {".pcrpkey", "tpm2-pcr-public-key.pem"}}
	described := append(slices.Clone(signed), archived{".osrel", "os-release"})
	return []rules{
		{
			major:    "252",
			measured: []string{".linux", ".osrel", ".cmdline", ".initrd", ".splash", ".dtb", ".pcrpkey"},
			archived: signed, loadsKernel: true,
			passes: true,
		},
		{
			major:    "254",
			measured: []string{".linux", ".osrel", ".cmdline", ".initrd", ".splash", ".dtb", ".uname", ".sbat", ".pcrpkey"},
			archived: signed, loadsKernel: true,
			addons: addonsGrouped,
			passes: true,
		},
		{
			major:    "257",
			measured: []string{".linux", ".osrel", ".cmdline", ".initrd", ".splash", ".dtb", ".uname", ".sbat", ".pcrpkey"},
			archived: described, loadsKernel: true,
			addons: addonsJoined, loaderConf: true,
		},
		{
			major:    "262",
			measured: []string{".linux", ".osrel", ".cmdline", ".initrd", ".splash", ".dtb", ".uname", ".sbat", ".pcrpkey"},
			archived: described, asksMachine: true,
			addons: addonsJoined, loaderConf: true,
		},
	}
}

// refused are sections whose effect on the measurements was not tried.
func refused() []string {
	return []string{".profile", ".dtbauto", ".hwids", ".efifw", ".ucode"}
}

// Red Hat's 252 (of 9) is that of the project up to release 18, and measures as
// 254 does since release 32, as its sources say. Releases between these were
// never part of a release of the distribution.
const (
	lastPlainRedHat    = 18
	firstChangedRedHat = 32
)

// findRules chooses the rules for the version of systemd-stub or systemd-boot;
// assumed says what is taken for granted about a version that was not compared.
func findRules(program, version string) (found rules, assumed string, err error) {
	major, rest := version, ""
	if i := strings.IndexFunc(version, func(r rune) bool { return r < '0' || r > '9' }); i >= 0 {
		major, rest = version[:i], version[i:]
	}
	if major == "252" && strings.Contains(rest, ".el") {
		switch release, ok := redHat(rest); {
		case ok && release >= firstChangedRedHat:
			major = "254"
		case !ok || release > lastPlainRedHat:
			major = ""
		}
		assumed = fmt.Sprintf("%s %s, with changes of Red Hat's, measures as %s of the project does: by its sources, not compared with a booted machine", program, version, major)
	}
	var known []string
	for _, r := range knownStubs() {
		if r.major == major {
			return r, assumed, nil
		}
		known = append(known, r.major)
	}
	return rules{}, "", fmt.Errorf("what %s %q measures is not known; known are %s as systemd released them, and Red Hat's 252 up to release %d and since %d",
		program, version, strings.Join(known, ", "), lastPlainRedHat, firstChangedRedHat)
}

// redHat is the release in the rest of a version that a package of Red Hat
// Enterprise Linux 9 or its like has, such as -46.el9_5.2.
func redHat(rest string) (release int, ok bool) {
	number, dist, ok := strings.Cut(strings.TrimPrefix(rest, "-"), ".el9")
	number, _, _ = strings.Cut(number, ".")
	n, err := strconv.Atoi(number)
	return n, ok && err == nil && (dist == "" || strings.ContainsAny(dist[:1], "._"))
}

// readImage reads what the result says about the UKI, and finds the rules
// for its stub.
func (r *Result) readImage(im *image) (rules, error) {
	r.Stub = im.version
	rules, assumed, err := findRules(stubName, r.Stub)
	if err != nil {
		return rules, err
	}
	r.assume(assumed)
	for _, name := range refused() {
		if s, err := im.Section(name); err != nil || s != nil {
			return rules, fmt.Errorf("section %q is not supported", name)
		}
	}
	for _, name := range []string{".linux", ".osrel", ".cmdline", ".initrd"} {
		if s, err := im.Section(name); err != nil {
			return rules, err
		} else if s == nil || s.VirtualSize == 0 {
			return rules, fmt.Errorf("no section %q", name)
		}
	}
	text, err := im.text(".cmdline")
	if err != nil {
		return rules, err
	}
	if r.Cmdline, err = passedCmdline(text); err != nil {
		return rules, err
	}
	r.Kernel, err = im.kernelVersion()
	return rules, err
}

// assume notes something that is taken for granted, once; "" is nothing.
func (r *Result) assume(text string) {
	if text != "" && !slices.Contains(r.Assumptions, text) {
		r.Assumptions = append(r.Assumptions, text)
	}
}

// text is the content of a small section.
func (im *image) text(name string) ([]byte, error) {
	s, err := im.Section(name)
	if err != nil {
		return nil, err
	}
	if s.VirtualSize > maxText {
		return nil, fmt.Errorf("section %q has %d bytes, more than %d", name, s.VirtualSize, maxText)
	}
	b := make([]byte, s.VirtualSize)
	if _, err := s.Open().ReadAt(b, 0); err != nil {
		return nil, fmt.Errorf("reading section %q: %w", name, err)
	}
	return b, nil
}

// passedCmdline is the command line that the stub makes of .cmdline. What it
// does with blanks at the start differs between versions and is refused.
func passedCmdline(section []byte) (string, error) {
	text, err := mangle(section)
	text = strings.TrimRight(text, " ")
	if err == nil && (text == "" || text[0] == ' ') {
		return "", fmt.Errorf("command line %q is empty or starts with a blank", section)
	}
	return text, err
}

// mangle is what systemd's programs make of a command line, but for blanks at
// its end, which go: it ends at the first NUL, and control characters become
// blanks. What they do with what is not ASCII differs between versions and is
// refused.
func mangle(section []byte) (string, error) {
	text, _, _ := strings.Cut(string(section), "\x00")
	text = strings.Map(func(r rune) rune {
		if r < ' ' {
			return ' '
		}
		return r
	}, text)
	if strings.ContainsFunc(text, func(r rune) bool { return r > '~' }) {
		return "", fmt.Errorf("command line %q is not ASCII", text)
	}
	return text, nil
}

// kernelVersion is the version in the setup header of an x86 kernel
// (Documentation/arch/x86/boot.rst, kernel_version); "" where it has none.
func (im *image) kernelVersion() (string, error) {
	s, err := im.Section(".linux")
	if err != nil {
		return "", err
	}
	b := make([]byte, min(int64(s.VirtualSize), 1<<16))
	if _, err := s.Open().ReadAt(b, 0); err != nil {
		return "", fmt.Errorf("reading section %q: %w", s.Name, err)
	}
	if len(b) < 0x210 || string(b[0x202:0x206]) != "HdrS" {
		return "", nil
	}
	at := int(binary.LittleEndian.Uint16(b[0x20e:]))
	if at == 0 || at+0x200 >= len(b) {
		return "", nil
	}
	text, _, ok := strings.Cut(string(b[at+0x200:]), "\x00")
	version, _, _ := strings.Cut(text, " ")
	if !ok || strings.ContainsFunc(version, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", nil
	}
	return version, nil
}

// initrdTail is what the stub appends to an initrd of size bytes.
func (im *image) initrdTail(rules rules, size int64) ([]byte, error) {
	var tail []byte
	for _, a := range rules.archived {
		s, err := im.Section(a.section)
		if err != nil {
			return nil, err
		}
		if s == nil || s.VirtualSize == 0 {
			continue
		}
		content, err := im.text(a.section)
		if err != nil {
			return nil, err
		}
		tail = append(tail, stubArchive(a.file, content)...)
	}
	if tail == nil {
		return nil, nil
	}
	return append(make([]byte, (4-size%4)%4), tail...), nil
}

// stubArchive is the archive (cpio, "newc") that the stub makes of one file
// of the folder .extra. All its numbers are in lower case but for the length
// of the trailer's name.
func stubArchive(name string, content []byte) []byte {
	var b []byte
	entry := func(ino, mode int, name string, content []byte) {
		b = fmt.Appendf(b, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
			ino, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name)+1, 0, name)
		b = append(b, make([]byte, -len(b)&3)...)
		b = append(b, content...)
		b = append(b, make([]byte, -len(b)&3)...)
	}
	entry(1, 0o040555, ".extra", nil)
	entry(2, 0o100444, ".extra/"+name, content)
	b = append(b, "070701"+strings.Repeat("0", 4*8)+"00000001"+strings.Repeat("0", 6*8)+"0000000B"+"00000000"+"TRAILER!!!\x00\x00\x00\x00"...)
	return b
}

// wide is a string as EFI has it: UTF-16, little-endian, with its NUL.
func wide(s string) []byte {
	var b []byte
	for _, u := range append(utf16.Encode([]rune(s)), 0) {
		b = binary.LittleEndian.AppendUint16(b, u)
	}
	return b
}

// sortUTF16 sorts paths as systemd-stub does: by the UTF-16 units of the file
// name, upper case before lower.
func sortUTF16(paths []string) {
	slices.SortFunc(paths, func(a, b string) int {
		return slices.Compare(utf16.Encode([]rune(path.Base(a))), utf16.Encode([]rune(path.Base(b))))
	})
}
