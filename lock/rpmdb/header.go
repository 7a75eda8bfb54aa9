package rpmdb

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"caisson/lock/rpmmd"
)

// Tags of a package's header (rpm's rpmtag.h).
const (
	tagName         = 1000
	tagVersion      = 1001
	tagRelease      = 1002
	tagEpoch        = 1003
	tagBuildTime    = 1006
	tagSize         = 1009
	tagArch         = 1022
	tagOldFileNames = 1027
	tagSourceRPM    = 1044
	tagDirIndexes   = 1116
	tagBaseNames    = 1117
	tagDirNames     = 1118
	tagLongSize     = 5009
)

// Types of a tag.
const (
	typeInt32       = 4
	typeInt64       = 5
	typeString      = 6
	typeStringArray = 8
	typeI18NString  = 9
)

// Bits of a dependency's flags (rpm's rpmds.h).
const (
	senseLess      = 1 << 1
	senseGreater   = 1 << 2
	senseEqual     = 1 << 3
	senseMissingOK = 1 << 19 // an old kind of suggestion
	senseRPMLib    = 1 << 24 // a feature of rpm
)

const (
	entrySize  = 16
	maxEntries = 0xffff
	// maxPaths is how many bytes all paths of a database may have together: a
	// header can name a long folder once and a file in it many times.
	maxPaths = 1 << 30
)

// header is the index of a header and its data.
type header struct {
	entries map[uint32]entry
	data    []byte
}

type entry struct{ typ, offset, count uint32 }

// parseHeader reads a header as databases have it, without the magic: the
// number of entries, the size of the data, the entries and the data, in
// network byte order.
func parseHeader(b []byte) (*header, error) {
	if len(b) < minHeader {
		return nil, fmt.Errorf("a header of %d bytes", len(b))
	}
	n, size := int64(binary.BigEndian.Uint32(b)), int64(binary.BigEndian.Uint32(b[4:]))
	if n == 0 || n > maxEntries || minHeader+n*entrySize+size > int64(len(b)) {
		return nil, fmt.Errorf("a header of %d entries and %d bytes of data in %d bytes", n, size, len(b))
	}
	data := b[minHeader+n*entrySize:][:size]
	h := &header{entries: make(map[uint32]entry, n), data: data}
	for i := range n {
		e := b[minHeader+i*entrySize:]
		tag := binary.BigEndian.Uint32(e)
		// A tag that was added when the package was installed comes after the
		// signed region and replaces one that is in it.
		at := entry{binary.BigEndian.Uint32(e[4:]), binary.BigEndian.Uint32(e[8:]), binary.BigEndian.Uint32(e[12:])}
		if at.offset > uint32(len(data)) && wanted(tag) {
			return nil, fmt.Errorf("tag %d lies outside the header", tag)
		}
		h.entries[tag] = at
	}
	return h, nil
}

// wanted tells whether the tag is one that is looked at: the offsets of
// others, such as those of regions, are not all what they seem.
func wanted(tag uint32) bool {
	switch tag {
	case tagName, tagVersion, tagRelease, tagEpoch, tagBuildTime, tagSize, tagArch, tagOldFileNames, tagSourceRPM, tagDirIndexes,
		tagBaseNames, tagDirNames, tagLongSize:
		return true
	}
	for _, r := range relations {
		if tag == r.name || tag == r.flags || tag == r.version {
			return true
		}
	}
	return false
}

// strings are the texts of a tag; nil where it is absent.
func (h *header) strings(tag uint32) ([]string, error) {
	e, ok := h.entries[tag]
	if !ok {
		return nil, nil
	}
	if e.typ != typeString && e.typ != typeStringArray && e.typ != typeI18NString {
		return nil, fmt.Errorf("tag %d: type %d is no text", tag, e.typ)
	}
	rest := h.data[e.offset:]
	if int64(e.count) > int64(len(rest)) {
		return nil, fmt.Errorf("tag %d: %d texts in %d bytes", tag, e.count, len(rest))
	}
	out := make([]string, 0, e.count)
	for range e.count {
		s, after, ok := bytes.Cut(rest, []byte{0})
		if !ok {
			return nil, fmt.Errorf("tag %d: a text does not end", tag)
		}
		out, rest = append(out, string(s)), after
	}
	return out, nil
}

