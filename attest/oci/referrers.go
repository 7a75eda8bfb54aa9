package oci

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"caisson/lock/digest"
	"caisson/prefetch"
)

// index is an image index (image-spec, image-index.md).
type index struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType"`
	Manifests     []descriptor `json:"manifests"`
}

// fallbackTag is the tag of the list of what refers to a manifest, where the
// registry does not keep it (distribution-spec, "Referrers Tag Schema").
func fallbackTag(d digest.Digest) string { return "sha256-" + d.Hex() }

// list sees to it that what was attached is listed: by the registry, or by us.
// supported is what the registry has said of itself.
func (p *pusher) list(ctx context.Context, supported bool) error {
	if len(p.refs) == 0 {
		return nil
	}
	listed, known, err := p.referrers(ctx, p.image.Digest)
	if err != nil {
		return err
	}
	missing := p.unlisted(listed)
	if known || supported {
		if len(missing) > 0 {
			return fmt.Errorf("%w: it keeps lists of what refers to an image, and %s is not in it", ErrLies, missing[0].Digest)
		}
		return nil
	}
	for range 3 { // somebody else may write it too
		if len(missing) == 0 {
			return nil
		}
		all := append(slices.Clone(listed), missing...)
		slices.SortFunc(all, func(a, b descriptor) int { return cmp.Compare(a.Digest.Hex(), b.Digest.Hex()) })
		b, err := json.Marshal(index{SchemaVersion: 2, MediaType: indexType, Manifests: all})
		if err != nil {
			return err
		}
		if len(b) > maxManifest {
			return fmt.Errorf("the list of what refers to the image has %d bytes, want at most %d", len(b), maxManifest)
		}
		if _, err := p.put(ctx, fallbackTag(p.image.Digest), indexType, b); err != nil {
			return err
		}
		if listed, err = p.fallback(ctx, p.image.Digest); err != nil {
			return err
		}
		missing = p.unlisted(listed)
	}
	if len(missing) > 0 {
		return errors.New("another push writes the list of what refers to this image at the same time: push again")
	}
	return nil
}

// unlisted is what of the attached is not in a list.
func (p *pusher) unlisted(listed []descriptor) []descriptor {
	have := map[digest.Digest]bool{}
	for _, d := range listed {
		have[d.Digest] = true
	}
	var out []descriptor
	for _, r := range p.refs {
		if !have[r.Digest] {
			out = append(out, r.descriptor)
		}
	}
	return out
}

// referrers lists what refers to a manifest; known is whether the registry
// keeps that list itself.
func (c *client) referrers(ctx context.Context, d digest.Digest) (listed []descriptor, known bool, err error) {
	at := c.url("referrers", d.String())
	for range maxPages {
		b, header, err := c.get(ctx, at, indexType, maxManifest)
		switch prefetch.RegistryStatus(err) {
		// What registries say that do not know of referrers.
		case http.StatusBadRequest, http.StatusMethodNotAllowed, http.StatusNotAcceptable:
			b, err = nil, nil
		}
		if err != nil {
			return nil, false, err
		}
		if b == nil || !strings.HasPrefix(header.Get("Content-Type"), indexType) {
			listed, err = c.fallback(ctx, d)
			return listed, false, err
		}
		page, err := readIndex(b)
		if err != nil {
			return nil, true, err
		}
		if listed = append(listed, page...); len(listed) > maxReferrers {
			return nil, true, fmt.Errorf("%w: more than %d things refer to the image", ErrLies, maxReferrers)
		}
		if at, err = nextPage(at, header); at == "" || err != nil {
			return listed, true, err
		}
	}
	return nil, true, fmt.Errorf("%w: a list of more than %d pages", ErrLies, maxPages)
}

// linkNext is a Link header's address of what follows (RFC 8288, section 3).
var linkNext = regexp.MustCompile(`<([^>]*)>\s*;[^,]*\brel="?next"?`)

// nextPage is where a list goes on; empty where it does not.
func nextPage(from string, header http.Header) (string, error) {
	m := linkNext.FindStringSubmatch(strings.Join(header.Values("Link"), ", "))
	if m == nil {
		return "", nil
	}
	at, err := url.Parse(from)
	if err != nil {
		return "", err
	}
	to, err := at.Parse(m[1])
	if err != nil || to.Host != at.Host || to.Path != at.Path || to.User != nil {
		return "", fmt.Errorf("%w: a list goes on at another place", ErrLies)
	}
	to.Scheme = at.Scheme
	return to.String(), nil
}

// fallback is the list that those who push keep.
func (c *client) fallback(ctx context.Context, d digest.Digest) ([]descriptor, error) {
	b, err := c.manifest(ctx, fallbackTag(d), digest.Digest{})
	if b == nil || err != nil {
		return nil, err
	}
	listed, err := readIndex(b)
	if err == nil && len(listed) > maxReferrers {
		err = fmt.Errorf("%w: more than %d things refer to the image", ErrLies, maxReferrers)
	}
	return listed, err
}

