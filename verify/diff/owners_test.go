package diff

import (
	"bytes"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/rpmpack"

	"caisson/build/image/ext4"
	"caisson/lock/tooltest"
)

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
	tooltest.Find(t, "rpm")
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
	tooltest.Find(t, "rpm")
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
