package measure

import (
	"bytes"
	"strings"
	"testing"

	"caisson/build/image/gpt"
)

const appendedID = "11111111-2222-4333-8444-555555555555"

// appended has the hash tree behind the data in one partition, and names it.
func appended(args string) func(d *testDisk) {
	return func(d *testDisk) {
		d.tail = " " + args
		d.change = func(t *gpt.Table) {
			root := &t.Partitions[1]
			root.ID, _ = gpt.ParseGUID(appendedID)
			root.Last = t.Partitions[2].Last
			t.Partitions = t.Partitions[:2]
		}
	}
}

// TestAppended has a hash tree in the root's partition.
func TestAppended(t *testing.T) {
	const both = "systemd.verity_root_data=PARTUUID=" + appendedID + " systemd.verity_root_hash=/dev/disk/by-partuuid/" + appendedID
	options := func(s string) string { return both + " systemd.verity_root_options=" + s }
	for args, want := range map[string]string{
		options("hash-offset=1048576"):                                                "",
		options("panic-on-corruption,hash-offset=1048576"):                            "",
		options("hash-offset=0000001048576"):                                          `at "0000001048576": want bytes, in decimal`,
		options("hash-offset=0") + " systemd.verity_root_options=hash-offset=1048576": "",
		both:                                              "no verity superblock",
		options("hash-offset=4096"):                       "no verity superblock",
		options("hash-offset=1048577"):                    "at 1048577 of a partition of 2097152 bytes",
		options("hash-offset=-512"):                       "at -512 of a partition",
		options("hash-offset=2097152"):                    "at 2097152 of a partition",
		options("hash-offset=1M"):                         `at "1M": want bytes`,
		options("hash-offset=1048576,superblock=no"):      `the option "superblock=no" for the root`,
		options("hash-offset=1048576,data-blocks=10"):     `the option "data-blocks=10" for the root`,
		"systemd.verity_root_options=hash-offset=1048576": "no root-verity partition (type 2c7357ed",
		strings.ReplaceAll(options("hash-offset=1048576"), "PARTUUID=", "PARTLABEL="):  "only ids are supported",
		strings.ReplaceAll(options("hash-offset=1048576"), appendedID[:8], "99999999"): "which there is not",
	} {
		b := newDisk(appended(args)).write(t)
		r, err := Disk(bytes.NewReader(b), int64(len(b)))
		switch {
		case want == "" && err != nil:
			t.Errorf("%s: %v", args, err)
		case want == "" && len(r.RootHash) != 64:
			t.Errorf("%s: root hash %q", args, r.RootHash)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: got %v, want an error with %q", args, err, want)
		}
	}
}
