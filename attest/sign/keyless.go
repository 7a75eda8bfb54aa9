package sign

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/sigstore/sigstore-go/pkg/fulcio/certificate"
	"github.com/sigstore/sigstore-go/pkg/root"
	sgsign "github.com/sigstore/sigstore-go/pkg/sign"
	"google.golang.org/protobuf/encoding/protojson"

	"caisson/prefetch"
)

// Addresses of sigstore's public instance.
const (
	PublicFulcio = "https://fulcio.sigstore.dev"
	PublicRekor  = "https://rekor.sigstore.dev"
)

// certificateUse is how long a certificate is used. Fulcio's are valid for ten
// minutes, and what is signed has to reach the log before that.
const certificateUse = 4 * time.Minute

// maxServiceAnswer bounds what a sigstore service says, in bytes.
const maxServiceAnswer = 64 << 20

// KeylessOptions are how somebody signs who has no key, but an identity.
type KeylessOptions struct {
	// Token is an OpenID Connect token for the audience "sigstore".
	Token string
	// Fulcio and Rekor are the addresses of the authority and of the log; where
	// empty, of sigstore's public instance. Timestamp is that of an RFC 3161
	// authority; where empty, the log's time counts.
	Fulcio, Rekor, Timestamp string
	// TrustedRoot is a file of a sigstore trusted root by which what was signed
	// is verified at once; empty for not.
	TrustedRoot string
	// Config has proxies and certificates.
	Config prefetch.Config
}

// keyless signs with a key that lives as long as the process, and a certificate
// for it.
type keyless struct {
	keypair   *sgsign.EphemeralKeypair
	options   sgsign.BundleOptions
	authority sgsign.CertificateProvider
	cert      []byte
	since     time.Time
	identity  Identity
}

// Identity is whom a certificate is for, and who says so.
type Identity struct{ Subject, Issuer string }

// String is how people are told of it, and the hint of a keyless signature.
func (i Identity) String() string { return i.Subject + " (" + i.Issuer + ")" }

// OpenKeyless gets a certificate for the identity of a token. Each bundle is
// published in the log: its statement's digest, the certificate and so the
// identity are public from then on.
func OpenKeyless(ctx context.Context, o KeylessOptions) (Signer, error) {
	for _, s := range []*string{&o.Fulcio, &o.Rekor} {
		if *s == "" {
			*s = map[*string]string{&o.Fulcio: PublicFulcio, &o.Rekor: PublicRekor}[s]
		}
	}
	if err := checkServices(o); err != nil {
		return Signer{}, err
	}
	token, err := readToken(o.Token)
	if err != nil {
		return Signer{}, err
	}
	transport := bounded{prefetch.NewTransport(o.Config)}
	k := &keyless{authority: sgsign.NewFulcio(&sgsign.FulcioOptions{BaseURL: strings.TrimSuffix(o.Fulcio, "/"), Retries: 2, Transport: transport})}
	if k.keypair, err = sgsign.NewEphemeralKeypair(nil); err != nil {
		return Signer{}, fmt.Errorf("making a key pair: %w", err)
	}
	k.options = sgsign.BundleOptions{
		CertificateProvider: k, CertificateProviderOptions: &sgsign.CertificateProviderOptions{IDToken: token},
		TransparencyLogs: []sgsign.Transparency{sgsign.NewRekor(&sgsign.RekorOptions{BaseURL: strings.TrimSuffix(o.Rekor, "/"), Retries: 2})},
	}
	if o.Timestamp != "" {
		k.options.TimestampAuthorities = []*sgsign.TimestampAuthority{sgsign.NewTimestampAuthority(&sgsign.TimestampAuthorityOptions{URL: o.Timestamp, Retries: 2, Transport: transport})}
	}
	if o.TrustedRoot != "" {
		if k.options.TrustedRoot, err = root.NewTrustedRootFromPath(o.TrustedRoot); err != nil {
			return Signer{}, fmt.Errorf("reading the trusted root: %w", err)
		}
	}
	der, err := k.GetCertificate(ctx, k.keypair, k.options.CertificateProviderOptions)
	if err != nil {
		return Signer{}, err
	}
	if k.identity, err = identityOf(der); err != nil {
		return Signer{}, fmt.Errorf("the certificate that was issued: %w", err)
	}
	return Signer{keyless: k, hint: k.identity.String()}, nil
}

// checkServices refuses addresses to which a token must not go.
func checkServices(o KeylessOptions) error {
	for name, s := range map[string]string{"Fulcio": o.Fulcio, "Rekor": o.Rekor, "timestamp": o.Timestamp} {
		if s == "" {
			continue
		}
		u, err := url.Parse(s)
		if err != nil || u.Host == "" {
			return fmt.Errorf("the %s address %q is none", name, s)
		}
		if u.Scheme != "https" && !prefetch.IsLocal(u.Hostname()) {
			return fmt.Errorf("the %s address %q is without TLS", name, s)
		}
	}
	return nil
}

// readToken checks the form of a token, which is never in an error.
func readToken(s string) (string, error) {
	s = strings.TrimSpace(s)
	parts := strings.Split(s, ".")
	if len(parts) != 3 {
		return "", fmt.Errorf("%w: the identity token is no JSON web token", ErrKey)
	}
	var claims struct {
		Expires int64 `json:"exp"`
	}
	b, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil || json.Unmarshal(b, &claims) != nil {
		return "", fmt.Errorf("%w: the identity token is no JSON web token", ErrKey)
	}
	if at := time.Unix(claims.Expires, 0); claims.Expires > 0 && time.Now().After(at) { //nolint:forbidigo // a token's time is the wall clock's
		return "", fmt.Errorf("%w: the identity token expired at %s", ErrKey, at.UTC().Format(time.RFC3339))
	}
	return s, nil
}

// GetCertificate is the certificate of the key: one for several statements.
func (k *keyless) GetCertificate(ctx context.Context, key sgsign.Keypair, o *sgsign.CertificateProviderOptions) ([]byte, error) {
	now := time.Now() //nolint:forbidigo // a certificate's time is the wall clock's
	if k.cert != nil && now.Sub(k.since) < certificateUse {
		return k.cert, nil
	}
	cert, err := k.authority.GetCertificate(ctx, key, o)
	if err != nil {
		return nil, fmt.Errorf("getting a certificate: %s", oneLine(err.Error()))
	}
	k.cert, k.since = cert, now
	return cert, nil
}

// bundle signs a statement and publishes that.
func (k *keyless) bundle(ctx context.Context, statement []byte) ([]byte, error) {
	o := k.options
	o.Context = ctx
	b, err := sgsign.Bundle(&sgsign.DSSEData{Data: statement, PayloadType: PayloadType}, k.keypair, o)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("signing: %s", oneLine(err.Error()))
	}
	out, err := protojson.Marshal(b)
	if err != nil {
		return nil, fmt.Errorf("writing the bundle: %w", err)
	}
	return out, nil
}

// identityOf is whom a certificate is for; it is not verified.
func identityOf(der []byte) (Identity, error) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return Identity{}, err
	}
	s, err := certificate.SummarizeCertificate(cert)
	if err != nil {
		return Identity{}, err
	}
	if s.SubjectAlternativeName == "" || s.Issuer == "" {
		return Identity{}, errors.New("it names no identity or no issuer")
	}
	return Identity{s.SubjectAlternativeName, s.Issuer}, nil
}

// bounded bounds answers.
type bounded struct{ http.RoundTripper }

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := b.RoundTripper.RoundTrip(r)
	if err == nil {
		resp.Body = http.MaxBytesReader(nil, resp.Body, maxServiceAnswer)
	}
	return resp, err
}
