package view

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"caisson/lock/digest"
	"caisson/lock/rpmmd"
	"caisson/prefetch/rpmsig"
)

// Tags of an RPM's main header (rpm's rpmtag.h).
const (
	tagSummary       = 1004
	tagDescription   = 1005
	tagBuildHost     = 1007
	tagSize          = 1009
	tagVendor        = 1011
	tagLicense       = 1014
	tagPackager      = 1015
	tagGroup         = 1016
	tagURL           = 1020
	tagOldFilenames  = 1027
	tagFileModes     = 1030
	tagFileFlags     = 1037
	tagArchiveSize   = 1046
	tagChangelogTime = 1080
	tagChangelogName = 1081
	tagChangelogText = 1082
	tagDirIndexes    = 1116
	tagBasenames     = 1117
	tagDirnames      = 1118
	tagLongSize      = 5009
)

// depTags are the relations in the order of primary.xml: names, flags and
// versions (rpm's rpmtag.h).
var depTags = []struct {
	element              string
	name, flags, version uint32
}{
	{"provides", 1047, 1112, 1113},
	{"requires", 1049, 1048, 1050},
	{"conflicts", 1054, 1053, 1055},
	{"obsoletes", 1090, 1114, 1115},
	{"suggests", 5049, 5051, 5050},
	{"enhances", 5055, 5057, 5056},
	{"recommends", 5046, 5048, 5047},
	{"supplements", 5052, 5054, 5053},
}

// Bits of a relation's flags (rpm's rpmds.h).
const (
	senseLess    = 1 << 1
	senseGreater = 1 << 2
	senseEqual   = 1 << 3
	// sensePre marks what has to be there before the package is installed:
	// RPMSENSE_PREREQ, _SCRIPT_PRE, _SCRIPT_POST.
	sensePre = 1<<6 | 1<<9 | 1<<10
)

const (
	fileGhost = 1 << 6 // RPMFILE_GHOST (rpm's rpmfiles.h)
	// maxChangelog is how many entries createrepo_c keeps.
	maxChangelog = 10
)

// packageXML is a package's elements for primary, filelists and other.
type packageXML [3][]byte

// tags reads values of a header, and keeps the first error.
type tags struct {
	p   *rpmsig.Package
	err error
}

func (t *tags) strings(tag uint32) []string {
	s, err := t.p.Strings(tag)
	if t.err == nil {
		t.err = err
	}
	return s
}

func (t *tags) numbers(tag uint32) []uint64 {
	n, err := t.p.Numbers(tag)
	if t.err == nil {
		t.err = err
	}
	return n
}

func (t *tags) str(tag uint32) string {
	if s := t.strings(tag); len(s) > 0 {
		return s[0]
	}
	return ""
}

func (t *tags) number(tag uint32) uint64 {
	if n := t.numbers(tag); len(n) > 0 {
		return n[0]
	}
	return 0
}

// describePackage makes a package's elements, as createrepo_c has them. file
// is its name, size its length in bytes.
func describePackage(p *rpmsig.Package, sum digest.Digest, size int64, file string) (packageXML, error) {
	t := &tags{p: p}
	files, err := readFiles(t)
	if err != nil {
		return packageXML{}, err
	}
	out := packageXML{
		primary(t, files, sum, size, file),
		filelists(t, files, sum),
		other(t, sum),
	}
	return out, t.err
}

// packageFile is a path of a package; typ is "", "dir" or "ghost".
type packageFile struct{ path, typ string }

func readFiles(t *tags) ([]packageFile, error) {
	bases, dirs, indexes := t.strings(tagBasenames), t.strings(tagDirnames), t.numbers(tagDirIndexes)
	modes, flags := t.numbers(tagFileModes), t.numbers(tagFileFlags)
	names := t.strings(tagOldFilenames) // packages of rpm before 4
	if len(bases) > 0 {
		if len(indexes) != len(bases) {
			return nil, fmt.Errorf("%d files and %d folders of theirs", len(bases), len(indexes))
		}
		names = make([]string, len(bases))
		for i, b := range bases {
			if indexes[i] >= uint64(len(dirs)) {
				return nil, fmt.Errorf("file %q: no folder %d", b, indexes[i])
			}
			names[i] = dirs[indexes[i]] + b
		}
	}
	if len(names) > 0 && (len(modes) != len(names) || len(flags) != len(names)) {
		return nil, errors.New("files without modes or flags")
	}
	out := make([]packageFile, len(names))
	for i, n := range names {
		out[i].path = n
		switch {
		case modes[i]&unix.S_IFMT == unix.S_IFDIR:
			out[i].typ = "dir"
		case flags[i]&fileGhost != 0:
			out[i].typ = "ghost"
		}
	}
	return out, t.err
}

