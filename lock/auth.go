package lock

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
)

// Auth says how to log in where a file lies. It is kept in the lock, so it
// names secrets and holds none. A path is relative to the project's folder;
// "$NAME" stands for the value of an environment variable when the file is
// fetched (of DNF_VAR_NAME where that is set), in a Secret as the secret
// itself, in other texts as what is to stand there.
type Auth struct {
	TLS    *AuthTLS    `json:"tls,omitempty" yaml:"tls"`
	Basic  *AuthBasic  `json:"basic,omitempty" yaml:"basic"`
	Bearer *AuthBearer `json:"bearer,omitempty" yaml:"bearer"`
	// OfflineToken is Red Hat's way to a download.
	OfflineToken *AuthOfflineToken `json:"offlineToken,omitempty" yaml:"offlineToken"`
	// Proxy is the address of an HTTP proxy; "_none_" for none at all.
	Proxy string `json:"proxy,omitempty" yaml:"proxy"`
}

// Secret is "$NAME", an environment variable, or a text with such in it, whose
// names then have no small letters ("token $NAME"; "$$" is a dollar sign), or
// the path of a file whose first line is the secret.
type Secret string

// AuthTLS is a client certificate, and whom to trust: PEM files.
type AuthTLS struct {
	Cert string `json:"cert,omitempty" yaml:"cert"`
	Key  string `json:"key,omitempty" yaml:"key"`
	CA   string `json:"ca,omitempty" yaml:"ca"`
}

// AuthBasic is a name and a password (RFC 7617).
type AuthBasic struct {
	Username string `json:"username" yaml:"username"`
	Password Secret `json:"password" yaml:"password"`
}

// AuthBearer is a token that is sent as it is (RFC 6750).
type AuthBearer struct {
	Token  Secret `json:"token" yaml:"token"`
	Header string `json:"header,omitempty" yaml:"header"` // "Authorization" unless given; another one gets the token alone
	Raw    bool   `json:"raw,omitempty" yaml:"raw"`       // Authorization gets the token alone too, without "Bearer "
}

// AuthOfflineToken exchanges a long-lived token for one that is short-lived
// (OAuth 2.0, RFC 6749 section 6), with which the file's address is asked.
// That answers with the file, or with a JSON object whose body.href is where
// the file can be had without any token.
type AuthOfflineToken struct {
	Token    Secret `json:"token" yaml:"token"`
	TokenURL string `json:"tokenURL,omitempty" yaml:"tokenURL"` // that of Red Hat's single sign-on unless given
	ClientID string `json:"clientID,omitempty" yaml:"clientID"` // "rhsm-api" unless given
}

var (
	envRE = regexp.MustCompile(`^\$(\w+|\{\w+\})$`)
	// secretRE is a text with at least one variable, whose names have no small
	// letters: a secret that is itself written here may have dollar signs.
	secretRE = regexp.MustCompile(`^([^$]|\$\$|` + inTextRE + `)*` + inTextRE + `([^$]|\$\$)*$`)
	headerRE = regexp.MustCompile(`^[A-Za-z0-9]+(-[A-Za-z0-9]+)*$`)
)

// inTextRE is a variable in a text.
const inTextRE = `\$(?:[A-Z_][A-Z0-9_]*\b|\{[A-Z_][A-Z0-9_]*\})`

// maxSecretPath is how long the path of a secret, or a text that it is in, may
// be in bytes.
const maxSecretPath = 255

