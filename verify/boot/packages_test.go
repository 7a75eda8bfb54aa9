package boot

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// chainsDir is the folder that CAISSON_BOOT_CHAINS names, where the packages
// of the tests that boot every chain are kept.
func chainsDir(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("CAISSON_BOOT_CHAINS")
	if dir == "" {
		t.Skip("CAISSON_BOOT_CHAINS names no folder for the packages that boot chains are made of")
	}
	need(t)
	dir, err := filepath.Abs(dir)
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// suites are what the packages are taken from; each has another systemd.
const suites = `deb [signed-by=%[1]s] http://deb.debian.org/debian bookworm main
deb [signed-by=%[1]s] http://deb.debian.org/debian bookworm-backports main
deb [signed-by=%[1]s] http://deb.debian.org/debian trixie main
deb [signed-by=%[1]s] http://deb.debian.org/debian forky main
`

// files are the files of Debian packages, by what the tests call them.
func packageFiles() map[string]string {
	all := map[string]string{
		"kernel":         "linux-image-cloud/boot/vmlinuz-*",
		"busybox":        "busybox-static/bin/busybox",
		"shim":           "shim-unsigned/usr/lib/shim/shimx64.efi",
		"fallback":       "shim-unsigned/usr/lib/shim/fbx64.efi",
		"mokmanager":     "shim-unsigned/usr/lib/shim/mmx64.efi",
		"signed shim":    "shim-signed/usr/lib/shim/shimx64.efi.signed",
		"addon stub 254": "systemd-254/usr/lib/systemd/boot/efi/addonx64.efi.stub",
		"addon stub 257": "systemd-257/usr/lib/systemd/boot/efi/addonx64.efi.stub",
		"addon stub 262": "systemd-262/usr/lib/systemd/boot/efi/addonx64.efi.stub",
	}
	for _, v := range []string{"252", "254", "257", "262"} {
		all["stub "+v] = "systemd-" + v + "/usr/lib/systemd/boot/efi/linuxx64.efi.stub"
		all["loader "+v] = "systemd-" + v + "/usr/lib/systemd/boot/efi/systemd-bootx64.efi"
	}
	return all
}

// packages downloads the packages where they are not there yet, and returns
// the contents of their files.
func packages(t *testing.T) map[string][]byte {
	t.Helper()
	dir := chainsDir(t)
	if _, err := os.Stat(filepath.Join(dir, "complete")); err != nil {
		download(t, dir)
	}
	all := map[string][]byte{}
	for name, pattern := range packageFiles() {
		found, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil || len(found) != 1 {
			t.Fatalf("%s: found %q, %v", pattern, found, err)
		}
		if all[name], err = os.ReadFile(found[0]); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

func download(t *testing.T, dir string) {
	t.Helper()
	for _, sub := range []string{"lists/partial", "archives/partial", "debs"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	sources := filepath.Join(dir, "sources.list")
	if err := os.WriteFile(sources, fmt.Appendf(nil, suites, "/usr/share/keyrings/debian-archive-keyring.gpg"), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(name string, args ...string) string {
		if strings.HasPrefix(name, "apt") {
			args = append([]string{
				"-o", "Dir::Etc::SourceList=" + sources, "-o", "Dir::Etc::SourceParts=/nonexistent",
				"-o", "Dir::State::Lists=" + filepath.Join(dir, "lists"), "-o", "Dir::Cache=" + dir, "-o", "APT::Sandbox::User=root",
			}, args...)
		}
		cmd := exec.Command(name, args...)
		cmd.Dir = filepath.Join(dir, "debs")
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s %q: %v\n%s", name, args, err, out)
		}
		return string(out)
	}
	run("apt-get", "update")
	show := run("apt-cache", "show", "linux-image-cloud-amd64/bookworm")
	_, kernel, _ := strings.Cut(show, "\nDepends: ")
	kernel, _, _ = strings.Cut(kernel, " ")
	for _, p := range []struct{ suite, name, as string }{
		{"bookworm", kernel, "linux-image-cloud"},
		{"bookworm", "busybox-static", "busybox-static"},
		{"bookworm", "shim-unsigned", "shim-unsigned"},
		{"bookworm", "shim-signed", "shim-signed"},
		{"bookworm", "systemd-boot-efi", "systemd-252"},
		{"bookworm-backports", "systemd-boot-efi", "systemd-254"},
		{"trixie", "systemd-boot-efi", "systemd-257"},
		{"forky", "systemd-boot-efi", "systemd-262"},
	} {
		run("apt-get", "download", p.name+"/"+p.suite)
		debs, err := filepath.Glob(filepath.Join(dir, "debs", "*.deb"))
		if err != nil || len(debs) != 1 {
			t.Fatalf("%s: got %q, %v", p.name, debs, err)
		}
		run("dpkg-deb", "-x", debs[0], filepath.Join(dir, p.as))
		if err := os.Remove(debs[0]); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "complete"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
}
