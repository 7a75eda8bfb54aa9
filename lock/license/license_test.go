package license_test

import (
	"compress/gzip"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/github/go-spdx/v2/spdxexp"

	"caisson/lock/license"
)

func TestParse(t *testing.T) {
	for text, want := range map[string]string{
		"":    "",
		"MIT": "MIT",
		"mit": "MIT",
		"GPL-2.0-or-later AND (MIT OR Apache-2.0)": "GPL-2.0-or-later AND (MIT OR Apache-2.0)",
		"apache-2.0 WITH LLVM-Exception OR NCSA":   "Apache-2.0 WITH LLVM-exception OR NCSA",
		"GPL-2.0-only WITH Linux-syscall-note":     "GPL-2.0-only WITH Linux-syscall-note",
		"GPL-2.0":                                  "GPL-2.0-only",
		"LGPL-2.1+":                                "LGPL-2.1-or-later",
		"MPL-2.0+ or MIT":                          "LicenseRef-MPL-2.0-or-later OR MIT",
		"LicenseRef-Fedora-Public-Domain":          "LicenseRef-Fedora-Public-Domain",
		"GPLv2+ and BSD":                           "GPL-2.0-or-later AND LicenseRef-Callaway-BSD",
		"ASL 2.0":                                  "Apache-2.0",
		"MPLv1.1 or LGPLv2+ or GPLv3+":             "MPL-1.1 OR LGPL-2.1-or-later OR GPL-3.0-or-later",
		"GPL+ or Artistic":                         "GPL-1.0-or-later OR Artistic-1.0-Perl",
		"BSD and (GPL+ or Artistic)":               "LicenseRef-Callaway-BSD AND (GPL-1.0-or-later OR Artistic-1.0-Perl)",
		"Artistic":                                 "LicenseRef-Callaway-Artistic",
		"GPLv2+ with exceptions":                   "LicenseRef-Callaway-GPLv2-or-later-with-exceptions",
		"GPLv2 and Redistributable, no modification permitted": "GPL-2.0-only AND LicenseRef-Fedora-Firmware",
		"LGPLv2.1, MIT and GPLv2":                              "LGPL-2.1-only AND MIT AND GPL-2.0-only",
		"(GPLv3+ and ASL 2.0)":                                 "GPL-3.0-or-later AND Apache-2.0",
		"Public domain":                                        "LicenseRef-Fedora-Public-Domain",
		"MIT and MIT and (MIT)":                                "MIT",
		"GPL-2+ AND Expat AND public-domain":                   "GPL-2.0-or-later AND MIT AND LicenseRef-DEP5-public-domain",
		"GFDL-NIV-1.3+":                                        "GFDL-1.3-no-invariants-or-later",
		"GPL-3+ with GCC-Runtime-Library exception":            "GPL-3.0-or-later WITH GCC-exception-3.1",
		"GPL-3+ with Bison exception":                          "GPL-3.0-or-later WITH Bison-exception-2.2",
		"GPL-2+ with Bison exception":                          "LicenseRef-GPL-2-or-later-with-Bison-exception",
		"GPL-2 with Linux-syscall-note exception":              "GPL-2.0-only WITH Linux-syscall-note",
		"GPL-2+ with OpenSSL exception or MIT":                 "LicenseRef-GPL-2-or-later-with-OpenSSL-exception OR MIT",
		"GPL-2+ or Artistic-2.0, and BSD-3-clause":             "(GPL-2.0-or-later OR Artistic-2.0) AND BSD-3-Clause",
		"Perl":                "GPL-1.0-or-later OR Artistic-1.0-Perl",
		"Apache-2":            "Apache-2.0",
		"MIT or (BSD and ISC": "LicenseRef-MIT-or--BSD-and-ISC-428f7e33",
		"MIT BSD":             "LicenseRef-MIT-BSD",
		"Licensed only for approved usage, see COPYING": "LicenseRef-Licensed-only-for-approved-usage--see-COPYING-5d5cab7b",
		"Red Hat and Others":                            "LicenseRef-Red-Hat-and-Others",
		"GPL-2.0-only WITH Nothing-exception":           "LicenseRef-GPL-2.0-only-WITH-Nothing-exception",
		"()":                                            "LicenseRef-2e38e77b",
	} {
		e := license.Parse(text)
		if e.SPDX != want {
			t.Errorf("%q: got %s, want %s", text, e.SPDX, want)
		}
		valid(t, text, e)
	}
}

