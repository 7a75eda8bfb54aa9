package build

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"caisson/build/rootfs"
	"caisson/lock"
	"caisson/lock/tooltest"
)

const sshKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJqAmLvpJzPtUYVkcHNmKMTi9rSzBwRMkWwFd1v7aGxC admin"

// addOverlay packs a folder into the store and makes it an overlay.
func (d *distro) addOverlay(t *testing.T, base, name string) {
	t.Helper()
	var b bytes.Buffer
	if err := lock.PackInput(&b, base, name); err != nil {
		t.Fatal(err)
	}
	sum, size, err := d.store.Put(&b, [32]byte{})
	if err != nil {
		t.Fatal(err)
	}
	d.lock.Inputs = append(d.lock.Inputs, lock.Input{Kind: lock.KindTree, Name: name, URL: name, SHA256: sum, Size: size})
	d.lock.Image.Overlay = append(slices.Clone(d.lock.Image.Overlay), name)
}

// system is what images have beside the distribution's handful of files.
func system(t *testing.T) string {
	t.Helper()
	tree := t.TempDir()
	put(t, tree,
		file{path: "etc/shadow", mode: 0o400, content: "root:*:19000:0:99999:7:::\ndaemon:*:19000:0:99999:7:::\n"},
		file{path: "etc/gshadow", mode: 0o400, content: "root:*::\ndaemon:*::\n"},
		file{path: "usr/lib/systemd/system/ctrl-alt-del.target", mode: 0o644, content: "[Unit]\n"},
		file{path: "usr/lib/systemd/system/getty@.service", mode: 0o644, content: "[Unit]\n"},
		file{path: "usr/share/zoneinfo/Europe/Berlin", mode: 0o644, content: "TZif"},
		file{path: "usr/share/doc/system/manual", mode: 0o644, content: "marked by rpmbuild"},
		file{path: "usr/share/locale/it/LC_MESSAGES/system.mo", mode: 0o644, content: "unmarked"}, file{path: "usr/share/locale/locale.alias", mode: 0o644},
		file{path: "usr/share/man/man1/system.1", mode: 0o644, content: "marked"},
		file{path: "usr/share/locale/de/LC_MESSAGES/system.mo", mode: 0o644, content: "de"},
		file{path: "usr/share/locale/fr/LC_MESSAGES/system.mo", mode: 0o644, content: "fr"},
		file{path: "usr/share/licenses/system/COPYING", mode: 0o644, content: "licence"},
		file{path: "usr/share/games/chess/board", mode: 0o644, content: "chess"},
		file{path: "etc/a.orig", mode: 0o644, content: "a"}, file{path: "etc/b.orig", mode: 0o644, content: "b"},
		file{path: "usr/lib/locale/de_DE.utf8/LC_CTYPE", mode: 0o644, content: "ctype"},
	)
	return tree
}

func allSettings() *lock.Settings {
	uid, gid := uint32(2000), uint32(500)
	return &lock.Settings{
		Users: []lock.User{
			{Name: "admin", Groups: []string{"wheel", "daemon"}, Password: "$6$salt$hash", SSHKeys: []string{sshKey}},
			{Name: "svc", UID: &uid, GID: &gid, Home: "/var/lib/svc", Shell: "/usr/bin/bash"},
			{Name: "root", SSHKeys: []string{sshKey}, Password: lock.PasswordLocked},
		},
		Groups:   []lock.Group{{Name: "wheel"}, {Name: "plugdev", GID: &gid}},
		Hostname: "pod-vm", Locale: "de_DE.UTF-8", Timezone: "Europe/Berlin",
		Sysctl: map[string]string{"net.ipv4.ip_forward": "1", "kernel.kptr_restrict": "2"}, DenyModules: []string{"usb-storage", "floppy"},
		Remove: []string{"/usr/share/games", "/etc/*.orig"}, NoDocs: true, Version: "1.2.3", OSRelease: map[string]string{"ID": "mine", "VARIANT": `a "b" $c`},
	}
}

// readImage unpacks the root of a built image by the tool that people trust.
func readImage(t *testing.T, out string) string {
	t.Helper()
	dir := t.TempDir()
	raw := filepath.Join(out, "tiny.raw")
	var img struct {
		Start, Size int64
	}
	b, err := os.ReadFile(raw)
	if err != nil {
		t.Fatal(err)
	}
	// The root partition is the second one: GPT entries begin at LBA 2.
	entry := b[1024+128 : 1024+256]
	le := func(b []byte) (n int64) {
		for i := 7; i >= 0; i-- {
			n = n<<8 | int64(b[i])
		}
		return n
	}
	img.Start, img.Size = le(entry[32:])*512, (le(entry[40:])+1)*512
	part := filepath.Join(dir, "root")
	if err := os.WriteFile(part, b[img.Start:img.Size], 0o644); err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(dir, "files")
	if o, err := exec.Command(tooltest.Find(t, "fsck.erofs"), "--extract="+to, part).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, o)
	}
	return to
}

