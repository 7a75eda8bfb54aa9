package uki

import (
	"bytes"
	"fmt"
	"io"
	"strings"
)

// maxMagic bounds .sdmagic, a line of about fifty bytes.
const maxMagic = 4096

// Image is a PE image that was read.
type Image struct {
	Machine  uint16
	Sections []ImageSection // in the order of the section table
}

// ImageSection is a section of an image.
type ImageSection struct {
	Name          string
	VirtualSize   uint32
	Address       uint32
	SizeOfRawData uint32
	Offset        int64

	data loaded
}

// Open reads the section as the loader puts it in memory: VirtualSize bytes,
// zero where the file has fewer, without the padding that the file may have
// behind them.
func (s *ImageSection) Open() *io.SectionReader {
	return io.NewSectionReader(s.data, 0, s.data.size)
}

// Read reads the headers of a PE32+ image of size bytes. Sections that leave
// the file, or overlap in memory, are errors.
func Read(r io.ReaderAt, size int64) (*Image, error) {
	h, err := readHeaders(r, size)
	if err != nil {
		return nil, err
	}
	im := &Image{Machine: h.u16(h.coff + coffMachine)}
	for _, s := range h.sections {
		im.Sections = append(im.Sections, ImageSection{
			Name:          s.Name,
			VirtualSize:   s.VirtualSize,
			Address:       s.VirtualAddress,
			SizeOfRawData: s.SizeOfRawData,
			Offset:        int64(s.Offset),
			data:          loaded{r: r, off: int64(s.Offset), file: int64(min(s.SizeOfRawData, s.VirtualSize)), size: int64(s.VirtualSize)},
		})
	}
	return im, nil
}

// Section is the only section of that name; nil, and no error, when there is
// none. Two of one name are an error: who reads the image may take either.
func (im *Image) Section(name string) (*ImageSection, error) {
	var found *ImageSection
	for i, s := range im.Sections {
		if s.Name != name {
			continue
		}
		if found != nil {
			return nil, fmt.Errorf("two sections %q", name)
		}
		found = &im.Sections[i]
	}
	return found, nil
}

// StubVersion is the version that systemd-stub wrote into .sdmagic, such as
// "252.39-1~deb12u2".
func (im *Image) StubVersion() (string, error) {
	name, version, err := im.LoaderInfo()
	if err != nil {
		return "", err
	}
	if name != "systemd-stub" {
		return "", fmt.Errorf("no systemd-stub: .sdmagic says %q, version %q", name, version)
	}
	return version, nil
}

// LoaderInfo is what one of systemd's EFI programs says of itself in
// .sdmagic: a name, systemd-boot, systemd-stub or systemd-addon, and its
// version.
func (im *Image) LoaderInfo() (name, version string, err error) {
	s, err := im.Section(".sdmagic")
	if err != nil {
		return "", "", err
	}
	if s == nil || s.VirtualSize > maxMagic {
		return "", "", fmt.Errorf("no systemd-stub: no section %q that names one", ".sdmagic")
	}
	b, err := io.ReadAll(s.Open())
	if err != nil {
		return "", "", fmt.Errorf("reading .sdmagic: %w", err)
	}
	b = bytes.TrimRight(b, "\x00")
	text, ok := bytes.CutPrefix(b, []byte("#### LoaderInfo: "))
	text, ok2 := bytes.CutSuffix(text, []byte(" ####"))
	name, version, ok3 := strings.Cut(string(text), " ")
	if !ok || !ok2 || !ok3 || name == "" || version == "" {
		return "", "", fmt.Errorf("no systemd-stub: .sdmagic says %q", b)
	}
	return name, version, nil
}

// loaded reads a section as it lies in memory: file bytes, then zeros.
type loaded struct {
	r          io.ReaderAt
	off        int64
	file, size int64
}

func (l loaded) ReadAt(p []byte, off int64) (int, error) {
	if off >= l.size {
		return 0, io.EOF
	}
	var eof error
	if int64(len(p)) > l.size-off {
		p, eof = p[:l.size-off], io.EOF
	}
	n := 0
	if off < l.file {
		part := p[:min(int64(len(p)), l.file-off)]
		got, err := l.r.ReadAt(part, l.off+off)
		if got < len(part) {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return got, err
		}
		n = got
	}
	clear(p[n:])
	return len(p), eof
}
