package verify

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"caisson/build/image/fat"
	"caisson/build/image/gpt"
)

// SecureBootSignature is the function that takes Secure Boot signatures off a
// PE image: the certificate table at its end, its entry in the headers, and the
// CheckSum ("PE Format", "The Attribute Certificate Table"). The hash that the
// firmware measures leaves out the same, so no measurement changes by it but
// those of Secure Boot.
const SecureBootSignature = "secure-boot-signature"

// signatureVersion is the version of SecureBootSignature.
const signatureVersion = " v1"

// Functions are the names of the functions that can be applied to a file of
// both sides before they are compared.
func Functions() []string { return []string{SecureBootSignature} }

// equivalent tells whether the image is the rebuild but for files of the ESP
// that are the same after the functions which Allowed names for them were
// applied to both sides.
//
// It is strict: outside of the ESP every bit is compared, and the ESP has to be
// what Caisson's own writer makes of the rebuild's files, with the image's
// content in those that are excepted. So nothing can hide in unused clusters,
// and an ESP that another tool has changed is not equivalent.
func (v *verification) equivalent(again *Disk) (used []Exception, err error) {
	if len(v.Allowed) == 0 {
		return nil, errors.New("there are no exceptions")
	}
	if v.disk.Size != again.Size {
		return nil, fmt.Errorf("the disks have %d and %d bytes", v.disk.Size, again.Size)
	}
	esp, err := findESP(again)
	if err != nil {
		return nil, err
	}
	end := esp.Start() + esp.Size()
	for _, part := range [][2]int64{{0, esp.Start()}, {end, again.Size - end}} {
		same, err := sameBytes(io.NewSectionReader(v.disk, part[0], part[1]), io.NewSectionReader(again, part[0], part[1]))
		if err != nil {
			return nil, err
		}
		if !same {
			return nil, errors.New("they differ outside of the ESP")
		}
	}
	return v.equivalentESP(io.NewSectionReader(v.disk, esp.Start(), esp.Size()), io.NewSectionReader(again, esp.Start(), esp.Size()))
}

func findESP(d *Disk) (gpt.Partition, error) {
	table, err := gpt.Read(d, d.Size)
	if err != nil {
		return gpt.Partition{}, err
	}
	for _, p := range table.Partitions {
		if p.Type == gpt.TypeESP {
			return p, nil
		}
	}
	return gpt.Partition{}, errors.New("there is no ESP")
}

// serialAt is where a FAT32 boot sector has the volume's serial number.
const serialAt = 67