// valid checks an expression with go-spdx, and that its LicenseRefs are
// those that it lists.
func valid(t testing.TB, text string, e license.Expression) {
	t.Helper()
	if e.SPDX == "" {
		return
	}
	if ok, _ := spdxexp.ValidateLicenses([]string{e.SPDX}); !ok {
		t.Errorf("%q: %s is no SPDX expression", text, e.SPDX)
	}
	var want []string
	for _, word := range strings.FieldsFunc(e.SPDX, func(r rune) bool { return r == ' ' || r == '(' || r == ')' }) {
		if strings.HasPrefix(word, "LicenseRef-") {
			want = append(want, word)
		}
	}
	slices.Sort(want)
	var got []string
	for _, r := range e.Refs {
		got = append(got, r.ID)
		if r.Text == "" {
			t.Errorf("%q: %s has no text", text, r.ID)
		}
	}
	if !slices.Equal(slices.Compact(got), slices.Compact(want)) {
		t.Errorf("%q: the references are %q, want %q", text, got, want)
	}
	if again := license.Parse(e.SPDX); again.SPDX != e.SPDX {
		t.Errorf("%q: read again, %s is %s", text, e.SPDX, again.SPDX)
	}
}

func TestDeep(t *testing.T) {
	for _, text := range []string{
		strings.Repeat("(", 100_000) + "MIT" + strings.Repeat(")", 100_000),
		strings.Repeat("(", 100) + "MIT" + strings.Repeat(")", 100),
		strings.Repeat("MIT and ", 100_000) + "MIT",
	} {
		if e := license.Parse(text); len(e.Refs) != 1 || e.Refs[0].Known || len(e.SPDX) > 100 {
			t.Errorf("got %q, want one short reference", e.SPDX)
		}
	}
}

func TestUnknown(t *testing.T) {
	e := license.Parse("GPLv2+ and Frobnicate License and BSD")
	if got := e.Unknown(); !slices.Equal(got, []string{"Frobnicate License"}) {
		t.Errorf("got %q", got)
	}
}

func TestDenied(t *testing.T) {
	allowed := []string{"MIT", "Apache-2.0", "GPL-2.0-only WITH Linux-syscall-note", "LicenseRef-Callaway-BSD"}
	for text, want := range map[string]string{
		"":                              "",
		"MIT":                           "",
		"MIT and ASL 2.0 and BSD":       "",
		"GPLv3+ or MIT":                 "",
		"GPLv3+ and MIT":                "GPL-3.0-or-later",
		"(GPLv3+ or LGPLv3) and MIT":    "GPL-3.0-or-later, LGPL-3.0-only",
		"(GPLv3+ or MIT) and ISC":       "ISC",
		"GPL-2.0-only":                  "GPL-2.0-only",
		"Some Words":                    "LicenseRef-Some-Words",
		"GPL-2 with Linux-syscall-note": "",
		// 2^40 combinations, if they were written out
		strings.Repeat("(MIT or ISC) and ", 20) + strings.Repeat("(ASL 2.0 or ISC) and ", 20) + "zlib": "Zlib",
	} {
		got := license.Parse(text).Denied(func(id string) bool { return slices.Contains(allowed, id) })
		if strings.Join(got, ", ") != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

// TestCentOS reads every licence of CentOS Stream 9: at most one package in
// two hundred may have a name that is in no list.
func TestCentOS(t *testing.T) {
	files, err := filepath.Glob("../../../shared/data/rpm-md/c9s-*/repodata/*-primary.xml.gz")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Skip("no metadata of CentOS Stream 9 in ../shared/data")
	}
	packages, unknown := 0, map[string]int{}
	for _, file := range files {
		licenses(t, file, func(text string) {
			packages++
			e := license.Parse(text)
			valid(t, text, e)
			for _, name := range e.Unknown() {
				unknown[name]++
			}
		})
	}
	without := 0
	for name, n := range unknown {
		t.Logf("%d packages: %q", n, name)
		without += n
	}
	t.Logf("%d of %d packages have a name that is in no list", without, packages)
	if packages < 10_000 || without*200 > packages {
		t.Errorf("%d of %d packages have a name that is in no list, want at most one in 200 of 10,000 and more", without, packages)
	}
}

func licenses(t *testing.T, file string, f func(string)) {
	t.Helper()
	in, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	zr, err := gzip.NewReader(in)
	if err != nil {
		t.Fatal(err)
	}
	dec := xml.NewDecoder(zr)
	for {
		tok, err := dec.Token()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if e, ok := tok.(xml.StartElement); ok && e.Name.Local == "license" {
			var text string
			if err := dec.DecodeElement(&text, &e); err != nil {
				t.Fatal(err)
			}
			f(text)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"(MPLv1.1 or LGPLv3+) and LGPLv3 and LGPLv2+ and BSD and (MPLv1.1 or GPLv2 or LGPLv2 or Netscape) and Public Domain and ASL 2.0 and MPLv2.0 and CC0",
		"(BSD-3-clause and BSD-3-clause-generic) AND (GPL-2+ or AFL-2.1 and Expat and Tcl-BSDish) AND (GPL-2+ with Autoconf exception)",
		"GPL-2.0-or-later AND LGPL-2.1-or-later WITH GCC-exception-2.0 AND LicenseRef-Fedora-Public-Domain",
		"GPLv2 and Redistributable, no modification permitted", "((", ", and", "MIT WITH", "LicenseRef-", "+", "DocumentRef-x:LicenseRef-y",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		valid(t, text, license.Parse(text))
	})
}
