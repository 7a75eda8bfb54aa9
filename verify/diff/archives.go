package diff

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// tar compares tar archives.
func (d *differ) tar(n *Node, at spot, a, b *io.SectionReader) bool {
	part := ""
	if at.path == "" { // it is the image, and holds the root
		part = at.part
	}
	return d.members(n, at, part, walkTar(a), walkTar(b))
}

func walkTar(r *io.SectionReader) walk {
	return func(fn func(m member, content io.Reader) error) error {
		return eachTar(reopen(r)(), fn)
	}
}

// eachTar calls fn for each member of a tar archive.
func eachTar(r io.Reader, fn func(m member, content io.Reader) error) error {
	t := tar.NewReader(r)
	for {
		h, err := t.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := fn(tarMember(h), t); err != nil {
			return err
		}
	}
}

func tarMember(h *tar.Header) member {
	types := map[byte]uint32{
		tar.TypeSymlink: typeSymlink, tar.TypeChar: typeChar, tar.TypeBlock: typeBlock, tar.TypeDir: typeDir, tar.TypeFifo: typeFIFO,
	}
	mode := modeOr(uint32(h.Mode)&^typeMask | types[h.Typeflag]) //nolint:gosec // any value is shown
	m := member{entry: entry{path: h.Name, mode: mode, mtime: h.ModTime.Unix(), size: h.Size}, framing: "format " + h.Format.String()}
	m.attrs = []attr{
		{"type", typeName(mode)}, {"mode", octal(mode &^ typeMask)},
		{"owner", oneLine(fmt.Sprintf("%d:%d %s:%s", h.Uid, h.Gid, h.Uname, h.Gname))},
	}
	if h.Typeflag == tar.TypeLink {
		m.attrs = append(m.attrs, attr{"hard link to", oneLine(h.Linkname)})
	} else if h.Linkname != "" {
		m.attrs = append(m.attrs, attr{"target", oneLine(h.Linkname)})
	}
	if t := mode & typeMask; t == typeChar || t == typeBlock {
		m.attrs = append(m.attrs, attr{"device", fmt.Sprintf("%d:%d", h.Devmajor, h.Devminor)})
	}
	for _, key := range slices.Sorted(maps.Keys(h.PAXRecords)) {
		m.attrs = append(m.attrs, attr{"pax " + oneLine(key), cut(fmt.Sprintf("%q", h.PAXRecords[key]), page)})
	}
	return m
}

// zip compares zip archives, by their central directories.
func (d *differ) zip(n *Node, at spot, a, b *io.SectionReader) bool {
	if !smallDirectory(a) || !smallDirectory(b) {
		n.comment(notFurther + fmt.Sprintf("the zip archive's directory may have more than %d bytes", maxDirectory))
		return false
	}
	x, errA := zip.NewReader(a, a.Size())
	y, errB := zip.NewReader(b, b.Size())
	if errA != nil && !errors.Is(errA, zip.ErrInsecurePath) || errB != nil && !errors.Is(errB, zip.ErrInsecurePath) {
		d.failed(n, errA, errB)
		return false
	}
	if x.Comment != y.Comment {
		d.text(n, []string{fmt.Sprintf("comment: %q\n", x.Comment)}, []string{fmt.Sprintf("comment: %q\n", y.Comment)}, 1)
	}
	return d.members(n, at, "", walkZip(x), walkZip(y)) || n.UnifiedDiff != nil
}

// maxDirectory is how many bytes the central directory of a zip archive may
// have: what is kept in memory of it is some times as much.
const maxDirectory = 16 << 20

// smallDirectory tells whether the central directory is small enough, from
// what the record at the end says (APPNOTE.TXT, section 4.3.16): where the
// directory begins, or how long it is.
func smallDirectory(r *io.SectionReader) bool {
	const record, longestComment = 22, 1<<16 - 1
	if r.Size() <= maxDirectory {
		return true
	}
	start := max(0, r.Size()-record-longestComment)
	b := readUpTo(r, start, r.Size()-start)
	at := bytes.LastIndex(b, []byte("PK\x05\x06"))
	if at < 0 || len(b)-at < record {
		return true // it is no archive
	}
	size, off := int64(number(b[at+12:at+16])), int64(number(b[at+16:at+20])) //nolint:gosec // 32 bits
	end := start + int64(at)
	return size <= maxDirectory && end-off <= maxDirectory
}

