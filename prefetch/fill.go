package prefetch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"caisson/lock"
	"caisson/lock/digest"
	"caisson/prefetch/cas"
)

// maxUnreachable is after how many files that a server did not give Fill
// leaves the others alone.
const maxUnreachable = 32

// job is one file of the store, and all inputs that are that file.
type job struct {
	inputs  []*lock.Input
	present bool // under its name, with the right size
	active  *active
}

func (j *job) first() *lock.Input { return j.inputs[0] }

// filler is one run of Fill.
type filler struct {
	l       *lock.Lock
	s       *cas.Store
	opts    Options
	fetcher *Fetcher
	trust   *trust
	track   tracker

	mu          sync.Mutex
	stats       Stats
	errs        []*InputError
	unreachable int
	skipped     int
	full        *NoSpaceError // the store is
	coming      int64         // bytes that are still to be written, as far as their sizes are known
}

// Fill brings into the store what is missing of a lock's inputs, and proves
// all of them as the package comment says. What failed is in the error, one
// *InputError each, joined and sorted; the rest is in the store all the same,
// and a further run goes on from there. After Fill has been interrupted the
// error is the context's.
func Fill(ctx context.Context, l *lock.Lock, s *cas.Store, opts Options) (Stats, error) {
	if opts.Parallel <= 0 {
		opts.Parallel = 16
	}
	if opts.Client == nil {
		c, err := NewClient(opts.Config)
		if err != nil {
			return Stats{}, err
		}
		defer c.CloseIdle()
		opts.Client = c
	}
	f := &filler{l: l, s: s, opts: opts, trust: new(trust), fetcher: NewFetcher(s, opts.Client, opts.Config)}
	defer f.fetcher.Close()
	f.track.tell = opts.Progress
	before := opts.Client.Requests()
	err := f.run(ctx)
	f.track.finish()
	f.stats.Requests = opts.Client.Requests() - before
	return f.stats, err
}

// run fetches the keys first, packages are checked against them; and what
// lies in an ISO image last.
func (f *filler) run(ctx context.Context) error {
	keys, others, inISO := f.plan()
	if err := f.room(); err != nil {
		return err
	}
	if err := f.work(ctx, f.unproved(keys)); err != nil {
		return err
	}
	var err error
	if f.trust, err = readTrust(f.l, f.s); err != nil {
		return err
	}
	err = f.work(ctx, f.unproved(others))
	if ctx.Err() != nil || len(inISO) == 0 {
		return err
	}
	return f.work(ctx, f.unproved(inISO))
}

// plan makes one job of all inputs that are the same file.
func (f *filler) plan() (keys, others, inISO []*job) {
	reserve(f.l, f.s)
	byDigest := make(map[digest.Digest]*job)
	for i := range f.l.Inputs {
		in := &f.l.Inputs[i]
		f.track.expect(in.Kind, 1, 0)
		j := byDigest[in.SHA256]
		if j == nil {
			j = &job{present: isPresent(in, f.s)}
			byDigest[in.SHA256] = j
			r := f.l.RepoOf(in)
			switch {
			case in.Kind == lock.KindKey:
				keys = append(keys, j)
			case r != nil && r.ISO != "":
				inISO = append(inISO, j)
			default:
				others = append(others, j)
			}
			if !j.present {
				f.track.expect(in.Kind, 0, in.Size)
				f.coming += in.Size
			}
		}
		j.inputs = append(j.inputs, in)
	}
	return keys, others, inISO
}

// room looks whether the store has it for what is to come. What was kept of
// transfers that were cut has its room already.
func (f *filler) room() error {
	if f.coming == 0 {
		return nil
	}
	need := f.coming - f.s.Partial().Bytes
	if free, ok := freeBytes(f.s.Dir()); ok && free < need {
		return &NoSpaceError{Dir: f.s.Dir(), Need: need, Free: free}
	}
	return nil
}

