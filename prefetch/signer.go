package prefetch

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"caisson/lock"
	"caisson/lock/digest"
	"caisson/prefetch/cas"
	"caisson/prefetch/rpmsig"
)

// Signature is who signed a package, as it was proved when it came into the
// store.
type Signature struct {
	// KeyID is the id of the key or subkey that signed, 16 upper-case hex
	// digits: what Konflux's RPMS_DATA counts packages by, in lower case.
	KeyID string `json:"keyID"`
	// Fingerprint is that of the primary key, which the lock trusts, and
	// UserID who its owner says to be.
	Fingerprint string    `json:"fingerprint"`
	UserID      string    `json:"userID,omitempty"`
	Algorithm   string    `json:"algorithm"` // RSA, DSA, EdDSA …
	Hash        string    `json:"hash"`      // SHA256 …
	Time        time.Time `json:"time"`      // as the signer wrote it
}

// signatureOf takes over what rpmsig has found.
func signatureOf(s rpmsig.Signature) Signature {
	algorithm, hash, _ := strings.Cut(s.Algo, "/")
	return Signature{KeyID: s.KeyID, Fingerprint: s.KeyFingerprint, UserID: s.UserID, Algorithm: algorithm, Hash: hash, Time: s.Time.UTC()}
}

// note is the signature as it is kept beside the store's entry.
func (s Signature) note() (string, error) {
	b, err := json.Marshal(s)
	return string(b), err
}

// Signer is who signed a package of a lock. It is known of what Fill has
// proved by the keys that the lock trusts: not of packages whose signature
// nobody asked for, nor of what did not come by Fill.
func Signer(l *lock.Lock, s *cas.Store, in *lock.Input) (Signature, bool) {
	if in.RPM == nil || !in.RPM.Signed {
		return Signature{}, false
	}
	for i := range l.Repos {
		if l.Repos[i].ID != in.Repo {
			continue
		}
		for _, fpr := range l.Repos[i].Keys {
			fpr = strings.ToUpper(fpr)
			for k := range l.Inputs {
				key := &l.Inputs[k]
				if key.Kind != lock.KindKey || !slices.Contains(key.Fingerprints(), fpr) {
					continue
				}
				if sig, ok := recorded(in, s, fpr, key.SHA256); ok {
					return sig, true
				}
			}
		}
	}
	return Signature{}, false
}

// ProveSigner is Signer, and checks the signature itself where nothing of it is
// remembered: what it says follows from the lock and the package's bytes. The
// package has to be a signed one.
func ProveSigner(l *lock.Lock, s *cas.Store, in *lock.Input) (Signature, error) {
	if sig, ok := Signer(l, s, in); ok {
		return sig, nil
	}
	t, err := readTrust(l, s)
	if err != nil {
		return Signature{}, err
	}
	c, err := s.Open(in.SHA256)
	if err != nil {
		return Signature{}, err
	}
	defer c.Close()
	if err := c.Verify(); err != nil {
		return Signature{}, err
	}
	p, err := t.proveRPM(in, c)
	if err != nil {
		return Signature{}, err
	}
	var sig Signature
	if err := json.Unmarshal([]byte(p.note), &sig); err != nil {
		return Signature{}, fmt.Errorf("reading the proof of a signature: %w", err)
	}
	return sig, nil
}

// signature is what the store remembers of a package's signature by any of
// its repository's keys.
func (t *trust) signature(in *lock.Input, s *cas.Store) (Signature, bool) {
	keys := t.repos[in.Repo].keys
	for fpr, file := range keys {
		if sig, ok := recorded(in, s, fpr, file); ok {
			return sig, true
		}
	}
	return Signature{}, false
}

// recorded reads a proof's note.
func recorded(in *lock.Input, s *cas.Store, fingerprint string, file digest.Digest) (Signature, bool) {
	var sig Signature
	d, note, ok := s.LookupNote(rpmProof(in, fingerprint, file))
	if !ok || d != in.SHA256 || json.Unmarshal([]byte(note), &sig) != nil {
		return Signature{}, false
	}
	return sig, sig.Fingerprint == fingerprint
}
