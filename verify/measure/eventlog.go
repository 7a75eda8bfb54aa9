package measure

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf16"
)

// LogEvent is an event of a firmware's log.
type LogEvent struct {
	PCR     int
	Type    string            // as Event has it; a number in hex where it is another
	Digests map[string]string // hex, by bank; of Banks only
	Data    []byte            // what the firmware noted of the event
}

// Bounds for a log: that of a boot has some hundred events and is below
// 100 KiB.
const (
	maxLog        = 16 << 20
	maxAlgorithms = 16
	numPCRs       = 24
)

const typeNoAction = 3

// eventTypeName is the name of an event's type (TCG PC Client Platform Firmware
// Profile, table "Events").
func eventTypeName(t uint32) string {
	switch t {
	case 1:
		return "EV_POST_CODE"
	case 4:
		return evSeparator
	case 6:
		return evTag
	case 0xa:
		return "EV_PLATFORM_CONFIG_FLAGS"
	case 0xd:
		return evIPL
	case 0x80000001:
		return evVariable
	case 0x80000002:
		return evBootOption
	case 0x80000003:
		return evBoot
	case 0x80000006:
		return evGPT
	case 0x80000007:
		return evAction
	case 0x8000000a:
		return "EV_EFI_PLATFORM_FIRMWARE_BLOB2"
	case 0x8000000b:
		return "EV_EFI_HANDOFF_TABLES2"
	case 0x800000e0:
		return evAuthority
	}
	return fmt.Sprintf("%#x", t)
}

// algorithmBank is the bank of an algorithm ("TPM_ALG_ID Constants"); "" if it
// is not one of Banks.
func algorithmBank(id uint16) string {
	switch id {
	case 0x000b:
		return Bank
	case 0x000c:
		return "sha384"
	case 0x000d:
		return "sha512"
	}
	return ""
}

// ReadLog reads a log of the crypto-agile form (TCG PC Client Platform
// Firmware Profile, section "TCG_PCR_EVENT2 Structure"), as Linux shows it in
// /sys/kernel/security/tpm0/binary_bios_measurements. Events that extend
// nothing are left out.
func ReadLog(r io.Reader) ([]LogEvent, error) { return readLog(r, false) }

// ReadConfidentialLog reads the log of a confidential machine without a TPM, of
// the same form (UEFI 2.10, section 38.4.1), as Linux shows it in
// /sys/firmware/acpi/tables/data/CCEL. It may end with bytes that are all 0 or
// all 255: the log's area is read, not the log. LogEvent.PCR is the measurement
// register's index: 1 to 4 are RTMR 0 to 3 of TDX.
func ReadConfidentialLog(r io.Reader) ([]LogEvent, error) { return readLog(r, true) }

func readLog(r io.Reader, padded bool) ([]LogEvent, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxLog+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxLog {
		return nil, fmt.Errorf("an event log of more than %d bytes", maxLog)
	}
	l := &logReader{b: b}
	sizes, err := l.header()
	if err != nil {
		return nil, fmt.Errorf("event log: %w", err)
	}
	var all []LogEvent
	for n := 1; len(l.b) > 0 && (!padded || !blank(l.b)); n++ {
		e, extends, err := l.event(sizes)
		if err != nil {
			return nil, fmt.Errorf("event log: event %d: %w", n, err)
		}
		if extends {
			all = append(all, *e)
		}
	}
	return all, nil
}

// blank tells whether all bytes are 0, or all are 255.
func blank(b []byte) bool {
	return len(bytes.Trim(b, "\x00")) == 0 || len(bytes.Trim(b, "\xff")) == 0
}

// logReader takes little-endian values off the front of a log.
type logReader struct {
	b     []byte
	short bool
}

func (l *logReader) bytes(n uint32) []byte {
	if uint64(n) > uint64(len(l.b)) {
		l.b, l.short = nil, true
		return nil
	}
	b := l.b[:n]
	l.b = l.b[n:]
	return b
}

func (l *logReader) u16() uint16 {
	if b := l.bytes(2); b != nil {
		return binary.LittleEndian.Uint16(b)
	}
	return 0
}

