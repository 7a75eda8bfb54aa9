package build

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"caisson/build/image/ocilayout"
	"caisson/build/rootfs"
	"caisson/lock"
	"caisson/lock/tooltest"
)

// archiveLock asks for both archives of the same root as testLock.
func archiveLock() *lock.Lock {
	l := testLock()
	l.Image = lock.Image{Output: []string{lock.OutputTar, lock.OutputOCI}, Container: &lock.Container{
		Entrypoint: []string{"/usr/bin/ping"}, Cmd: []string{"-c", "1"}, Env: map[string]string{"B": "2", "A": "1"}, User: "daemon:34", Workdir: "/tmp",
		Labels: map[string]string{"z": "<&>", "a": "b"},
	}}
	return l
}

// packFixture packs the fixture's root.
func packFixture(dir string, backwards bool) (*archives, error) {
	b, root, err := packedRoot(dir, backwards)
	if err != nil {
		return nil, err
	}
	defer b.log.Close()
	return b.pack(context.Background(), root)
}

func packedRoot(dir string, backwards bool) (*builder, *installed, error) {
	b, err := testBuilder(dir, archiveLock())
	if err != nil {
		return nil, nil, err
	}
	root, _, err := testRoots(b, backwards)
	if err != nil {
		return nil, nil, err
	}
	if err := b.scan(context.Background(), root, rootfs.Rules(false)); err != nil {
		return nil, nil, err
	}
	return b, root, root.addState(true)
}

