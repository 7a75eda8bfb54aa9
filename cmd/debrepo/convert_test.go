package main

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// need skips where a tool is absent, and fails where tools are required.
func need(t *testing.T, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			if os.Getenv("CAISSON_TOOLS") == "required" {
				t.Fatalf("%s is required: %v", tool, err)
			}
			t.Skipf("%s is not installed", tool)
		}
	}
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// A folder to build a .deb of: what each line makes.
type debFile struct {
	path, content string
	mode          os.FileMode
	link, hard    string
}

func buildDeb(t *testing.T, control, postinst, conffiles string, files []debFile) string {
	t.Helper()
	need(t, "dpkg-deb")
	dir := t.TempDir()
	tree := filepath.Join(dir, "tree")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	put := func(name, content string, mode os.FileMode) {
		name = filepath.Join(tree, name)
		must(os.MkdirAll(filepath.Dir(name), 0o755))
		must(os.WriteFile(name, []byte(content), mode))
		must(os.Chmod(name, mode))
	}
	put("DEBIAN/control", control, 0o644)
	if postinst != "" {
		put("DEBIAN/postinst", postinst, 0o755)
	}
	if conffiles != "" {
		put("DEBIAN/conffiles", conffiles, 0o644)
	}
	for _, f := range files {
		name := filepath.Join(tree, f.path)
		switch {
		case f.link != "":
			must(os.MkdirAll(filepath.Dir(name), 0o755))
			must(os.Symlink(f.link, name))
		case f.hard != "":
			must(os.MkdirAll(filepath.Dir(name), 0o755))
			must(os.Link(filepath.Join(tree, f.hard), name))
		default:
			put(f.path, f.content, f.mode)
		}
	}
	must(filepath.Walk(tree, func(p string, info os.FileInfo, err error) error {
		if err != nil || info.Mode()&os.ModeSymlink != 0 {
			return err
		}
		return os.Chtimes(p, sampleTime, sampleTime)
	}))
	deb := filepath.Join(dir, "package.deb")
	cmd := exec.Command("dpkg-deb", "--root-owner-group", "-Zgzip", "--build", tree, deb)
	cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH=1600000000")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("dpkg-deb: %v\n%s", err, out)
	}
	return deb
}

var sampleTime = time.Unix(1600000000, 0)

func sampleDeb(t *testing.T) string {
	return buildDeb(t, `Package: tool
Source: tools (1:3.0-2)
Version: 1:2.0-rc1-3+b1
Architecture: amd64
Maintainer: Nobody <nobody@example.org>
Section: utils
Homepage: https://example.org/tool
Depends: libc6 (>= 2.36), awk | gawk (>= 1:5), adduser
Pre-Depends: base
Recommends: more
Description: a tool
 That does something.
 .
 And more.
`, "#!/bin/sh\nupdate-alternatives --install /usr/bin/t t /usr/bin/tool 5 \\\n  --slave /usr/share/man/man1/t.1.gz t.1.gz /usr/share/man/man1/tool.1.gz\n",
		"/etc/tool.conf\n", []debFile{
			{path: "bin/tool", content: "#!/bin/sh\n", mode: 0o755},
			{path: "usr/bin/tool-again", hard: "bin/tool"},
			{path: "usr/bin/suid", content: "x", mode: 0o4755 | os.ModeSetuid},
			{path: "lib/tool/data", content: strings.Repeat("data", 10000), mode: 0o644},
			{path: "usr/lib/tool/link", link: "data"},
			{path: "etc/tool.conf", content: "a = b\n", mode: 0o600},
			{path: "boot/vmlinuz-6.1.0-1", content: "kernel", mode: 0o644},
			{path: "usr/share/doc/tool/copyright", mode: 0o644,
				content: "Format: x\n\nFiles: *\nCopyright: x\nLicense: Expat\n\nFiles: debian/*\nCopyright: y\nLicense: GPL-2+\n text\n"},
			{path: "usr/share/doc/tool/README", content: "read", mode: 0o644},
		})
}

