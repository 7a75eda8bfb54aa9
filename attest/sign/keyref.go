package sign

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"

	"github.com/sigstore/cosign/v2/pkg/cosign/pkcs11key"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/sigstore/sigstore/pkg/signature/kms"
	"github.com/sigstore/sigstore/pkg/signature/options"

	// The services that cosign knows.
	_ "github.com/sigstore/sigstore/pkg/signature/kms/aws"
	_ "github.com/sigstore/sigstore/pkg/signature/kms/azure"
	_ "github.com/sigstore/sigstore/pkg/signature/kms/gcp"
	_ "github.com/sigstore/sigstore/pkg/signature/kms/hashivault"
)

// PasswordVariable is where the password of a key file is, as for cosign.
const PasswordVariable = "COSIGN_PASSWORD"

// envScheme begins references to keys in the environment.
const envScheme = "env://"

// Open opens the private key that a reference names, as cosign has them:
//
//	FILE             cosign's key file, its password in COSIGN_PASSWORD
//	env://NAME       such a file's content in a variable, the password likewise
//	hashivault://KEY HashiCorp Vault's or OpenBao's transit engine: VAULT_ADDR,
//	                 VAULT_TOKEN (or ~/.vault-token), TRANSIT_SECRET_ENGINE_PATH
//	awskms://, azurekms://, gcpkms://
//	                 as cosign has them, with the credentials of their own tools
//	pkcs11:…         a token (RFC 7512), in a Caisson built with -tags pkcs11key
//	NAME://…         any other: by the program sigstore-kms-NAME on PATH, as
//	                 sigstore's cliplugin protocol has it
//
// env gives variables by name; what is behind a service reads the environment
// itself.
func Open(ctx context.Context, ref string, env func(string) string) (Signer, error) {
	switch {
	case strings.HasPrefix(ref, envScheme):
		name := strings.TrimPrefix(ref, envScheme)
		text := env(name)
		if text == "" {
			return Signer{}, fmt.Errorf("%w: the variable %s is not set", ErrKey, name)
		}
		return LoadSigner([]byte(text), []byte(env(PasswordVariable)))
	case strings.HasPrefix(ref, pkcs11key.ReferenceScheme):
		return openToken(ctx, ref, env)
	case IsService(ref):
		key, err := openService(ctx, ref)
		if err != nil {
			return Signer{}, err
		}
		return signerBy(ctx, key)
	}
	b, err := os.ReadFile(ref)
	if err != nil {
		return Signer{}, fmt.Errorf("reading the key: %w", err)
	}
	return LoadSigner(b, []byte(env(PasswordVariable)))
}

// IsService tells whether a reference names a key that is elsewhere than in a
// file: in the environment, a token or a service.
func IsService(ref string) bool {
	return strings.Contains(ref, "://") || strings.HasPrefix(ref, pkcs11key.ReferenceScheme)
}

// openService opens a key of a key management service.
func openService(ctx context.Context, ref string) (kms.SignerVerifier, error) {
	scheme, _, _ := strings.Cut(ref, "://")
	key, err := kms.Get(ctx, ref, crypto.SHA256)
	var none *kms.ProviderNotFoundError
	if errors.As(err, &none) {
		return nil, fmt.Errorf("%w: %s:// wants the program sigstore-kms-%s on PATH, a sigstore plugin for this service", ErrKey, scheme, scheme)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: opening the key at %s: %w", ErrKey, scheme, err)
	}
	return key, nil
}

// openToken opens a key of a PKCS #11 token. Its PIN is in the reference or in
// COSIGN_PKCS11_PIN.
func openToken(ctx context.Context, ref string, env func(string) string) (Signer, error) {
	config := pkcs11key.NewPkcs11UriConfig()
	if err := config.Parse(ref); err != nil {
		if errors.As(err, new(*url.Error)) {
			err = errors.New("it cannot be parsed") // the error has all of it, a PIN too
		}
		return Signer{}, fmt.Errorf("%w: not a PKCS #11 URI of a key: %w", ErrKey, err)
	}
	if config.Pin == "" {
		config.Pin = env("COSIGN_PKCS11_PIN")
	}
	token, err := pkcs11key.GetKeyWithURIConfig(config, false)
	if err != nil {
		if err.Error() == "unimplemented" { // cosign's words where the tag was not set; it has no value for it
			err = errors.New("this Caisson was built without: build it with -tags pkcs11key")
		}
		return Signer{}, fmt.Errorf("%w: PKCS #11: %w", ErrKey, err)
	}
	key, err := token.SignerVerifier()
	if err != nil {
		return Signer{}, fmt.Errorf("%w: PKCS #11: %w", ErrKey, err)
	}
	return signerBy(ctx, key)
}

// CreateKey makes a key at a key management service, of the service's default
// kind, or takes the one that is there, and returns its public half, PEM.
func CreateKey(ctx context.Context, ref string) ([]byte, error) {
	key, err := openService(ctx, ref)
	if err != nil {
		return nil, err
	}
	public, err := key.CreateKey(ctx, key.DefaultAlgorithm())
	if err != nil {
		return nil, fmt.Errorf("making a key: %w", err)
	}
	return cryptoutils.MarshalPublicKeyToPEM(public)
}

// signerBy asks a key for its public half.
func signerBy(ctx context.Context, key signature.SignerVerifier) (Signer, error) {
	public, err := key.PublicKey(options.WithContext(ctx))
	if err != nil {
		return Signer{}, fmt.Errorf("%w: its public half: %w", ErrKey, err)
	}
	pem, err := cryptoutils.MarshalPublicKeyToPEM(public)
	if err != nil {
		return Signer{}, fmt.Errorf("%w: its public half: %w", ErrKey, err)
	}
	hint, err := keyHint(public)
	if err != nil {
		return Signer{}, err
	}
	return Signer{key: key, pem: pem, hint: hint}, nil
}