func (l *logReader) u32() uint32 {
	if b := l.bytes(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

var errShortLog = errors.New("it is cut short")

// header reads the first event, a TCG_PCR_EVENT with a TCG_EfiSpecIDEvent in
// it: the sizes of digests, by algorithm.
func (l *logReader) header() (map[uint16]uint16, error) {
	l.u32() // PCR
	kind := l.u32()
	l.bytes(20)
	spec := &logReader{b: l.bytes(l.u32())}
	if l.short {
		return nil, errShortLog
	}
	if signature := spec.bytes(16); kind != typeNoAction || string(signature) != "Spec ID Event03\x00" {
		return nil, fmt.Errorf("it starts with %q, only \"Spec ID Event03\" is known", signature)
	}
	spec.bytes(8) // platform class, versions, size of UINTN
	count := spec.u32()
	if count > maxAlgorithms {
		return nil, fmt.Errorf("%d algorithms", count)
	}
	sizes := map[uint16]uint16{}
	for range count {
		id := spec.u16()
		sizes[id] = spec.u16()
	}
	if spec.short {
		return nil, errShortLog
	}
	return sizes, nil
}

// event reads a TCG_PCR_EVENT2, and tells whether it extends a PCR.
func (l *logReader) event(sizes map[uint16]uint16) (*LogEvent, bool, error) {
	pcr, kind, count := l.u32(), l.u32(), l.u32()
	if l.short {
		return nil, false, errShortLog
	}
	if count > maxAlgorithms {
		return nil, false, fmt.Errorf("%d digests", count)
	}
	e := &LogEvent{PCR: int(pcr), Type: eventTypeName(kind), Digests: map[string]string{}}
	for range count {
		id := l.u16()
		size, ok := sizes[id]
		if !ok && !l.short {
			return nil, false, fmt.Errorf("digest of the algorithm %#x, which the log's start does not name", id)
		}
		digest := l.bytes(uint32(size))
		if bank := algorithmBank(id); bank != "" {
			if !l.short && len(digest) != newHash(bank).Size() {
				return nil, false, fmt.Errorf("%s digest of %d bytes", bank, len(digest))
			}
			e.Digests[bank] = hex.EncodeToString(digest)
		}
	}
	e.Data = l.bytes(l.u32())
	if l.short {
		return nil, false, errShortLog
	}
	if kind == typeNoAction {
		return nil, false, nil
	}
	if pcr >= numPCRs {
		return nil, false, fmt.Errorf("it extends PCR %d", pcr)
	}
	return e, true, nil
}

// Departure is where a log leaves the prediction: the first event of a PCR
// that was measured otherwise than predicted.
type Departure struct {
	Mismatch
	Position int    `json:"position"`       // in the log, from 0, of the events that extend; its length where it ended too early
	Seen     string `json:"seen,omitempty"` // what the log says that was measured
}

func (d Departure) String() string {
	if d.Seen == "" {
		return fmt.Sprintf("event %d: %v", d.Position, d.Mismatch)
	}
	return fmt.Sprintf("event %d, %s: %v", d.Position, d.Seen, d.Mismatch)
}

// Departures compares a log, up to the start of the kernel, with the
// prediction in one of Banks. For each predicted PCR that departs there is one,
// in the order of the log, so that the first is where the machine first did
// something else. It is empty where all is as predicted.
func Departures(r *Result, bank string, log []LogEvent) []Departure {
	seen := map[int]int{}
	gone := map[int]bool{}
	want := map[int][]Event{}
	for _, e := range r.Events {
		want[e.PCR] = append(want[e.PCR], e)
	}
	checked := map[int]bool{}
	for _, pcr := range comparedPCRs() {
		checked[pcr] = true
	}
	var all []Departure
	for at, e := range log {
		if !checked[e.PCR] || gone[e.PCR] {
			continue
		}
		m := Mismatch{PCR: e.PCR, Index: seen[e.PCR], Measured: e.Digests[bank]}
		if m.Index < len(want[e.PCR]) {
			m.Event, m.Predicted = want[e.PCR][m.Index].Description, want[e.PCR][m.Index].In(bank)
		}
		seen[e.PCR]++
		if m.Predicted != m.Measured || m.Measured == "" {
			gone[e.PCR] = true
			all = append(all, Departure{Mismatch: m, Position: at, Seen: e.String()})
		}
	}
	for _, pcr := range comparedPCRs() {
		if i := seen[pcr]; !gone[pcr] && i < len(want[pcr]) {
			m := Mismatch{PCR: pcr, Index: i, Event: want[pcr][i].Description, Predicted: want[pcr][i].In(bank)}
			all = append(all, Departure{Mismatch: m, Position: len(log)})
		}
	}
	return all
}

// String is what the log says of the event, for people: its type, and a
// variable's name, a file's path or a text where there is one.
func (e LogEvent) String() string {
	text := ""
	switch e.Type {
	case evVariable, evBootOption, evAuthority:
		if len(e.Data) >= 32 {
			n := binary.LittleEndian.Uint64(e.Data[16:])
			text = utf16Text(e.Data[32:][:min(2*n, uint64(len(e.Data)-32))])
		}
	case evBoot:
		text = devicePathFile(e.Data)
	case evTag: // an id, a size, a text; of older kernels the text alone
		text = anyText(e.Data)
		if len(e.Data) >= 8 && int64(binary.LittleEndian.Uint32(e.Data[4:])) == int64(len(e.Data)-8) {
			text = anyText(e.Data[8:])
		}
	case evAction, evIPL:
		text = anyText(e.Data)
	}
	if text == "" {
		return e.Type
	}
	return fmt.Sprintf("%s %q", e.Type, text)
}

// maxShown bounds the text of an event, in bytes.
const maxShown = 200

func anyText(b []byte) string {
	b = b[:min(len(b), maxShown)]
	if len(b) > 1 && b[1] == 0 {
		return utf16Text(b)
	}
	return string(bytes.TrimRight(b, "\x00"))
}

func utf16Text(b []byte) string {
	b = b[:min(len(b), maxShown)]
	var units []uint16
	for i := 0; i+1 < len(b); i += 2 {
		units = append(units, binary.LittleEndian.Uint16(b[i:]))
	}
	return strings.TrimRight(string(utf16.Decode(units)), "\x00")
}

// devicePathFile is the path of the file in an EFI_IMAGE_LOAD_EVENT: the media
// nodes of type file of its device path (UEFI 2.10, section 10.3.5.4).
func devicePathFile(b []byte) string {
	const fields, mediaType, fileType = 32, 4, 4
	if len(b) < fields {
		return ""
	}
	var text string
	for b = b[fields:]; len(b) >= 4; {
		n := int(binary.LittleEndian.Uint16(b[2:]))
		if n < 4 || n > len(b) {
			break
		}
		if b[0] == mediaType && b[1] == fileType {
			text += utf16Text(b[4:n])
		}
		b = b[n:]
	}
	return text
}