// convertTo converts deb into an rpm in dir, signed, as make does it.
func convertTo(t *testing.T, dir, deb string) string {
	t.Helper()
	r := &repository{dir: dir, tmp: t.TempDir(), progress: io.Discard}
	var err error
	if r.key, err = openKey(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "Packages"), 0o755); err != nil {
		t.Fatal(err)
	}
	sum, err := fileDigest(deb)
	if err != nil {
		t.Fatal(err)
	}
	b, err := r.convertOne(t.Context(), deb, download{SHA256: sum})
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "Packages", b.File)
}

func TestConvert(t *testing.T) {
	need(t, "rpm", "rpmkeys")
	dir := t.TempDir()
	rpm := convertTo(t, dir, sampleDeb(t))
	if got, want := filepath.Base(rpm), "tool-2.0^rc1-3+b1.x86_64.rpm"; got != want {
		t.Errorf("file name: got %s, want %s", got, want)
	}
	for _, c := range []struct{ format, want string }{
		{"%{nevra}|%{license}|%{url}|%{vendor}|%{group}|%{sourcerpm}|%{buildtime}",
			"tool-1:2.0^rc1-3+b1.x86_64|Expat AND GPL-2+|https://example.org/tool|Debian|Debian/utils|tools-3.0-2.src.rpm|1600000000"},
		{"%{summary}|%{description}", "a tool|That does something.\n\nAnd more."},
		{"[%{providename} %{provideflags:depflags} %{provideversion}|]", "tool = 1:2.0^rc1-3+b1|"},
		{"[%{requirename}%{requireflags:depflags}%{requireversion}|]", "(awk or gawk >= 1:5)|base|libc6>=2.36|" +
			"rpmlib(BuiltinLuaScripts)<=4.2.2-1|rpmlib(CaretInVersions)<=4.15.0-1|rpmlib(CompressedFileNames)<=3.0.4-1|rpmlib(FileDigests)<=4.6.0-1|" +
			"rpmlib(PayloadFilesHavePrefix)<=4.0-1|rpmlib(PayloadIsZstd)<=5.4.18-1|rpmlib(RichDependencies)<=4.12.0-1|setup|"},
		{"[%{recommendname}|]%{payloadcompressor}", "more|zstd"},
		{"[%{filenames} %{filemodes:perms} %{fileusername}:%{filegroupname} %{fileflags:fflags} %{filelinktos}\n]", `/etc/tool.conf -rw------- root:root cn 
/usr/bin/suid -rwsr-xr-x root:root  
/usr/bin/tool -rwxr-xr-x root:root  
/usr/bin/tool-again -rwxr-xr-x root:root  
/usr/lib/modules/6.1.0-1/vmlinuz -rw-r--r-- root:root  
/usr/lib/tool drwxr-xr-x root:root  
/usr/lib/tool/data -rw-r--r-- root:root  
/usr/lib/tool/link lrwxrwxrwx root:root  data
/usr/share/doc/tool drwxr-xr-x root:root  
/usr/share/doc/tool/README -rw-r--r-- root:root d 
/usr/share/doc/tool/copyright -rw-r--r-- root:root l 
`},
		{"%{postinprog}", "<lua>"},
	} {
		if got := run(t, "rpm", "-qp", "--nosignature", "--qf", c.format, rpm); got != c.want {
			t.Errorf("%s:\ngot  %q\nwant %q", c.format, got, c.want)
		}
	}
	verify(t, dir, rpm)
}

