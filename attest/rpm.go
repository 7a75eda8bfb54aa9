package attest

import (
	"caisson/attest/spdx"
	"caisson/lock"
	"caisson/prefetch"
	"caisson/prefetch/cas"
)

// signers says by whom the packages of a lock are signed.
func signers(l *lock.Lock, store *cas.Store) func(*lock.Input) (spdx.Signer, error) {
	return func(in *lock.Input) (spdx.Signer, error) {
		sig, err := prefetch.ProveSigner(l, store, in)
		return spdx.Signer{Fingerprint: sig.Fingerprint, UserID: sig.UserID}, err
	}
}