// text is the first text of a tag; empty where it is absent.
func (h *header) text(tag uint32) (string, error) {
	e, ok := h.entries[tag]
	if !ok || e.count == 0 {
		return "", nil
	}
	e.count = 1
	one := header{entries: map[uint32]entry{tag: e}, data: h.data}
	all, err := one.strings(tag)
	if err != nil {
		return "", err
	}
	return all[0], nil
}

// numbers are the numbers of a tag, of 4 or 8 bytes each; nil where it is
// absent.
func (h *header) numbers(tag uint32) ([]uint64, error) {
	e, ok := h.entries[tag]
	if !ok {
		return nil, nil
	}
	width := int64(4)
	if e.typ == typeInt64 {
		width = 8
	} else if e.typ != typeInt32 {
		return nil, fmt.Errorf("tag %d: type %d is no number", tag, e.typ)
	}
	rest := h.data[e.offset:]
	if int64(e.count)*width > int64(len(rest)) {
		return nil, fmt.Errorf("tag %d: %d numbers in %d bytes", tag, e.count, len(rest))
	}
	out := make([]uint64, e.count)
	for i := range out {
		if width == 8 {
			out[i] = binary.BigEndian.Uint64(rest[i*8:])
		} else {
			out[i] = uint64(binary.BigEndian.Uint32(rest[i*4:]))
		}
	}
	return out, nil
}

// number is the first number of a tag; 0 where it is absent.
func (h *header) number(tag uint32) (int64, error) {
	all, err := h.numbers(tag)
	if err != nil || len(all) == 0 {
		return 0, err
	}
	if all[0] > 1<<62 {
		return 0, fmt.Errorf("tag %d: %d is too large", tag, all[0])
	}
	return int64(all[0]), nil
}

// relations are the tags of each kind of dependency, and where it goes.
var relations = []struct {
	name, flags, version uint32
	field                func(*rpmmd.Package) *[]rpmmd.Dep
}{
	{1047, 1112, 1113, func(p *rpmmd.Package) *[]rpmmd.Dep { return &p.Provides }},
	{1049, 1048, 1050, func(p *rpmmd.Package) *[]rpmmd.Dep { return &p.Requires }},
	{1054, 1053, 1055, func(p *rpmmd.Package) *[]rpmmd.Dep { return &p.Conflicts }},
	{1090, 1114, 1115, func(p *rpmmd.Package) *[]rpmmd.Dep { return &p.Obsoletes }},
	{5046, 5048, 5047, func(p *rpmmd.Package) *[]rpmmd.Dep { return &p.Recommends }},
	{5049, 5051, 5050, func(p *rpmmd.Package) *[]rpmmd.Dep { return &p.Suggests }},
	{5052, 5054, 5053, func(p *rpmmd.Package) *[]rpmmd.Dep { return &p.Supplements }},
	{5055, 5057, 5056, func(p *rpmmd.Package) *[]rpmmd.Dep { return &p.Enhances }},
}