// TestArchives reads what was packed by the programs that people have.
func TestArchives(t *testing.T) {
	dir := t.TempDir()
	a, err := packFixture(dir, false)
	if err != nil {
		t.Fatal(err)
	}
	if got := []string{a.files[0].Name, a.files[1].Name}; !slices.Equal(got, []string{"small.oci.tar", "small.tar"}) {
		t.Errorf("got %q", got)
	}
	im := a.describe()
	if !im.IsArchive() || im.Manifest == nil || im.Kernel != "" || im.Partitions != nil {
		t.Errorf("got %+v", im)
	}
	f, err := os.Open(filepath.Join(a.work, "small.oci.tar"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	oci, err := ocilayout.Open(f, a.files[0].Size)
	if err != nil {
		t.Fatal(err)
	}
	if err := oci.Check(); err != nil || oci.Digest != im.Manifest.String() {
		t.Errorf("got %s, %v; want %s", oci.Digest, err, im.Manifest)
	}
	if c := oci.Config; c.Created != "2023-11-14T22:13:20Z" || c.Architecture != "amd64" || !slices.Equal(c.Config.Env, []string{"A=1", "B=2"}) || c.Config.User != "daemon:34" {
		t.Errorf("got %+v", c)
	}
	// The layer is the root, as it is in the other archive.
	r, err := oci.Layer(0)
	if err != nil {
		t.Fatal(err)
	}
	layer, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	if plain, err := os.ReadFile(filepath.Join(a.work, "small.tar")); err != nil || string(plain) != string(layer) {
		t.Errorf("the layer has %d bytes, the root %d, and they differ: %v", len(layer), len(plain), err)
	}
	if out, err := exec.Command(tooltest.Find(t, "skopeo"), "inspect", "oci-archive:"+f.Name()+":latest").CombinedOutput(); err != nil || !strings.Contains(string(out), im.Manifest.String()) {
		t.Errorf("skopeo: %v\n%s", err, out)
	}
	gnutar(t, filepath.Join(a.work, "small.tar"))
}

// gnutar reads a root by GNU tar.
func gnutar(t *testing.T, name string) {
	out, err := exec.Command(tooltest.Find(t, "tar"), "--numeric-owner", "--xattrs", "--xattrs-include=*", "--full-time", "--utc", "-tvvf", name).CombinedOutput()
	if err != nil {
		t.Fatalf("tar: %v\n%s", err, out)
	}
	lines := strings.Split(string(out), "\n")
	for _, want := range []string{
		"lrwxrwxrwx  0/0               0 2023-11-14 22:13:20 bin -> usr/bin",
		"hrwsr-xr-x  0/0               0 2023-11-14 22:13:20 usr/bin/umount link to usr/bin/mount",
		"-rwxr-sr-x  12/34             4 2023-11-14 22:13:20 usr/bin/wall",
		"-rwxr-xr-x* 0/0           12000 2023-11-14 22:13:20 usr/bin/ping",
		"crw-rw-rw-  0/0             1,3 2023-11-14 22:13:20 usr/lib/null",
		"d---------  0/0               0 2023-11-14 22:13:20 var/lib/closed/",
		"drwxrwxrwt  12/34             0 2023-11-14 22:13:20 var/lib/spool/",
	} {
		if !slices.Contains(lines, want) {
			t.Errorf("no line %q in\n%s", want, out)
		}
	}
}

// TestArchiveRefuses has roots that a container image cannot be made of.
func TestArchiveRefuses(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(b *builder, root *installed) error
		want   string
	}{
		{"a whiteout", func(_ *builder, root *installed) error { return root.putFile("usr/.wh.x", 0o644, nil) }, "/usr/.wh.x: in a container image"},
		{"nothing", func(_ *builder, root *installed) error { root.tree = rootfs.New(); return nil }, "the root is empty"},
		{"a program that is missing", func(b *builder, _ *installed) error {
			b.image.Container.Entrypoint = []string{"/usr/bin/pong"}
			return nil
		}, "image.container.entrypoint: the root has no program /usr/bin/pong"},
		{"a program that cannot be run", func(b *builder, _ *installed) error {
			b.image.Container.Entrypoint, b.image.Container.Cmd = nil, []string{"/etc/passwd"}
			return nil
		}, "image.container.cmd: the root has no program /etc/passwd"},
		{"a user that is missing", func(b *builder, _ *installed) error { b.image.Container.User = "nobodyknows"; return nil }, `the root's /etc/passwd has no "nobodyknows"`},
		{"a group that is missing", func(b *builder, _ *installed) error { b.image.Container.User = "1:nobodyknows"; return nil }, `the root's /etc/group has no "nobodyknows"`},
		{"an architecture without a name", func(b *builder, _ *installed) error { b.Arch = "pdp11"; return nil }, `the architecture "pdp11" has no name in OCI images`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b, root, err := packedRoot(t.TempDir(), false)
			if err != nil {
				t.Fatal(err)
			}
			defer b.log.Close()
			c := *b.image.Container
			b.image.Container = &c
			if err := tt.change(b, root); err != nil {
				t.Fatal(err)
			}
			if _, err := b.pack(context.Background(), root); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
}

// TestArchiveWithoutPackages makes an archive of overlays alone: nothing is
// run, so nothing but this program is needed.
func TestArchiveWithoutPackages(t *testing.T) {
	d := bare(t)
	base := t.TempDir()
	put(t, filepath.Join(base, "over"), file{path: "etc/motd", mode: 0o644, content: "hello"}, file{path: "bin/x", mode: 0o755, content: "x"})
	d.lock.Image = lock.Image{Output: []string{lock.OutputTar}}
	d.addOverlay(t, base, "over")
	out := t.TempDir()
	img, err := Build(context.Background(), d.options(out))
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"build.log", "evidence.json", "files.json", "small.tar"}; !slices.Equal(names(t, out), want) || img.Manifest != nil {
		t.Errorf("the output folder has %v, want %v", names(t, out), want)
	}
	if ev := readEvidence(t, out); ev.Steps == nil || len(ev.Steps) != 0 || ev.Unused != nil {
		t.Errorf("got %+v", ev)
	}
	f, err := os.Open(filepath.Join(out, "small.tar"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var got []string
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprintf("%s %o", h.Name, h.Mode))
	}
	if want := []string{"bin/ 755", "bin/x 755", "etc/ 755", "etc/motd 644"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	for path, f := range readFiles(t, out) {
		if f.Account != Placed {
			t.Errorf("%s: got %+v", path, f)
		}
	}
}

// packed is the distribution as both archives.
func (d *distro) packed() *distro {
	return d.with(func(d *distro) {
		d.lock.Name = "box"
		d.lock.Sets = slices.DeleteFunc(slices.Clone(d.lock.Sets), func(s lock.Set) bool { return s.Name == lock.SetInitrd })
		d.lock.Inputs = slices.DeleteFunc(d.lock.Inputs, func(in lock.Input) bool { return in.InSet("x86_64", lock.SetInitrd) })
		d.lock.Image = lock.Image{Output: []string{lock.OutputOCI, lock.OutputTar}}
	})
}

// testContainer makes a container image of packages and steps, and runs it.
func testContainer(t *testing.T, d *distro) {
	t.Parallel()
	d = d.packed().with(func(d *distro) {
		d.lock.Steps = []lock.Step{{Run: `install -d $OUT/opt; printf 'step\n' > $OUT/opt/made`}, {Run: `printf 'on root\n' > $ROOT/opt-root; chmod 0600 $ROOT/opt-root`}}
		d.lock.Image = lock.Image{Output: []string{lock.OutputOCI}, Container: &lock.Container{
			Entrypoint: []string{"/bin/bash", "-c"}, Cmd: []string{`exec 2>&1; echo "$HELLO as $UID in $PWD"; read line < /opt/made; echo "$line"; read x < /opt-root`},
			Env: map[string]string{"HELLO": "hi there"}, User: "65532:65532", Workdir: "/opt",
		}}
	})
	out := t.TempDir()
	img, err := Build(context.Background(), d.options(out))
	if err != nil {
		t.Fatal(err)
	}
	files := readFiles(t, out)
	if f := files["root:/opt/made"]; f.Account != Compiled || f.By != "step 1" || img.Totals[Vendor].Files == 0 {
		t.Errorf("got %+v", f)
	}
	if _, ok := files["root:/etc/.updated"]; ok {
		t.Error("it is prepared for systemd, which it has not got")
	}
	said := runContainer(t, filepath.Join(out, img.Files[0].Name))
	if want := "hi there as 65532 in /opt\nstep\n/bin/bash: line 1: /opt-root: Permission denied\n"; said != want {
		t.Errorf("got %q, want %q", said, want)
	}
}

// runContainer unpacks an image by skopeo and tar and starts it as its
// configuration says, without a capability.
func runContainer(t *testing.T, archive string) string {
	t.Helper()
	runc, skopeo := tooltest.Find(t, "runc"), tooltest.Find(t, "skopeo")
	if os.Getuid() != 0 {
		t.Skip("containers are made by root")
	}
	bundle := publicDir(t, "")
	root := filepath.Join(bundle, "rootfs")
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	command := func(name string, args ...string) []byte {
		out, err := exec.Command(name, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
		return out
	}
	command(skopeo, "--insecure-policy", "copy", "--quiet", "oci-archive:"+archive+":latest", "dir:"+filepath.Join(bundle, "dir"))
	var m ocilayout.Manifest
	var c ocilayout.Config
	for _, f := range []struct {
		name string
		v    any
	}{{"manifest.json", &m}, {"", &c}} {
		if f.name == "" {
			f.name = strings.TrimPrefix(m.Config.Digest, "sha256:")
		}
		b, err := os.ReadFile(filepath.Join(bundle, "dir", f.name))
		if err == nil {
			err = json.Unmarshal(b, f.v)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, l := range m.Layers {
		command("tar", "-xzpf", filepath.Join(bundle, "dir", strings.TrimPrefix(l.Digest, "sha256:")), "--xattrs", "--numeric-owner", "-C", root)
	}
	var uid, gid int
	if _, err := fmt.Sscanf(c.Config.User, "%d:%d", &uid, &gid); err != nil {
		t.Fatal(err)
	}
	spec := pod(slices.Concat(c.Config.Entrypoint, c.Config.Cmd), c.Config.Env, nil, bundle, nil)
	process := spec["process"].(map[string]any)
	process["cwd"], process["user"] = c.Config.WorkingDir, map[string]any{"uid": uid, "gid": gid}
	spec["root"] = map[string]any{"path": "rootfs"}
	var mounts []map[string]any
	for _, m := range spec["mounts"].([]map[string]any) {
		if m["destination"] == "/proc" || m["destination"] == "/dev" {
			mounts = append(mounts, m)
		}
	}
	spec["mounts"] = mounts
	b, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(bundle, "config.json"), b, 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(runc, "--root", filepath.Join(bundle, "state"), "run", "--bundle", bundle, fmt.Sprint("caisson-", os.Getpid(), "-", filepath.Base(bundle))).CombinedOutput()
	if err != nil && len(out) == 0 {
		t.Fatalf("runc: %v", err)
	}
	return string(out)
}

// TestGoFromScratch compiles a program by a locked toolchain alone, and makes a
// container image of it: there are no packages, and no tools.
func TestGoFromScratch(t *testing.T) {
	d := bare(t)
	addToolchain(t, d)
	base := t.TempDir()
	put(t, filepath.Join(base, "src"), file{path: "go.mod", mode: 0o644, content: "module hello\n\ngo 1.26\n"},
		file{path: "main.go", mode: 0o644, content: "package main\n\nfunc main() { println(\"hello from scratch\") }\n"})
	d.addOverlay(t, base, "src")
	d.lock.Payloads = []lock.Payload{{Kind: "go", Name: "hello", Source: "src", Toolchain: "go1.26.0"}}
	d.lock.Steps = []lock.Step{{Go: &lock.GoStep{Input: "hello", Package: ".", To: "/hello"}}}
	d.lock.Image = lock.Image{Output: []string{lock.OutputOCI}, Container: &lock.Container{Entrypoint: []string{"/hello"}, User: "65532:65532", Workdir: "/"}}
	out := t.TempDir()
	img, err := Build(context.Background(), d.options(out))
	if err != nil {
		t.Fatal(err)
	}
	files := readFiles(t, out)
	if f := files["root:/hello"]; len(files) != 1 || f.Account != Compiled || f.By != "step 1" || len(f.Inputs) != 2 {
		t.Errorf("got %+v", files)
	}
	if ev := readEvidence(t, out); len(ev.Steps) != 1 || ev.Steps[0].Step != "step 1: go build ." {
		t.Errorf("got %+v", ev.Steps)
	}
	if said := runContainer(t, filepath.Join(out, img.Files[0].Name)); said != "hello from scratch\n" {
		t.Errorf("got %q", said)
	}
}

// addToolchain puts a Go toolchain from the module cache into the store.
func addToolchain(t *testing.T, d *distro) {
	t.Helper()
	const version = "v0.0.1-go1.26.0.linux-amd64"
	cache, err := exec.Command(tooltest.Find(t, "go"), "env", "GOMODCACHE").Output()
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(filepath.Join(strings.TrimSpace(string(cache)), "cache/download/golang.org/toolchain/@v", version+".zip"))
	if err != nil {
		tooltest.Missing(t, "the toolchain is not in the module cache; `go mod download golang.org/toolchain@"+version+"` brings it")
	}
	defer f.Close()
	sum, size, err := d.store.Put(f, [32]byte{})
	if err != nil {
		t.Fatal(err)
	}
	d.lock.Inputs = append(d.lock.Inputs, lock.Input{
		Kind: lock.KindToolchain, Name: "golang.org/toolchain@" + version + ".zip", SHA256: sum, Size: size,
		Go: &lock.Go{Module: "golang.org/toolchain", Version: version}, For: []lock.Use{{Arch: "x86_64", Set: "go:hello", By: "go:hello"}},
	})
}
