package fat

import (
	"bytes"
	"encoding/binary"
	"os"
	"strings"
	"testing"
)

// TestRoom lets a file grow to its room, without anything else moving.
func TestRoom(t *testing.T) {
	list := func(n int) []File {
		grown := file("a/grows", strings.Repeat("x", n))
		grown.Room = 5000
		return []File{grown, file("a/behind", "behind"), file("z", "last")}
	}
	at := func(n int, name string) int64 {
		b, err := os.ReadFile(create(t, minSize, list(n), Options{}).Name())
		if err != nil {
			t.Fatal(err)
		}
		f, err := Open(bytes.NewReader(b), minSize)
		if err != nil {
			t.Fatal(err)
		}
		free := binary.LittleEndian.Uint32(b[sector+488:])
		if want := uint32(f.clusters) - uint32((n+sector-1)/sector) - 4; free != want {
			t.Errorf("%d clusters are free, want %d", free, want)
		}
		r, err := f.Lookup(name)
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, r.Size())
		if _, err := r.ReadAt(got, 0); err != nil {
			t.Fatal(err)
		}
		return int64(bytes.Index(b, got))
	}
	for _, name := range []string{"a/behind", "z"} {
		first := at(100, name)
		for _, n := range []int{1, 4000, 5000, 5120} {
			if got := at(n, name); got != first {
				t.Errorf("with %d bytes in the file before it, %s is at %d, not %d", n, name, got, first)
			}
		}
	}
	if a, b := MinSize([]File{{Path: "a", Size: 1, Room: 90 << 20}}), MinSize([]File{{Path: "a", Size: 90 << 20}}); a != b {
		t.Errorf("room for 90 MiB takes %d bytes, 90 MiB take %d", a, b)
	}
	if err := Write(discard{}, minSize, []File{{Path: "a", Room: 34 << 20}}, Options{}); err == nil || !strings.Contains(err.Error(), "the files need") {
		t.Errorf("room that is not there: got %v", err)
	}
}