// pkg is the package that a header describes. Its paths are taken off paths.
func (h *header) pkg(paths *int) (*rpmmd.Package, error) {
	p := &rpmmd.Package{}
	for _, f := range []struct {
		tag  uint32
		to   *string
		must bool
	}{
		{tagName, &p.Name, true}, {tagVersion, &p.Version, true}, {tagRelease, &p.Release, true}, {tagArch, &p.Arch, false}, {tagSourceRPM, &p.SourceRPM, false},
	} {
		var err error
		if *f.to, err = h.text(f.tag); err != nil {
			return nil, err
		}
		if f.must && *f.to == "" {
			return nil, fmt.Errorf("package %q: no tag %d", p.Name, f.tag)
		}
	}
	if p.Arch == "" && p.Name != "gpg-pubkey" {
		return nil, fmt.Errorf("package %q: no arch", p.Name)
	}
	if err := h.details(p); err != nil {
		return nil, fmt.Errorf("package %q: %w", p.Name, err)
	}
	for _, r := range relations {
		var err error
		if *r.field(p), err = h.deps(r.name, r.flags, r.version); err != nil {
			return nil, fmt.Errorf("package %q: %w", p.Name, err)
		}
	}
	if err := h.files(p, paths); err != nil {
		return nil, fmt.Errorf("package %q: %w", p.Name, err)
	}
	return p, nil
}

// details reads a package's numbers.
func (h *header) details(p *rpmmd.Package) error {
	epoch, err := h.number(tagEpoch)
	if err != nil {
		return err
	}
	p.Epoch = int(epoch)
	if p.BuildTime, err = h.number(tagBuildTime); err != nil {
		return err
	}
	size := uint32(tagSize)
	if _, ok := h.entries[tagLongSize]; ok {
		size = tagLongSize
	}
	p.InstalledSize, err = h.number(size)
	return err
}

// deps reads one kind of dependencies.
func (h *header) deps(name, flags, version uint32) ([]rpmmd.Dep, error) {
	names, err := h.strings(name)
	if err != nil || len(names) == 0 {
		return nil, err
	}
	fl, err := h.numbers(flags)
	if err != nil {
		return nil, err
	}
	vers, err := h.strings(version)
	if err != nil {
		return nil, err
	}
	if fl != nil && len(fl) != len(names) || vers != nil && len(vers) != len(names) {
		return nil, fmt.Errorf("tags %d, %d, %d: %d names, %d flags, %d versions", name, flags, version, len(names), len(fl), len(vers))
	}
	var out []rpmmd.Dep
	for i, n := range names {
		d := rpmmd.Dep{Name: n}
		if fl != nil {
			if fl[i]&(senseRPMLib|senseMissingOK) != 0 {
				continue
			}
			d.Flags = sense(fl[i])
		}
		switch {
		case vers == nil || vers[i] == "" || d.Flags == 0:
			d.Flags = 0
		default:
			if d.EVR, err = rpmmd.ParseEVR(vers[i]); err != nil {
				return nil, fmt.Errorf("dependency %q: %w", n, err)
			}
		}
		out = append(out, d)
	}
	return out, nil
}

func sense(flags uint64) rpmmd.Flags {
	var f rpmmd.Flags
	for _, b := range []struct {
		bit uint64
		f   rpmmd.Flags
	}{{senseLess, rpmmd.Less}, {senseEqual, rpmmd.Equal}, {senseGreater, rpmmd.Greater}} {
		if flags&b.bit != 0 {
			f |= b.f
		}
	}
	return f
}

// files reads the paths of a package.
func (h *header) files(p *rpmmd.Package, paths *int) error {
	bases, err := h.strings(tagBaseNames)
	if err != nil {
		return err
	}
	if bases == nil { // rpm before 4.0 names whole paths
		p.Files, err = h.strings(tagOldFileNames)
		return err
	}
	dirs, err := h.strings(tagDirNames)
	if err != nil {
		return err
	}
	index, err := h.numbers(tagDirIndexes)
	if err != nil {
		return err
	}
	if len(index) != len(bases) {
		return fmt.Errorf("%d file names in %d folders", len(bases), len(index))
	}
	for i, b := range bases {
		if index[i] >= uint64(len(dirs)) {
			return fmt.Errorf("folder %d of %d", index[i], len(dirs))
		}
		name := dirs[index[i]] + b
		if *paths -= len(name); *paths < 0 {
			return errors.New("the paths of its files are too long together")
		}
		p.Files = append(p.Files, name)
	}
	return nil
}
