package build

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"caisson/lock"
	"caisson/lock/digest"
	"caisson/prefetch/cas"
)

// buildIn tells the test binary, started again, to build in that folder and
// to say what came of it.
const buildIn = "CAISSON_TEST_BUILD_IN"

func buildChild() error {
	out := os.Getenv(buildIn)
	umask, err := strconv.ParseInt(os.Getenv("CAISSON_TEST_UMASK"), 8, 32)
	if err != nil {
		return err
	}
	syscall.Umask(int(umask))
	if mb := os.Getenv("CAISSON_TEST_DISK"); mb != "" {
		if err := unix.Mount("tmpfs", out, "tmpfs", 0, "size="+mb+"m"); err != nil {
			return fmt.Errorf("mounting a small disk: %w", err)
		}
	}
	if os.Getenv("CAISSON_TEST_CLOSED") != "" {
		if err := os.Chmod(out, 0o555); err != nil {
			return err
		}
	}
	b, err := os.ReadFile(os.Getenv("CAISSON_TEST_LOCK"))
	if err != nil {
		return err
	}
	var l lock.Lock
	if err := json.Unmarshal(b, &l); err != nil {
		return err
	}
	store, err := cas.Open(os.Getenv("CAISSON_TEST_STORE"))
	if err != nil {
		return err
	}
	begun := ""
	img, err := Build(context.Background(), Options{
		Lock: &l, Store: store, Arch: "x86_64", Out: out, AnySpace: os.Getenv("CAISSON_TEST_ANY_SPACE") != "",
		Events: func(e Event) {
			if e.State == Begun {
				begun = e.Step
			}
		},
	})
	if err != nil {
		fmt.Printf("last begun: %s\nerror: %v\n", begun, err)
		entries, err := os.ReadDir(out)
		fmt.Printf("left: %v\n", entries)
		return err
	}
	for _, f := range img.Files {
		if f.Name != "evidence.json" { // of the sandbox, which knows the machine
			fmt.Println(f.SHA256, f.Name)
		}
	}
	most, err := peakMemory()
	if err != nil {
		return err
	}
	if mb := most >> 10; mb > 500 {
		return fmt.Errorf("the build took %d MB of memory", mb)
	}
	if os.Getenv("CAISSON_TEST_MEMORY") != "" {
		fmt.Printf("%s%d\n", memoryLine, most)
	}
	return nil
}

// memoryLine begins the line in which a child says how much memory it had at
// most, in KiB.
const memoryLine = "memory: "

// peakMemory is the most memory that this program has had, in KiB. Rusage has
// that of the program which started it, too.
func peakMemory() (int64, error) {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(b), "\nVmHWM:")
	kib, _, _ := strings.Cut(rest, "kB")
	return strconv.ParseInt(strings.TrimSpace(kib), 10, 64)
}

// childEnv tells a child what to build; the lock is written to dir.
func (d *distro) childEnv(t testing.TB, dir string) []string {
	t.Helper()
	b, err := json.Marshal(&d.lock)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, "lock")
	if err := os.WriteFile(name, b, 0o644); err != nil {
		t.Fatal(err)
	}
	return []string{"CAISSON_TEST_LOCK=" + name, "CAISSON_TEST_STORE=" + d.store.Dir()}
}

// build builds under the condition and returns what the child said.
func (c condition) build(t *testing.T, d *distro, env ...string) string {
	t.Helper()
	dir := publicDir(t, "")
	vars := d.childEnv(t, dir)
	for p := d.store.Dir(); p != "/tmp" && p != "/" && c.ordinary; p = filepath.Dir(p) { // everybody may enter
		st, err := os.Stat(p)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(p, st.Mode()|0o055); err != nil {
			break
		}
	}
	return c.run(t, buildIn, append(env, vars...)...)
}

// debrepo is the packages of a repository that cmd/debrepo made, chosen as
// caisson lock chooses them.
func debrepo(t *testing.T, repo string) *distro {
	t.Helper()
	d := &distro{}
	var err error
	if d.store, err = cas.Open(filepath.Join(t.TempDir(), "store")); err != nil {
		t.Fatal(err)
	}
	text := `version: 1
name: tiny
arches: [x86_64]
rpm:
  repos: [{id: debrepo, baseurl: "http://repo.invalid/", gpgcheck: false}]
  weakDeps: false
sets:
  tools: {packages: [rpm, bash, coreutils, systemd-boot-efi]}
  initrd: {packages: [filesystem, setup, base-files, bash, coreutils, systemd, udev, kmod], modules: [virtio_blk, dm-verity, erofs]}
  root: {packages: [filesystem, setup, base-files, bash, coreutils, systemd, passwd, libpam-modules, linux-image-cloud-amd64]}
steps:
  - run: install -D -m 0644 /etc/hosts "$OUT/usr/share/tiny/hosts"
image:
  services: {enable: [systemd-networkd.service], mask: [ctrl-alt-del.target, getty@tty1.service]}
  users: [{name: admin, groups: [adm]}, {name: root, password: locked}]
  hostname: tiny
  timezone: UTC
  docs: false
  remove: [/usr/share/bug]
  version: "1"
  kernel: {cmdline: console=ttyS0}
  root: {format: erofs}
  verity: {bind: uki}
  output: [qcow2]
`
	m, err := lock.ParseManifest("caisson.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	fetch := func(_ context.Context, w lock.Want) (lock.Blob, error) {
		f, err := os.Open(filepath.Join(repo, strings.TrimPrefix(w.URL, "http://repo.invalid/")))
		if err != nil {
			return lock.Blob{}, err
		}
		defer f.Close()
		sum, size, err := d.store.Put(f, w.SHA256)
		return lock.Blob{Path: d.store.Path(sum), SHA256: sum, Size: size}, err
	}
	l, err := lock.Resolve(context.Background(), lock.Options{
		Dir: t.TempDir(), Manifest: m, Digest: digest.Of([]byte(text)), Fetch: fetch,
		Fingerprints:   func([]byte) ([]string, error) { return nil, nil },
		CheckSignature: func([][]byte, io.Reader, io.Reader) error { return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	d.lock = *l
	for _, in := range l.Inputs {
		if in.Kind != lock.KindRPM {
			continue
		}
		b, err := os.ReadFile(filepath.Join(repo, in.URL))
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := d.store.Put(bytes.NewReader(b), in.SHA256); err != nil {
			t.Fatal(err)
		}
	}
	return d
}
