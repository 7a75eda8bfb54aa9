package license

import "strings"

// dep5Umbrellas are the short names (copyright format 1.0, section 7.1) that cover
// several licences.
var dep5Umbrellas = [...]string{"public-domain", "GPL", "LGPL", "AGPL", "GFDL", "GFDL-NIV", "Apache"}

// dep5Exceptions are the exceptions, without "exception", that the SPDX list
// has exactly one of.
var dep5Exceptions = map[string]string{
	"classpath":           "Classpath-exception-2.0",
	"font":                "Font-exception-2.0",
	"gcc runtime library": "GCC-exception-3.1",
	"gcc-runtime-library": "GCC-exception-3.1",
	"libtool":             "Libtool-exception",
	"linux-syscall-note":  "Linux-syscall-note",
	"llvm":                "LLVM-exception",
}

// dep5 finds a short name of Debian's; nil where it is none. A name that is
// one but for its exception is a LicenseRef as a whole.
func dep5(name string) *node {
	lower := strings.ToLower(name)
	if base, exception, with := strings.Cut(lower, " with "); with {
		return dep5With(name, base, strings.TrimSpace(strings.TrimSuffix(exception, "exception")))
	}
	if id := dep5ID(lower); id != "" {
		return term(id)
	}
	if lower == "perl" { // the same terms as Perl itself
		return phrases[0].node()
	}
	for _, u := range dep5Umbrellas {
		if strings.EqualFold(u, name) {
			return reference("LicenseRef-DEP5-"+slug(u), name, true)
		}
	}
	return nil
}

func dep5With(name, base, exception string) *node {
	id := licenseID(base)
	if id == "" {
		id = dep5ID(base)
	}
	if id == "" {
		return nil
	}
	e := dep5Exceptions[exception]
	if exception == "bison" && strings.HasPrefix(id, "GPL-3.0-") {
		e = "Bison-exception-2.2" // the earlier one is of Bisons under version 2
	}
	if e == "" {
		e = spdxLists().exceptions[exception]
	}
	if e == "" {
		return unknown(name)
	}
	return term(id + " WITH " + e)
}

// dep5ID is the identifier of a short name in lower case: a name, and a
// version of which ".0" may be missing, and "+" for later ones. It is empty
// where the SPDX list has no such version.
func dep5ID(name string) string {
	base, version := name, ""
	if i := strings.LastIndexByte(name, '-'); i > 0 && i+1 < len(name) && name[i+1] >= '0' && name[i+1] <= '9' {
		base, version = name[:i], name[i+1:]
	}
	noInvariants := ""
	if b, ok := strings.CutSuffix(base, "-niv"); ok {
		base, noInvariants = b, "-no-invariants"
	}
	if base == "expat" {
		base = "MIT"
	}
	if version == "" {
		return licenseID(strings.TrimSuffix(base, "+"))
	}
	version, later := strings.CutSuffix(version, "+")
	plus := ""
	if later {
		plus = "+"
	}
	for _, v := range []string{version, version + ".0"} {
		if id := licenseID(base + "-" + v + noInvariants + plus); id != "" {
			return id
		}
	}
	return ""
}
