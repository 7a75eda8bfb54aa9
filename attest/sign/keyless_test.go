package sign

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	ssldsse "github.com/secure-systems-lab/go-securesystemslib/dsse"
	ociremote "github.com/sigstore/cosign/v2/pkg/oci/remote"
	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protodsse "github.com/sigstore/protobuf-specs/gen/pb-go/dsse"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/testing/ca"
	"github.com/sigstore/sigstore-go/pkg/tlog"
	"google.golang.org/protobuf/encoding/protojson"

	"caisson/lock"
)

// instance is a sigstore of our own: an authority, a log of certificates, and
// sigstore-go's log of signatures.
type instance struct {
	t       *testing.T
	issuer  *x509.Certificate // the authority's, which signs
	key     *ecdsa.PrivateKey
	ct      *ecdsa.PrivateKey
	virtual *ca.VirtualSigstore
	root    string // the trusted root's file
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// transparency is a log as a trusted root has it.
func transparency(t *testing.T, key crypto.PublicKey) (string, *root.TransparencyLog) {
	id := sha256.Sum256(must[[]byte](t)(x509.MarshalPKIXPublicKey(key)))
	return hex.EncodeToString(id[:]), &root.TransparencyLog{
		BaseURL: "https://log.example", ID: id[:], ValidityPeriodStart: time.Now().Add(-time.Hour), HashFunc: crypto.SHA256, PublicKey: key, SignatureHashFunc: crypto.SHA256,
	}
}

func newInstance(t *testing.T) *instance {
	t.Helper()
	rootCert, rootKey, err := ca.GenerateRootCa()
	if err != nil {
		t.Fatal(err)
	}
	i := &instance{t: t, ct: must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)), virtual: must[*ca.VirtualSigstore](t)(ca.NewVirtualSigstore())}
	if i.issuer, i.key, err = ca.GenerateFulcioIntermediate(rootCert, rootKey); err != nil {
		t.Fatal(err)
	}
	authority := &root.FulcioCertificateAuthority{Root: rootCert, Intermediates: []*x509.Certificate{i.issuer}, ValidityPeriodStart: time.Now().Add(-time.Hour), URI: "https://ca.example"}
	logs := map[string]*root.TransparencyLog{}
	for _, l := range i.virtual.RekorLogs() {
		id, log := transparency(t, l.PublicKey)
		logs[id] = log
	}
	id, certificates := transparency(t, i.ct.Public())
	tr := must[*root.TrustedRoot](t)(root.NewTrustedRoot(root.TrustedRootMediaType01, []root.CertificateAuthority{authority},
		map[string]*root.TransparencyLog{id: certificates}, nil, logs))
	i.root = filepath.Join(t.TempDir(), "trusted_root.json")
	if err := os.WriteFile(i.root, must[[]byte](t)(tr.MarshalJSON()), 0o600); err != nil {
		t.Fatal(err)
	}
	return i
}

// certificate is one for an identity, with a proof that it was logged (RFC
// 6962, section 3.2 and 3.3) unless that is left out.
func (i *instance) certificate(key *ecdsa.PrivateKey, identity, issuer string, logged bool) *x509.Certificate {
	return i.certificateFor(&key.PublicKey, identity, issuer, logged)
}

func (i *instance) certificateFor(public *ecdsa.PublicKey, identity, issuer string, logged bool) *x509.Certificate {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(7), EmailAddresses: []string{identity}, NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(9 * time.Minute),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 1}, Value: []byte(issuer)}},
	}
	create := func() *x509.Certificate {
		der := must[[]byte](i.t)(x509.CreateCertificate(rand.Reader, template, i.issuer, public, i.key))
		return must[*x509.Certificate](i.t)(x509.ParseCertificate(der))
	}
	bare := create()
	if !logged {
		return bare
	}
	issuerHash := sha256.Sum256(i.issuer.RawSubjectPublicKeyInfo)
	at := binary.BigEndian.AppendUint64(nil, uint64(time.Now().UnixMilli()))
	signed := slices.Concat([]byte{0, 0}, at, []byte{0, 1}, issuerHash[:], binary.BigEndian.AppendUint32(nil, uint32(len(bare.RawTBSCertificate)))[1:], bare.RawTBSCertificate, []byte{0, 0})
	sum := sha256.Sum256(signed)
	sig := must[[]byte](i.t)(ecdsa.SignASN1(rand.Reader, i.ct, sum[:]))
	logID := sha256.Sum256(must[[]byte](i.t)(x509.MarshalPKIXPublicKey(i.ct.Public())))
	sized := func(b []byte) []byte { return append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...) }
	sct := slices.Concat([]byte{0}, logID[:], at, []byte{0, 0, 4, 3}, sized(sig))
	template.ExtraExtensions = append(template.ExtraExtensions, pkix.Extension{
		Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 4, 2}, Value: must[[]byte](i.t)(asn1.Marshal(sized(sized(sct)))),
	})
	return create()
}

