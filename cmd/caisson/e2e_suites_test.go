package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"caisson/build/image/gpt"
	"caisson/verify"
	"caisson/verify/boot"
	"caisson/verify/measure"
)

// suiteMarker is what the machine writes to its scratch space, many times.
const suiteMarker = "what nobody else may read"

// suiteManifest is an image with scratch space, of a distribution whose
// systemd is in one package, or in several.
const suiteManifest = `version: 1
name: suite
arches: [x86_64]
rpm:
  repos:
    - {id: debrepo, baseurl: "http://ADDRESS/", gpgkey: [KEY], repo_gpgcheck: true}
  weakDeps: false
sets:
  tools: {packages: [rpm, bash, coreutils, systemd-boot-efi]}
  initrd:
    packages: [filesystem, setup, base-files, bash, coreutils, util-linux, mount, systemd, udev, kmod, dmsetupINITRD]
    modules: [virtio_pci, virtio_blk, dm-verity, dm-mod, erofs, overlay]
  root:
    packages: [filesystem, setup, base-files, bash, coreutils, util-linux, mount, login, passwd, systemd, systemd-sysv, udev, dbus, kmod,
               libpam-runtime, libpam-modules, cryptsetup-bin, dmsetup, linux-image-cloud-amd64, grep, sed, e2fsprogsROOT]
image:
  overlay: [rootfs]
  services: {enable: [marker.service]}
  kernel: {cmdline: console=ttyS0 systemd.volatile=overlay systemd.verity_root_options=panic-on-corruption panic=-1}
  verity: {tree: TREE}
  scratch: {mount: /scratch, size: 512MiB}
  disk: {size: 2GiB}
  output: [raw]
`

const suiteUnit = `[Unit]
Description=Writes to the scratch space
RequiresMountsFor=/scratch
[Service]
Type=oneshot
ExecStart=/bin/bash /usr/local/lib/marker
StandardOutput=journal+console
[Install]
WantedBy=multi-user.target
`

const suiteScript = `for i in {1..20000}; do echo "` + suiteMarker + ` $i"; done > /scratch/file
sync
dmsetup table caisson-scratch
echo "marker: $(grep -c ' /scratch ext4 ' /proc/mounts) mount, $(wc -l < /scratch/file) lines"
`

// TestE2ESuites builds and boots an image of each Debian release that
// CAISSON_SUITES names, of the repositories beside CAISSON_DEBREPO, and of that
// itself: the measurements are as predicted, and nothing of what was written to
// the scratch space can be read on the disk.
func TestE2ESuites(t *testing.T) {
	repo := os.Getenv("CAISSON_DEBREPO")
	if os.Getenv("CAISSON_E2E") == "" || repo == "" {
		t.Skip("images of several releases are built by `make e2e`")
	}
	bin, err := filepath.Abs("../../bin")
	must(t, err)
	for _, suite := range append([]string{""}, strings.Fields(os.Getenv("CAISSON_SUITES"))...) {
		name, r := "the machine's own", repo
		if suite != "" {
			name, r = suite, repo+"-"+suite
		}
		t.Run(name, func(t *testing.T) {
			e := &e2e{t: t, bin: bin, repo: r, dir: scratch(t)}
			e.lock, e.store, e.out = filepath.Join(e.dir, "caisson.lock"), filepath.Join(e.dir, "store"), filepath.Join(e.dir, "out")
			image := e.buildSuite(t, suite != "")
			if suite != "" {
				bootsAsPredicted(t, image, "raw", "login:")
			}
			readsScratch(t, image)
		})
	}
}

// buildSuite builds the image, and returns its name.
func (e *e2e) buildSuite(t *testing.T, split bool) string {
	e.project = filepath.Join(e.dir, "project")
	for name, text := range map[string]string{
		"usr/lib/systemd/system/marker.service": suiteUnit, "usr/local/lib/marker": suiteScript,
	} {
		name = filepath.Join(e.project, "rootfs", name)
		must(t, os.MkdirAll(filepath.Dir(name), 0o755))
		must(t, os.WriteFile(name, []byte(text), 0o644))
	}
	address, stop := e.serve()
	key, err := os.ReadFile(filepath.Join(e.repo, "RPM-GPG-KEY-debrepo"))
	must(t, err)
	must(t, os.WriteFile(filepath.Join(e.project, "KEY"), key, 0o644))
	values := []string{"ADDRESS", address, "INITRD", "", "ROOT", "", "TREE", "partition"}
	if split { // systemd 254 or later
		values = []string{"ADDRESS", address, "INITRD", ", systemd-cryptsetup", "ROOT", ", systemd-cryptsetup, systemd-repart", "TREE", "appended"}
	}
	manifest := filepath.Join(e.project, "caisson.yaml")
	must(t, os.WriteFile(manifest, []byte(strings.NewReplacer(values...).Replace(suiteManifest)), 0o644))
	e.want(t, exitOK, nil, "lock", "-f", manifest, "-o", e.lock, "--store", e.store)
	e.want(t, exitOK, nil, append(e.at("prefetch"), "--project", e.project)...)
	stop()
	e.want(t, exitOK, nil, append(e.at("build"), "--out", e.out)...)
	return filepath.Join(e.out, "suite.raw")
}

