package prefetch

import (
	"maps"
	"slices"
	"sync"
	"time"
)

// Event is how far Fill has come.
type Event struct {
	Done, Total       int   // inputs
	Bytes, TotalBytes int64 // of them; TotalBytes leaves out what has no known size
	// ByKind is the same for each kind of input, sorted by kind.
	ByKind []KindEvent
	// Active is the names of what is being fetched, longest first.
	Active []string
	// Repaired is the name of a file that was found damaged and has been
	// replaced; empty but in the one event that says so.
	Repaired string
}

// KindEvent is how far Fill has come with one kind of input.
type KindEvent struct {
	Kind              string // as lock.Input's
	Done, Total       int
	Bytes, TotalBytes int64
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
	kinds  map[string]*KindEvent
	active []string
	last   time.Time
}

// of is what is known of a kind; it is called with the lock held.
func (t *tracker) of(kind string) *KindEvent {
	k := t.kinds[kind]
	if k == nil {
		if t.kinds == nil {
			t.kinds = make(map[string]*KindEvent)
		}
		k = &KindEvent{Kind: kind}
		t.kinds[kind] = k
	}
	return k
}

// expect adds to what there is to do.
func (t *tracker) expect(kind string, inputs int, bytes int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.event.Total += inputs
	t.event.TotalBytes += bytes
	k := t.of(kind)
	k.Total += inputs
	k.TotalBytes += bytes
}

// done is called for a job with which there is nothing more to do.
func (t *tracker) done(j *job) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.finished(j)
}

// finished is called with the lock held.
func (t *tracker) finished(j *job) {
	t.event.Done += len(j.inputs)
	for _, in := range j.inputs {
		t.of(in.Kind).Done++
	}
}

func (t *tracker) begin(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.active = append(t.active, name)
	t.send(false)
}

func (t *tracker) end(name string, j *job) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if i := slices.Index(t.active, name); i >= 0 {
		t.active = slices.Delete(t.active, i, i+1)
	}
	t.finished(j)
	t.send(false)
}

// bytes counts those of a kind of input.
func (t *tracker) bytes(kind string) func(n int64) {
	return func(n int64) {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.event.Bytes += n
		t.of(kind).Bytes += n
		t.send(false)
	}
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
	t.event.ByKind = nil
	for _, kind := range slices.Sorted(maps.Keys(t.kinds)) {
		t.event.ByKind = append(t.event.ByKind, *t.kinds[kind])
	}
	t.tell(t.event)
}
