package main

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"

	"caisson/verify"
)

// tinyKernel is the version of the kernel in tiny images.
const tinyKernel = "usr/lib/modules/6.1.0-tiny"

// canMakeTiny tells whether the tools for it are there; where they have to be, a script
// fails for want of them.
func canMakeTiny() bool {
	for _, name := range []string{"rpmbuild", "createrepo_c", "rpm", "ldd"} {
		if _, err := exec.LookPath(name); err != nil {
			return os.Getenv("CAISSON_TOOLS") == "required"
		}
	}
	return true
}

// cmdMakeTiny makes a repository of a distribution of three packages, by rpmbuild, of
// this machine's own programs: enough for a real build in a second or two, of an
// image that does not boot.
func cmdMakeTiny(ts *testscript.TestScript, _ bool, args []string) {
	repo := ts.MkAbs(args[0])
	t := tiny{ts: ts, dir: ts.MkAbs("tiny"), repo: repo}
	t.programs("tools", "rpm", "bash", "cat", "install", "ls", "id", "date", "nproc", "uname", "env", "chmod")
	t.run("cp", "-a", "/usr/lib/rpm", filepath.Join(t.dir, "tools/usr/lib/"))
	t.put("tools", "usr/lib/systemd/boot/efi/linuxx64.efi.stub", tinyProgram(), 0o644)
	t.pack("tools")
	users := map[string]string{"etc/os-release": "ID=tiny\nVERSION_ID=1\n", "etc/passwd": "root:x:0:0::/root:/bin/sh\n", "etc/group": "root:x:0:\n"}
	for _, root := range []string{"initrd", "root"} {
		t.programs(root, "bash")
		for name, text := range users {
			t.put(root, name, []byte(text), 0o644)
		}
	}
	t.put("initrd", "usr/lib/systemd/systemd", []byte("systemd"), 0o755)
	t.put("initrd", "usr/bin/depmod", []byte("#!/bin/sh\nprintf index > /usr/lib/modules/$2/modules.dep.bin\n"), 0o755)
	t.pack("initrd")
	t.put("root", tinyKernel+"/modules.dep", []byte("kernel/one.ko:\n"), 0o644)
	t.put("root", tinyKernel+"/modules.builtin", []byte("kernel/dm-verity.ko\nkernel/erofs.ko\n"), 0o644)
	t.put("root", tinyKernel+"/kernel/one.ko", []byte("no ELF"), 0o644)
	t.put("root", tinyKernel+"/vmlinuz", tinyProgram(), 0o644)
	t.pack("root")
	t.run("createrepo_c", "--quiet", repo)
}

// tinyProgram is a PE32+ image of the form of systemd's stub: headers, a section of
// code, and .sdmagic.
func tinyProgram() []byte {
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

// tiny makes packages.
type tiny struct {
	ts        *testscript.TestScript
	dir, repo string
}

func (t *tiny) run(name string, args ...string) {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.ts.Fatalf("%s: %v\n%s", name, err, out)
	}
}

func (t *tiny) put(root, name string, b []byte, perm os.FileMode) {
	full := filepath.Join(t.dir, root, name)
	t.ts.Check(os.MkdirAll(filepath.Dir(full), 0o755))
	t.ts.Check(os.WriteFile(full, b, perm))
}

// programs copies programs and the libraries that they need, into a merged /usr.
func (t *tiny) programs(root string, names ...string) {
	for _, d := range []string{"bin", "lib", "lib64"} {
		t.ts.Check(os.MkdirAll(filepath.Join(t.dir, root, "usr", d), 0o755))
		t.ts.Check(os.Symlink("usr/"+d, filepath.Join(t.dir, root, d)))
	}
	t.ts.Check(os.Symlink("usr/bin", filepath.Join(t.dir, root, "sbin")))
	lib := regexp.MustCompile(`(/\S+) \(0x`)
	for _, name := range names {
		p, err := exec.LookPath(name)
		t.ts.Check(err)
		files := map[string]string{p: "usr/bin/" + name}
		if f, err := elf.Open(p); err == nil {
			f.Close()
			out, err := exec.Command("ldd", p).Output()
			t.ts.Check(err)
			for _, m := range lib.FindAllStringSubmatch(string(out), -1) {
				files[m[1]] = filepath.Join("usr", strings.TrimPrefix(m[1], "/usr"))
			}
		}
		for from, to := range files {
			b, err := os.ReadFile(from)
			t.ts.Check(err)
			t.put(root, to, b, 0o755)
		}
	}
	t.ts.Check(os.Symlink("bash", filepath.Join(t.dir, root, "usr/bin/sh")))
}

// pack makes a package of the files.
func (t *tiny) pack(name string) {
	spec := filepath.Join(t.dir, name+".spec")
	text := fmt.Sprintf(`Name: tiny-%s
Version: 1
Release: 1
Summary: s
License: MIT
AutoReqProv: no
%%global debug_package %%{nil}
%%global __os_install_post %%{nil}
%%global _build_id_links none
%%description
d
%%install
mkdir -p %%{buildroot}
cp -a '%s/.' %%{buildroot}
%%files
%%defattr(-,root,root,-)
/*
`, name, filepath.Join(t.dir, name))
	t.ts.Check(os.WriteFile(spec, []byte(text), 0o644))
	t.run("rpmbuild", "-bb", "--quiet", "--define", "_topdir "+filepath.Join(t.dir, "top"), "--define", "_rpmdir "+t.repo, "--define", "_binary_payload w3.gzdio", spec)
}

// cmdBlamed compares what a report blames for a file of the root.
func cmdBlamed(ts *testscript.TestScript, _ bool, args []string) {
	var r verify.Report
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[0])), &r))
	var got []string
	for _, b := range r.Blame {
		if !slices.Contains(b.Files, "root:"+args[1]) {
			continue
		}
		if b.Random {
			got = append(got, "random")
		}
		got = append(got, b.Variations...)
	}
	slices.Sort(got)
	if want := args[2:]; !slices.Equal(got, want) {
		ts.Fatalf("%s: got %q, want %q", args[1], got, want)
	}
}
