package sign

import (
	"errors"
	"fmt"

	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"
)

// Trust is who is believed: the owner of a key, or an identity.
type Trust struct {
	// PEM is a public key.
	PEM []byte
	// Identity is whom a certificate has to be for, exactly, and by whose word.
	Identity Identity
	// Root is a sigstore trusted root (trusted_root.json): the authorities and
	// the logs that vouch for identities.
	Root []byte
}

// Hint is what a bundle says of such a signer.
func (t Trust) Hint() (string, error) {
	if t.PEM != nil {
		return Hint(t.PEM)
	}
	if t.Identity.Subject == "" || t.Identity.Issuer == "" {
		return "", fmt.Errorf("%w: neither a key nor an identity and its issuer", ErrKey)
	}
	if _, err := root.NewTrustedRootFromJSON(t.Root); err != nil {
		return "", fmt.Errorf("%w: reading the trusted root: %w", ErrKey, err)
	}
	return t.Identity.String(), nil
}

// VerifyStatement checks, with no network, that a bundle holds a statement that
// is signed by who is trusted, and returns it. With an identity the certificate must
// come from an authority of the trusted root, with a proof that it was logged,
// and have been valid at the time that a log or a timestamp authority of the
// trusted root says; and the signature must be in a log, by the proof that is in
// the bundle.
func (t Trust) VerifyStatement(b []byte) ([]byte, error) {
	if t.PEM != nil {
		return VerifyStatement(b, t.PEM)
	}
	if _, err := t.Hint(); err != nil {
		return nil, err
	}
	parsed, err := parse(b)
	if err != nil {
		return nil, err
	}
	envelope, err := envelopeOf(parsed)
	if err != nil {
		return nil, err
	}
	if parsed.GetVerificationMaterial().GetPublicKey() != nil {
		return nil, fmt.Errorf("%w: signed with a key, want the certificate of %s", ErrSignature, t.Identity)
	}
	material, err := root.NewTrustedRootFromJSON(t.Root)
	if err != nil {
		return nil, fmt.Errorf("%w: reading the trusted root: %w", ErrKey, err)
	}
	verifier, err := verify.NewVerifier(material, verify.WithSignedCertificateTimestamps(1), verify.WithTransparencyLog(1), verify.WithObserverTimestamps(1))
	if err != nil {
		return nil, fmt.Errorf("verifying a bundle: %w", err)
	}
	identity, err := verify.NewShortCertificateIdentity(t.Identity.Issuer, "", t.Identity.Subject, "")
	if err != nil {
		return nil, fmt.Errorf("verifying a bundle: %w", err)
	}
	// What it is about is for the caller to compare.
	if _, err := verifier.Verify(parsed, verify.NewPolicy(verify.WithoutArtifactUnsafe(), verify.WithCertificateIdentity(identity))); err != nil {
		return nil, fmt.Errorf("%w: %s", ErrSignature, oneLine(err.Error()))
	}
	statement, err := envelope.DecodeB64Payload()
	if err != nil {
		return nil, fmt.Errorf("%w: its payload: %w", ErrDamaged, err)
	}
	return statement, nil
}

// hintOf is whom a bundle names as its signer.
func hintOf(parsed *bundle.Bundle) (string, error) {
	switch m := parsed.GetVerificationMaterial().GetContent().(type) {
	case *protobundle.VerificationMaterial_PublicKey:
		return m.PublicKey.GetHint(), nil
	case *protobundle.VerificationMaterial_Certificate:
		i, err := identityOf(m.Certificate.GetRawBytes())
		if err != nil {
			return "", fmt.Errorf("%w: its certificate: %w", ErrDamaged, err)
		}
		return i.String(), nil
	}
	return "", fmt.Errorf("%w: %w", ErrDamaged, errors.New("it names neither a key nor one certificate"))
}
