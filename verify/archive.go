package verify

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"caisson/build"
	"caisson/build/image/ocilayout"
	"caisson/lock"
	"caisson/lock/digest"
)

// What an archive is checked for, in place of a disk's bits, and of its root
// hash and measurements.
const (
	checkArchive  = "archive"
	checkContents = "contents"
)

// compared is the name of the comparison with the rebuild.
func (v *verification) compared() string {
	if v.disk.IsArchive() {
		return checkArchive
	}
	return "disk"
}

// rebuiltName is what the rebuild in dir has of the image that is verified.
func (v *verification) rebuiltName(dir string) string {
	return build.OutputFiles(filepath.Join(dir, build.ImageName(v.Lock, v.Arch, v.Variant)), v.disk.Format)[0]
}

// runsAnything tells whether a build of the lock runs a program: an archive of
// overlays alone is made without.
func (v *verification) runsAnything() bool {
	im, _ := v.Lock.ImageFor(v.Variant)
	return !im.IsArchive() || len(v.Lock.Steps)+len(im.Services.Enable)+len(im.Services.Disable) > 0 ||
		len(v.Lock.Of(v.Arch, v.Lock.SetFor(lock.SetRoot, v.Variant))) > 0
}

// openArchive opens an archive.
func openArchive(name string) (*Disk, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	d := &Disk{ReaderAt: f, Format: lock.OutputTar, file: f}
	if d.Size, err = f.Seek(0, io.SeekEnd); err == nil && ocilayout.Is(f, d.Size) {
		d.Format = lock.OutputOCI
		d.OCI, err = ocilayout.Open(f, d.Size)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", name, err), f.Close())
	}
	return d, nil
}

// Manifest is the digest of a container image's manifest; zero for what is none.
func (d *Disk) Manifest() (digest.Digest, error) {
	if d.OCI == nil {
		return digest.Digest{}, nil
	}
	return digest.Parse(d.OCI.Digest)
}

// CheckContents reads an archive to its end: that the blobs of a container image
// are what its manifest and configuration say, and that the root in it can be
// unpacked. It returns the number of the root's entries.
func (d *Disk) CheckContents() (entries int, err error) {
	if d.OCI == nil {
		return countEntries(io.NewSectionReader(d, 0, d.Size))
	}
	if err := d.OCI.Check(); err != nil {
		return 0, err
	}
	for i := range d.OCI.Manifest.Layers {
		r, err := d.OCI.Layer(i)
		if err != nil {
			return 0, err
		}
		n, err := countEntries(r)
		if err != nil {
			return 0, fmt.Errorf("layer %d: %w", i+1, err)
		}
		entries += n
	}
	return entries, nil
}

// countEntries reads a tar archive. It has to have its end, two blocks of zeros
// (POSIX.1, pax), and nothing but zeros behind that.
func countEntries(from io.Reader) (n int, err error) {
	r := &zeroCounter{r: from}
	for t := tar.NewReader(r); ; n++ {
		_, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return n, fmt.Errorf("reading the root behind %d entries: %w", n, err)
		}
	}
	if r.zeros < endOfTar {
		return n, fmt.Errorf("reading the root behind %d entries: %w", n, io.ErrUnexpectedEOF)
	}
	before := r.zeros
	rest, err := io.Copy(io.Discard, r)
	if err == nil && r.zeros-before != rest {
		err = errors.New("there is something behind the end of the root's archive")
	}
	return n, err
}

// endOfTar is how many zeros end a tar archive.
const endOfTar = 2 * 512

// zeroCounter counts the zeros at the end of what has been read.
type zeroCounter struct {
	r     io.Reader
	zeros int64
}

func (z *zeroCounter) Read(b []byte) (int, error) {
	n, err := z.r.Read(b)
	at := n
	for at > 0 && b[at-1] == 0 {
		at--
	}
	if at > 0 {
		z.zeros = 0
	}
	z.zeros += int64(n - at)
	return n, err
}

// readContents derives again, from the bytes, what an archive says of itself,
// and compares it with what its builder says, where that is at hand.
func (v *verification) readContents() {
	v.say("reading the archive's contents")
	n, err := v.disk.CheckContents()
	if err == nil {
		v.report.Image.Manifest, err = v.disk.Manifest()
	}
	if err != nil {
		v.check(checkContents, Failed, "%v", err)
		return
	}
	found := fmt.Sprintf("%d files and folders can be read", n)
	m := v.report.Image.Manifest
	if v.disk.OCI != nil {
		found = fmt.Sprintf("manifest %s, and every blob is what it and the configuration say; %s", m, found)
	}
	var claimed Description
	err = readJSON(filepath.Join(filepath.Dir(v.Image), imageFile), &claimed)
	switch {
	case errors.Is(err, os.ErrNotExist) || v.disk.OCI == nil:
		v.check(checkContents, Passed, "%s", found)
	case err != nil:
		v.check(checkContents, NotChecked, "%v", err)
	case claimed.Manifest == nil || *claimed.Manifest != m:
		v.check(checkContents, Failed, "%s names another manifest than the archive, whose is %s", imageFile, m)
	default:
		v.check(checkContents, Passed, "%s; equal to %s", found, imageFile)
	}
}

// describeArchive writes image.json of archives, once the first has been found
// to be what the build says.
func describeArchive(dir string, img *build.Image) (*Description, error) {
	name := filepath.Join(dir, img.Files[0].Name)
	d, err := openArchive(name)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	m, err := d.Manifest()
	if err != nil {
		return nil, err
	}
	if want := img.Manifest; m.IsZero() != (want == nil) || want != nil && m != *want {
		return nil, fmt.Errorf("%s: the manifest in it is %v, the build's is %v", name, m, want)
	}
	return &Description{Image: *img}, writeJSON(filepath.Join(dir, imageFile), img)
}
