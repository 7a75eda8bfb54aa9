package lock

import (
	"net/url"
	"path"
	"slices"
	"strings"
)

func (m *manifestChecker) checkInputs() error {
	seen := map[string]bool{}
	add := func(where []any, name string) error {
		if err := m.checkName(below(where, "name"), name); err != nil {
			return err
		}
		if seen[name] {
			return m.errorf(below(where, "name"), "two inputs are called %q", name)
		}
		seen[name] = true
		return nil
	}
	for i, g := range m.Inputs.Go {
		where := at("inputs", "go", i)
		if err := add(where, g.Name); err != nil {
			return err
		}
		if err := m.checkDir(below(where, "dir"), g.Dir); err != nil {
			return err
		}
		if !strings.HasPrefix(g.Toolchain, "go1.") {
			return m.errorf(below(where, "toolchain"), "got %q; want a release of Go, such as go1.26.0", g.Toolchain)
		}
	}
	for i, c := range m.Inputs.Cargo {
		where := at("inputs", "cargo", i)
		if err := add(where, c.Name); err != nil {
			return err
		}
		if err := m.checkDir(below(where, "dir"), c.Dir); err != nil {
			return err
		}
	}
	if err := m.checkGits(add); err != nil {
		return err
	}
	for i, o := range m.Inputs.OCI {
		where := at("inputs", "oci", i)
		if err := add(where, o.Name); err != nil {
			return err
		}
		if err := m.checkOCI(where, o); err != nil {
			return err
		}
	}
	for i, f := range m.Inputs.Files {
		if name, ok := strings.CutSuffix(f.Name, ".tar"); ok && slices.ContainsFunc(m.Inputs.OCI, func(o ManifestOCI) bool { return o.Name == name }) {
			return m.errorf(at("inputs", "files", i, "name"), "%q is what steps find the image %q as", f.Name, name)
		}
		where := at("inputs", "files", i)
		if err := add(where, f.Name); err != nil {
			return err
		}
		if err := m.checkFile(where, f); err != nil {
			return err
		}
	}
	return nil
}

// checkDir wants a path below or beside the manifest: an absolute one would
// be another on every machine.
func (m *manifestChecker) checkDir(where []any, dir string) error {
	if dir == "" || path.IsAbs(dir) {
		return m.errorf(where, "got %q; want a folder relative to the manifest", dir)
	}
	return nil
}

func (m *manifestChecker) checkFile(where []any, f ManifestFile) error {
	if f.URL == "" || path.IsAbs(f.URL) {
		return m.errorf(below(where, "url"), "got %q; want an address, or a path relative to the manifest", f.URL)
	}
	if err := m.checkPublicURL(below(where, "url"), f.URL); err != nil {
		return err
	}
	for i, u := range f.Mirrors {
		if !isURL(u) {
			return m.errorf(below(where, "mirrors", i), "got %q; want an address", u)
		}
		if err := m.checkPublicURL(below(where, "mirrors", i), u); err != nil {
			return err
		}
	}
	if (f.Auth != nil || len(f.Mirrors) > 0) && !isURL(f.URL) {
		return m.errorf(where, "mirrors and auth are for an address, and %q is a path", f.URL)
	}
	if err := f.Auth.check(); err != nil {
		return m.errorf(below(where, "auth"), "%w", err)
	}
	if f.Sums != nil {
		if f.SHA256 != "" {
			return m.errorf(below(where, "sums"), "want sha256 or sums, not both")
		}
		return m.checkSums(below(where, "sums"), f.Sums)
	}
	if f.SHA256 == "" {
		if isURL(f.URL) {
			return m.errorf(below(where, "sha256"), "%q needs the SHA-256 of what %s holds", f.Name, f.URL)
		}
		return nil
	}
	if _, err := parseSHA256(f.SHA256); err != nil {
		return m.errorf(below(where, "sha256"), "%w", err)
	}
	return nil
}

func (m *manifestChecker) checkSums(where []any, s *ManifestSums) error {
	if s.URL == "" {
		return m.errorf(below(where, "url"), "the address of the checksums is needed")
	}
	if err := m.checkPublicURL(below(where, "url"), s.URL); err != nil {
		return err
	}
	if err := m.checkPublicURL(below(where, "signature"), s.Signature); err != nil {
		return err
	}
	return m.checkKeyPath(below(where, "key"), s.Key)
}

// checkPublicURL refuses an address with a password in it: the lock would
// have it too.
func (m *manifestChecker) checkPublicURL(where []any, s string) error {
	if !isURL(s) {
		return nil
	}
	u, err := url.Parse(s)
	if err != nil {
		return m.errorf(where, "not an address: want such as https://host/path")
	}
	if u.User != nil {
		return m.errorf(where, "%q: a name and password do not belong into a manifest; use auth or .netrc", u.Redacted())
	}
	return nil
}

// checkKeyPath wants a public key's file beside the manifest.
func (m *manifestChecker) checkKeyPath(where []any, key string) error {
	if key == "" || path.IsAbs(key) || isURL(key) {
		return m.errorf(where, "got %q; want the path of a public key, relative to the manifest", key)
	}
	return nil
}

func (m *manifestChecker) checkOCI(where []any, o ManifestOCI) error {
	if _, err := parseImageRef(o.Ref); err != nil {
		return m.errorf(below(where, "ref"), "%w", err)
	}
	if o.SBOM != "" && o.SBOM != "import" {
		return m.errorf(below(where, "sbom"), "got %q; want import", o.SBOM)
	}
	v := o.Verify
	if v == nil {
		return nil
	}
	where = below(where, "verify")
	switch {
	case v.Key != "" && v.Identity+v.Issuer != "":
		return m.errorf(where, "want a key, or an identity and its issuer, not both")
	case v.Key != "":
		return m.checkKeyPath(below(where, "key"), v.Key)
	case v.Identity == "" || v.Issuer == "":
		return m.errorf(where, "want a key, or an identity and its issuer")
	}
	return nil
}