// addSettings gives the distribution a package, an overlay and settings that
// say something of everything.
func (d *distro) addSettings(t *testing.T) {
	t.Helper()
	project := t.TempDir()
	put(t, filepath.Join(project, "rootfs"), file{path: "etc/agent.conf", mode: 0o644, content: "conf"}, file{path: "usr/bin/agent", mode: 0o755, content: "agent"},
		file{path: "var/lib/agent/key", mode: 0o644, content: "key"}, file{path: "lib/agent/plain", mode: 0o644, content: "plain"}, file{path: "etc/agent.link", mode: os.ModeSymlink, content: "agent.conf"})
	owners := "# who reads it\n/etc/agent.conf 0640 root daemon\n/usr/bin/agent 4755 - - cap_net_raw=ep\n/var/lib/agent 0700 admin admin\n/var/lib/agent/* 000 svc 34\n/etc/*.link - 12 -\n/lib 0711 - -\n"
	if err := os.WriteFile(filepath.Join(project, "rootfs.owners"), []byte(owners), 0o644); err != nil {
		t.Fatal(err)
	}
	d.add(t, lock.SetRoot, "system", system(t), `
%files
%attr(0400,root,root) /etc/shadow
%attr(0400,root,root) /etc/gshadow
/etc/*.orig
/usr/lib/*
/usr/share/zoneinfo
/usr/share/games
/usr/share/doc/system
%doc /usr/share/man/man1/system.1
%lang(de) /usr/share/locale/de/LC_MESSAGES/system.mo
%lang(fr) /usr/share/locale/fr/LC_MESSAGES/system.mo
/usr/share/locale/it
/usr/share/locale/locale.alias
%license /usr/share/licenses/system/COPYING
`)
	d.addOverlay(t, project, "rootfs")
	d.lock.Image.Settings = allSettings()
	d.lock.Image.Services.Mask = []string{"ctrl-alt-del.target", "getty@tty1.service", "tmp.mount"}
}

func testSettings(t *testing.T, d *distro) {
	t.Parallel()
	d = d.with(func(d *distro) {
		d.addSettings(t)
		d.lock.Image.Output = []string{"raw"}
	})
	out := t.TempDir()
	img, err := Build(context.Background(), d.options(out))
	if err != nil {
		t.Fatal(err)
	}
	got := readFiles(t, out)
	for path, want := range map[string]string{
		"/etc/agent.conf":                            "100640 0:34 placed overlay",
		"/etc/agent.link":                            "120777 12:0 placed overlay",
		"/usr/bin/agent":                             "104755 0:0 placed overlay",
		"/usr/lib":                                   "40711 0:0 placed overlay",
		"/usr/lib/agent/plain":                       "100644 0:0 placed overlay",
		"/var/lib/agent":                             "40700 1001:1001 placed overlay",
		"/var/lib/agent/key":                         "100000 2000:34 placed overlay",
		"/etc/passwd":                                "100644 0:0 changed settings",
		"/etc/group":                                 "100644 0:0 changed settings",
		"/etc/shadow":                                "100400 0:0 changed settings",
		"/etc/gshadow":                               "100400 0:0 changed settings",
		"/etc/os-release":                            "100644 0:0 changed settings",
		"/etc/hostname":                              "100644 0:0 generated settings",
		"/etc/locale.conf":                           "100644 0:0 generated settings",
		"/etc/localtime":                             "120777 0:0 generated settings",
		"/etc/sysctl.d":                              "40755 0:0 generated settings",
		"/etc/sysctl.d/90-caisson.conf":              "100644 0:0 generated settings",
		"/etc/modprobe.d/90-caisson.conf":            "100644 0:0 generated settings",
		"/etc/systemd/system/tmp.mount":              "120777 0:0 generated settings",
		"/home/admin":                                "40700 1001:1001 generated settings",
		"/home/admin/.ssh":                           "40700 1001:1001 generated settings",
		"/home/admin/.ssh/authorized_keys":           "100600 1001:1001 generated settings",
		"/root/.ssh/authorized_keys":                 "100600 0:0 generated settings",
		"/var/lib/svc":                               "40700 2000:500 generated settings",
		"/etc/machine-id":                            "100444 0:0 generated normalise",
		"/usr/share/licenses/system/COPYING":         "100644 0:0 vendor ",
		"/usr/share/locale/de/LC_MESSAGES/system.mo": "100644 0:0 vendor ",
	} {
		f := got["root:"+path]
		if line := fmt.Sprintf("%o %d:%d %s %s", f.Mode, f.UID, f.GID, f.Account, f.By); line != want {
			t.Errorf("%s: got %q, want %q", path, line, want)
		}
	}
	for _, gone := range []string{"/usr/share/games", "/etc/a.orig", "/etc/b.orig", "/usr/share/doc/system/manual", "/usr/share/man/man1/system.1", "/usr/share/locale/fr/LC_MESSAGES/system.mo", "/usr/share/locale/it"} {
		if _, ok := got["root:"+gone]; ok {
			t.Errorf("%s is in the image", gone)
		}
	}
	if want := (Total{Files: 4, Bytes: int64(len("chess" + "a" + "b" + "unmarked"))}); img.Removed == nil || *img.Removed != want {
		t.Errorf("removed: got %+v, want %+v", img.Removed, want)
	}
	log, err := os.ReadFile(filepath.Join(out, "build.log"))
	if err != nil || !strings.Contains(string(log), "/usr/share/games/chess/board: removed (vendor rpm/system-1-1.x86_64)\n") {
		t.Errorf("the log does not say what was removed: %v\n%s", err, log)
	}
	testSettingsContent(t, out)
}

