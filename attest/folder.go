package attest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"caisson/attest/slsa"
	"caisson/build"
	"caisson/lock"
	"caisson/lock/digest"
	"caisson/verify"
)

// maxJSON is the largest of the folder's descriptions that is read, in bytes:
// files.json of 60,000 files is a fifteenth of it.
const maxJSON = 256 << 20

// imageJSON is image.json as far as it is looked at.
type imageJSON struct {
	build.Image
	PCRs map[string]map[string]string `json:"pcrs"`
}

// measurementsJSON is measurements.json as podvm-measure.sh writes it.
type measurementsJSON struct {
	Measurements map[string]map[string]string `json:"measurements"`
}

// folder is an output folder, read.
type folder struct {
	dir          string
	image        imageJSON
	disk         build.Output // the image's file, by its bytes
	files        []build.File
	evidence     build.Evidence
	measurements measurementsJSON
	raw          []byte // measurements.json
	report       *verify.Report
	reportDigest digest.Digest
	// manifest is the digest of the OCI image as which the disk is pushed, and
	// repository where to, where that is known.
	manifest   digest.Digest
	repository string
	// byproducts are the files beside the image, by their bytes.
	byproducts []slsa.Resource
}

// readFolder reads an output folder and sums its files.
func readFolder(ctx context.Context, dir string) (*folder, error) {
	f := &folder{dir: dir}
	sums := map[string]digest.Digest{}
	for _, r := range []struct {
		name string
		into any
	}{
		{"image.json", &f.image},
		{"files.json", &f.files},
		{"evidence.json", &f.evidence},
		{"measurements.json", &f.measurements},
	} {
		if r.name == "measurements.json" && f.image.IsArchive() {
			continue
		}
		b, err := readJSON(filepath.Join(dir, r.name), r.into)
		if err != nil {
			return nil, err
		}
		sums[r.name] = digest.Of(b)
		if r.name == "measurements.json" {
			f.raw = b
		}
	}
	var report verify.Report
	switch b, err := readJSON(filepath.Join(dir, "report.json"), &report); {
	case err == nil:
		f.report, f.reportDigest = &report, digest.Of(b)
		sums["report.json"] = f.reportDigest
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	if len(f.image.Files) == 0 {
		return nil, refuse(ErrFolder, "image.json lists no file")
	}
	for i, want := range f.image.Files {
		got, err := sumFile(ctx, dir, want.Name)
		if err != nil {
			return nil, err
		}
		if got != want {
			return nil, refuse(ErrFolder, "%s has %d bytes and is %s, image.json says %d bytes and %s",
				want.Name, got.Size, got.SHA256, want.Size, want.SHA256)
		}
		if i == 0 {
			f.disk = got
			continue
		}
		if sum, ok := sums[got.Name]; ok && sum != got.SHA256 {
			return nil, refuse(ErrFolder, "%s changes while it is read", got.Name)
		}
		sums[got.Name] = got.SHA256
	}
	for _, name := range []string{"files.json", "evidence.json"} {
		if !f.lists(name) {
			return nil, refuse(ErrFolder, "image.json does not list %s", name)
		}
	}
	f.setByproducts(sums)
	return f, nil
}

func (f *folder) lists(name string) bool {
	for _, o := range f.image.Files {
		if o.Name == name {
			return true
		}
	}
	return false
}

func (f *folder) setByproducts(sums map[string]digest.Digest) {
	delete(sums, "report.json") // the verification's, not the build's
	for _, name := range slices.Sorted(maps.Keys(sums)) {
		f.byproducts = append(f.byproducts, slsa.File(name, sums[name]))
	}
}

// subject is the image as the subject of statements.
func (f *folder) subject() slsa.Image {
	return slsa.Image{File: slsa.File(f.disk.Name, f.disk.SHA256), Manifest: f.manifest, Repository: f.repository}
}

// check compares the folder's descriptions with the lock and each other.
func (f *folder) check(l *lock.Lock, lockDigest digest.Digest) error {
	if f.image.Name != l.Name {
		return refuse(ErrFolder, "image.json names the image %q, the lock %q", f.image.Name, l.Name)
	}
	if _, ok := l.ImageFor(f.image.Variant); !ok {
		return refuse(ErrFolder, "image.json is of the variant %q, which the lock does not have", f.image.Variant)
	}
	if f.image.IsArchive() != l.IsArchive() {
		return refuse(ErrFolder, "image.json and the lock do not say the same of whether %s is a disk or an archive", f.disk.Name)
	}
	if f.image.Epoch != l.Epoch {
		return refuse(ErrFolder, "image.json has the epoch %d, the lock %d", f.image.Epoch, l.Epoch)
	}
	if f.evidence.Lock != lockDigest {
		return refuse(ErrLock, "evidence.json names the lock %s, and the lock given is %s", f.evidence.Lock, lockDigest)
	}
	if f.report == nil {
		return nil
	}
	r := f.report
	switch {
	case r.Lock != lockDigest:
		return refuse(ErrLock, "report.json names the lock %s, and the lock given is %s", r.Lock, lockDigest)
	case r.Image.SHA256 != f.disk.SHA256:
		return refuse(ErrFolder, "report.json is about %s, and %s is %s", r.Image.SHA256, f.disk.Name, f.disk.SHA256)
	case r.Name != f.image.Name || r.Variant != f.image.Variant:
		return refuse(ErrFolder, "report.json is about %q, variant %q, image.json about %q, variant %q",
			r.Name, r.Variant, f.image.Name, f.image.Variant)
	}
	return verdictFollows(r)
}

// measure derives the measurements once more and compares them.
func (f *folder) measure(ctx context.Context, measure func(context.Context, string) (Measured, error)) (Measured, error) {
	if f.image.IsArchive() { // nothing boots it; pack reads it
		return Measured{}, nil
	}
	m, err := measure(ctx, filepath.Join(f.dir, f.disk.Name))
	if err != nil {
		return Measured{}, fmt.Errorf("measuring %s: %w", f.disk.Name, err)
	}
	if m.RootHash != f.image.RootHash {
		return Measured{}, refuse(ErrFolder, "%s has the root hash %q, image.json says %q", f.disk.Name, m.RootHash, f.image.RootHash)
	}
	if !maps.EqualFunc(m.PCRs, f.image.PCRs, maps.Equal) {
		return Measured{}, refuse(ErrFolder, "from the bytes of %s follow the PCRs %v, image.json says %v", f.disk.Name, m.PCRs, f.image.PCRs)
	}
	if !bytes.Equal(m.Measurements, f.raw) {
		return Measured{}, refuse(ErrFolder, "from the bytes of %s follows another measurements.json: got %s, want %s",
			f.disk.Name, bytes.TrimSpace(f.raw), bytes.TrimSpace(m.Measurements))
	}
	if r := f.report; r != nil {
		if r.RootHash != "" && r.RootHash != m.RootHash {
			return Measured{}, refuse(ErrFolder, "%s has the root hash %q, report.json says %q", f.disk.Name, m.RootHash, r.RootHash)
		}
		for _, n := range slices.Sorted(maps.Keys(r.PCRs)) {
			if got := m.PCRs["sha256"][n]; got != r.PCRs[n] {
				return Measured{}, refuse(ErrFolder, "PCR %s of %s is %q, report.json says %q", n, f.disk.Name, got, r.PCRs[n])
			}
		}
	}
	return m, nil
}

// readJSON reads a file and returns its bytes as well.
func readJSON(path string, v any) ([]byte, error) {
	b, err := readLimited(path, maxJSON)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	return b, nil
}

// sumFile sums a file of the folder; its name must be a plain one.
func sumFile(ctx context.Context, dir, name string) (build.Output, error) {
	if name != filepath.Base(name) || !filepath.IsLocal(name) {
		return build.Output{}, refuse(ErrFolder, "it names the file %q, which is not in it", name)
	}
	in, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return build.Output{}, err
	}
	defer in.Close()
	d, n, err := digest.Reader(reader{ctx, in})
	if err != nil {
		return build.Output{}, fmt.Errorf("reading %s: %w", name, err)
	}
	return build.Output{Name: name, Size: n, SHA256: d}, nil
}

// reader ends when its context does.
type reader struct {
	ctx context.Context // for one call
	r   io.Reader
}

func (r reader) Read(b []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(b)
}
