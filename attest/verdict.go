package attest

import (
	"context"
	"os"
	"path/filepath"

	"caisson/attest/sign"
	"caisson/attest/slsa"
	"caisson/lock/digest"
	"caisson/verify"
)

// verdicts are the statements that a verification makes.
func verdicts() []string { return []string{"test-result", "vsa"} }

// verdictStatements makes the payloads of a verdict.
func verdictStatements(image slsa.Image, v slsa.Verification) (map[string][]byte, error) {
	result, err := slsa.TestResult(image, v)
	if err != nil {
		return nil, err
	}
	summary, err := slsa.VSA(image, v)
	return map[string][]byte{"test-result": result, "vsa": summary}, err
}

// SignVerdict signs a verifier's own verdict, a negative one too, and writes it
// into dir/statements. All that it says is from the report, which is the one
// that the verification has just made, and not read from the folder. A verdict
// that rests on no rebuild of the verifier's own is refused: signed, it would
// pass for one. manifest is the digest of the OCI image as which the disk is
// pushed, as the verifier has packed it, and zero where it has not.
func SignVerdict(ctx context.Context, dir string, r *verify.Report, manifest digest.Digest, signer sign.Signer, tool slsa.Tool) ([]Signed, error) {
	if err := verdictFollows(r); err != nil {
		return nil, err
	}
	if r.Verdict != verify.NotVerified && r.Verdict != verify.Different && r.Rebuilt == nil {
		return nil, refuse(ErrFolder, "the verdict %s rests on no rebuild of the verifier's own", r.Verdict)
	}
	report, err := r.Encode()
	if err != nil {
		return nil, err
	}
	payloads, err := verdictStatements(slsa.Image{File: slsa.File(r.Image.Name, r.Image.SHA256), Manifest: manifest}, slsa.Verification{
		Speaker: slsa.Speaker{Role: slsa.Verifier, Tool: tool}, Report: r, ReportDigest: digest.Of(report),
	})
	if err != nil {
		return nil, err
	}
	files, signed, err := signAll(ctx, signer, payloads)
	if err != nil {
		return nil, err
	}
	return signed, publish(dir, files, verdicts())
}

// hasVerdict tells whether the folder has a verifier's own statement of the
// report that is in it. Whose key signed it is for those to judge who trust
// somebody.
func (f *folder) hasVerdict(name string) bool {
	b, err := os.ReadFile(filepath.Join(f.dir, bundleName(name)))
	if err != nil {
		return false
	}
	c, err := claimOf(b)
	if err != nil || c.Role != slsa.Verifier || c.Report != f.reportDigest || c.Lock != f.report.Lock {
		return false
	}
	about, err := slsa.ImageOf(c.Subject)
	return err == nil && about.File.Digest["sha256"] == f.disk.SHA256.Hex() && (about.Manifest.IsZero() || about.Manifest == f.manifest)
}
