package attest

import (
	"sync"

	"caisson/attest/spdx"
	"caisson/lock"
	"caisson/prefetch"
	"caisson/prefetch/cas"
)

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
