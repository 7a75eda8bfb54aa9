package tdx

import (
	"fmt"

	"caisson/verify/measure"
)

// Departure is where a log leaves the prediction: the first event of an RTMR
// that was measured otherwise than predicted. One of Predicted and Measured is
// empty where the other has no counterpart; both are where the type alone was
// predicted.
type Departure struct {
	RTMR      int    `json:"rtmr"`
	Position  int    `json:"position"` // in the log, from 0, of the events that extend; its length where it ended too early
	Event     string `json:"event"`    // what was predicted, in words; "" where nothing was
	Predicted string `json:"predicted,omitempty"`
	Measured  string `json:"measured,omitempty"`
	Seen      string `json:"seen,omitempty"` // what the log says that was measured
}

func (d Departure) String() string {
	at := fmt.Sprintf("event %d", d.Position)
	if d.Seen != "" {
		at += ", " + d.Seen
	}
	switch {
	case d.Event == "":
		return fmt.Sprintf("%s: RTMR %d: measured %s, nothing was predicted", at, d.RTMR, d.Measured)
	case d.Seen == "":
		return fmt.Sprintf("%s: RTMR %d, %s: predicted, nothing was measured", at, d.RTMR, d.Event)
	case d.Predicted == "":
		return fmt.Sprintf("%s: RTMR %d, %s: another event was predicted", at, d.RTMR, d.Event)
	}
	return fmt.Sprintf("%s: RTMR %d, %s: predicted %s, measured %s", at, d.RTMR, d.Event, d.Predicted, d.Measured)
}

// Departures compares a log that measure.ReadConfidentialLog has read, up to
// the start of the kernel, with the prediction. For each RTMR that departs
// there is one, in the order of the log. Of an event whose value is not known
// the type is compared.
func Departures(v *Values, log []measure.LogEvent) []Departure {
	var want [registers][]Event
	var gone, repeats [registers]bool
	for _, e := range v.Events {
		want[e.RTMR] = append(want[e.RTMR], e)
	}
	var all []Departure
	for at, e := range log {
		n := e.PCR - 1
		if n < 0 || n >= registers || gone[n] {
			continue
		}
		if repeats[n] {
			if e.Type == want[n][0].Type {
				continue
			}
			want[n], repeats[n] = want[n][1:], false
		}
		d := Departure{RTMR: n, Position: at, Measured: e.Digests[bank], Seen: e.String()}
		if len(want[n]) > 0 {
			w := want[n][0]
			if w.Digest == "" && w.Type == e.Type || w.Digest != "" && w.Digest == e.Digests[bank] {
				if repeats[n] = w.Several; !w.Several {
					want[n] = want[n][1:]
				}
				continue
			}
			d.Event, d.Predicted = w.Description, w.Digest
		}
		gone[n] = true
		all = append(all, d)
	}
	for n := range want {
		if repeats[n] {
			want[n] = want[n][1:]
		}
		if !gone[n] && len(want[n]) > 0 {
			all = append(all, Departure{RTMR: n, Position: len(log), Event: want[n][0].Description, Predicted: want[n][0].Digest})
		}
	}
	return all
}

// Replay are the values of the RTMRs after the events of a log, by number.
func Replay(log []measure.LogEvent) map[string]string {
	digests := map[int][]string{}
	for _, e := range log {
		digests[e.PCR-1] = append(digests[e.PCR-1], e.Digests[bank])
	}
	values := map[string]string{}
	for n := range registers {
		values[fmt.Sprint(n)] = measure.ReplayBank(bank, digests[n])
	}
	return values
}