// reserve keeps what a lock needs from being collected meanwhile.
func reserve(l *lock.Lock, s *cas.Store) {
	all := make([]digest.Digest, len(l.Inputs))
	for i := range l.Inputs {
		all[i] = l.Inputs[i].SHA256
	}
	s.Reserve(all)
}

// isPresent looks for a file of the input's digest and size.
func isPresent(in *lock.Input, s *cas.Store) bool {
	size, ok := s.Size(in.SHA256)
	return ok && (in.Size == 0 || size == in.Size)
}

// unproved is the jobs that are something to do, the largest first.
func (f *filler) unproved(jobs []*job) []*job {
	var out []*job
	for _, j := range jobs {
		done := j.present && !f.opts.Verify && !f.s.Doubted(j.first().SHA256)
		for _, in := range j.inputs {
			done = done && !f.isLocal(in) && f.trust.proved(in, f.s)
		}
		if done {
			f.stats.Present += len(j.inputs)
			f.track.done(j)
			continue
		}
		out = append(out, j)
	}
	slices.SortStableFunc(out, func(a, b *job) int { return cmp.Compare(b.first().Size, a.first().Size) })
	return out
}

// isLocal tells whether the input has to be compared with the project.
func (f *filler) isLocal(in *lock.Input) bool {
	switch in.Kind {
	case lock.KindTree:
		return f.opts.Tree != nil
	case lock.KindKey, lock.KindFile:
		return f.opts.Get == nil && !strings.Contains(in.URL, "://") && f.opts.Config.Dir != ""
	}
	return false
}

// work does jobs in parallel, and returns all that went wrong so far.
func (f *filler) work(ctx context.Context, jobs []*job) error {
	var g errgroup.Group
	g.SetLimit(f.opts.Parallel)
	for _, j := range jobs {
		if ctx.Err() != nil || f.givenUp(j) {
			continue
		}
		g.Go(func() error {
			f.track.begin(j)
			defer f.track.end(j)
			f.do(ctx, j)
			return nil
		})
	}
	_ = g.Wait() // jobs keep their errors
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return f.err()
}

// givenUp tells whether so much could not be fetched that the job is left
// alone, or there is no room or no image for it.
func (f *filler) givenUp(j *job) bool {
	noISO := false
	if r := f.l.RepoOf(j.first()); r != nil && r.ISO != "" && !j.present && f.opts.Get == nil {
		in := f.l.Find(lock.KindFile, r.ISO)
		noISO = in != nil && !f.s.Has(in.SHA256)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.unreachable < maxUnreachable && f.full == nil && !noISO {
		return false
	}
	f.skipped += len(j.inputs)
	return true
}

// err is everything that went wrong, sorted.
func (f *filler) err() error {
	slices.SortFunc(f.errs, func(a, b *InputError) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name))
	})
	var errs []error
	if f.full != nil {
		f.full.Need = f.coming
		f.full.Free, _ = freeBytes(f.s.Dir())
		errs = append(errs, f.full)
	}
	for _, e := range f.errs {
		errs = append(errs, e)
	}
	if f.skipped > 0 {
		errs = append(errs, fmt.Errorf("%d more inputs were not tried", f.skipped))
	}
	return errors.Join(errs...)
}

func (f *filler) fail(in *lock.Input, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if isFull(err) { // it concerns all, and is said once
		if f.full == nil {
			f.full = &NoSpaceError{Dir: f.s.Dir(), Err: err}
		}
		f.skipped++
		return
	}
	f.errs = append(f.errs, &InputError{Kind: in.Kind, Name: in.Name, Err: err})
	var fe *FetchError
	var temp temporary
	if errors.As(err, &fe) && errors.As(err, &temp) {
		f.unreachable++
	}
}

