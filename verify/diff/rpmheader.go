package diff

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Types of an RPM header's tags (rpm's rpmtag.h).
const (
	rpmInt8        = 2
	rpmInt16       = 3
	rpmInt32       = 4
	rpmInt64       = 5
	rpmString      = 6
	rpmStringArray = 8
	rpmI18NString  = 9
)

// Tags of packages whose values name them.
const (
	tagRPMName    = 1000
	tagRPMVersion = 1001
	tagRPMRelease = 1002
	tagRPMArch    = 1022
)

// rpmHeader is what the tags of a header say. Numbers are those of the tags.
type rpmHeader map[uint32][]string

// readRPMHeader reads the number of entries, the size of the data, the
// entries and the data (rpm, docs/manual/format_header.md).
func readRPMHeader(b []byte) (rpmHeader, error) {
	if len(b) < 8 {
		return nil, fmt.Errorf("an RPM header of %d bytes", len(b))
	}
	n, size := int64(binary.BigEndian.Uint32(b)), int64(binary.BigEndian.Uint32(b[4:]))
	if n > 0xffff || 8+16*n+size > int64(len(b)) {
		return nil, fmt.Errorf("an RPM header of %d entries and %d bytes in %d", n, size, len(b))
	}
	h := rpmHeader{}
	data := b[8+16*n:][:size]
	shown := 0
	for i := range n {
		e := b[8+16*i:]
		tag, typ, at, count := binary.BigEndian.Uint32(e), binary.BigEndian.Uint32(e[4:]), binary.BigEndian.Uint32(e[8:]), binary.BigEndian.Uint32(e[12:])
		values := rpmValues(data, typ, at, count)
		for _, v := range values {
			shown += 16 + len(v)
		}
		if shown > 4*maxRPMHeader {
			return nil, errors.New("an RPM header whose values are the same bytes many times")
		}
		h[tag] = values
	}
	return h, nil
}

// rpmValues are the values of a tag in words.
func rpmValues(data []byte, typ, at, count uint32) []string {
	if int64(at) > int64(len(data)) {
		return []string{"outside of the header"}
	}
	data = data[at:]
	width := map[uint32]int{rpmInt8: 1, rpmInt16: 2, rpmInt32: 4, rpmInt64: 8}[typ]
	switch {
	case int64(count)*int64(max(width, 1)) > int64(len(data)):
		return []string{"cut off"}
	case width > 0:
		out := make([]string, 0, count)
		for i := range int(count) {
			var wide [8]byte
			copy(wide[8-width:], data[i*width:(i+1)*width])
			out = append(out, fmt.Sprint(binary.BigEndian.Uint64(wide[:])))
		}
		return out
	case typ == rpmString || typ == rpmStringArray || typ == rpmI18NString:
		out := make([]string, 0, count)
		for range count {
			s, rest, ok := bytes.Cut(data, []byte{0})
			if !ok {
				return append(out, "cut off")
			}
			out, data = append(out, string(s)), rest
		}
		return out
	}
	b := data[:count]
	if len(b) > window {
		b = b[:window]
	}
	return []string{fmt.Sprintf("%d bytes %s", count, hexText(b))}
}

// text is the first value of a tag.
func (h rpmHeader) text(tag uint32) string {
	if len(h[tag]) == 0 {
		return ""
	}
	return h[tag][0]
}

func (h rpmHeader) name() string {
	s := h.text(tagRPMName) + "-" + h.text(tagRPMVersion) + "-" + h.text(tagRPMRelease)
	if arch := h.text(tagRPMArch); arch != "" {
		s += "." + arch
	}
	return s
}

// rpmTags gives n what the tags say otherwise, in the order of their numbers.
func (d *differ) rpmTags(n *Node, a, b rpmHeader, nameOf func(tag uint32) string) {
	var tags []uint32
	for tag := range a {
		tags = append(tags, tag)
	}
	for tag := range b {
		if _, ok := a[tag]; !ok {
			tags = append(tags, tag)
		}
	}
	slices.Sort(tags)
	for _, tag := range tags {
		if slices.Equal(a[tag], b[tag]) {
			continue
		}
		c := &Node{}
		d.text(c, tagLines(tag, a[tag]), tagLines(tag, b[tag]), 1)
		if c.UnifiedDiff == nil {
			n.comment("tag " + nameOf(tag) + " differs")
			continue
		}
		at := d.child(n, "tag "+nameOf(tag))
		if at != nil {
			at.Comments, at.UnifiedDiff = c.Comments, c.UnifiedDiff
		}
	}
}

func tagLines(tag uint32, values []string) []string {
	out := make([]string, 0, len(values))
	for _, v := range values {
		if isRPMTime(tag) {
			var t int64
			if _, err := fmt.Sscan(v, &t); err == nil {
				v = timeText(t)
			}
		}
		out = append(out, splitLines([]byte(strings.TrimSuffix(v, "\n")+"\n"))...)
	}
	return out
}

func isRPMTime(tag uint32) bool { return tag == 1006 || tag == 1008 || tag == 1034 }