// testSettingsContent reads the image that testSettings built.
func testSettingsContent(t *testing.T, out string) {
	root := readImage(t, out)
	for name, want := range map[string]string{
		"etc/passwd":   "root:x:0:0::/root:/bin/sh\ndaemon:x:12:34::/:/bin/false\nadmin:x:1001:1001::/home/admin:/bin/bash\nsvc:x:2000:500::/var/lib/svc:/usr/bin/bash\n",
		"etc/group":    "root:x:0:\ndaemon:x:34:admin\nwheel:x:1000:admin\nplugdev:x:500:\nadmin:x:1001:\n",
		"etc/shadow":   "root:!*:19675:0:99999:7:::\ndaemon:*:19000:0:99999:7:::\nadmin:$6$salt$hash:19675::::::\nsvc:!*:19675::::::\n",
		"etc/gshadow":  "root:*::\ndaemon:*::admin\nwheel:!*::admin\nplugdev:!*::\nadmin:!*::\n",
		"etc/hostname": "pod-vm\n", "etc/locale.conf": "LANG=de_DE.UTF-8\n",
		"etc/sysctl.d/90-caisson.conf":   "kernel.kptr_restrict = 2\nnet.ipv4.ip_forward = 1\n",
		"etc/modprobe.d/90-caisson.conf": "blacklist floppy\ninstall floppy /bin/false\nblacklist usb-storage\ninstall usb-storage /bin/false\n",
		"etc/os-release":                 "ID=\"mine\"\nVERSION_ID=1\nIMAGE_ID=\"tiny\"\nIMAGE_VERSION=\"1.2.3\"\nVARIANT=\"a \\\"b\\\" \\$c\"\n",
		"root/.ssh/authorized_keys":      sshKey + "\n",
		"etc/machine-id":                 "",
	} {
		if b, err := os.ReadFile(filepath.Join(root, name)); err != nil || string(b) != want {
			t.Errorf("/%s: got %v %q, want %q", name, err, b, want)
		}
	}
	for name, want := range map[string]string{
		"etc/localtime": "../usr/share/zoneinfo/Europe/Berlin", "etc/systemd/system/getty@tty1.service": "/dev/null", "etc/systemd/system/tmp.mount": "/dev/null",
	} {
		if got, err := os.Readlink(filepath.Join(root, name)); err != nil || got != want {
			t.Errorf("/%s: got %q, %v, want %q", name, got, err, want)
		}
	}
	// What rpm itself left out its database does not miss.
	verify, _ := exec.Command(tooltest.Find(t, "rpm"), "--root", root, "--dbpath", "/usr/lib/sysimage/rpm", "-V", "--nodeps", "--nouser", "--nogroup", "--nomtime", "--nomode", "--nocaps", "--noscripts", "system").CombinedOutput()
	if s := string(verify); strings.Contains(s, "man1/system.1") || strings.Contains(s, "fr/LC_MESSAGES") || !strings.Contains(s, "chess/board") {
		t.Errorf("rpm --verify says\n%s", s)
	}
}

