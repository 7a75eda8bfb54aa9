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
	// Active is what is being worked on, longest first.
	Active []Active
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

// Active is a file on its way into the store. Nothing in it is a secret.
type Active struct {
	Kind, Name string // of the first input that it is
	// Host is the server that was asked last, with its port where that is not
	// the scheme's own, and Try which attempt at it this is, from 1. Host is
	// empty, and Try 0, while no server is asked.
	Host string
	Try  int
	// Since is when the work on it began, and Moved when its last bytes came:
	// Since before the first.
	Since, Moved time.Time
	// Bytes have come; of Size, 0 where that is not known.
	Bytes, Size int64
}

// Progress is told of events, one at a time, at most ten a second and at the
// end. What has happened is told of within a tenth of a second, also where
// nothing happens afterwards. Fill waits for it.
type Progress func(Event)

// eventInterval is the least time between two events.
const eventInterval = 100 * time.Millisecond

// tracker collects what the workers do.
type tracker struct {
	tell Progress

	mu     sync.Mutex
	event  Event
	kinds  map[string]*KindEvent
	active []*active
	last   time.Time
	later  *time.Timer // tells what was too early to tell; nil where there is nothing
	over   bool
}

// active is a job at work; its methods may be called from anywhere.
type active struct {
	Active
	t *tracker
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

// begin is called when a job is begun, and end when it has ended.
func (t *tracker) begin(j *job) {
	t.mu.Lock()
	defer t.mu.Unlock()
	in, now := j.first(), time.Now()
	j.active = &active{Active{Kind: in.Kind, Name: in.Name, Size: in.Size, Since: now, Moved: now}, t}
	t.active = append(t.active, j.active)
	t.send(false)
}

func (t *tracker) end(j *job) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if i := slices.Index(t.active, j.active); i >= 0 {
		t.active = slices.Delete(t.active, i, i+1)
	}
	t.finished(j)
	t.send(false)
}

// bytes counts those that have come, or by a negative number those that have
// to come again.
func (a *active) bytes(n int64) {
	t := a.t
	t.mu.Lock()
	defer t.mu.Unlock()
	a.Bytes += n
	a.Moved = time.Now()
	t.event.Bytes += n
	t.of(a.Kind).Bytes += n
	t.send(false)
}

// trying notes which server is asked.
func (a *active) trying(host string, try int) {
	t := a.t
	t.mu.Lock()
	defer t.mu.Unlock()
	a.Host, a.Try = host, try
	t.send(false)
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
	t.over = true
}

// send is called with the lock held.
func (t *tracker) send(always bool) {
	if t.tell == nil || t.over {
		return
	}
	now := time.Now()
	if wait := eventInterval - now.Sub(t.last); wait > 0 && !always {
		if t.later == nil {
			t.later = time.AfterFunc(wait, t.sendLater)
		}
		return
	}
	if t.later != nil {
		t.later.Stop()
		t.later = nil
	}
	t.last = now
	t.event.Active = make([]Active, len(t.active))
	for i, a := range t.active {
		t.event.Active[i] = a.Active
	}
	t.event.ByKind = nil
	for _, kind := range slices.Sorted(maps.Keys(t.kinds)) {
		t.event.ByKind = append(t.event.ByKind, *t.kinds[kind])
	}
	t.tell(t.event)
}

func (t *tracker) sendLater() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.later == nil { // it has been told by now
		return
	}
	t.later = nil
	t.send(true)
}
