package slsa_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	provenancev1 "github.com/in-toto/attestation/go/predicates/provenance/v1"
	testresultv0 "github.com/in-toto/attestation/go/predicates/test_result/v0"
	vsav1 "github.com/in-toto/attestation/go/predicates/vsa/v1"
	intoto "github.com/in-toto/attestation/go/v1"

	"caisson/attest/internal/fixture"
	"caisson/attest/slsa"
	"caisson/build"
	"caisson/build/sandbox"
	"caisson/lock"
	"caisson/lock/digest"
	"caisson/verify"
)

var update = flag.Bool("update", false, "write the golden files anew")

var image = slsa.Image{File: slsa.File("demo.qcow2", fixture.Sum("disk"))}

func provenance(t testing.TB, change func(*slsa.Build)) []byte {
	t.Helper()
	l := fixture.Lock()
	d, err := l.Digest()
	if err != nil {
		t.Fatal(err)
	}
	b := slsa.Build{
		Speaker: fixture.Speaker(), Lock: l, LockDigest: d, Image: fixture.Image(d), Evidence: fixture.Evidence(d),
		Invocation: fixture.Invocation(),
		Byproducts: []slsa.Resource{slsa.File("evidence.json", fixture.Sum("evidence")), slsa.File("files.json", fixture.Sum("files"))},
	}
	if change != nil {
		change(&b)
	}
	b.SigningKey = func(*lock.Input) (string, error) { return "0123456789ABCDEF0123456789ABCDEF01234567", nil }
	out, err := slsa.Provenance(image, b)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func verification(v verify.Verdict, checks ...verify.Check) slsa.Verification {
	s := fixture.Speaker()
	s.Role = slsa.Verifier
	r := fixture.Report(fixture.Sum("lock"), fixture.Sum("disk"))
	r.Verdict = v
	if checks != nil {
		r.Checks = checks
	}
	return slsa.Verification{Speaker: s, Report: r, ReportDigest: fixture.Sum("report")}
}

func values() slsa.Values {
	return slsa.Values{
		Lock: fixture.Sum("lock"), Name: "demo", Arch: "x86_64", RootHash: fixture.RootHash,
		PCRs:         map[string]map[string]string{"sha256": {"4": fixture.Sum("4").Hex(), "11": fixture.Sum("11").Hex()}},
		Measurements: map[string]map[string]string{"sha256": {"pcr03": fixture.Sum("3").Hex(), "pcr11": fixture.Sum("11 at login").Hex()}},
	}
}

// all makes one statement of each kind.
func all(t testing.TB) map[string][]byte {
	t.Helper()
	must := func(b []byte, err error) []byte {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	failed := verification(verify.Different, verify.Check{Name: "rebuild", Status: verify.Passed}, verify.Check{Name: "disk", Status: verify.Failed})
	return map[string][]byte{
		"sbom":               must(sbom(image, `{"spdxVersion":"SPDX-2.3","comment":"a < b & c"}`)),
		"provenance":         provenance(t, nil),
		"test-result":        must(slsa.TestResult(image, verification(verify.Identical))),
		"test-result-failed": must(slsa.TestResult(image, failed)),
		"vsa":                must(slsa.VSA(image, verification(verify.Identical))),
		"vsa-failed":         must(slsa.VSA(image, failed)),
		"reference-values":   must(slsa.ReferenceValues(image, values())),
	}
}

// sbom is the statement of a document, which has to be a part of it.
func sbom(image slsa.Image, document string) ([]byte, error) {
	statement, part, err := slsa.SBOM(image, func(w io.Writer) error {
		_, err := io.WriteString(w, document)
		return err
	})
	if err == nil && string(part) != document {
		err = fmt.Errorf("got the document %q, want %q", part, document)
	}
	return statement, err
}

func TestGolden(t *testing.T) {
	for name, got := range all(t) {
		t.Run(name, func(t *testing.T) {
			if bytes.ContainsAny(got, "\n\t") || bytes.Contains(got, []byte(`\u0026`)) {
				t.Error("not canonical: blanks between tokens, or HTML escapes")
			}
			file := filepath.Join("testdata", name+".json")
			if *update {
				if err := os.WriteFile(file, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("got\n%s\nwant (-update writes it)\n%s", got, want)
			}
			if again := all(t)[name]; !bytes.Equal(again, got) {
				t.Errorf("a second run gave\n%s, the first\n%s", again, got)
			}
		})
	}
}

// TestSchema reads each statement with in-toto's own types, which refuse
// unknown fields, and validates it.
func TestSchema(t *testing.T) {
	predicates := map[string]proto.Message{
		"provenance": &provenancev1.Provenance{}, "test-result": &testresultv0.TestResult{}, "test-result-failed": &testresultv0.TestResult{},
		"vsa": &vsav1.VerificationSummary{}, "vsa-failed": &vsav1.VerificationSummary{},
	}
	for name, b := range all(t) {
		t.Run(name, func(t *testing.T) {
			var st intoto.Statement
			if err := protojson.Unmarshal(b, &st); err != nil {
				t.Fatal(err)
			}
			if err := st.Validate(); err != nil {
				t.Fatal(err)
			}
			m := predicates[name]
			if m == nil {
				return
			}
			if strings.HasPrefix(name, "vsa") {
				// Newer than the module's type: SLSA 1.1, verifier.version.
				delete(st.Predicate.Fields["verifier"].GetStructValue().Fields, "version")
			}
			predicate, err := st.Predicate.MarshalJSON()
			if err != nil {
				t.Fatal(err)
			}
			if err := protojson.Unmarshal(predicate, m); err != nil {
				t.Fatal(err)
			}
			if p, ok := m.(*provenancev1.Provenance); ok {
				if err := p.Validate(); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// TestEveryInput looks for each input of the lock, and the lock, by digest.
func TestEveryInput(t *testing.T) {
	var st struct {
		Predicate struct {
			BuildDefinition struct {
				ResolvedDependencies []slsa.Resource `json:"resolvedDependencies"`
			} `json:"buildDefinition"`
		} `json:"predicate"`
	}
	if err := json.Unmarshal(provenance(t, nil), &st); err != nil {
		t.Fatal(err)
	}
	l := fixture.Lock()
	d, _ := l.Digest()
	want := []digest.Digest{d}
	for i := range l.Inputs {
		want = append(want, l.Inputs[i].SHA256)
	}
	deps := st.Predicate.BuildDefinition.ResolvedDependencies
	if len(deps) != len(want) {
		t.Fatalf("got %d dependencies, want %d", len(deps), len(want))
	}
	uses := map[string]string{}
	for i, dep := range deps {
		if dep.Digest["sha256"] != want[i].Hex() {
			t.Errorf("%s: got %v, want %s", dep.Name, dep.Digest, want[i])
		}
		use, _ := json.Marshal(dep.Annotations["use"])
		uses[dep.Name] = string(use)
	}
	for name, use := range map[string]string{
		"rpm/bash-5.2-1.x86_64": `["image","tool"]`, "rpm/rpm-4.18-1.x86_64": `["tool"]`, "rpm/strace-6.7-1.x86_64": `null`,
		"go/golang.org/x/sys@v0.30.0.zip": `["source"]`, "repodata/base-aarch64/repomd.xml": `null`, "tree/rootfs-debug": `null`,
		"toolchain/go1.26.0.linux-amd64.zip": `["tool"]`, "key/keys/base.asc": `["metadata"]`,
	} {
		if uses[name] != use {
			t.Errorf("%s: use %s, want %s", name, uses[name], use)
		}
	}
}

func TestVariantUses(t *testing.T) {
	b := provenance(t, func(b *slsa.Build) { b.Image.Variant = "debug" })
	if !bytes.Contains(b, []byte(`"variant":"debug"`)) {
		t.Errorf("no variant in the external parameters: %s", b)
	}
	var st slsa.Statement
	if err := json.Unmarshal(b, &st); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"rpm/strace-6.7-1.x86_64", "tree/rootfs-debug"} {
		_, after, _ := bytes.Cut(st.Predicate, []byte(`"name":"`+name+`"`))
		dep, _, _ := bytes.Cut(after, []byte(`"name"`))
		if !bytes.Contains(dep, []byte(`"use"`)) {
			t.Errorf("%s has no use in the variant: %s", name, dep)
		}
	}
}

func TestEvidenceSummary(t *testing.T) {
	b := provenance(t, func(b *slsa.Build) {
		b.Evidence.Inputs.After = "sha256:" + fixture.Sum("other").Hex()
		b.Evidence.Steps[0].Attempts = []sandbox.Attempt{{Call: "connect", Count: 3}}
		b.Evidence.Steps[0].Canaries[0].Errno = ""
	})
	const want = `"evidence":{"steps":1,"networkAttempts":3,"canariesTried":2,"canariesThrough":1,"inputsUnchanged":false,"unusedInputs":1,"kernels":["6.1.0-13-amd64"]}`
	if !bytes.Contains(b, []byte(want)) {
		t.Errorf("got %s, want it to have %s", b, want)
	}
}

func TestVerdicts(t *testing.T) {
	rebuilt := verify.Check{Name: "rebuild", Status: verify.Passed}
	for _, tt := range []struct {
		verdict      verify.Verdict
		checks       []verify.Check
		result, vsa  string
		failed       []string
		levels, warn []string
	}{
		{verify.Identical, []verify.Check{rebuilt}, "PASSED", "PASSED", nil, []string{slsa.LevelIdentical}, nil},
		{verify.Identical, []verify.Check{{Name: "rebuilders", Status: verify.Passed}}, "PASSED", "PASSED", nil, []string{slsa.LevelRebuilders}, nil},
		{verify.NotVerified, []verify.Check{rebuilt, {Name: "policy: boot", Status: verify.Refused}}, "FAILED", "FAILED", []string{"policy: boot"}, []string{"FAILED", slsa.LevelNotVerified}, nil},
		{verify.Identical, []verify.Check{rebuilt, {Name: "boot", Status: verify.Passed}}, "PASSED", "PASSED", nil, []string{slsa.LevelIdentical, slsa.LevelBooted}, nil},
		{verify.Equivalent, nil, "WARNED", "PASSED", nil, []string{slsa.LevelEquivalent}, []string{"identical"}},
		{verify.Different, []verify.Check{{Name: "disk", Status: verify.Failed}, {Name: "boot", Status: verify.Passed}}, "FAILED", "FAILED", []string{"disk"}, []string{"FAILED", slsa.LevelDifferent}, nil},
		{verify.NotVerified, []verify.Check{{Name: "boot", Status: verify.NotChecked}}, "FAILED", "FAILED", []string{"boot"}, []string{"FAILED", slsa.LevelNotVerified}, nil},
	} {
		v := verification(tt.verdict, tt.checks...)
		b, err := slsa.TestResult(image, v)
		if err != nil {
			t.Fatal(err)
		}
		var res struct {
			Predicate struct {
				Result                   string
				FailedTests, WarnedTests []string
			}
		}
		if err := json.Unmarshal(b, &res); err != nil {
			t.Fatal(err)
		}
		if p := res.Predicate; p.Result != tt.result || !slices.Equal(p.FailedTests, tt.failed) || !slices.Equal(p.WarnedTests, tt.warn) {
			t.Errorf("%s: got %+v, want %s, failed %v, warned %v", tt.verdict, p, tt.result, tt.failed, tt.warn)
		}
		if b, err = slsa.VSA(image, v); err != nil {
			t.Fatal(err)
		}
		var sum struct {
			Predicate struct {
				VerificationResult, TimeVerified string
				VerifiedLevels                   []string
			}
		}
		if err := json.Unmarshal(b, &sum); err != nil {
			t.Fatal(err)
		}
		p := sum.Predicate
		if p.VerificationResult != tt.vsa || !slices.Equal(p.VerifiedLevels, tt.levels) || p.TimeVerified != "2026-01-02T03:05:06Z" {
			t.Errorf("%s: got %+v, want %s %v", tt.verdict, p, tt.vsa, tt.levels)
		}
	}
}

func TestRefused(t *testing.T) {
	bad := verification("splendid")
	noTime := verification(verify.Identical)
	noTime.Report.Finished = "yesterday"
	nobody := verification(verify.Identical)
	nobody.Role = "owner"
	noBinary := verification(verify.Identical)
	noBinary.Tool.Digest = digest.Digest{}
	noReport := verification(verify.Identical)
	noReport.ReportDigest = digest.Digest{}
	for name, v := range map[string]slsa.Verification{"verdict": bad, "time": noTime, "role": nobody, "binary": noBinary, "report": noReport} {
		if b, err := slsa.VSA(image, v); err == nil {
			t.Errorf("%s: got %s, want an error", name, b)
		}
	}
	if b, err := slsa.ReferenceValues(image, slsa.Values{RootHash: fixture.RootHash}); err == nil {
		t.Errorf("no measurements: got %s, want an error", b)
	}
	if b, err := sbom(slsa.Image{File: slsa.Resource{Name: "demo.qcow2"}}, "{}"); err == nil {
		t.Errorf("no digest: got %s, want an error", b)
	}
	if b, err := sbom(image, "{"); err == nil {
		t.Errorf("cut document: got %s, want an error", b)
	}
	if b, err := slsa.Provenance(image, slsa.Build{Lock: &lock.Lock{}, Image: build.Image{}}); err == nil {
		t.Errorf("nobody: got %s, want an error", b)
	}
}

func TestParseProvenance(t *testing.T) {
	good := provenance(t, nil)
	ext, byproducts, err := slsa.ParseProvenance(good)
	if err != nil {
		t.Fatal(err)
	}
	d, _ := fixture.Lock().Digest()
	if want := (slsa.External{Lock: d, Name: "demo", Arch: "x86_64"}); ext != want || len(byproducts) != 2 {
		t.Errorf("got %+v, %v, want %+v and 2 byproducts", ext, byproducts, want)
	}
	replace := func(old, with string) []byte {
		t.Helper()
		if !bytes.Contains(good, []byte(old)) {
			t.Fatalf("no %s in %s", old, good)
		}
		return bytes.Replace(good, []byte(old), []byte(with), 1)
	}
	for name, b := range map[string][]byte{
		"unknown parameter":  replace(`"arch":"x86_64"`, `"arch":"x86_64","network":"on"`),
		"another build type": replace(slsa.BuildType, "https://tekton.dev/chains/v2/slsa"),
		"no parameters":      replace(`"externalParameters"`, `"parameters"`),
		"no lock":            replace(`"lock":"`+d.String()+`"`, `"lock":""`),
		"bad lock":           replace(`"lock":"sha256:`, `"lock":"md5:`),
		"predicate type":     replace(slsa.TypeProvenance, slsa.TypeVSA),
		"statement type":     replace("Statement/v1", "Statement/v0.1"),
		"unknown field":      replace(`{"_type"`, `{"x":1,"_type"`),
		"two values":         append(bytes.Clone(good), "{}"...),
		"cut":                good[:100],
		"two subjects":       replace(`"subject":[`, `"subject":[{"name":"other"},`),
	} {
		if ext, _, err := slsa.ParseProvenance(b); err == nil {
			t.Errorf("%s: got %+v, want an error", name, ext)
		}
	}
}

func FuzzParseProvenance(f *testing.F) {
	f.Add(provenance(f, nil))
	for _, b := range all(f) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if ext, _, err := slsa.ParseProvenance(b); err == nil && ext.Lock.IsZero() {
			t.Error("a provenance that names no lock was accepted")
		}
	})
}

// TestRVPS reads the message as the service's sample extractor does.
func TestRVPS(t *testing.T) {
	b, err := slsa.RVPS(values().Measurements, slsa.Launch{MRTD: "ab", RTMR2: "cd"})
	if err != nil {
		t.Fatal(err)
	}
	var m struct{ Version, Type, Payload string }
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatal(err)
	}
	payload, err := base64.StdEncoding.DecodeString(m.Payload)
	if err != nil {
		t.Fatal(err)
	}
	var got map[string][]string
	if err := json.Unmarshal(payload, &got); err != nil {
		t.Fatal(err)
	}
	want := fixture.Sum("11 at login").Hex()
	if m.Version != "0.1.0" || m.Type != "sample" || len(got) != 8 || !slices.Equal(got["snp_pcr11"], []string{want}) ||
		!slices.Equal(got["mr_td"], []string{"ab"}) || !slices.Equal(got["rtmr_2"], []string{"cd"}) {
		t.Errorf("got %+v with %v, want version 0.1.0, type sample and snp_pcr11 %s", m, got, want)
	}
	for _, bad := range []map[string]map[string]string{nil, {"sha256": {}}, {"sha384": {"pcr11": "00"}}, {"sha256": {"11": "00"}}} {
		if b, err := slsa.RVPS(bad, slsa.Launch{}); err == nil {
			t.Errorf("%v: got %s, want an error", bad, b)
		}
	}
}