// TestGive gives an entry what an owners file says of it.
func TestGive(t *testing.T) {
	users, groups := map[string]uint32{"root": 0, "svc": 12}, map[string]uint32{"root": 0, "wheel": 10}
	caps := map[string]string{lock.CapabilityRecord: "12345678901234567890"}
	for _, tt := range []struct {
		h    tar.Header
		want string
	}{
		{tar.Header{Typeflag: tar.TypeReg, Mode: 0o4750, Uname: "svc", Gid: 7, PAXRecords: caps}, "104750 12:7 12345678901234567890"},
		{tar.Header{Typeflag: tar.TypeReg, Uid: 1<<32 - 2, Gname: "wheel"}, "100000 4294967294:10 "},
		{tar.Header{Typeflag: tar.TypeDir, Mode: 0o755, Gname: "wheel", PAXRecords: map[string]string{lock.KeepRecord: "mode owner"}}, "100644 1:10 "},
		{tar.Header{Typeflag: tar.TypeReg, Uname: "nobody"}, `the root has no user "nobody"`},
		{tar.Header{Typeflag: tar.TypeReg, Gname: "svc"}, `the root has no group "svc"`},
	} {
		e := &rootfs.Entry{Mode: unix.S_IFREG | 0o644, UID: 1, GID: 1, Xattrs: map[string][]byte{"security.capability": []byte("old")}}
		err := give(e, &tt.h, users, groups)
		got := fmt.Sprintf("%o %d:%d %s", e.Mode, e.UID, e.GID, e.Xattrs["security.capability"])
		if err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}

// TestSettingsFailures has settings that the root does not answer.
func TestSettingsFailures(t *testing.T) {
	uid := uint32(12)
	for _, c := range []struct {
		name   string
		change func(l *lock.Image)
		shadow string
		want   string
	}{
		{"a path that is not there", func(l *lock.Image) { l.Settings.Remove = []string{"/usr/share/chess*"} }, "", "/usr/share/chess* matches nothing"},
		{"a uid that is taken", func(l *lock.Image) { l.Settings.Users = []lock.User{{Name: "a", UID: &uid}} }, "", "image.users: a: uid 12 is that of daemon"},
		{"another uid", func(l *lock.Image) { l.Settings.Users = []lock.User{{Name: "root", UID: &uid}} }, "", "has uid 0 in the root; got 12"},
		{"a group that is missing", func(l *lock.Image) { l.Settings.Users = []lock.User{{Name: "a", Groups: []string{"b"}}} }, "", "no group b"},
		{"a shell that is missing", func(l *lock.Image) { l.Settings.Users = []lock.User{{Name: "a", Shell: "/bin/zsh"}} }, "", "no /bin/zsh"},
		{"a gid that is taken", func(l *lock.Image) { g := uint32(34); l.Settings.Groups = []lock.Group{{Name: "g", GID: &g}} }, "", "that of group daemon"},
		{"a time zone that is missing", func(l *lock.Image) { l.Settings.Timezone = "Europe/Atlantis" }, "", "no /usr/share/zoneinfo/Europe/Atlantis"},
		{"a locale that is missing", func(l *lock.Image) { l.Settings.Locale = "eo.UTF-8" }, "", "no files of eo.UTF-8"},
		{"a unit that is missing", func(l *lock.Image) { l.Services.Mask = []string{"nobody.service"} }, "", "no unit nobody.service"},
		{"an empty password", func(l *lock.Image) {}, "root:*:1::::::\nother::1::::::\n", "/etc/shadow: other has an empty password"},
		{"a password of root's", func(l *lock.Image) {}, "root:$6$a$b:1::::::\n", "the packages give root a password"},
		{"a table that is none", func(l *lock.Image) { l.Settings.Users = []lock.User{{Name: "a"}} }, "root:*:1:\n", "/etc/shadow:1: 4 fields; want 9"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b, err := testBuilder(t.TempDir(), testLock())
			if err != nil {
				t.Fatal(err)
			}
			defer b.log.Close()
			root, _, err := testRoots(b, false)
			if err != nil {
				t.Fatal(err)
			}
			if c.shadow != "" {
				name := filepath.Join(root.dir, "etc/shadow")
				if err := os.WriteFile(name, []byte(c.shadow), 0o400); err != nil && os.Chmod(name, 0o600) != nil {
					t.Fatal(err)
				}
			}
			b.image.Settings = &lock.Settings{}
			c.change(&b.image)
			err = b.readRoot(context.Background(), root)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
		})
	}
}