// verify checks packages by rpm against the repository's key.
func verify(t *testing.T, dir string, rpms ...string) {
	t.Helper()
	k, err := openKey(dir)
	if err != nil {
		t.Fatal(err)
	}
	public, err := k.public()
	if err != nil {
		t.Fatal(err)
	}
	name, db := filepath.Join(t.TempDir(), "key"), t.TempDir()
	if err := os.WriteFile(name, public, 0o644); err != nil {
		t.Fatal(err)
	}
	run(t, "rpmkeys", "--dbpath", db, "--import", name)
	for line := range strings.Lines(run(t, "rpmkeys", append([]string{"--dbpath", db, "-K"}, rpms...)...)) {
		if !strings.HasSuffix(line, ": digests signatures OK\n") {
			t.Errorf("rpmkeys -K: %s", line)
		}
	}
}

func TestConvertIsDeterministic(t *testing.T) {
	dir, deb := t.TempDir(), sampleDeb(t)
	first, err := os.ReadFile(convertTo(t, dir, deb))
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("TZ", "Asia/Tokyo")
	t.Setenv("GOMAXPROCS", "1")
	second, err := os.ReadFile(convertTo(t, dir, deb))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first, second) {
		t.Error("two conversions of one .deb differ")
	}
}

func TestConvertBad(t *testing.T) {
	const control = "Package: a\nVersion: 1\nArchitecture: all\nMaintainer: x <x@example.org>\nDescription: x\n"
	for _, c := range []struct{ name, deb, want string }{
		{"twice", buildDeb(t, control, "", "", []debFile{{path: "bin/a", content: "1"}, {path: "usr/bin/a", content: "2"}}), "twice"},
		{"empty", filepath.Join(t.TempDir(), "none.deb"), "none.deb"},
	} {
		spill, err := os.CreateTemp(t.TempDir(), "")
		if err != nil {
			t.Fatal(err)
		}
		defer spill.Close()
		if _, err := convert(t.Context(), c.deb, spill); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want an error with %q", c.name, err, c.want)
		}
	}
	// A damaged .deb: cut in the middle.
	deb := sampleDeb(t)
	b, err := os.ReadFile(deb)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(deb, b[:len(b)*2/3], 0o644); err != nil {
		t.Fatal(err)
	}
	spill, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer spill.Close()
	if _, err := convert(t.Context(), deb, spill); err == nil {
		t.Error("a .deb that was cut is converted")
	}
}

func TestMergedLinkToItself(t *testing.T) {
	const control = "Package: a\nVersion: 1\nArchitecture: all\nMaintainer: x <x@example.org>\nDescription: x\n"
	deb := buildDeb(t, control, "", "", []debFile{{path: "bin/touch", content: "1", mode: 0o755}, {path: "usr/bin/touch", link: "/bin/touch"}})
	spill, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer spill.Close()
	p, err := convert(t.Context(), deb, spill)
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Files) != 1 || p.Files[0].Size != 1 {
		t.Errorf("got %+v, want the one regular file", p.Files)
	}
}

func TestAlternatives(t *testing.T) {
	got := alternatives(`#! /bin/sh
update-alternatives --quiet \
    --install /usr/bin/cc cc /usr/bin/gcc 20 \
    #--slave /usr/share/man/man1/cc.1.gz cc.1.gz /usr/share/man/man1/gcc.1.gz

	update-alternatives --install /lib/cpp cpp /usr/bin/cpp 10
update-alternatives --install "$LINK" x /usr/bin/x 1
update-alternatives --remove cc /usr/bin/gcc
`)
	want := []link{{"/usr/bin/cc", "gcc"}, {"/usr/lib/cpp", "/usr/bin/cpp"}}
	if len(got) != len(want) || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestClosed(t *testing.T) {
	packages := map[string]built{
		"1": {File: "a.rpm", Provides: []string{"a"}, Requires: []string{"b|c"}},
		"2": {File: "c.rpm", Provides: []string{"c"}, Requires: []string{"a"}},
	}
	if err := closed(packages); err != nil {
		t.Error(err)
	}
	packages["3"] = built{File: "d.rpm", Requires: []string{"x|y"}}
	if err := closed(packages); err == nil || !strings.Contains(err.Error(), `d.rpm requires "x|y"`) {
		t.Errorf("got %v, want an error that names d.rpm", err)
	}
}
