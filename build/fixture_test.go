package build

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"caisson/build/rootfs"
	"caisson/build/sandbox"
	"caisson/lock"
	"caisson/lock/digest"
)

// testLock asks for a small image; its inputs are none.
func testLock() *lock.Lock {
	return &lock.Lock{
		Version: lock.Version, Revision: lock.Revision, Name: "small", Epoch: 1700000000, Arches: []string{"x86_64"},
		Image: lock.Image{Cmdline: "console=ttyS0", Root: "erofs", Verity: "uki", Output: []string{"qcow2", "netboot", "vhd", "raw"}},
	}
}

// testBuilder is a builder whose working folder lies in dir.
func testBuilder(dir string, l *lock.Lock) (*builder, error) {
	b, err := newBuilder(Options{Lock: l, Arch: "x86_64", Out: dir})
	if err != nil {
		return nil, err
	}
	work := filepath.Join(b.Out, ".build-test")
	if err := os.Mkdir(work, 0o700); err != nil {
		return nil, err
	}
	return b, b.enter(work)
}

// pe is a PE32+ image of the form of systemd's stub: headers, a section of
// code, and .sdmagic.
func pe() []byte {
	const headers = 0x400
	magic := "#### LoaderInfo: systemd-stub 252.39-1~test ####\x00"
	b := make([]byte, headers+2*512)
	put := func(off int, v uint32) { binary.LittleEndian.PutUint32(b[off:], v) }
	copy(b, "MZ")
	put(60, 64)
	copy(b[64:], "PE\x00\x00\x64\x86\x02\x00")
	binary.LittleEndian.PutUint16(b[84:], 112+16*8)
	binary.LittleEndian.PutUint16(b[86:], 0x206)
	const opt = 88
	binary.LittleEndian.PutUint16(b[opt:], 0x20b)
	put(opt+16, 0x1000)
	put(opt+32, 0x1000)
	put(opt+36, 0x200)
	put(opt+56, 0x3000)
	put(opt+60, headers)
	binary.LittleEndian.PutUint16(b[opt+68:], 10)
	put(opt+108, 16)
	for i, s := range []struct {
		name                      string
		size, address, flags, off uint32
	}{
		{".text", 0x1f0, 0x1000, 0x60000020, headers},
		{".sdmagic", uint32(len(magic)), 0x2000, 0x40000040, headers + 512},
	} {
		e := opt + 112 + 16*8 + i*40
		copy(b[e:e+8], s.name)
		for j, v := range []uint32{s.size, s.address, 0x200, s.off, 0, 0, 0, s.flags} {
			put(e+8+4*j, v)
		}
	}
	copy(b[headers:], bytes.Repeat([]byte{0xc3}, 0x1f0))
	copy(b[headers+512:], magic)
	return b
}

// file is a file of a test's root.
type file struct {
	path    string
	mode    os.FileMode // with os.ModeDir or os.ModeSymlink
	content string      // or a link's target
	same    string      // another name of that file
}

const kernelDir = "usr/lib/modules/6.1.0-test"

func rootFiles() []file {
	f := []file{
		{path: "etc/os-release", mode: 0o644, content: "ID=small\nVERSION_ID=1\n"},
		{path: "etc/passwd", mode: 0o644, content: "root:x:0:0::/root:/bin/sh\ndaemon:x:12:34::/:/bin/false\n"},
		{path: "etc/group", mode: 0o644, content: "root:x:0:\ndaemon:x:34:\n"},
		{path: "etc/shadow", mode: 0, content: "root:*:19000::::::\n"},
		{path: "etc/passwd-", mode: 0o600, content: "left over"},
		{path: "bin", mode: os.ModeSymlink, content: "usr/bin"},
		{path: "usr/bin/ping", mode: 0o755, content: strings.Repeat("ping", 3000)},
		{path: "usr/bin/mount", mode: os.ModeSetuid | 0o755, content: "mount"},
		{path: "usr/bin/umount", same: "usr/bin/mount"},
		{path: "usr/bin/wall", mode: os.ModeSetgid | 0o755, content: "wall"},
		{path: "usr/lib/empty", mode: 0o444},
		{path: "usr/lib/null", mode: 0o666}, // stands for a device
		{path: kernelDir + "/vmlinuz", mode: 0o600, content: string(pe()) + strings.Repeat("kernel", 5000)},
		{path: "var/lib/closed", mode: os.ModeDir},
		{path: "var/lib/spool", mode: os.ModeDir | os.ModeSticky | 0o777},
		{path: "var/log/daemon", mode: os.ModeDir | 0o750},
		{path: "var/log/daemon/today", mode: 0o640, content: "the time is now"},
		{path: "tmp", mode: os.ModeDir | os.ModeSticky | 0o777},
		{path: "tmp/left", mode: 0o644, content: "left over"},
		{path: "dev", mode: os.ModeDir | 0o755}, {path: "proc", mode: os.ModeDir | 0o555},
		// The first of three names is removed by normalisation.
		{path: "etc/group-", mode: 0o644, content: "three names"},
		{path: "etc/zz", same: "etc/group-"}, {path: "usr/zz", same: "etc/group-"},
	}
	for i := range 40 {
		f = append(f, file{path: fmt.Sprintf("usr/share/many/%03d é\t", i), mode: 0o644, content: strings.Repeat("x", i*311)})
	}
	return f
}

