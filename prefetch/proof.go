package prefetch

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"golang.org/x/mod/sumdb/dirhash"

	"caisson/lock"
	"caisson/lock/digest"
	"caisson/prefetch/cas"
	"caisson/prefetch/rpmsig"
)

// SignatureError says that a package is not signed as the lock wants it.
type SignatureError struct {
	Name string // the input's
	Err  error
}

func (e *SignatureError) Error() string { return fmt.Sprintf("signature: %v", e.Err) }

// Unwrap returns the reason.
func (e *SignatureError) Unwrap() error { return e.Err }

// HashError says that a Go module's or toolchain's h1 is not the lock's.
type HashError struct {
	Name      string
	Got, Want string
}

func (e *HashError) Error() string {
	return fmt.Sprintf("got %s, want %s", e.Got, e.Want)
}

// content is a file whose SHA-256 is known to be right.
type content interface {
	io.ReaderAt
	Size() int64
	Name() string // its path
}

// trust is the keys that the repositories of a lock trust.
type trust struct {
	repos map[string]repoTrust // by repository id
}

type repoTrust struct {
	ring rpmsig.Keyring
	// keys are the digests of the key files by fingerprint, for what is
	// remembered of a signature.
	keys map[string]digest.Digest
}

// readTrust reads the keys of a lock from the store.
func readTrust(l *lock.Lock, s *cas.Store) (*trust, error) {
	var all rpmsig.Keyring
	files := make(map[string]digest.Digest)
	for i := range l.Inputs {
		in := &l.Inputs[i]
		if in.Kind != lock.KindKey {
			continue
		}
		ring, err := readKey(in, s)
		if err != nil {
			return nil, &InputError{Kind: in.Kind, Name: in.Name, Err: err}
		}
		for _, fpr := range ring.Fingerprints() {
			files[fpr] = in.SHA256
		}
		all = all.With(ring)
	}
	t := &trust{repos: make(map[string]repoTrust)}
	for _, r := range l.Repos {
		rt, ok := t.repos[r.ID]
		if !ok {
			rt.keys = make(map[string]digest.Digest)
		}
		for _, fpr := range r.Keys {
			fpr = strings.ToUpper(fpr)
			if d, ok := files[fpr]; ok && rt.keys[fpr].IsZero() {
				rt.keys[fpr] = d
				rt.ring = rt.ring.With(all.Only(fpr))
			}
		}
		t.repos[r.ID] = rt
	}
	return t, nil
}

func readKey(in *lock.Input, s *cas.Store) (rpmsig.Keyring, error) {
	f, err := s.Open(in.SHA256)
	if err != nil {
		return rpmsig.Keyring{}, err
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		return rpmsig.Keyring{}, err
	}
	ring, err := rpmsig.ReadKeys(b)
	if err != nil {
		return rpmsig.Keyring{}, err
	}
	have := ring.Fingerprints()
	for fpr := range strings.SplitSeq(in.Fingerprint, ",") { // a file may have several keys
		if fpr != "" && !slices.Contains(have, strings.ToUpper(fpr)) {
			return rpmsig.Keyring{}, fmt.Errorf("got the keys %s, want %s", strings.Join(have, ","), in.Fingerprint)
		}
	}
	return ring, nil
}

// proof is what is remembered of a proof; an empty key for nothing.
type proof struct{ key, note string }

// prove checks what a file of the right SHA-256 has to be besides.
func (t *trust) prove(in *lock.Input, c content) (proof, error) {
	switch {
	case in.RPM != nil:
		return t.proveRPM(in, c)
	case in.Go != nil && in.Go.H1 != "":
		return proof{key: goProof(in)}, proveGo(in, c)
	case in.Git != nil:
		return proof{key: gitProof(in)}, proveGit(in, c)
	case in.Kind == lock.KindCrate:
		return proof{key: crateProof(in)}, checkCrate(in, c)
	}
	return proof{}, nil
}

// proved tells whether the store remembers all that prove would check.
func (t *trust) proved(in *lock.Input, s *cas.Store) bool {
	var keys []string
	switch {
	case in.RPM != nil && in.RPM.Signed:
		_, ok := t.signature(in, s)
		return ok
	case in.RPM != nil:
		keys = []string{rpmProof(in, "", digest.Digest{})}
	case in.Go != nil && in.Go.H1 != "":
		keys = []string{goProof(in)}
	case in.Git != nil:
		keys = []string{gitProof(in)}
	case in.Kind == lock.KindCrate:
		keys = []string{crateProof(in)}
	default:
		return true
	}
	return slices.ContainsFunc(keys, func(k string) bool {
		d, ok := s.Lookup(k)
		return ok && d == in.SHA256
	})
}

// rpmProof is the key for: this file is this package, and is signed by this
// key out of this key file, which the note describes; or nobody asked for a
// signature.
func rpmProof(in *lock.Input, fingerprint string, key digest.Digest) string {
	r := in.RPM
	return strings.Join([]string{"proof-3 rpm", in.SHA256.Hex(), r.Name, r.EVR(), r.Arch, fingerprint, key.Hex()}, "\x00")
}

func (t *trust) proveRPM(in *lock.Input, c content) (proof, error) {
	p, err := rpmsig.Open(c, c.Size())
	if err != nil {
		return proof{}, err
	}
	r := in.RPM
	want := rpmsig.Package{Name: r.Name, Epoch: r.Epoch, Version: r.Version, Release: r.Release, Arch: r.Arch}
	if got := p.NEVRA(); got != want.NEVRA() {
		return proof{}, fmt.Errorf("it is another package: got %s, want %s", got, want.NEVRA())
	}
	if !r.Signed {
		if err := p.CheckDigests(); err != nil {
			return proof{}, err
		}
		return proof{key: rpmProof(in, "", digest.Digest{})}, nil
	}
	rt := t.repos[in.Repo]
	if len(rt.keys) == 0 {
		return proof{}, &SignatureError{Name: in.Name, Err: fmt.Errorf("the lock has no key of the repository %q", in.Repo)}
	}
	sig, err := rt.ring.Check(p)
	if err != nil {
		return proof{}, &SignatureError{Name: in.Name, Err: err}
	}
	note, err := signatureOf(sig).note()
	return proof{rpmProof(in, sig.KeyFingerprint, rt.keys[sig.KeyFingerprint]), note}, err
}

func goProof(in *lock.Input) string {
	return strings.Join([]string{"proof-2 go", in.SHA256.Hex(), in.Go.H1}, "\x00")
}

// proveGo compares the h1 of a module's zip, or of its go.mod.
func proveGo(in *lock.Input, c content) error {
	if !strings.HasSuffix(in.URL, ".mod") {
		return checkZip(in, c)
	}
	got, err := dirhash.Hash1([]string{"go.mod"}, func(string) (io.ReadCloser, error) {
		return io.NopCloser(io.NewSectionReader(c, 0, c.Size())), nil
	})
	if err != nil {
		return err
	}
	if got != in.Go.H1 {
		return &HashError{Name: in.Name, Got: got, Want: in.Go.H1}
	}
	return nil
}
