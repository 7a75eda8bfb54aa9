package verify

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"caisson/build"
	"caisson/build/image/ocilayout"
	"caisson/lock"
	"caisson/lock/digest"
)

// Archive is an image file that is no disk: a root in a tar archive, or a
// container image in one.
type Archive struct {
	Size   int64  // bytes
	Format string // lock.OutputOCI or lock.OutputTar
	// OCI is the container image; nil for a root.
	OCI  *ocilayout.Image
	file *os.File
}

// IsArchive tells whether a file is an archive and no disk.
func IsArchive(name string) (bool, error) {
	f, err := os.Open(name)
	if err != nil {
		return false, err
	}
	defer f.Close()
	return ocilayout.IsTar(f), nil
}

// OpenArchive opens an archive.
func OpenArchive(name string) (*Archive, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	a := &Archive{file: f, Format: lock.OutputTar}
	if a.Size, err = f.Seek(0, io.SeekEnd); err == nil && ocilayout.Is(f, a.Size) {
		a.Format = lock.OutputOCI
		a.OCI, err = ocilayout.Open(f, a.Size)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return a, nil
}

// Close closes the file.
func (a *Archive) Close() error { return a.file.Close() }

// ReadAt reads the file.
func (a *Archive) ReadAt(b []byte, off int64) (int, error) { return a.file.ReadAt(b, off) }

// Manifest is the digest of a container image's manifest; nil for a root.
func (a *Archive) Manifest() (*digest.Digest, error) {
	if a.OCI == nil {
		return nil, nil
	}
	d, err := digest.Parse(a.OCI.Digest)
	return &d, err
}

// describeArchive writes image.json of archives, once they have been found to
// be what the build says.
func describeArchive(dir string, img *build.Image) (*Description, error) {
	name := filepath.Join(dir, img.Files[0].Name)
	a, err := OpenArchive(name)
	if err != nil {
		return nil, err
	}
	defer a.Close()
	m, err := a.Manifest()
	if err != nil {
		return nil, err
	}
	if (m == nil) != (img.Manifest == nil) || m != nil && *m != *img.Manifest {
		return nil, fmt.Errorf("%s: the manifest in it is %v, the build's is %v", name, m, img.Manifest)
	}
	return &Description{Image: *img}, writeJSON(filepath.Join(dir, imageFile), img)
}
