package tdx

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"go/build"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-eventlog/tcg"

	"caisson/verify/measure"
)

// recordedLogs are the logs of TDX machines that google/go-eventlog is tested
// with, by name. They lie beside that module's package, which is an oracle here.
func recordedLogs(t testing.TB) map[string][]byte {
	t.Helper()
	p, err := build.Import("github.com/google/go-eventlog/tcg", ".", build.FindOnly)
	if err != nil {
		t.Fatal(err)
	}
	names, err := filepath.Glob(filepath.Join(p.Dir, "../testdata/eventlogs/ccel/*"))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]byte{}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if len(b) > 1000 { // others are ACPI tables
			all[filepath.Base(name)] = b
		}
	}
	if len(all) < 5 {
		t.Fatalf("got logs %v", names)
	}
	return all
}

func readLog(t testing.TB, b []byte) []measure.LogEvent {
	t.Helper()
	log, err := measure.ReadConfidentialLog(iotest.HalfReader(bytes.NewReader(b)))
	if err != nil {
		t.Fatal(err)
	}
	return log
}

// TestRecordedLogs reads the logs as go-eventlog does, and has the values that
// the machines' quotes had.
func TestRecordedLogs(t *testing.T) {
	for name, b := range recordedLogs(t) {
		log := readLog(t, b)
		parsed, err := tcg.ParseEventLog(b, tcg.ParseOpts{AllowPadding: true})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		n := 0
		for _, e := range parsed.Events(0x0c) {
			if e.UntrustedType() == tcg.NoAction {
				continue
			}
			if got := log[n]; got.PCR != int(e.MRIndex()) || got.Digests[bank] != hex.EncodeToString(e.ReplayedDigest()) || !bytes.Equal(got.Data, e.RawData()) {
				t.Errorf("%s: event %d: got %+v, go-eventlog reads %+v", name, n, got, e)
			}
			n++
		}
		if n != len(log) || n < 15 {
			t.Errorf("%s: got %d events, go-eventlog reads %d", name, len(log), n)
		}
	}
	got := Replay(readLog(t, recordedLogs(t)["cos-113-intel-tdx.bin"]))
	for n, want := range map[string]string{
		"0": "3fa2f61f395b7f5feefb4ec2df61297f109ad8abcd6410c1b7df60f21f37b19297fc35e544039c7e1edece752afd17f6",
		"1": "f62dbc072bd5d3f3438b7b35c39a727f5aea2ffc2473f43723953f530daf62504f0a7944aa62c41a86e8a878c2b122c1",
		"2": "4969684dc87381fc3b3134176c8d8806eaf0a901859f5f70cfae8d17714b46c10a8de219048c9fc09f11f381a6fbe7c1",
		"3": strings.Repeat("0", 96),
	} {
		if got[n] != want {
			t.Errorf("RTMR %s: got %s, want %s", n, got[n], want)
		}
	}
}

// TestMachine compares with what a TDX machine of 8 GiB measured that started
// a kernel directly, with a firmware that had the same sections and empty
// variables as these: RTMR 0 is as predicted up to the separator behind the
// boot options, which an older firmware measures there.
func TestMachine(t *testing.T) {
	log := readLog(t, recordedLogs(t)["CCEL_unpadded.data.bin"])
	r := result("shim", "linux")
	r.Events = append(secureBootOff(t), r.Events[1:]...)
	departures := func(memory uint64) string {
		v, err := Predict(withVars(t), r, Machine{Memory: memory, Before202411: true})
		if err != nil {
			t.Fatal(err)
		}
		var all []string
		for _, d := range Departures(v, log) {
			all = append(all, d.String())
		}
		return strings.Join(all, "\n")
	}
	got := departures(8 << 30)
	for _, want := range []string{
		`event 11, EV_EFI_BOOT_SERVICES_APPLICATION "kernel": RTMR 1, Calling EFI Application from Boot Option: predicted 77a0dab2312b4e1e57a84d865a21e5b2ee8d677a21012ada819d0a98988078d3d740f6346bfe0abaa938ca20439a8d71, measured b575e5`,
		`event 19: RTMR 0, SbatLevel: predicted, nothing was measured`,
		`event 16, EV_EVENT_TAG "LOADED_IMAGE::LoadOptions": RTMR 2, MokList: predicted`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	}
	if strings.Count(got, "\n") != 2 {
		t.Errorf("got\n%s", got)
	}
	if got := departures(0); strings.Contains(got, "hand-off") {
		t.Errorf("without a memory: got\n%s", got)
	}
	if got := departures(4 << 30); !strings.Contains(got, "event 0, EV_EFI_HANDOFF_TABLES2: RTMR 0, hand-off blocks, QEMU's description of the memory: predicted") {
		t.Errorf("with another memory: got\n%s", got)
	}
}

