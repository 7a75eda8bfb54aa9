package view

import (
	"encoding/xml"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"caisson/lock/tooltest"
)

// everything is a package that has all that repodata can say of one.
const everything = `
Name: everything
Epoch: 4
Version: 1.0~rc2
Release: 1^git2
Summary: all < that & "is"
License: MIT AND BSD
Group: Some/Group
Vendor: The Vendor
Packager: Somebody <some@body.example>
URL: https://example.org/?a=b&c=d
BuildArch: noarch
Provides: one = 1:2-3, two, config(everything) = 7
Requires: plain >= 1, plain <= 9, /usr/bin/own, /etc/own.conf, two, /usr/bin/not-own
Requires(pre): before
Requires(post): after = 2
Requires(preun): gone
Requires: (this or that), (a >= 1 if b)
Conflicts: enemy < 2:3, enemy > 7
Obsoletes: former < 4:1.0~rc2-1
Recommends: better
Suggests: nice = 3
Supplements: (langpacks-de and everything)
Enhances: other >= 0:0-0
%description
Several   lines,

one of them empty.
%prep
%build
%install
mkdir -p %{buildroot}/usr/bin %{buildroot}/etc %{buildroot}/usr/lib %{buildroot}/usr/share/everything "%{buildroot}/opt/a b/bin"
echo > %{buildroot}/usr/bin/own
echo > %{buildroot}/etc/own.conf
echo > %{buildroot}/usr/lib/sendmail
echo > "%{buildroot}/opt/a b/bin/x&y"
ln -s own %{buildroot}/usr/bin/link
%files
/usr/bin/own
/usr/bin/link
%config /etc/own.conf
/usr/lib/sendmail
%dir /usr/share/everything
%ghost /usr/share/everything/ghost
"/opt/a b"
%changelog
* Wed Nov 12 2025 Some Body <some@body.example> - 4:1.0-12
- the newest, with <angles>
* Wed Nov 12 2025 Some Body <some@body.example> - 4:1.0-11
- of the same day
* Wed Nov 12 2025 Some Body <some@body.example> - 4:1.0-10
- of the same day again
* Tue Nov 11 2025 A - 9
- 9
* Tue Nov 11 2025 A - 8
- 8
* Mon Nov 10 2025 A - 7
- 7
* Sun Nov 09 2025 A - 6
- 6
* Sat Nov 08 2025 A - 5
- 5
* Fri Nov 07 2025 A - 4
- 4
* Thu Nov 06 2025 A - 3
- 3
* Wed Nov 05 2025 A - 2
- 2
* Tue Nov 04 2025 A - 1
- 1
`

// rpmbuild makes packages of a spec file: the source package too.
func rpmbuild(t *testing.T, spec string) []string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "x.spec"), []byte(spec), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := run(t, dir, nil, tooltest.Find(t, "rpmbuild"), "--define", "_topdir "+dir, "-ba", "x.spec"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var files []string
	for _, pattern := range []string{"RPMS/*/*.rpm", "SRPMS/*.rpm"} {
		some, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, some...)
	}
	if len(files) != 2 {
		t.Fatalf("rpmbuild made %q", files)
	}
	return files
}

// TestCreaterepo compares every element and attribute of the repodata, in
// their order, with what createrepo_c makes of the same packages. Two things
// differ: a file's time, which createrepo_c takes from the disk, and the
// versions of libc.so.6 that a package requires, of which it keeps the newest.
func TestCreaterepo(t *testing.T) {
	createrepo := tooltest.Find(t, "createrepo_c")
	s := newStore(t)
	l := world(t, s)
	l.Inputs = append(l.Inputs, realPackages(t, s)...)
	for _, file := range rpmbuild(t, everything) {
		l.Inputs = append(l.Inputs, realPackage(t, s, file))
	}
	dir := write(t, rpmTree(t, s, l)) + "/x86_64/baseos"
	other := t.TempDir()
	if out, err := run(t, "", nil, createrepo, "--general-compress-type", "gz", "--simple-md-filenames", "-o", other, dir); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, part := range []string{"primary", "filelists", "other"} {
		ours, theirs := flatten(t, openData(t, dir, part)), flatten(t, openData(t, other, part))
		if len(ours) != len(theirs) {
			t.Errorf("%s: %d packages, want %d", part, len(ours), len(theirs))
		}
		for _, name := range slices.Sorted(maps.Keys(theirs)) {
			got, want := ours[name], theirs[name]
			for _, line := range want {
				if !slices.Contains(got, line) {
					t.Errorf("%s: %s: nothing says %q", part, name, line)
				}
			}
			compareLines(t, part+": "+name, slices.DeleteFunc(got, isLibC), slices.DeleteFunc(want, isLibC))
		}
	}
}

func isLibC(line string) bool {
	return strings.HasPrefix(line, "metadata/package/format/requires/entry name=libc.so.6")
}

// compareLines says where two packages begin to differ.
func compareLines(t *testing.T, what string, got, want []string) {
	t.Helper()
	for i := range max(len(got), len(want)) {
		var g, w string
		if i < len(got) {
			g = got[i]
		}
		if i < len(want) {
			w = want[i]
		}
		if g != w {
			t.Errorf("%s:\ngot  %q\nwant %q", what, g, w)
			return
		}
	}
}

// flatten is the packages of a file of repodata by their id: a line for each
// element, with its path, its attributes by name, and its text.
func flatten(t *testing.T, r io.Reader) map[string][]string {
	t.Helper()
	out := map[string][]string{}
	var id string
	var lines, path []string
	d := xml.NewDecoder(r)
	for {
		token, err := d.Token()
		if err == io.EOF {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		switch e := token.(type) {
		case xml.StartElement:
			path = append(path, e.Name.Local)
			if e.Name.Local == "package" {
				id, lines = "", nil
			}
			line := strings.Join(path, "/")
			slices.SortFunc(e.Attr, func(a, b xml.Attr) int { return strings.Compare(a.Name.Local, b.Name.Local) })
			for _, a := range e.Attr {
				if e.Name.Local == "time" && a.Name.Local == "file" {
					continue
				}
				if a.Name.Local == "pkgid" && a.Value != "YES" {
					id = a.Value
				}
				line += " " + a.Name.Local + "=" + a.Value
			}
			lines = append(lines, line+" ")
		case xml.CharData:
			if n := len(lines); n > 0 && len(path) > 2 {
				lines[n-1] += string(e)
				if path[len(path)-1] == "checksum" {
					id = string(e)
				}
			}
		case xml.EndElement:
			if path = path[:len(path)-1]; e.Name.Local == "package" {
				for i := range lines {
					lines[i] = strings.TrimRight(lines[i], " \n")
				}
				out[id] = lines
			}
		}
	}
}
