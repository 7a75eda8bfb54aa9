// Package lockfiles checks the definitions beside it. Repositories are out of
// reach: that the PodVMs' lock and build is shown for the demo's distribution
// only (cmd/caisson), and that bytes are the same everywhere by small, whose
// packages are made here.
package lockfiles

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"caisson/lock"
	"caisson/lock/rpmmd"
)

// definitions are the PodVM's, by file name.
func definitions(t *testing.T) map[string]*lock.Manifest {
	t.Helper()
	names, err := filepath.Glob("podvm/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]*lock.Manifest{}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		m, err := lock.ParseManifest(name, b)
		if err != nil {
			t.Errorf("%v", err)
			continue
		}
		out[filepath.Base(name)] = m
	}
	if len(out) < 6 {
		t.Fatalf("%d definitions, want the six", len(out))
	}
	return out
}

// Every key is known and every variant valid, and what a definition names is
// there, and what is there is named.
func TestDefinitions(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	used := map[string]bool{}
	for name, m := range definitions(t) {
		if !strings.Contains(string(readme), name) {
			t.Errorf("README.md does not say what %s is", name)
		}
		if _, ok := m.Variants["debug"]; !ok {
			t.Errorf("%s has no variant debug", name)
		}
		if _, ok := m.Variants["vendor"]; !ok {
			t.Errorf("%s has no variant with a vendor's kernel image", name)
		}
		images := []lock.ManifestImage{m.Image}
		for _, v := range m.Variants {
			images = append(images, v.Image)
		}
		var paths []string
		for _, im := range images {
			paths = append(paths, im.Overlay...)
		}
		for _, f := range m.Inputs.Files {
			if !strings.Contains(f.URL, "://") {
				paths = append(paths, f.URL)
			}
		}
		for _, r := range m.RPM.Repos {
			for _, k := range r.GPGKey {
				if !strings.Contains(k, "://") && !strings.HasPrefix(k, "../../out/") { // which `make demo` makes
					paths = append(paths, k)
				}
			}
		}
		for _, p := range paths {
			if _, err := os.Stat(filepath.Join("podvm", p)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			used[strings.SplitN(p, "/", 2)[0]] = true
		}
	}
	entries, err := os.ReadDir("podvm")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.IsDir() && !used[e.Name()] {
			t.Errorf("podvm/%s is in no definition", e.Name())
		}
	}
}

