package xz

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"caisson/lock/tooltest"
)

// maxWindow is enough for the highest level of xz.
const maxWindow = 64 << 20

// TestMemory reads blocks that ask for a dictionary of 4 GiB - 1: the first of
// a stream, and the first of a second stream.
func TestMemory(t *testing.T) {
	evil := "\xfd7zXZ\x00\x00\x04crc!\x02\x00\x21\x01\x28\x00\x00\x00crc!\xe0\x00\x00\x00\x00\x00"
	empty := "\xfd7zXZ\x00\x00\x04crc!\x00\x00\x00\x00crc!crc!\x00\x00\x00\x00\x00\x04YZ"
	for _, in := range []string{evil, empty + "\x00\x00\x00\x00" + evil} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := io.ReadAll(NewReader(bufio.NewReader(strings.NewReader(in)), maxWindow))
		runtime.ReadMemStats(&after)
		if err == nil || !strings.Contains(err.Error(), "a dictionary of 4294967295 bytes") {
			t.Errorf("got %v, want an error about the dictionary", err)
		}
		if got := after.TotalAlloc - before.TotalAlloc; got > 1<<20 {
			t.Errorf("a dictionary of 4 GiB: %d bytes allocated", got)
		}
	}
}

// TestXZ reads what the xz tool writes, with every check and with several
// blocks.
func TestXZ(t *testing.T) {
	xz := tooltest.Find(t, "xz")
	var content []byte
	for i := range 20000 {
		content = fmt.Appendf(content, "%d ", i*i)
	}
	for _, args := range [][]string{
		{"-c"}, {"-c", "--check=none"}, {"-c", "--check=crc32"}, {"-c", "--check=sha256", "-9"}, {"-c", "-1", "--block-size=10000"}, {"-c", "-T2", "--block-size=40000"},
	} {
		for _, n := range []int{0, 1, 2, 3, 5, len(content)} {
			cmd := exec.Command(xz, args...)
			cmd.Stdin = bytes.NewReader(content[:n])
			packed, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(NewReader(bufio.NewReaderSize(iotest.HalfReader(bytes.NewReader(packed)), 16), maxWindow))
			if err != nil || !bytes.Equal(got, content[:n]) {
				t.Errorf("xz %v of %d bytes: got %d bytes, %v", args, n, len(got), err)
			}
			twice := io.MultiReader(bytes.NewReader(packed), bytes.NewReader(make([]byte, 8)), bytes.NewReader(packed), bytes.NewReader(make([]byte, 4)))
			if got, err := io.ReadAll(NewReader(bufio.NewReader(twice), maxWindow)); err != nil || !bytes.Equal(got, append(content[:n:n], content[:n]...)) {
				t.Errorf("xz %v of %d bytes, two streams: got %d bytes, %v", args, n, len(got), err)
			}
			for _, cut := range []int{0, 3, 12, 13, len(packed) / 2, len(packed) - 1} {
				if n > 100 {
					if _, err := io.ReadAll(NewReader(bufio.NewReader(bytes.NewReader(packed[:cut])), maxWindow)); !errors.Is(err, io.ErrUnexpectedEOF) {
						t.Errorf("xz %v of %d bytes, cut at %d: got %v", args, n, cut, err)
					}
				}
			}
		}
	}
}

func FuzzReader(f *testing.F) {
	f.Add([]byte("\xfd7zXZ\x00\x00\x04crc!\x02\x00\x21\x01\x08\x00\x00\x00crc!\x01\x00\x00a\x00"))
	f.Add([]byte("\xfd7zXZ\x00\x00\x04crc!\x00\x01\x00\x00crc!crc!\x00\x00\x00\x00\x00\x04YZ"))
	f.Fuzz(func(_ *testing.T, in []byte) {
		_, _ = io.Copy(io.Discard, io.LimitReader(NewReader(bufio.NewReader(bytes.NewReader(in)), 1<<20), 1<<24))
	})
}
