package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"caisson/build"
)

// TestE2EPodVM builds the PodVM's definition and its variants on the demo's
// distribution, with a signed payload image of the test's own, and boots each:
// to a login, with the payload's agent started in encrypted scratch space; with
// the vendor's kernel image, started by shim, measured as predicted; and with a
// shell at the console.
func TestE2EPodVM(t *testing.T) {
	if os.Getenv("CAISSON_E2E") == "" {
		t.Skip("the whole line is run by `make e2e`")
	}
	repo := os.Getenv("CAISSON_DEBREPO")
	if repo == "" {
		t.Fatal("CAISSON_DEBREPO is not set; `make e2e` sets it")
	}
	bin, err := filepath.Abs("../../bin")
	must(t, err)
	e := &e2e{t: t, bin: bin, repo: repo + "-trixie", dir: scratch(t)}
	e.lock, e.store, e.out = filepath.Join(e.dir, "caisson.lock"), filepath.Join(e.dir, "store"), filepath.Join(e.dir, "out")
	if _, err := os.Stat(e.repo); err != nil {
		t.Fatalf("%v: `make e2e` makes it, of Debian 13", err)
	}
	address, stop := e.serve()
	podvm := filepath.Join(e.dir, "podvm")
	must(t, os.CopyFS(podvm, os.DirFS("../../lockfiles/podvm")))
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	manifest := filepath.Join(podvm, "demo.yaml")
	b, err := os.ReadFile(manifest)
	must(t, err)
	text := strings.NewReplacer("127.0.0.1:8642", address, "../../out/repo-trixie/RPM-GPG-KEY-debrepo", "keys/debrepo", "127.0.0.1:8643", host).Replace(string(b))
	must(t, os.WriteFile(manifest, []byte(text), 0o644))

	image := pushPayload(t, host+"/podvm-payload:latest")
	cosign := e.payloadKey(t, filepath.Join(podvm, "keys"))
	key, err := os.ReadFile(filepath.Join(e.repo, "RPM-GPG-KEY-debrepo"))
	must(t, err)
	must(t, os.WriteFile(filepath.Join(podvm, "keys", "debrepo"), key, 0o644))
	e.want(t, exitRefused, []string{"payload"}, "lock", "-f", manifest, "-o", e.lock, "--store", e.store) // it is not signed
	cosign("sign", "--yes", "--tlog-upload=false", "--allow-insecure-registry", "--key", "payload.key", host+"/podvm-payload@"+image)
	e.want(t, exitOK, nil, "lock", "-f", manifest, "-o", e.lock, "--store", e.store)
	e.want(t, exitOK, nil, append(e.at("prefetch"), "--project", podvm)...)
	stop()
	server.Close()
	t.Run("to a login", e.testPodVM)
	t.Run("vendor", e.testPodVMVendor)
	t.Run("debug", e.testPodVMDebug)
}

// testPodVM has what the payload brought there, accounted for and started; the
// scratch space is mounted, and encrypted.
func (e *e2e) testPodVM(t *testing.T) {
	e.want(t, exitOK, nil, e.at("build", "--out", e.out)...)
	files, err := os.ReadFile(filepath.Join(e.out, "files.json"))
	must(t, err)
	for _, f := range []string{"/usr/local/bin/kata-agent", "/pause_bundle/config.json", "/usr/libexec/podvm-issue", "/usr/lib/systemd/network/20-wired.network"} {
		if !strings.Contains(string(files), `"`+f+`"`) {
			t.Errorf("files.json has no account of %s", f)
		}
	}
	e.want(t, exitOK, []string{"IDENTICAL"}, append(e.at("verify", filepath.Join(e.out, "podvm.qcow2")), "--out", e.out, "--boot",
		"--wait-for", "login:", "--wait-for", "kata-agent: started in ext4 on caisson-scratch, crypt", "--wait-for", "Detected vTPM PCR values:")...)
}

// testPodVMVendor has the firmware start shim, its fallback, shim again, and the
// vendor's kernel image with our addon: PCRs are as predicted.
func (e *e2e) testPodVMVendor(t *testing.T) {
	out := filepath.Join(e.dir, "vendor")
	e.want(t, exitOK, nil, e.at("build", "--out", out, "--variant", "vendor")...)
	var files []build.File
	readJSON(t, filepath.Join(out, "files.json"), &files)
	vendor := 0
	for _, f := range files {
		if f.Part == "esp" && strings.HasSuffix(strings.ToLower(f.Path), ".efi") && f.Account == build.Vendor {
			vendor++
		}
	}
	if vendor < 3 {
		t.Errorf("%d programs in the ESP are a vendor's, want shim, its fallback and the kernel image", vendor)
	}
	image := filepath.Join(out, "podvm-vendor.qcow2")
	if r := bootsAsPredicted(t, image, "qcow2", "login:", "kata-agent: started in ext4 on caisson-scratch, crypt"); !r {
		t.Error("shim's fallback did not start the machine again")
	}
}

