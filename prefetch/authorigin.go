package prefetch

import (
	"net/url"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"

	"caisson/lock"
	"caisson/lock/digest"
	"caisson/prefetch/cas"
)

// By what a file was logged in for, as LoginOf says it.
const (
	byAuth     = "the lock's login"
	byNetrc    = ".netrc"
	byAddress  = "the login in an address"
	byCargo    = "cargo's token"
	byGit      = "git's configuration"
	byRegistry = "the login of a registry"
	bySSH      = "an SSH key"
	byOther    = "a login"
)

// LoginOf is by what a file of the store was logged in for when it was
// fetched, in words; empty where it was had without, or did not come by a
// network, or came before this was kept. It may not be the reader's to pass
// on.
func LoginOf(s *cas.Store, d digest.Digest) string {
	_, by, _ := s.LookupNote(loginKey(d))
	return by
}

// RememberLogin has LoginOf say from now on how a file was logged in for,
// empty where it needed none. It is called before the file has its name, so
// that nobody sees it without. Words that LoginOf does not use become general
// ones.
func RememberLogin(s *cas.Store, d digest.Digest, by string) error {
	if by != "" && !slices.Contains([]string{byAuth, byNetrc, byAddress, byCargo, byGit, byRegistry, bySSH}, by) {
		by = byOther
	}
	if LoginOf(s, d) == by {
		return nil
	}
	return s.RememberNote(loginKey(d), d, by)
}

func loginKey(d digest.Digest) string { return strings.Join([]string{"login-1", d.Hex()}, "\x00") }

// Restricts tells whether an Auth says who asks. A proxy says how to get there
// and a CA whom to believe: neither restricts what comes.
func Restricts(a *lock.Auth) bool {
	return a != nil && (a.Basic != nil || a.Bearer != nil || a.OfflineToken != nil || a.TLS != nil && a.TLS.Cert != "")
}

// loggedIn is by what a request for an address is logged in.
func (l *login) loggedIn(u *url.URL) string {
	if l.by == "" && u.User != nil {
		return byAddress
	}
	return l.by
}

// isAnonymous tells whether a keychain had nothing for a registry.
func isAnonymous(a authn.Authenticator) bool {
	c, err := a.Authorization()
	return err == nil && *c == authn.AuthConfig{}
}
