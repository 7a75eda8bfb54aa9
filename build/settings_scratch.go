package build

import (
	"fmt"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"caisson/build/image/gpt"
	"caisson/lock"
)

// Names of the scratch space: of its definition for systemd-repart, in a folder
// where systemd-repart.service does not look, of its partition and mapping, and
// of its unit.
const (
	scratchDefinitions = "usr/lib/caisson/scratch.repart.d"
	scratchLabel       = "caisson-scratch"
	scratchUnit        = "caisson-scratch.service"
	systemUnits        = "usr/lib/systemd/system/"
)

// scratchCipher is how it is encrypted: dm-crypt without a header, as
// crypttab(5) has it, by a key that the kernel alone ever has. Whoever has the
// disk while the machine runs could have a header say another cipher, or none,
// between being written and being read (CVE-2025-59054, CVE-2025-58356).
const scratchCipher = "plain,cipher=aes-xts-plain64,size=512,headless"

// scratchPartition is the partition's device, by udev's link.
const scratchPartition = "/dev/disk/by-partlabel/" + scratchLabel

// scratchWait is for the device that is mounted: systemd would give it 90
// seconds from when the service begins, and wait as long where that fails.
const scratchWait = "[Unit]\nRequires=" + scratchUnit + "\nJobTimeoutSec=infinity\n"

// scratchType is the type of the partition: nobody else's, as what is of this
// type is deleted at each boot.
func scratchType() gpt.GUID { return gpt.FromBytes(derive("scratch partition")) }

// scratchPrograms are the paths of what makes the scratch space at boot.
type scratchPrograms struct{ repart, udevadm, mkfs, cryptsetup string }

// writeScratch writes what makes scratch space when the image boots, and
// returns a line for each file. Each boot makes it anew: of the key, which is
// in the kernel alone, nothing is left when the machine is switched off. Where
// it cannot be made, the machine boots without.
func (i *installed) writeScratch(s *lock.Scratch) ([]string, error) {
	if s == nil {
		return nil, nil
	}
	p, err := i.scratchPrograms(s)
	if err != nil {
		return nil, err
	}
	if err := i.scratchMount(s.Mount); err != nil {
		return nil, err
	}
	mount, device := escapePath(s.Mount)+".mount", escapePath(scratchDevice(s))+".device"
	var done []string
	for _, f := range []struct{ path, reason, content string }{
		{scratchDefinitions + "/50-scratch.conf", "what partition systemd-repart makes of the space that is free", scratchDefinition(s)},
		{systemUnits + scratchUnit, "makes it at each boot", scratchService(s, p)},
		{systemUnits + device + ".d/50-caisson.conf", "systemd waits for it as long as making it takes", scratchWait},
		{systemUnits + mount, "mounts it at " + s.Mount, scratchMountUnit(s)},
	} {
		if err := i.write(f.path, "scratch", func(at string) error { return i.tree.PutFile(at, 0o644, []byte(f.content)) }); err != nil {
			return nil, err
		}
		done = append(done, "/"+f.path+": "+f.reason)
	}
	wants := systemUnits + "local-fs.target.wants/" + mount
	done = append(done, "/"+wants+": systemd starts it with the other file systems")
	return done, i.write(wants, "scratch", func(at string) error { return i.tree.PutLink(at, "../"+mount) })
}

// scratchPrograms looks for what is needed at boot.
func (i *installed) scratchPrograms(s *lock.Scratch) (p scratchPrograms, err error) {
	bin := []string{"usr/bin", "usr/sbin", "bin", "sbin"}
	type wanted struct {
		to   *string
		name string
		dirs []string
		from string
	}
	from := "e2fsprogs"
	if s.Format == lock.ScratchXFS {
		from = "xfsprogs"
	}
	all := []wanted{
		{&p.repart, "systemd-repart", bin, "systemd, systemd-udev or systemd-repart"},
		{&p.udevadm, "udevadm", bin, "udev or systemd-udev"},
		{&p.mkfs, "mkfs." + s.Format, bin, from},
	}
	if s.Encrypt == lock.EncryptKey {
		all = append(all, wanted{
			&p.cryptsetup, "systemd-cryptsetup", append([]string{"usr/lib/systemd", "lib/systemd"}, bin...), "systemd, systemd-udev or systemd-cryptsetup",
		})
	}
	for _, w := range all {
		for _, dir := range w.dirs {
			if e := i.tree.Resolve(dir + "/" + w.name); e != nil && e.Is(unix.S_IFREG) {
				*w.to = "/" + dir + "/" + w.name
				break
			}
		}
		if *w.to == "" {
			return p, fmt.Errorf("image.scratch: the root has no %s, which makes it at boot: add the package that has it (%s) to the root set", w.name, w.from)
		}
	}
	return p, nil
}

