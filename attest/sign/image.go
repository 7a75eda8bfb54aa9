package sign

import (
	"context"
	"crypto"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/sigstore/cosign/v2/pkg/cosign"
	"github.com/sigstore/cosign/v2/pkg/oci"
	ociremote "github.com/sigstore/cosign/v2/pkg/oci/remote"
	"github.com/sigstore/cosign/v2/pkg/types"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"

	"caisson/lock"
	"caisson/lock/digest"
	"caisson/prefetch"
)

// Limits on what a registry may say of an image.
const (
	maxReferrers   = 1000      // things that refer to it
	maxImageBundle = 128 << 20 // bytes of a bundle, cosign's own limit
)

// imageTimeout is how long a registry may take to begin an answer.
const imageTimeout = time.Minute

// Artifact types of what cosign attaches to images.
const (
	bundleType    = "application/vnd.dev.sigstore.bundle"             // the beginning; a version follows
	signatureType = "application/vnd.dev.cosign.artifact.sig.v1+json" // cosign 2 with --registry-referrers-mode=oci-1-1
	emptyType     = "application/vnd.oci.empty.v1+json"               // a config's, and all that some registries say of a referrer
	signClaim     = types.CosignSignPredicateType                     // what a bundle states that signs an image
	dsseStatement = "application/vnd.in-toto+json"                    // the payload of its envelope
)

// ImageOptions are the means by which VerifyImage reaches a registry.
type ImageOptions struct {
	// Config has proxies, certificates, limits and the keychain.
	Config prefetch.Config
	// TrustedRoot is the file of a sigstore trusted root (trusted_root.json),
	// for keyless signatures; where empty, that of sigstore's public instance
	// is fetched by TUF, or that of the instance which cosign's TUF_MIRROR,
	// TUF_ROOT and TUF_ROOT_JSON name.
	TrustedRoot string
}

// VerifyImage checks that an image in a registry is signed as v says: the
// image itself by `cosign sign`, or, where v names a predicate type, an
// attestation of that type by `cosign attest`. It is found where cosign 2 puts
// it (tags that end in .sig and .att, or referrers) and where cosign 3 does
// (sigstore bundles among the referrers).
//
// With a key only the key counts, and no transparency log is asked: whoever
// has a private key need not publish what it signs, and a lock is made without
// sigstore's servers. With an identity the certificate must come from a
// trusted root's authority for exactly that identity and issuer, with a proof
// of certificate transparency, and the signature must be in a trusted root's
// transparency log, by a proof that is stored with it: the log is not asked
// online.
//
// What is not signed so gives an error that wraps ErrSignature.
func VerifyImage(ctx context.Context, v lock.ImageVerify, o ImageOptions) (lock.Verified, error) {
	ref, err := name.NewDigest(v.Ref)
	if err != nil {
		return lock.Verified{}, fmt.Errorf("verifying an image: %w", err)
	}
	hash, err := v1.NewHash(ref.DigestStr())
	if err != nil {
		return lock.Verified{}, fmt.Errorf("verifying an image: %w", err)
	}
	c := &imageChecker{ref: ref, hash: hash, want: v.Attestation}
	out := lock.Verified{Identity: v.Identity, Issuer: v.Issuer, What: "image"}
	if v.Attestation != "" {
		out.What = v.Attestation
	}
	if out.Key, err = c.trust(v, o.TrustedRoot); err != nil {
		return lock.Verified{}, err
	}
	c.connect(ctx, o.Config)
	for _, look := range []func(context.Context) (bool, error){c.referrers, c.tag} {
		ok, err := look(ctx)
		switch {
		case ctx.Err() != nil:
			return lock.Verified{}, ctx.Err()
		case err != nil:
			return lock.Verified{}, fmt.Errorf("reading what is attached to %s: %s", ref, prefetch.RegistryErrorText(err))
		case ok:
			return out, nil
		}
	}
	return lock.Verified{}, c.refusal(out)
}

// imageChecker looks for one good signature.
type imageChecker struct {
	ref     name.Digest
	hash    v1.Hash
	want    string // an attestation's predicate type; empty for a signature
	check   cosign.CheckOpts
	remote  []remote.Option
	seen    int      // signatures or attestations that were looked at
	other   []string // predicate types that are well signed and were not asked for
	reasons []string // why the others do not count
}

