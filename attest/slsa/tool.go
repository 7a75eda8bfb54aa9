package slsa

import (
	"errors"
	"fmt"
	"time"

	"caisson/lock/digest"
)

// Role is what a signer of statements did: build an image, or verify it.
type Role string

// The roles. Each has its own key.
const (
	Builder  Role = "builder"
	Verifier Role = "verifier"
)

// ID is the role's URI, which statements give as the builder's or the
// verifier's id.
func (r Role) ID() string { return "https://caisson.dev/roles/" + string(r) + "/v1" }

func (r Role) check() error {
	if r != Builder && r != Verifier {
		return fmt.Errorf("role %q, want %q or %q", r, Builder, Verifier)
	}
	return nil
}

// Tool is the Caisson that speaks.
type Tool struct {
	Version string
	Go      string        // the Go version it was compiled with
	Digest  digest.Digest // of the binary
	Modules []Module
}

// Module is a Go module in the binary.
type Module struct {
	Path    string
	Version string
	Sum     string // go.sum's h1
}

// Invocation is one run of the build.
type Invocation struct {
	ID                string
	Started, Finished time.Time
}

// Speaker is who makes a statement.
type Speaker struct {
	Role Role
	Tool Tool
}

func (s Speaker) check() error {
	if err := s.Role.check(); err != nil {
		return err
	}
	if s.Tool.Version == "" || s.Tool.Digest.IsZero() {
		return errors.New("no version or no digest of the Caisson binary given")
	}
	return nil
}

// binary describes the Caisson binary.
func (s Speaker) binary() Resource {
	r := File("caisson", s.Tool.Digest)
	r.Annotations = map[string]any{"role": string(s.Role), "version": s.Tool.Version}
	return r
}

func (s Speaker) versions() map[string]string {
	v := map[string]string{"caisson": s.Tool.Version}
	if s.Tool.Go != "" {
		v["go"] = s.Tool.Go
	}
	return v
}

// dependencies are the binary and the modules in it.
func (s Speaker) dependencies() []Resource {
	deps := []Resource{s.binary()}
	for _, m := range s.Tool.Modules {
		r := Resource{Name: m.Path, URI: "pkg:golang/" + m.Path + "@" + m.Version}
		if m.Sum != "" {
			r.Annotations = map[string]any{"h1": m.Sum}
		}
		deps = append(deps, r)
	}
	return deps
}
