package oci

import (
	"context"

	"caisson/prefetch"
)

// Probe tells whether a repository may be pushed to, as far as it can be told
// without an image: by sending it the blob of two bytes that OCI images use for
// want of another (image-spec, "Guidance for an Empty Descriptor"). It sends it
// even where the registry has it, and sets no tag. The error is Push's.
func Probe(ctx context.Context, ref string, cfg prefetch.Config) error {
	r, err := prefetch.ParseRef(ref, "latest")
	if err != nil {
		return err
	}
	c, err := connect(ctx, r.Context(), cfg, true)
	if err == nil {
		b := inMemory("application/vnd.oci.empty.v1+json", []byte("{}"))
		u := &uploading{client: c, blob: &b, sent: func(int64) {}}
		err = c.try(ctx, func() error { return u.step(ctx) })
	}
	if err != nil {
		return prefetch.RegistryFailed(ctx, r.Name(), err)
	}
	return nil
}