func initrdFiles() []file {
	return []file{
		{path: "etc/os-release", mode: 0o644, content: "ID=small\nVERSION_ID=1\n"},
		{path: "usr/lib/systemd/systemd", mode: 0o755, content: strings.Repeat("systemd", 9999)},
		{path: "usr/lib/systemd/system/systemd-pcrphase.service", mode: 0o644, content: "[Unit]\n"},
		{path: "usr/bin/a", mode: 0o700, content: "a"}, {path: "usr/bin/b", same: "usr/bin/a"}, {path: "usr/bin/c", same: "usr/bin/a"},
		{path: "usr/share/doc/a/copyright", mode: 0o644, content: "left out"},
		{path: "etc/shadow", mode: 0, content: "root:*:19000::::::\n"},
		{path: "dev", mode: os.ModeDir | 0o755}, {path: "proc", mode: os.ModeDir | 0o555},
	}
}

// lay makes files in a folder, whatever the umask is, in their order or from
// the last to the first.
func lay(dir string, files []file, backwards bool) error {
	if err := makeDir(dir); err != nil {
		return err
	}
	order := slices.Clone(files)
	if backwards {
		slices.Reverse(order)
	}
	for pass, wanted := range []func(file) bool{
		func(f file) bool { return f.same == "" }, func(f file) bool { return f.same != "" },
	} {
		for _, f := range order {
			if !wanted(f) {
				continue
			}
			if err := layOne(dir, f, pass); err != nil {
				return err
			}
		}
	}
	for _, f := range files { // folders last, when nothing more goes into them
		if f.mode.IsDir() {
			if err := os.Chmod(filepath.Join(dir, f.path), f.mode&modeBits); err != nil {
				return err
			}
		}
	}
	return nil
}

func layOne(dir string, f file, pass int) error {
	full := filepath.Join(dir, f.path)
	up := filepath.Dir(f.path)
	if f.mode.IsDir() {
		up = f.path
	}
	if _, err := makeDirs(dir, up); err != nil {
		return err
	}
	switch {
	case f.mode.IsDir():
		return nil
	case f.mode&os.ModeSymlink != 0:
		return os.Symlink(f.content, full)
	case pass == 1:
		return os.Link(filepath.Join(dir, f.same), full)
	}
	if err := os.WriteFile(full, []byte(f.content), 0o600); err != nil {
		return err
	}
	return os.Chmod(full, f.mode&modeBits)
}

// packaged is a package that names some of the files, with owners and
// capabilities.
func packaged(files []file) *rootfs.Package {
	p := &rootfs.Package{NEVRA: "small-1-1.x86_64"}
	byPath := map[string]file{}
	for _, f := range files {
		byPath[f.path] = f
	}
	for _, f := range files {
		if f.same != "" {
			f.mode, f.content = byPath[f.same].mode, byPath[f.same].content
		}
		pf := rootfs.PackageFile{Path: "/" + f.path, Mode: uint32(f.mode.Perm()), User: "root", Group: "root"}
		switch {
		case f.mode.IsDir():
			pf.Mode |= syscall.S_IFDIR
		case f.mode&os.ModeSymlink != 0:
			pf.Mode, pf.Target = pf.Mode|syscall.S_IFLNK, f.content
		default:
			pf.Mode, pf.SHA256 = pf.Mode|syscall.S_IFREG, digest.Of([]byte(f.content)).Hex()
		}
		switch f.path {
		case "usr/bin/ping":
			pf.Caps = "cap_net_raw=ep"
		case "usr/bin/wall", "var/lib/spool":
			pf.User, pf.Group = "daemon", "daemon"
		case "proc":
			pf.Mode = syscall.S_IFDIR | 0o555
		case "etc/passwd-", "var/log/daemon/today", "tmp/left": // made by scriptlets
			continue
		}
		p.Files = append(p.Files, pf)
	}
	return p
}

// testRoots are root and initrd as an installation leaves them.
func testRoots(b *builder, backwards bool) (root, initrd *installed, err error) {
	roots := map[string]*installed{}
	for set, files := range map[string][]file{lock.SetRoot: rootFiles(), lock.SetInitrd: initrdFiles()} {
		i := newInstalled(set, filepath.Join(b.work, set))
		if err := lay(i.dir, files, backwards); err != nil {
			return nil, nil, err
		}
		p := packaged(files)
		i.packages, i.inputOf = []*rootfs.Package{p}, map[*rootfs.Package]string{p: "rpm/small-1-1.x86_64"}
		if err := i.ledger.step(byInstallation); err != nil {
			return nil, nil, err
		}
		roots[set] = i
	}
	root = roots[lock.SetRoot]
	uid, gid := uint32(7), uint32(8)
	root.seen = map[sandbox.FileID]sandbox.Recorded{}
	for p, r := range map[string]sandbox.Recorded{
		"usr/lib/null":           {Device: &sandbox.Device{Major: 1, Minor: 3}},
		"usr/share/many/001 é\t": {UID: &uid, GID: &gid, Xattrs: map[string][]byte{"security.ima": {3, 1, 4}}},
	} {
		st, err := os.Lstat(filepath.Join(root.dir, p))
		if err != nil {
			return nil, nil, err
		}
		sys := st.Sys().(*syscall.Stat_t)
		root.seen[sandbox.FileID{Dev: sys.Dev, Ino: sys.Ino}] = r
	}
	return root, roots[lock.SetInitrd], nil
}

// finish does with the roots what a build does after its last program.
func finish(ctx context.Context, b *builder, root, initrd *installed) error {
	if err := b.scan(ctx, root, rootfs.Rules(false)); err != nil {
		return err
	}
	if err := root.addState(false); err != nil {
		return err
	}
	return b.finishInitrd(ctx, initrd)
}

// testStub is where packages have the EFI stub.
const testStub = "usr/lib/systemd/boot/efi/linuxx64.efi.stub"

// layStub puts the EFI stub where the tools root has it.
func layStub(b *builder) error {
	return lay(filepath.Join(b.tools, "usr"), []file{{path: strings.TrimPrefix(testStub, "usr/"), mode: 0o644, content: string(pe())}}, false)
}
