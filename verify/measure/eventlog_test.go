package measure

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"testing/iotest"
)

// recordedLog is what OVMF 2022.11 logged when shim 16.1, started by the boot
// option that its fallback had made, started a UKI of systemd-stub 257 with
// an addon.
func recordedLog(t testing.TB) []byte {
	t.Helper()
	b, err := os.ReadFile("testdata/shim.log")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestReadLogRefuses(t *testing.T) {
	whole := recordedLog(t)
	change := func(at int, v byte) []byte {
		b := bytes.Clone(whole)
		b[at] = v
		return b
	}
	start := 32 + int(whole[28]) // of the second event
	for want, b := range map[string][]byte{
		"event log: it is cut short":      whole[:40],
		"event 1: it is cut short":        whole[:start+20],
		"only \"Spec ID Event03\"":        change(32, 'x'),
		"255 algorithms":                  change(32+24, 255),
		"event 1: 17 digests":             change(start+8, 17),
		"which the log's start does not":  change(start+12, 0x77),
		"it extends PCR 99":               change(start, 99),
		"sha256 digest of 16 bytes":       change(32+28+4+2, 16),
		"timeout":                         nil,
		"event log of more than 16777216": make([]byte, maxLog+1),
	} {
		r := iotest.TimeoutReader(iotest.OneByteReader(bytes.NewReader(whole)))
		if b != nil {
			r = bytes.NewReader(b)
		}
		if _, err := ReadLog(r); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
}

func FuzzReadLog(f *testing.F) {
	f.Add(recordedLog(f))
	f.Add(recordedLog(f)[:400])
	f.Fuzz(func(t *testing.T, b []byte) {
		log, err := ReadLog(bytes.NewReader(b))
		if err != nil {
			return
		}
		for _, e := range log {
			if e.PCR < 0 || e.PCR >= numPCRs || len(e.String()) > 8*maxShown+len(e.Data) {
				t.Errorf("got %v", e)
			}
		}
		_ = Departures(&Result{}, Bank, log)
	})
}
