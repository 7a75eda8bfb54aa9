package boot

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/iotest"

	"caisson/verify/measure"
)

// recorded is a part of what swtpm 0.7.1 logged when a unified kernel image
// was booted: its start, and the extensions of PCR 4, 5, 9 and 11.
func recorded(t testing.TB) []byte {
	t.Helper()
	b, err := os.ReadFile("testdata/swtpm-0.7.1.log")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestRecordedLog compares with the values that the guest read from its TPM.
func TestRecordedLog(t *testing.T) {
	extends, err := parseLog(iotest.HalfReader(bytes.NewReader(recorded(t))))
	if err != nil {
		t.Fatal(err)
	}
	banks := byBank(extends)
	byPCR := banks[measure.Bank].Login
	for pcr, want := range map[int]string{
		4:  "4e15edd33208d7d58837bfe8e29f2a9cec9e3f65786444edd888e4899883dd95",
		5:  "d115fa436228d438771fe929a58e4d20b01468e2c27c93fbf0015c3ea5db6650",
		9:  "89938545aa541c2655db527569f69bb91c46d66aee8156013c52bd2f8806e618",
		11: "24698bc391ec29a05075e2f15a9a5d3fc29ce21afc6a801c6f5023093459a77f",
	} {
		if got := measure.Replay(byPCR[pcr]); got != want {
			t.Errorf("PCR %d is %s, want %s", pcr, got, want)
		}
	}
	for _, bank := range measure.Banks() {
		x := banks[bank]
		if last := x.Login[5][len(x.Login[5])-1]; last != exitBootServices()[bank] {
			t.Errorf("%s: the last event of PCR 5 is %s, want that of ExitBootServices", bank, last)
		}
		if len(x.Login[9]) != len(byPCR[9]) || len(x.Takeover[5]) != len(byPCR[5]) || x.PCRs[9] == "" {
			t.Errorf("%s: got %d events of PCR 9, want %d", bank, len(x.Login[9]), len(byPCR[9]))
		}
	}
}

// logged makes a log of messages.
func logged(messages ...any) string {
	var b strings.Builder
	for i := 0; i < len(messages); i += 2 {
		data := messages[i+1].([]byte)
		fmt.Fprintf(&b, " %s: length %d\n", messages[i], len(data))
		for len(data) > 0 {
			n := min(16, len(data))
			fmt.Fprintf(&b, " % X \n", data[:n])
			data = data[n:]
		}
	}
	return b.String()
}

const (
	command  = "SWTPM_IO_Read"
	response = "SWTPM_IO_Write"
)

// message makes a command or response: tag, size, code, rest.
func message(tag uint16, code uint32, rest ...any) []byte {
	var body []byte
	for _, v := range rest {
		body, _ = binary.Append(body, binary.BigEndian, v)
	}
	b := binary.BigEndian.AppendUint16(nil, tag)
	b = binary.BigEndian.AppendUint32(b, uint32(headerSize+len(body)))
	b = binary.BigEndian.AppendUint32(b, code)
	return append(b, body...)
}

func digest(c byte) []byte { return bytes.Repeat([]byte{c}, 32) }

var (
	success   = message(0x8001, 0)
	passwords = append([]byte{0, 0, 0, 9, 0x40, 0, 0, 9}, make([]byte, 5)...) // an authorisation area
)

func extendCommand(pcr uint32, c byte) []byte {
	return message(tagSessions, ccPCRExtend, pcr, passwords, uint32(2), uint16(0x0004), make([]byte, 20), uint16(algSHA256), digest(c))
}

func TestLog(t *testing.T) {
	start := []any{command, message(0x8001, ccStartup, uint16(startupClear)), response, success}
	text := func(c byte) string { return fmt.Sprintf("%x", digest(c)) }
	event := message(tagSessions, 0, uint32(38), uint32(1), uint16(algSHA256), digest(7))
	for _, c := range []struct {
		name string
		log  string
		want []extend
	}{
		{"extend", logged(append(start, command, extendCommand(4, 1), response, success)...), []extend{{4, text(1), measure.Bank}}},
		{"refused", logged(append(start, command, extendCommand(4, 1), response, message(0x8001, 0x922))...), nil},
		{"without an answer", logged(append(start, command, extendCommand(4, 1))...), nil},
		{"another bank only", logged(command, message(tagSessions, ccPCRExtend, uint32(4), passwords, uint32(1), uint16(0x0012), make([]byte, 32)), response, success), nil},
		{"SHA-384", logged(command, message(tagSessions, ccPCRExtend, uint32(4), passwords, uint32(1), uint16(0x000c), make([]byte, 48)), response, success), []extend{{4, strings.Repeat("00", 48), "sha384"}}},
		{"event", logged(command, message(tagSessions, ccPCREvent, uint32(9), passwords, uint16(1), byte('x')), response, event), []extend{{9, text(7), measure.Bank}}},
		{"event sequence", logged(command, message(tagSessions, ccEventSequence, uint32(8), uint32(0x80000000), passwords, uint16(0)), response, event), []extend{{8, text(7), measure.Bank}}},
		{"event of no PCR", logged(command, message(tagSessions, ccPCREvent, uint32(handleNull), passwords, uint16(0)), response, event), nil},
		{"reset", logged(command, extendCommand(16, 1), response, success, command, extendCommand(4, 2), response, success,
			command, message(tagSessions, ccPCRReset, uint32(16), passwords), response, success), []extend{{4, text(2), measure.Bank}}},
		{"started again", logged(append([]any{command, extendCommand(4, 1), response, success}, append(start, command, extendCommand(4, 2), response, success)...)...), []extend{{4, text(2), measure.Bank}}},
		{"cut short", logged(command, extendCommand(4, 1), response, success, command, extendCommand(4, 2), response, success)[:600], []extend{{4, text(1), measure.Bank}}},
		{"remarks", "Data client disconnected\n" + logged(command, extendCommand(4, 1), response, success) + "bye\n", []extend{{4, text(1), measure.Bank}}},
	} {
		got, err := parseLog(strings.NewReader(c.log))
		if err != nil || fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("%s: got %v, %v, want %v", c.name, got, err, c.want)
		}
	}
}

