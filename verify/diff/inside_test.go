package diff

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"caisson/lock/tooltest"
)

func run(t testing.TB, dir, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(tooltest.Find(t, name), args...)
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
		{"x.whl", "/usr/bin/python3", out("/usr/bin/python3 -m zipfile -c OUT d three"), "/d/one"},
		{"x.deb", "dpkg-deb", out("mkdir DEBIAN && printf 'Package: x\\nVersion: 1\\nArchitecture: all\\nMaintainer: x <x@example.org>\\nDescription: x\\n' > DEBIAN/control && dpkg-deb --root-owner-group -b . OUT.deb && mv OUT.deb OUT"), "/data.tar.xz → unpacked → /d/one"},
		{"x.squashfs", "mksquashfs", out("mksquashfs . OUT -noappend -quiet -no-progress"), "/d/one"},
		{"x.ext4", "mke2fs", out("/usr/sbin/mke2fs -q -t ext4 -U 00000000-0000-0000-0000-000000000001 -E hash_seed=00000000-0000-0000-0000-000000000001 -d . OUT 4M"), "/d/one"},
	} {
		t.Run(c.name, func(t *testing.T) {
			tooltest.Find(t, c.tool)
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
			run(t, dir, "bash", "-c", tooltest.Find(t, pack)+" -q -c "+name+".ko > "+name)
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
		tooltest.Find(t, "msgfmt")
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
