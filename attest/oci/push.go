package oci

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"golang.org/x/sync/errgroup"

	"caisson/lock/digest"
	"caisson/prefetch"
)

// parallel is how many blobs are sent at the same time.
const parallel = 4

// Attachment is something that refers to an image.
type Attachment struct {
	// Type is the artifact type, which is the content's media type too.
	Type    string
	Content []byte
	// PredicateType is of what a bundle states; empty for what is no bundle.
	PredicateType string
}

// Options are Push's. The zero value will do.
type Options struct {
	// Config is where logins, proxies, certificates and limits come from.
	Config prefetch.Config
	// From is another repository of the same registry, whose blobs need not be
	// sent again; empty for none.
	From     string
	Progress prefetch.Progress
}

// Pushed says what Push did.
type Pushed struct {
	Ref         string // with the tag
	Repository  string // without
	Digest      digest.Digest
	Attachments []digest.Digest // of their manifests
	Blobs       int
	Sent        int // of them: the registry did not have them
	Bytes       int64
}

// Push puts an image and what is attached to it into a registry, under a tag or
// under its digest alone.
func Push(ctx context.Context, ref string, im *Image, attached []Attachment, o Options) (Pushed, error) {
	r, err := prefetch.ParseRef(ref, "latest")
	if err != nil {
		return Pushed{}, err
	}
	if d, ok := r.(name.Digest); ok && d.DigestStr() != im.Digest.String() {
		return Pushed{}, &prefetch.RefError{Ref: ref, Err: fmt.Errorf("the image has the digest %s", im.Digest)}
	}
	p := &pusher{image: im, last: time.Now(), tell: o.Progress, done: Pushed{Ref: r.Name(), Repository: r.Context().Name(), Digest: im.Digest}}
	if err := p.prepare(attached); err != nil {
		return p.done, err
	}
	if o.From != "" {
		from, err := prefetch.ParseRef(o.From, "latest")
		if err != nil {
			return p.done, err
		}
		if from.Context().RegistryStr() != r.Context().RegistryStr() {
			return p.done, fmt.Errorf("%s and %s are not of the same registry", o.From, ref)
		}
		p.from = from.Context().RepositoryStr()
	}
	if p.client, err = connect(ctx, r.Context(), o.Config, true); err == nil {
		err = p.send(ctx, r)
	}
	if err != nil {
		return p.done, prefetch.RegistryFailed(ctx, r.Name(), err)
	}
	return p.done, nil
}

// pusher is one run of Push.
type pusher struct {
	*client
	image *Image
	blobs []blob
	refs  []referrer
	from  string

	mu    sync.Mutex
	done  Pushed
	event prefetch.Event
	last  time.Time
	tell  prefetch.Progress
}

// prepare makes what is attached, and counts what is to be sent.
func (p *pusher) prepare(attached []Attachment) error {
	refs, blobs, err := referrers(p.image, attached)
	if err != nil {
		return err
	}
	p.refs, p.blobs = refs, append(p.image.blobs[:len(p.image.blobs):len(p.image.blobs)], blobs...)
	for _, r := range p.refs {
		p.done.Attachments = append(p.done.Attachments, r.Digest)
	}
	p.done.Blobs, p.event.Total = len(p.blobs), len(p.blobs)
	for _, b := range p.blobs {
		p.event.TotalBytes += b.Size
	}
	return nil
}

// send sends the blobs, then what names them, and the tag last.
func (p *pusher) send(ctx context.Context, r name.Reference) error {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	for i := range p.blobs {
		g.Go(func() error { return p.blob(gctx, &p.blobs[i]) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if _, err := p.place(ctx, p.image.Digest, p.image.Manifest); err != nil {
		return err
	}
	supported := true
	for _, ref := range p.refs {
		ok, err := p.place(ctx, ref.Digest, ref.manifest)
		if err != nil {
			return fmt.Errorf("attaching a statement: %w", err)
		}
		supported = supported && ok
	}
	if err := p.list(ctx, supported); err != nil {
		return fmt.Errorf("listing the statements: %w", err)
	}
	if tag, ok := r.(name.Tag); ok {
		return p.tag(ctx, tag.TagStr())
	}
	return nil
}

// blob sends one blob.
func (p *pusher) blob(ctx context.Context, b *blob) error {
	var moved int64
	sent, err := p.upload(ctx, b, p.from, func(n int64) {
		p.mu.Lock()
		defer p.mu.Unlock()
		moved += n
		p.event.Bytes += n
		p.report()
	})
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.event.Done++
	p.event.Bytes += b.Size - moved
	if sent {
		p.done.Sent++
		p.done.Bytes += b.Size
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

// place writes a manifest under its digest, and has the registry give it back.
// It tells whether the registry keeps lists of what refers to others.
func (p *pusher) place(ctx context.Context, d digest.Digest, b []byte) (referrers bool, err error) {
	if referrers, err = p.put(ctx, d.String(), ManifestType, b); err != nil {
		return false, err
	}
	got, err := p.manifest(ctx, d.String(), d)
	if err == nil && got == nil {
		err = fmt.Errorf("%w: it took the manifest %s, and does not have it", ErrLies, d)
	}
	return referrers, err
}

// tag has a tag name the image.
func (p *pusher) tag(ctx context.Context, tag string) error {
	if _, err := p.put(ctx, tag, ManifestType, p.image.Manifest); err != nil {
		return err
	}
	got, err := p.manifest(ctx, tag, digest.Digest{})
	if err == nil && !bytes.Equal(got, p.image.Manifest) {
		err = fmt.Errorf("%w: the tag %q names %s, want %s", ErrLies, tag, digest.Of(got), p.image.Digest)
	}
	return err
}

// referrer is the manifest of something that refers to an image.
type referrer struct {
	descriptor
	manifest []byte
}

// referrers makes the manifests of what is attached, and the blobs that they
// need: as cosign's WriteAttestationNewBundleFormat, without a time.
func referrers(im *Image, attached []Attachment) (refs []referrer, blobs []blob, err error) {
	if len(attached) == 0 {
		return nil, nil, nil
	}
	empty := inMemory(emptyType, []byte("{}"))
	blobs = []blob{empty}
	subject := &descriptor{MediaType: ManifestType, Digest: im.Digest, Size: int64(len(im.Manifest))}
	seen := map[digest.Digest]bool{}
	for _, a := range attached {
		layer := inMemory(a.Type, a.Content)
		notes := map[string]string{}
		if a.PredicateType != "" {
			notes["dev.sigstore.bundle.content"] = "dsse-envelope"
			notes["dev.sigstore.bundle.predicateType"] = a.PredicateType
		}
		b, err := json.Marshal(manifest{SchemaVersion: 2, MediaType: ManifestType, ArtifactType: a.Type, Config: empty.descriptor,
			Layers: []descriptor{layer.descriptor}, Subject: subject, Annotations: notes})
		if err != nil {
			return nil, nil, fmt.Errorf("attaching a statement: %w", err)
		}
		d := descriptor{MediaType: ManifestType, Digest: digest.Of(b), Size: int64(len(b)), ArtifactType: a.Type, Annotations: notes}
		if !seen[d.Digest] {
			seen[d.Digest] = true
			refs, blobs = append(refs, referrer{d, b}), append(blobs, layer)
		}
	}
	return refs, blobs, nil
}
