package measure

import (
	"bytes"
	"encoding/hex"
	"go/build"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-eventlog/tcg"
)

// TestTPMLogs reads the logs of TPMs that go-eventlog is tested with as it
// does.
func TestTPMLogs(t *testing.T) {
	p, err := build.Import("github.com/google/go-eventlog/tcg", ".", build.FindOnly)
	if err != nil {
		t.Fatal(err)
	}
	names, err := filepath.Glob(filepath.Join(p.Dir, "../testdata/eventlogs/tpm/*"))
	if err != nil || len(names) < 10 {
		t.Fatalf("got logs %v, %v", names, err)
	}
	read := 0
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		log, err := ReadLog(bytes.NewReader(b))
		if err != nil {
			t.Logf("%s: %v", filepath.Base(name), err)
			continue
		}
		parsed, err := tcg.ParseEventLog(b, tcg.ParseOpts{})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		n := 0
		for _, e := range parsed.Events(0x0b) {
			if e.UntrustedType() == tcg.NoAction {
				continue
			}
			if n < len(log) && (log[n].PCR != int(e.MRIndex()) || log[n].Digests[Bank] != hex.EncodeToString(e.ReplayedDigest())) {
				t.Errorf("%s: event %d: got %+v, go-eventlog reads %+v", name, n, log[n], e)
			}
			n++
		}
		if n != len(log) {
			t.Errorf("%s: got %d events, go-eventlog reads %d", name, len(log), n)
		}
		read++
	}
	if read < 8 {
		t.Errorf("%d of %d logs were read", read, len(names))
	}
}
