package main

import (
	"archive/tar"
	"context"
	"embed"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"caisson/cmd/debrepo/rpmwrite"
)

// The packages that Debian has no counterpart of: filesystem is the directories and the merged /usr, setup is the files that maintainer scripts
// of base-passwd, base-files, libpam-runtime and others write. Every package requires setup before it is unpacked, so that named owners exist.

type attributes struct {
	mode         uint32
	owner, group string
}

// overrides are the attributes that maintainer scripts set.
var overrides = map[string]attributes{
	"/usr/lib/dbus-1.0/dbus-daemon-launch-helper": {0o4754, "root", "messagebus"},
}

// The directories of the filesystem package: 0755 root:root, or as listed here.
var (
	filesystemDirs = strings.Fields(`
		/boot /dev /etc /etc/default /etc/opt /etc/pam.d /etc/profile.d /etc/skel /home /media /mnt /opt /proc /root /run /run/lock /srv /sys /sysroot /tmp
		/usr /usr/bin /usr/games /usr/include /usr/lib /usr/lib64 /usr/lib/modules /usr/libexec /usr/sbin /usr/share /usr/share/doc /usr/share/info
		/usr/share/man /usr/share/man/man1 /usr/share/man/man2 /usr/share/man/man3 /usr/share/man/man4 /usr/share/man/man5 /usr/share/man/man6
		/usr/share/man/man7 /usr/share/man/man8 /usr/share/misc /usr/src
		/usr/local /usr/local/bin /usr/local/etc /usr/local/games /usr/local/include /usr/local/lib /usr/local/sbin /usr/local/share /usr/local/share/man /usr/local/src
		/var /var/cache /var/lib /var/log /var/opt /var/spool /var/tmp`)
	filesystemModes = map[string]attributes{
		"/proc":     {0o555, "root", "root"},
		"/sys":      {0o555, "root", "root"},
		"/root":     {0o700, "root", "root"},
		"/run/lock": {0o1777, "root", "root"},
		"/tmp":      {0o1777, "root", "root"},
		"/var/tmp":  {0o1777, "root", "root"},
	}
	filesystemLinks = map[string]string{
		"/bin": "usr/bin", "/sbin": "usr/sbin", "/lib": "usr/lib", "/lib64": "usr/lib64",
		"/usr/local/man": "share/man",
		"/var/run":       "../run", "/var/lock": "../run/lock",
	}
	// Where a build mounts things: these are made by a scriptlet if need be, as unpacking them over a mount would fail.
	mountPoints = []string{"/dev", "/proc", "/sys"}
)

// filesystemHas says whether the filesystem package has the path, so that no other needs to.
func filesystemHas(p string) bool {
	_, link := filesystemLinks[p]
	return link || slices.Contains(filesystemDirs, p)
}

// setupFiles are the files of setup that are the same everywhere.
//
//go:embed all:setup
var setupFiles embed.FS

