package verify

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"caisson/build"
	"caisson/build/esp"
	"caisson/build/image/authenticode"
	"caisson/build/image/fat"
	"caisson/build/image/gpt"
	"caisson/build/image/uki"
	"caisson/build/imagefile"
	"caisson/lock/digest"
)

// SecureBootSignature is the function that takes Secure Boot signatures off a
// PE image: the certificate table at its end, its entry in the headers, and the
// CheckSum ("PE Format", "The Attribute Certificate Table"). The hash that the
// firmware measures leaves out the same, so no measurement changes by it but
// those of Secure Boot.
const SecureBootSignature = "secure-boot-signature"

// signatureVersion is the version of SecureBootSignature.
const signatureVersion = " v2"

// Functions are the names of the functions that can be applied to a file of
// both sides before they are compared.
func Functions() []string { return []string{SecureBootSignature} }

// equivalent tells whether the image is the rebuild but for files of the ESP
// that are the same after the functions which Allowed names for them were
// applied to both sides.
//
// It is strict: outside of the ESP every bit is compared, and the ESP has to be
// what Caisson's own writer makes of the rebuild's files, with the image's
// content in those that are excepted; so has the container around the disk. So
// nothing can hide in unused clusters, and an ESP that another tool has changed
// is not equivalent.
func (v *verification) equivalent(ctx context.Context, again *Disk) (used []Exception, err error) {
	if len(v.Allowed) == 0 {
		return nil, errors.New("there are no exceptions")
	}
	if v.disk.Size != again.Size {
		return nil, fmt.Errorf("the disks have %d and %d bytes", v.disk.Size, again.Size)
	}
	p, err := findESP(again)
	if err != nil {
		return nil, err
	}
	end := p.Start() + p.Size()
	for _, part := range [][2]int64{{0, p.Start()}, {end, again.Size - end}} {
		same, err := esp.SameBytes(io.NewSectionReader(v.disk, part[0], part[1]), io.NewSectionReader(again, part[0], part[1]))
		if err != nil {
			return nil, err
		}
		if !same {
			return nil, errors.New("they differ outside of the ESP")
		}
	}
	used, err = v.equivalentESP(io.NewSectionReader(v.disk, p.Start(), p.Size()), io.NewSectionReader(again, p.Start(), p.Size()))
	if err != nil {
		return nil, err
	}
	return used, v.sameContainer(ctx)
}

// sameContainer compares the image's file with what Caisson's own writer makes
// of the disk in it.
func (v *verification) sameContainer(ctx context.Context) error {
	if v.disk.Format == "raw" {
		return nil
	}
	dir, err := os.MkdirTemp(filepath.Dir(v.rebuildDir), "container-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	name := filepath.Join(dir, "image")
	if err := build.WriteImage(ctx, name, v.disk, v.disk.Size, imagefile.Options{Format: v.disk.Format, Time: v.Lock.Epoch}); err != nil {
		return err
	}
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	sum, _, err := digest.Reader(f)
	if err == nil && sum != v.report.Image.SHA256 {
		err = fmt.Errorf("the %s around the disk is not as Caisson writes it", v.disk.Format)
	}
	return err
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

// equivalentESP compares two EFI system partitions.
func (v *verification) equivalentESP(image, rebuild *io.SectionReader) ([]Exception, error) {
	theirs, err := fat.Open(image, image.Size())
	if err != nil {
		return nil, err
	}
	files, o, err := esp.Read(rebuild, rebuild.Size())
	if err != nil {
		return nil, err
	}
	var used []Exception
	for i, f := range files {
		e := v.allowedFor(f.Path)
		if e == nil {
			continue
		}
		content, err := theirs.Lookup(f.Path)
		if err != nil {
			return nil, err
		}
		if err := sameUnsigned(content, f.Content, e.Certificate); err != nil {
			return nil, fmt.Errorf("%s: %w", f.Path, err)
		}
		files[i].Content = content
		done := *e
		done.Function += signatureVersion
		used = append(used, done)
	}
	if len(used) == 0 {
		return nil, errors.New("no exception is for a file of the ESP")
	}
	scratch, err := os.CreateTemp(filepath.Dir(v.rebuildDir), "esp-")
	if err != nil {
		return nil, err
	}
	defer os.Remove(scratch.Name())
	defer scratch.Close()
	if err = esp.Check(image, image.Size(), files, o, scratch); errors.Is(err, esp.ErrOther) {
		err = errors.New("the ESP differs in more than the files that are excepted")
	}
	return used, err
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

// sameUnsigned compares two PE images without their signatures. Where there is
// a certificate, the SHA-256 of its DER, each signature of the image that the
// rebuild does not have is to be by it, and there is to be one.
func sameUnsigned(image, rebuild *io.SectionReader, certificate string) error {
	a, err := uki.Split(image, image.Size())
	if err != nil {
		return err
	}
	b, err := uki.Split(rebuild, rebuild.Size())
	if err != nil {
		return err
	}
	same, err := esp.SameBytes(a.Unsigned(), b.Unsigned())
	if err != nil {
		return err
	}
	if !same {
		return errors.New("it differs in more than its signature")
	}
	if certificate == "" {
		return nil
	}
	hash, err := esp.Hash(a)
	if err != nil {
		return err
	}
	found := false
	for _, der := range a.Signatures {
		if slices.ContainsFunc(b.Signatures, func(s []byte) bool { return bytes.Equal(s, der) }) {
			continue
		}
		s, err := authenticode.Open(der, hash[:])
		if err != nil {
			return err
		}
		if got := digest.Of(s.Signer.Raw).Hex(); got != certificate {
			return fmt.Errorf("it is signed by %q with the certificate %s, the exception is for %s", s.Signer.Subject, got, certificate)
		}
		found = true
	}
	if !found {
		return fmt.Errorf("it is not signed with the certificate %s", certificate)
	}
	return nil
}
