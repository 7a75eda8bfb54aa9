// Package rpmtest makes RPMs for tests: such as rpmbuild refuses to make, in which
// header and payload say what they like, and which rpm takes all the same. Their
// digests are right unless a test asks for others; they are not signed.
package rpmtest

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"caisson/build/image/cpio"
)

// Types of a header's entries (rpm's rpmtag.h).
const (
	typeInt16       = 3
	typeInt32       = 4
	typeString      = 6
	typeBin         = 7
	typeStringArray = 8
)

// Tag is an entry of a header.
type Tag struct {
	ID, Type, Count uint32
	Data            []byte
}

// Texts is a list of texts.
func Texts(id uint32, all ...string) Tag {
	return Tag{id, typeStringArray, uint32(len(all)), []byte(strings.Join(all, "\x00") + "\x00")}
}

// Text is one text.
func Text(id uint32, s string) Tag { return Tag{id, typeString, 1, []byte(s + "\x00")} }

// Ints is a list of numbers of 32 bits.
func Ints(id uint32, all ...uint32) Tag {
	t := Tag{ID: id, Type: typeInt32, Count: uint32(len(all))}
	for _, n := range all {
		t.Data = binary.BigEndian.AppendUint32(t.Data, n)
	}
	return t
}

// Shorts is a list of numbers of 16 bits.
func Shorts(id uint32, all ...uint16) Tag {
	t := Tag{ID: id, Type: typeInt16, Count: uint32(len(all))}
	for _, n := range all {
		t.Data = binary.BigEndian.AppendUint16(t.Data, n)
	}
	return t
}

// Regions, by which rpm knows what of a header its digests are of.
const (
	regionSignature = 62
	regionImmutable = 63
)

// Header is a header structure of these tags, in this order.
func Header(tags ...Tag) []byte { return header(0, tags) }

// header is a header structure; with a region unless that is 0.
func header(region uint32, tags []Tag) []byte {
	var index, data []byte
	for _, t := range tags {
		if width := map[uint32]int{typeInt16: 2, typeInt32: 4}[t.Type]; width > 0 {
			for len(data)%width != 0 {
				data = append(data, 0)
			}
		}
		index = appendEntry(index, t.ID, t.Type, uint32(len(data)), t.Count)
		data = append(data, t.Data...)
	}
	n := len(tags)
	if region != 0 { // its entry comes first, and its trailer, which points back at the index, last
		n++
		index = append(appendEntry(nil, region, typeBin, uint32(len(data)), 16), index...)
		data = appendEntry(data, region, typeBin, uint32(-16*n), 16) //nolint:gosec // a negative number of 32 bits
	}
	out := binary.BigEndian.AppendUint32([]byte{0x8e, 0xad, 0xe8, 1, 0, 0, 0, 0}, uint32(n))
	return slices.Concat(binary.BigEndian.AppendUint32(out, uint32(len(data))), index, data)
}

func appendEntry(b []byte, numbers ...uint32) []byte {
	for _, n := range numbers {
		b = binary.BigEndian.AppendUint32(b, n)
	}
	return b
}

// File is what a header says of a file.
type File struct {
	Path        string
	Mode        uint32 // type and permissions as stat has them
	User, Group string
	Size        int64
	SHA256      string // in hex
	Target      string // of a symbolic link
	Rdev, Ino   uint32
	Caps        string
	Ghost       bool
}

const (
	flagGhost  = 1 << 6 // RPMFILE_GHOST
	algoSHA256 = 8      // RFC 4880 section 9.4
)

