package lockfiles

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"caisson/build/image/uki"
	"caisson/cmd/debrepo/rpmwrite"
	"caisson/lock/digest"
)

// smallTime is when the packages were built.
var smallTime = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// installation is a program for x86-64 Linux that makes some files and ends: in
// place of rpm and depmod, which would be other ones on each machine.
type installation struct {
	code, data []byte
	fixups     []fixup
}

// fixup is a place in the code that wants the address of some data.
type fixup struct{ at, data int }

const (
	loadedAt = 0x400000
	// headers are an ELF header and one program header (ELF-64 Object File
	// Format, sections 3 and 6).
	headers = 64 + 56
)

// Numbers of system calls (arch/x86/entry/syscalls/syscall_64.tbl of Linux).
const (
	sysWrite, sysOpen, sysClose  = 1, 2, 3
	sysAccess, sysExit, sysMkdir = 21, 60, 83
)

// load puts a number into a register: 0xb8 is eax, 0xba edx, 0xbe esi, 0xbf edi.
func (p *installation) load(register byte, v int) {
	p.code = binary.LittleEndian.AppendUint32(append(p.code, register), uint32(v))
}

// address puts the address of data, with a NUL behind it, into a register.
func (p *installation) address(register byte, data []byte) {
	p.fixups = append(p.fixups, fixup{len(p.code) + 1, len(p.data)})
	p.load(register, 0)
	p.data = append(append(p.data, data...), 0)
}

func (p *installation) call(number int) {
	p.load(0xb8, number)
	p.code = append(p.code, 0x0f, 0x05) // syscall
}

// mkdir makes a folder, if there is none.
func (p *installation) mkdir(name string) {
	p.address(0xbf, []byte(name))
	p.load(0xbe, 0o755)
	p.call(sysMkdir)
}

// file writes a file.
func (p *installation) file(name string, mode int, content []byte) {
	p.address(0xbf, []byte(name))
	p.load(0xbe, 0o1|0o100|0o1000) // O_WRONLY|O_CREAT|O_TRUNC
	p.load(0xba, mode)
	p.call(sysOpen)
	p.code = append(p.code, 0x89, 0xc7) // mov edi, eax
	p.address(0xbe, content)
	p.load(0xba, len(content))
	p.call(sysWrite)
	p.call(sysClose)
}

// where does what then adds where there is a file.
func (p *installation) where(name string, then func()) {
	p.address(0xbf, []byte(name))
	p.load(0xbe, 0)
	p.call(sysAccess)
	p.code = append(p.code, 0x85, 0xc0, 0x0f, 0x85, 0, 0, 0, 0) // test eax, eax; jnz
	from := len(p.code)
	then()
	binary.LittleEndian.PutUint32(p.code[from-4:], uint32(len(p.code)-from))
}

// program is the whole of it.
func (p *installation) program() []byte {
	p.load(0xbf, 0)
	p.call(sysExit)
	for _, f := range p.fixups {
		binary.LittleEndian.PutUint32(p.code[f.at:], uint32(loadedAt+headers+len(p.code)+f.data))
	}
	size := uint64(headers + len(p.code) + len(p.data))
	var b bytes.Buffer
	put := func(values ...any) {
		for _, v := range values {
			_ = binary.Write(&b, binary.LittleEndian, v) // into memory
		}
	}
	b.WriteString("\x7fELF\x02\x01\x01" + strings.Repeat("\x00", 9))
	put(uint16(2), uint16(62), uint32(1), uint64(loadedAt+headers), uint64(64), uint64(0), uint32(0)) // executable, x86-64
	put(uint16(64), uint16(56), uint16(1), uint16(0), uint16(0), uint16(0))
	put(uint32(1), uint32(7), uint64(0), uint64(loadedAt), uint64(loadedAt), size, size, uint64(0x1000)) // PT_LOAD
	b.Write(p.code)
	b.Write(p.data)
	return b.Bytes()
}

// smallFile is a file of a package.
type smallFile struct {
	path    string
	mode    int
	content []byte
}

const smallKernel = "/usr/lib/modules/6.1.0-small/"

// smallPackages are the files of the packages that are installed.
func smallPackages(t *testing.T) map[string][]smallFile {
	t.Helper()
	kernel, err := uki.AddonStub(uki.MachineAMD64) // a program that firmware can start
	if err != nil {
		t.Fatal(err)
	}
	depmod := &installation{}
	depmod.file(smallKernel+"modules.dep.bin", 0o644, []byte("index"))
	text := func(name, s string) smallFile { return smallFile{name, 0o644, []byte(s)} }
	both := []smallFile{text("/etc/group", "root:x:0:\n"), text("/etc/os-release", "ID=small\nVERSION_ID=1\n"), text("/etc/passwd", "root:x:0:0::/root:/bin/sh\n")}
	return map[string][]smallFile{
		"small-initrd": append(slices.Clone(both), smallFile{"/usr/bin/depmod", 0o755, depmod.program()}, smallFile{"/usr/lib/systemd/systemd", 0o755, []byte("systemd\n")}),
		"small-root": append(slices.Clone(both), text(smallKernel+"kernel/one.ko", "no ELF"), text(smallKernel+"modules.builtin", "kernel/dm-verity.ko\nkernel/erofs.ko\n"),
			text(smallKernel+"modules.dep", "kernel/one.ko:\n"), smallFile{smallKernel + "vmlinuz", 0o644, kernel},
			text("/usr/share/large", strings.Repeat("0123456789abcdef", 20000))),
	}
}

