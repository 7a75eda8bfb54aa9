package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"

	"caisson/attest"
	"caisson/attest/slsa"
	"caisson/build"
	"caisson/lock"
	"caisson/lock/digest"
	"caisson/verify"
)

// pushable is an output folder with a verifier's verdict in it.
func pushable(t *testing.T, p party) (dir string, manifest digest.Digest) {
	t.Helper()
	dir = t.TempDir()
	disk, measurements := []byte("image"), []byte(`{"measurements":{"sha256":{"pcr03":"aa"}}}`)
	r := verdict()
	im := build.Image{Name: "demo", Arch: "x86_64", Lock: r.Lock, Epoch: 1_700_000_000,
		Files: []build.Output{{Name: "demo.qcow2", Size: int64(len(disk)), SHA256: digest.Of(disk)}, {Name: "files.json"}}}
	text, err := json.Marshal(im)
	must(t, err)
	r.Verdict = verify.Identical
	report, err := r.Encode()
	must(t, err)
	for name, b := range map[string][]byte{"demo.qcow2": disk, "measurements.json": measurements, "image.json": text, "report.json": report, "sbom.spdx.json": []byte("{}")} {
		must(t, os.WriteFile(filepath.Join(dir, name), b, 0o644))
	}
	packed, err := attest.Pack(t.Context(), filepath.Join(dir, "demo.qcow2"), measurements, im, nil)
	must(t, err)
	_, err = attest.SignVerdict(t.Context(), dir, &r, packed.Digest, p.Signer, slsa.Tool{Version: "v1", Digest: digest.Of([]byte("caisson"))})
	must(t, err)
	return dir, packed.Digest
}

// provenanceOf writes a provenance that names three packages.
func provenanceOf(t *testing.T, dir string) {
	t.Helper()
	r := verdict()
	rpm := func(name string, signed bool) lock.Input {
		return lock.Input{Kind: lock.KindRPM, Name: name, SHA256: digest.Of([]byte(name)), RPM: &lock.RPM{Name: name, Arch: "x86_64", Signed: signed},
			For: []lock.Use{{Arch: "x86_64", Set: "root", By: name}}}
	}
	l := &lock.Lock{Name: "demo", Arches: []string{"x86_64"}, Inputs: []lock.Input{rpm("a", true), rpm("b", true), rpm("c", false)}}
	b, err := slsa.Provenance(slsa.Image{File: slsa.File("demo.qcow2", r.Image.SHA256)}, slsa.Build{
		Speaker: slsa.Speaker{Role: slsa.Builder, Tool: slsa.Tool{Version: "v1", Digest: digest.Of(nil)}}, Lock: l, LockDigest: r.Lock, Image: build.Image{Arch: "x86_64"},
		SigningKey: func(*lock.Input) (string, error) { return "567E347AD0044ADE55BA8A5F199E2F91FD431D51", nil },
	})
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "statements", "provenance.json"), b, 0o644))
}

// TestPushCommand pushes an output folder, leaves what a Konflux task has to
// give, and checks what is attached to the image in the registry.
func TestPushCommand(t *testing.T) {
	srv := httptest.NewServer(registry.New(registry.WithReferrersSupport(true), registry.Logger(log.New(io.Discard, "", 0))))
	defer srv.Close()
	host := strings.TrimPrefix(srv.URL, "http://")
	p := newParty(t, t.TempDir(), "verifier")
	dir, manifest := pushable(t, p)
	provenanceOf(t, dir)
	results := filepath.Join(t.TempDir(), "results")
	var out bytes.Buffer
	u := &ui{out: &out, err: io.Discard, quiet: true}
	ref := host + "/team/podvm:1.0"
	must(t, runPush(t.Context(), u, &pushOptions{out: dir, results: results}, ref))
	if want := host + "/team/podvm@" + manifest.String() + "\n"; out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
	for name, want := range map[string]string{
		"IMAGE_URL": ref, "IMAGE_DIGEST": manifest.String(), "IMAGE_REFERENCE": ref + "@" + manifest.String(),
		"SBOM_BLOB_URL": host + "/team/podvm@" + digest.Of([]byte("{}")).String(),
		"RPMS_DATA":     `{"keys":{"199e2f91fd431d51":2,"unsigned":1}}`,
		"TEST_OUTPUT":   `{"result":"SUCCESS","timestamp":"2026-11-21T12:00:00Z","note":"caisson verify: identical: ","namespace":"default","successes":2,"failures":0,"warnings":0}`,
	} {
		b, err := os.ReadFile(filepath.Join(results, name))
		must(t, err)
		if string(b) != want {
			t.Errorf("%s: got %s, want %s", name, b, want)
		}
	}
	blob, err := http.Get("http://" + host + "/v2/team/podvm/blobs/" + digest.Of([]byte("{}")).String())
	must(t, err)
	blob.Body.Close()
	if blob.StatusCode != http.StatusOK {
		t.Errorf("what SBOM_BLOB_URL names: %s", blob.Status)
	}

	for _, tt := range []struct {
		ref  string
		keys []string
		code int
		want string
	}{
		{ref, []string{p.pub}, exitOK, "demo.qcow2 " + digest.Of([]byte("image")).String() + ", oci/demo.qcow2 " + manifest.String()},
		{host + "/team/podvm@" + manifest.String(), nil, exitNotVerified, "unknown key"},
	} {
		out.Reset()
		if code := exitCode(runCheck(t.Context(), u, &attestOptions{keys: tt.keys}, []string{tt.ref})); code != tt.code || !strings.Contains(out.String(), tt.want) {
			t.Errorf("--check %s: exit code %d\n%s", tt.ref, code, out.String())
		}
	}
	layout := filepath.Join(t.TempDir(), "layout")
	out.Reset()
	must(t, runPush(t.Context(), u, &pushOptions{out: dir, layout: layout}, ""))
	if want := "oci:" + layout + ":latest@" + manifest.String() + "\n"; out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
}

