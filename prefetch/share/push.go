package share

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sync/errgroup"

	"caisson/lock"
	"caisson/lock/digest"
	"caisson/prefetch"
	"caisson/prefetch/cas"
)

// parallel is how many files are sent at the same time.
const parallel = 8

// Pushed says what Push did.
type Pushed struct {
	Ref       string // with the tag
	Digest    digest.Digest
	Manifests int // an index not counted
	Files     int // distinct ones, the lock included
	Sent      int // of them: the repository did not have them, and they were not mounted
	Bytes     int64
	// LeftOut are the files that may not be passed on, each as an input that
	// says so.
	LeftOut []Left
}

// Push sends what a lock needs and may be passed on, and the lock's text, from
// a store to REGISTRY/REPO[:TAG]. What the store does not have is in the error, one
// *cas.MissingError each, and then nothing is sent.
func Push(ctx context.Context, ref string, l *lock.Lock, text []byte, s *cas.Store, o Options) (Pushed, error) {
	r, o, err := begin(ref, text, o)
	if err != nil {
		return Pushed{}, err
	}
	p := &pusher{s: s, last: time.Now(), tell: o.Progress}
	p.done.Ref = r.Name()
	all, err := choose(l, s, o.Restricted)
	if err != nil {
		return p.done, err
	}
	p.done.LeftOut = all.leave
	config := p.made(lockType, text)
	if err := p.layers(all); err != nil {
		return p.done, err
	}
	docs, err := manifests(config, p.described(), o.MaxManifest)
	if err != nil {
		return p.done, err
	}
	last := docs[len(docs)-1]
	p.done.Digest, p.done.Files = last.digest, len(p.files)
	p.event.Total = p.done.Files
	if p.done.Manifests = len(docs); last.mediaType == indexType {
		p.done.Manifests--
	}
	if err := p.connect(r, o); err != nil {
		return p.done, err
	}
	if err := p.send(ctx, r, docs); err != nil {
		if isStore(err) {
			return p.done, err
		}
		return p.done, prefetch.RegistryFailed(ctx, r.Name(), err)
	}
	return p.done, nil
}

// isStore tells whether it is the store's fault.
func isStore(err error) bool {
	var missing *cas.MissingError
	var damaged *cas.DamagedError
	return errors.As(err, &missing) || errors.As(err, &damaged)
}

// pusher is one run of Push.
type pusher struct {
	s       *cas.Store
	files   []source // the config first, then the layers
	options []remote.Option
	remote  *remote.Pusher
	from    name.Reference // nil for none
	all     bool

	mu    sync.Mutex
	done  Pushed
	event prefetch.Event
	last  time.Time
	tell  prefetch.Progress
}

// source is a file that is sent, and where it is.
type source struct {
	descriptor
	open func() (io.ReadCloser, error)
}

// made adds a file that is in memory.
func (p *pusher) made(mediaType string, b []byte) descriptor {
	d := descriptor{MediaType: mediaType, Digest: digest.Of(b), Size: int64(len(b))}
	p.add(d, func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil })
	return d
}

func (p *pusher) add(d descriptor, open func() (io.ReadCloser, error)) {
	p.files = append(p.files, source{d, open})
	p.event.TotalBytes += d.Size
}

// layers adds the files of the store, and the list of what is left out.
func (p *pusher) layers(all chosen) error {
	switch {
	case len(all.send) == 0 && len(all.leave) > 0:
		return errors.New("all inputs of the lock were fetched with a login, and none is asked for by name")
	case len(all.send) == 0:
		return errors.New("the lock has no inputs")
	}
	var errs []error
	for _, in := range all.send {
		size, ok := p.s.Size(in.SHA256)
		if !ok {
			errs = append(errs, &cas.MissingError{Digest: in.SHA256, Name: in.Kind + " " + in.Name})
			continue
		}
		p.add(describe(in, size, all.login[in.SHA256]), func() (io.ReadCloser, error) { return p.s.Open(in.SHA256) })
	}
	if len(all.leave) > 0 {
		list, err := listOf(all.leave)
		errs = append(errs, err)
		p.made(leftOutType, list)
	}
	return errors.Join(errs...)
}

// described are the layers.
func (p *pusher) described() []descriptor {
	var out []descriptor
	for _, f := range p.files[1:] {
		out = append(out, f.descriptor)
	}
	return out
}

