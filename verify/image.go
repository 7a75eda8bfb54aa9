package verify

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"caisson/build"
	"caisson/build/image/ocilayout"
	"caisson/build/imagefile"
	"caisson/lock"
	"caisson/lock/digest"
	"caisson/verify/measure"
)

// Disk is an image file as the disk that it holds. An archive, which holds none,
// is the file as it is.
type Disk struct {
	io.ReaderAt
	Size   int64  // of the disk, in bytes
	Format string // qcow2, vhd or raw; of an archive oci or tar
	// OCI is the container image in an archive that holds one.
	OCI  *ocilayout.Image
	file io.Closer
}

// IsArchive tells whether it is an archive and no disk.
func (d *Disk) IsArchive() bool {
	return d != nil && (d.Format == lock.OutputOCI || d.Format == lock.OutputTar)
}

// OpenImage opens what OpenDisk does, and archives. Of a container image all is
// read but its layers.
func OpenImage(name string) (*Disk, error) {
	d, err := OpenDisk(name)
	if !errors.Is(err, imagefile.ErrArchive) {
		return d, err
	}
	return openArchive(name)
}

// OpenDisk opens a qcow2, a VHD, or a file that is the disk itself. An image
// that is based on other files is refused: it is not the image alone.
func OpenDisk(name string) (*Disk, error) {
	d, err := imagefile.Open(name)
	if err != nil {
		return nil, err
	}
	return &Disk{ReaderAt: d, Size: d.Size(), Format: d.Format, file: d}, nil
}

// Close closes the file.
func (d *Disk) Close() error { return d.file.Close() }

// Digest is the digest of the whole disk.
func (d *Disk) Digest() (digest.Digest, error) {
	sum, _, err := digest.Reader(io.NewSectionReader(d, 0, d.Size))
	return sum, err
}

// Description is image.json: what the build answers for, and what was measured
// from the image's bytes afterwards.
type Description struct {
	build.Image
	Stub string `json:"stub"`
	// PCRs are as the kernel takes over, Phases PCR 11 by boot phase, and
	// Login the phases that this image goes through before a login.
	PCRs        map[string]map[string]string            `json:"pcrs"`
	Phases      map[string]map[string]map[string]string `json:"phases"`
	Login       []string                                `json:"loginPhases"`
	Events      []measure.Event                         `json:"events"`
	Assumptions []string                                `json:"assumptions"`
}

// Names of the files of an output folder.
const (
	imageFile        = "image.json"
	measurementsFile = "measurements.json"
	evidenceFile     = "evidence.json"
	filesFile        = "files.json"
	reportFile       = "report.json"
	reportPage       = "report.html"
)

// Describe measures the image that a build left in dir, from its bytes, and
// writes measurements.json and, last of all, image.json. An archive is not
// measured: it is read.
func Describe(dir string, img *build.Image) (*Description, error) {
	if img.IsArchive() {
		return describeArchive(dir, img)
	}
	m, phases, err := Measure(filepath.Join(dir, img.Files[0].Name))
	if err != nil {
		return nil, err
	}
	if m.RootHash != img.RootHash {
		return nil, fmt.Errorf("%s: the root hash of its bytes is %s, the build's is %s", img.Files[0].Name, m.RootHash, img.RootHash)
	}
	b, err := m.MeasurementsJSON(phases)
	if err != nil {
		return nil, err
	}
	if err := writeFile(filepath.Join(dir, measurementsFile), b); err != nil {
		return nil, err
	}
	d := &Description{
		Image: *img, Stub: m.Stub, PCRs: m.PCRs, Phases: m.Phases, Login: phases, Events: m.Events, Assumptions: m.Assumptions,
	}
	d.Files = append(d.Files, build.Output{Name: measurementsFile, Size: int64(len(b)), SHA256: digest.Of(b)})
	return d, writeJSON(filepath.Join(dir, imageFile), d)
}

// Measure predicts what the image at name will measure, and says which boot
// phases its systemd extends PCR 11 by before a login: it looks into the root.
func Measure(name string) (*measure.Result, []string, error) {
	return MeasureOn(measure.Platform{}, name)
}

// MeasureOn is Measure for a machine with such firmware settings.
func MeasureOn(platform measure.Platform, name string) (*measure.Result, []string, error) {
	var phases []string
	m, err := predict(platform, name, func(d *Disk, m *measure.Result) (err error) {
		phases, err = bootPhases(d, m.UKI)
		return err
	})
	return m, phases, err
}

// Predict predicts what the image at name will measure, whatever file system
// its root has.
func Predict(name string) (*measure.Result, error) { return PredictOn(measure.Platform{}, name) }

// PredictOn is Predict for a machine with such firmware settings.
func PredictOn(platform measure.Platform, name string) (*measure.Result, error) {
	return predict(platform, name, func(*Disk, *measure.Result) error { return nil })
}

func predict(platform measure.Platform, name string, more func(*Disk, *measure.Result) error) (*measure.Result, error) {
	d, err := OpenDisk(name)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	m, err := measure.DiskOn(platform, d, d.Size)
	if err == nil {
		err = more(d, m)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return m, nil
}

// ReadDescription reads the image.json of an output folder.
func ReadDescription(dir string) (*Description, error) {
	var d Description
	if err := readJSON(filepath.Join(dir, imageFile), &d); err != nil {
		return nil, err
	}
	return &d, nil
}

// maxJSON is the largest description read, in bytes.
const maxJSON = 256 << 20

func readJSON(name string, v any) error {
	st, err := os.Stat(name)
	if err != nil {
		return err
	}
	if st.Size() > maxJSON {
		return fmt.Errorf("%s: %d bytes, more than the %d that are read", name, st.Size(), maxJSON)
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

func writeJSON(name string, v any) error {
	var sb strings.Builder
	enc := json.NewEncoder(&sb)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	return writeFile(name, []byte(sb.String()))
}

// writeFile replaces a file, under a temporary name until it is whole.
func writeFile(name string, b []byte) error {
	tmp := name + ".part"
	if err := os.WriteFile(tmp, b, 0o644); err != nil {
		return err
	}
	if err := os.Rename(tmp, name); err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	return nil
}