// trust says who may sign; it returns the key's fingerprint.
func (c *imageChecker) trust(v lock.ImageVerify, trustedRoot string) (fingerprint string, err error) {
	c.check = cosign.CheckOpts{Offline: true, MaxWorkers: 1, ClaimVerifier: cosign.SimpleClaimVerifier}
	if c.want != "" {
		c.check.ClaimVerifier = cosign.IntotoSubjectClaimVerifier
	}
	if len(v.Key) > 0 {
		public, err := cryptoutils.UnmarshalPEMToPublicKey(v.Key)
		if err != nil {
			return "", fmt.Errorf("%w: reading the public key: %w", ErrKey, err)
		}
		c.check.SigVerifier, err = signature.LoadVerifier(public, crypto.SHA256)
		if err != nil {
			return "", fmt.Errorf("%w: %w", ErrKey, err)
		}
		der, err := cryptoutils.MarshalPublicKeyToDER(public)
		if err != nil {
			return "", fmt.Errorf("%w: %w", ErrKey, err)
		}
		c.check.IgnoreTlog, c.check.TrustedMaterial = true, &root.BaseTrustedMaterial{}
		return digest.Of(der).String(), nil
	}
	if v.Identity == "" || v.Issuer == "" {
		return "", errors.New("verifying an image: neither a key nor an identity and its issuer")
	}
	c.check.Identities = []cosign.Identity{{Subject: v.Identity, Issuer: v.Issuer}}
	if trustedRoot != "" {
		c.check.TrustedMaterial, err = root.NewTrustedRootFromPath(trustedRoot)
	} else {
		c.check.TrustedMaterial, err = cosign.TrustedRoot()
	}
	if err != nil {
		return "", fmt.Errorf("reading sigstore's trusted root: %w", err)
	}
	return "", nil
}

func (c *imageChecker) connect(ctx context.Context, cfg prefetch.Config) {
	keychain := cfg.Keychain
	if keychain == nil {
		keychain = authn.NewMultiKeychain()
	}
	t := prefetch.NewTransport(cfg)
	t.ResponseHeaderTimeout = imageTimeout
	c.remote = []remote.Option{
		remote.WithContext(ctx),
		remote.WithAuthFromKeychain(keychain),
		remote.WithTransport(prefetch.GuardRegistry(t, c.ref.Context())),
		remote.WithUserAgent("caisson/" + cfg.Version),
	}
	if cfg.Backoff > 0 {
		c.remote = append(c.remote, remote.WithRetryBackoff(remote.Backoff{Duration: cfg.Backoff, Factor: 3, Jitter: 0.1, Steps: 3}))
	}
	c.check.RegistryClientOpts = []ociremote.Option{ociremote.WithRemoteOptions(c.remote...)}
}

// referrers looks at what refers to the image.
func (c *imageChecker) referrers(ctx context.Context) (bool, error) {
	list, err := remote.Referrers(c.ref, c.remote...)
	if err != nil {
		return false, err
	}
	index, err := list.IndexManifest()
	if err != nil {
		return false, err
	}
	if n := len(index.Manifests); n > maxReferrers {
		return false, fmt.Errorf("%d things refer to it, want at most %d", n, maxReferrers)
	}
	for _, d := range index.Manifests {
		ref := c.ref.Context().Digest(d.Digest.String())
		var ok bool
		switch {
		case strings.HasPrefix(d.ArtifactType, bundleType), d.ArtifactType == "", d.ArtifactType == emptyType:
			ok, err = c.bundle(ctx, ref)
		case d.ArtifactType == signatureType && c.want == "":
			ok, err = c.signatures(ctx, ref)
		}
		if ok || err != nil {
			return ok, err
		}
	}
	return false, nil
}

// bundle looks at one referrer, if that is a sigstore bundle.
func (c *imageChecker) bundle(ctx context.Context, ref name.Digest) (bool, error) {
	b, err := c.readBundle(ref)
	if b == nil || err != nil {
		return false, err
	}
	c.seen++
	var parsed bundle.Bundle
	if err := parsed.UnmarshalJSON(b); err != nil {
		return c.not(err)
	}
	sum, err := digest.Parse(c.hash.String())
	if err != nil {
		return false, err
	}
	check := c.check
	check.UseSignedTimestamps = check.SigVerifier == nil && !logged(&parsed)
	if _, err := cosign.VerifyNewBundle(ctx, &check, verify.WithArtifactDigest("sha256", sum[:]), &parsed); err != nil {
		return c.not(err)
	}
	envelope := parsed.GetDsseEnvelope()
	if envelope == nil {
		return c.not(errors.New("it signs the manifest's bytes, and states nothing"))
	}
	return c.states(envelope.GetPayloadType(), envelope.GetPayload())
}

// logged tells whether a log says when it took the signature; a log that does
// not needs a time stamp beside it.
func logged(b *bundle.Bundle) bool {
	for _, e := range b.GetVerificationMaterial().GetTlogEntries() {
		if e.GetIntegratedTime() > 0 {
			return true
		}
	}
	return false
}

