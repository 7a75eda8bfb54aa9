package prefetch

import (
	"slices"
	"sync"
	"time"
)

// Event is how far Fill has come.
type Event struct {
	Done, Total       int   // inputs
	Bytes, TotalBytes int64 // of them; TotalBytes leaves out what has no known size
	// Active is the names of what is being fetched, longest first.
	Active []string
	// Repaired is the name of a file that was found damaged and has been
	// replaced; empty but in the one event that says so.
	Repaired string
}

// Progress is told of events, one at a time, at most ten a second and at the
// end. Fill waits for it.
type Progress func(Event)

// eventInterval is the least time between two events.
const eventInterval = 100 * time.Millisecond

// tracker collects what the workers do.
type tracker struct {
	tell Progress

	mu     sync.Mutex
	event  Event
	active []string
	last   time.Time
}

func (t *tracker) begin(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.active = append(t.active, name)
	t.send(false)
}

func (t *tracker) end(name string, inputs int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if i := slices.Index(t.active, name); i >= 0 {
		t.active = slices.Delete(t.active, i, i+1)
	}
	t.event.Done += inputs
	t.send(false)
}

func (t *tracker) bytes(n int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.event.Bytes += n
	t.send(false)
}

// more is called for bytes that were not known to be missing.
func (t *tracker) more(n int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.event.TotalBytes += n
}

func (t *tracker) repaired(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.event.Repaired = name
	t.send(true)
	t.event.Repaired = ""
}

func (t *tracker) finish() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.send(true)
}

// send is called with the lock held.
func (t *tracker) send(always bool) {
	now := time.Now()
	if t.tell == nil || !always && now.Sub(t.last) < eventInterval {
		return
	}
	t.last = now
	t.event.Active = slices.Clone(t.active)
	t.tell(t.event)
}
