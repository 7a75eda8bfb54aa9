// Package slsa writes what Caisson signs: in-toto statements about an image.
//
// # Form
//
// A statement is an in-toto Statement v1 in canonical JSON: one line without
// blanks, keys in the order of the Go types below and sorted in maps, no HTML
// escaping, no final newline. The same arguments give the same bytes. The
// subject of each is the disk image: its file's name and SHA-256. Where it is
// known as which OCI image the disk is pushed, the digest of that image's
// manifest is the second subject, of mediaType
// application/vnd.oci.image.manifest.v1+json, so that who knows either finds the
// statement. A reader wants these subjects and no other.
//
//	SBOM             https://spdx.dev/Document                           the SPDX document, unaltered
//	Provenance       https://slsa.dev/provenance/v1                      what the image was made from, and how
//	TestResult       https://in-toto.io/attestation/test-result/v0.1     what a verification found
//	VSA              https://slsa.dev/verification_summary/v1            the same as a summary, a failed one too
//	ReferenceValues  https://caisson.dev/reference-values/v1             what a machine measures that boots it
//	Signature        https://sigstore.dev/cosign/sign/v1                 nothing but the image: what `cosign verify` looks for
//
// SBOM and ReferenceValues are functions of lock and image: whoever rebuilds
// the image gets the same bytes. The others name who says so, and when.
//
// # Build type https://caisson.dev/build/v1
//
// The image is what `caisson build` makes of a lock. External parameters, all
// that a caller decides, are these and no other; a verifier refuses what it
// does not know:
//
//	lock     the digest of caisson.lock, "sha256:HEX": everything else follows from it
//	name     the name in the lock
//	variant  the variant built; absent for the image itself
//	arch     the machine the image is for, as RPM calls it
//
// Internal parameters: "epoch" (SOURCE_DATE_EPOCH, from the lock), "revision"
// (of the bytes that Caisson makes of a lock) and "evidence", which sums up
// evidence.json; they are for people, nothing is to be decided by them.
//
// Resolved dependencies: the lock, then every input that it names, in its
// order. Name is KIND/NAME as the lock has them, URI the package URL or else
// the address (of git "git+URL@REF", with the commit as the digests gitCommit and
// sha1), digest the SHA-256 of the file. The annotation "use" says what
// the input is for in this image (image, tool, source, metadata); an input
// without it serves another machine or variant of the same lock. Further
// annotations: "h1" (go.sum's hash), "sourceRPM", "module", "repository",
// "trustedKeys" (fingerprints, one of which had to sign the package),
// "signingKey" (the one that did, of the packages that serve this image),
// "fingerprint" (of a key), "commit" and "dirty" (where a folder came from),
// "path" (of a folder in its project).
package slsa

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"time"

	"caisson/lock/digest"
)

// StatementType is the type of every statement.
const StatementType = "https://in-toto.io/Statement/v1"

// The predicate types.
const (
	TypeSBOM            = "https://spdx.dev/Document"
	TypeProvenance      = "https://slsa.dev/provenance/v1"
	TypeTestResult      = "https://in-toto.io/attestation/test-result/v0.1"
	TypeVSA             = "https://slsa.dev/verification_summary/v1"
	TypeReferenceValues = "https://caisson.dev/reference-values/v1"
	TypeSignature       = "https://sigstore.dev/cosign/sign/v1"
)

// Resource is an in-toto ResourceDescriptor v1.
type Resource struct {
	Name             string            `json:"name,omitempty"`
	URI              string            `json:"uri,omitempty"`
	Digest           map[string]string `json:"digest,omitempty"`
	DownloadLocation string            `json:"downloadLocation,omitempty"`
	MediaType        string            `json:"mediaType,omitempty"`
	Annotations      map[string]any    `json:"annotations,omitempty"`
}

// File describes a file by its name and digest.
func File(name string, d digest.Digest) Resource {
	return Resource{Name: name, Digest: sha256Of(d)}
}

// manifestType is the media type of a subject that is an OCI image's manifest.
const manifestType = "application/vnd.oci.image.manifest.v1+json"

// Image is what statements are about.
type Image struct {
	// File is the disk image's file.
	File Resource
	// Manifest is the digest of the OCI image's manifest as which the disk is
	// pushed; zero where there is none. Repository is where to, "quay.io/team/podvm",
	// empty where that is not known.
	Manifest   digest.Digest
	Repository string
}

func (i Image) subjects() []Resource {
	all := []Resource{i.File}
	if !i.Manifest.IsZero() {
		name := i.Repository
		if name == "" {
			name = "oci/" + i.File.Name
		}
		all = append(all, Resource{Name: name, Digest: sha256Of(i.Manifest), MediaType: manifestType})
	}
	return all
}