// readBundle reads the layer of a referrer that is a bundle; nil where it is
// none.
func (c *imageChecker) readBundle(ref name.Digest) ([]byte, error) {
	image, err := remote.Image(ref, c.remote...)
	if err != nil {
		return nil, err
	}
	layers, err := image.Layers()
	if err != nil {
		return nil, err
	}
	if len(layers) != 1 {
		return nil, nil
	}
	typ, err := layers[0].MediaType()
	if err != nil || !strings.HasPrefix(string(typ), bundleType) {
		return nil, err
	}
	r, err := layers[0].Compressed() // as the registry has it
	if err != nil {
		return nil, err
	}
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(r, maxImageBundle+1))
	if err == nil && len(b) > maxImageBundle {
		err = fmt.Errorf("%s: a bundle of more than %d bytes", ref, maxImageBundle)
	}
	return b, err
}

// tag looks at cosign's tags for the image.
func (c *imageChecker) tag(ctx context.Context) (bool, error) {
	if c.want == "" {
		tag, err := ociremote.SignatureTag(c.ref, c.check.RegistryClientOpts...)
		if err != nil {
			return false, err
		}
		return c.signatures(ctx, tag)
	}
	tag, err := ociremote.AttestationTag(c.ref, c.check.RegistryClientOpts...)
	if err != nil {
		return false, err
	}
	return c.attestations(ctx, tag)
}

// attached are the signatures or attestations under a reference; none where
// there is nothing.
func (c *imageChecker) attached(ref name.Reference) (oci.Signatures, []oci.Signature, error) {
	all, err := ociremote.Signatures(ref, c.check.RegistryClientOpts...)
	var te *transport.Error
	if errors.As(err, &te) && te.StatusCode == http.StatusNotFound {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	list, err := all.Get()
	c.seen += len(list)
	return all, list, err
}

// signatures looks at signatures in cosign's simple form.
func (c *imageChecker) signatures(ctx context.Context, ref name.Reference) (bool, error) {
	_, list, err := c.attached(ref)
	if err != nil {
		return false, err
	}
	for _, s := range list {
		_, err := cosign.VerifyImageSignature(ctx, s, c.hash, &c.check)
		if err == nil {
			return true, nil
		}
		c.reasons = append(c.reasons, err.Error())
	}
	return false, nil
}

// attestations looks at attestations in envelopes without a bundle.
func (c *imageChecker) attestations(ctx context.Context, ref name.Reference) (bool, error) {
	all, list, err := c.attached(ref)
	if err != nil || len(list) == 0 {
		return false, err
	}
	good, _, err := cosign.VerifyImageAttestation(ctx, all, c.hash, &c.check)
	if err != nil {
		return c.not(err)
	}
	for _, a := range good {
		b, err := a.Payload()
		if err != nil {
			return false, err
		}
		var envelope struct {
			PayloadType string `json:"payloadType"`
			Payload     string `json:"payload"`
		}
		if err := json.Unmarshal(b, &envelope); err != nil {
			return c.not(err)
		}
		payload, err := base64.StdEncoding.DecodeString(envelope.Payload)
		if err != nil {
			return c.not(err)
		}
		if ok, err := c.states(envelope.PayloadType, payload); ok || err != nil {
			return ok, err
		}
	}
	return false, nil
}

// states tells whether a statement that is well signed, and about the image,
// is the one that is asked for.
func (c *imageChecker) states(payloadType string, payload []byte) (bool, error) {
	var st struct {
		PredicateType string `json:"predicateType"`
	}
	if payloadType != dsseStatement {
		return c.not(fmt.Errorf("a payload of type %q", payloadType))
	}
	if err := json.Unmarshal(payload, &st); err != nil {
		return c.not(err)
	}
	want := c.want
	if want == "" {
		want = signClaim
	}
	if st.PredicateType != want {
		c.other = append(c.other, st.PredicateType)
	}
	return st.PredicateType == want, nil
}

// not notes why something does not count.
func (c *imageChecker) not(err error) (bool, error) {
	c.reasons = append(c.reasons, err.Error())
	return false, nil
}

// refusal says what was looked for, and what there is.
func (c *imageChecker) refusal(want lock.Verified) error {
	who := "key " + want.Key
	if want.Key == "" {
		who = fmt.Sprintf("identity %q of %q", want.Identity, want.Issuer)
	}
	what := "signature"
	if c.want != "" {
		what = "attestation of type " + c.want
	}
	said := fmt.Sprintf("%d found there", c.seen)
	if len(c.other) > 0 {
		slices.Sort(c.other)
		said += fmt.Sprintf(", well signed are those of type %s", strings.Join(slices.Compact(c.other), ", "))
	}
	if len(c.reasons) > 0 {
		said += ": " + oneLine(c.reasons[0])
	}
	return fmt.Errorf("%w: %s has no %s by the %s (%s)", ErrSignature, c.ref, what, who, said)
}

// oneLine is the beginning of a reason, without line breaks.
func oneLine(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	return s[:min(len(s), 300)]
}
