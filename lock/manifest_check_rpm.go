package lock

import (
	"fmt"
	"maps"
	"math"
	"path"
	"regexp"
	"slices"
	"strings"
)

func (m *manifestChecker) checkRPM() error {
	for _, k := range slices.Sorted(maps.Keys(m.RPM.Vars)) {
		if !varRE.MatchString(k) {
			return m.errorf(at("rpm", "vars", k), "want letters, digits and '_' in a variable's name")
		}
		if k == "basearch" || k == "arch" {
			return m.errorf(at("rpm", "vars", k), "its value is the arch that is locked")
		}
	}
	for i, r := range m.RPM.Repos {
		where := at("rpm", "repos", i)
		if slices.ContainsFunc(m.RPM.Repos[:i], func(o ManifestRepo) bool { return o.ID == r.ID }) {
			return m.errorf(below(where, "id"), "two repositories are called %q", r.ID)
		}
		if key, err := r.check(); err != nil {
			return m.errorf(below(where, key), "%w", err)
		}
	}
	if len(m.RPM.Repos) == 0 && m.RPM.From == "" {
		return m.errorf(at("rpm"), "no repos and no from; give at least one repository")
	}
	if path.IsAbs(m.RPM.From) {
		return m.errorf(at("rpm", "from"), "got %q; want a path relative to the manifest", m.RPM.From)
	}
	if !slices.Contains(setNames(), m.RPM.Set) {
		return m.errorf(at("rpm", "set"), "%q is not one of %s", m.RPM.Set, strings.Join(setNames(), ", "))
	}
	return nil
}

// repoID is what a repository's id may be: it becomes part of names.
var repoID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.:+-]*$`)

// check tells which key of a repository is wrong, and how.
func (r *ManifestRepo) check() (key string, err error) {
	repoGPGCheck := r.RepoGPGCheck != nil && *r.RepoGPGCheck
	switch {
	case r.ID == "":
		return "id", fmt.Errorf("a repository needs one")
	case !repoID.MatchString(r.ID):
		return "id", fmt.Errorf("got %q; want letters, digits, '_', '.', ':', '+' and '-'", r.ID)
	case r.places() == 0:
		return "baseurl", fmt.Errorf("%q needs one, or a metalink, a mirrorlist or an iso", r.ID)
	case r.places() > 1:
		return "baseurl", fmt.Errorf("%q has several of baseurl, metalink, mirrorlist and iso; want one", r.ID)
	case len(r.GPGKey) == 0 && on(r.GPGCheck):
		return "gpgkey", fmt.Errorf("%q has none; give the key that its packages are signed by, or say gpgcheck: false", r.ID)
	case len(r.GPGKey) == 0 && repoGPGCheck:
		return "gpgkey", fmt.Errorf("%q has none; give the key that its metadata is signed by", r.ID)
	case slices.Contains(r.GPGKey, ""):
		return "gpgkey", fmt.Errorf("%q has an empty one", r.ID)
	case r.Priority != nil && (*r.Priority < 1 || *r.Priority > math.MaxInt16):
		return "priority", fmt.Errorf("got %d; want 1 to %d, where a lower number wins", *r.Priority, math.MaxInt16)
	}
	return "", nil
}