// FileTags are the tags that say of files what a header says. Of a path, what is
// before the last slash is the folder, ".." included.
func FileTags(files []File) []Tag {
	if len(files) == 0 {
		return nil
	}
	var base, dirs, users, groups, links, digests, caps, langs []string
	var index, flags, sizes, inodes, devices, times []uint32
	var modes, rdevs []uint16
	for _, f := range files {
		dir, name := path.Split(f.Path)
		i := slices.Index(dirs, dir)
		if i < 0 {
			i = len(dirs)
			dirs = append(dirs, dir)
		}
		base, index = append(base, name), append(index, uint32(i))
		users, groups = append(users, f.User), append(groups, f.Group)
		links, digests, caps, langs = append(links, f.Target), append(digests, f.SHA256), append(caps, f.Caps), append(langs, "")
		flag := uint32(0)
		if f.Ghost {
			flag = flagGhost
		}
		flags, sizes, inodes = append(flags, flag), append(sizes, uint32(f.Size)), append(inodes, f.Ino)
		devices, times = append(devices, 1), append(times, 1600000000)
		modes, rdevs = append(modes, uint16(f.Mode)), append(rdevs, uint16(f.Rdev))
	}
	tags := []Tag{ // by rpm's names: RPMTAG_FILESIZES and so on
		Ints(1028, sizes...), Shorts(1030, modes...), Shorts(1033, rdevs...), Ints(1034, times...), Texts(1035, digests...),
		Texts(1036, links...), Ints(1037, flags...), Texts(1039, users...), Texts(1040, groups...), Ints(1095, devices...),
		Ints(1096, inodes...), Texts(1097, langs...), Ints(1116, index...), Texts(1117, base...), Texts(1118, dirs...),
	}
	if slices.ContainsFunc(files, func(f File) bool { return f.Caps != "" }) {
		tags = append(tags, Texts(5010, caps...))
	}
	return append(tags, Ints(5011, algoSHA256))
}

// Entry is a file of a payload.
type Entry struct {
	Name       string
	Mode       uint32
	Data       string // the content, or a link's target
	Ino, Nlink uint32
	Rdev       uint32
}

// Archive is a payload that is not compressed.
func Archive(entries ...Entry) ([]byte, error) {
	var b bytes.Buffer
	w := cpio.NewWriter(&b)
	for _, e := range entries {
		h := cpio.Header{
			Name: e.Name, Mode: e.Mode, Nlink: max(1, e.Nlink), Ino: e.Ino, Size: int64(len(e.Data)),
			RdevMajor: unix.Major(uint64(e.Rdev)), RdevMinor: unix.Minor(uint64(e.Rdev)),
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := w.Write([]byte(e.Data)); err != nil {
			return nil, err
		}
	}
	err := w.Close()
	return b.Bytes(), err
}

// Named are header entries that agree with the entries of a payload, owned by root.
func Named(entries ...Entry) []File {
	var out []File
	for _, e := range entries {
		f := File{Path: path.Clean("/" + e.Name), Mode: e.Mode, User: "root", Group: "root", Ino: e.Ino, Size: int64(len(e.Data)), Rdev: e.Rdev}
		switch e.Mode & unix.S_IFMT {
		case unix.S_IFLNK:
			f.Target = e.Data
		case unix.S_IFREG:
			f.SHA256 = sum([]byte(e.Data))
		}
		out = append(out, f)
	}
	return out
}

func sum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

// Package is an RPM NAME-1-1.x86_64.
type Package struct {
	Name  string
	Files []File
	// Payload is an archive, not compressed.
	Payload []byte
	// PayloadDigest is the SHA-256 in the header, in hex; the payload's own if empty.
	PayloadDigest string
	// Tags are further ones of the header.
	Tags []Tag
}

// Bytes is the RPM.
func (p *Package) Bytes() []byte {
	digest := p.PayloadDigest
	if digest == "" {
		digest = sum(p.Payload)
	}
	tags := []Tag{
		Text(1000, p.Name), Text(1001, "1"), Text(1002, "1"), Text(1004, "s"), Text(1005, "d"), Ints(1009, 1), Text(1014, "l"),
		Text(1016, "g"), Text(1021, "linux"), Text(1022, "x86_64"), Text(1044, p.Name+"-1-1.src.rpm"), Texts(1047, p.Name),
		Ints(1112, 8), Texts(1113, "1-1"), Text(1124, "cpio"), Texts(5092, digest), Ints(5093, algoSHA256),
	}
	tags = slices.Concat(tags, FileTags(p.Files), p.Tags)
	slices.SortStableFunc(tags, func(a, b Tag) int { return int(a.ID) - int(b.ID) })
	main := header(regionImmutable, tags)
	return Join(header(regionSignature, []Tag{Text(273, sum(main)), Ints(1000, uint32(len(main)+len(p.Payload)))}), main, p.Payload)
}

// Join puts an RPM together: lead, signature header, main header and payload.
func Join(signature, main, payload []byte) []byte {
	lead := make([]byte, 96)
	copy(lead, "\xed\xab\xee\xdb\x03\x00\x00\x00\x00\x01")
	copy(lead[10:], "made")
	copy(lead[76:], "\x00\x01\x00\x05") // os, type of signature: RPMSIGTYPE_HEADERSIG
	for len(signature)%8 != 0 {
		signature = append(signature, 0)
	}
	return slices.Concat(lead, signature, main, payload)
}
