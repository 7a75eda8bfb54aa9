package lock

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// What Image.Output may have: the disk in a file of some format, and what a
// machine that is booted from a network is given, in files of its own; or the
// root in an archive, which no machine boots.
const (
	OutputQcow2   = "qcow2"
	OutputRaw     = "raw"
	OutputVHD     = "vhd" // fixed, as Azure takes it
	OutputNetboot = "netboot"
	OutputOCI     = "oci" // a container image
	OutputTar     = "tar"
)

// Outputs are all that there are.
func Outputs() []string {
	return []string{OutputQcow2, OutputRaw, OutputVHD, OutputNetboot, OutputOCI, OutputTar}
}

// isArchive tells an output that is no disk.
func isArchive(output string) bool { return output == OutputOCI || output == OutputTar }

// IsArchive tells an image that is the root in an archive, with no machine to
// boot it, from a disk.
func (i *Image) IsArchive() bool { return slices.ContainsFunc(i.Output, isArchive) }

// IsArchive tells a lock whose image, and with it each of its variants, is no
// disk.
func (l *Lock) IsArchive() bool { return l.Image.IsArchive() }

// checkOutput says what is wrong with a list of outputs, and with which.
func checkOutput(outputs []string) (int, error) {
	for i, o := range outputs {
		if !slices.Contains(Outputs(), o) {
			all := Outputs()
			return i, fmt.Errorf("got %q; want %s or %s", o, strings.Join(all[:len(all)-1], ", "), all[len(all)-1])
		}
		if slices.Contains(outputs[:i], o) {
			return i, fmt.Errorf("%q is there twice", o)
		}
		if isArchive(o) != isArchive(outputs[0]) {
			return i, fmt.Errorf("%s and %s are not of one image: a disk has a kernel and a root hash, and an archive (oci, tar) has neither; make two manifests", outputs[0], o)
		}
	}
	if len(outputs) == 1 && outputs[0] == OutputNetboot {
		return 0, errors.New("netboot is taken from a disk: want qcow2, raw or vhd beside it")
	}
	return 0, nil
}