// readIndex reads what an index lists.
func readIndex(b []byte) ([]descriptor, error) {
	var i index
	if err := json.Unmarshal(b, &i); err != nil {
		return nil, fmt.Errorf("%w: a list of what refers to the image: %w", ErrLies, err)
	}
	if i.SchemaVersion != 2 || i.MediaType != "" && i.MediaType != indexType {
		return nil, fmt.Errorf("%w: what should list what refers to the image is of version %d and type %q", ErrLies, i.SchemaVersion, i.MediaType)
	}
	for _, d := range i.Manifests {
		if d.Digest.IsZero() || d.Size < 0 {
			return nil, fmt.Errorf("%w: what refers to the image has the digest %s and %d bytes", ErrLies, d.Digest, d.Size)
		}
	}
	return i.Manifests, nil
}

// Attached is something that refers to an image, as a registry has it.
type Attached struct {
	// Manifest is the digest by which the registry has it.
	Manifest digest.Digest
	Type     string
	Content  []byte
}

// Fetch reads what refers to an image: its bundles. A tag is resolved; the
// image's digest comes back. What is of another artifact type is left out, and
// what has a digest that is not its own is an error.
func Fetch(ctx context.Context, ref string, cfg prefetch.Config, maxSize int64) (digest.Digest, []Attached, error) {
	r, err := prefetch.ParseRef(ref, "latest")
	if err != nil {
		return digest.Digest{}, nil, err
	}
	c, err := connect(ctx, r.Context(), cfg, false)
	if err != nil {
		return digest.Digest{}, nil, prefetch.RegistryFailed(ctx, r.Name(), err)
	}
	d, all, err := c.fetch(ctx, r.Identifier(), maxSize)
	if err != nil {
		return d, nil, prefetch.RegistryFailed(ctx, r.Name(), err)
	}
	return d, all, nil
}

// errNothing says that a registry has no such image.
var errNothing = errors.New("there is no such image")

func (c *client) fetch(ctx context.Context, id string, maxSize int64) (digest.Digest, []Attached, error) {
	want, err := digest.Parse(id)
	if err != nil && strings.Contains(id, ":") {
		return want, nil, err
	}
	b, err := c.manifest(ctx, id, want)
	if err == nil && b == nil {
		err = errNothing
	}
	if err != nil {
		return want, nil, err
	}
	want = digest.Of(b)
	listed, _, err := c.referrers(ctx, want)
	if err != nil {
		return want, nil, err
	}
	var all []Attached
	for _, l := range listed {
		a, err := c.attachment(ctx, want, l, maxSize)
		if err != nil {
			return want, nil, err
		}
		if a != nil {
			maxSize -= int64(len(a.Content))
			all = append(all, *a)
		}
	}
	return want, all, nil
}

// bundleTypes begins the artifact type of every version of bundles.
const bundleTypes = "application/vnd.dev.sigstore.bundle"

// attachment reads one bundle; nil where it is none.
func (c *client) attachment(ctx context.Context, subject digest.Digest, l descriptor, maxSize int64) (*Attached, error) {
	switch { // some registries say the config's type, or nothing
	case l.ArtifactType == "", l.ArtifactType == emptyType, strings.HasPrefix(l.ArtifactType, bundleTypes):
	default:
		return nil, nil
	}
	b, err := c.manifest(ctx, l.Digest.String(), l.Digest)
	if err == nil && b == nil {
		err = fmt.Errorf("%w: it lists %s, and does not have it", ErrLies, l.Digest)
	}
	if err != nil {
		return nil, err
	}
	var m manifest
	if json.Unmarshal(b, &m) != nil || len(m.Layers) != 1 || !strings.HasPrefix(m.Layers[0].MediaType, bundleTypes) {
		return nil, nil
	}
	if m.Subject == nil || m.Subject.Digest != subject {
		return nil, fmt.Errorf("%w: %s is listed, and does not refer to the image", ErrLies, l.Digest)
	}
	layer := m.Layers[0]
	if layer.Size > maxSize {
		return nil, fmt.Errorf("%w: a bundle of %d bytes, want at most %d for all", ErrLies, layer.Size, maxSize)
	}
	content, _, err := c.get(ctx, c.url("blobs", layer.Digest.String()), "", layer.Size)
	if err != nil {
		return nil, err
	}
	if got := digest.Of(content); got != layer.Digest {
		return nil, fmt.Errorf("%w: the bundle %s has the digest %s", ErrLies, layer.Digest, got)
	}
	return &Attached{Manifest: l.Digest, Type: layer.MediaType, Content: content}, nil
}
