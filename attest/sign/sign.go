// Package sign makes and checks signed in-toto statements, with keys and
// files as cosign has them. It is the only importer of sigstore.
//
// A bundle is the JSON of a Sigstore bundle v0.3
// (application/vnd.dev.sigstore.bundle.v0.3+json) that holds a DSSE envelope
// of payload type application/vnd.in-toto+json and one signature. Who signed is
// the hint of a key, base64 of the SHA-256 of its DER form, or a certificate of
// Fulcio's for an identity; then there is an entry of a transparency log too, and
// a time stamp where one was asked for. Verifying needs no network.
//
// Limits: a bundle by a key has no entry in a log and no time stamp: it says who
// signed what, and not when. The key management services that are built in make
// the program larger: Vault's by 1.4 MiB, AWS's by 4.7, Azure's by 2.3, Google's by
// 2.8; others are reached by sigstore's plugins, programs of their own (see Open).
// Rekor takes the whole
// statement to hash it: the public instance refuses those above 32 MiB. An ECDSA
// signature is random, so a bundle does not reproduce; the statement in it can.
package sign

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	ssldsse "github.com/secure-systems-lab/go-securesystemslib/dsse"
	"github.com/sigstore/cosign/v2/pkg/cosign"
	cosignbundle "github.com/sigstore/cosign/v2/pkg/cosign/bundle"
	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protodsse "github.com/sigstore/protobuf-specs/gen/pb-go/dsse"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/sigstore/sigstore/pkg/signature/options"
	"google.golang.org/protobuf/encoding/protojson"
)

// PayloadType is the type of the payload in the envelope.
const PayloadType = "application/vnd.in-toto+json"

// ErrKey is wrapped by the errors of keys that cannot be used: not a key,
// or not opened by the password.
var ErrKey = errors.New("unusable key")

// Signer signs with one private key, or as an identity.
type Signer struct {
	key     signature.SignerVerifier
	pem     []byte
	hint    string
	keyless *keyless // nil for a key
}

// GenerateKey makes an ECDSA P-256 key pair in cosign's files: the private
// key encrypted with the password (scrypt and secretbox), the public one in
// SubjectPublicKeyInfo, both PEM. pass is asked once; an empty password is
// allowed, as cosign allows it.
func GenerateKey(pass func() ([]byte, error)) (private, public []byte, err error) {
	kb, err := cosign.GenerateKeyPair(func(bool) ([]byte, error) { return pass() })
	if err != nil {
		return nil, nil, fmt.Errorf("making a key pair: %w", err)
	}
	return kb.PrivateBytes, kb.PublicBytes, nil
}

// LoadSigner opens a private key file of cosign's with its password.
func LoadSigner(keyPEM, pass []byte) (Signer, error) {
	// Without options an Ed25519 key signs as DSSE has it, not prehashed.
	key, err := cosign.LoadPrivateKey(keyPEM, pass, &[]signature.LoadOption{})
	if err != nil {
		return Signer{}, fmt.Errorf("%w: opening the private key: %w", ErrKey, err)
	}
	return signerBy(context.Background(), key)
}

// PublicPEM is the public key, PEM, as cosign's --key reads it; nil of an
// identity, which has none that lasts.
func (s Signer) PublicPEM() []byte { return bytes.Clone(s.pem) }

// Hint names the key or the identity: it is what a bundle says of its signer.
func (s Signer) Hint() string { return s.hint }

// Bundle signs a statement. The payload of the bundle is statement, byte for
// byte.
func (s Signer) Bundle(ctx context.Context, statement []byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if s.keyless != nil {
		return s.keyless.bundle(ctx, statement)
	}
	if s.key == nil {
		return nil, fmt.Errorf("%w: the signer has no key", ErrKey)
	}
	// The encoding that is signed ends in the statement, which need not be copied.
	head := strings.TrimSuffix(string(ssldsse.PAE(PayloadType, nil)), "0 ") + strconv.Itoa(len(statement)) + " "
	sig, err := s.key.SignMessage(io.MultiReader(strings.NewReader(head), bytes.NewReader(statement)), options.WithContext(ctx))
	if err != nil {
		return nil, fmt.Errorf("signing: %w", err)
	}
	b, err := cosignbundle.MakeProtobufBundle(s.hint, nil, nil, nil)
	if err != nil {
		return nil, fmt.Errorf("writing the bundle: %w", err)
	}
	// protojson would have the payload in memory several times: its digest
	// stands for it.
	mark := sha256.Sum256(statement)
	b.Content = &protobundle.Bundle_DsseEnvelope{DsseEnvelope: &protodsse.Envelope{
		Payload:     mark[:],
		PayloadType: PayloadType,
		Signatures:  []*protodsse.Signature{{Sig: sig}},
	}}
	out, err := protojson.Marshal(b)
	if err != nil {
		return nil, fmt.Errorf("writing the bundle: %w", err)
	}
	before, after, found := bytes.Cut(out, []byte(base64.StdEncoding.EncodeToString(mark[:])))
	if !found {
		return nil, errors.New("writing the bundle: it has no payload")
	}
	bundle := make([]byte, 0, len(out)+base64.StdEncoding.EncodedLen(len(statement)))
	bundle = base64.StdEncoding.AppendEncode(append(bundle, before...), statement)
	return append(bundle, after...), nil
}

// Hint names a public key the way bundles do.
func Hint(publicPEM []byte) (string, error) {
	public, err := cryptoutils.UnmarshalPEMToPublicKey(publicPEM)
	if err != nil {
		return "", fmt.Errorf("%w: reading the public key: %w", ErrKey, err)
	}
	return keyHint(public)
}

func keyHint(public crypto.PublicKey) (string, error) {
	der, err := cryptoutils.MarshalPublicKeyToDER(public)
	if err != nil {
		return "", fmt.Errorf("%w: its public half: %w", ErrKey, err)
	}
	sum := sha256.Sum256(der)
	return base64.StdEncoding.EncodeToString(sum[:]), nil
}
