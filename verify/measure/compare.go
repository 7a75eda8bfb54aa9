package measure

import (
	"encoding/json"
	"fmt"
)

// Mismatch is an event that was measured otherwise than predicted. One of
// Predicted and Measured is empty where the other has no counterpart.
type Mismatch struct {
	PCR       int    `json:"pcr"`
	Index     int    `json:"index"` // of the event within its PCR, from 0
	Event     string `json:"event"` // what was predicted, in words
	Predicted string `json:"predicted,omitempty"`
	Measured  string `json:"measured,omitempty"`
}

func (m Mismatch) String() string {
	switch {
	case m.Predicted == "":
		return fmt.Sprintf("PCR %d, event %d: measured %s, nothing was predicted", m.PCR, m.Index, m.Measured)
	case m.Measured == "":
		return fmt.Sprintf("PCR %d, event %d, %s: predicted %s, nothing was measured", m.PCR, m.Index, m.Event, m.Predicted)
	}
	return fmt.Sprintf("PCR %d, event %d, %s: predicted %s, measured %s", m.PCR, m.Index, m.Event, m.Predicted, m.Measured)
}

// Compare compares the events of the result with the digests, in hex, that
// a machine extended its PCRs with, by PCR and in order. Only PCRs that are
// predicted are compared: 3, 4, 5, 7, 9, 11, 12, 13 and 14. To compare at
// login give the result of AtLogin. What comes back is empty where all is as
// predicted.
func Compare(r *Result, measured map[int][]string) []Mismatch {
	return CompareBank(r, Bank, measured)
}

// CompareBank is Compare for one of Banks.
func CompareBank(r *Result, bank string, measured map[int][]string) []Mismatch {
	var all []Mismatch
	for _, pcr := range comparedPCRs() {
		var events []Event
		for _, e := range r.Events {
			if e.PCR == pcr {
				events = append(events, e)
			}
		}
		got := measured[pcr]
		for i := range max(len(events), len(got)) {
			m := Mismatch{PCR: pcr, Index: i}
			if i < len(events) {
				m.Event, m.Predicted = events[i].Description, events[i].In(bank)
			}
			if i < len(got) {
				m.Measured = got[i]
			}
			if m.Predicted != m.Measured {
				all = append(all, m)
			}
		}
	}
	return all
}

// comparedPCRs are those of which every event is predicted.
func comparedPCRs() []int { return append([]int{3}, predicted()...) }

// MeasurementsJSON is the file measurements.json, to the byte as
// podvm-measure.sh writes it: PCR 3, 9, 11 and 12 as they are at
// login. The phases are those of AtLogin.
func (r *Result) MeasurementsJSON(phases []string) ([]byte, error) {
	at := r.AtLogin(phases)
	values := map[string]string{}
	for _, pcr := range []int{3, 9, 11, 12} {
		value := Replay(digests(at.Events, pcr))
		if value == "" {
			return nil, fmt.Errorf("an event of PCR %d has no SHA-256 digest", pcr)
		}
		values[fmt.Sprintf("pcr%02d", pcr)] = value
	}
	b, err := json.Marshal(map[string]any{"measurements": map[string]any{Bank: values}})
	return append(b, '\n'), err
}
