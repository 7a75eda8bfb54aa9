package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"io"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// TestE2EPodVM builds the PodVM's definition on the demo's distribution, with a
// payload image of the test's own, and boots it to a login. What the payload
// brought is there, accounted for and started.
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
	e := &e2e{t: t, bin: bin, repo: repo, dir: scratch(t)}
	e.lock, e.store, e.out = filepath.Join(e.dir, "caisson.lock"), filepath.Join(e.dir, "store"), filepath.Join(e.dir, "out")
	stop := e.makeProject() // of the demo's: its repository and key are wanted
	podvm := filepath.Join(e.dir, "podvm")
	must(t, os.CopyFS(podvm, os.DirFS("../../lockfiles/podvm")))
	server := httptest.NewServer(registry.New())
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	pushPayload(t, host+"/podvm-payload:latest")

	demo, err := os.ReadFile(filepath.Join(e.project, "caisson.yaml"))
	must(t, err)
	_, after, _ := strings.Cut(string(demo), "baseurl: ")
	address, _, _ := strings.Cut(after, "\n")
	manifest := filepath.Join(podvm, "demo.yaml")
	b, err := os.ReadFile(manifest)
	must(t, err)
	text := strings.NewReplacer("http://127.0.0.1:8642/", address, "../../out/repo/RPM-GPG-KEY-debrepo", "../project/KEY", "127.0.0.1:8643", host).Replace(string(b))
	must(t, os.WriteFile(manifest, []byte(text), 0o644))

	e.want(t, exitOK, nil, "lock", "-f", manifest, "-o", e.lock, "--store", e.store)
	e.want(t, exitOK, nil, append(e.at("prefetch"), "--project", podvm)...)
	stop()
	server.Close()
	e.want(t, exitOK, nil, e.at("build", "--out", e.out)...)
	e.want(t, exitOK, nil, e.at("build", "--out", filepath.Join(e.dir, "debug"), "--variant", "debug")...)
	files, err := os.ReadFile(filepath.Join(e.out, "files.json"))
	must(t, err)
	for _, f := range []string{"/usr/local/bin/kata-agent", "/pause_bundle/config.json", "/usr/libexec/podvm-issue"} {
		if !strings.Contains(string(files), `"`+f+`"`) {
			t.Errorf("files.json has no account of %s", f)
		}
	}
	e.want(t, exitOK, []string{"IDENTICAL"}, append(e.at("verify", filepath.Join(e.out, "podvm.qcow2")), "--out", e.out, "--boot",
		"--wait-for", "login:", "--wait-for", "kata-agent: started")...)
}

// pushPayload pushes an image as the payload's pipeline makes it, with an agent
// that says that it was started.
func pushPayload(t *testing.T, ref string) {
	t.Helper()
	unit := "[Service]\nType=oneshot\nStandardOutput=journal+console\nExecStart=/usr/local/bin/kata-agent\n[Install]\nWantedBy=multi-user.target\n"
	binaries := archiveOf(t, true, []tar.Header{
		{Name: "usr/local/bin/kata-agent", Mode: 0o755}, {Name: "etc/systemd/system/kata-agent.service", Mode: 0o644},
		{Name: "etc/systemd/system/multi-user.target.wants/kata-agent.service", Typeflag: tar.TypeSymlink, Linkname: "../kata-agent.service"},
	}, "#!/bin/sh\necho kata-agent: started\n", unit, "")
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
}

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
