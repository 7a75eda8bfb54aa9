package build

import (
	"bytes"
	"fmt"
	"io"
	"regexp"
	"sync"
	"sync/atomic"

	"caisson/build/rootfs"
	"caisson/lock"
)

// State says what has become of a step.
type State string

// The states, in their order. A step that fails or is interrupted ends too.
const (
	Planned State = "planned" // it will be done; told of all steps before the first begins
	Begun   State = "begun"
	Moved   State = "moved" // it is further than before
	Ended   State = "ended"
)

// Event is one thing that a build tells while it goes on. Steps run beside each
// other. When something was is for who listens to say: a build has no clock.
type Event struct {
	// Step names it: "install root", "step 1: go build ./cmd/agent", …
	Step  string `json:"step"`
	State State  `json:"state"`
	// Done of Total are done, of a step that can say so, else 0. Unit is what they
	// are, "packages", "files" or "bytes".
	Done  int64  `json:"done,omitempty"`
	Total int64  `json:"total,omitempty"`
	Unit  string `json:"unit,omitempty"`
	// At is what is being done of it, such as the name of a package.
	At string `json:"at,omitempty"`
	// Reused: the step that has ended did not run, an earlier build's result was
	// taken.
	Reused bool `json:"reused,omitempty"`
}

// The names of the steps that all builds have, beside those of the lock's own.
const (
	stepCheck      = "check the inputs"
	stepTools      = "unpack the tools"
	stepRoot       = "finish the root"
	stepInitrd     = "finish the initrd"
	stepPackInitrd = "pack the initrd"
	stepFileSystem = "write the root file system"
	stepVerity     = "hash the root for dm-verity"
	stepESP        = "write UKI, ESP and partition table"
	stepOutputs    = "write the image"
	stepAccount    = "account for every file"
	stepCheckAgain = "check the inputs again"
)

// installStep is the name of the installation of a set.
func installStep(set string) string { return "install " + set }

// StepName is the name of the lock's nth step, from 1, in events and messages.
func StepName(n int, s lock.Step) string {
	switch {
	case s.Go != nil:
		return fmt.Sprintf("step %d: go build %s", n, s.Go.Package)
	case s.Cargo != nil:
		return fmt.Sprintf("step %d: cargo build %s", n, s.Cargo.Bin)
	}
	return fmt.Sprintf("step %d: run", n)
}

// plan tells which steps there will be.
func (b *builder) plan() {
	names := []string{stepCheck, stepTools, installStep(lock.SetRoot)}
	if b.hasInitrd() {
		names = append(names, installStep(lock.SetInitrd))
	}
	for i, s := range b.Lock.Steps {
		names = append(names, StepName(i+1, s))
	}
	names = append(names, stepRoot)
	if b.hasInitrd() {
		names = append(names, stepInitrd, stepPackInitrd)
	}
	if !b.image.IsArchive() {
		names = append(names, stepFileSystem, stepVerity, stepESP)
	}
	names = append(names, stepOutputs, stepAccount, stepCheckAgain)
	for _, name := range names {
		b.tell(Event{Step: name, State: Planned})
	}
}

func (b *builder) tell(e Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.Events != nil {
		b.Events(e)
	}
}

// progress is how far a step is; its methods may be called from anywhere.
type progress struct {
	b *builder

	mu sync.Mutex
	e  Event
}

// begin tells that a step begins.
func (b *builder) begin(step string) *progress {
	b.tell(Event{Step: step, State: Begun})
	return &progress{b: b, e: Event{Step: step, State: Moved}}
}

// during tells of a step while f does it.
func (b *builder) during(step string, f func() error) error {
	defer b.begin(step).end()
	return f()
}

// of says how much there is to do.
func (p *progress) of(total int64, unit string) *progress {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.e.Total, p.e.Unit = total, unit
	return p
}

// moved adds to what is done. It is told where that is a thousandth more, or
// something else is being done.
func (p *progress) moved(n int64, at string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	was := p.e
	p.e.Done, p.e.At = min(p.e.Done+n, p.e.Total), at
	if at != was.At || p.e.Done*1000/max(1, p.e.Total) != was.Done*1000/max(1, p.e.Total) {
		p.b.tell(p.e)
	}
}

func (p *progress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.e.State, p.e.At = Ended, ""
	p.b.mu.Lock()
	p.e.Reused = p.b.reused[p.e.Step]
	p.b.mu.Unlock()
	p.b.tell(p.e)
}

// tracked is a part of a disk that is read or written while a step moves on.
type tracked struct {
	untilDone
	p *progress
}

// ReadAt reads.
func (t tracked) ReadAt(b []byte, off int64) (int, error) {
	n, err := t.untilDone.ReadAt(b, off)
	t.p.moved(int64(n), "")
	return n, err
}

// Hole tells of what need not be read.
func (t tracked) Hole(off, n int64) bool {
	if !t.untilDone.Hole(off, n) {
		return false
	}
	t.p.moved(n, "")
	return true
}

// WriteAt writes.
func (t tracked) WriteAt(b []byte, off int64) (int, error) {
	n, err := t.untilDone.WriteAt(b, off)
	t.p.moved(int64(n), "")
	return n, err
}

// sizeOf is how many bytes the files of a tree have.
func sizeOf(t *rootfs.Tree) (n int64) {
	for _, e := range t.Entries() {
		if e.HardLink == "" {
			n += e.Size
		}
	}
	return n
}

// namedEpoch is that of a package's name, which rpm leaves out where it prints it.
var namedEpoch = regexp.MustCompile(`-[0-9]+:`)

// rpmLines finds in what rpm -v prints the names of the packages that it
// installs.
type rpmLines struct {
	p    *progress
	want map[string]bool
	seen []string // in their order
	line []byte
}

func (b *builder) rpmLines(inputs []*lock.Input, p *progress) *rpmLines {
	r := &rpmLines{p: p.of(int64(len(inputs)), "packages"), want: map[string]bool{}}
	for _, in := range inputs {
		r.want[namedEpoch.ReplaceAllString(in.Name, "-")] = true
	}
	return r
}

// maxName is the longest line that is looked at, in bytes.
const maxName = 4096

// Write takes what rpm prints.
func (r *rpmLines) Write(b []byte) (int, error) {
	for rest := b; len(rest) > 0; {
		line, after, whole := bytes.Cut(rest, []byte("\n"))
		r.line = append(r.line, line[:min(len(line), max(0, maxName-len(r.line)))]...)
		if rest = after; !whole {
			break
		}
		if name := string(r.line); r.want[name] {
			delete(r.want, name)
			r.seen = append(r.seen, name)
			r.p.moved(1, name)
		}
		r.line = r.line[:0]
	}
	return len(b), nil
}

// unpackReads is how often rootfs.Unpack opens each package: it reads all headers
// first.
const unpackReads = 2

// unpacked is open, and tells when a package has been unpacked.
func (p *progress) unpacked(name string, open func() (io.ReadCloser, error)) func() (io.ReadCloser, error) {
	var read atomic.Int32
	return func() (io.ReadCloser, error) {
		r, err := open()
		if err != nil {
			return nil, err
		}
		return closer{r, func() {
			if read.Add(1) == unpackReads {
				p.moved(1, name)
			}
		}}, nil
	}
}

// closer calls a function when it has been closed.
type closer struct {
	io.ReadCloser
	then func()
}

// Close closes the reader.
func (c closer) Close() error {
	defer c.then()
	return c.ReadCloser.Close()
}
