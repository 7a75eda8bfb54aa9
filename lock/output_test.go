package lock

import (
	"bytes"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// TestTreeAndOutput merges variants.
func TestTreeAndOutput(t *testing.T) {
	im, v := resolvedImages(t, "image: {verity: {tree: appended}, output: [vhd, netboot]}\nvariants: {v: {image: {verity: {bind: addon}}}}\n")
	if im.Tree != TreeAppended || v.Tree != TreeAppended || im.Verity != VerityUKI || v.Verity != VerityAddon || !slices.Equal(v.Output, []string{"vhd", "netboot"}) {
		t.Errorf("got %+v and %+v", im, v)
	}
	im, v = resolvedImages(t, "image: {verity: {tree: appended}}\nvariants: {v: {image: {verity: {tree: partition}, output: [raw]}}}\n")
	if im.Tree != TreeAppended || v.Tree != "" || !slices.Equal(im.Output, []string{"qcow2"}) || !slices.Equal(v.Output, []string{"raw"}) {
		t.Errorf("got %+v and %+v", im, v)
	}
}

// TestParseLockOutput edits locks.
func TestParseLockOutput(t *testing.T) {
	l := sample()
	l.Image.Tree, l.Image.Output = TreeAppended, []string{OutputVHD, OutputNetboot}
	good := format(t, l)
	if got, err := Parse("l", good); err != nil || !reflect.DeepEqual(got, l) {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, tt := range []struct{ old, new, want string }{
		{`"tree": "appended"`, `"tree": "partition"`, `tree "partition" is not known to this Caisson`},
		{`"vhd"`, `"../x"`, `output of the image: got "../x"; want qcow2, raw, vhd, netboot, oci or tar`},
		{`"vhd"`, `"netboot"`, `"netboot" is there twice`},
	} {
		if _, err := Parse("l", bytes.Replace(good, []byte(tt.old), []byte(tt.new), 1)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want an error with %q", tt.new, err, tt.want)
		}
	}
}
