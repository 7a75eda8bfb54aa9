package build

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"caisson/lock"
)

// scratchRoot is a root that has what scratch space takes, and more files.
func scratchRoot(t *testing.T, s lock.Scratch, more ...file) (*installed, error) {
	t.Helper()
	b, err := testBuilder(t.TempDir(), testLock())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.log.Close() })
	root, _, err := testRoots(b, false)
	if err != nil {
		t.Fatal(err)
	}
	put(t, root.dir, more...)
	if err := root.ledger.step(byInstallation); err != nil {
		t.Fatal(err)
	}
	b.image.Scratch = &s
	return root, b.readRoot(context.Background(), root)
}

func scratchFiles() []file {
	return []file{
		{path: "usr/bin/systemd-repart", mode: 0o755}, {path: "usr/bin/udevadm", mode: 0o755},
		{path: "usr/sbin/mke2fs", mode: 0o755}, {path: "usr/sbin/mkfs.ext4", mode: os.ModeSymlink, content: "mke2fs"},
		{path: "usr/lib/systemd/systemd-cryptsetup", mode: 0o755},
	}
}

func TestScratch(t *testing.T) {
	s := lock.Scratch{Mount: "/var/lib/pods-1", Size: 1 << 30, Format: lock.ScratchExt4, Encrypt: lock.EncryptKey}
	root, err := scratchRoot(t, s, scratchFiles()...)
	if err != nil {
		t.Fatal(err)
	}
	const units = "usr/lib/systemd/system/"
	for p, want := range map[string]string{
		"usr/lib/caisson/scratch.repart.d/50-scratch.conf": "Type=" + strings.ToLower(scratchType().String()) + "\nLabel=caisson-scratch\nSizeMinBytes=1073741824\nFactoryReset=yes\n",
		units + "caisson-scratch.service": "\nExecStart=/usr/bin/systemd-repart --dry-run=no --factory-reset=yes --seed=random --definitions=/usr/lib/caisson/scratch.repart.d\n" +
			"ExecStart=/usr/bin/udevadm wait --settle --timeout=60 /dev/disk/by-partlabel/caisson-scratch\n" +
			"ExecStart=/usr/lib/systemd/systemd-cryptsetup attach caisson-scratch /dev/disk/by-partlabel/caisson-scratch /dev/urandom plain,cipher=aes-xts-plain64,size=512,headless\n" +
			"ExecStart=/usr/sbin/mkfs.ext4 -q -F /dev/mapper/caisson-scratch\n" +
			"ExecStop=/usr/lib/systemd/systemd-cryptsetup detach caisson-scratch\n",
		units + `dev-mapper-caisson\x2dscratch.device.d/50-caisson.conf`: "Requires=caisson-scratch.service\nJobTimeoutSec=infinity\n",
		units + `var-lib-pods\x2d1.mount`:                                "\nWhat=/dev/mapper/caisson-scratch\nWhere=/var/lib/pods-1\nType=ext4\n",
	} {
		b, err := root.tree.ReadFile(p)
		if err != nil || !strings.Contains(string(b), want) {
			t.Errorf("/%s has\n%s, %v, want\n%s", p, b, err, want)
		}
		if f, err := root.account(root.tree.Get(p)); err != nil || f.Account != Generated || f.By != "settings" {
			t.Errorf("/%s: got %+v, %v", p, f, err)
		}
	}
	if e := root.tree.Resolve(units + `local-fs.target.wants/var-lib-pods\x2d1.mount`); e == nil || e.Path != units+`var-lib-pods\x2d1.mount` {
		t.Errorf("local-fs.target wants %+v", e)
	}
	if e := root.tree.Get("var/lib/pods-1"); e == nil || e.Mode&0o7777 != 0o755 {
		t.Errorf("the folder is %+v", e)
	}
	s.Encrypt, s.Mount = lock.EncryptNo, "/var/lib/spool" // which the root has
	if root, err = scratchRoot(t, s, scratchFiles()[:4]...); err != nil {
		t.Fatal(err)
	}
	service, err := root.tree.ReadFile(units + "caisson-scratch.service")
	if err != nil || strings.Contains(string(service), "mkfs") || strings.Contains(string(service), "cryptsetup") {
		t.Errorf("got %s, %v", service, err)
	}
	if b, err := root.tree.ReadFile("usr/lib/caisson/scratch.repart.d/50-scratch.conf"); err != nil || !strings.Contains(string(b), "\nFormat=ext4\n") {
		t.Errorf("got %s, %v", b, err)
	}
	mount, err := root.tree.ReadFile(units + "var-lib-spool.mount")
	if err != nil || !strings.Contains(string(mount), "What=/dev/disk/by-partlabel/caisson-scratch\n") {
		t.Errorf("got %s, %v", mount, err)
	}
}

func TestScratchFailures(t *testing.T) {
	good := lock.Scratch{Mount: "/var/lib/pods", Size: 1 << 30, Format: lock.ScratchExt4, Encrypt: lock.EncryptKey}
	xfs := good
	xfs.Format = lock.ScratchXFS
	all := scratchFiles()
	for _, tt := range []struct {
		name  string
		s     lock.Scratch
		files []file
		want  string
	}{
		{"no repart", good, all[1:], "image.scratch: the root has no systemd-repart, which makes it at boot"},
		{"no mkfs", good, append(all[:2:2], all[4]), "the root has no mkfs.ext4, which makes it at boot: add the package that has it (e2fsprogs) to the root set"},
		{"another mkfs", xfs, all, "the root has no mkfs.xfs, which makes it at boot: add the package that has it (xfsprogs) to the root set"},
		{"no cryptsetup", good, all[:4], "the root has no systemd-cryptsetup"},
		{"files below it", good, append(all, file{path: "var/lib/pods/a/b", mode: 0o644}), "image.scratch.mount: the root has /var/lib/pods/a/b, which could not be reached behind /var/lib/pods"},
		{"a file in its place", good, append(all, file{path: "var/lib/pods", mode: 0o644}), "image.scratch.mount: /var/lib/pods is no folder in the root"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if _, err := scratchRoot(t, tt.s, tt.files...); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
}

// TestEscapePath compares with systemd's own program.
func TestEscapePath(t *testing.T) {
	for _, p := range []string{"/a", "/var/lib/containers", "/.x/.y", "/a-b/c+d@e", "/dev/mapper/caisson-scratch", filepath.Clean("/A_b/0.9")} {
		if got, want := escapePath(p), strings.TrimSpace(runTool(t, "systemd-escape", "-p", p)); got != want {
			t.Errorf("%s: got %s, want %s", p, got, want)
		}
	}
}