// scratchMount makes the folder that it is mounted at. What lies in there would
// not be seen.
func (i *installed) scratchMount(mount string) error {
	e := i.tree.Resolve(mount)
	if e == nil {
		at := i.at(mount)
		return i.put(at, bySettings, func() error { return i.tree.PutDir(at, 0o755) })
	}
	if !e.Is(unix.S_IFDIR) {
		return fmt.Errorf("image.scratch.mount: /%s is no folder in the root", e.Path)
	}
	for _, other := range i.tree.Entries() {
		if strings.HasPrefix(other.Path, e.Path+"/") && !other.Is(unix.S_IFDIR) {
			return fmt.Errorf("image.scratch.mount: the root has /%s, which could not be reached behind %s", other.Path, mount)
		}
	}
	return nil
}

// scratchDefinition is as repart.d(5) has it. What is left of the last boot is
// of those that --factory-reset deletes. An encrypted file system is none that
// systemd-repart could make.
func scratchDefinition(s *lock.Scratch) string {
	format := ""
	if s.Encrypt == lock.EncryptNo {
		format = "Format=" + s.Format + "\n"
	}
	return fmt.Sprintf("[Partition]\nType=%s\nLabel=%s\nSizeMinBytes=%d\n%sFactoryReset=yes\n",
		strings.ToLower(scratchType().String()), scratchLabel, s.Size, format)
}

// scratchService makes the partition on the disk of the root, which
// systemd-repart finds by itself, below dm-verity and overlay too.
func scratchService(s *lock.Scratch, p scratchPrograms) string {
	commands := []string{
		p.repart + " --dry-run=no --factory-reset=yes --seed=random --definitions=/" + scratchDefinitions,
		fmt.Sprintf("%s wait --settle --timeout=60 %s", p.udevadm, scratchPartition),
	}
	stop := ""
	if s.Encrypt == lock.EncryptKey {
		commands = append(commands,
			fmt.Sprintf("%s attach %s %s /dev/urandom %s", p.cryptsetup, scratchLabel, scratchPartition, scratchCipher),
			fmt.Sprintf("%s %s %s", p.mkfs, scratchQuiet(s.Format), scratchDevice(s)))
		stop = fmt.Sprintf("ExecStop=%s detach %s\n", p.cryptsetup, scratchLabel)
	}
	return `[Unit]
Description=Scratch space on the disk of the root
DefaultDependencies=no
Conflicts=shutdown.target
Wants=modprobe@loop.service modprobe@dm_mod.service
After=modprobe@loop.service modprobe@dm_mod.service systemd-repart.service systemd-udevd.service systemd-remount-fs.service
Before=shutdown.target

[Service]
Type=oneshot
RemainAfterExit=yes
TimeoutStartSec=15min
ExecStart=` + strings.Join(commands, "\nExecStart=") + "\n" + stop
}

// scratchQuiet are the options of the mkfs of a format: it asks nothing, and
// whatever the key has made of the disk is no file system that it would spare.
func scratchQuiet(format string) string {
	if format == lock.ScratchXFS {
		return "-q -f"
	}
	return "-q -F"
}

// scratchMountUnit is wanted, and not required, by local-fs.target, so that a
// disk without room for it boots too.
func scratchMountUnit(s *lock.Scratch) string {
	return fmt.Sprintf(`[Unit]
Description=Scratch space
Requires=%[1]s
After=%[1]s
Before=local-fs.target

[Mount]
What=%[2]s
Where=%[3]s
Type=%[4]s
`, scratchUnit, scratchDevice(s), s.Mount, s.Format)
}

// scratchDevice is what is mounted.
func scratchDevice(s *lock.Scratch) string {
	if s.Encrypt == lock.EncryptKey {
		return "/dev/mapper/" + scratchLabel
	}
	return scratchPartition
}

// escapePath is the name of a unit of a path (systemd.unit(5), "String
// Escaping for Inclusion in Unit Names").
func escapePath(p string) string {
	var out strings.Builder
	for i, c := range []byte(strings.Trim(path.Clean(p), "/")) {
		switch {
		case c == '/':
			out.WriteByte('-')
		case c >= '0' && c <= '9', c >= 'A' && c <= 'Z', c >= 'a' && c <= 'z', c == ':', c == '_', c == '.' && i > 0:
			out.WriteByte(c)
		default:
			fmt.Fprintf(&out, `\x%02x`, c)
		}
	}
	return out.String()
}
