package lock

import (
	"fmt"
	"net/url"
	"strings"

	"caisson/lock/gittree"
)

// checkGits checks the git repositories; add takes their names.
func (m *manifestChecker) checkGits(add func(where []any, name string) error) error {
	for i, g := range m.Inputs.Git {
		where := at("inputs", "git", i)
		if err := add(where, g.Name); err != nil {
			return err
		}
		if err := m.checkGit(where, g); err != nil {
			return err
		}
	}
	return nil
}

// checkGit checks what a git repository of the manifest is.
func (m *manifestChecker) checkGit(where []any, g ManifestGit) error {
	if err := m.checkGitURL(below(where, "url"), g.URL); err != nil {
		return err
	}
	for i, u := range g.Mirrors {
		if err := m.checkGitURL(below(where, "mirrors", i), u); err != nil {
			return err
		}
	}
	if strings.HasPrefix(g.Ref, "-") || strings.ContainsAny(g.Ref, " ~^:?*[\\\x7f") || strings.ContainsFunc(g.Ref, func(r rune) bool { return r < ' ' }) {
		return m.errorf(below(where, "ref"), "%q is no tag, branch or commit", g.Ref)
	}
	if err := g.Auth.check(); err != nil {
		return m.errorf(below(where, "auth"), "%w", err)
	}
	if g.Verify == nil {
		return nil
	}
	where = below(where, "verify")
	switch {
	case g.Verify.Identity+g.Verify.Issuer != "":
		return m.errorf(where, "identity and issuer are not supported for git; want key, an OpenPGP or SSH public key")
	case g.Verify.Attestation != "":
		return m.errorf(below(where, "attestation"), "attestations are of images, not of git repositories")
	}
	return m.checkKeyPath(below(where, "key"), g.Verify.Key)
}

// checkGitURL checks the address of a repository.
func (m *manifestChecker) checkGitURL(where []any, raw string) error {
	u, err := url.Parse(raw)
	if err != nil || !isURL(raw) || u.Path == "" {
		return m.errorf(where, "got %q; want an address such as https://host/path or ssh://git@host/path", raw)
	}
	switch u.Scheme {
	case "https", "http", "git", "file":
		if u.User != nil {
			return m.errorf(where, "%q: a login does not belong into a manifest; use auth or .netrc", u.Redacted())
		}
	case "ssh":
		if _, secret := u.User.Password(); secret {
			return m.errorf(where, "%q: a password does not belong into a manifest; by ssh, keys are used", u.Redacted())
		}
	default:
		return m.errorf(where, "scheme %q is not supported; want https, ssh or file", u.Scheme)
	}
	return nil
}

// checkGit wants whole ids, and an address.
func (in *Input) checkGit() error {
	switch g := in.Git; {
	case !isURL(in.URL):
		return fmt.Errorf("url %q is no address", in.URL)
	case !gittree.IsID(g.Commit):
		return fmt.Errorf("commit %q is no whole id", g.Commit)
	case !gittree.IsID(g.Tree):
		return fmt.Errorf("tree %q is no whole id", g.Tree)
	case g.Tag != "" && !gittree.IsID(g.Tag):
		return fmt.Errorf("tag %q is no whole id", g.Tag)
	}
	return nil
}