// testScriptless installs a set without its scriptlets.
func testScriptless(t *testing.T, d *distro) {
	t.Parallel()
	tree := t.TempDir()
	put(t, tree, file{path: "opt/noisy/file", mode: 0o644, content: "noisy"})
	d = d.with(func(d *distro) {
		d.add(t, lock.SetRoot, "noisy", tree, `
%pretrans -p <lua>
error("pretrans ran")
%pre
exit 1
%post -p /usr/bin/bash
exit 1
%preun
exit 1
%posttrans
exit 1
%triggerin -- base, absent
exit 1
%triggerin -- absent
exit 1
%triggerun -- base
exit 1
%triggerprein -p <lua> -- base
error("triggerprein ran")
%filetriggerin -- /opt/noisy /srv
exit 1
%filetriggerin -- /srv
exit 1
%transfiletriggerin -p <lua> -- /usr/bin
error("transfiletriggerin ran")
%transfiletriggerun -- /usr/bin
exit 1
%files
%dir /opt/noisy
%attr(-,svc,root) /opt/noisy/file
`)
		d.lock.Sets = slices.Clone(d.lock.Sets)
		d.lock.Sets[1].Scriptlets = lock.ScriptletsSkip
		d.lock.Image.Settings = &lock.Settings{Users: []lock.User{{Name: "svc"}}}
	})
	out := t.TempDir()
	img, err := Build(context.Background(), d.options(out))
	if err != nil {
		t.Fatal(err)
	}
	ev := readEvidence(t, out)
	s := func(kind, program string, on ...string) SkippedScript {
		return SkippedScript{Set: lock.SetRoot, Package: "noisy-1-1.x86_64", Kind: kind, Program: program, On: on}
	}
	want := []SkippedScript{
		s("pretrans", "<lua>"), s("pre", "/bin/sh"), s("post", "/usr/bin/bash"), s("posttrans", "/bin/sh"),
		s("triggerin", "/bin/sh", "base"), s("triggerprein", "<lua>", "base"),
		s("filetriggerin", "/bin/sh", "/opt/noisy"), s("transfiletriggerin", "<lua>", "/usr/bin"),
	}
	if !reflect.DeepEqual(ev.Skipped, want) {
		t.Errorf("got\n%+v\nwant\n%+v", ev.Skipped, want)
	}
	if !maps.Equal(img.SkippedScriptlets, map[string]int{lock.SetRoot: len(want)}) {
		t.Errorf("got %v", img.SkippedScriptlets)
	}
	if f := readFiles(t, out)["root:/opt/noisy/file"]; f.UID != 1000 || f.Account != Vendor {
		t.Errorf("a file of a user that the manifest adds: %+v", f)
	}
}

func TestLanguages(t *testing.T) {
	for locale, want := range map[string]string{"": "C", "C.UTF-8": "C C.UTF-8", "de_DE.UTF-8@euro": "C de_DE.UTF-8@euro de_DE.UTF-8 de_DE de"} {
		if got := strings.Join(languages(locale), " "); got != want {
			t.Errorf("%q: got %q, want %q", locale, got, want)
		}
	}
}

// TestEditLeavesLinks changes a file that a link leads to and that has
// another name.
func TestEditLeavesLinks(t *testing.T) {
	i := newInstalled(lock.SetRoot, t.TempDir())
	i.tree = rootfs.New()
	i.tree.PutFile("usr/lib/os-release", 0o640, []byte("ID=a\nID=b"))
	i.tree.Put(&rootfs.Entry{Path: "usr/lib/same", Mode: unix.S_IFREG | 0o640, HardLink: "usr/lib/os-release"})
	i.tree.PutLink("etc/os-release", "../usr/lib/os-release")
	if err := i.edit("etc/os-release", func(b []byte) ([]byte, error) {
		return []byte(setRelease(string(b), map[string]string{"ID": "c"})), nil
	}); err != nil {
		t.Fatal(err)
	}
	for p, want := range map[string]string{"etc/os-release": "ID=\"c\"\n", "usr/lib/same": "ID=a\nID=b"} {
		if b, err := i.tree.ReadFile(p); err != nil || string(b) != want {
			t.Errorf("%s: got %q, %v, want %q", p, b, err, want)
		}
	}
	if e := i.tree.Get("usr/lib/os-release"); e.Mode&0o7777 != 0o640 || i.ledger.by[e.Path].by != "settings" {
		t.Errorf("got %+v", e)
	}
}
