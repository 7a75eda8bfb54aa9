package attest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"caisson/attest/sign"
	"caisson/attest/slsa"
	"caisson/build"
	"caisson/lock/digest"
)

// Checked is what VerifyDir found to be signed.
type Checked struct {
	Image build.Output
	// Lock is the lock that the provenance names.
	Lock digest.Digest
	// Key is the hint of the key.
	Key    string
	Signed []Signed
	// Others are verdicts that a verifier signed by a key of its own; they were
	// not checked: Audit does.
	Others []Signed
}

// VerifyDir checks, with no network, every statement of an output folder:
// the key signed it, it is about the image as its bytes are, and the payload
// beside the bundle is the one that was signed. The bare SPDX document must
// be the signed one, and every file that the provenance names as a byproduct
// must be there, unaltered. Errors of signatures are those of sign.Verify;
// what else does not fit is a *RefusedError.
//
// It does not check that the statements are true: that takes a rebuild.
func VerifyDir(ctx context.Context, dir string, publicPEM []byte) (Checked, error) {
	hint, err := sign.Hint(publicPEM)
	if err != nil {
		return Checked{}, err
	}
	// image.json is needed for a name only; a byproduct, it is checked below.
	var image imageJSON
	if _, err := readJSON(filepath.Join(dir, "image.json"), &image); err != nil {
		return Checked{}, err
	}
	if len(image.Files) == 0 {
		return Checked{}, refuse(ErrFolder, "image.json lists no file")
	}
	disk, err := sumFile(ctx, dir, image.Files[0].Name)
	if err != nil {
		return Checked{}, err
	}
	c := Checked{Image: disk, Key: hint}
	var manifests []digest.Digest
	for _, n := range names {
		if (n.optional || image.notMade(n.name) != "") && absent(dir, statementName(n.name)) && absent(dir, bundleName(n.name)) {
			continue
		}
		if n.optional && foreign(dir, n.name, hint) {
			c.Others = append(c.Others, Signed{Name: n.name, PredicateType: n.predicateType,
				Statement: statementName(n.name), Bundle: bundleName(n.name)})
			continue
		}
		payload, about, err := checkBundle(dir, n.name, n.predicateType, publicPEM, disk)
		if err != nil {
			return Checked{}, fmt.Errorf("%s: %w", n.name, err)
		}
		if !about.Manifest.IsZero() {
			manifests = append(manifests, about.Manifest)
		}
		switch n.name {
		case "sbom":
			err = checkDocument(dir, payload)
		case "provenance":
			c.Lock, err = checkProvenance(ctx, dir, payload)
		}
		if err != nil {
			return Checked{}, fmt.Errorf("%s: %w", n.name, err)
		}
		c.Signed = append(c.Signed, Signed{Name: n.name, PredicateType: n.predicateType,
			Statement: statementName(n.name), Bundle: bundleName(n.name), SHA256: digest.Of(payload)})
	}
	return c, checkManifests(ctx, dir, disk, image.Image, manifests)
}

// foreign tells whether a bundle says that a verifier signed it by another key.
func foreign(dir, name, hint string) bool {
	b, err := os.ReadFile(filepath.Join(dir, bundleName(name)))
	if err != nil {
		return false
	}
	payload, signer, err := sign.ReadStatement(b)
	if err != nil || signer == hint {
		return false
	}
	c, err := slsa.ReadClaim(payload)
	return err == nil && c.Role == slsa.Verifier
}

func absent(dir, name string) bool {
	_, err := os.Lstat(filepath.Join(dir, name))
	return errors.Is(err, fs.ErrNotExist)
}

// checkBundle checks one bundle and its payload's file, and returns the
// payload and what it is about.
func checkBundle(dir, name, predicateType string, publicPEM []byte, disk build.Output) ([]byte, slsa.Image, error) {
	var none slsa.Image
	bundle, err := os.ReadFile(filepath.Join(dir, bundleName(name)))
	if err != nil {
		return nil, none, refuse(ErrFolder, "%w", err)
	}
	payload, err := sign.Verify(bundle, publicPEM, disk.SHA256)
	if err != nil {
		return nil, none, err
	}
	beside, err := os.ReadFile(filepath.Join(dir, statementName(name)))
	if err != nil {
		return nil, none, refuse(ErrFolder, "%w", err)
	}
	if !bytes.Equal(payload, beside) {
		return nil, none, refuse(ErrFolder, "%s is not what was signed: got %s, want %s",
			statementName(name), digest.Of(beside), digest.Of(payload))
	}
	st, err := slsa.Parse(payload, predicateType)
	if err != nil {
		return nil, none, refuse(ErrFolder, "%w", err)
	}
	about, err := slsa.ImageOf(st.Subject)
	if err != nil {
		return nil, none, refuse(ErrFolder, "%w", err)
	}
	if got := about.File; got.Name != disk.Name || got.Digest["sha256"] != disk.SHA256.Hex() {
		return nil, none, refuse(ErrFolder, "a statement about %q with the digest sha256:%s, want %q with %s", got.Name, got.Digest["sha256"], disk.Name, disk.SHA256)
	}
	return payload, about, nil
}

// checkDocument compares the bare SPDX document with the signed one.
func checkDocument(dir string, payload []byte) error {
	st, err := slsa.Parse(payload, slsa.TypeSBOM)
	if err != nil {
		return err
	}
	bare, err := os.ReadFile(filepath.Join(dir, sbomName))
	if err != nil {
		return refuse(ErrFolder, "%w", err)
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, bare); err != nil {
		return refuse(ErrFolder, "%s: %w", sbomName, err)
	}
	if !bytes.Equal(compact.Bytes(), st.Predicate) {
		return refuse(ErrFolder, "%s is not the document that was signed", sbomName)
	}
	return nil
}

// checkProvenance checks the byproducts of a provenance and returns its lock.
func checkProvenance(ctx context.Context, dir string, payload []byte) (digest.Digest, error) {
	params, byproducts, err := slsa.ParseProvenance(payload)
	if err != nil {
		return digest.Digest{}, refuse(ErrFolder, "%w", err)
	}
	for _, want := range byproducts {
		got, err := sumFile(ctx, dir, want.Name)
		if err != nil {
			return digest.Digest{}, err
		}
		if got.SHA256.Hex() != want.Digest["sha256"] {
			return digest.Digest{}, refuse(ErrFolder, "%s is %s, the provenance says sha256:%s",
				want.Name, got.SHA256, want.Digest["sha256"])
		}
	}
	return params.Lock, nil
}
