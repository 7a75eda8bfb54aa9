// Package attest signs what a build and a verification left in an output
// folder, so that cosign, Conforma and Trustee can read it.
//
// It believes nothing in the folder that it can compute: the digest of the
// image and of every file beside it, the lock that the image names, and the
// measurements, which are derived from the image's bytes once more. Where
// the folder says otherwise it refuses, and writes nothing. What it cannot
// compute it does not vouch for: evidence.json and files.json are the
// build's own word, the report the verification's; the statements carry
// their digests and the role of who signs.
//
// Written are DIR/sbom.spdx.json, and in DIR/statements the payloads
// NAME.json, byte for byte what was signed, with a bundle NAME.sigstore.json
// each (see attest/slsa for their form, attest/sign for the bundles'):
//
//	sbom, provenance                      always
//	reference-values                      of a disk
//	signature                             of what is pushed to a registry: what `cosign verify` looks for
//	test-result, vsa                      where there is a report.json
//
// DIR/oci.json says as which OCI image the disk is pushed (see attest/oci): all
// statements are about that image as well, whose digest follows from the disk,
// the measurements, the lock and the labels. A container image is pushed as it is,
// and statements are about its own manifest; a root in a tar archive is no OCI
// image, and statements are about the file alone.
//
// A verifier signs its own verdict (SignVerdict), by its own key, and then
// test-result and vsa are its: Attest leaves them as they are where they are of
// the report that is in the folder.
//
// Files get their final names together, after all have been written; a
// statement of an earlier run that this one does not make is removed.
package attest

import (
	"context"
	"errors"
	"fmt"

	"caisson/attest/sign"
	"caisson/attest/slsa"
	"caisson/attest/spdx"
	"caisson/attest/spdx/facts"
	"caisson/build"
	"caisson/lock"
	"caisson/lock/digest"
	"caisson/prefetch/cas"
	"caisson/verify"
)

// Why Attest and VerifyDir refuse a folder: the Kind of a RefusedError.
var (
	// ErrLock: the image was made from another lock.
	ErrLock = errors.New("made from another lock")
	// ErrFolder: the folder says otherwise than its bytes, or than itself.
	ErrFolder = errors.New("the output folder contradicts itself")
)

// RefusedError says in what a folder is not what it says.
type RefusedError struct {
	Kind error // ErrLock or ErrFolder
	Err  error
}

func (e *RefusedError) Error() string   { return e.Kind.Error() + ": " + e.Err.Error() }
func (e *RefusedError) Unwrap() []error { return []error{e.Kind, e.Err} }

func refuse(kind error, format string, args ...any) error {
	return &RefusedError{Kind: kind, Err: fmt.Errorf(format, args...)}
}

// Options say what to sign, and who signs.
type Options struct {
	// Dir is the output folder.
	Dir string
	// Lock is the lock and LockBytes its text.
	Lock      *lock.Lock
	LockBytes []byte
	// Store holds the lock's inputs; the RPMs of the image are read for what
	// their headers say.
	Store  *cas.Store
	Signer sign.Signer
	Role   slsa.Role
	Tool   slsa.Tool
	// Invocation is the run of the build; zero parts are left out.
	Invocation slsa.Invocation
	// Publication is how the disk will be pushed.
	Publication Publication
	// Measure derives the measurements from the image's bytes.
	Measure func(ctx context.Context, image string) (Measured, error)
}

// Measured is what a machine will measure that boots the image.
type Measured struct {
	// RootHash is the dm-verity root hash, hex.
	RootHash string
	// PCRs are the registers as the kernel takes over: bank ("sha256"),
	// number ("4"), hex.
	PCRs map[string]map[string]string
	// Measurements is measurements.json: those at login.
	Measurements []byte
}

// Summary is what Attest signed.
type Summary struct {
	Image build.Output
	// Manifest is the digest of the OCI image as which the disk is pushed.
	Manifest digest.Digest
	Lock     digest.Digest
	// Key is the hint of the signing key.
	Key     string
	SBOM    build.Output
	Signed  []Signed
	LeftOut []LeftOut
}

// Signed is one statement and its bundle.
type Signed struct {
	Name          string // "provenance"
	PredicateType string
	Statement     string // path in the folder
	Bundle        string
	SHA256        digest.Digest // of the statement
}

// LeftOut is a statement that was not made, and why.
type LeftOut struct {
	Name, Reason string
}