// bootsAsPredicted boots the image until the console has shown all that is
// waited for, and compares what was measured. It tells whether the machine was
// to be started twice.
func bootsAsPredicted(t *testing.T, image, format string, wait ...string) bool {
	t.Helper()
	disk, err := verify.OpenDisk(image)
	must(t, err)
	defer disk.Close()
	predicted, err := measure.Disk(disk, disk.Size)
	must(t, err)
	o := boot.Options{Disk: image, Format: format, Timeout: 15 * time.Minute, Resets: predicted.Resets}
	for _, w := range wait {
		o.WaitFor = append(o.WaitFor, regexp.MustCompile(w))
	}
	r, err := boot.Run(t.Context(), o)
	must(t, err)
	t.Logf("booted in %v, attempt %d: %s", r.Time, r.Attempts, predicted.Stub)
	for _, bank := range measure.Banks() {
		if len(r.Banks[bank].Takeover) == 0 {
			t.Errorf("%s: nothing was measured", bank)
		}
		for _, m := range measure.CompareBank(predicted, bank, r.Banks[bank].Takeover) {
			t.Errorf("%s: %v", bank, m)
		}
	}
	return predicted.Resets
}

// readsScratch boots the image, which is changed, until it has written to its
// scratch space, and reads that space off the disk.
func readsScratch(t *testing.T, image string) {
	t.Helper()
	log := filepath.Join(t.TempDir(), "console")
	qemu := machine(t, image, "raw", "file:"+log)
	must(t, qemu.Start())
	end := func() { _ = qemu.Process.Kill(); _ = qemu.Wait() }
	text := ""
	for until := time.Now().Add(15 * time.Minute); time.Now().Before(until) && !strings.Contains(text, "marker: "); time.Sleep(time.Second) {
		b, err := os.ReadFile(log)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			end()
			t.Fatal(err)
		}
		text = string(b)
	}
	end()
	if !strings.Contains(text, "marker: 1 mount, 20000 lines") || !strings.Contains(text, " crypt aes-xts-plain64 ") {
		t.Fatalf("the scratch space was not mounted or not encrypted:\n%s", text[max(0, len(text)-4000):])
	}
	disk, err := os.Open(image)
	must(t, err)
	defer disk.Close()
	info, err := disk.Stat()
	must(t, err)
	table, err := gpt.Read(disk, info.Size())
	must(t, err)
	for _, p := range table.Partitions {
		if p.Name == "caisson-scratch" {
			must(t, unreadable(io.NewSectionReader(disk, p.Start(), p.Size())))
			return
		}
	}
	t.Error("there is no scratch partition")
}

// machine starts an image, which may be changed, with the console at serial.
func machine(t *testing.T, image, format, serial string) *exec.Cmd {
	t.Helper()
	vars := filepath.Join(t.TempDir(), "vars")
	b, err := os.ReadFile("/usr/share/OVMF/OVMF_VARS_4M.fd")
	must(t, err)
	must(t, os.WriteFile(vars, b, 0o600))
	qemu := exec.Command("qemu-system-x86_64", "-machine", "q35,accel=tcg,smm=off", "-no-reboot", "-nodefaults", "-display", "none", "-nic", "none",
		"-cpu", "max,cx16=off", "-smp", "2", "-m", "1024", "-monitor", "none", "-serial", serial, // see package boot for the processor
		"-drive", "if=pflash,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd", "-drive", "if=pflash,format=raw,file="+vars,
		"-drive", "if=none,id=disk,format="+format+",file="+image, "-device", "virtio-blk-pci,drive=disk,bootindex=1")
	qemu.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return qemu
}

// unreadable is the error where a partition has the marker, or says what it is,
// or has next to nothing.
func unreadable(r io.Reader) error {
	var tail []byte
	written := 0
	for {
		b := make([]byte, 1<<20)
		n, err := io.ReadFull(r, b)
		if b = b[:n]; len(bytes.Trim(b, "\x00")) > 0 {
			written += n
		}
		b = append(tail, b...)
		for _, s := range []string{suiteMarker, "LUKS\xba\xbe", "SKUL\xba\xbe"} {
			if bytes.Contains(b, []byte(s)) {
				return fmt.Errorf("the scratch partition has %q", s)
			}
		}
		tail = b[max(0, len(b)-64):]
		switch {
		case err == nil:
		case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
			if written < 2<<20 {
				return fmt.Errorf("the scratch partition has %d bytes", written)
			}
			return nil
		default:
			return err
		}
	}
}