// attach signs an image as somebody, without a key, and attaches the bundle.
func (i *instance) attach(ref, predicate, identity, issuer string, certLogged, logged bool) {
	i.t.Helper()
	t := i.t
	d := must[name.Digest](t)(name.NewDigest(ref))
	key := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	cert := i.certificate(key, identity, issuer, certLogged)
	payload := fmt.Appendf(nil, `{"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{"sha256":%q}}],"predicateType":%q,"predicate":{}}`,
		strings.TrimPrefix(d.DigestStr(), "sha256:"), predicate)
	sum := sha256.Sum256(ssldsse.PAE(PayloadType, payload))
	sig := must[[]byte](t)(ecdsa.SignASN1(rand.Reader, key, sum[:]))
	material := &protobundle.VerificationMaterial{Content: &protobundle.VerificationMaterial_Certificate{Certificate: &protocommon.X509Certificate{RawBytes: cert.Raw}}}
	if logged {
		envelope := &ssldsse.Envelope{PayloadType: PayloadType, Payload: base64.StdEncoding.EncodeToString(payload), Signatures: []ssldsse.Signature{{Sig: base64.StdEncoding.EncodeToString(sig)}}}
		entry, err := i.virtual.GenerateTlogEntry(cert, envelope, sig, time.Now().Unix(), true)
		if err != nil {
			t.Fatal(err)
		}
		tle := entry.TransparencyLogEntry()
		tle.KindVersion = &protorekor.KindVersion{Kind: "intoto", Version: "0.0.2"}
		set, err := i.virtual.RekorSignPayload(tlog.RekorPayload{
			Body: base64.StdEncoding.EncodeToString(tle.CanonicalizedBody), IntegratedTime: tle.IntegratedTime, LogIndex: tle.LogIndex, LogID: hex.EncodeToString(tle.LogId.KeyId),
		})
		if err != nil {
			t.Fatal(err)
		}
		tle.InclusionPromise = &protorekor.InclusionPromise{SignedEntryTimestamp: set}
		material.TlogEntries = []*protorekor.TransparencyLogEntry{tle}
	}
	b := must[[]byte](t)(protojson.Marshal(&protobundle.Bundle{
		MediaType: "application/vnd.dev.sigstore.bundle.v0.3+json", VerificationMaterial: material,
		Content: &protobundle.Bundle_DsseEnvelope{DsseEnvelope: &protodsse.Envelope{Payload: payload, PayloadType: PayloadType, Signatures: []*protodsse.Signature{{Sig: sig}}}},
	}))
	if err := ociremote.WriteAttestationNewBundleFormat(d, b, predicate); err != nil {
		t.Fatal(err)
	}
}

// TestVerifyImageKeyless has images signed by identities that an authority of
// our own vouches for.
func TestVerifyImageKeyless(t *testing.T) {
	i, stranger := newInstance(t), newInstance(t)
	host := serveRegistry(t, nil)
	const issuer = myIssuer
	for _, tt := range []struct {
		name        string
		attach      func(ref string)
		attestation string
		want        string // in the error; empty for none
	}{
		{"signed", func(ref string) { i.attach(ref, signClaim, me, issuer, true, true) }, "", ""},
		{"attested", func(ref string) { i.attach(ref, spdxType, me, issuer, true, true) }, spdxType, ""},
		{"by another too", func(ref string) {
			i.attach(ref, signClaim, "you@example.org", issuer, true, true)
			i.attach(ref, signClaim, me, issuer, true, true)
		}, "", ""},

		{"unsigned", func(string) {}, "", "0 found there"},
		{"by another", func(ref string) { i.attach(ref, signClaim, "you@example.org", issuer, true, true) }, "", "expected SAN value \"me@example.org\", got \"you@"},
		{"longer identity", func(ref string) { i.attach(ref, signClaim, me+".evil", issuer, true, true) }, "", "got \"me@example.org.evil"},
		{"by another issuer", func(ref string) { i.attach(ref, signClaim, me, issuer+".evil", true, true) }, "", "expected issuer value"},
		{"another attestation", func(ref string) { i.attach(ref, spdxType, me, issuer, true, true) }, "", "well signed are those of type"},
		{"another authority", func(ref string) { stranger.attach(ref, signClaim, me, issuer, true, true) }, "", "not enough verified log entries"},
		{"certificate not logged", func(ref string) { i.attach(ref, signClaim, me, issuer, false, true) }, "", "signed certificate timestamp"},
		{"signature not logged", func(ref string) { i.attach(ref, signClaim, me, issuer, true, false) }, "", "not enough verified log entries"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ref := push(t, host+"/keyless/"+strings.ReplaceAll(tt.name, " ", "-"), false)
			tt.attach(ref)
			o := quick()
			o.TrustedRoot = i.root
			got, err := VerifyImage(t.Context(), lock.ImageVerify{Ref: ref, Identity: me, Issuer: issuer, Attestation: tt.attestation}, o)
			if tt.want != "" {
				if !errors.Is(err, ErrSignature) || !strings.Contains(err.Error(), tt.want) || got != (lock.Verified{}) {
					t.Errorf("got %+v, %v; want ErrSignature and %q", got, err, tt.want)
				}
				return
			}
			want := lock.Verified{Identity: me, Issuer: issuer, What: "image"}
			if tt.attestation != "" {
				want.What = tt.attestation
			}
			if err != nil || got != want {
				t.Errorf("got %+v, %v; want %+v", got, err, want)
			}
		})
	}
	o := quick()
	o.TrustedRoot = filepath.Join(t.TempDir(), "none")
	if _, err := VerifyImage(t.Context(), lock.ImageVerify{Ref: push(t, host+"/keyless/none", false), Identity: me, Issuer: issuer}, o); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no trusted root: %v", err)
	}
}
