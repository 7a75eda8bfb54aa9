package diff

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/rpmpack"

	"caisson/build/image/ext4"
)

// tool is the path of a program.
func tool(t testing.TB, name string) string {
	t.Helper()
	for _, dir := range []string{"", "/usr/sbin/", "/usr/bin/"} {
		if path, err := exec.LookPath(dir + name); err == nil {
			return path
		}
	}
	if os.Getenv("CAISSON_TOOLS") == "required" {
		t.Fatalf("%s is not installed", name)
	}
	t.Skipf("%s is not installed", name)
	return ""
}

func run(t testing.TB, dir, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(tool(t, name), args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C", "TZ=UTC", "SOURCE_DATE_EPOCH=1700000000", "E2FSPROGS_FAKE_TIME=1700000000")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", cmd.Args, err, out)
	}
	return string(out)
}

// put makes files below a folder, and returns the folder.
func put(t testing.TB, dir string, files map[string]string) string {
	t.Helper()
	for name, text := range files {
		at := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func read(t testing.TB, elem ...string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(elem...))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// compareFiles compares two contents as files of that name.
func compareFiles(t testing.TB, name string, a, b []byte) string {
	t.Helper()
	nodes, err := Disks(t.Context(), Source{Name: "a/" + name, Disk: mem(a), Size: int64(len(a))}, Source{Name: "b/" + name, Disk: mem(b), Size: int64(len(b))}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if (len(nodes) == 0) != bytes.Equal(a, b) {
		t.Fatalf("%d nodes", len(nodes))
	}
	return text(t, nodes)
}

func wantLines(t testing.TB, got string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(got, w) {
			t.Errorf("no %q in\n%s", w, got)
		}
	}
}

func wantNo(t testing.TB, got string, no ...string) {
	t.Helper()
	for _, w := range no {
		if strings.Contains(got, w) {
			t.Errorf("%q is in\n%s", w, got)
		}
	}
}

const program = `#include <stdio.h>
const int table[] = {1, 2, 3, 4};
int twice(int x) { return 2 * x; }
int main(void) { printf("hello %d\n", twice(table[2])); return 0; }
`

// TestELF changes one thing of a program each, and has it named.
func TestELF(t *testing.T) {
	build := func(t *testing.T, source string, args ...string) []byte {
		dir := put(t, t.TempDir(), map[string]string{"x.c": source})
		run(t, dir, "gcc", append([]string{"-O1", "-o", "x", "x.c"}, args...)...)
		return read(t, dir, "x")
	}
	plain := build(t, program)
	for _, c := range []struct {
		name string
		with []byte
		want []string
		no   []string
	}{
		{"data", build(t, strings.Replace(program, "3, 4", "3, 5", 1), "-Wl,--build-id=none"), []string{".note.gnu.build-id", "only in a/x"}, nil},
		{"rodata", build(t, strings.Replace(program, "3, 4", "3, 5", 1)), []string{".rodata", "the first difference is in table, 12 bytes behind its beginning", "-build id ", "+build id "}, []string{"* .text", "* .dynamic"}},
		{"text", build(t, strings.Replace(program, "2 * x", "3 * x", 1)), []string{"* .text", "is in twice,"}, []string{"* .rodata"}},
		{"symbol", build(t, strings.ReplaceAll(program, "twice", "twycE")), []string{"* .symtab", "-twice: 0x", "+twycE: 0x", "* .strtab"}, []string{"* .text"}},
		{"dynamic", build(t, program, "-Wl,-rpath,/opt/lib"), []string{"* .dynamic", "+DT_RUNPATH /opt/lib"}, nil},
		{"stripped", build(t, program, "-s"), []string{"- .symtab", "only in a/x", "a section: SHT_SYMTAB"}, []string{"* .text"}},
		{"behind", append(bytes.Clone(plain), "signature"+moduleSignature...), []string{"behind the sections", "the signature of a kernel module, in b/x"}, []string{"* .text"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := compareFiles(t, "x", plain, c.with)
			wantLines(t, got, c.want...)
			wantNo(t, got, c.no...)
		})
	}
}

// twice packs two folders whose files differ at one place, by a program.
func twice(t *testing.T, pack func(t *testing.T, dir string) []byte) (a, b []byte) {
	t.Helper()
	files := map[string]string{"d/one": "first\nsecond\n", "d/two": strings.Repeat("\x00\x01binary", 100), "three": "same"}
	one := put(t, t.TempDir(), files)
	files["d/one"] = "first\nchanged\n"
	two := put(t, t.TempDir(), files)
	for _, dir := range []string{one, two} {
		run(t, dir, "find", ".", "-exec", "touch", "-d", "2024-01-02T03:04:05Z", "{}", "+")
	}
	return pack(t, one), pack(t, two)
}

// TestArchives has one file changed in archives of each kind, made by the
// programs that people use.
func TestArchives(t *testing.T) {
	out := func(args ...string) func(t *testing.T, dir string) []byte {
		return func(t *testing.T, dir string) []byte {
			at := filepath.Join(t.TempDir(), "out")
			all := append([]string{"-c", strings.ReplaceAll(strings.Join(args, " "), "OUT", at)}, "sh")
			run(t, dir, "bash", all...)
			return read(t, at)
		}
	}
	for _, c := range []struct {
		name, tool string
		pack       func(t *testing.T, dir string) []byte
		path       string
	}{
		{"x.tar", "tar", out("tar --sort=name --owner=0 --group=0 -cf OUT ."), "/d/one"},
		{"x.tar.gz", "gzip", out("tar --sort=name -c . | gzip -n > OUT"), "unpacked → /d/one"},
		{"x.tar.xz", "xz", out("tar --sort=name -c . | xz > OUT"), "unpacked → /d/one"},
		{"x.tar.zst", "zstd", out("tar --sort=name -c . | zstd -q > OUT"), "unpacked → /d/one"},
		{"x.tar.bz2", "bzip2", out("tar --sort=name -c . | bzip2 > OUT"), "unpacked → /d/one"},
		{"x.cpio", "cpio", out("find . | sort | cpio -o -H newc --reproducible --quiet > OUT"), "/d/one"},
		{"x.cpio.gz", "cpio", out("find . | sort | cpio -o -H newc --reproducible --quiet | gzip -n > OUT"), "/d/one"},
		{"x.a", "ar", out("ar rcD OUT d/one d/two three"), "/one"},
		{"x.zip", "zip", out("zip -qrX OUT.zip . && mv OUT.zip OUT"), "/d/one"},
		{"x.jar", "jar", out("jar --create --no-manifest --date=2024-01-02T03:04:05Z --file OUT d three"), "/d/one"},
		{"x.deb", "dpkg-deb", out("mkdir DEBIAN && printf 'Package: x\\nVersion: 1\\nArchitecture: all\\nMaintainer: x <x@example.org>\\nDescription: x\\n' > DEBIAN/control && dpkg-deb --root-owner-group -b . OUT.deb && mv OUT.deb OUT"), "/data.tar.xz → unpacked → /d/one"},
		{"x.squashfs", "mksquashfs", out("mksquashfs . OUT -noappend -quiet -no-progress"), "/d/one"},
		{"x.ext4", "mke2fs", out("/usr/sbin/mke2fs -q -t ext4 -U 00000000-0000-0000-0000-000000000001 -E hash_seed=00000000-0000-0000-0000-000000000001 -d . OUT 4M"), "/d/one"},
	} {
		t.Run(c.name, func(t *testing.T) {
			tool(t, c.tool)
			a, b := twice(t, c.pack)
			got := compareFiles(t, c.name, a, b)
			wantLines(t, got, "* "+c.path+"\n", "-second", "+changed")
			wantNo(t, got, "/d/two\n", "/three\n", notFurther)
		})
	}
}

// TestSame has the same files in archives that say other things of them.
func TestSame(t *testing.T) {
	dir := put(t, t.TempDir(), map[string]string{"one": "one", "two": "two"})
	sh := func(script string) []byte {
		at := filepath.Join(t.TempDir(), "out")
		run(t, dir, "bash", "-c", strings.ReplaceAll(script, "OUT", at))
		return read(t, at)
	}
	wantLines(t, compareFiles(t, "x.a", sh("touch -d 2001-01-01 one; ar rcU OUT one two"), sh("touch -d 2002-01-01 one; ar rcU OUT one two")),
		"* /one", "-modified: 978307200 (2001-01-01 00:00:00 UTC)", "+modified: 1009843200 (2002-01-01 00:00:00 UTC)")
	wantLines(t, compareFiles(t, "x.a", sh("ar rcD OUT one two"), sh("ar rcD OUT two one")), "the members are the same, in another order")
	wantLines(t, compareFiles(t, "x.gz", sh("touch -d 2001-01-01 one; gzip -c one > OUT"), sh("touch -d 2002-01-01 one; gzip -c one > OUT")),
		"what is compressed is the same", "+modified: 1009843200")
	wantLines(t, compareFiles(t, "x.xz", sh("seq 9999 | xz -0 > OUT"), sh("seq 9999 | xz -9 > OUT")), "what is compressed is the same", "size: ")
	wantLines(t, compareFiles(t, "x.zip", sh("zip -qX0 OUT.zip one; mv OUT.zip OUT"), sh("zip -qX OUT.zip one; printf y | zip -qz OUT.zip; mv OUT.zip OUT")), `+comment: "y"`)
	wantLines(t, compareFiles(t, "x.tar", sh("tar --format=gnu -cf OUT one"), sh("tar --format=ustar -cf OUT one")), "format")
	long := strings.Repeat("long-", 8)
	put(t, dir, map[string]string{long + "1.o": "1", long + "2.o": "2"})
	a, b := sh("ar rcD OUT *.o"), sh("printf 3 > "+long+"2.o; ar rcD OUT *.o")
	wantLines(t, compareFiles(t, "x.a", a, b), "* /"+long+"2.o")
}

// TestModule changes a section of a compressed kernel module.
func TestModule(t *testing.T) {
	dir := put(t, t.TempDir(), map[string]string{"x.c": program, "y.c": strings.Replace(program, "3, 4", "3, 5", 1)})
	for _, pack := range []string{"xz", "zstd", "gzip"} {
		for _, name := range []string{"x", "y"} {
			run(t, dir, "gcc", "-c", "-O1", "-o", name+".ko", name+".c")
			run(t, dir, "bash", "-c", tool(t, pack)+" -q -c "+name+".ko > "+name)
		}
		wantLines(t, compareFiles(t, "x.ko", read(t, dir, "x"), read(t, dir, "y")), "* unpacked → .rodata", "in table, 12 bytes behind")
	}
}

// TestSmall are formats that are written by every package.
func TestSmall(t *testing.T) {
	dir := put(t, t.TempDir(), map[string]string{"x.py": "a = 1\n", "x.po": "msgid \"\"\nmsgstr \"Content-Type: text/plain; charset=UTF-8\\n\"\n\nmsgid \"one\"\nmsgstr \"eins\"\n"})
	t.Run("pyc", func(t *testing.T) {
		compile := func(date string) []byte {
			run(t, dir, "touch", "-d", date, "x.py")
			run(t, dir, "/usr/bin/python3", "-c", "import py_compile; py_compile.compile('x.py', 'x.pyc', invalidation_mode=py_compile.PycInvalidationMode.TIMESTAMP)")
			return read(t, dir, "x.pyc")
		}
		got := compareFiles(t, "x.pyc", compile("2001-01-01"), compile("2002-01-01"))
		wantLines(t, got, "* header", "-source modified: 978307200 (2001-01-01 00:00:00 UTC)", "+source modified: 1009843200")
		wantNo(t, got, "* code")
		a := compile("2001-01-01")
		put(t, dir, map[string]string{"x.py": "a = 2\n"})
		wantLines(t, compareFiles(t, "x.pyc", a, compile("2001-01-01")), "* code")
	})
	t.Run("mo", func(t *testing.T) {
		tool(t, "msgfmt")
		run(t, dir, "msgfmt", "-o", "a.mo", "x.po")
		run(t, dir, "sed", "-i", "s/eins/zwei/", "x.po")
		run(t, dir, "msgfmt", "-o", "b.mo", "x.po")
		wantLines(t, compareFiles(t, "x.mo", read(t, dir, "a.mo"), read(t, dir, "b.mo")), `-"one": "eins"`, `+"one": "zwei"`)
	})
	t.Run("json", func(t *testing.T) {
		got := compareFiles(t, "x.json", []byte(`{"a":[1,2,{"b":"c"}],"d":null}`), []byte(`{"a":[1,2,{"b":"x"}],"d":null}`))
		wantLines(t, got, "shown with each value on its line", `-      "b": "c"`, `+      "b": "x"`)
	})
}

// pack makes an RPM package.
func pack(t testing.TB, change func(r *rpmpack.RPM, m *rpmpack.RPMMetaData)) []byte {
	t.Helper()
	meta := rpmpack.RPMMetaData{Name: "one", Version: "1", Release: "2", Arch: "noarch", Description: "a package", BuildHost: "host", Compressor: "gzip"}
	change(nil, &meta)
	r, err := rpmpack.NewRPM(meta)
	if err != nil {
		t.Fatal(err)
	}
	r.AddFile(rpmpack.RPMFile{Name: "/usr/share/one", Body: []byte("first\n"), Mode: 0o100644, Owner: "root", Group: "root", MTime: 1700000000})
	change(r, &meta)
	var b bytes.Buffer
	if err := r.Write(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestRPM(t *testing.T) {
	nothing := func(*rpmpack.RPM, *rpmpack.RPMMetaData) {}
	a := pack(t, nothing)
	got := compareFiles(t, "x.rpm", a, pack(t, func(_ *rpmpack.RPM, m *rpmpack.RPMMetaData) { m.BuildHost = "other" }))
	wantLines(t, got, "* header", "tag BUILDHOST", "-host", "+other", "* signatures", "tag SHA256HEADER")
	wantNo(t, got, "* payload", "tag NAME")
	got = compareFiles(t, "x.rpm", a, pack(t, func(r *rpmpack.RPM, _ *rpmpack.RPMMetaData) {
		if r != nil {
			r.AddFile(rpmpack.RPMFile{Name: "/usr/share/one", Body: []byte("other\n"), Mode: 0o100644, Owner: "root", Group: "root", MTime: 1700000000})
		}
	}))
	wantLines(t, got, "tag FILEDIGESTS", "payload → /usr/share/one", "-first", "+other")
}

// database makes rpm's database with packages, by rpm.
func database(t testing.TB, packages ...[]byte) []byte {
	t.Helper()
	dir := t.TempDir()
	for _, p := range packages {
		put(t, dir, map[string]string{"x.rpm": string(p)})
		run(t, dir, "rpm", "--root", dir, "--dbpath", "/db", "--define", "_db_backend sqlite", "--justdb", "--nodeps", "--nosignature", "--nodigest",
			"--ignorearch", "--noscripts", "--notriggers", "-i", filepath.Join(dir, "x.rpm"))
	}
	return read(t, dir, "db", "rpmdb.sqlite")
}

// TestDatabases changes a tag of one of several packages.
func TestDatabases(t *testing.T) {
	tool(t, "rpm")
	named := func(name, license string) []byte {
		return pack(t, func(r *rpmpack.RPM, m *rpmpack.RPMMetaData) { m.Name, m.Licence = name, license })
	}
	other := named("other", "MIT")
	const file = "rpmdb.sqlite"
	a := database(t, named("one", "MIT"), other)
	b := database(t, named("one", "GPL"), other)
	got := compareFiles(t, file, a, b)
	wantLines(t, got, "* one-1-2.noarch", "its header differs", "tag LICENSE", "-MIT", "+GPL")
	wantNo(t, got, "+ other", "tag NAME")
	wantLines(t, compareFiles(t, file, a, database(t, other)), "- one-1-2.noarch", "a package of the database")
	b = bytes.Clone(a)
	b[27]++ // the file change counter
	wantLines(t, compareFiles(t, file, a, b), "* header of the database", "file change counter", "the packages in it are the same")
}

// TestOwners names the package of a file by the image's own database.
func TestOwners(t *testing.T) {
	tool(t, "rpm")
	db := database(t, pack(t, func(*rpmpack.RPM, *rpmpack.RPMMetaData) {}))
	image := func(text string) []byte {
		dir := put(t, t.TempDir(), map[string]string{
			"usr/share/one": text, "usr/bin/two": text, "usr/lib/sysimage/rpm/rpmdb.sqlite": string(db),
		})
		return mke2fs(t, dir)
	}
	got := compareFiles(t, "x", image("first\n"), image("other\n"))
	wantLines(t, got, "* /usr/share/one\n        from rpm/one-1-2.noarch\n", "* /usr/bin/two\n        |")
	debian := func(text string) []byte {
		return mke2fs(t, put(t, t.TempDir(), map[string]string{"usr/bin/two": text, "var/lib/dpkg/info/two:amd64.list": "/.\n/bin\n/bin/two\n"}))
	}
	wantLines(t, compareFiles(t, "x", debian("first\n"), debian("other\n")), "* /usr/bin/two\n        from deb/two:amd64\n")
}

// mke2fs makes an image of a folder.
func mke2fs(t testing.TB, dir string, args ...string) []byte {
	t.Helper()
	run(t, dir, "find", ".", "-exec", "touch", "-h", "-d", "2024-01-02T03:04:05Z", "{}", "+")
	at := filepath.Join(t.TempDir(), "image")
	const id = "00000000-0000-0000-0000-000000000001"
	run(t, dir, "mke2fs", append(args, "-q", "-t", "ext4", "-U", id, "-E", "hash_seed="+id, "-d", dir, at, "4M")...)
	return read(t, at)
}

// TestExt4 flips bytes of a file system, each of which says what it is of.
func TestExt4(t *testing.T) {
	dir := put(t, t.TempDir(), map[string]string{"a/deep/path/to/a/file": strings.Repeat("some text of a file\n", 500), "other": "other text\n"})
	a := mke2fs(t, dir)
	flip := func(at int) []byte {
		b := bytes.Clone(a)
		b[at] ^= 1
		return b
	}
	at := filepath.Join(put(t, t.TempDir(), map[string]string{"image": string(a)}), "image")
	block := func(request string) int {
		var n int
		out := run(t, "", "debugfs", "-R", request, at)
		if _, err := fmt.Sscan(out[strings.Index(out, "\n")+1:], &n); err != nil {
			t.Fatalf("%s: %v\n%s", request, err, out)
		}
		return n * 1024
	}
	where := run(t, "", "debugfs", "-R", "imap /other", at)
	var inode, offset int
	if _, err := fmt.Sscanf(where[strings.Index(where, "located"):], "located at block %d, offset 0x%x", &inode, &offset); err != nil {
		t.Fatalf("%v\n%s", err, where)
	}
	inode = inode*1024 + offset
	data := block("blocks /a/deep/path/to/a/file")
	for _, c := range []struct {
		name string
		at   int
		want []string
	}{
		{"file", data + 777, []string{"* /a/deep/path/to/a/file", "-some text of", "@@"}},
		{"folder", block("blocks /a/deep") + 30, []string{"b/x:"}},
		{"superblock", 1024 + 104, []string{"* superblock", "-uuid: 00000000-", "+uuid: 01000000-"}},
		{"time", inode + 12, []string{"* metadata", "ctime of 1 inode", "there lies: the inode or the folder of /other"}},
		{"bitmap", bitmap(t, a) + 3, []string{"* bookkeeping", "there lies: block bitmap of group 0"}},
		{"free space", 4<<20 - 100, []string{"* between the files", "belongs to no file"}},
	} {
		t.Run(c.name, func(t *testing.T) { wantLines(t, compareFiles(t, "x", a, flip(c.at)), c.want...) })
	}
}

// bitmap is where the bitmap of blocks of the first group is.
func bitmap(t testing.TB, image []byte) int {
	t.Helper()
	f, err := ext4.Open(bytes.NewReader(image))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range f.Regions() {
		if r.Name == "block bitmap of group 0" {
			return int(r.Off)
		}
	}
	t.Fatal("no bitmap")
	return 0
}

// TestMBR compares disks that have no GUID table.
func TestMBR(t *testing.T) {
	dir := put(t, t.TempDir(), map[string]string{"etc/one": "first\n"})
	disk := func(label string) []byte {
		b := make([]byte, 8<<20)
		copy(b[1<<20:], mke2fs(t, dir))
		at := filepath.Join(put(t, t.TempDir(), map[string]string{"disk": string(b)}), "disk")
		cmd := exec.Command(tool(t, "sfdisk"), "-q", at)
		cmd.Stdin = strings.NewReader("label: dos\nlabel-id: " + label + "\nstart=2048, size=8192, type=83\nstart=12288, size=2048, type=ef\n")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return read(t, at)
	}
	a := disk("0x1")
	put(t, dir, map[string]string{"etc/one": "other\n"})
	b := disk("0x2")
	b[6<<20+3] = 1
	got := compareFiles(t, "x.raw", a, b)
	wantLines(t, got, "* MBR", "disk signature", "* partition-1 (partition 1)", "* partition-1:/etc/one", "-first", "+other", "* esp (partition 2)")
}

// TestLimits shows what is not looked into as such, and never as the same.
func TestLimits(t *testing.T) {
	bomb := func(last byte) []byte { // 64 MiB in some kilobytes, in some bytes
		b := make([]byte, 64<<20)
		b[len(b)-1] = last
		return packGzip(t, packGzip(t, b))
	}
	a, b := bomb(1), bomb(2)
	contents := func(change func(d *differ)) string {
		d := newDiffer(t.Context(), Source{Name: "a"}, Source{Name: "b"}, Options{})
		change(d)
		top := &Node{}
		at := spot{depth: 0}
		d.contents(d.child(top, "bomb"), at, io.NewSectionReader(mem(a), 0, int64(len(a))), io.NewSectionReader(mem(b), 0, int64(len(b))))
		return text(t, top.Details)
	}
	wantLines(t, contents(func(*differ) {}), "* unpacked → unpacked", "1 byte differs, the first at byte 67108863")
	got := contents(func(d *differ) { d.held = 1 << 20 })
	wantLines(t, got, notFurther+"more than 1048576 bytes", "the first difference is at byte")
	got = contents(func(d *differ) { d.work = 32 << 20 })
	wantLines(t, got, notFurther+"enough has been unpacked", "the first difference is at byte")
	files := contents(func(d *differ) { d.memory = 1000 })
	wantLines(t, files, "1 byte differs, the first at byte 67108863")
	a, b = packGzip(t, []byte("one")), packGzip(t, []byte("two"))
	for range maxDepth {
		a, b = packGzip(t, a), packGzip(t, b)
	}
	wantLines(t, contents(func(*differ) {}), fmt.Sprintf("%scompressed with gzip, and %d other things are around it", notFurther, maxDepth))
}

// FuzzContents compares any bytes with files of each kind.
func FuzzContents(f *testing.F) {
	dir := put(f, f.TempDir(), map[string]string{"x.c": "int x = 1; int y(int z) { return z + x; }\n", "f": "text\n"})
	run(f, dir, "gcc", "-c", "-O1", "-g0", "x.c")
	sh := "tar -cf f.tar f; gzip -kn f; xz -k f; zstd -q -k f; bzip2 -k f; ar rcD f.a f; zip -q f.zip f; echo f | cpio -o -H newc --quiet > f.cpio; mksquashfs f f.squashfs -quiet -no-progress"
	run(f, dir, "bash", "-c", sh)
	var seeds [][]byte
	for _, name := range []string{"x.o", "f.tar", "f.gz", "f.xz", "f.zst", "f.bz2", "f.a", "f.zip", "f.cpio", "f.squashfs"} {
		seeds = append(seeds, read(f, dir, name))
	}
	seeds = append(seeds, pack(f, func(*rpmpack.RPM, *rpmpack.RPMMetaData) {}),
		[]byte("\xde\x12\x04\x95\x00\x00\x00\x00\x01\x00\x00\x00\x1c\x00\x00\x00\x24\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x2c\x00\x00\x00\x01\x00\x00\x00\x2e\x00\x00\x00a\x00b\x00"),
		[]byte(`{"a":[1]}`), []byte("\xa7\x0d\r\n\x00\x00\x00\x00\x01\x02\x03\x04\x05\x00\x00\x00code"))
	for i, s := range seeds {
		f.Add(i, s)
		f.Add(i, append(bytes.Clone(s[:len(s)/2]), bytes.ToUpper(s[len(s)/2:])...))
	}
	f.Fuzz(func(t *testing.T, i int, other []byte) {
		if i < 0 || i >= len(seeds) || len(other) > 1<<20 {
			return
		}
		d := newDiffer(t.Context(), Source{Name: "a.pyc", Disk: mem(seeds[i]), Size: int64(len(seeds[i]))}, Source{Name: "b.pyc", Disk: mem(other), Size: int64(len(other))}, Options{})
		d.held, d.work = 4<<20, 32<<20
		top := &Node{}
		d.file(top)
		prune(top)
		if equal := bytes.Equal(seeds[i], other); equal != (len(top.Details) == 0) {
			t.Errorf("equal: %v, nodes: %d", equal, len(top.Details))
		}
		var b strings.Builder
		if err := JSON(&b, "a", "b", top.Details); err != nil {
			t.Error(err)
		}
	})
}
