package rootfs

import (
	"bufio"
	"compress/bzip2"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"path"
	"strconv"

	"github.com/cavaliergopher/rpm"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
	"github.com/ulikunitz/xz/lzma"
	"golang.org/x/sys/unix"
)

// Tags of an RPM header that the library has no method for (rpm's rpmtag.h).
const (
	tagFileSizes      = 1028
	tagFileModes      = 1030
	tagFileRdevs      = 1033
	tagFileDigests    = 1035
	tagFileLinkTos    = 1036
	tagFileFlags      = 1037
	tagFileUserName   = 1039
	tagFileGroupName  = 1040
	tagDirIndexes     = 1116
	tagBaseNames      = 1117
	tagDirNames       = 1118
	tagLongFileSizes  = 5008
	tagFileCaps       = 5010
	tagFileDigestAlgo = 5011
)

const (
	flagGhost  = 1 << 6 // RPMFILE_GHOST: named by the package, not in its payload
	algoSHA256 = 8      // RFC 4880 section 9.4, as RPMTAG_FILEDIGESTALGO has it
)

// maxFiles is how many files one package may name.
const maxFiles = 4 << 20

// Package is what an RPM's signed header says of its files.
type Package struct {
	NEVRA string
	Files []PackageFile
	// Compression is the payload's, as RPMTAG_PAYLOADCOMPRESSOR has it.
	Compression string
}

// PackageFile is one file as the header has it.
type PackageFile struct {
	Path        string // absolute
	Mode        uint32 // type and permissions as stat has them
	User, Group string
	Size        int64
	SHA256      string // hex; empty where the header has another digest
	Target      string // of a symbolic link
	Rdev        uint32
	Caps        string // as cap_from_text reads them
	Ghost       bool
}

// ReadPackage reads an RPM's headers from r and leaves r at its payload.
func ReadPackage(r *bufio.Reader) (*Package, error) {
	p, err := rpm.Read(fullReader{r})
	if err != nil {
		return nil, fmt.Errorf("reading the RPM's headers: %w", err)
	}
	if f := p.PayloadFormat(); f != "cpio" && f != "" {
		return nil, fmt.Errorf("payload format %q; want cpio", f)
	}
	out := &Package{NEVRA: p.String(), Compression: p.PayloadCompression()}
	if out.Files, err = packageFiles(&p.Header); err != nil {
		return nil, fmt.Errorf("%s: %w", out.NEVRA, err)
	}
	return out, nil
}

// fullReader fills the buffer, which the rpm library takes for granted.
type fullReader struct{ r io.Reader }

func (f fullReader) Read(b []byte) (int, error) {
	n, err := io.ReadFull(f.r, b)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = io.EOF
	}
	return n, err
}

func packageFiles(h *rpm.Header) ([]PackageFile, error) {
	base := h.GetTag(tagBaseNames).StringSlice()
	dirs := h.GetTag(tagDirNames).StringSlice()
	index := h.GetTag(tagDirIndexes).Int64Slice()
	if len(base) > maxFiles || len(index) != len(base) {
		return nil, fmt.Errorf("header names %d files in %d folders; at most %d, in equal number, are read", len(base), len(index), maxFiles)
	}
	modes := h.GetTag(tagFileModes).Int64Slice()
	users, groups := h.GetTag(tagFileUserName).StringSlice(), h.GetTag(tagFileGroupName).StringSlice()
	links, flags := h.GetTag(tagFileLinkTos).StringSlice(), h.GetTag(tagFileFlags).Int64Slice()
	digests, sizes := h.GetTag(tagFileDigests).StringSlice(), h.GetTag(tagFileSizes).Int64Slice()
	if long := h.GetTag(tagLongFileSizes).Int64Slice(); len(long) > 0 {
		sizes = long
	}
	caps, rdevs := h.GetTag(tagFileCaps).StringSlice(), h.GetTag(tagFileRdevs).Int64Slice()
	n := len(base)
	if len(modes) != n || len(users) != n || len(groups) != n || len(links) != n || len(flags) != n || len(digests) != n || len(sizes) != n {
		return nil, errors.New("the header's lists of files differ in length")
	}
	strong := h.GetTag(tagFileDigestAlgo).Int64() == algoSHA256
	files := make([]PackageFile, n)
	for i := range files {
		if index[i] < 0 || index[i] >= int64(len(dirs)) {
			return nil, fmt.Errorf("file %q is in folder %d of %d", base[i], index[i], len(dirs))
		}
		f := PackageFile{
			Path: path.Clean("/" + dirs[index[i]] + base[i]), Mode: uint32(uint16(modes[i])), //nolint:gosec // RPMTAG_FILEMODES has 16 bits
			User: users[i], Group: groups[i], Size: sizes[i], Target: links[i], Ghost: flags[i]&flagGhost != 0,
		}
		if strong {
			f.SHA256 = digests[i]
		}
		if len(caps) == n {
			f.Caps = caps[i]
		}
		if len(rdevs) == n {
			f.Rdev = uint32(uint16(rdevs[i])) //nolint:gosec // RPMTAG_FILERDEVS has 16 bits
		}
		files[i] = f
	}
	return files, nil
}

// maxWindow bounds the memory that a payload's compressor may ask for.
const maxWindow = 256 << 20

// Payload decompresses what follows the headers.
func (p *Package) Payload(r io.Reader) (io.ReadCloser, error) {
	switch p.Compression {
	case "", "none":
		return io.NopCloser(r), nil
	case "gzip":
		return gzip.NewReader(r)
	case "bzip2":
		return io.NopCloser(bzip2.NewReader(r)), nil
	case "xz":
		x, err := xz.ReaderConfig{DictCap: maxWindow}.NewReader(r)
		return io.NopCloser(x), err
	case "lzma":
		x, err := lzma.ReaderConfig{DictCap: maxWindow}.NewReader(r)
		return io.NopCloser(x), err
	case "zstd":
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, err
		}
		return z.IOReadCloser(), nil
	}
	return nil, fmt.Errorf("%s: payload compressed with %s, which is not known", p.NEVRA, strconv.Quote(p.Compression))
}

// IsFIFO tells whether the file is a named pipe.
func (f *PackageFile) IsFIFO() bool { return f.Mode&unix.S_IFMT == unix.S_IFIFO }