func (p *pusher) connect(r name.Reference, o Options) error {
	p.all = o.All
	p.options = []remote.Option{
		remote.WithAuthFromKeychain(o.Keychain),
		remote.WithTransport(prefetch.GuardRegistry(prefetch.NewTransport(o.Config), r.Context())),
		remote.WithUserAgent("caisson/" + o.Config.Version),
		remote.WithRetryBackoff(remote.Backoff{Duration: o.backoff(), Factor: 3, Jitter: 0.1, Steps: 4}),
	}
	if o.From != "" {
		from, err := prefetch.ParseRef(o.From, "latest")
		if err != nil {
			return err
		}
		if from.Context().RegistryStr() != r.Context().RegistryStr() {
			return fmt.Errorf("%s and %s are not of the same registry", o.From, r)
		}
		p.from = from
	}
	var err error
	p.remote, err = remote.NewPusher(p.options...)
	return err
}

// send sends the files, then what names them.
func (p *pusher) send(ctx context.Context, r name.Reference, docs []written) error {
	last := docs[len(docs)-1]
	if !p.all {
		have, err := remote.Head(r, append(p.options, remote.WithContext(ctx))...)
		if err == nil && have.Digest.String() == last.digest.String() {
			return nil
		}
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	for _, f := range p.files {
		g.Go(func() error { return p.file(gctx, r, f) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for _, w := range docs[:len(docs)-1] {
		if err := p.remote.Put(ctx, r.Context().Digest(w.digest.String()), w); err != nil {
			return err
		}
	}
	return p.remote.Put(ctx, r, last)
}

// file sends one file, unless it is there or can be mounted.
func (p *pusher) file(ctx context.Context, r name.Reference, f source) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	b := &blob{source: f, p: p}
	var layer v1.Layer = b
	if p.from != nil {
		layer = &remote.MountableLayer{Layer: b, Reference: p.from}
	}
	err := p.remote.Upload(ctx, r.Context(), layer)
	p.mu.Lock()
	defer p.mu.Unlock()
	if b.damage != nil { // the transport's own words hide it
		return b.damage
	}
	if err != nil {
		return err
	}
	p.event.Done++
	if b.opened {
		p.done.Sent++
		p.done.Bytes += f.Size
	} else {
		p.event.Bytes += f.Size
	}
	p.report()
	return nil
}

// report tells how far it is, at most ten times a second. The caller holds mu.
func (p *pusher) report() {
	if p.tell != nil && (p.event.Done >= p.event.Total || time.Since(p.last) > 100*time.Millisecond) {
		p.last = time.Now()
		p.tell(p.event)
	}
}

// blob is a file on its way to a registry: a v1.Layer.
type blob struct {
	source
	p      *pusher
	opened bool
	sent   int64 // by this try
	damage error // a *cas.DamagedError
}

func (b *blob) Digest() (v1.Hash, error) { return v1.NewHash(b.descriptor.Digest.String()) }
func (b *blob) DiffID() (v1.Hash, error) { return b.Digest() }
func (b *blob) Size() (int64, error)     { return b.descriptor.Size, nil }
func (b *blob) MediaType() (types.MediaType, error) {
	return types.MediaType(b.descriptor.MediaType), nil
}
func (b *blob) Uncompressed() (io.ReadCloser, error) { return b.Compressed() }

// Compressed is the file itself, for each try anew.
func (b *blob) Compressed() (io.ReadCloser, error) {
	r, err := b.open()
	if err != nil {
		return nil, err
	}
	b.p.mu.Lock()
	defer b.p.mu.Unlock()
	b.p.event.Bytes -= b.sent
	b.opened, b.sent = true, 0
	return &blobReader{r, b}, nil
}

// blobReader counts, and remembers that a file was damaged.
type blobReader struct {
	io.ReadCloser
	b *blob
}

func (r *blobReader) Read(buf []byte) (int, error) {
	n, err := r.ReadCloser.Read(buf)
	p := r.b.p
	p.mu.Lock()
	defer p.mu.Unlock()
	r.b.sent += int64(n)
	p.event.Bytes += int64(n)
	p.report()
	var damaged *cas.DamagedError
	if errors.As(err, &damaged) && r.b.damage == nil {
		damaged.Name = r.b.Annotations.Kind + " " + r.b.Annotations.Title
		r.b.damage = damaged
	}
	return n, err
}

// RawManifest and MediaType make a manifest what a registry is sent.
func (w written) RawManifest() ([]byte, error) { return w.bytes, nil }

// MediaType is the header under which it goes.
func (w written) MediaType() (types.MediaType, error) { return types.MediaType(w.mediaType), nil }
