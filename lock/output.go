package lock

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// What Image.Output may have: the disk in a file of some format, and what a
// machine that is booted from a network is given, in files of its own.
const (
	OutputQcow2   = "qcow2"
	OutputRaw     = "raw"
	OutputVHD     = "vhd" // fixed, as Azure takes it
	OutputNetboot = "netboot"
)

// Outputs are all that there are.
func Outputs() []string { return []string{OutputQcow2, OutputRaw, OutputVHD, OutputNetboot} }

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
	}
	if len(outputs) == 1 && outputs[0] == OutputNetboot {
		return 0, errors.New("netboot is taken from a disk: want qcow2, raw or vhd beside it")
	}
	return 0, nil
}
