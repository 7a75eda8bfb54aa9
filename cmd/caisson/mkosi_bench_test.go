package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"caisson/lock"
)

// beside is the demo, and images of its packages by other means.
type beside struct {
	*testing.B
	dir     string
	demo    string // the folder that `make demo` leaves
	command []string
	lock    *lock.Lock
	mirror  string // serves the demo's packages
}

// BenchmarkBesideMkosi builds images of the demo's packages with Caisson and with
// mkosi, one after the other in turn, each from a full store or cache:
//
//	demo      Caisson: the whole demo, its Go and Rust programs compiled
//	packages  Caisson: an image of the same packages alone
//	rpms      mkosi: of the same RPMs, which dnf installs without scriptlets
//	debs      mkosi: of the Debian packages that the RPMs are made of, which apt installs
//
// All have an EROFS root on dm-verity, an initrd of packages and a UKI. mkosi's
// stay raw; it is left the checks of signatures. It runs no scriptlets of RPMs
// because those in Lua end rpm 4.20, which Debian 13 has, with a panic.
//
// `make demo` makes the demo, or CAISSON_DEMO names such a folder. CAISSON_MKOSI is
// the command that runs mkosi 25, from a folder below /tmp, and dnf for it: "mkosi"
// where they are installed, or on another Debian, as root,
//
//	mmdebstrap --variant=minbase --include=mkosi,systemd-boot-efi,systemd-ukify,systemd-repart,systemd,udev,erofs-utils,mtools,dosfstools,cpio,zstd,kmod,cryptsetup-bin,dnf,rpm,createrepo-c,debian-archive-keyring trixie /var/tmp/mkosi
//	CAISSON_MKOSI="sh $PWD/cmd/caisson/testdata/mkosi/enter /var/tmp/mkosi mkosi"
//
// CAISSON_MKOSI_DEBS names a file of apt's sources from which the Debian packages
// are fetched, once, such as /etc/apt/sources.list.d/debian.sources of a Debian 12.
func BenchmarkBesideMkosi(b *testing.B) {
	s := newBeside(b)
	packages := s.lockPackages()
	rpms := s.project("rpms", "Distribution=mageia\nRelease=1\nRepositoryKeyCheck=no\nLocalMirror="+s.mirror+"\n", "")
	var debs string
	if name := os.Getenv("CAISSON_MKOSI_DEBS"); name != "" {
		sources, err := os.ReadFile(name)
		must(b, err)
		debs = s.project("debs", "Distribution=debian\nRelease=bookworm\n", string(sources), "filesystem", "setup")
	}
	for _, p := range []string{rpms, debs} {
		if p != "" {
			s.mkosi(p, "--cache-only=auto")
		}
	}
	took := map[string]time.Duration{}
	var memory int64
	for b.Loop() {
		for _, p := range []string{rpms, debs} {
			if p == "" {
				continue
			}
			t, m := s.mkosi(p, "--cache-only=always")
			took[filepath.Base(p)] += t
			memory = max(memory, m)
		}
		took["packages"] += s.caisson("build", "--lock", packages, "--store", filepath.Join(s.dir, "store"), "--out", filepath.Join(s.dir, "out"))
		took["demo"] += s.caisson("build", "--lock", filepath.Join(s.demo, "caisson.lock"), "--store", filepath.Join(s.demo, "store"), "--out", filepath.Join(s.dir, "out"))
	}
	for name, t := range took {
		b.ReportMetric(t.Seconds()/float64(b.N), "s/"+name)
	}
	b.ReportMetric(took["packages"].Seconds()/took["rpms"].Seconds(), "x-packages/rpms")
	b.ReportMetric(took["demo"].Seconds()/took["rpms"].Seconds(), "x-demo/rpms")
	if debs != "" {
		b.ReportMetric(took["packages"].Seconds()/took["debs"].Seconds(), "x-packages/debs")
		b.ReportMetric(took["demo"].Seconds()/took["debs"].Seconds(), "x-demo/debs")
	}
	b.ReportMetric(float64(memory)/1e6, "MB-mkosi")
}

func newBeside(b *testing.B) *beside {
	b.Helper()
	s := &beside{B: b, dir: b.TempDir(), demo: os.Getenv("CAISSON_DEMO"), command: strings.Fields(os.Getenv("CAISSON_MKOSI"))}
	if len(s.command) == 0 {
		b.Skip("CAISSON_MKOSI does not name the command that runs mkosi")
	}
	if s.demo == "" {
		s.demo = "../../out/demo"
	}
	var err error
	s.demo, err = filepath.Abs(s.demo)
	must(b, err)
	text, err := os.ReadFile(filepath.Join(s.demo, "caisson.lock"))
	if err != nil {
		b.Skipf("no demo: `make demo` makes it, or CAISSON_DEMO names its folder: %v", err)
	}
	s.lock, err = lock.Parse("caisson.lock", text)
	must(b, err)
	view := filepath.Join(s.dir, "view")
	s.caisson("prefetch", "--lock", filepath.Join(s.demo, "caisson.lock"), "--store", filepath.Join(s.demo, "store"), "--view", "rpm="+view)
	server := httptest.NewServer(http.FileServer(http.Dir(filepath.Join(view, s.lock.Arches[0], s.lock.Repos[0].ID))))
	b.Cleanup(server.Close)
	s.mirror = server.URL + "/"
	return s
}

