package prefetch

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// RegistryError is an answer of a registry that was not what was asked for.
type RegistryError struct {
	Ref    string
	Status int // HTTP's, 0 where there was no answer
	Err    error
}

func (e *RegistryError) Error() string {
	return fmt.Sprintf("%s: %s", e.Ref, RegistryErrorText(e.Err))
}

// Unwrap returns the reason.
func (e *RegistryError) Unwrap() error { return e.Err }

// RegistryFailed makes a RegistryError, or returns the context's.
func RegistryFailed(ctx context.Context, ref string, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	e := &RegistryError{Ref: ref, Status: RegistryStatus(err), Err: err}
	var fe *FetchError
	if e.Status == 0 && errors.As(err, &fe) {
		e.Status = fe.Status
	}
	return e
}

// RegistryStatus is the HTTP status of an error of a registry, 0 where there
// was no answer.
func RegistryStatus(err error) int {
	var te *transport.Error
	if errors.As(err, &te) {
		return te.StatusCode
	}
	return 0
}

// RefError says that a reference is not one.
type RefError struct {
	Ref string
	Err error
}

func (e *RefError) Error() string {
	return fmt.Sprintf("%q is not REGISTRY/REPO[:TAG]: %v", e.Ref, e.Err)
}

// Unwrap returns the reason.
func (e *RefError) Unwrap() error { return e.Err }

// ParseRef reads REGISTRY/REPO[:TAG] or REGISTRY/REPO@DIGEST; what it does not
// read is a *RefError. The tag that is not given is the one given here.
func ParseRef(ref, tag string) (name.Reference, error) {
	r, err := name.ParseReference(ref, name.WithDefaultTag(tag))
	if err != nil {
		return nil, &RefError{ref, err}
	}
	first, _, slash := strings.Cut(ref, "/")
	if !slash || first != "localhost" && !strings.ContainsAny(first, ".:") {
		return nil, &RefError{ref, errors.New("it names no registry")}
	}
	return r, nil
}