// smallTools are the program that installs a package, and the EFI stub.
func smallTools(t *testing.T, packages map[string][]smallFile) []smallFile {
	t.Helper()
	rpm := &installation{}
	for _, name := range slices.Sorted(maps.Keys(packages)) {
		rpm.where("/rpms/"+name+"-1-1.x86_64.rpm", func() {
			for _, d := range smallDirs(packages[name]) {
				rpm.mkdir("/sysroot" + d)
			}
			for _, f := range packages[name] {
				rpm.file("/sysroot"+f.path, f.mode, f.content)
			}
		})
	}
	program, err := uki.AddonStub(uki.MachineAMD64)
	if err != nil {
		t.Fatal(err)
	}
	// systemd's stub says what it is; that of addons says that it is one.
	const addon, stub = "LoaderInfo: caisson-addon 1", "LoaderInfo: systemd-stub 25"
	if bytes.Count(program, []byte(addon)) != 1 {
		t.Fatal("the stub of addons says something else of itself")
	}
	program = bytes.Replace(program, []byte(addon), []byte(stub), 1)
	return []smallFile{{"/usr/bin/rpm", 0o755, rpm.program()}, {"/usr/lib/systemd/boot/efi/linuxx64.efi.stub", 0o644, program}}
}

// smallDirs are the folders that files are in, outer ones first.
func smallDirs(files []smallFile) []string {
	var out []string
	for _, f := range files {
		for d := path.Dir(f.path); d != "/"; d = path.Dir(d) {
			if !slices.Contains(out, d) {
				out = append(out, d)
			}
		}
	}
	slices.Sort(out)
	return out
}

// smallRPM is a package, not signed.
func smallRPM(t *testing.T, name string, files []smallFile) []byte {
	t.Helper()
	p := &rpmwrite.Package{
		Name: name, Version: "1", Release: "1", Arch: "x86_64", Summary: name, Description: name, License: "MIT", Group: "small",
		SourceRPM: name + "-1-1.src.rpm", BuildHost: "small", BuildTime: smallTime,
		Provides: []rpmwrite.Dep{{Name: name, Sense: rpmwrite.Equal, EVR: "1-1"}},
	}
	for _, d := range smallDirs(files) {
		p.Files = append(p.Files, rpmwrite.File{Path: d, Mode: rpmwrite.TypeDir | 0o755, Owner: "root", Group: "root", MTime: smallTime})
	}
	for _, f := range files {
		p.Files = append(p.Files, rpmwrite.File{
			Path: f.path, Mode: rpmwrite.TypeRegular | uint32(f.mode), Owner: "root", Group: "root", MTime: smallTime,
			Size: int64(len(f.content)), Open: func() (io.Reader, error) { return bytes.NewReader(f.content), nil },
		})
	}
	spool, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer spool.Close()
	var b bytes.Buffer
	if err := rpmwrite.Write(&b, p, spool, nil); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// smallWorld are the files of the repository, by address.
func smallWorld(t *testing.T) map[string][]byte {
	t.Helper()
	const base = "https://small.example/x86_64/"
	world := map[string][]byte{}
	packages := smallPackages(t)
	packages["small-tools"] = smallTools(t, packages)
	primary := `<metadata xmlns="http://linux.duke.edu/metadata/common" xmlns:rpm="http://linux.duke.edu/metadata/rpm" packages="3">` + "\n"
	lists := `<filelists xmlns="http://linux.duke.edu/metadata/filelists" packages="3">` + "\n"
	for _, name := range slices.Sorted(maps.Keys(packages)) {
		b := smallRPM(t, name, packages[name])
		file, sum := name+"-1-1.x86_64.rpm", digest.Of(b).Hex()
		world[base+file] = b
		primary += fmt.Sprintf(`<package type="rpm"><name>%[1]s</name><arch>x86_64</arch><version epoch="0" ver="1" rel="1"/><checksum type="sha256" pkgid="YES">%[2]s</checksum>
<time file="%[3]d" build="%[3]d"/><size package="%[4]d" installed="9" archive="9"/><location href="%[5]s"/><format><rpm:license>MIT</rpm:license>
<rpm:sourcerpm>%[1]s-1-1.src.rpm</rpm:sourcerpm><rpm:provides><rpm:entry name="%[1]s" flags="EQ" epoch="0" ver="1" rel="1"/></rpm:provides></format></package>
`, name, sum, smallTime.Unix(), len(b), file)
		lists += fmt.Sprintf(`<package pkgid="%s" name="%s" arch="x86_64"><version epoch="0" ver="1" rel="1"/>`, sum, name)
		for _, f := range packages[name] {
			lists += "<file>" + f.path + "</file>"
		}
		lists += "</package>\n"
	}
	repomd := `<repomd xmlns="http://linux.duke.edu/metadata/repo">` + "\n"
	for name, text := range map[string]string{"primary": primary + "</metadata>\n", "filelists": lists + "</filelists>\n"} {
		world[base+"repodata/"+name+".xml"] = []byte(text)
	}
	for _, name := range []string{"primary", "filelists"} {
		b := world[base+"repodata/"+name+".xml"]
		repomd += fmt.Sprintf(`<data type="%[1]s"><checksum type="sha256">%[2]s</checksum><location href="repodata/%[1]s.xml"/><size>%[3]d</size></data>`+"\n", name, digest.Of(b).Hex(), len(b))
	}
	world[base+"repodata/repomd.xml"] = []byte(repomd + "</repomd>\n")
	return world
}