// caisson runs it, and returns how long that took.
func (s *beside) caisson(args ...string) time.Duration {
	s.Helper()
	c := program(s.B, s.dir, args...)
	began := time.Now()
	if out, err := c.CombinedOutput(); err != nil {
		s.Fatalf("caisson %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return time.Since(began)
}

// packages are those that a set of the demo asks for.
func (s *beside) packages(set string, but ...string) string {
	s.Helper()
	i := slices.IndexFunc(s.lock.Sets, func(x lock.Set) bool { return x.Name == set })
	if i < 0 {
		s.Fatalf("the lock has no set %q", set)
	}
	return strings.Join(slices.DeleteFunc(slices.Clone(s.lock.Sets[i].Packages), func(p string) bool { return slices.Contains(but, p) }), ",")
}

// modules are the kernel modules of the demo's initrd.
func (s *beside) modules() []string {
	i := slices.IndexFunc(s.lock.Sets, func(x lock.Set) bool { return x.Name == lock.SetInitrd })
	return s.lock.Sets[i].Modules
}

// lockPackages locks and fetches the demo without its programs and files.
func (s *beside) lockPackages() string {
	s.Helper()
	manifest := filepath.Join(s.dir, "caisson.yaml")
	must(s.B, os.WriteFile(manifest, fmt.Appendf(nil, `version: 1
name: packages
arches: [%s]
rpm:
  repos: [{id: demo, baseurl: %q, gpgcheck: false}]
  weakDeps: false
sets:
  tools:  {packages: [rpm, bash, coreutils, systemd-boot-efi]}
  initrd: {packages: [%s], modules: [%s]}
  root:   {packages: [%s]}
image:
  kernel: {cmdline: %q}
  root:   {format: erofs}
  verity: {bind: uki}
  output: [qcow2]
`, s.lock.Arches[0], s.mirror, s.packages(lock.SetInitrd), strings.Join(s.modules(), ", "), s.packages(lock.SetRoot), s.lock.Image.Cmdline), 0o644))
	to, store := filepath.Join(s.dir, "caisson.lock"), filepath.Join(s.dir, "store")
	s.caisson("lock", "-f", manifest, "-o", to, "--store", store)
	s.caisson("prefetch", "--lock", to, "--store", store)
	return to
}

// project writes what mkosi makes the image from: an initrd of the demo's packages
// and modules, and a disk with the demo's, but for some. sources are apt's.
func (s *beside) project(name, distribution, sources string, but ...string) string {
	s.Helper()
	var modules strings.Builder
	for _, m := range s.modules() {
		fmt.Fprintf(&modules, "    /%s\\.ko\n", m)
	}
	dir := filepath.Join(s.dir, name)
	for path, text := range map[string]string{
		"mkosi.conf": "[Distribution]\n" + distribution + `
[Output]
Format=disk
ImageId=demo
Seed=0e9a6fe0-68f6-408c-bbeb-136054d20445

[Content]
SourceDateEpoch=0
Bootable=yes
Bootloader=uki
Initrds=%O/initrd
KernelCommandLine=` + s.lock.Image.Cmdline + `
Packages=` + s.packages(lock.SetRoot, but...) + `,systemd-boot-efi
KernelModulesInitrdExclude=.*
KernelModulesInitrdInclude=
` + modules.String(),
		"mkosi.images/initrd/mkosi.conf": "[Output]\nFormat=cpio\n\n[Content]\nBootable=no\nMakeInitrd=yes\nPackages=" + s.packages(lock.SetInitrd, but...) + "\n",
		"mkosi.repart/00-esp.conf":       "[Partition]\nType=esp\nFormat=vfat\nCopyFiles=/boot:/\nCopyFiles=/efi:/\nSizeMinBytes=128M\nSizeMaxBytes=512M\n",
		"mkosi.repart/10-root.conf":      "[Partition]\nType=root\nFormat=erofs\nCopyFiles=/\nVerity=data\nVerityMatchKey=root\nMinimize=best\n",
		"mkosi.repart/20-verity.conf":    "[Partition]\nType=root-verity\nVerity=hash\nVerityMatchKey=root\nMinimize=best\n",
		// Read by dnf alone, and by apt.
		"mkosi.sandbox/etc/dnf/dnf.conf":                     "[main]\ntsflags=noscripts,notriggers\n",
		"mkosi.sandbox/etc/apt/sources.list.d/mkosi.sources": sources,
		"mkosi.sandbox/etc/pki/rpm-gpg/RPM-GPG-KEY-Mageia":   "", // looked for, and not read
	} {
		must(s.B, os.MkdirAll(filepath.Join(dir, filepath.Dir(path)), 0o755))
		must(s.B, os.WriteFile(filepath.Join(dir, path), []byte(text), 0o644))
	}
	return dir
}

// mkosi runs it, and returns how long that took, and how many bytes of memory the
// largest of its processes had.
func (s *beside) mkosi(project string, args ...string) (took time.Duration, memory int64) {
	s.Helper()
	args = slices.Concat(s.command[1:], []string{
		"-C", project, "--package-cache-dir=" + project + ".cache", "--output-dir=" + project + ".out", "--workspace-dir=/var/tmp", "--force",
	}, args, []string{"build"})
	must(s.B, os.MkdirAll(project+".cache", 0o755))
	c := exec.Command(s.command[0], args...)
	c.Env = []string{"HOME=" + s.dir, "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "TERM=dumb", "http_proxy=" + os.Getenv("http_proxy")}
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	began := time.Now()
	out, err := c.CombinedOutput()
	took = time.Since(began)
	if err != nil {
		s.Fatalf("%s: %v\n%s", strings.Join(c.Args, " "), err, out[max(0, len(out)-4000):])
	}
	if usage, ok := c.ProcessState.SysUsage().(*syscall.Rusage); ok {
		memory = usage.Maxrss << 10
	}
	return took, memory
}