// check refuses what nothing can be done with, and what may not be in a
// manifest or a lock: a secret itself. No error repeats a value. A nil Auth
// is no login at all.
func (a *Auth) check() error {
	if a == nil {
		return nil
	}
	if *a == (Auth{}) {
		return errors.New("want one of tls, basic, bearer, offlineToken, proxy")
	}
	var ways []string
	if a.Basic != nil {
		ways = append(ways, "basic")
	}
	if a.Bearer != nil {
		ways = append(ways, "bearer")
	}
	if a.OfflineToken != nil {
		ways = append(ways, "offlineToken")
	}
	if len(ways) > 1 {
		return fmt.Errorf("want one of %s", strings.Join(ways, ", "))
	}
	for _, c := range []struct {
		name  string
		check func() error
	}{{"tls", a.TLS.check}, {"basic", a.Basic.check}, {"bearer", a.Bearer.check}, {"offlineToken", a.OfflineToken.check}, {"proxy", a.checkProxy}} {
		if err := c.check(); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	return nil
}

// HasVariable tells whether the secret is an environment variable, or a text with
// one in it, and no path.
func (s Secret) HasVariable() bool {
	v := string(s)
	return envRE.MatchString(v) || secretRE.MatchString(v) && len(v) <= maxSecretPath && !strings.ContainsAny(v, "\r\n\x00")
}

// check tells a secret's place from a secret: a path has a slash in it.
func (s Secret) check() error {
	v := string(s)
	switch {
	case v == "":
		return errors.New(`it is missing; want "$NAME" or the path of a file`)
	case s.HasVariable():
		return nil
	case !strings.Contains(v, "/"), len(v) > maxSecretPath, strings.ContainsAny(v, "$= \t\r\n\x00"), strings.Contains(v, "://"):
		return errors.New(`want "$NAME", or the path of a file with a slash in it, such as ./token; a secret itself does not belong here`)
	}
	return nil
}

func (t *AuthTLS) check() error {
	switch {
	case t == nil:
		return nil
	case *t == (AuthTLS{}):
		return errors.New("want cert and key, or ca")
	case t.Key != "" && t.Cert == "":
		return errors.New("a key without its cert")
	case strings.Contains(t.Cert+t.Key+t.CA, "-----BEGIN"):
		return errors.New("want the paths of PEM files, not what is in them")
	}
	return nil
}

func (b *AuthBasic) check() error {
	switch {
	case b == nil:
		return nil
	case b.Username == "":
		return errors.New("username: it is missing")
	case strings.ContainsAny(b.Username, ":\r\n\x00"):
		return errors.New("username: it has a colon or a line break in it")
	}
	if err := b.Password.check(); err != nil {
		return fmt.Errorf("password: %w", err)
	}
	return nil
}

func (b *AuthBearer) check() error {
	if b == nil {
		return nil
	}
	if b.Header != "" && !headerRE.MatchString(b.Header) {
		return errors.New("header: want the name of an HTTP header, such as Authorization")
	}
	if err := b.Token.check(); err != nil {
		return fmt.Errorf("token: %w", err)
	}
	return nil
}

func (o *AuthOfflineToken) check() error {
	if o == nil {
		return nil
	}
	if o.TokenURL != "" {
		u, err := url.Parse(o.TokenURL)
		if err != nil || u.Host == "" || u.User != nil || u.Scheme != "https" && (u.Scheme != "http" || !isLoopback(u.Hostname())) {
			return errors.New("tokenURL: want an https address, without a name and a password")
		}
	}
	if err := o.Token.check(); err != nil {
		return fmt.Errorf("token: %w", err)
	}
	return nil
}

// checkProxy wants the address of a proxy: its password, if it has one,
// comes from the environment.
func (a *Auth) checkProxy() error {
	if a.Proxy == "" || a.Proxy == "_none_" || envRE.MatchString(a.Proxy) {
		return nil
	}
	u, err := url.Parse(a.Proxy)
	if err != nil || u.Host == "" {
		return errors.New(`want an address such as http://proxy.example:3128, or "_none_"`)
	}
	switch u.Scheme {
	case "http", "https", "socks5", "socks5h":
	default:
		return fmt.Errorf("scheme %q; want http, https or socks5", u.Scheme)
	}
	if pass, ok := u.User.Password(); ok && !envRE.MatchString(pass) {
		return errors.New("a password does not belong here; give the whole address as $NAME")
	}
	return nil
}

// isLoopback tells whether a host is, by its name, this machine.
func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}
