package rpmsig

import (
	"bytes"
	"crypto"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"

	"caisson/lock/digest"
)

// maxDetached is the size in bytes above which a detached signature is refused.
const maxDetached = 1 << 20

// maxClearSigned is the size in bytes above which a clear-signed message is
// refused.
const maxClearSigned = 16 << 20

// CheckRPM reads an RPM file of that many bytes and checks it as Check does.
func (k Keyring) CheckRPM(r io.ReaderAt, size int64) (Signature, error) {
	p, err := Open(r, size)
	if err != nil {
		return Signature{}, err
	}
	return k.Check(p)
}

// HeaderDigest is the SHA-256 of the main header, as rpm's SHA256HEADER has it.
func (p *Package) HeaderDigest() (digest.Digest, error) {
	d, _, err := digest.Reader(p.headerBytes())
	return d, err
}

// rpmSig is a signature of the signature header.
type rpmSig struct {
	*sigPacket
	payload bool // over header and payload, not over the header alone
	h       hash.Hash
	err     error // why the hash cannot be made
}

// Check tells who signed the package. It is an error when the package is not
// signed (ErrUnsigned), when no signature is by a key of the keyring
// (*UnknownKeyError), when any that is by one is not good (ErrBad), and when
// what is signed is not all of main header and payload (ErrPayload).
func (k Keyring) Check(p *Package) (Signature, error) {
	sigs, err := p.signatures()
	if err != nil {
		return Signature{}, err
	}
	if len(sigs) == 0 {
		return Signature{}, ErrUnsigned
	}
	bound, err := p.hash(sigs)
	if err != nil {
		return Signature{}, err
	}
	overHeader, overAll, err := k.checkEach(sigs)
	if err != nil && overHeader == nil && overAll == nil {
		return Signature{}, err
	}
	if err := p.checkHeaderDigest(); err != nil {
		return Signature{}, err
	}
	switch {
	case bound == payloadDiffers:
		return Signature{}, fmt.Errorf("%w: its digest differs from the header's", ErrPayload)
	case overHeader != nil && bound == payloadBound:
		overHeader.Covers = "the header by the signature, the payload by the header's digest of it"
		return *overHeader, nil
	case overAll != nil:
		overAll.Covers = "header and payload by the signature"
		return *overAll, nil
	}
	return Signature{}, fmt.Errorf("%w: the signature of %s covers only the header, which has no SHA-2 digest of the payload", ErrPayload, overHeader.KeyID)
}

// checkEach checks every signature: it returns the last good ones over the
// header and over header and payload, and the first that is bad, or else the
// last that is by an unknown key.
func (k Keyring) checkEach(sigs []*rpmSig) (overHeader, overAll *Signature, err error) {
	for _, s := range sigs {
		if s.err != nil && len(k.signers(s.sigPacket)) > 0 {
			return nil, nil, s.err
		}
		good, bad := k.check(s.sigPacket, s.h)
		var unknown *UnknownKeyError
		switch {
		case errors.As(bad, &unknown):
			err = bad
		case bad != nil:
			return nil, nil, bad
		case s.payload:
			overAll = &good
		default:
			overHeader = &good
		}
	}
	return overHeader, overAll, err
}

// signatures reads the OpenPGP signatures that the package has.
func (p *Package) signatures() ([]*rpmSig, error) {
	var out []*rpmSig
	add := func(blob []byte, payload bool) error {
		packets, err := parsePackets(blob, false)
		if err != nil {
			return err
		}
		for _, sp := range packets {
			out = append(out, &rpmSig{sigPacket: sp, payload: payload})
		}
		return nil
	}
	for _, t := range []struct {
		tag     uint32
		payload bool
	}{{sigRSAHeader, false}, {sigDSAHeader, false}, {sigPGP, true}, {sigGPG, true}, {sigPGP5, true}} {
		blob, err := p.sig.bin(t.tag)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrBad, err)
		}
		if blob == nil {
			continue
		}
		if err := add(blob, t.payload); err != nil {
			return nil, err
		}
	}
	texts, err := p.sig.strs(sigOpenPGP, maxPackets)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBad, err)
	}
	for _, text := range texts {
		blob, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrBad, err)
		}
		if err := add(blob, false); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// CheckDigests compares main header and payload with the digests that the
// package has of them; ErrDigest where one differs. It proves nothing about who
// made the package: see Keyring.Check.
func (p *Package) CheckDigests() error {
	if err := p.checkHeaderDigest(); err != nil {
		return err
	}
	switch bound, err := p.hash(nil); {
	case err != nil:
		return err
	case bound == payloadDiffers:
		return fmt.Errorf("%w: the payload is another", ErrDigest)
	}
	return nil
}

func (p *Package) checkHeaderDigest() error {
	want, err := p.sig.str(sigSHA256)
	if err != nil || want == "" {
		return err
	}
	got, err := p.HeaderDigest()
	if err == nil && got.Hex() != want {
		err = fmt.Errorf("%w: the header has sha256:%s, want %q", ErrDigest, got.Hex(), want)
	}
	return err
}

// How the header binds the payload.
const (
	payloadUnbound = iota // it has no digest that counts
	payloadBound          // its digest is the payload's
	payloadDiffers        // its digest is another's
)