func TestLogRefuses(t *testing.T) {
	for want, log := range map[string]string{
		"H-CRTM":                "Ctrl Cmd: length 4\n 00 00 00 06\n",
		"bytes less":            " SWTPM_IO_Read: length 10\n 80 01\n SWTPM_IO_Write: length 10\n",
		"no part of a message":  " SWTPM_IO_Read: length 10\n hello\n",
		"of 3 bytes":            " SWTPM_IO_Read: length 3\n 80 01 02 03\n",
		"of 999999999 bytes":    " SWTPM_IO_Read: length 999999999\n",
		"unknown algorithm 0x1": logged(command, message(tagSessions, ccPCRExtend, uint32(4), passwords, uint32(1), uint16(1)), response, success),
		"too short":             logged(command, extendCommand(4, 1)[:60], response, success),
		"of PCR 99":             logged(command, extendCommand(99, 1), response, success),
	} {
		if _, err := parseLog(strings.NewReader(log)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
	if _, err := parseLog(iotest.ErrReader(iotest.ErrTimeout)); !errors.Is(err, iotest.ErrTimeout) {
		t.Errorf("got %v, want the reader's error", err)
	}
}

func FuzzLog(f *testing.F) {
	f.Add(recorded(f)[:4000])
	f.Add([]byte(logged(command, extendCommand(4, 1), response, success)))
	f.Fuzz(func(t *testing.T, b []byte) {
		extends, err := parseLog(bytes.NewReader(b))
		if err != nil {
			return
		}
		for _, e := range extends {
			if len(e.digest) < 64 || e.bank == "" || e.pcr < 0 || e.pcr >= numPCRs {
				t.Errorf("got %+v", e)
			}
		}
	})
}
