package rpmsig

import (
	"bytes"
	"crypto"
	"crypto/dsa" //nolint:staticcheck // what is signed with it is there
	"crypto/rsa"
	_ "crypto/sha256" // what hashes names has to be linked in
	_ "crypto/sha3"
	_ "crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"math/big"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// tagSignature is the OpenPGP packet type of a signature (RFC 9580, section 5).
const tagSignature = 2

// maxPackets is how many signature packets one signature may have.
const maxPackets = 16

// hashes are the hash functions that count, by their OpenPGP number (RFC
// 9580, section 9.5); MD5, SHA-1 and RIPEMD-160 do not.
var hashes = map[crypto.Hash]string{
	crypto.SHA224: "SHA224", crypto.SHA256: "SHA256", crypto.SHA384: "SHA384",
	crypto.SHA512: "SHA512", crypto.SHA3_256: "SHA3-256", crypto.SHA3_512: "SHA3-512",
}

// Signature is a good signature.
type Signature struct {
	// KeyFingerprint is the primary key's, in upper-case hex: the key that is
	// trusted.
	KeyFingerprint string
	// UserID is the primary key's owner, as the key has it: "NAME <ADDRESS>".
	// Empty where it has none.
	UserID string
	// KeyID is the id of the key or subkey that signed, 16 upper-case hex digits.
	KeyID string
	Time  time.Time // as the signer wrote it
	Algo  string    // such as "RSA/SHA256"
	// Covers says what of an RPM is proved by what; empty for other files.
	Covers string
}

// Reasons for which a signature is refused.
var (
	ErrUnsigned = errors.New("not signed")
	ErrBad      = errors.New("bad signature")
	ErrPayload  = errors.New("the payload is not what was signed")
	ErrDigest   = errors.New("the package is not what its own digests say")
)

// UnknownKeyError says that a file is signed, but by no trusted key.
type UnknownKeyError struct {
	KeyID string // 16 upper-case hex digits
	Algo  string
}

func (e *UnknownKeyError) Error() string {
	return fmt.Sprintf("signed by the key %s (%s), which is not trusted", e.KeyID, e.Algo)
}

// sigPacket is one parsed signature packet: v3 has its own fields, the later
// versions are go-crypto's.
type sigPacket struct {
	keyID   uint64 // 0 where it names only a fingerprint or nobody
	created time.Time
	pubAlgo packet.PublicKeyAlgorithm
	hash    crypto.Hash
	sig     *packet.Signature // nil for version 3
	suffix  []byte            // version 3: what is hashed after the data
	mpis    []*big.Int        // version 3
}

// parsePackets reads a signature: one or more signature packets and nothing
// else. text says whether those of a text, whatever its line endings, will do
// beside those of a binary document.
func parsePackets(b []byte, text bool) ([]*sigPacket, error) {
	var out []*sigPacket
	or := packet.NewOpaqueReader(bytes.NewReader(b))
	for {
		op, err := or.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrBad, err)
		}
		if op.Tag != tagSignature {
			return nil, fmt.Errorf("%w: an OpenPGP packet of type %d among the signatures", ErrBad, op.Tag)
		}
		if len(out) == maxPackets {
			return nil, fmt.Errorf("%w: more than %d packets", ErrBad, maxPackets)
		}
		p, err := parsePacket(op, text)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrBad, err)
		}
		out = append(out, p)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%w: it is empty", ErrBad)
	}
	return out, nil
}

func parsePacket(op *packet.OpaquePacket, text bool) (*sigPacket, error) {
	if len(op.Contents) > 0 && op.Contents[0] == 3 {
		return parseV3(op.Contents)
	}
	p, err := op.Parse()
	if err != nil {
		return nil, err
	}
	sig, ok := p.(*packet.Signature)
	if !ok {
		return nil, errors.New("no signature packet")
	}
	if sig.SigType != packet.SigTypeBinary && (!text || sig.SigType != packet.SigTypeText) {
		return nil, fmt.Errorf("signature type %#x, want that of a binary document", byte(sig.SigType))
	}
	out := &sigPacket{created: sig.CreationTime, pubAlgo: sig.PubKeyAlgo, hash: sig.Hash, sig: sig}
	if sig.IssuerKeyId != nil {
		out.keyID = *sig.IssuerKeyId
	} else if fpr := sig.IssuerFingerprint; sig.Version == 6 && len(fpr) >= 8 {
		out.keyID = binary.BigEndian.Uint64(fpr)
	} else if len(fpr) >= 8 {
		out.keyID = binary.BigEndian.Uint64(fpr[len(fpr)-8:])
	}
	return out, nil
}