// equivalentESP compares two EFI system partitions.
func (v *verification) equivalentESP(image, rebuild *io.SectionReader) ([]Exception, error) {
	theirs, err := fat.Open(image, image.Size())
	if err != nil {
		return nil, err
	}
	ours, err := fat.Open(rebuild, rebuild.Size())
	if err != nil {
		return nil, err
	}
	var files []fat.File
	var used []Exception
	err = ours.Walk(func(f fat.File) error {
		e := v.allowedFor(f.Path)
		if e == nil {
			files = append(files, f)
			return nil
		}
		a, err := theirs.Lookup(f.Path)
		if err != nil {
			return err
		}
		b, err := ours.Lookup(f.Path)
		if err != nil {
			return err
		}
		if err := sameUnsigned(a, b); err != nil {
			return fmt.Errorf("%s: %w", f.Path, err)
		}
		files = append(files, fat.File{Path: f.Path, Size: a.Size(), Open: func() (io.ReadCloser, error) {
			return io.NopCloser(io.NewSectionReader(a, 0, a.Size())), nil
		}})
		done := *e
		done.Function += signatureVersion
		used = append(used, done)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(used) == 0 {
		return nil, errors.New("no exception is for a file of the ESP")
	}
	serial := make([]byte, 4)
	if _, err := rebuild.ReadAt(serial, serialAt); err != nil {
		return nil, err
	}
	return used, v.wantESP(image, files, fat.Options{Serial: binary.LittleEndian.Uint32(serial), Label: "ESP", Time: v.Lock.Epoch})
}

// wantESP writes the file system that the image is to have, and compares.
func (v *verification) wantESP(image *io.SectionReader, files []fat.File, o fat.Options) error {
	f, err := os.CreateTemp(filepath.Dir(v.rebuildDir), "esp-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if err := f.Truncate(image.Size()); err != nil {
		return err
	}
	if err := fat.Write(f, image.Size(), files, o); err != nil {
		return err
	}
	same, err := sameBytes(io.NewSectionReader(image, 0, image.Size()), io.NewSectionReader(f, 0, image.Size()))
	if err == nil && !same {
		err = errors.New("the ESP differs in more than the files that are excepted")
	}
	return err
}

// allowedFor is the exception for a file of the ESP, or nil.
func (v *verification) allowedFor(path string) *Exception {
	for i := range v.Allowed {
		if e := &v.Allowed[i]; e.Function == SecureBootSignature && strings.EqualFold(e.Match, "esp:/"+path) {
			return e
		}
	}
	return nil
}

// sameUnsigned compares two PE images without their signatures.
func sameUnsigned(a, b *io.SectionReader) error {
	x, err := unsigned(a)
	if err != nil {
		return err
	}
	y, err := unsigned(b)
	if err != nil {
		return err
	}
	same, err := sameBytes(x, y)
	if err == nil && !same {
		err = errors.New("it differs in more than its signature")
	}
	return err
}

// Offsets in a PE image, from its signature, and bounds ("PE Format", "Optional
// Header (Image Only)").
const (
	peHeaders     = 4096
	checkSumAt    = 24 + 64
	certTableAt   = 24 + 112 + 4*8 // of a PE32+ image
	peAlignment   = 8              // of the certificate table
	maxSignatures = 1 << 20
)

// unsigned reads a PE32+ image without its signatures, padded with zeros to a
// multiple of 8 bytes, as one is before it is signed.
func unsigned(r *io.SectionReader) (io.Reader, error) {
	head := make([]byte, min(peHeaders, r.Size()))
	if err := readAt(r, head, 0); err != nil {
		return nil, err
	}
	if len(head) < 64 {
		return nil, errors.New("it is no PE image")
	}
	pe := int64(binary.LittleEndian.Uint32(head[60:]))
	if pe+certTableAt+8 > int64(len(head)) || string(head[pe:pe+4]) != "PE\x00\x00" || binary.LittleEndian.Uint16(head[pe+24:]) != 0x20b {
		return nil, errors.New("it is no PE32+ image")
	}
	entry := head[pe+certTableAt : pe+certTableAt+8]
	at, size := int64(binary.LittleEndian.Uint32(entry)), int64(binary.LittleEndian.Uint32(entry[4:]))
	end := r.Size()
	switch {
	case at == 0 && size == 0:
	case at < pe+certTableAt+8 || at%peAlignment != 0 || at+size != r.Size() || size > maxSignatures:
		return nil, fmt.Errorf("its signatures, %d bytes at %d, do not end the file of %d", size, at, r.Size())
	default:
		end = at
	}
	clear(entry)
	clear(head[pe+checkSumAt : pe+checkSumAt+4])
	head = head[:min(int64(len(head)), end)]
	pad := make([]byte, (peAlignment-end%peAlignment)%peAlignment)
	n := int64(len(head))
	return io.MultiReader(bytes.NewReader(head), io.NewSectionReader(r, n, end-n), bytes.NewReader(pad)), nil
}

func readAt(r io.ReaderAt, b []byte, off int64) error {
	n, err := r.ReadAt(b, off)
	if n == len(b) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// sameBytes reads two streams until one differs from the other or both end.
func sameBytes(a, b io.Reader) (bool, error) {
	const window = 1 << 20
	x, y := make([]byte, window), make([]byte, window)
	for {
		n, errA := io.ReadFull(a, x)
		m, errB := io.ReadFull(b, y)
		for _, err := range []error{errA, errB} {
			if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
				return false, err
			}
		}
		if !bytes.Equal(x[:n], y[:m]) {
			return false, nil
		}
		if n < window {
			return true, nil
		}
	}
}