func (f *filler) count(j *job, into *int, size int64, repaired bool) {
	f.mu.Lock()
	*into += len(j.inputs)
	f.stats.Bytes += size
	if !j.present {
		f.coming -= j.first().Size
	}
	if repaired {
		f.stats.Repaired += len(j.inputs)
	}
	f.mu.Unlock()
	if repaired {
		f.track.repaired(j.first().Name)
	}
}

// do brings one file in, if it has to, and proves all its inputs.
func (f *filler) do(ctx context.Context, j *job) {
	for _, in := range j.inputs {
		if f.isLocal(in) {
			f.doLocal(ctx, j, in)
			return
		}
	}
	if j.present {
		switch err := f.recheck(j); {
		case err == nil:
			f.count(j, &f.stats.Present, 0, false)
			return
		case !isDamage(err):
			return
		}
	}
	in := j.first()
	if j.present { // and damaged: it was not among what is to come
		f.track.expect(in.Kind, 0, in.Size)
	}
	to, err := f.s.Create()
	if err != nil {
		f.fail(in, err)
		return
	}
	defer to.Discard()
	if err := f.fetch(ctx, j, to); err != nil {
		if ctx.Err() == nil {
			f.fail(in, err)
		}
		return
	}
	f.commit(j, to, &f.stats.Fetched)
}

// recheck proves a file that the store has. Damage is returned and not
// counted as a failure: the file can be fetched again.
func (f *filler) recheck(j *job) error {
	in := j.first()
	c, err := f.s.Open(in.SHA256)
	if err == nil {
		defer c.Close()
		err = c.Verify()
	}
	if err != nil {
		if !isDamage(err) {
			f.fail(in, err)
		}
		return err
	}
	return f.prove(j, c)
}

func isDamage(err error) bool {
	var damaged *cas.DamagedError
	var missing *cas.MissingError
	return errors.As(err, &damaged) || errors.As(err, &missing)
}

// fetch gets a job's input from wherever it is.
func (f *filler) fetch(ctx context.Context, j *job, to *cas.Temp) error {
	in := j.first()
	req := Request{Size: in.Size, Digest: in.SHA256, Progress: j.active.bytes, Trying: j.active.trying}
	if in.Kind == lock.KindCrate { // of which Cargo.lock does not say the size
		req.Max = maxCrate
	}
	if f.opts.Get != nil {
		if err := f.opts.Get(ctx, in, req, to); !errors.Is(err, ErrOwnPlace) {
			return err
		}
	}
	if in.Kind == lock.KindTree {
		return &cas.MissingError{Digest: in.SHA256}
	}
	w, err := wantOf(f.l, in)
	if err != nil {
		return err
	}
	got, err := f.fetcher.bring(ctx, w, req, to)
	if err != nil {
		return err
	}
	return RememberLogin(f.s, in.SHA256, got.login)
}

// commit proves a file and gives it its name.
func (f *filler) commit(j *job, to *cas.Temp, into *int) {
	if f.prove(j, to) != nil {
		to.Drop() // going on from it would end here again
		return
	}
	size := to.Size()
	replaced, err := to.Commit(j.first().SHA256)
	if err != nil {
		f.fail(j.first(), err)
		return
	}
	f.count(j, into, size, replaced)
}

// prove proves all inputs that are one file, and remembers what it found.
func (f *filler) prove(j *job, c content) error {
	var errs []error
	for _, in := range j.inputs {
		p, err := f.trust.prove(in, c)
		if err == nil {
			err = f.remember(p, in, j.present)
		}
		if err != nil {
			f.fail(in, err)
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// remember keeps a proof for later runs. A store that may only be read and
// has the file serves all the same.
func (f *filler) remember(p proof, in *lock.Input, present bool) error {
	if p.key == "" {
		return nil
	}
	if d, note, ok := f.s.LookupNote(p.key); ok && d == in.SHA256 && note == p.note {
		return nil
	}
	err := f.s.RememberNote(p.key, in.SHA256, p.note)
	if present && isReadOnly(err) {
		return nil
	}
	return err
}
