package sign

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"

	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"
)

// VerifyBlob checks that the key has signed a file, as `cosign sign-blob` does
// it: sig is the signature in base64, a bundle v0.3 of a message signature, or
// cosign's older bundle. Only the key counts, there is no network.
func VerifyBlob(blob, sig, publicPEM []byte) error {
	public, err := cryptoutils.UnmarshalPEMToPublicKey(publicPEM)
	if err != nil {
		return fmt.Errorf("%w: reading the public key: %w", ErrKey, err)
	}
	key, err := signature.LoadDefaultVerifier(public)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrKey, err)
	}
	raw, err := blobSignature(sig)
	if err != nil {
		return err
	}
	if err := key.VerifySignature(bytes.NewReader(raw), bytes.NewReader(blob)); err != nil {
		return fmt.Errorf("%w: %w", ErrSignature, err)
	}
	return nil
}

// blobSignature takes the signature out of what is around it.
func blobSignature(sig []byte) ([]byte, error) {
	if len(sig) > MaxBundle {
		return nil, fmt.Errorf("%w: %d bytes, want at most %d", ErrDamaged, len(sig), MaxBundle)
	}
	text := bytes.TrimSpace(sig)
	if !bytes.HasPrefix(text, []byte("{")) {
		raw, err := base64.StdEncoding.DecodeString(string(text))
		if err != nil {
			return nil, fmt.Errorf("%w: no signature in base64: %w", ErrDamaged, err)
		}
		return raw, nil
	}
	var old struct {
		Signature []byte `json:"base64Signature"`
	}
	if err := json.Unmarshal(text, &old); err == nil && len(old.Signature) > 0 {
		return old.Signature, nil
	}
	var parsed bundle.Bundle
	if err := parsed.UnmarshalJSON(text); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if s := parsed.GetMessageSignature(); s != nil && len(s.GetSignature()) > 0 {
		return s.GetSignature(), nil
	}
	return nil, fmt.Errorf("%w: it signs no file", ErrDamaged)
}
