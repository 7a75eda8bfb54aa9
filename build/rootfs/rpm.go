package rootfs

import (
	"bufio"
	"compress/bzip2"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"math"
	"path"
	"strconv"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz/lzma"
	"golang.org/x/sys/unix"

	"caisson/lock/rpmmd/xz"
)

// Tags of an RPM header (rpm's rpmtag.h).
const (
	tagName           = 1000
	tagVersion        = 1001
	tagRelease        = 1002
	tagArch           = 1022
	tagOldFileNames   = 1027
	tagFileSizes      = 1028
	tagFileModes      = 1030
	tagFileRdevs      = 1033
	tagFileDigests    = 1035
	tagFileLinkTos    = 1036
	tagFileFlags      = 1037
	tagFileUserName   = 1039
	tagFileGroupName  = 1040
	tagFileInodes     = 1096
	tagDirIndexes     = 1116
	tagBaseNames      = 1117
	tagDirNames       = 1118
	tagPayloadFormat  = 1124
	tagCompressor     = 1125
	tagLongFileSizes  = 5008
	tagFileCaps       = 5010
	tagFileDigestAlgo = 5011
)

const (
	flagGhost  = 1 << 6 // RPMFILE_GHOST: named by the package, not in its payload
	algoSHA256 = 8      // RFC 4880 section 9.4, as RPMTAG_FILEDIGESTALGO has it
)

// maxFiles is how many files one package may name. It bounds what one of them
// takes to about 100 MB of memory.
const maxFiles = 1 << 18

// Package is what an RPM's signed header says of its files.
type Package struct {
	NEVRA string
	Files []PackageFile
	// Compression is the payload's, as RPMTAG_PAYLOADCOMPRESSOR has it.
	Compression string
	// Scripts are what the package runs when it, or another one, is installed.
	Scripts []Script
}

// PackageFile is one file as the header has it.
type PackageFile struct {
	Path        string // absolute
	Mode        uint32 // type and permissions as stat has them
	User, Group string
	Size        int64
	// SHA256 is the content's in hex; empty where the header has another
	// digest, until HashPayload fills it in.
	SHA256 string
	Target string // of a symbolic link
	Rdev   uint32
	Ino    uint32 // the same for all names of one file of the package
	Caps   string // as cap_from_text reads them
	Ghost  bool
}

// IsFIFO tells whether the file is a named pipe.
func (f *PackageFile) IsFIFO() bool { return f.Mode&unix.S_IFMT == unix.S_IFIFO }

// ReadPackage reads an RPM's headers from r and leaves r at its payload.
func ReadPackage(r *bufio.Reader) (*Package, error) {
	h, err := readHeader(r)
	if err != nil {
		return nil, fmt.Errorf("reading the RPM's headers: %w", err)
	}
	p, err := parsePackage(h)
	if err != nil {
		return nil, fmt.Errorf("reading the RPM's headers: %w", err)
	}
	return p, nil
}

func parsePackage(h *header) (*Package, error) {
	var text [6]string
	for i, tag := range []uint32{tagName, tagVersion, tagRelease, tagArch, tagPayloadFormat, tagCompressor} {
		var err error
		if text[i], err = h.str(tag); err != nil {
			return nil, err
		}
	}
	p := &Package{NEVRA: fmt.Sprintf("%s-%s-%s.%s", text[0], text[1], text[2], text[3]), Compression: text[5]}
	if format := text[4]; format != "cpio" && format != "" {
		return nil, fmt.Errorf("%s: payload format %q; want cpio", p.NEVRA, format)
	}
	l, err := readFileLists(h)
	if err == nil {
		p.Files, err = l.files()
	}
	if err == nil {
		p.Scripts, err = readScripts(h)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p.NEVRA, err)
	}
	return p, nil
}

// fileLists are a header's lists of files, one value a file in each; those
// that are optional may be empty.
type fileLists struct {
	paths                              []string
	users, groups, links, digests      []string
	caps                               []string // optional
	modes, flags, sizes, rdevs, inodes numbers
	strong                             bool // the digests are SHA-256
}

func readFileLists(h *header) (*fileLists, error) {
	l := &fileLists{}
	var err error
	if l.paths, err = filePaths(h); err != nil || len(l.paths) == 0 {
		return l, err
	}
	for tag, to := range map[uint32]*[]string{
		tagFileUserName: &l.users, tagFileGroupName: &l.groups, tagFileLinkTos: &l.links, tagFileDigests: &l.digests, tagFileCaps: &l.caps,
	} {
		if n := h.count(tag); n != len(l.paths) && (tag != tagFileCaps || n != 0) {
			return nil, fmt.Errorf("the header has %d values of tag %d for %d files", n, tag, len(l.paths))
		}
		if *to, err = h.strings(tag); err != nil {
			return nil, err
		}
	}
	sizes := uint32(tagFileSizes)
	if h.count(tagLongFileSizes) > 0 {
		sizes = tagLongFileSizes
	}
	for tag, to := range map[uint32]*numbers{
		tagFileModes: &l.modes, tagFileFlags: &l.flags, sizes: &l.sizes, tagFileRdevs: &l.rdevs, tagFileInodes: &l.inodes,
	} {
		if n := h.count(tag); n != len(l.paths) && (tag != tagFileRdevs && tag != tagFileInodes || n != 0) {
			return nil, fmt.Errorf("the header has %d values of tag %d for %d files", n, tag, len(l.paths))
		}
		if *to, err = h.numbers(tag); err != nil {
			return nil, err
		}
	}
	algo, err := h.numbers(tagFileDigestAlgo)
	l.strong = algo.at(0) == algoSHA256
	return l, err
}

