package lock

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"net/url"
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
	if err := m.checkRPMOptions(); err != nil {
		return err
	}
	if len(m.RPM.Repos) == 0 && m.RPM.From == "" && m.Inputs.From == "" && !m.withoutPackages() {
		return m.errorf(at("rpm"), "no repos and no from; give at least one repository")
	}
	if path.IsAbs(m.RPM.From) {
		return m.errorf(at("rpm", "from"), "got %q; want a path relative to the manifest", m.RPM.From)
	}
	if !slices.Contains(imageSets(), m.RPM.Set) {
		return m.errorf(at("rpm", "set"), "%q is not one of %s", m.RPM.Set, strings.Join(imageSets(), ", "))
	}
	return nil
}

// moduleSpec is a module's name, or name and stream.
var moduleSpec = regexp.MustCompile(`^[^:/@\s]+(:[^:/@\s]+)?$`)

func (m *manifestChecker) checkRPMOptions() error {
	if s := []string{sourcesNo, sourcesYes, sourcesAvailable}; m.RPM.Sources != "" && !slices.Contains(s, m.RPM.Sources) {
		return m.errorf(at("rpm", "sources"), "got %q; want one of %s", m.RPM.Sources, strings.Join(s, ", "))
	}
	for i, s := range m.RPM.ModuleEnable {
		if !moduleSpec.MatchString(s) {
			return m.errorf(at("rpm", "moduleEnable", i), "got %q; want name:stream, or name for the default stream", s)
		}
	}
	for i, s := range m.RPM.ModuleDisable {
		if !moduleSpec.MatchString(s) || strings.Contains(s, ":") {
			return m.errorf(at("rpm", "moduleDisable", i), "got %q; want the name of a module", s)
		}
	}
	if i := slices.Index(m.RPM.InstallOnly, ""); i >= 0 {
		return m.errorf(at("rpm", "installonlypkgs", i), "got an empty one")
	}
	return nil
}

// repoID is what a repository's id may be: it becomes part of names. In a
// manifest it may have variables, repoIDVars.
var (
	repoID     = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.:+-]*$`)
	repoIDVars = regexp.MustCompile(`^([A-Za-z0-9_.:+-]|\$\w+|\$\{\w+\})*$`)
)

// check tells which key of a repository is wrong, and how.
func (r *ManifestRepo) check() (key string, err error) {
	repoGPGCheck := r.RepoGPGCheck != nil && *r.RepoGPGCheck
	switch {
	case r.ID == "":
		return "id", fmt.Errorf("a repository needs one")
	case !repoID.MatchString(r.ID) && (!strings.Contains(r.ID, "$") || !repoIDVars.MatchString(r.ID)):
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
	}
	for _, f := range []func() (string, error){r.checkChoice, r.checkAddresses, r.checkLogin} {
		if key, err := f(); err != nil {
			return key, err
		}
	}
	return "", nil
}

// checkChoice tells which key of what may be chosen is wrong.
func (r *ManifestRepo) checkChoice() (key string, err error) {
	switch {
	case r.Priority != nil && (*r.Priority < 1 || *r.Priority > math.MaxInt16):
		return "priority", fmt.Errorf("got %d; want 1 to %d, where a lower number wins", *r.Priority, math.MaxInt16)
	case r.Cost != nil && (*r.Cost < 1 || *r.Cost > math.MaxInt32):
		return "cost", fmt.Errorf("got %d; want 1 to %d, where a lower number wins", *r.Cost, math.MaxInt32)
	case slices.Contains(r.ExcludePkgs, ""):
		return "excludepkgs", errors.New("got an empty one")
	case slices.Contains(r.IncludePkgs, ""):
		return "includepkgs", errors.New("got an empty one")
	}
	return "", nil
}

// secretName is an environment variable as a Secret.
var secretName = regexp.MustCompile(`^\$(\w+|\{\w+\})$`)

// checkLogin tells which key of how to log in is wrong. No secret is in an
// error.
func (r *ManifestRepo) checkLogin() (key string, err error) {
	switch {
	case r.SSLClientKey != "" && r.SSLClientCert == "":
		return "sslclientkey", fmt.Errorf("%q has a key and no sslclientcert", r.ID)
	case r.Username != "" && r.Password == "":
		return "username", fmt.Errorf("%q has a user name and no password", r.ID)
	case r.Username == "" && r.Password != "":
		return "password", fmt.Errorf("%q has a password and no user name", r.ID)
	case r.ISO != "" && r.auth() != nil:
		return "iso", fmt.Errorf("%q is in a file: say how to log in for that one, in inputs.files", r.ID)
	case r.Password != "" && !secretName.MatchString(r.Password) && !strings.Contains(r.Password, "/"):
		return "password", errors.New("a password does not belong into a manifest: want \"$NAME\", an environment variable, or the path of a file that it is in, such as ./password")
	case r.Proxy != "" && r.Proxy != "_none_":
		return "proxy", checkProxy(r.Proxy)
	}
	return "", nil
}

func checkProxy(s string) error {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Host == "":
		return errors.New("want an address such as http://host:3128, or _none_")
	case u.User != nil:
		return fmt.Errorf("got %q; a name and password do not belong into a manifest", u.Redacted())
	case !slices.Contains([]string{"http", "https", "socks5", "socks5h"}, u.Scheme):
		return fmt.Errorf("got %q; want a proxy by http, https or socks5", s)
	}
	return nil
}