// secureBootOff are the events of PCR 7 on a machine without Secure Boot.
func secureBootOff(t testing.TB) []measure.Event {
	t.Helper()
	var all []measure.Event
	for _, v := range [][3]string{ // GUID, name, data
		{"61dfe48bca93d211aa0d00e098032b8c", "SecureBoot", "\x00"},
		{"61dfe48bca93d211aa0d00e098032b8c", "PK"},
		{"61dfe48bca93d211aa0d00e098032b8c", "KEK"},
		{"cbb219d73a3d9645a3bcdad00e67656f", "db"},
		{"cbb219d73a3d9645a3bcdad00e67656f", "dbx"},
	} {
		b, err := hex.DecodeString(v[0])
		if err != nil {
			t.Fatal(err)
		}
		b = binary.LittleEndian.AppendUint64(b, uint64(len(v[1])))
		b = binary.LittleEndian.AppendUint64(b, uint64(len(v[2])))
		for _, c := range v[1] {
			b = binary.LittleEndian.AppendUint16(b, uint16(c))
		}
		all = append(all, measure.Event{PCR: 7, Type: "EV_EFI_VARIABLE_DRIVER_CONFIG", Description: v[1], SHA384: sum(string(b) + v[2])})
	}
	return all
}

// entry is an event of a log.
func entry(register, kind uint32, digest string, data string) []byte {
	le := binary.LittleEndian
	b := le.AppendUint32(le.AppendUint32(nil, register), kind)
	b = le.AppendUint16(le.AppendUint32(b, 1), 0x0c)
	d, err := hex.DecodeString(digest)
	if err != nil {
		panic(err)
	}
	b = le.AppendUint32(append(b, d...), uint32(len(data)))
	return append(b, data...)
}

// TestAsPredicted has the log of a machine that does what is predicted, and
// how it departs when an event is missing, other, or too many.
func TestAsPredicted(t *testing.T) {
	v, err := Predict(withVars(t), result("shim", "systemd-stub", "linux"), Machine{Memory: 2 << 30})
	if err != nil {
		t.Fatal(err)
	}
	types := map[string]uint32{evSeparator: 4, evTag: 6, evFlags: 0xa, "EV_IPL": 0xd, evHandoff: 0x8000000b, evBlob: 0x8000000a, evBoot: 0x80000002}
	var log []measure.LogEvent
	for _, e := range v.Events {
		digest := e.Digest
		if digest == "" {
			digest = sum("this machine's")
		}
		le := measure.LogEvent{PCR: e.RTMR + 1, Type: e.Type, Digests: map[string]string{bank: digest}}
		if log = append(log, le); e.Several {
			log = append(log, le, le)
		}
	}
	if got := Departures(v, log); len(got) != 0 {
		t.Errorf("got %v", got)
	}
	bytesOf := recordedLogs(t)["CCEL_unpadded.data.bin"][:32+33]
	for _, e := range log {
		bytesOf = append(bytesOf, entry(uint32(e.PCR), types[e.Type], e.Digests[bank], "")...)
	}
	for _, pad := range []string{"", "\x00", strings.Repeat("\xff", 5000), strings.Repeat("\x00", 5000)} {
		if got := Replay(readLog(t, append(bytes.Clone(bytesOf), pad...))); got["1"] != v.RTMRs["1"] || got["2"] != v.RTMRs["2"] {
			t.Errorf("got %v, want %v", got, v.RTMRs)
		}
	}
	if _, err := measure.ReadLog(bytes.NewReader(append(bytes.Clone(bytesOf), make([]byte, 5000)...))); err == nil {
		t.Error("a TPM's log may end with zeros")
	}
	last := len(log) - 1 // Exit Boot Services
	other := append([]measure.LogEvent{}, log...)
	other[last].Digests = map[string]string{bank: sum("other")}
	for want, l := range map[string][]measure.LogEvent{
		"RTMR 1, Exit Boot Services Invocation: predicted, nothing was measured":                                     log[:last],
		"RTMR 1: measured " + log[last].Digests[bank] + ", nothing was predicted":                                    append(log[:last:last], log[last], log[last]),
		"RTMR 1, Exit Boot Services Invocation: predicted " + v.Events[last-2].Digest + ", measured " + sum("other"): other,
		"event 0: RTMR 0, hand-off blocks":                                                                           nil,
	} {
		if got := Departures(v, l); len(got) == 0 || !strings.Contains(got[0].String(), want) {
			t.Errorf("got %v, want %q", got, want)
		}
	}
}

func FuzzConfidentialLog(f *testing.F) {
	for _, b := range recordedLogs(f) {
		f.Add(bytes.TrimRight(b, "\xff\x00"))
		f.Add(b[:min(len(b), 3000)])
	}
	v, err := Predict(withVars(f), result("shim", "systemd-stub", "linux"), Machine{Memory: 2 << 30})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		log, err := measure.ReadConfidentialLog(bytes.NewReader(b))
		if err != nil {
			return
		}
		for _, d := range Departures(v, log) {
			if d.RTMR < 0 || d.RTMR >= registers || d.String() == "" {
				t.Errorf("got %+v", d)
			}
		}
		Replay(log)
	})
}
