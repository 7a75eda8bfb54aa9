package attest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	"github.com/google/rpmpack"

	"caisson/attest"
	"caisson/attest/internal/fixture"
	"caisson/attest/sign"
	"caisson/build"
	"caisson/lock"
	"caisson/lock/digest"
	"caisson/prefetch/cas"
	"caisson/verify"
)

// line is an output folder as a build and a verification leave it, and what
// is needed to sign it.
type line struct {
	attest.Options
	t testing.TB
}

// newLine makes the image of fixture.Lock, its packages as real RPMs in a
// real store.
func newLine(t testing.TB) *line {
	t.Helper()
	store, err := cas.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	l := fixture.Lock()
	vendor := vendorKey(t)
	for i := range l.Repos {
		l.Repos[i].Keys = []string{vendor.fingerprint}
	}
	for i := range l.Inputs {
		in := &l.Inputs[i]
		if in.Kind == lock.KindKey {
			in.Fingerprint = vendor.fingerprint
			if in.SHA256, in.Size, err = store.Put(bytes.NewReader(vendor.public), digest.Digest{}); err != nil {
				t.Fatal(err)
			}
		}
		if in.RPM != nil {
			b := makeRPM(t, in.RPM, vendor)
			if in.SHA256, in.Size, err = store.Put(bytes.NewReader(b), digest.Digest{}); err != nil {
				t.Fatal(err)
			}
		}
		if b := fixture.Archive(in); b != nil {
			if in.SHA256, in.Size, err = store.Put(bytes.NewReader(b), digest.Digest{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	text, err := lock.Format(l)
	if err != nil {
		t.Fatal(err)
	}
	s := fixture.Speaker()
	n := &line{t: t, Options: attest.Options{
		Dir: t.TempDir(), Lock: l, LockBytes: text, Store: store, Signer: signer(t), Role: s.Role, Tool: s.Tool,
		Invocation: fixture.Invocation(), Measure: measure,
	}}
	n.write("demo.qcow2", bytes.Repeat([]byte("QFI\xfb an image"), 300))
	n.write("build.log", []byte("== install root\n"))
	n.describe()
	return n
}

func makeRPM(t testing.TB, p *lock.RPM, vendor openPGP) []byte {
	t.Helper()
	r, err := rpmpack.NewRPM(rpmpack.RPMMetaData{
		Name: p.Name, Version: p.Version, Release: p.Release, Arch: p.Arch, Vendor: "Example Project", Packager: "Builders",
		Licence: "GPLv3+", URL: "https://example.org/" + p.Name, Summary: "The " + p.Name, BuildTime: time.Unix(p.BuildTime, 0),
	})
	if err != nil {
		t.Fatal(err)
	}
	r.AddFile(rpmpack.RPMFile{Name: "/usr/share/" + p.Name, Body: []byte(p.Name), Mode: 0o100644, Owner: "root", Group: "root"})
	r.SetPGPSigner(vendor.sign)
	var b bytes.Buffer
	if err := r.Write(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// openPGP is a key that packages are signed with.
type openPGP struct {
	public      []byte
	fingerprint string
	sign        func([]byte) ([]byte, error)
}

func vendorKey(t testing.TB) openPGP {
	t.Helper()
	c := &packet.Config{Time: func() time.Time { return time.Unix(1_680_000_000, 0) }, Algorithm: packet.PubKeyAlgoEdDSA}
	e, err := openpgp.NewEntity("Example Vendor", "", "vendor@example.org", c)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := e.Serialize(&b); err != nil {
		t.Fatal(err)
	}
	return openPGP{b.Bytes(), fmt.Sprintf("%X", e.PrimaryKey.Fingerprint), func(content []byte) ([]byte, error) {
		var sig bytes.Buffer
		err := openpgp.DetachSign(&sig, e, bytes.NewReader(content), c)
		return sig.Bytes(), err
	}}
}

// opened is one signer for all tests: its password makes a key slow to open.
var opened = sync.OnceValues(func() (sign.Signer, error) {
	private, _, err := sign.GenerateKey(func() ([]byte, error) { return []byte("secret"), nil })
	if err != nil {
		return sign.Signer{}, err
	}
	return sign.LoadSigner(private, []byte("secret"))
})

func signer(t testing.TB) sign.Signer {
	t.Helper()
	s, err := opened()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func newSigner(t testing.TB) sign.Signer {
	t.Helper()
	private, _, err := sign.GenerateKey(func() ([]byte, error) { return []byte("secret"), nil })
	if err != nil {
		t.Fatal(err)
	}
	return loadSigner(t, private)
}

func loadSigner(t testing.TB, private []byte) sign.Signer {
	t.Helper()
	s, err := sign.LoadSigner(private, []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// measure stands for verify/measure: what it says follows from the bytes.
func measure(_ context.Context, image string) (attest.Measured, error) {
	b, err := os.ReadFile(image)
	if err != nil {
		return attest.Measured{}, err
	}
	pcr := func(n string) string { return digest.Of(append([]byte(n), b...)).Hex() }
	return attest.Measured{
		RootHash:     pcr("root"),
		PCRs:         map[string]map[string]string{"sha256": {"4": pcr("4"), "11": pcr("11")}},
		Measurements: []byte(`{"measurements":{"sha256":{"pcr03":"` + pcr("3") + `","pcr11":"` + pcr("login") + `"}}}` + "\n"),
	}, nil
}

func (n *line) path(name string) string { return filepath.Join(n.Dir, name) }

func (n *line) write(name string, b []byte) {
	n.t.Helper()
	if err := os.WriteFile(n.path(name), b, 0o644); err != nil {
		n.t.Fatal(err)
	}
}

func (n *line) writeJSON(name string, v any) {
	n.t.Helper()
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		n.t.Fatal(err)
	}
	n.write(name, append(b, '\n'))
}

func (n *line) read(name string) []byte {
	n.t.Helper()
	b, err := os.ReadFile(n.path(name))
	if err != nil {
		n.t.Fatal(err)
	}
	return b
}

func (n *line) output(name string) build.Output {
	b := n.read(name)
	return build.Output{Name: name, Size: int64(len(b)), SHA256: digest.Of(b)}
}

// image is image.json as far as it matters here.
type image struct {
	build.Image
	PCRs map[string]map[string]string `json:"pcrs"`
}

// describe writes the descriptions that belong to the image.
func (n *line) describe() {
	n.t.Helper()
	d := digest.Of(n.LockBytes)
	n.writeJSON("files.json", fixture.Files())
	n.writeJSON("evidence.json", fixture.Evidence(d))
	m, err := measure(n.t.Context(), n.path("demo.qcow2"))
	if err != nil {
		n.t.Fatal(err)
	}
	n.write("measurements.json", m.Measurements)
	im := image{fixture.Image(d), m.PCRs}
	im.RootHash = m.RootHash
	im.Files = nil
	for _, name := range []string{"demo.qcow2", "files.json", "evidence.json", "build.log"} {
		im.Files = append(im.Files, n.output(name))
	}
	n.writeJSON("image.json", im)
	r := fixture.Report(d, im.Files[0].SHA256)
	r.RootHash, r.PCRs = m.RootHash, m.PCRs["sha256"]
	n.writeJSON("report.json", r)
}

func (n *line) attest() attest.Summary {
	n.t.Helper()
	sum, err := attest.Attest(n.t.Context(), n.Options)
	if err != nil {
		n.t.Fatal(err)
	}
	return sum
}

func (n *line) statements() []string {
	n.t.Helper()
	entries, err := os.ReadDir(n.path("statements"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		n.t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestAttest(t *testing.T) {
	n := newLine(t)
	sum := n.attest()
	if sum.Image != n.output("demo.qcow2") || sum.SBOM != n.output("sbom.spdx.json") || sum.Lock != digest.Of(n.LockBytes) || len(sum.LeftOut) != 0 {
		t.Errorf("got %+v", sum)
	}
	var want []string
	for _, s := range []string{"provenance", "reference-values", "sbom", "signature", "test-result", "vsa"} {
		want = append(want, s+".json", s+".sigstore.json")
	}
	if got := n.statements(); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for _, s := range sum.Signed {
		if got := n.output(s.Statement).SHA256; got != s.SHA256 {
			t.Errorf("%s: got %s, want %s", s.Statement, got, s.SHA256)
		}
	}
	got, err := attest.VerifyDir(t.Context(), n.Dir, n.Signer.PublicPEM())
	if err != nil {
		t.Fatal(err)
	}
	if got.Image != sum.Image || got.Lock != sum.Lock || got.Key != sum.Key || !slices.Equal(got.Signed, sum.Signed) {
		t.Errorf("got %+v, want %+v", got, sum)
	}
	for _, s := range []string{"licenseComments", "GPLv3+", "Organization: Example Project", "Signed by OpenPGP key ", ", Example Vendor <vendor@example.org>."} {
		if !bytes.Contains(n.read("sbom.spdx.json"), []byte(s)) {
			t.Errorf("the document has no %q from the packages' headers", s)
		}
	}
}

// TestSameBytes signs twice, with two keys: statements and document are the
// same bytes, the bundles are not.
func TestSameBytes(t *testing.T) {
	n := newLine(t)
	n.attest()
	first := map[string][]byte{}
	names := []string{"sbom.spdx.json"}
	for _, name := range n.statements() {
		if !strings.HasSuffix(name, ".sigstore.json") {
			names = append(names, "statements/"+name)
		}
	}
	for _, name := range names {
		first[name] = n.read(name)
	}
	n.Signer = newSigner(t)
	t.Setenv("TZ", "Asia/Kolkata")
	n.attest()
	for _, name := range names {
		if got := n.read(name); !bytes.Equal(got, first[name]) {
			t.Errorf("%s: got\n%s\nthe first time\n%s", name, got, first[name])
		}
	}
}

func TestNoReport(t *testing.T) {
	n := newLine(t)
	n.attest()
	if err := os.Remove(n.path("report.json")); err != nil {
		t.Fatal(err)
	}
	sum := n.attest()
	if len(sum.Signed) != 4 || len(sum.LeftOut) != 2 || sum.LeftOut[0].Name != "test-result" || !strings.Contains(sum.LeftOut[1].Reason, "not verified") {
		t.Errorf("got %+v, want four statements, and test-result and vsa left out", sum)
	}
	if got := n.statements(); len(got) != 8 {
		t.Errorf("got %v: statements of the earlier run were left", got)
	}
	if c, err := attest.VerifyDir(t.Context(), n.Dir, n.Signer.PublicPEM()); err != nil || len(c.Signed) != 4 {
		t.Errorf("got %+v, %v, want four statements", c, err)
	}
}

// TestFailedVerdict signs what a verification did not like.
func TestFailedVerdict(t *testing.T) {
	n := newLine(t)
	n.editReport(func(r *verify.Report) {
		r.Verdict, r.Checks[1].Status = verify.Different, verify.Failed
		r.Rebuilt.Disk = fixture.Sum("another disk")
	})
	n.attest()
	for name, want := range map[string]string{"vsa": `"verificationResult":"FAILED"`, "test-result": `"result":"FAILED"`} {
		if b := n.read("statements/" + name + ".json"); !bytes.Contains(b, []byte(want)) {
			t.Errorf("%s: got %s, want %s", name, b, want)
		}
	}
}

func (n *line) editReport(f func(*verify.Report)) {
	n.t.Helper()
	var r verify.Report
	if err := json.Unmarshal(n.read("report.json"), &r); err != nil {
		n.t.Fatal(err)
	}
	f(&r)
	n.writeJSON("report.json", r)
}

func (n *line) editImage(f func(*image)) {
	n.t.Helper()
	var im image
	if err := json.Unmarshal(n.read("image.json"), &im); err != nil {
		n.t.Fatal(err)
	}
	f(&im)
	n.writeJSON("image.json", im)
}

// relist makes image.json agree with a file of the folder.
func (n *line) relist(name string) {
	n.editImage(func(im *image) {
		for i := range im.Files {
			if im.Files[i].Name == name {
				im.Files[i] = n.output(name)
			}
		}
	})
}

// TestRefused spoils one thing each: an error that names it, nothing written.
func TestRefused(t *testing.T) {
	flip := func(n *line, name string) {
		b := n.read(name)
		b[len(b)/2] ^= 1
		n.write(name, b)
	}
	for _, tt := range []struct {
		name  string
		spoil func(*line)
		want  error
		says  string
	}{
		{"image", func(n *line) { flip(n, "demo.qcow2") }, attest.ErrFolder, "demo.qcow2"},
		{"image, and its digest", func(n *line) { flip(n, "demo.qcow2"); n.relist("demo.qcow2") }, attest.ErrFolder, "report.json"},
		{"image, its digest and the report", func(n *line) {
			flip(n, "demo.qcow2")
			n.relist("demo.qcow2")
			n.editReport(func(r *verify.Report) { r.Image.SHA256 = n.output("demo.qcow2").SHA256 })
		}, attest.ErrFolder, "root hash"},
		{"log", func(n *line) { flip(n, "build.log") }, attest.ErrFolder, "build.log"},
		{"files.json not listed", func(n *line) {
			n.editImage(func(im *image) { im.Files = slices.Delete(im.Files, 1, 2) })
		}, attest.ErrFolder, "files.json"},
		{"no file listed", func(n *line) { n.editImage(func(im *image) { im.Files = nil }) }, attest.ErrFolder, "lists no file"},
		{"path outside", func(n *line) {
			n.editImage(func(im *image) { im.Files[3].Name = "../build.log" })
		}, attest.ErrFolder, "../build.log"},
		{"root hash", func(n *line) { n.editImage(func(im *image) { im.RootHash = fixture.RootHash }) }, attest.ErrFolder, fixture.RootHash},
		{"PCR", func(n *line) { n.editImage(func(im *image) { im.PCRs["sha256"]["4"] = "00" }) }, attest.ErrFolder, "PCRs"},
		{"PCR missing", func(n *line) { n.editImage(func(im *image) { delete(im.PCRs["sha256"], "4") }) }, attest.ErrFolder, "PCRs"},
		{"measurements", func(n *line) { n.write("measurements.json", []byte(`{"measurements":{"sha256":{"pcr11":"00"}}}`)) }, attest.ErrFolder, "measurements.json"},
		{"another lock", func(n *line) { n.editImage(func(im *image) { im.Lock = fixture.Sum("another") }) }, attest.ErrLock, "image.json"},
		{"lock's text", func(n *line) { n.LockBytes = append(n.LockBytes, '\n') }, nil, "canonical"},
		{"name", func(n *line) { n.editImage(func(im *image) { im.Name = "other" }) }, attest.ErrFolder, "other"},
		{"variant", func(n *line) { n.editImage(func(im *image) { im.Variant = "other" }) }, attest.ErrFolder, "other"},
		{"epoch", func(n *line) { n.editImage(func(im *image) { im.Epoch++ }) }, attest.ErrFolder, "epoch"},
		{"evidence of another lock", func(n *line) {
			n.writeJSON("evidence.json", fixture.Evidence(fixture.Sum("another")))
			n.relist("evidence.json")
		}, attest.ErrLock, "evidence.json"},
		{"report of another lock", func(n *line) { n.editReport(func(r *verify.Report) { r.Lock = fixture.Sum("another") }) }, attest.ErrLock, "report.json"},
		{"report of another image", func(n *line) { n.editReport(func(r *verify.Report) { r.Image.SHA256 = fixture.Sum("another") }) }, attest.ErrFolder, "report.json"},
		{"report of a variant", func(n *line) { n.editReport(func(r *verify.Report) { r.Variant = "debug" }) }, attest.ErrFolder, "debug"},
		{"report of other measurements", func(n *line) { n.editReport(func(r *verify.Report) { r.PCRs["4"] = "00" }) }, attest.ErrFolder, "PCR 4"},
		{"verdict against a failed check", func(n *line) { n.editReport(func(r *verify.Report) { r.Checks[1].Status = verify.Failed }) }, attest.ErrFolder, "disk failed"},
		{"verdict against an unchecked one", func(n *line) { n.editReport(func(r *verify.Report) { r.Checks[3].Status = verify.NotChecked }) }, attest.ErrFolder, "boot not checked"},
		{"verdict against the digests", func(n *line) { n.editReport(func(r *verify.Report) { r.Rebuilt.Disk = fixture.Sum("another") }) }, attest.ErrFolder, "identical"},
		{"no such verdict", func(n *line) { n.editReport(func(r *verify.Report) { r.Verdict = "fine" }) }, nil, "fine"},
		{"cut report", func(n *line) { n.write("report.json", n.read("report.json")[:50]) }, nil, "report.json"},
		{"no image", func(n *line) { os.Remove(n.path("demo.qcow2")) }, os.ErrNotExist, "demo.qcow2"},
		{"no image.json", func(n *line) { os.Remove(n.path("image.json")) }, os.ErrNotExist, "image.json"},
		{"file of no input", func(n *line) {
			f := fixture.Files()
			f[0].Inputs = []string{"rpm/zsh-5.9-1.x86_64"}
			n.writeJSON("files.json", f)
			n.relist("files.json")
		}, nil, "zsh"},
		{"package not in the store", func(n *line) {
			in := n.Lock.Find(lock.KindRPM, "bash-5.2-1.x86_64")
			os.Remove(n.Store.Path(in.SHA256))
		}, os.ErrNotExist, "bash-5.2-1.x86_64"},
		{"package damaged in the store", func(n *line) {
			path := n.Store.Path(n.Lock.Find(lock.KindRPM, "bash-5.2-1.x86_64").SHA256)
			b, _ := os.ReadFile(path)
			b[len(b)-1] ^= 1
			os.Remove(path)
			os.WriteFile(path, b, 0o444)
		}, nil, "bash-5.2-1.x86_64"},
		{"no key", func(n *line) { n.Signer = sign.Signer{} }, sign.ErrKey, ""},
		{"no role", func(n *line) { n.Role = "" }, nil, "role"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := newLine(t)
			tt.spoil(n)
			_, err := attest.Attest(t.Context(), n.Options)
			if err == nil || tt.want != nil && !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %v, want %v naming %q", err, tt.want, tt.says)
			}
			if got := n.statements(); got != nil {
				t.Errorf("written although refused: %v", got)
			}
		})
	}
}

func TestCancelled(t *testing.T) {
	n := newLine(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := attest.Attest(ctx, n.Options); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
	if got := n.statements(); got != nil {
		t.Errorf("written although interrupted: %v", got)
	}
}

// TestVerifyDir spoils a signed folder.
func TestVerifyDir(t *testing.T) {
	n := newLine(t)
	n.attest()
	good, key := n.Dir, n.Signer.PublicPEM()
	other := newSigner(t)
	replace := func(name, old, with string) func(*line) {
		return func(n *line) {
			b := n.read(name)
			if !bytes.Contains(b, []byte(old)) {
				n.t.Fatalf("%s has no %q", name, old)
			}
			n.write(name, bytes.Replace(b, []byte(old), []byte(with), 1))
		}
	}
	for _, tt := range []struct {
		name  string
		spoil func(*line)
		key   []byte
		want  error
		says  string
	}{
		{"another key", func(*line) {}, other.PublicPEM(), sign.ErrSignature, other.Hint()},
		{"image", replace("demo.qcow2", "QFI", "QFX"), key, sign.ErrArtifact, "demo.qcow2"},
		{"payload", replace("statements/vsa.json", "PASSED", "FAILED"), key, attest.ErrFolder, "vsa.json"},
		{"no payload", func(n *line) { os.Remove(n.path("statements/vsa.json")) }, key, attest.ErrFolder, "vsa"},
		{"no bundle", func(n *line) { os.Remove(n.path("statements/vsa.sigstore.json")) }, key, attest.ErrFolder, "vsa"},
		{"no provenance", func(n *line) {
			os.Remove(n.path("statements/provenance.json"))
			os.Remove(n.path("statements/provenance.sigstore.json"))
		}, key, os.ErrNotExist, "provenance"},
		{"document", replace("sbom.spdx.json", "GPLv3+", "GPLv2+"), key, attest.ErrFolder, "sbom.spdx.json"},
		{"byproduct", replace("evidence.json", "ENETUNREACH", "EPERM"), key, attest.ErrFolder, "evidence.json"},
		{"image.json", replace("image.json", "6.1.0", "6.1.1"), key, attest.ErrFolder, "image.json"},
		{"measurements", replace("measurements.json", "pcr03", "pcr04"), key, attest.ErrFolder, "measurements.json"},
		{"bundles swapped", func(n *line) {
			n.write("statements/vsa.sigstore.json", n.read("statements/test-result.sigstore.json"))
			n.write("statements/vsa.json", n.read("statements/test-result.json"))
		}, key, attest.ErrFolder, "test-result"},
		{"cut bundle", func(n *line) {
			n.write("statements/sbom.sigstore.json", n.read("statements/sbom.sigstore.json")[:100])
		}, key, sign.ErrDamaged, "sbom"},
		{"no key", func(*line) {}, []byte("ssh-ed25519 AAAA"), sign.ErrKey, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := &line{t: t}
			n.Dir = t.TempDir()
			if err := os.CopyFS(n.Dir, os.DirFS(good)); err != nil {
				t.Fatal(err)
			}
			tt.spoil(n)
			_, err := attest.VerifyDir(t.Context(), n.Dir, tt.key)
			if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %v, want %v naming %q", err, tt.want, tt.says)
			}
		})
	}
}
