package rpmdb

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/adler32"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	rpmdb "github.com/knqyf263/go-rpmdb/pkg"

	"caisson/lock/rpmmd"
	"caisson/lock/tooltest"
)

func run(t testing.TB, stdin []byte, name string, args ...string) []byte {
	t.Helper()
	cmd := exec.Command(tooltest.Find(t, name), args...)
	var errs bytes.Buffer
	cmd.Stdin, cmd.Stderr = bytes.NewReader(stdin), &errs
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "HOME="+t.TempDir())
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, errs.Bytes())
	}
	return out
}

const spec = `
Name: demo-release
Epoch: 4
Version: 9.2
Release: 3%{?with_x:x}
Summary: s
License: MIT
BuildArch: noarch
Provides: system-release = 9.2-3, system-release(releasever) = 9, unversioned
Requires: /bin/sh, base >= 1:2~rc1, other < 5, (one if three)
Conflicts: c = 1
Obsoletes: o <= 2-1
Recommends: r > 3
Suggests: s, s2 = 1
Supplements: (su and su2)
Enhances: en
%description
d
%package sub
Summary: s
%description sub
d
%install
mkdir -p %{buildroot}/usr/share/demo/deep %{buildroot}/etc
echo x > %{buildroot}/usr/share/demo/deep/file
echo y > %{buildroot}/etc/demo.conf
%files
/usr/share/demo
%config /etc/demo.conf
%ghost /var/log/demo.log
%files sub
`

// buildRPMs makes two packages.
func buildRPMs(t testing.TB) []string {
	t.Helper()
	tooltest.Find(t, "rpmbuild")
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "demo.spec"), []byte(strings.Replace(spec, "/var/log/demo.log", "/etc/demo.log", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, nil, "rpmbuild", "--define", "_topdir "+dir, "-bb", filepath.Join(dir, "demo.spec"))
	all, err := filepath.Glob(filepath.Join(dir, "RPMS/*/*.rpm"))
	if err != nil || len(all) != 2 {
		t.Fatal(all, err)
	}
	return all
}

// install makes a root with packages.
func install(t testing.TB, rpms []string) string {
	t.Helper()
	root := t.TempDir()
	args := []string{"--root", root, "--dbpath", "/usr/lib/sysimage/rpm", "--define", "_db_backend sqlite", "--nodeps", "--noscripts", "-i"}
	run(t, nil, "rpm", append(args, rpms...)...)
	return root
}