// Shells read the scripts, and systemd the units.
func TestScripts(t *testing.T) {
	for _, name := range []string{"podvm/steps/unpack-payload", "podvm/rootfs/usr/libexec/podvm-issue", "podvm/rootfs-nvidia/usr/libexec/podvm-nvidia"} {
		st, err := os.Stat(name)
		if err != nil || st.Mode()&0o100 == 0 {
			t.Errorf("%s: %v, or it cannot be executed", name, err)
		}
		if out, err := exec.Command("bash", "-n", name).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}

// What is asked for of CentOS Stream and RHEL is in CentOS Stream 9's metadata,
// of 2022 and 2025: kernel-uki-virt came between. NVIDIA's packages are in
// repositories of RHEL's, and in its own.
func TestNames(t *testing.T) {
	const data = "../../shared/data/rpm-md"
	known := map[string]bool{"kernel-uki-virt": true, "redhat-release": true}
	for _, repo := range []string{"c9s-baseos", "c9s-appstream"} {
		files, err := filepath.Glob(filepath.Join(data, repo, "repodata", "*primary.xml*"))
		if err != nil {
			t.Fatal(err)
		}
		if len(files) == 0 {
			t.Skipf("%s is not here", data)
		}
		readNames(t, files[0], known)
	}
	all := definitions(t)
	for _, name := range []string{"centos-stream-9.yaml", "centos-stream-10.yaml", "rhel-9-iso.yaml", "rhel-10.yaml"} {
		m, asked := all[name], 0
		sets := []map[string]lock.ManifestSet{m.Sets}
		for _, v := range m.Variants {
			sets = append(sets, v.Sets)
		}
		for _, s := range sets {
			for set, names := range s {
				for _, n := range names.Packages {
					asked++
					if !strings.HasPrefix(n, "/") && !strings.HasPrefix(n, "nvidia-") && n != "kmod-nvidia-open" && !known[n] {
						t.Errorf("%s, set %s: CentOS Stream 9 has no %s", name, set, n)
					}
				}
			}
		}
		if asked < 30 {
			t.Errorf("%s: %d packages were looked for", name, asked)
		}
	}
}

var packageName = regexp.MustCompile(`<name>([^<]*)</name>`)

func readNames(t *testing.T, file string, to map[string]bool) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := rpmmd.Decompress(f, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range packageName.FindAllSubmatch(b, -1) {
		to[string(n[1])] = true
	}
}

// archive is a tar archive of files, compressed if asked for.
func archive(t *testing.T, compress bool, files ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	var w io.Writer = &b
	z := gzip.NewWriter(&b)
	if compress {
		w = z
	}
	tw := tar.NewWriter(w)
	for i := 0; i < len(files); i += 2 {
		if err := tw.WriteHeader(&tar.Header{Name: files[i], Mode: 0o755, Size: int64(len(files[i+1]))}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(tw, files[i+1]); err != nil {
			t.Fatal(err)
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	if compress {
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

// The payload is found in whichever layer has it.
func TestUnpackPayload(t *testing.T) {
	binaries := string(archive(t, true, "usr/local/bin/kata-agent", "agent", "etc/systemd/system/kata-agent.service", "[Unit]\n"))
	pause := string(archive(t, true, "pause_bundle/config.json", "{}"))
	for _, c := range []struct {
		name   string
		layers [][]byte
		want   string
	}{
		{"two layers", [][]byte{archive(t, false, "podvm-binaries.tar.gz", binaries), archive(t, false, "./pause-bundle.tar.gz", pause)}, ""},
		{"one layer", [][]byte{archive(t, false, "a", "b", "pause-bundle.tar.gz", pause, "podvm-binaries.tar.gz", binaries)}, ""},
		{"no pause", [][]byte{archive(t, false, "podvm-binaries.tar.gz", binaries)}, "pause-bundle.tar.gz: in 0 layers"},
		{"twice", [][]byte{archive(t, false, "podvm-binaries.tar.gz", binaries, "x", "1"), archive(t, false, "podvm-binaries.tar.gz", binaries, "x", "2")}, "podvm-binaries.tar.gz: in 2 layers"},
	} {
		t.Run(c.name, func(t *testing.T) {
			image := empty.Image
			for _, l := range c.layers {
				layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(l)), nil })
				if err != nil {
					t.Fatal(err)
				}
				if image, err = mutate.AppendLayers(image, layer); err != nil {
					t.Fatal(err)
				}
			}
			in, out := t.TempDir(), t.TempDir()
			writeLayout(t, filepath.Join(in, "payload"), image)
			cmd := exec.Command("bash", "podvm/steps/unpack-payload")
			cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "IN=" + in, "OUT=" + out, "TMPDIR=" + t.TempDir()}
			got, err := cmd.CombinedOutput()
			if c.want != "" {
				if err == nil || !strings.Contains(string(got), c.want) {
					t.Fatalf("got %v, %s; want %s", err, got, c.want)
				}
				return
			}
			if err != nil {
				t.Fatalf("%v\n%s", err, got)
			}
			for _, f := range []string{"usr/local/bin/kata-agent", "etc/systemd/system/kata-agent.service", "pause_bundle/config.json"} {
				if _, err := os.Stat(filepath.Join(out, f)); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func writeLayout(t *testing.T, dir string, image v1.Image) {
	t.Helper()
	p, err := layout.Write(dir, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.AppendImage(image); err != nil {
		t.Fatal(err)
	}
}

// The definitions differ where their distributions do, and nowhere else.
func TestAlike(t *testing.T) {
	all := definitions(t)
	first := all["centos-stream-9.yaml"]
	for name, m := range all {
		if m.Image.Root != first.Image.Root || !slices.Equal(m.Image.Output, first.Image.Output) || m.Image.Kernel.Cmdline != first.Image.Kernel.Cmdline ||
			m.Image.Scratch != first.Image.Scratch || len(m.Steps) != 1 || m.Steps[0] != first.Steps[0] ||
			!slices.Equal(m.Image.Remove, first.Image.Remove) || !slices.Equal(m.Sets["initrd"].Modules, first.Sets["initrd"].Modules) {
			t.Errorf("%s: its image is another than that of centos-stream-9.yaml", name)
		}
		for _, v := range []string{"debug", "vendor"} {
			one, other := m.Variants[v].Image, first.Variants[v].Image
			if one.Kernel != other.Kernel || !slices.Equal(one.Overlay, other.Overlay) || one.Boot != other.Boot || one.Verity != other.Verity {
				t.Errorf("%s: its variant %s is another than that of centos-stream-9.yaml", name, v)
			}
		}
	}
}
