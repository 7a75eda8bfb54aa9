package ovmf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"strings"
	"testing"
	"testing/iotest"

	"caisson/build/image/gpt"
	"caisson/verify/measure/ovmf/ovmftest"
)

func guid(t testing.TB, s string) gpt.GUID {
	g, err := gpt.ParseGUID(s)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

const (
	sevID   = "dc886566-984a-4798-a75e-5585a7bf67cc"
	resetID = "00f771de-1a7e-4fcb-890e-68c77e2fb44e"
)

func sample() []byte {
	return ovmftest.Firmware{Pages: 2, Reset: 0x80b004, Hashes: 0x80f000, SEV: []ovmftest.SEV{{Address: 0x800000, Size: 4096, Kind: 1}, {Address: 0x801000, Size: 4096, Kind: 2}}}.Bytes()
}

func TestRead(t *testing.T) {
	f, err := Read(iotest.HalfReader(bytes.NewReader(sample())))
	if err != nil {
		t.Fatal(err)
	}
	if n, ok := f.Number(guid(t, resetID)); n != 0x80b004 || !ok || f.Base() != 0xffffe000 {
		t.Errorf("got %#x, %v and base %#x", n, ok, f.Base())
	}
	items, ok, err := f.List(guid(t, sevID), "ASEV", 12)
	if err != nil || !ok || len(items) != 2 || binary.LittleEndian.Uint32(items[1]) != 0x801000 {
		t.Errorf("got %x, %v, %v", items, ok, err)
	}
	if _, ok := f.Number(gpt.GUID{1}); ok {
		t.Error("an entry that is not there")
	}
	if items, ok, err := f.List(gpt.GUID{1}, "ASEV", 12); items != nil || ok || err != nil {
		t.Errorf("a list that is not there: %v, %v, %v", items, ok, err)
	}
}

func TestReadRefuses(t *testing.T) {
	for want, change := range map[string]func([]byte) []byte{
		"there is none":                 func(b []byte) []byte { b[len(b)-33]++; return b },
		"firmware of 0 bytes":           func([]byte) []byte { return nil },
		"firmware of 8191 bytes":        func(b []byte) []byte { return b[1:] },
		"it says that it has 9 bytes":   func(b []byte) []byte { b[len(b)-50] = 9; return b },
		"it says that it has 65364":     func(b []byte) []byte { b[len(b)-49] = 255; return b },
		"of 3 bytes":                    func(b []byte) []byte { b[len(b)-50-18] = 3; return b },
		"of 255 bytes":                  func(b []byte) []byte { b[len(b)-50-18] = 255; return b },
		"two entries 7255371f-3a3b-4b0": func(b []byte) []byte { copy(b[len(b)-50-38:], b[len(b)-50-16:len(b)-50]); return b },
		"more than 67108864":            func([]byte) []byte { return make([]byte, maxSize+4096) },
	} {
		if _, err := Read(bytes.NewReader(change(sample()))); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
	if _, err := Read(iotest.ErrReader(os.ErrClosed)); !errors.Is(err, os.ErrClosed) {
		t.Errorf("got %v", err)
	}
}

func TestListRefuses(t *testing.T) {
	at := 2*4096 - 2048
	for want, change := range map[string]func([]byte){
		`it starts with "AS`:              func(b []byte) { b[at+3] = 0 },
		"version 2":                       func(b []byte) { b[at+8] = 2 },
		"65 items":                        func(b []byte) { b[at+12] = 65 },
		"3 items of 12 bytes in 40":       func(b []byte) { b[at+12] = 3 },
		"in 4294967295":                   func(b []byte) { copy(b[at+4:], "\xff\xff\xff\xff") },
		"starts 8 bytes before the end":   func(b []byte) { setDistance(b, 8) },
		"starts 8193 bytes before the en": func(b []byte) { setDistance(b, 8193) },
	} {
		b := sample()
		change(b)
		f, err := Read(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := f.List(guid(t, sevID), "ASEV", 12); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
}

// setDistance changes where the list of SEV-SNP is: the first entry.
func setDistance(b []byte, n uint32) {
	binary.LittleEndian.PutUint32(b[len(b)-32-18-3*22:], n)
}

func FuzzRead(f *testing.F) {
	f.Add(sample())
	for _, name := range []string{"/usr/share/ovmf/OVMF.fd", "/usr/share/OVMF/OVMF_CODE_4M.fd"} {
		if b, err := os.ReadFile(name); err == nil {
			f.Add(b[len(b)-8192:])
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		fw, err := Read(bytes.NewReader(b))
		if err != nil {
			return
		}
		for _, size := range []int{12, 32} {
			for _, letters := range []string{"ASEV", "TDVF"} {
				if items, _, err := fw.List(guid(t, sevID), letters, size); err == nil && len(items) > maxItems {
					t.Errorf("%d items", len(items))
				}
			}
		}
	})
}