// inPrimary tells whether a path is in primary.xml too.
func inPrimary(p string) bool {
	return strings.HasPrefix(p, "/etc/") || p == "/usr/lib/sendmail" || strings.Contains(p, "bin/")
}

func primary(t *tags, files []packageFile, sum digest.Digest, size int64, file string) []byte {
	p := t.p
	var b bytes.Buffer
	fmt.Fprintf(&b, "<package type=\"rpm\">\n  <name>%s</name>\n  <arch>%s</arch>\n  %s\n", escape(p.Name), escape(p.Arch), version(p))
	fmt.Fprintf(&b, "  <checksum type=\"sha256\" pkgid=\"YES\">%s</checksum>\n", sum.Hex())
	for _, e := range []struct {
		name string
		tag  uint32
	}{{"summary", tagSummary}, {"description", tagDescription}, {"packager", tagPackager}, {"url", tagURL}} {
		fmt.Fprintf(&b, "  <%s>%s</%s>\n", e.name, escape(t.str(e.tag)), e.name)
	}
	installed := t.number(tagLongSize)
	if installed == 0 {
		installed = t.number(tagSize)
	}
	archive, err := p.ArchiveSize()
	if t.err == nil {
		t.err = err
	}
	if archive == 0 {
		archive = t.number(tagArchiveSize)
	}
	fmt.Fprintf(&b, "  <time file=\"%d\" build=\"%d\"/>\n  <size package=\"%d\" installed=\"%d\" archive=\"%d\"/>\n  <location href=\"%s\"/>\n  <format>\n",
		p.BuildTime, p.BuildTime, size, installed, archive, escape(file))
	for _, e := range []struct {
		name string
		tag  uint32
	}{{"license", tagLicense}, {"vendor", tagVendor}, {"group", tagGroup}, {"buildhost", tagBuildHost}} {
		fmt.Fprintf(&b, "    <rpm:%s>%s</rpm:%s>\n", e.name, escape(t.str(e.tag)), e.name)
	}
	start, end := p.HeaderRange()
	fmt.Fprintf(&b, "    <rpm:sourcerpm>%s</rpm:sourcerpm>\n    <rpm:header-range start=\"%d\" end=\"%d\"/>\n", escape(p.SourceRPM), start, end)
	own := make(map[string]bool) // what the package's requirements may leave out
	for _, f := range files {
		if inPrimary(f.path) {
			own[relation(f.path, 0, "")] = true
		}
	}
	for _, d := range depTags {
		t.relations(&b, d.element, t.strings(d.name), t.numbers(d.flags), t.strings(d.version), own)
	}
	for _, f := range files {
		if inPrimary(f.path) {
			writeFile(&b, "    ", f)
		}
	}
	b.WriteString("  </format>\n</package>\n")
	return b.Bytes()
}

// relations writes one kind of relation. A package does not require what only
// rpm itself can answer, nor what it provides.
func (t *tags) relations(b *bytes.Buffer, element string, names []string, flags []uint64, versions []string, own map[string]bool) {
	if len(names) != len(flags) || len(names) != len(versions) {
		if t.err == nil {
			t.err = fmt.Errorf("%s: %d names, %d flags, %d versions", element, len(names), len(flags), len(versions))
		}
		return
	}
	var lines []string
	seen := make(map[string]bool)
	for i, name := range names {
		line, pre := relation(name, flags[i], versions[i]), ""
		switch element {
		case "provides":
			own[line] = true
		case "requires":
			if strings.HasPrefix(name, "rpmlib(") || own[line] {
				continue
			}
			if flags[i]&sensePre != 0 {
				pre = ` pre="1"`
			}
		}
		if line += pre; !seen[line] {
			seen[line] = true
			lines = append(lines, line)
		}
	}
	if len(lines) == 0 {
		return
	}
	fmt.Fprintf(b, "    <rpm:%s>\n", element)
	for _, line := range lines {
		fmt.Fprintf(b, "      <rpm:entry %s/>\n", line)
	}
	fmt.Fprintf(b, "    </rpm:%s>\n", element)
}