// hash reads main header and payload once, for all signatures, and says
// whether the payload is what the header says.
func (p *Package) hash(sigs []*rpmSig) (bound int, err error) {
	want, h, err := p.payloadDigest()
	if err != nil {
		return payloadUnbound, err
	}
	var overHeader, overPayload []io.Writer
	for _, s := range sigs {
		if s.h, s.err = s.hasher(); s.err != nil {
			continue
		}
		overHeader = append(overHeader, s.h)
		if s.payload {
			overPayload = append(overPayload, s.h)
		}
	}
	if h != nil {
		overPayload = append(overPayload, h)
	}
	if err := copyAll(overHeader, p.headerBytes()); err != nil {
		return payloadUnbound, err
	}
	if err := copyAll(overPayload, p.payload()); err != nil {
		return payloadUnbound, err
	}
	switch {
	case h == nil:
		return payloadUnbound, nil
	case bytes.Equal(h.Sum(nil), want):
		return payloadBound, nil
	}
	return payloadDiffers, nil
}

func copyAll(to []io.Writer, from io.Reader) error {
	if len(to) == 0 {
		return nil
	}
	if _, err := io.Copy(io.MultiWriter(to...), from); err != nil {
		return fmt.Errorf("reading an RPM: %w", err)
	}
	return nil
}

// payloadDigest is what the main header says of the payload, and the hash to
// compare it with; nil where it says nothing that counts.
func (p *Package) payloadDigest() ([]byte, hash.Hash, error) {
	text, err := p.main.str(tagPayloadDigest)
	if err != nil || text == "" {
		return nil, nil, err
	}
	algo, ok, err := p.main.num(tagPayloadDigestAlgo)
	if err != nil {
		return nil, nil, err
	}
	fn := crypto.SHA256
	if ok {
		switch algo { // RFC 9580, section 9.5
		case 8:
		case 9:
			fn = crypto.SHA384
		case 10:
			fn = crypto.SHA512
		default:
			return nil, nil, nil
		}
	}
	want, err := hex.DecodeString(text)
	if err != nil || len(want) != fn.Size() {
		return nil, nil, fmt.Errorf("payload digest %q: want %d hex digits", text, 2*fn.Size())
	}
	return want, fn.New(), nil
}

// CheckDetached checks a detached signature, armored or binary, such as
// repomd.xml.asc. Where it has several packets, one good one by a key of the
// keyring is enough, and one bad one by such a key is too many.
func (k Keyring) CheckDetached(signed, signature io.Reader) (Signature, error) {
	packets, err := readDetached(signature)
	if err != nil {
		return Signature{}, err
	}
	hs := make([]hash.Hash, len(packets))
	var all []io.Writer
	for i, p := range packets {
		if hs[i], err = p.hasher(); err != nil {
			if len(k.signers(p)) > 0 {
				return Signature{}, err
			}
			continue
		}
		all = append(all, p.writer(hs[i]))
	}
	if len(all) > 0 {
		if _, err := io.Copy(io.MultiWriter(all...), signed); err != nil {
			return Signature{}, fmt.Errorf("reading what is signed: %w", err)
		}
	}
	var good *Signature
	var unknown error
	for i, p := range packets {
		s, err := k.check(p, hs[i])
		var u *UnknownKeyError
		switch {
		case errors.As(err, &u):
			unknown = err
		case err != nil:
			return Signature{}, err
		default:
			good = &s
		}
	}
	if good == nil {
		return Signature{}, unknown
	}
	return *good, nil
}

func readDetached(r io.Reader) ([]*sigPacket, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxDetached+1))
	if err != nil {
		return nil, fmt.Errorf("reading a signature: %w", err)
	}
	if len(b) > maxDetached {
		return nil, fmt.Errorf("%w: more than %d bytes", ErrBad, maxDetached)
	}
	if len(bytes.TrimSpace(b)) == 0 {
		return nil, ErrUnsigned
	}
	if i := bytes.Index(b, []byte("-----BEGIN PGP SIGNATURE-----")); i >= 0 {
		a, err := armor.Decode(bytes.NewReader(b[i:]))
		if err != nil {
			return nil, fmt.Errorf("%w: armor: %w", ErrBad, err)
		}
		if b, err = io.ReadAll(a.Body); err != nil {
			return nil, fmt.Errorf("%w: armor: %w", ErrBad, err)
		}
	}
	return parsePackets(b, true)
}

// SplitClearSigned takes a clear-signed message (RFC 9580, section 7) apart:
// the text with the line endings that are signed, and the armored signature,
// both as CheckDetached takes them. Text before and after the message is not
// signed, and refused.
func SplitClearSigned(message []byte) (text, signature []byte, err error) {
	if len(message) > maxClearSigned {
		return nil, nil, fmt.Errorf("%w: %d bytes, more than the %d of a clear-signed message", ErrBad, len(message), maxClearSigned)
	}
	const begin, sig = "-----BEGIN PGP SIGNED MESSAGE-----", "-----BEGIN PGP SIGNATURE-----"
	if !bytes.Contains(message, []byte(begin)) {
		return nil, nil, ErrUnsigned
	}
	block, rest := clearsign.Decode(message)
	if block == nil {
		return nil, nil, fmt.Errorf("%w: damaged clear-signed message", ErrBad)
	}
	before, _, _ := bytes.Cut(message, []byte(begin))
	if len(bytes.TrimSpace(before)) > 0 || len(bytes.TrimSpace(rest)) > 0 {
		return nil, nil, fmt.Errorf("%w: there is text outside the clear-signed message", ErrBad)
	}
	return block.Bytes, message[bytes.LastIndex(message, []byte(sig)):], nil
}