// filePaths are the absolute paths of a package's files.
func filePaths(h *header) ([]string, error) {
	if n := max(h.count(tagBaseNames), h.count(tagOldFileNames), h.count(tagDirNames)); n > maxFiles {
		return nil, fmt.Errorf("the header names %d files; at most %d are read", n, maxFiles)
	}
	if h.count(tagBaseNames) == 0 { // rpm before 4.0 wrote whole names
		paths, err := h.strings(tagOldFileNames)
		for i, p := range paths {
			paths[i] = path.Clean("/" + p)
		}
		return paths, err
	}
	base, err := h.strings(tagBaseNames)
	if err != nil {
		return nil, err
	}
	dirs, err := h.strings(tagDirNames)
	if err != nil {
		return nil, err
	}
	index, err := h.numbers(tagDirIndexes)
	if err != nil {
		return nil, err
	}
	if index.n != len(base) {
		return nil, fmt.Errorf("the header has %d names of files and %d numbers of folders", len(base), index.n)
	}
	paths := make([]string, len(base))
	for i := range paths {
		d := index.at(i)
		if d >= uint64(len(dirs)) {
			return nil, fmt.Errorf("file %q is in folder %d of %d", base[i], d, len(dirs))
		}
		if len(dirs[d])+len(base[i]) > unix.PathMax {
			return nil, fmt.Errorf("a file's name has %d bytes; at most %d are read", len(dirs[d])+len(base[i]), unix.PathMax)
		}
		paths[i] = path.Clean("/" + dirs[d] + base[i])
	}
	return paths, nil
}

func (l *fileLists) files() ([]PackageFile, error) {
	same := map[string]string{} // one copy of each owner, and none of the header
	keep := func(s string) string {
		if _, ok := same[s]; !ok {
			s = strings.Clone(s)
			same[s] = s
		}
		return same[s]
	}
	files := make([]PackageFile, len(l.paths))
	for i := range files {
		size := l.sizes.at(i)
		if size > math.MaxInt64 {
			return nil, fmt.Errorf("%s has %d bytes", l.paths[i], size)
		}
		f := PackageFile{
			Path: l.paths[i], Mode: uint32(l.modes.at(i) & 0xffff), User: keep(l.users[i]), Group: keep(l.groups[i]),
			Size: int64(size), Target: strings.Clone(l.links[i]), Ghost: l.flags.at(i)&flagGhost != 0,
			Rdev: uint32(l.rdevs.at(i) & 0xffff), Ino: uint32(l.inodes.at(i)), //nolint:gosec // RPMTAG_FILEINODES has 32 bits
		}
		if l.strong && f.Mode&unix.S_IFMT == unix.S_IFREG {
			f.SHA256 = strings.Clone(l.digests[i])
		}
		if l.caps != nil {
			f.Caps = keep(l.caps[i])
		}
		files[i] = f
	}
	return files, nil
}

// maxWindow bounds the memory that a payload's compressor may ask for: what
// the highest levels of xz (64 MiB) and zstd (128 MiB) need.
const maxWindow = 128 << 20

// Payload decompresses what follows the headers. A header that names no
// compressor means gzip, and rpm's gzip reads what is not compressed as it is.
func (p *Package) Payload(r *bufio.Reader) (io.ReadCloser, error) {
	switch p.Compression {
	case "", "none":
		if magic, err := r.Peek(2); err != nil || magic[0] != 0x1f || magic[1] != 0x8b {
			return io.NopCloser(r), nil
		}
		return gzip.NewReader(r)
	case "gzip":
		return gzip.NewReader(r)
	case "bzip2":
		return io.NopCloser(bzip2.NewReader(r)), nil
	case "xz":
		return io.NopCloser(xz.NewReader(r, maxWindow)), nil
	case "lzma":
		x, err := lzma.ReaderConfig{DictCap: maxWindow}.NewReader(r)
		return io.NopCloser(x), err
	case "zstd":
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, err
		}
		return z.IOReadCloser(), nil
	}
	return nil, fmt.Errorf("%s: payload compressed with %s, which is not known", p.NEVRA, strconv.Quote(p.Compression))
}

// What header and payload of a package may disagree on.
var (
	errNotInHeader  = errors.New("the package's header does not name it")
	errNotInPayload = errors.New("the package's header names it, and the payload does not have it")
)