// parseV3 reads a version 3 signature packet (RFC 4880, section 5.2.2): what
// rpmsign wrote until rpm 4.13.
func parseV3(b []byte) (*sigPacket, error) {
	const fixed = 19 // up to the left 16 bits of the hash, included
	if len(b) < fixed || b[1] != 5 {
		return nil, errors.New("version 3 signature is truncated")
	}
	if b[2] != byte(packet.SigTypeBinary) {
		return nil, fmt.Errorf("signature type %#x, want that of a binary document", b[2])
	}
	out := &sigPacket{
		keyID:   binary.BigEndian.Uint64(b[7:]),
		created: time.Unix(int64(binary.BigEndian.Uint32(b[3:])), 0).UTC(),
		pubAlgo: packet.PublicKeyAlgorithm(b[15]),
		suffix:  b[2:7],
	}
	switch b[16] { // RFC 9580, section 9.5
	case 1:
		out.hash = crypto.MD5
	case 2:
		out.hash = crypto.SHA1
	case 8:
		out.hash = crypto.SHA256
	case 9:
		out.hash = crypto.SHA384
	case 10:
		out.hash = crypto.SHA512
	case 11:
		out.hash = crypto.SHA224
	default:
		return nil, fmt.Errorf("hash function %d is not supported", b[16])
	}
	for rest := b[fixed:]; len(rest) > 0; {
		if len(rest) < 2 {
			return nil, errors.New("version 3 signature is truncated")
		}
		n := (int(binary.BigEndian.Uint16(rest)) + 7) / 8
		if len(rest) < 2+n || len(out.mpis) == 2 {
			return nil, errors.New("version 3 signature has a bad number")
		}
		out.mpis = append(out.mpis, new(big.Int).SetBytes(rest[2:2+n]))
		rest = rest[2+n:]
	}
	return out, nil
}

func (p *sigPacket) id() string { return fmt.Sprintf("%016X", p.keyID) }

func (p *sigPacket) algo() string {
	pub := map[packet.PublicKeyAlgorithm]string{
		packet.PubKeyAlgoRSA: "RSA", packet.PubKeyAlgoRSASignOnly: "RSA", packet.PubKeyAlgoDSA: "DSA",
		packet.PubKeyAlgoECDSA: "ECDSA", packet.PubKeyAlgoEdDSA: "EdDSA",
		packet.PubKeyAlgoEd25519: "Ed25519", packet.PubKeyAlgoEd448: "Ed448",
	}[p.pubAlgo]
	if pub == "" {
		pub = fmt.Sprintf("algorithm %d", p.pubAlgo)
	}
	name, ok := hashes[p.hash]
	if !ok {
		name = p.hash.String()
	}
	return pub + "/" + name
}

// hasher starts the hash that the signature is over.
func (p *sigPacket) hasher() (hash.Hash, error) {
	if _, ok := hashes[p.hash]; !ok || !p.hash.Available() {
		return nil, fmt.Errorf("%w: by %s with %s, which proves nothing", ErrBad, p.id(), p.algo())
	}
	if p.sig != nil {
		return p.sig.PrepareVerify()
	}
	return p.hash.New(), nil
}

// writer is where what is signed goes to be hashed by h.
func (p *sigPacket) writer(h hash.Hash) io.Writer {
	if p.sig != nil && p.sig.SigType == packet.SigTypeText {
		return openpgp.NewCanonicalTextHash(h)
	}
	return h
}

// signer is a key that may have made a signature.
type signer struct {
	entity *openpgp.Entity
	key    *packet.PublicKey
	sub    *openpgp.Subkey // nil for the primary key
}

// signers are the keyring's keys that the signature may be by.
func (k Keyring) signers(p *sigPacket) []signer {
	fits := func(pk *packet.PublicKey) bool {
		if p.sig != nil {
			return p.sig.CheckKeyIdOrFingerprint(pk)
		}
		return pk.KeyId == p.keyID
	}
	var out []signer
	for _, e := range k.keys {
		if fits(e.PrimaryKey) {
			out = append(out, signer{entity: e, key: e.PrimaryKey})
		}
		for i := range e.Subkeys {
			if s := &e.Subkeys[i]; fits(s.PublicKey) {
				out = append(out, signer{entity: e, key: s.PublicKey, sub: s})
			}
		}
	}
	return out
}

// check verifies one packet, whose hasher has been given the data. The error
// is an *UnknownKeyError or an ErrBad.
func (k Keyring) check(p *sigPacket, h hash.Hash) (Signature, error) {
	signers := k.signers(p)
	if len(signers) == 0 {
		return Signature{}, &UnknownKeyError{KeyID: p.id(), Algo: p.algo()}
	}
	var last error
	for _, s := range signers {
		err := s.usable(p.created)
		if err == nil {
			err = p.verify(s.key, h)
		}
		if err == nil {
			return Signature{
				KeyFingerprint: fingerprint(s.entity),
				UserID:         userID(s.entity),
				KeyID:          fmt.Sprintf("%016X", s.key.KeyId),
				Time:           p.created,
				Algo:           p.algo(),
			}, nil
		}
		last = fmt.Errorf("%w: by %016X (%s): %w", ErrBad, s.key.KeyId, p.algo(), err)
	}
	return Signature{}, last
}