// names are the statements in the order in which they are made.
// Those that need a report are optional.
var names = [...]struct {
	name, predicateType string
	optional            bool
}{
	{"sbom", slsa.TypeSBOM, false},
	{"provenance", slsa.TypeProvenance, false},
	{"reference-values", slsa.TypeReferenceValues, false},
	{"test-result", slsa.TypeTestResult, true},
	{"vsa", slsa.TypeVSA, true},
	{"signature", slsa.TypeSignature, false},
}

// Attest checks the folder, writes the statements and signs them. Inputs
// that the store lacks or has damaged are a *cas.MissingError or
// *cas.DamagedError; a folder that is not what it says is a *RefusedError.
func Attest(ctx context.Context, o Options) (Summary, error) {
	f, err := readFolder(ctx, o.Dir)
	if err != nil {
		return Summary{}, err
	}
	lockDigest, err := checkLock(o.Lock, o.LockBytes, f.image.Lock)
	if err != nil {
		return Summary{}, err
	}
	if err := f.check(o.Lock, lockDigest); err != nil {
		return Summary{}, err
	}
	measured, err := f.measure(ctx, o.Measure)
	if err != nil {
		return Summary{}, err
	}
	described, err := f.pack(ctx, o.Publication)
	if err != nil {
		return Summary{}, err
	}
	sum := Summary{Image: f.disk, Manifest: f.manifest, Lock: lockDigest, Key: o.Signer.Hint()}
	for _, n := range names {
		if why := f.image.notMade(n.name); why != "" {
			sum.LeftOut = append(sum.LeftOut, LeftOut{n.name, why})
		}
	}
	if f.report == nil {
		const reason = "there is no report.json: the image was not verified"
		sum.LeftOut = append(sum.LeftOut, LeftOut{"test-result", reason}, LeftOut{"vsa", reason})
	}
	signer := signers(o.Lock, o.Store)
	statement, sbom, err := document(o, f, lockDigest, signer)
	if err != nil {
		return Summary{}, err
	}
	sum.SBOM = build.Output{Name: sbomName, Size: int64(len(sbom)), SHA256: digest.Of(sbom)}
	f.files = nil // large, and in the statement now
	statements, err := f.statements(o, lockDigest, statement, measured, signer)
	if err != nil {
		return Summary{}, err
	}
	kept := map[string]bool{}
	for _, name := range verdicts() {
		if f.report != nil && f.hasVerdict(name) {
			delete(statements, name)
			kept[name] = true
			sum.LeftOut = append(sum.LeftOut, LeftOut{name, "the verifier has signed its own"})
		}
	}
	var replaced []string
	for _, n := range names {
		if !kept[n.name] {
			replaced = append(replaced, n.name)
		}
	}
	files, signed, err := signAll(ctx, o.Signer, statements)
	if err != nil {
		return Summary{}, err
	}
	sum.Signed = signed
	files = append(files, output{sbomName, sbom})
	if described != nil {
		files = append(files, output{packageName, described})
	}
	return sum, publish(o.Dir, files, replaced)
}

// notMade says why there is no such statement of an image; "" where there is one.
func (im *imageJSON) notMade(name string) string {
	switch {
	case name == "reference-values" && im.IsArchive():
		return "it is an archive: no machine boots it, and so none measures it"
	case name == "signature" && im.IsArchive() && im.Manifest == nil:
		return "it is a root in a tar archive: there is no OCI image that cosign could look for"
	}
	return ""
}

// signAll signs statements, by name, in their order.
func signAll(ctx context.Context, signer sign.Signer, statements map[string][]byte) (files []output, signed []Signed, err error) {
	for _, n := range names {
		payload, ok := statements[n.name]
		if !ok {
			continue
		}
		bundle, err := signer.Bundle(ctx, payload)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", n.name, err)
		}
		s := Signed{Name: n.name, PredicateType: n.predicateType,
			Statement: statementName(n.name), Bundle: bundleName(n.name), SHA256: digest.Of(payload)}
		files = append(files, output{s.Statement, payload}, output{s.Bundle, bundle})
		signed = append(signed, s)
	}
	return files, signed, nil
}

