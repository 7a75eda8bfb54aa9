package attest

import (
	"bufio"
	"errors"
	"fmt"
	"io"

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

// License says what the header of a package in the store declares.
func License(store *cas.Store) func(*lock.Input) (string, error) {
	read := headers(store)
	return func(in *lock.Input) (string, error) {
		h, err := read(in)
		return h.License, err
	}
}

// signers says by whom the packages of a lock are signed.
func signers(l *lock.Lock, store *cas.Store) func(*lock.Input) (spdx.Signer, error) {
	return func(in *lock.Input) (spdx.Signer, error) {
		sig, err := prefetch.ProveSigner(l, store, in)
		return spdx.Signer{Fingerprint: sig.Fingerprint, UserID: sig.UserID}, err
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
