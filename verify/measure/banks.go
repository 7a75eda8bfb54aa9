package measure

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
)

// Bank is the name of the bank that Event.Digest, Compare and measurements.json
// are of.
const Bank = "sha256"

// Banks are the names of the PCR banks that are predicted.
func Banks() []string { return []string{Bank, "sha384", "sha512"} }

// newHash is the hash function of a bank; nil if there is no such bank.
func newHash(bank string) hash.Hash {
	switch bank {
	case Bank:
		return sha256.New()
	case "sha384":
		return sha512.New384()
	case "sha512":
		return sha512.New()
	}
	return nil
}

// sums are digests of the same bytes, one for each bank, in their order.
type sums [][]byte

// sumOf gives what write writes to the hash functions of all banks.
func sumOf(write func(io.Writer) error) (sums, error) {
	var hashes []hash.Hash
	var writers []io.Writer
	for _, bank := range Banks() {
		h := newHash(bank)
		hashes, writers = append(hashes, h), append(writers, h)
	}
	if err := write(io.MultiWriter(writers...)); err != nil {
		return nil, err
	}
	var s sums
	for _, h := range hashes {
		s = append(s, h.Sum(nil))
	}
	return s, nil
}

// sum is the digests of what r reads.
func sum(r io.Reader) (sums, error) {
	return sumOf(func(w io.Writer) error {
		_, err := io.Copy(w, r)
		return err
	})
}

// sumBytes is the digests of b.
func sumBytes(b []byte) sums {
	var s sums
	for _, bank := range Banks() {
		h := newHash(bank)
		h.Write(b)
		s = append(s, h.Sum(nil))
	}
	return s
}

// Event is one extension of a PCR. Type is the name that the TCG PC Client
// Platform Firmware Profile gives it, or "phase" for one by systemd.
type Event struct {
	PCR         int    `json:"pcr"`
	Type        string `json:"type"`
	Description string `json:"description"`
	Digest      string `json:"digest"` // what the SHA-256 PCR is extended with, hex
	SHA384      string `json:"sha384"` // and those of the other banks
	SHA512      string `json:"sha512"`
}

// In is the digest, in hex, that the PCR of the bank is extended with; "" if
// there is no such bank.
func (e Event) In(bank string) string {
	switch bank {
	case Bank:
		return e.Digest
	case "sha384":
		return e.SHA384
	case "sha512":
		return e.SHA512
	}
	return ""
}

func (r *Result) add(pcr int, kind, description string, s sums) {
	r.Events = append(r.Events, Event{
		PCR: pcr, Type: kind, Description: description,
		Digest: hex.EncodeToString(s[0]), SHA384: hex.EncodeToString(s[1]), SHA512: hex.EncodeToString(s[2]),
	})
}

// bankDigests are the digests of the events of one PCR in one bank, in order.
func bankDigests(events []Event, pcr int, bank string) []string {
	var all []string
	for _, e := range events {
		if e.PCR == pcr {
			all = append(all, e.In(bank))
		}
	}
	return all
}

// digests are the SHA-256 digests of the events of one PCR, in order.
func digests(events []Event, pcr int) []string { return bankDigests(events, pcr, Bank) }

// Replay is ReplayBank for SHA-256.
func Replay(digests []string) string { return ReplayBank(Bank, digests) }

// ReplayBank is the value of a PCR of the bank, in hex, that was zero and is
// then extended with the digests, in hex (TPM 2.0 Library, part 1, "Extend of
// a PCR"). A digest that is not one makes the value "", and so does a bank
// that is not one of Banks.
func ReplayBank(bank string, digests []string) string {
	h := newHash(bank)
	if h == nil {
		return ""
	}
	value := make([]byte, h.Size())
	for _, d := range digests {
		b, err := hex.DecodeString(d)
		if err != nil || len(b) != h.Size() {
			return ""
		}
		h.Reset()
		h.Write(value)
		h.Write(b)
		value = h.Sum(value[:0])
	}
	return hex.EncodeToString(value)
}

// values are the predicted PCRs after the events, by bank and number.
func values(events []Event) map[string]map[string]string {
	all := map[string]map[string]string{}
	for _, bank := range Banks() {
		all[bank] = map[string]string{}
		for _, pcr := range predicted() {
			all[bank][fmt.Sprint(pcr)] = ReplayBank(bank, bankDigests(events, pcr, bank))
		}
	}
	return all
}