func TestPushErrors(t *testing.T) {
	p := newParty(t, t.TempDir(), "verifier")
	dir, _ := pushable(t, p)
	forbidden := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }))
	defer forbidden.Close()
	u := &ui{out: io.Discard, err: io.Discard, quiet: true}
	for _, tt := range []struct {
		name string
		o    pushOptions
		ref  string
		code int
		want string
	}{
		{"nowhere", pushOptions{out: dir}, "", exitUsage, "push wants REGISTRY/REPO"},
		{"no registry", pushOptions{out: dir}, "podvm:1", exitUsage, "names no registry"},
		{"nothing built", pushOptions{out: t.TempDir()}, "x.example/a", exitError, "no finished build"},
		{"no label", pushOptions{out: dir, labels: []string{"a"}}, "x.example/a", exitUsage, "want NAME=VALUE"},
		{"twice", pushOptions{out: dir, labels: []string{"a=1", "a=2"}}, "x.example/a", exitUsage, "given twice"},
		{"other labels", pushOptions{out: dir, labels: []string{"a=1"}}, "x.example/a", exitError, "were other labels given"},
		{"forbidden", pushOptions{out: dir}, strings.TrimPrefix(forbidden.URL, "http://") + "/team/podvm:1", exitError, "403 Forbidden"},
		{"layout with results", pushOptions{out: dir, layout: "x", results: "y"}, "", exitUsage, "asks no registry"},
		{"unknown key", pushOptions{out: dir, key: p.pub}, "x.example/a", exitRefused, "sbom"},
	} {
		err := runPush(t.Context(), u, &tt.o, tt.ref)
		if code := exitCode(err); code != tt.code || err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: exit code %d, %v", tt.name, code, err)
		}
		var coded *codeError
		if tt.name == "forbidden" && (!errors.As(err, &coded) || !strings.Contains(coded.hint, "login "+strings.TrimPrefix(forbidden.URL, "http://"))) {
			t.Errorf("no hint: %v", err)
		}
	}
}

// TestPushUplosi reads what is printed as TOML, of the shape that uplosi's
// README gives.
func TestPushUplosi(t *testing.T) {
	dir, _ := pushable(t, newParty(t, t.TempDir(), "verifier"))
	var out bytes.Buffer
	u := &ui{out: &out, err: io.Discard, quiet: true}
	o := pushOptions{out: dir, uplosi: []string{"aws", "azure", "gcp"}, version: "1.2.3",
		set: []string{"aws.region=eu-central-1", `aws.bucket=a"b`, "aws.publish=true", "aws.replicationRegions=us-east-2,ap-south-1", "gcp.project=p", "gcp.location=l", "gcp.bucket=b"}}
	must(t, runPush(t.Context(), u, &o, ""))
	var got map[string]map[string]any
	if _, err := toml.Decode(out.String(), &got); err != nil {
		t.Fatalf("%v:\n%s", err, out.String())
	}
	aws := got["variant"]["aws"].(map[string]any)
	if got["base"]["imageVersion"] != "1.2.3" || aws["provider"] != "aws" || aws["name"] != "demo" {
		t.Errorf("got %v", got)
	}
	in := aws["aws"].(map[string]any)
	if in["region"] != "eu-central-1" || in["bucket"] != `a"b` || in["publish"] != true || len(in["replicationRegions"].([]any)) != 2 {
		t.Errorf("got %v", in)
	}
	if !strings.Contains(out.String(), `# subscriptionID = "" # has to be given: --set azure.subscriptionID=…`) || !strings.Contains(out.String(), "qemu-img convert -f qcow2 -O raw demo.qcow2 demo.raw") {
		t.Errorf("got %s", out.String())
	}
	for _, tt := range []struct {
		uplosi, set []string
		version     string
	}{
		{[]string{"ibm"}, nil, "1.2.3"}, {[]string{"aws"}, nil, "1.2"}, {[]string{"aws"}, []string{"aws.region"}, "1.2.3"},
		{[]string{"aws"}, []string{"gcp.project=x"}, "1.2.3"}, {[]string{"aws"}, []string{"aws.colour=x"}, "1.2.3"}, {[]string{"aws"}, []string{"aws.publish=perhaps"}, "1.2.3"},
	} {
		err := runPush(t.Context(), u, &pushOptions{out: dir, uplosi: tt.uplosi, set: tt.set, version: tt.version}, "")
		if exitCode(err) != exitUsage {
			t.Errorf("%+v: got %v", tt, err)
		}
	}
	if got := gcpName("Pod_VM.1"); got != "pod-vm-1" || gcpName("1") != "image-1" {
		t.Errorf("got %s", got)
	}
}