// ImageOf is what subjects name. Others than those of the form are an error.
func ImageOf(subjects []Resource) (Image, error) {
	switch n := len(subjects); {
	case n == 0 || n > 2:
		return Image{}, fmt.Errorf("statement with %d subjects, want the image, and its manifest at most", n)
	case subjects[0].Name == "" || subjects[0].Digest["sha256"] == "":
		return Image{}, errors.New("statement about an image without a name or a digest")
	case n == 1:
		return Image{File: subjects[0]}, nil
	}
	second := subjects[1]
	if second.MediaType != manifestType || second.Name == "" {
		return Image{}, fmt.Errorf("statement with the second subject %q of type %q, want %q", second.Name, second.MediaType, manifestType)
	}
	d, err := digest.ParseHex(second.Digest["sha256"])
	if err != nil {
		return Image{}, fmt.Errorf("the manifest's digest: %w", err)
	}
	return Image{File: subjects[0], Manifest: d, Repository: second.Name}, nil
}

// ImageURI is the package URL of an image: its file's name and checksum,
// which is all that names it before it is pushed anywhere.
func ImageURI(image Resource) string {
	return "pkg:generic/" + url.PathEscape(image.Name) + "?checksum=sha256:" + image.Digest["sha256"]
}

func sha256Of(d digest.Digest) map[string]string {
	return map[string]string{"sha256": d.Hex()}
}

// Statement is a statement that was read; its predicate is left as it is.
type Statement struct {
	Type          string          `json:"_type"`
	Subject       []Resource      `json:"subject"`
	PredicateType string          `json:"predicateType"`
	Predicate     json.RawMessage `json:"predicate"`
}

// SBOM is the statement that an SPDX document describes the image, and the
// document, which is a part of the same memory. It is written by write, as one
// line of JSON.
func SBOM(image Image, write func(io.Writer) error) (statement, document []byte, err error) {
	frame, err := marshal(image, TypeSBOM, struct{}{})
	if err != nil {
		return nil, nil, err
	}
	// It is large, and written twice, so that no more memory is taken than it needs.
	var size counter
	if err := write(&size); err != nil {
		return nil, nil, err
	}
	var b bytes.Buffer
	b.Grow(len(frame) + int(size))
	b.Write(bytes.TrimSuffix(frame, []byte("{}}")))
	start := b.Len()
	if err := write(&b); err != nil {
		return nil, nil, err
	}
	end := b.Len()
	if !json.Valid(b.Bytes()[start:]) {
		return nil, nil, fmt.Errorf("statement of type %s: the document is no JSON", TypeSBOM)
	}
	b.WriteByte('}')
	return b.Bytes(), b.Bytes()[start:end:end], nil
}

// counter counts the bytes that are written to it.
type counter int

func (c *counter) Write(p []byte) (int, error) { *c += counter(len(p)); return len(p), nil }

// Signature is the statement that the signer stands for the image.
func Signature(image Image) ([]byte, error) {
	if image.Manifest.IsZero() {
		return nil, errors.New("signature: no manifest given")
	}
	return marshal(image, TypeSignature, struct{}{})
}

// marshal writes a statement in its canonical form.
func marshal(image Image, predicateType string, predicate any) ([]byte, error) {
	if image.File.Name == "" || image.File.Digest["sha256"] == "" {
		return nil, fmt.Errorf("statement of type %s: no name or no digest of the image given", predicateType)
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(struct {
		Type          string     `json:"_type"`
		Subject       []Resource `json:"subject"`
		PredicateType string     `json:"predicateType"`
		Predicate     any        `json:"predicate"`
	}{StatementType, image.subjects(), predicateType, predicate})
	if err != nil {
		return nil, fmt.Errorf("statement of type %s: %w", predicateType, err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// Parse reads a statement of one predicate type about one image. Fields that Statement does not have are an error.
func Parse(b []byte, predicateType string) (*Statement, error) {
	var st Statement
	if err := strict(b, &st); err != nil {
		return nil, fmt.Errorf("reading a statement: %w", err)
	}
	switch {
	case st.Type != StatementType:
		return nil, fmt.Errorf("statement of type %q, want %q", st.Type, StatementType)
	case st.PredicateType != predicateType:
		return nil, fmt.Errorf("predicate of type %q, want %q", st.PredicateType, predicateType)
	}
	if _, err := ImageOf(st.Subject); err != nil {
		return nil, err
	}
	return &st, nil
}

// strict reads one JSON value, no unknown field and no key twice.
func strict(b []byte, v any) error {
	if err := noKeyTwice(b); err != nil {
		return err
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more than one JSON value")
	}
	return nil
}

// timestamp is a time as in-toto writes it: RFC 3339, in UTC, whole seconds.
// The zero time gives nothing.
func timestamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02T15:04:05Z")
}