// ownPackages makes filesystem and setup out of the two .debs that have the originals.
func ownPackages(ctx context.Context, basePasswd, baseFiles string) ([]*rpmwrite.Package, error) {
	originals := map[string][]byte{}
	newest := time.Time{}
	for _, deb := range []string{basePasswd, baseFiles} {
		err := debTar(ctx, "--fsys-tarfile", deb, func(h *tar.Header, r io.Reader) error {
			if h.ModTime.After(newest) {
				newest = h.ModTime
			}
			p := rpmPath(h.Name)
			if h.Typeflag != tar.TypeReg || !strings.HasPrefix(p, "/usr/share/base-") || h.Size > maxControl {
				return nil
			}
			b, err := io.ReadAll(r)
			originals[p] = b
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	base, err := readControl(ctx, baseFiles)
	if err != nil {
		return nil, err
	}
	v, err := parseVersion(base.fields["Version"])
	if err != nil {
		return nil, err
	}
	newest = newest.UTC().Truncate(time.Second)
	template := rpmwrite.Package{
		Epoch: v.epoch, Version: v.version, Release: strconv.Itoa(converterVersion), Arch: "noarch", BuildTime: newest,
		Vendor: "Debian", BuildHost: "debian", Group: "Debian/admin", License: "GPL-2.0-or-later AND Apache-2.0",
	}
	fsys, err := filesystemPackage(template)
	if err != nil {
		return nil, err
	}
	setup, err := setupPackage(template, originals)
	if err != nil {
		return nil, err
	}
	return []*rpmwrite.Package{fsys, setup}, nil
}

func named(p rpmwrite.Package, name, summary string) *rpmwrite.Package {
	p.Name, p.Summary, p.Description = name, summary, summary+"."
	p.SourceRPM = fmt.Sprintf("%s-%s-%s.src.rpm", name, p.Version, p.Release)
	p.Provides = []rpmwrite.Dep{{Name: name, Sense: rpmwrite.Equal, EVR: p.EVR()}}
	return &p
}

func filesystemPackage(template rpmwrite.Package) (*rpmwrite.Package, error) {
	p := named(template, "filesystem", "The directories of the system, with /bin, /sbin and /lib merged into /usr")
	for _, d := range filesystemDirs {
		f := rpmwrite.File{Path: d, Mode: 0o755, Owner: "root", Group: "root", MTime: p.BuildTime}
		if a, ok := filesystemModes[d]; ok {
			f.Mode, f.Owner, f.Group = a.mode, a.owner, a.group
		}
		f.Mode |= rpmwrite.TypeDir
		if slices.Contains(mountPoints, d) {
			f.Flags = rpmwrite.Ghost
		}
		p.Files = append(p.Files, f)
	}
	for link, target := range filesystemLinks { // rpmwrite sorts
		p.Files = append(p.Files, rpmwrite.File{Path: link, Target: target, Mode: rpmwrite.TypeLink | 0o777, Owner: "root", Group: "root", MTime: p.BuildTime})
	}
	return p, addScripts(p, "")
}

// fromOriginals says which file of setup is a copy of which original.
var fromOriginals = map[string]string{
	"/etc/passwd":    "/usr/share/base-passwd/passwd.master",
	"/etc/group":     "/usr/share/base-passwd/group.master",
	"/etc/profile":   "/usr/share/base-files/profile",
	"/etc/motd":      "/usr/share/base-files/motd",
	"/root/.bashrc":  "/usr/share/base-files/dot.bashrc",
	"/root/.profile": "/usr/share/base-files/dot.profile",
}

// Added to Debian's own accounts: what adduser and addgroup are called for by dbus-system-bus-common and udev.
const (
	addedUsers  = "messagebus:x:101:101:System Message Bus:/nonexistent:/usr/sbin/nologin\n"
	addedGroups = "messagebus:x:101:\ninput:x:102:\nsgx:x:103:\nkvm:x:104:\nrender:x:105:\n"
)

// changing are the files of setup that sysusers and administrators change.
var changing = []string{"/etc/passwd", "/etc/group", "/etc/shadow", "/etc/gshadow", "/etc/subuid", "/etc/subgid", "/etc/hostname", "/etc/machine-id"}

func setupPackage(template rpmwrite.Package, originals map[string][]byte) (*rpmwrite.Package, error) {
	p := named(template, "setup", "Accounts and system-wide configuration")
	p.Requires = []rpmwrite.Dep{{Name: "filesystem", Sense: rpmwrite.Pre}}
	content := map[string]string{
		"/etc/subuid": "", "/etc/subgid": "",
		"/etc/machine-id": "", // empty, not "uninitialized": no first boot, and one id a boot
	}
	for to, from := range fromOriginals {
		b, ok := originals[from]
		if !ok {
			return nil, fmt.Errorf("setup: no %s in the .debs of base-passwd and base-files", from)
		}
		content[to] = string(b)
	}
	content["/etc/passwd"] += addedUsers
	content["/etc/group"] += addedGroups
	content["/etc/shadow"] = shadow(content["/etc/passwd"], p.BuildTime)
	content["/etc/gshadow"] = gshadow(content["/etc/group"])
	// Debian's master has no password field that is locked: passwords are in shadow.
	content["/etc/passwd"] = strings.ReplaceAll(content["/etc/passwd"], ":*:", ":x:")
	content["/etc/group"] = strings.ReplaceAll(content["/etc/group"], ":*:", ":x:")
	err := fs.WalkDir(setupFiles, "setup", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := setupFiles.ReadFile(name)
		content[strings.TrimPrefix(name, "setup")] = string(b)
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, to := range sortedKeys(content) {
		f := rpmwrite.File{Path: to, Mode: rpmwrite.TypeRegular | 0o644, Owner: "root", Group: "root", MTime: p.BuildTime,
			Flags: rpmwrite.Config | rpmwrite.NoReplace, Mutable: slices.Contains(changing, to)}
		if base := path.Base(to); base == "shadow" || base == "gshadow" {
			f.Mode, f.Group = rpmwrite.TypeRegular|0o640, "shadow"
		}
		text := content[to]
		f.Size = int64(len(text))
		f.Open = func() (io.Reader, error) { return strings.NewReader(text), nil }
		p.Files = append(p.Files, f)
	}
	p.Files = append(p.Files,
		rpmwrite.File{Path: "/usr/bin/sh", Target: "bash", Mode: rpmwrite.TypeLink | 0o777, Owner: "root", Group: "root", MTime: p.BuildTime},
		rpmwrite.File{Path: "/var/mail", Mode: rpmwrite.TypeDir | 0o2775, Owner: "root", Group: "mail", MTime: p.BuildTime},
		rpmwrite.File{Path: "/var/spool/mail", Target: "../mail", Mode: rpmwrite.TypeLink | 0o777, Owner: "root", Group: "root", MTime: p.BuildTime})
	p.Scripts = append(p.Scripts, rpmwrite.Script{Kind: rpmwrite.PreIn, Prog: "<lua>", Body: accountsScript(content["/etc/passwd"], content["/etc/group"])})
	return p, addScripts(p, "")
}

// accountsScript writes passwd and group before the package is unpacked: rpm looks the owners of its files up there.
func accountsScript(passwd, group string) string {
	return fmt.Sprintf(`-- The owners of this package's files must exist before them.
local accounts = {["/etc/passwd"] = [[
%s]], ["/etc/group"] = [[
%s]]}
for path, text in pairs(accounts) do
  if not posix.stat(path) then
    local file = assert(io.open(path, "w"))
    file:write(text)
    file:close()
  end
end
`, passwd, group)
}

// shadow locks every account of passwd, as changed on the day of at.
func shadow(passwd string, at time.Time) string {
	var b strings.Builder
	for line := range strings.Lines(passwd) {
		name, _, _ := strings.Cut(line, ":")
		fmt.Fprintf(&b, "%s:*:%d:0:99999:7:::\n", name, at.Unix()/86400)
	}
	return b.String()
}

func gshadow(group string) string {
	var b strings.Builder
	for line := range strings.Lines(group) {
		name, _, _ := strings.Cut(line, ":")
		fmt.Fprintf(&b, "%s:*::\n", name)
	}
	return b.String()
}
