package attest

import (
	"errors"
	"slices"

	"caisson/attest/sign"
	"caisson/attest/slsa"
	"caisson/lock/digest"
	"caisson/verify"
)

// Key is who is believed, and the name by which people know it: the owner of a
// public key, or, where PEM is nil, an identity for which a certificate was issued.
type Key struct {
	Name string
	PEM  []byte
	// Identity and Issuer have to be the certificate's, and Root is the sigstore
	// trusted root whose authority and log vouch for it.
	Identity, Issuer string
	Root             []byte
}

func (k Key) trust() sign.Trust {
	return sign.Trust{PEM: k.PEM, Identity: sign.Identity{Subject: k.Identity, Issuer: k.Issuer}, Root: k.Root}
}

// Check tells whether it is a key or an identity that can be used.
func (k Key) Check() error {
	_, err := k.trust().Hint()
	return err
}

// Hint names the key as bundles do; empty where it is none.
func (k Key) Hint() string {
	hint, err := k.trust().Hint()
	if err != nil {
		return ""
	}
	return hint
}

// MaxBundle is the largest bundle that is looked at, in bytes.
const MaxBundle = sign.MaxBundle

// Signature is what came of looking at one.
type Signature string

// The outcomes.
const (
	Good       Signature = "good"
	Bad        Signature = "bad"         // altered, damaged, or not what it says
	UnknownKey Signature = "unknown key" // of none of the keys given
)

// Audited is what a bundle says, and whether that was signed.
type Audited struct {
	Signature Signature `json:"signature"`
	// Problem says why a signature is bad, or what is not known.
	Problem string `json:"problem,omitempty"`
	// Key is the name of the key that signed, Hint what the bundle says of it.
	Key  string `json:"key,omitempty"`
	Hint string `json:"hint,omitempty"`
	// Claim is what the statement says; nil where it cannot be read.
	Claim *slsa.Claim `json:"claim,omitempty"`

	payload []byte
}

// Audit looks at a bundle with no network: what its statement says, and
// whether one of the keys signed it. Whether it is true takes a rebuild.
func Audit(bundle []byte, keys []Key) Audited {
	payload, hint, err := sign.ReadStatement(bundle)
	if err != nil {
		return Audited{Signature: Bad, Problem: err.Error()}
	}
	a := Audited{Signature: UnknownKey, Hint: hint, Problem: "no key or identity was given that the bundle names", payload: payload}
	for _, k := range keys {
		own := k.Hint()
		_, err := k.trust().VerifyStatement(bundle)
		if err == nil {
			a.Signature, a.Key, a.Problem, a.Hint = Good, k.Name, "", own
			break
		}
		if own == hint {
			a.Signature, a.Key, a.Problem = Bad, k.Name, err.Error()
		}
	}
	if a.Claim, err = slsa.ReadClaim(payload); err != nil {
		a.Claim, a.Signature, a.Problem = nil, Bad, err.Error()
	}
	return a
}

// Opinion is what a bundle says of the image of which it is, as a verdict of
// somebody who is trusted. What it cannot be is in its Problem.
func Opinion(name string, bundle []byte, trusted []Key) verify.Opinion {
	o := verify.Opinion{File: name}
	a := Audit(bundle, trusted)
	switch {
	case a.Signature == UnknownKey:
		o.Problem = "signed by a key that is not trusted"
	case a.Signature != Good:
		o.Problem = "bad: " + a.Problem
	case a.Claim.PredicateType != slsa.TypeTestResult && a.Claim.PredicateType != slsa.TypeVSA:
		o.Problem = "it is no verdict, but " + a.Claim.PredicateType
	case a.Claim.Verdict == "" || a.Claim.Lock.IsZero():
		o.Problem = "it names no lock or no verdict"
	}
	if o.Problem != "" {
		return o
	}
	about, err := slsa.ImageOf(a.Claim.Subject)
	if err != nil {
		o.Problem = err.Error()
		return o
	}
	image, err := digest.ParseHex(about.File.Digest["sha256"])
	if err != nil {
		o.Problem = "its subject: " + err.Error()
		return o
	}
	o.Signer, o.Key, o.Role, o.Time = a.Hint, a.Key, string(a.Claim.Role), a.Claim.Time
	o.Image, o.Lock, o.Verdict, o.Rebuilt = image, a.Claim.Lock, a.Claim.Verdict, a.Claim.Rebuilt
	return o
}

// Builder is the name of the key by which the provenance of an image is signed,
// one of those given. The provenance has to be a builder's, of this image and
// this lock.
func Builder(bundle []byte, keys []Key, image, lock digest.Digest) (string, error) {
	a := Audit(bundle, keys)
	if a.Signature != Good {
		return "", errors.New("its signature: " + string(a.Signature) + ": " + a.Problem)
	}
	about, err := slsa.ImageOf(a.Claim.Subject)
	switch {
	case err != nil:
		return "", err
	case a.Claim.PredicateType != slsa.TypeProvenance || a.Claim.Role != slsa.Builder:
		return "", errors.New("it is no provenance of a builder, but " + a.Claim.PredicateType)
	case about.File.Digest["sha256"] != image.Hex():
		return "", errors.New("it is about another image")
	case a.Claim.Lock != lock:
		return "", errors.New("it names another lock, " + a.Claim.Lock.String())
	}
	if _, _, err := slsa.ParseProvenance(a.payload); err != nil {
		return "", err
	}
	return a.Key, nil
}

// About makes bad what is not about an artifact to which it is attached.
func (a Audited) About(artifact digest.Digest) Audited {
	if a.Claim == nil || slices.ContainsFunc(a.Claim.Subject, func(s slsa.Resource) bool { return s.Digest["sha256"] == artifact.Hex() }) {
		return a
	}
	a.Signature, a.Problem = Bad, "it is attached to "+artifact.String()+", and about something else"
	return a
}
