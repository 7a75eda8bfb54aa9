package verify

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"caisson/build"
	"caisson/lock"
	"caisson/lock/digest"
)

// compareOutputs compares what the lock has made of the image besides the file
// that was verified: disks in other formats, and parts for network boot. What
// is not beside the image is not compared, and named.
func (v *verification) compareOutputs() error {
	var same, missing []string
	for _, name := range v.otherOutputs() {
		again, err := hashFile(filepath.Join(v.rebuildDir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue // the hash tree, where it is in the root's partition
		}
		if err != nil {
			return err
		}
		path := filepath.Join(filepath.Dir(v.Image), name)
		claimed, err := hashFile(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			missing = append(missing, name)
			continue
		case err != nil:
			v.check("outputs", NotChecked, "%v", err)
			return nil
		case claimed == again || v.holdsDisk(path):
			same = append(same, name)
			continue
		}
		v.check("outputs", Failed, "%s is not what the lock makes: got %s, want %s", name, claimed, again)
		return nil
	}
	switch rest := "not beside the image, and not compared: " + strings.Join(missing, ", "); {
	case len(same)+len(missing) == 0:
	case len(same) == 0:
		v.check("outputs", NotAsked, "%s", rest)
	case len(missing) == 0:
		v.check("outputs", Passed, "the same to the bit: %s", strings.Join(same, ", "))
	default:
		v.check("outputs", Passed, "the same to the bit: %s; %s", strings.Join(same, ", "), rest)
	}
	return nil
}

// otherOutputs are the names of the files that the image's outputs have, but
// for the image's own.
func (v *verification) otherOutputs() []string {
	im, _ := v.Lock.ImageFor(v.Variant)
	var names []string
	for _, o := range im.Output {
		if o != v.disk.Format {
			names = append(names, build.OutputFiles(build.ImageName(v.Lock, v.Arch, v.Variant), o)...)
		}
	}
	return names
}

// holdsDisk tells whether a file holds the very disk that was found to be
// equivalent to the rebuild's.
func (v *verification) holdsDisk(path string) bool {
	disks := []string{lock.OutputQcow2, lock.OutputVHD, lock.OutputRaw}
	if len(v.report.functions()) == 0 || !slices.Contains(disks, strings.TrimPrefix(filepath.Ext(path), ".")) {
		return false
	}
	d, err := OpenDisk(path)
	if err != nil {
		return false
	}
	defer d.Close()
	sum, err := d.Digest()
	return err == nil && sum == v.report.Image.Disk
}

func hashFile(name string) (digest.Digest, error) {
	f, err := os.Open(name)
	if err != nil {
		return digest.Digest{}, err
	}
	defer f.Close()
	sum, _, err := digest.Reader(f)
	if err != nil {
		return sum, fmt.Errorf("reading %s: %w", name, err)
	}
	return sum, nil
}