// verify does the arithmetic. It uses h up: of two keys that bear one id and
// may both have signed, only the first is tried.
func (p *sigPacket) verify(key *packet.PublicKey, h hash.Hash) error {
	if p.sig != nil {
		return key.VerifySignature(h, p.sig)
	}
	h.Write(p.suffix)
	sum := h.Sum(nil)
	switch pub := key.PublicKey.(type) {
	case *rsa.PublicKey:
		if len(p.mpis) != 1 || len(p.mpis[0].Bytes()) > pub.Size() {
			return errors.New("RSA verification failure")
		}
		return rsa.VerifyPKCS1v15(pub, p.hash, sum, p.mpis[0].FillBytes(make([]byte, pub.Size())))
	case *dsa.PublicKey:
		// The leftmost bits of the hash, as many as q has (FIPS 186-4, section 4.6).
		sum = sum[:min(len(sum), pub.Q.BitLen()/8)]
		if len(p.mpis) != 2 || !dsa.Verify(pub, sum, p.mpis[0], p.mpis[1]) {
			return errors.New("DSA verification failure")
		}
		return nil
	}
	return errors.New("version 3 signature by a key that is neither RSA nor DSA")
}

// usable says why the key may not have made a signature at that time, or nil.
func (s signer) usable(at time.Time) error {
	if bits, err := s.key.BitLength(); err == nil && bits < 2048 {
		switch s.key.PubKeyAlgo {
		case packet.PubKeyAlgoRSA, packet.PubKeyAlgoRSASignOnly, packet.PubKeyAlgoDSA:
			return fmt.Errorf("the key has %d bits, want at least 2048", bits)
		}
	}
	self := s.entity.SelfSignature
	if id := s.entity.PrimaryIdentity(); id != nil {
		self = id.SelfSignature
	}
	if self == nil {
		return errors.New("the key has no valid user id")
	}
	if err := revoked(s.entity.Revocations, at); err != nil {
		return fmt.Errorf("the key %w", err)
	}
	if err := alive(s.entity.PrimaryKey, self, at); err != nil {
		return err
	}
	if s.sub == nil {
		if self.FlagsValid && !self.FlagSign {
			return errors.New("the key is not for signing")
		}
		return nil
	}
	if err := revoked(s.sub.Revocations, at); err != nil {
		return fmt.Errorf("the subkey %w", err)
	}
	if !s.sub.Sig.FlagsValid || !s.sub.Sig.FlagSign {
		return errors.New("the subkey is not for signing")
	}
	return alive(s.key, s.sub.Sig, at)
}

// revoked says of the revocations of a key why it may not have made a signature at
// that time. One that is superseded or retired could still be trusted until then; any
// other may have been in wrong hands for as long as it is, and those write whatever
// time they like (RFC 9580, section 5.2.3.31).
func revoked(revocations []*packet.Signature, at time.Time) error {
	for _, r := range revocations {
		why := ""
		switch reason := r.RevocationReason; {
		case reason != nil && *reason == packet.KeySuperseded:
			why = "superseded"
		case reason != nil && *reason == packet.KeyRetired:
			why = "retired"
		case reason != nil && *reason == packet.KeyCompromised:
			return fmt.Errorf("is revoked (%s): compromised", day(r.CreationTime))
		default:
			return fmt.Errorf("is revoked (%s), and nothing says that it was safe until then", day(r.CreationTime))
		}
		if !at.Before(r.CreationTime) {
			return fmt.Errorf("is revoked (%s): %s, and the signature is of %s", day(r.CreationTime), why, day(at))
		}
	}
	return nil
}

// alive says whether the time is between the key's making and its expiry.
func alive(key *packet.PublicKey, self *packet.Signature, at time.Time) error {
	if at.Before(key.CreationTime) {
		return fmt.Errorf("made %s, before the key (%s)", day(at), day(key.CreationTime))
	}
	if self.KeyLifetimeSecs != nil && *self.KeyLifetimeSecs != 0 {
		end := key.CreationTime.Add(time.Duration(*self.KeyLifetimeSecs) * time.Second)
		if at.After(end) {
			return fmt.Errorf("made %s, after the key expired (%s)", day(at), day(end))
		}
	}
	return nil
}

func day(t time.Time) string { return t.UTC().Format(time.RFC3339) }