func walkZip(z *zip.Reader) walk {
	return func(fn func(m member, content io.Reader) error) error {
		for _, f := range z.File {
			mode := uint32(f.Mode().Perm())
			if f.Mode().IsDir() {
				mode |= typeDir
			}
			m := member{entry: entry{path: f.Name, mode: modeOr(mode), mtime: f.Modified.Unix(), size: int64(min(f.UncompressedSize64, 1<<62))}} //nolint:gosec // it is bounded
			m.attrs = []attr{
				{"method", fmt.Sprint(f.Method)}, {"attributes", fmt.Sprintf("%#x", f.ExternalAttrs)}, {"made by", fmt.Sprintf("%#x", f.CreatorVersion)},
				{"flags", fmt.Sprintf("%#x", f.Flags)}, {"comment", cut(fmt.Sprintf("%q", f.Comment), page)}, {"extra", cut(hexText(f.Extra), page)},
			}
			m.framing = fmt.Sprintf("%d bytes compressed, needs version %d", f.CompressedSize64, f.ReaderVersion)
			if err := openZip(f, m, fn); err != nil {
				return fmt.Errorf("%q: %w", f.Name, err)
			}
		}
		return nil
	}
}

func openZip(f *zip.File, m member, fn func(m member, content io.Reader) error) error {
	r, err := f.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	return fn(m, r)
}

// ar compares the archives of ar(5): static libraries and Debian's packages.
func (d *differ) ar(n *Node, at spot, a, b *io.SectionReader) bool {
	return d.members(n, at, "", walkAr(a), walkAr(b))
}

const (
	arMagic   = 8
	arHeader  = 60
	maxArName = 4096
)

// walkAr reads the common format with the long names of GNU and BSD.
func walkAr(r *io.SectionReader) walk {
	return func(fn func(m member, content io.Reader) error) error {
		var names []byte // GNU's table of long names
		for off := int64(arMagic); off < r.Size(); {
			h := readUpTo(r, off, arHeader)
			if len(h) < arHeader || string(h[58:]) != "`\n" {
				return fmt.Errorf("no header at %s", place(off))
			}
			size, err := strconv.ParseInt(arField(h[48:58]), 10, 64)
			if err != nil || size < 0 || size > r.Size()-off-arHeader {
				return fmt.Errorf("a member of %q bytes at %s", h[48:58], place(off))
			}
			content := io.NewSectionReader(r, off+arHeader, size)
			off += arHeader + size + size&1
			m := arMember(h)
			raw := arField(h[:16])
			if raw == "//" {
				names = readUpTo(content, 0, min(size, maxNames))
			}
			var skip int64
			if m.path, skip, err = arName(raw, content, names); err != nil {
				return err
			}
			content = io.NewSectionReader(content, skip, size-skip)
			m.size = content.Size()
			if err := fn(m, content); err != nil {
				return err
			}
		}
		return nil
	}
}

// arName is the name of a member, and how much of the content it takes up.
func arName(raw string, content io.ReaderAt, names []byte) (name string, skip int64, err error) {
	switch {
	case raw == "/" || raw == "/SYM64/":
		return "(symbol table)", 0, nil
	case raw == "//":
		return "(long names)", 0, nil
	case strings.HasPrefix(raw, "#1/"):
		length, err := strconv.ParseInt(raw[3:], 10, 64)
		b := readUpTo(content, 0, max(0, min(length, maxArName)))
		if err != nil || int64(len(b)) != length {
			return "", 0, fmt.Errorf("a name %q", raw)
		}
		return strings.TrimRight(string(b), "\x00"), length, nil
	case len(raw) > 1 && raw[0] == '/' && raw[1] >= '0' && raw[1] <= '9':
		at, err := strconv.Atoi(raw[1:])
		if err != nil || at >= len(names) {
			return "", 0, fmt.Errorf("a name %q", raw)
		}
		name, _, _ = strings.Cut(string(names[at:min(len(names), at+maxArName)]), "\n")
		return strings.TrimSuffix(name, "/"), 0, nil
	}
	return strings.TrimSuffix(raw, "/"), 0, nil
}

func arField(b []byte) string { return strings.TrimRight(string(b), " ") }

// arMember is what a header says but for name and size.
func arMember(h []byte) member {
	mode, _ := strconv.ParseUint(arField(h[40:48]), 8, 32) // what is none is shown below
	m := member{entry: entry{mode: modeOr(uint32(mode))}}
	m.attrs = []attr{{"mode", oneLine(arField(h[40:48]))}, {"owner", oneLine(arField(h[28:34]) + ":" + arField(h[34:40]))}}
	if t, err := strconv.ParseInt(arField(h[16:28]), 10, 64); err == nil {
		m.mtime = t
	} else {
		m.attrs = append(m.attrs, attr{"modified", oneLine(arField(h[16:28]))})
	}
	return m
}