// TestPushBucket puts the files of a folder into a bucket, and what a network
// boot needs with them.
func TestPushBucket(t *testing.T) {
	backend := s3mem.New()
	must(t, backend.CreateBucket("images"))
	srv := httptest.NewServer(gofakes3.New(backend, gofakes3.WithLogger(gofakes3.DiscardLog())).Server())
	defer srv.Close()
	for name, value := range map[string]string{"AWS_ACCESS_KEY_ID": "me", "AWS_SECRET_ACCESS_KEY": "x", "AWS_REGION": "", "AWS_PROFILE": "", "AWS_CONFIG_FILE": "/none", "AWS_SHARED_CREDENTIALS_FILE": "/none"} {
		t.Setenv(name, value)
	}
	dir, _ := pushable(t, newParty(t, t.TempDir(), "verifier"))
	text, err := os.ReadFile(filepath.Join(dir, "image.json"))
	must(t, err)
	var im build.Image
	must(t, json.Unmarshal(text, &im))
	im.Files = im.Files[:1]
	for _, name := range []string{"demo.vmlinuz", "demo.initrd", "demo.root"} {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(name), 0o644))
		im.Files = append(im.Files, build.Output{Name: name, Size: int64(len(name)), SHA256: digest.Of([]byte(name))})
	}
	text, err = json.Marshal(im)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "image.json"), text, 0o644))
	var out bytes.Buffer
	u := &ui{out: &out, err: io.Discard, quiet: true}
	must(t, runPush(t.Context(), u, &pushOptions{out: dir, endpoint: srv.URL}, "s3://images/podvm"))
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if lines[0] != "s3://images/podvm/demo.qcow2" || lines[len(lines)-1] != "s3://images/podvm/image.json" || len(lines) != 12 {
		t.Errorf("got %q", lines)
	}
	for _, name := range []string{"demo.qcow2", "demo.vmlinuz", "demo.initrd", "demo.root", "measurements.json", "statements/vsa.sigstore.json", "statements/vsa.json", "sbom.spdx.json", "report.json"} {
		o, err := backend.GetObject("images", "podvm/"+name, nil)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		got, err := io.ReadAll(o.Contents)
		must(t, err)
		want, err := os.ReadFile(filepath.Join(dir, name))
		must(t, err)
		if !bytes.Equal(got, want) {
			t.Errorf("%s: got %q", name, got)
		}
	}
	must(t, os.WriteFile(filepath.Join(dir, "demo.initrd"), []byte("other"), 0o644))
	if err := runPush(t.Context(), u, &pushOptions{out: dir, endpoint: srv.URL}, "s3://images/podvm"); err == nil || !strings.Contains(err.Error(), "demo.initrd has 5 bytes") {
		t.Errorf("a file that is not what it was: %v", err)
	}
	if err := runPush(t.Context(), u, &pushOptions{out: dir}, "s3://"); exitCode(err) == exitOK {
		t.Errorf("no bucket: %v", err)
	}
	// A root in a tar archive goes there, too, and nowhere else.
	var root bytes.Buffer
	tw := tar.NewWriter(&root)
	must(t, tw.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: "etc/", Mode: 0o755}))
	must(t, tw.Close())
	dir = t.TempDir()
	text, err = json.Marshal(build.Image{Name: "box", Files: []build.Output{{Name: "box.tar", Size: int64(root.Len()), SHA256: digest.Of(root.Bytes())}}})
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "box.tar"), root.Bytes(), 0o644))
	must(t, os.WriteFile(filepath.Join(dir, "image.json"), text, 0o644))
	out.Reset()
	must(t, runPush(t.Context(), u, &pushOptions{out: dir, endpoint: srv.URL}, "s3://images/box"))
	if got, want := out.String(), "s3://images/box/box.tar\ns3://images/box/image.json\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	for _, o := range []pushOptions{{out: dir}, {out: dir, layout: t.TempDir()}} {
		if err := runPush(t.Context(), u, &o, "localhost:1/box"); err == nil || !strings.Contains(err.Error(), "which no registry takes") {
			t.Errorf("got %v", err)
		}
	}
}
