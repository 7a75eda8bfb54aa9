package attest

import (
	"sync"

	"caisson/attest/spdx"
	"caisson/attest/spdx/facts"
	"caisson/lock"
	"caisson/prefetch"
	"caisson/prefetch/cas"
)

// signerOf says by whom a package is signed.
type signerOf = func(*lock.Input) (spdx.Signer, error)

// License says what the header of a package in the store declares.
func License(store *cas.Store) func(*lock.Input) (string, error) {
	read := facts.Of(store)
	return func(in *lock.Input) (string, error) {
		f, err := read(in)
		return f.License, err
	}
}

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