// relation is the attributes of one relation.
func relation(name string, flags uint64, version string) string {
	return `name="` + escape(name) + `"` + comparison(flags, version)
}

// comparison is the attributes of a versioned relation.
func comparison(flags uint64, v string) string {
	op := ""
	switch flags & (senseLess | senseGreater | senseEqual) {
	case senseLess:
		op = "LT"
	case senseGreater:
		op = "GT"
	case senseEqual:
		op = "EQ"
	case senseLess | senseEqual:
		op = "LE"
	case senseGreater | senseEqual:
		op = "GE"
	}
	if op == "" || v == "" {
		return ""
	}
	evr, err := rpmmd.ParseEVR(v)
	if err != nil { // rpm compares it as a version all the same
		evr = rpmmd.EVR{Version: v}
	}
	out := fmt.Sprintf(` flags="%s" epoch="%d" ver="%s"`, op, evr.Epoch, escape(evr.Version))
	if evr.Release != "" {
		out += fmt.Sprintf(` rel="%s"`, escape(evr.Release))
	}
	return out
}

func version(p *rpmsig.Package) string {
	return fmt.Sprintf(`<version epoch="%d" ver="%s" rel="%s"/>`, p.Epoch, escape(p.Version), escape(p.Release))
}

// head begins a package in filelists and other.
func head(b *bytes.Buffer, p *rpmsig.Package, sum digest.Digest) {
	fmt.Fprintf(b, "<package pkgid=\"%s\" name=\"%s\" arch=\"%s\">\n  %s\n", sum.Hex(), escape(p.Name), escape(p.Arch), version(p))
}

func filelists(t *tags, files []packageFile, sum digest.Digest) []byte {
	var b bytes.Buffer
	head(&b, t.p, sum)
	for _, f := range files {
		writeFile(&b, "  ", f)
	}
	b.WriteString("</package>\n")
	return b.Bytes()
}

func writeFile(b *bytes.Buffer, indent string, f packageFile) {
	typ := ""
	if f.typ != "" {
		typ = ` type="` + f.typ + `"`
	}
	fmt.Fprintf(b, "%s<file%s>%s</file>\n", indent, typ, escape(f.path))
}

// other is the newest entries of the change log, the oldest of them first.
// Those of one time are set a second apart, which keeps their order.
func other(t *tags, sum digest.Digest) []byte {
	var b bytes.Buffer
	head(&b, t.p, sum)
	times, names, texts := t.numbers(tagChangelogTime), t.strings(tagChangelogName), t.strings(tagChangelogText)
	var last, same uint64
	for i := min(len(times), len(names), len(texts), maxChangelog) - 1; i >= 0; i-- {
		if same++; times[i] != last {
			last, same = times[i], 0
		}
		fmt.Fprintf(&b, "  <changelog author=\"%s\" date=\"%d\">%s</changelog>\n", escape(strings.TrimRight(names[i], " ")), times[i]+same, escape(texts[i]))
	}
	b.WriteString("</package>\n")
	return b.Bytes()
}

// escape makes text fit for XML: what is not UTF-8 is taken for Latin-1, and
// control characters are left out.
func escape(s string) string {
	if !utf8.ValidString(s) {
		r := make([]rune, len(s))
		for i := range len(s) {
			r[i] = rune(s[i])
		}
		s = string(r)
	}
	s = strings.Map(func(r rune) rune {
		if r < 0x20 && r != '\n' && r != '\t' || r == 0xfffe || r == 0xffff {
			return -1
		}
		return r
	}, s)
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s)) // a Builder has no errors
	return b.String()
}