// testPodVMDebug has whoever is at the console be root.
func (e *e2e) testPodVMDebug(t *testing.T) {
	out := filepath.Join(e.dir, "debug")
	e.want(t, exitOK, nil, e.at("build", "--out", out, "--variant", "debug")...)
	qemu := machine(t, filepath.Join(out, "podvm-debug.qcow2"), "qcow2", "stdio")
	in, err := qemu.StdinPipe()
	must(t, err)
	console, err := qemu.StdoutPipe()
	must(t, err)
	must(t, qemu.Start())
	late := time.AfterFunc(15*time.Minute, func() { _ = qemu.Process.Kill() })
	defer func() { late.Stop(); _ = qemu.Process.Kill(); _ = qemu.Wait() }()
	var all bytes.Buffer
	asked := false
	for b := make([]byte, 4096); ; {
		n, err := console.Read(b)
		all.Write(b[:n])
		if err != nil {
			t.Fatalf("%v: the console said\n%s", err, all.Bytes()[max(0, all.Len()-4000):])
		}
		if !asked && bytes.Contains(all.Bytes(), []byte(":~# ")) {
			_, err := io.WriteString(in, "echo \"$(id -un) has $((6*7)), strace $(strace -V | head -c 6)\"\n")
			must(t, err)
			asked = true
		}
		if bytes.Contains(all.Bytes(), []byte("root has 42, strace strace")) {
			return
		}
	}
}

// payloadKey makes a key in a folder, and returns what runs cosign there.
func (e *e2e) payloadKey(t *testing.T, folder string) func(args ...string) {
	t.Helper()
	must(t, os.Mkdir(folder, 0o755))
	cosign := func(args ...string) {
		t.Helper()
		c := exec.Command("cosign", args...)
		c.Dir, c.Env = folder, append(os.Environ(), "COSIGN_PASSWORD=e2e")
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("cosign %s: %v\n%s", args[0], err, out)
		}
	}
	cosign("generate-key-pair", "--output-key-prefix", "payload")
	return cosign
}

// pushPayload pushes an image as the payload's pipeline makes it, with an agent
// that says that it was started, and where its images are to be. It returns the
// digest.
func pushPayload(t *testing.T, ref string) string {
	t.Helper()
	unit := "[Service]\nType=oneshot\nStandardOutput=journal+console\nExecStart=/usr/local/bin/kata-agent\n[Install]\nWantedBy=multi-user.target\n"
	binaries := archiveOf(t, true, []tar.Header{
		{Name: "usr/local/bin/kata-agent", Mode: 0o755}, {Name: "etc/systemd/system/kata-agent.service", Mode: 0o644},
		{Name: "etc/systemd/system/multi-user.target.wants/kata-agent.service", Typeflag: tar.TypeSymlink, Linkname: "../kata-agent.service"},
	}, payloadAgent, unit, "")
	pause := archiveOf(t, true, []tar.Header{{Name: "pause_bundle/config.json", Mode: 0o644}}, "{}\n")
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(archiveOf(t, false, []tar.Header{{Name: "podvm-binaries.tar.gz", Mode: 0o644}, {Name: "pause-bundle.tar.gz", Mode: 0o644}}, binaries, pause))), nil
	})
	must(t, err)
	image, err := mutate.AppendLayers(empty.Image, layer)
	must(t, err)
	config, err := image.ConfigFile()
	must(t, err)
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", "amd64"
	image, err = mutate.ConfigFile(image, config)
	must(t, err)
	to, err := name.ParseReference(ref)
	must(t, err)
	must(t, remote.Write(to, image))
	sum, err := image.Digest()
	must(t, err)
	return sum.String()
}

// payloadAgent stands where images are unpacked: what it says is of the mount,
// and of what is below it.
const payloadAgent = `#!/bin/bash
source=$(findmnt -no SOURCE /run/kata-containers)
echo "kata-agent: started in $(findmnt -no FSTYPE /run/kata-containers) on $(basename "${source%%[*}"), $(dmsetup table caisson-scratch | cut -d' ' -f3)"
`

// archiveOf is an archive of files with these contents.
func archiveOf[T string | []byte](t *testing.T, compress bool, headers []tar.Header, contents ...T) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := range headers {
		headers[i].Size = int64(len(contents[i]))
		must(t, w.WriteHeader(&headers[i]))
		_, err := w.Write([]byte(contents[i]))
		must(t, err)
	}
	must(t, w.Close())
	if !compress {
		return b.Bytes()
	}
	var z bytes.Buffer
	g := gzip.NewWriter(&z)
	_, err := g.Write(b.Bytes())
	must(t, err)
	must(t, g.Close())
	return z.Bytes()
}
