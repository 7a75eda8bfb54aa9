package boot

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// extend is one extension of a PCR in one of the banks of measure.Banks.
type extend struct {
	pcr    int
	digest string // hex
	bank   string
}

// Bounds for a log: a boot has about a hundred extensions, and swtpm's
// buffer holds 4 KiB.
const (
	maxMessage = 1 << 16
	maxExtends = 1 << 16
)

// Command codes of TPM 2.0 Library, part 2, table "TPM_CC Constants", and
// of swtpm's control channel (swtpm_ioctls(3)).
const (
	ccPCREvent      = 0x13c
	ccPCRReset      = 0x13d
	ccStartup       = 0x144
	ccPCRExtend     = 0x182
	ccEventSequence = 0x185
	ctrlHashStart   = 6
	headerSize      = 10
	tagSessions     = 0x8002
	algSHA256       = 0x000b
	handleNull      = 0x40000007
	startupClear    = 0
	numPCRs         = 24
)

// parseLog reads a log that swtpm wrote at level 20: each message has a line
// with its kind and length, then lines of sixteen bytes in hex. It returns
// the extensions since the TPM was started last, in order, those that the TPM
// refused left out. A log that ends within a message is taken as if it ended
// before it: the TPM may be writing.
func parseLog(r io.Reader) ([]extend, error) {
	var (
		t    tpm
		kind string
		want int
		buf  []byte
	)
	lines := bufio.NewScanner(r)
	lines.Split(wholeLines)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if k, length, ok := messageHeader(line); ok {
			if want > 0 {
				return nil, fmt.Errorf("line %d: the message before has %d bytes less than it says", n, want-len(buf))
			}
			if length > maxMessage {
				return nil, fmt.Errorf("line %d: a message of %d bytes", n, length)
			}
			kind, want, buf = k, length, buf[:0]
			continue
		}
		if want == 0 {
			continue // between messages: swtpm's own remarks
		}
		b, err := hex.DecodeString(strings.ReplaceAll(line, " ", ""))
		if err != nil || len(b) == 0 || len(buf)+len(b) > want {
			return nil, fmt.Errorf("line %d: %q is no part of a message of %d bytes", n, line, want)
		}
		if buf = append(buf, b...); len(buf) < want {
			continue
		}
		want = 0
		if err := t.message(kind, buf); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
	}
	return t.extends, lines.Err()
}

// wholeLines is a bufio.SplitFunc for lines that drops a last one without its
// end.
func wholeLines(data []byte, atEOF bool) (advance int, line []byte, err error) {
	if i := bytes.IndexByte(data, '\n'); i >= 0 {
		return i + 1, data[:i], nil
	}
	if atEOF {
		return len(data), nil, nil
	}
	return 0, nil, nil
}

// messageHeader reads a line such as "SWTPM_IO_Read: length 10".
func messageHeader(line string) (kind string, length int, ok bool) {
	kind, number, ok := strings.Cut(line, ": length ")
	if !ok {
		return "", 0, false
	}
	length, err := strconv.Atoi(number)
	return kind, length, err == nil && length >= 0
}

// tpm follows the messages of a TPM.
type tpm struct {
	extends []extend
	code    uint32 // of the command that waits for its response; 0 for none
	command []byte
}

var errShort = errors.New("message is too short for its command")

func (t *tpm) message(kind string, b []byte) error {
	switch kind {
	case "Ctrl Cmd":
		if len(b) >= 4 && binary.BigEndian.Uint32(b) == ctrlHashStart {
			return errors.New("the firmware measures by an H-CRTM sequence, which is not supported")
		}
	case "SWTPM_IO_Read":
		t.code = 0
		if len(b) >= headerSize {
			t.code, t.command = binary.BigEndian.Uint32(b[6:]), bytes.Clone(b)
		}
	case "SWTPM_IO_Write":
		code := t.code
		t.code = 0
		if len(b) < headerSize || binary.BigEndian.Uint32(b[6:]) != 0 {
			return nil // refused, or to be repeated
		}
		return t.done(code, b)
	}
	return nil
}

// done applies a command that the TPM answered with success.
func (t *tpm) done(code uint32, response []byte) error {
	args := reader{b: t.command[min(headerSize, len(t.command)):]}
	switch code {
	case ccStartup:
		if args.u16() == startupClear {
			t.extends = nil
		}
	case ccPCRReset:
		t.reset(args.u32())
	case ccPCRExtend:
		pcr := args.u32()
		if binary.BigEndian.Uint16(t.command) == tagSessions {
			args.skip(int64(args.u32()))
		}
		if err := t.extend(pcr, &args); err != nil {
			return err
		}
	case ccPCREvent, ccEventSequence: // the digests are in the response
		pcr := args.u32()
		results := reader{b: response[headerSize:]}
		results.u32() // size of the parameters
		if err := t.extend(pcr, &results); err != nil {
			return err
		}
	default:
		return nil
	}
	if args.short {
		return errShort
	}
	return nil
}

// extend reads a TPML_DIGEST_VALUES and keeps the digests in it that are of
// a known bank.
func (t *tpm) extend(pcr uint32, r *reader) error {
	for range min(r.u32(), 16) {
		alg := r.u16()
		size, bank, ok := algorithm(alg)
		if !ok {
			return fmt.Errorf("PCR %d is extended with a digest of the unknown algorithm %#x", pcr, alg)
		}
		digest := r.bytes(size)
		if r.short {
			return errShort
		}
		if bank == "" || pcr == handleNull {
			continue
		}
		if pcr >= numPCRs || len(t.extends) == maxExtends {
			return fmt.Errorf("extension %d is of PCR %d", len(t.extends), pcr)
		}
		t.extends = append(t.extends, extend{int(pcr), hex.EncodeToString(digest), bank})
	}
	return nil
}

// reset forgets what a PCR was extended with.
func (t *tpm) reset(pcr uint32) {
	left := t.extends[:0]
	for _, e := range t.extends {
		if e.pcr != int(pcr) {
			left = append(left, e)
		}
	}
	t.extends = left
}

// algorithm is the length of an algorithm's digests in bytes ("TPM_ALG_ID
// Constants"), and its bank if that is one of measure.Banks.
func algorithm(alg uint16) (size int, bank string, ok bool) {
	switch alg {
	case 0x0004:
		return 20, "", true // SHA-1
	case algSHA256:
		return 32, "sha256", true
	case 0x0012, 0x0027:
		return 32, "", true // SM3, SHA3-256
	case 0x000c:
		return 48, "sha384", true
	case 0x000d:
		return 64, "sha512", true
	case 0x0028:
		return 48, "", true // SHA3-384
	case 0x0029:
		return 64, "", true // SHA3-512
	}
	return 0, "", false
}

// reader takes big-endian values off the front of a message; short tells
// whether it asked for more than there was.
type reader struct {
	b     []byte
	short bool
}

func (r *reader) bytes(n int) []byte {
	if n > len(r.b) {
		r.b, r.short = nil, true
		return make([]byte, n)
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) skip(n int64) { r.bytes(int(min(n, int64(len(r.b)+1)))) }

func (r *reader) u16() uint16 { return binary.BigEndian.Uint16(r.bytes(2)) }
func (r *reader) u32() uint32 { return binary.BigEndian.Uint32(r.bytes(4)) }
