package sign

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	ssldsse "github.com/secure-systems-lab/go-securesystemslib/dsse"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/sigstore/sigstore/pkg/signature/dsse"

	"caisson/lock/digest"
)

// Why a bundle is refused: every error of Verify about a bundle wraps one.
var (
	// ErrDamaged: not a bundle, or not one of an in-toto statement.
	ErrDamaged = errors.New("damaged bundle")
	// ErrSignature: not signed by the key, or altered since.
	ErrSignature = errors.New("bad signature")
	// ErrArtifact: well signed, and about something else.
	ErrArtifact = errors.New("statement about another artifact")
)

// MaxBundle bounds what Verify takes, in bytes; the SBOM of an image of
// 60,000 files is a fifth of it.
const MaxBundle = 512 << 20

// Verify checks that a bundle holds a statement which the key has signed and
// one of whose subjects is the artifact, and returns the statement's bytes.
// Only this key counts: a certificate in the bundle is refused. It needs no
// network, and of the artifact only the digest.
func Verify(b, publicPEM []byte, artifact digest.Digest) ([]byte, error) {
	return Trust{PEM: publicPEM}.Verify(b, artifact)
}

// Verify is VerifyStatement for a statement one of whose subjects has to be the
// artifact.
func (t Trust) Verify(b []byte, artifact digest.Digest) ([]byte, error) {
	if artifact.IsZero() {
		return nil, errors.New("verifying a bundle: no digest of the artifact given")
	}
	statement, err := t.VerifyStatement(b)
	if err != nil {
		return nil, err
	}
	if err := checkSubject(statement, artifact); err != nil {
		return nil, err
	}
	return statement, nil
}

// ReadStatement returns the statement in a bundle and the hint of the signer that
// the bundle names. Nothing of it is verified.
func ReadStatement(b []byte) (statement []byte, hint string, err error) {
	parsed, err := parse(b)
	if err != nil {
		return nil, "", err
	}
	envelope, err := envelopeOf(parsed)
	if err != nil {
		return nil, "", err
	}
	if hint, err = hintOf(parsed); err != nil {
		return nil, "", err
	}
	if statement, err = envelope.DecodeB64Payload(); err != nil {
		return nil, "", fmt.Errorf("%w: its payload: %w", ErrDamaged, err)
	}
	return statement, hint, nil
}

// VerifyStatement is Verify for a statement of which it is not known what it
// is about.
func VerifyStatement(b, publicPEM []byte) ([]byte, error) {
	public, err := cryptoutils.UnmarshalPEMToPublicKey(publicPEM)
	if err != nil {
		return nil, fmt.Errorf("%w: reading the public key: %w", ErrKey, err)
	}
	key, err := signature.LoadDefaultVerifier(public)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	hint, err := keyHint(public)
	if err != nil {
		return nil, err
	}
	envelope, signer, err := open(b)
	if err != nil {
		return nil, err
	}
	verifier, err := ssldsse.NewEnvelopeVerifier(&dsse.VerifierAdapter{SignatureVerifier: key, Pub: public})
	if err != nil {
		return nil, fmt.Errorf("verifying a bundle: %w", err)
	}
	if _, err := verifier.Verify(context.Background(), envelope); err != nil {
		if signer != hint {
			return nil, fmt.Errorf("%w: the bundle names the key %q, and the key given is %q", ErrSignature, signer, hint)
		}
		return nil, fmt.Errorf("%w: it names this key, but bundle or statement were altered: %w", ErrSignature, err)
	}
	statement, err := envelope.DecodeB64Payload()
	if err != nil {
		return nil, fmt.Errorf("%w: its payload: %w", ErrDamaged, err)
	}
	return statement, nil
}

// open takes the envelope and the signer's hint out of a bundle by a key.
func open(b []byte) (*ssldsse.Envelope, string, error) {
	parsed, err := parse(b)
	if err != nil {
		return nil, "", err
	}
	id := parsed.GetVerificationMaterial().GetPublicKey()
	if id == nil {
		return nil, "", fmt.Errorf("%w: signed with a certificate, want a key", ErrSignature)
	}
	envelope, err := envelopeOf(parsed)
	return envelope, id.GetHint(), err
}

// parse reads a bundle.
func parse(b []byte) (*bundle.Bundle, error) {
	if len(b) > MaxBundle {
		return nil, fmt.Errorf("%w: %d bytes, want at most %d", ErrDamaged, len(b), MaxBundle)
	}
	parsed := new(bundle.Bundle)
	if err := parsed.UnmarshalJSON(b); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return parsed, nil
}

// envelopeOf is the envelope of a statement in a bundle.
func envelopeOf(parsed *bundle.Bundle) (*ssldsse.Envelope, error) {
	if parsed.GetDsseEnvelope() == nil {
		return nil, fmt.Errorf("%w: it signs a blob, want an in-toto statement", ErrDamaged)
	}
	content, err := parsed.SignatureContent()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	envelope := content.EnvelopeContent().RawEnvelope()
	if envelope.PayloadType != PayloadType {
		return nil, fmt.Errorf("%w: payload of type %q, want %q", ErrDamaged, envelope.PayloadType, PayloadType)
	}
	if n := len(envelope.Signatures); n != 1 {
		return nil, fmt.Errorf("%w: %d signatures, want 1", ErrDamaged, n)
	}
	return envelope, nil
}

func checkSubject(statement []byte, artifact digest.Digest) error {
	var st struct {
		Subject []struct {
			Name   string            `json:"name"`
			Digest map[string]string `json:"digest"`
		} `json:"subject"`
	}
	if err := json.Unmarshal(statement, &st); err != nil {
		return fmt.Errorf("%w: its statement: %w", ErrDamaged, err)
	}
	var named []string
	for _, s := range st.Subject {
		if s.Digest["sha256"] == artifact.Hex() {
			return nil
		}
		named = append(named, fmt.Sprintf("%q (sha256:%s)", s.Name, s.Digest["sha256"]))
	}
	slices.Sort(named)
	return fmt.Errorf("%w: got %s, want subject %v", ErrArtifact, artifact, named)
}