// checkLock checks that text, lock and image belong together.
func checkLock(l *lock.Lock, text []byte, image digest.Digest) (digest.Digest, error) {
	got := digest.Of(text)
	canon, err := l.Digest()
	if err != nil {
		return digest.Digest{}, err
	}
	if canon != got {
		return digest.Digest{}, fmt.Errorf("the lock's text is not its canonical form: got %s, want %s", got, canon)
	}
	if image != got {
		return digest.Digest{}, refuse(ErrLock, "image.json names the lock %s, and the lock given is %s", image, got)
	}
	return got, nil
}

// document makes the bill of materials, bare and in its statement.
func document(o Options, f *folder, lockDigest digest.Digest, signer signerOf) (statement, bare []byte, err error) {
	system, err := facts.System(o.Store, o.Lock, f.files)
	if err != nil {
		return nil, nil, fmt.Errorf("bill of materials: %w", err)
	}
	doc, err := spdx.New(spdx.Subject{
		Name:       named(o.Publication.Reference, build.BaseName(f.disk.Name), f.known()),
		Manifest:   f.manifest,
		Lock:       o.Lock,
		LockDigest: lockDigest,
		Image:      f.image.Image,
		Disk:       f.disk,
		PURL:       slsa.ImageURI(f.subject().File),
		Files:      f.files,
		Facts:      facts.Of(o.Store),
		Signer:     signer,
		System:     system,
	})
	if err != nil {
		return nil, nil, fmt.Errorf("bill of materials: %w", err)
	}
	return slsa.SBOM(f.subject(), doc.Write)
}

// statements makes the payloads, by name.
func (f *folder) statements(o Options, lockDigest digest.Digest, sbom []byte, m Measured, signer signerOf) (map[string][]byte, error) {
	image := f.subject()
	speaker := slsa.Speaker{Role: o.Role, Tool: o.Tool}
	makers := map[string]func() ([]byte, error){
		"sbom": func() ([]byte, error) { return sbom, nil },
		"provenance": func() ([]byte, error) {
			return slsa.Provenance(image, slsa.Build{
				Speaker:    speaker,
				Lock:       o.Lock,
				LockDigest: lockDigest,
				Image:      f.image.Image,
				Evidence:   f.evidence,
				Invocation: o.Invocation,
				Byproducts: f.byproducts,
				SigningKey: func(in *lock.Input) (string, error) {
					s, err := signer(in)
					return s.Fingerprint, err
				},
			})
		},
		"signature": func() ([]byte, error) { return slsa.Signature(image) },
		"reference-values": func() ([]byte, error) {
			return slsa.ReferenceValues(image, slsa.Values{
				Lock:         lockDigest,
				Name:         f.image.Name,
				Variant:      f.image.Variant,
				Arch:         f.image.Arch,
				RootHash:     m.RootHash,
				PCRs:         m.PCRs,
				Measurements: f.measurements.Measurements,
			})
		},
	}
	if f.report != nil {
		verdict, err := verdictStatements(image, slsa.Verification{Speaker: speaker, Report: f.report, ReportDigest: f.reportDigest})
		if err != nil {
			return nil, err
		}
		for name, payload := range verdict {
			makers[name] = func() ([]byte, error) { return payload, nil }
		}
	}
	payloads := map[string][]byte{}
	for _, n := range names {
		if payload := makers[n.name]; payload != nil && f.image.notMade(n.name) == "" {
			b, err := payload()
			if err != nil {
				return nil, err
			}
			payloads[n.name] = b
		}
	}
	return payloads, nil
}

// verdictFollows checks that a report's verdict follows from what it lists.
func verdictFollows(r *verify.Report) error {
	if r.Verdict != verify.Identical && r.Verdict != verify.Equivalent {
		return nil
	}
	for _, c := range r.Checks {
		if c.Status == verify.Failed || c.Status == verify.Refused || c.Status == verify.NotChecked {
			return refuse(ErrFolder, "report.json says %s, and %s %s", r.Verdict, c.Name, c.Status)
		}
	}
	if r.Verdict == verify.Identical && r.Rebuilt != nil && r.IsArchive() && r.Rebuilt.SHA256 != r.Image.SHA256 {
		return refuse(ErrFolder, "report.json says %s of the archives %s and %s", r.Verdict, r.Image.SHA256, r.Rebuilt.SHA256)
	}
	if r.Verdict == verify.Identical && r.Rebuilt != nil && r.Rebuilt.Disk != r.Image.Disk {
		return refuse(ErrFolder, "report.json says %s of the disks %s and %s", r.Verdict, r.Image.Disk, r.Rebuilt.Disk)
	}
	return nil
}