// rpmTagName is the name of a tag of a header (rpm's rpmtag.h).
func rpmTagName(tag uint32) string {
	names := map[uint32]string{
		61: "HEADERIMAGE", 62: "HEADERSIGNATURES", 63: "HEADERIMMUTABLE", 64: "HEADERREGIONS", 100: "HEADERI18NTABLE",
		257: "SIGSIZE", 259: "SIGPGP", 261: "SIGMD5", 262: "SIGGPG", 267: "DSAHEADER", 268: "RSAHEADER", 269: "SHA1HEADER", 273: "SHA256HEADER",
		1000: "NAME", 1001: "VERSION", 1002: "RELEASE", 1003: "EPOCH", 1004: "SUMMARY", 1005: "DESCRIPTION", 1006: "BUILDTIME", 1007: "BUILDHOST",
		1008: "INSTALLTIME", 1009: "SIZE", 1010: "DISTRIBUTION", 1011: "VENDOR", 1014: "LICENSE", 1015: "PACKAGER", 1016: "GROUP", 1020: "URL",
		1021: "OS", 1022: "ARCH", 1023: "PREIN", 1024: "POSTIN", 1025: "PREUN", 1026: "POSTUN", 1028: "FILESIZES", 1029: "FILESTATES",
		1030: "FILEMODES", 1033: "FILERDEVS", 1034: "FILEMTIMES", 1035: "FILEDIGESTS", 1036: "FILELINKTOS", 1037: "FILEFLAGS", 1039: "FILEUSERNAME",
		1040: "FILEGROUPNAME", 1044: "SOURCERPM", 1045: "FILEVERIFYFLAGS", 1047: "PROVIDENAME", 1048: "REQUIREFLAGS", 1049: "REQUIRENAME",
		1050: "REQUIREVERSION", 1053: "CONFLICTFLAGS", 1054: "CONFLICTNAME", 1055: "CONFLICTVERSION", 1064: "RPMVERSION", 1065: "TRIGGERSCRIPTS",
		1080: "CHANGELOGTIME", 1081: "CHANGELOGNAME", 1082: "CHANGELOGTEXT", 1085: "PREINPROG", 1086: "POSTINPROG", 1087: "PREUNPROG", 1088: "POSTUNPROG",
		1090: "OBSOLETENAME", 1094: "COOKIE", 1095: "FILEDEVICES", 1096: "FILEINODES", 1097: "FILELANGS", 1098: "PREFIXES", 1112: "PROVIDEFLAGS",
		1113: "PROVIDEVERSION", 1116: "DIRINDEXES", 1117: "BASENAMES", 1118: "DIRNAMES", 1122: "OPTFLAGS", 1124: "PAYLOADFORMAT",
		1125: "PAYLOADCOMPRESSOR", 1126: "PAYLOADFLAGS", 1127: "INSTALLCOLOR", 1128: "INSTALLTID", 1132: "PLATFORM", 1140: "FILECOLORS",
		1141: "FILECLASS", 1142: "CLASSDICT", 1143: "FILEDEPENDSX", 1146: "SOURCEPKGID", 5009: "LONGSIZE", 5011: "FILEDIGESTALGO", 5010: "FILECAPS",
		5034: "BUGURL", 5066: "FILETRIGGERSCRIPTS", 5076: "TRANSFILETRIGGERSCRIPTS", 5062: "ENCODING", 5090: "FILESIGNATURES", 5092: "PAYLOADDIGEST", 5093: "PAYLOADDIGESTALGO", 5096: "MODULARITYLABEL", 5097: "PAYLOADDIGESTALT",
	}
	if name, ok := names[tag]; ok {
		return name
	}
	return fmt.Sprint(tag)
}

// signatureTagName is that of a tag of a signature header (rpm's rpmtag.h).
func signatureTagName(tag uint32) string {
	names := map[uint32]string{1000: "SIZE", 1002: "PGP", 1004: "MD5", 1005: "GPG", 1007: "PAYLOADSIZE", 1008: "RESERVEDSPACE"}
	if name, ok := names[tag]; ok {
		return name
	}
	return rpmTagName(tag)
}

const (
	rpmLead      = 96
	maxRPMHeader = 64 << 20
)

// rpm compares two RPM packages: signatures, header, and payload.
func (d *differ) rpm(n *Node, at spot, a, b *io.SectionReader) bool {
	x, errA := readPackage(a)
	y, errB := readPackage(b)
	if errA != nil || errB != nil {
		d.failed(n, errA, errB)
		return false
	}
	for i, name := range []string{"signatures", "header"} {
		c := d.child(n, at.below(name).path)
		d.rpmTags(c, x.headers[i], y.headers[i], []func(uint32) string{signatureTagName, rpmTagName}[i])
		if c != nil && !c.said() {
			n.Details = n.Details[:len(n.Details)-1]
		}
	}
	found, err := compareContent(reopen(x.payload)(), reopen(y.payload)())
	if err == nil && !found.equal() {
		at = at.below("payload")
		d.contents(d.child(n, at.path), at, x.payload, y.payload)
	}
	return len(n.Details) > 0
}

// rpmPackage is an RPM package: the headers are that of the signatures and
// the package's.
type rpmPackage struct {
	headers [2]rpmHeader
	payload *io.SectionReader
}

func readPackage(r *io.SectionReader) (*rpmPackage, error) {
	p := &rpmPackage{}
	off := int64(rpmLead)
	for i := range p.headers {
		intro := readUpTo(r, off, 16)
		if len(intro) < 16 || string(intro[:3]) != "\x8e\xad\xe8" {
			return nil, fmt.Errorf("no RPM header at %s", place(off))
		}
		length := 8 + 16*int64(binary.BigEndian.Uint32(intro[8:])) + int64(binary.BigEndian.Uint32(intro[12:]))
		if length > maxRPMHeader {
			return nil, fmt.Errorf("an RPM header of %d bytes", length)
		}
		h, err := readRPMHeader(readUpTo(r, off+8, min(length, r.Size()-off-8)))
		if err != nil {
			return nil, err
		}
		p.headers[i] = h
		if off += 8 + length; i == 0 {
			off = (off + 7) &^ 7
		}
	}
	if off > r.Size() {
		return nil, io.ErrUnexpectedEOF
	}
	p.payload = io.NewSectionReader(r, off, r.Size()-off)
	return p, nil
}