// headersOf are the headers in a root's SQLite database.
func headersOf(t testing.TB, root string) [][]byte {
	t.Helper()
	var out [][]byte
	err := readSQLite(context.Background(), filepath.Join(root, "usr/lib/sysimage/rpm", fileSQLite), func(_ uint32, b []byte) error {
		out = append(out, slices.Clone(b))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// ndbOf writes headers as rpm's ndb does; not every rpm is built with it. That
// we read a real one is shown with the sample of SLE.
func ndbOf(headers [][]byte) []byte {
	le := binary.LittleEndian
	out := make([]byte, ndbPage)
	copy(out, "RpmP")
	le.PutUint32(out[8:], 1)
	le.PutUint32(out[12:], 1)
	for i := ndbHeader; i < ndbPage; i += ndbSlot {
		copy(out[i:], "Slot")
	}
	for i, h := range headers {
		blob := le.AppendUint32(le.AppendUint32(le.AppendUint32([]byte("BlbS"), uint32(i+1)), 1), uint32(len(h)))
		blob = append(blob, h...)
		for (len(blob)+ndbBlobTail)%ndbBlock != 0 {
			blob = append(blob, 0)
		}
		blob = append(le.AppendUint32(le.AppendUint32(blob, adler32.Checksum(blob)), uint32(len(h))), "BlbE"...)
		slot := out[ndbHeader+i*ndbSlot:]
		le.PutUint32(slot[4:], uint32(i+1))
		le.PutUint32(slot[8:], uint32(len(out)/ndbBlock))
		le.PutUint32(slot[12:], uint32(len(blob)/ndbBlock))
		out = append(out, blob...)
	}
	return out
}

// tags are the kinds of dependencies and rpm's tags for them.
var tags = []struct {
	kind, tag string
	deps      func(*rpmmd.Package) []rpmmd.Dep
}{
	{"provides", "PROVIDE", func(p *rpmmd.Package) []rpmmd.Dep { return p.Provides }},
	{"requires", "REQUIRE", func(p *rpmmd.Package) []rpmmd.Dep { return p.Requires }},
	{"conflicts", "CONFLICT", func(p *rpmmd.Package) []rpmmd.Dep { return p.Conflicts }},
	{"obsoletes", "OBSOLETE", func(p *rpmmd.Package) []rpmmd.Dep { return p.Obsoletes }},
	{"recommends", "RECOMMEND", func(p *rpmmd.Package) []rpmmd.Dep { return p.Recommends }},
	{"suggests", "SUGGEST", func(p *rpmmd.Package) []rpmmd.Dep { return p.Suggests }},
	{"supplements", "SUPPLEMENT", func(p *rpmmd.Package) []rpmmd.Dep { return p.Supplements }},
	{"enhances", "ENHANCE", func(p *rpmmd.Package) []rpmmd.Dep { return p.Enhances }},
}

// dump is all that is known of packages, a line each.
func dump(packages []rpmmd.Package) []string {
	var out []string
	for i := range packages {
		p := &packages[i]
		out = append(out, fmt.Sprintf("%s package %s %d %d", p, p.SourceRPM, p.BuildTime, p.InstalledSize))
		for _, k := range tags {
			for _, d := range k.deps(p) {
				out = append(out, fmt.Sprintf("%s %s %s", p, k.kind, d))
			}
		}
		for _, f := range p.Files {
			out = append(out, fmt.Sprintf("%s file %s", p, f))
		}
	}
	slices.Sort(out)
	return out
}

// rpmDump is the same as rpm says it.
func rpmDump(t testing.TB, args ...string) []string {
	t.Helper()
	qf := `package\t%{NAME}\t%{EPOCHNUM}\t%{VERSION}\t%{RELEASE}\t%{ARCH}\t%|SOURCERPM?{%{SOURCERPM}}|\t%{BUILDTIME}\t%{LONGSIZE}\n[file\t%{FILENAMES}\n]`
	for _, k := range tags {
		qf += "[" + k.kind + `\t%{` + k.tag + `NAME}\t%{` + k.tag + `FLAGS}\t%{` + k.tag + `VERSION}\n]`
	}
	var out []string
	who := ""
	for line := range strings.Lines(string(run(t, nil, "rpm", append(args, "-qa", "--qf", qf)...))) {
		w := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		switch w[0] {
		case "package":
			epoch, _ := strconv.Atoi(w[2])
			who = fmt.Sprintf("%s-%s.%s", w[1], rpmmd.EVR{Epoch: epoch, Version: w[3], Release: w[4]}, w[5])
			if w[1] == "gpg-pubkey" {
				who = ""
				continue
			}
			out = append(out, fmt.Sprintf("%s package %s %s %s", who, w[6], w[7], w[8]))
		case "file":
			out = append(out, who+" file "+w[1])
		default:
			flags, err := strconv.ParseUint(w[2], 10, 64)
			if err != nil {
				t.Fatal(line, err)
			}
			if flags&(senseRPMLib|senseMissingOK) != 0 || who == "" {
				continue
			}
			d := rpmmd.Dep{Name: w[1]}
			if w[3] != "" {
				if d.Flags = sense(flags); d.Flags != 0 {
					if d.EVR, err = rpmmd.ParseEVR(w[3]); err != nil {
						t.Fatal(line, err)
					}
				}
			}
			out = append(out, fmt.Sprintf("%s %s %s", who, w[0], d))
		}
	}
	slices.Sort(out)
	return out
}

func compare(t *testing.T, got, want []string) {
	t.Helper()
	if slices.Equal(got, want) {
		return
	}
	t.Errorf("got %d lines, rpm has %d", len(got), len(want))
	for i := 0; i < len(got) && i < len(want); i++ {
		if got[i] != want[i] {
			t.Errorf("got  %q\nwant %q", got[i], want[i])
			return
		}
	}
}

func TestFromRoot(t *testing.T) {
	root := install(t, buildRPMs(t))
	want := rpmDump(t, "--root", root, "--dbpath", "/usr/lib/sysimage/rpm", "--define", "_db_backend sqlite")
	ndb := t.TempDir()
	if err := os.MkdirAll(filepath.Join(ndb, "var/lib/rpm"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(ndb, "var/lib/rpm", fileNDB), ndbOf(headersOf(t, root)), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, root := range []string{root, ndb} {
		got, err := FromRoot(context.Background(), root)
		if err != nil {
			t.Error(err)
			continue
		}
		lines := dump(got)
		compare(t, lines, want)
		for _, want := range []string{
			"requires base >= 1:2~rc1", "requires (one if three)", "conflicts c = 1", "obsoletes o <= 2-1", "recommends r > 3", "suggests s2 = 1",
			"supplements (su and su2)", "enhances en", "file /usr/share/demo/deep/file", "provides unversioned",
		} {
			if !slices.Contains(lines, "demo-release-4:9.2-3.noarch "+want) {
				t.Errorf("no %q", want)
			}
		}
		if v := ReleaseVer(got); v != "9" {
			t.Errorf("releasever %q", v)
		}
	}
	if _, err := FromRoot(context.Background(), t.TempDir()); !errors.Is(err, ErrNone) {
		t.Errorf("got %v", err)
	}
}

// samples are databases of real systems, in the test data of go-rpmdb, which
// is where the module cache is.
func samples(t testing.TB) []string {
	t.Helper()
	out, err := exec.Command(tooltest.Find(t, "go"), "list", "-m", "-f", "{{.Dir}}", "github.com/knqyf263/go-rpmdb").Output()
	if err != nil {
		t.Skip("no module cache: ", err)
	}
	all, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(out)), "pkg/testdata/*/*"))
	if err != nil || len(all) == 0 {
		t.Skip("go-rpmdb has no test data here: ", err)
	}
	return all
}

// TestSamples reads every kind of database there is (bdb in both byte
// orders), beside rpm where it reads it, and beside go-rpmdb.
func TestSamples(t *testing.T) {
	kinds := map[string]int{}
	for _, name := range samples(t) {
		sample := filepath.Base(filepath.Dir(name))
		if !slices.Contains([]string{"cbl-mariner-2.0", "centos5-plain", "centos7-plain", "fedora35", "libuuid", "sle15-bci", "ubi8-s390x"}, sample) {
			continue
		}
		root := t.TempDir()
		db := filepath.Join(root, "var/lib/rpm")
		if err := os.MkdirAll(db, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := copyFile(filepath.Join(db, filepath.Base(name)), name); err != nil {
			t.Fatal(err)
		}
		got, err := FromRoot(context.Background(), root)
		if err != nil {
			t.Errorf("%s: %v", sample, err)
			continue
		}
		kinds[filepath.Base(name)]++
		peer, err := rpmdb.Open(filepath.Join(db, filepath.Base(name)))
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := peer.ListPackages()
		if err != nil {
			t.Fatal(err)
		}
		var names, want []string
		for i := range got {
			names = append(names, got[i].String())
		}
		slices.Sort(names)
		for _, p := range theirs {
			if p.Name != "gpg-pubkey" {
				want = append(want, (&rpmmd.Package{Name: p.Name, Arch: p.Arch, EVR: rpmmd.EVR{Epoch: p.EpochNum(), Version: p.Version, Release: p.Release}}).String())
			}
		}
		slices.Sort(want)
		if err := peer.Close(); err != nil {
			t.Error(err)
		}
		if !slices.Equal(names, want) {
			t.Errorf("%s: got %d packages, want %d", sample, len(names), len(want))
		}
		backend := map[string]string{"fedora35": "sqlite", "centos7-plain": "bdb_ro"}[sample]
		if backend == "" || testing.Short() {
			continue // not every rpm reads ndb or bdb of the other byte order
		}
		compare(t, dump(got), rpmDump(t, "--dbpath", db, "--define", "_db_backend "+backend))
	}
	for _, k := range mainFiles() {
		if kinds[k] == 0 {
			t.Errorf("no %s among the samples", k)
		}
	}
}

// TestDamaged cuts and flips bytes: an error or packages, and never a panic.
func TestDamaged(t *testing.T) {
	root := install(t, buildRPMs(t))
	sqlite, err := os.ReadFile(filepath.Join(root, "usr/lib/sysimage/rpm", fileSQLite))
	if err != nil {
		t.Fatal(err)
	}
	ndb := ndbOf(headersOf(t, root))
	flipped := bytes.Replace(ndb, []byte("/usr/share/demo/"), []byte("/usr/share/demo!"), 1)
	if err := readBytes(flipped); err == nil || !strings.Contains(err.Error(), "checksum mismatch") {
		t.Errorf("got %v", err)
	}
	for _, whole := range [][]byte{sqlite, ndb} {
		if err := readBytes(whole); err != nil {
			t.Error(err)
		}
		for _, n := range []int{0, 1, 15, 16, 40, 511, 512, 4095, 4096, 5000, len(whole) / 2} {
			if err := readBytes(whole[:n]); err == nil {
				t.Errorf("%d bytes of %d are read", n, len(whole))
			}
		}
	}
}

// readBytes reads a database that is in memory.
func readBytes(b []byte) error {
	dir, err := os.MkdirTemp("", "rpmdb-test-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.WriteFile(filepath.Join(dir, fileSQLite), b, 0o600); err != nil {
		return err
	}
	_, err = read(context.Background(), dir)
	return err
}

// TestSQLiteTricks has databases that would give rows without end.
func TestSQLiteTricks(t *testing.T) {
	for _, tt := range []struct{ sql, want string }{
		{"CREATE VIEW Packages AS WITH RECURSIVE c(blob) AS (SELECT zeroblob(9) UNION ALL SELECT blob FROM c) SELECT blob FROM c;", "no table Packages"},
		{"CREATE TABLE Packages (hnum INTEGER PRIMARY KEY, blob BLOB AS (zeroblob(1000000000))); INSERT INTO Packages (hnum) VALUES (1);", "too big"},
		{"CREATE TABLE Packages (hnum INTEGER PRIMARY KEY, blob BLOB AS (zeroblob(60000000))); INSERT INTO Packages (hnum) VALUES (1);", "larger than the file"},
		{"CREATE TABLE Packages (hnum INTEGER PRIMARY KEY, blob TEXT); INSERT INTO Packages VALUES (1, NULL);", "a header of 0 bytes"},
	} {
		dir := t.TempDir()
		db, err := sql.Open("sqlite", filepath.Join(dir, fileSQLite))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := db.Exec(tt.sql); err != nil {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := read(context.Background(), dir); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s\ngot  %v\nwant %s", tt.sql, err, tt.want)
		}
	}
}

func FuzzHeader(f *testing.F) {
	if _, err := exec.LookPath("rpmbuild"); err == nil {
		for _, h := range headersOf(f, install(f, buildRPMs(f))) {
			f.Add(h)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c := collector{left: int64(len(b)), paths: 1 << 20}
		if err := c.add(1, b); err == nil && len(c.packages) == 1 && c.packages[0].Version == "" {
			t.Error("a package without a version")
		}
	})
}

func FuzzFile(f *testing.F) {
	for _, seed := range []string{fileNDB, fileBDB} {
		for _, name := range samples(f) {
			if st, err := os.Stat(name); err == nil && filepath.Base(name) == seed && st.Size() < 2<<20 {
				b, err := os.ReadFile(name)
				if err != nil {
					f.Fatal(err)
				}
				f.Add(b)
			}
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c := collector{left: int64(len(b)), paths: 1 << 20}
		_ = readNDB(context.Background(), bytes.NewReader(b), int64(len(b)), c.add)
		c = collector{left: int64(len(b)), paths: 1 << 20}
		_ = readBDB(context.Background(), bytes.NewReader(b), int64(len(b)), c.add)
	})
}
