package attest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/cavaliergopher/rpm"

	"caisson/attest/spdx"
	"caisson/lock"
	"caisson/prefetch"
	"caisson/prefetch/cas"
)

// headers reads RPMs from the store, each verified as a whole.
func headers(store *cas.Store) func(*lock.Input) (spdx.Header, error) {
	return func(in *lock.Input) (spdx.Header, error) {
		f, err := store.Open(in.SHA256)
		if err != nil {
			return spdx.Header{}, err
		}
		defer f.Close()
		if err := f.Verify(); err != nil {
			return spdx.Header{}, err
		}
		p, err := rpm.Read(full{bufio.NewReader(f)})
		if err != nil {
			return spdx.Header{}, fmt.Errorf("reading the RPM's headers: %w", err)
		}
		return spdx.Header{
			Vendor:   p.Vendor(),
			Packager: p.Packager(),
			License:  p.License(),
			URL:      p.URL(),
			Summary:  p.Summary(),
		}, nil
	}
}

// signerOf says by whom a package is signed.
type signerOf = func(*lock.Input) (spdx.Signer, error)

// signers says by whom the packages of a lock are signed; of each it finds out
// once.
func signers(l *lock.Lock, store *cas.Store) signerOf {
	var known sync.Map
	return func(in *lock.Input) (spdx.Signer, error) {
		if s, ok := known.Load(in.SHA256); ok {
			return s.(spdx.Signer), nil
		}
		sig, err := prefetch.ProveSigner(l, store, in)
		s := spdx.Signer{Fingerprint: sig.Fingerprint, UserID: sig.UserID}
		if err == nil {
			known.Store(in.SHA256, s)
		}
		return s, err
	}
}

// full fills the buffer, which the rpm library takes for granted.
type full struct{ r io.Reader }

func (f full) Read(b []byte) (int, error) {
	n, err := io.ReadFull(f.r, b)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = io.EOF
	}
	return n, err
}
