package prefetch

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/go-git/go-git/v5/plumbing/format/config"
	"golang.org/x/net/http/httpguts"

	"caisson/lock"
	"caisson/prefetch/gitfetch"
)

// maxGitConfig is the size in bytes above which a file of git's configuration
// is refused, and maxGitIncludes how deep they may include each other.
const (
	maxGitConfig   = 1 << 20
	maxGitIncludes = 10
)

// GitConfig is where git's configuration is (git-config(1)). What is read of
// it is url.BASE.insteadOf, by which a site has a mirror take a server's place,
// and, for all servers or as http.URL.*, http.proxy, http.sslCAInfo,
// http.sslCert, http.sslKey and http.extraHeader; include.path, too. Not read
// are a repository's own configuration, includeIf, patterns in URLs,
// http.sslVerify, and credential helpers: passwords belong into .netrc.
type GitConfig struct {
	Files []string    // later ones count more; those that are absent count for nothing
	Set   [][2]string // settings after them, such as {"http.proxy", "…"}
	Home  string      // what "~" stands for
}

// gitConfigFromEnv finds the configuration as git does: the system's and the
// user's, or what GIT_CONFIG_SYSTEM and GIT_CONFIG_GLOBAL name, then GIT_CONFIG_KEY_n
// and GIT_SSL_CAINFO, GIT_SSL_CERT and GIT_SSL_KEY.
func gitConfigFromEnv(home string) GitConfig {
	c := GitConfig{Home: home}
	if skip, _ := strconv.ParseBool(os.Getenv("GIT_CONFIG_NOSYSTEM")); !skip {
		c.Files = append(c.Files, cmp.Or(os.Getenv("GIT_CONFIG_SYSTEM"), "/etc/gitconfig"))
	}
	if global := os.Getenv("GIT_CONFIG_GLOBAL"); global != "" {
		c.Files = append(c.Files, global)
	} else if home != "" {
		c.Files = append(c.Files, filepath.Join(cmp.Or(os.Getenv("XDG_CONFIG_HOME"), filepath.Join(home, ".config")), "git", "config"), filepath.Join(home, ".gitconfig"))
	}
	n, _ := strconv.Atoi(os.Getenv("GIT_CONFIG_COUNT"))
	for i := range min(max(n, 0), 1000) {
		c.Set = append(c.Set, [2]string{os.Getenv(fmt.Sprint("GIT_CONFIG_KEY_", i)), os.Getenv(fmt.Sprint("GIT_CONFIG_VALUE_", i))})
	}
	for _, v := range [][2]string{{"GIT_SSL_CAINFO", "http.sslCAInfo"}, {"GIT_SSL_CERT", "http.sslCert"}, {"GIT_SSL_KEY", "http.sslKey"}} {
		if s := os.Getenv(v[0]); s != "" {
			c.Set = append(c.Set, [2]string{v[1], s})
		}
	}
	return c
}

// gitSite is what git's configuration says of servers.
type gitSite struct {
	home    string
	instead [][2]string // the base, and what it is taken instead of
	http    []gitSetting
}

// gitSetting is one of http.* for addresses that begin so; empty for all.
type gitSetting struct{ at, name, value string }

// readGitConfig reads the configuration.
func readGitConfig(c GitConfig) (*gitSite, error) {
	s := &gitSite{home: c.Home}
	for _, name := range c.Files {
		if err := s.file(name, 0); err != nil {
			return nil, fmt.Errorf("reading git's configuration: %w", err)
		}
	}
	for _, kv := range c.Set {
		section, rest, _ := strings.Cut(kv[0], ".")
		sub, name := "", rest
		if i := strings.LastIndexByte(rest, '.'); i >= 0 {
			sub, name = rest[:i], rest[i+1:]
		}
		s.set(section, sub, name, kv[1])
	}
	return s, nil
}

func (s *gitSite) file(name string, depth int) error {
	fi, err := os.Stat(name)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !fi.Mode().IsRegular() {
		return nil
	}
	if err != nil {
		return err
	}
	if fi.Size() > maxGitConfig || depth > maxGitIncludes {
		return fmt.Errorf("%s: want at most %d bytes, and %d files that include each other", name, maxGitConfig, maxGitIncludes)
	}
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	c := config.New()
	if err := config.NewDecoder(f).Decode(c); err != nil {
		return fmt.Errorf("%s: it is not as git writes it", name) // the error may have a secret's line
	}
	for _, path := range c.Section("include").OptionAll("path") {
		if path = s.path(path); !filepath.IsAbs(path) {
			path = filepath.Join(filepath.Dir(name), path)
		}
		if err := s.file(path, depth+1); err != nil {
			return err
		}
	}
	for _, section := range c.Sections {
		for _, o := range section.Options {
			s.set(section.Name, "", o.Key, o.Value)
		}
		for _, sub := range section.Subsections {
			for _, o := range sub.Options {
				s.set(section.Name, sub.Name, o.Key, o.Value)
			}
		}
	}
	return nil
}

// set keeps a setting.
func (s *gitSite) set(section, sub, name, value string) {
	switch strings.ToLower(section) {
	case "url":
		if strings.EqualFold(name, "insteadOf") && value != "" {
			s.instead = append(s.instead, [2]string{sub, value})
		}
	case "http":
		s.http = append(s.http, gitSetting{sub, strings.ToLower(name), value})
	}
}

// path is a file that the configuration names.
func (s *gitSite) path(p string) string {
	if rest, ok := strings.CutPrefix(p, "~/"); ok {
		return filepath.Join(s.home, rest)
	}
	return p
}

// rewrite is the address that is to be taken instead of one: that with the
// longest beginning that is replaced.
func (s *gitSite) rewrite(u *url.URL) (*url.URL, error) {
	raw, best := u.String(), [2]string{}
	for _, i := range s.instead {
		if strings.HasPrefix(raw, i[1]) && len(i[1]) > len(best[1]) {
			best = i
		}
	}
	if best[1] == "" {
		return u, nil
	}
	to := best[0] + raw[len(best[1]):]
	if filepath.IsAbs(to) {
		return &url.URL{Scheme: "file", Path: to}, nil
	}
	out, err := gitfetch.Parse(to)
	if err != nil {
		return nil, fmt.Errorf("git's configuration has %s taken instead of %s, which gives no address", safeURL(best[0]), safeURL(best[1]))
	}
	return out, nil
}

// settingsFor are what holds for an address: those for less of it first.
func (s *gitSite) settingsFor(u *url.URL) []gitSetting {
	var out []gitSetting
	for _, set := range s.http {
		if set.at == "" || covers(set.at, u) {
			out = append(out, set)
		}
	}
	slices.SortStableFunc(out, func(a, b gitSetting) int { return cmp.Compare(len(a.at), len(b.at)) })
	return out
}

// covers tells whether an address is one that a setting is for (git-config(1),
// "http.<url>.*").
func covers(at string, u *url.URL) bool {
	a, err := url.Parse(at)
	if err != nil || a.Scheme != u.Scheme || !strings.EqualFold(a.Hostname(), u.Hostname()) || portOf(a) != portOf(u) {
		return false
	}
	below := strings.TrimSuffix(a.Path, "/")
	return u.Path == below || strings.HasPrefix(u.Path, below+"/")
}

// portOf is the port of an address, given or not.
func portOf(u *url.URL) string {
	return cmp.Or(u.Port(), map[string]string{"http": "80", "https": "443"}[u.Scheme])
}

// auth adds to what the lock says of a login what the site says: a setting of
// the lock counts more. The headers are those that go to the server.
func (s *gitSite) auth(a *lock.Auth, u *url.URL) (*lock.Auth, http.Header, error) {
	var out lock.Auth
	if a != nil {
		out = *a
	}
	var tls lock.AuthTLS
	proxy, header := "", make(http.Header)
	for _, set := range s.settingsFor(u) {
		switch set.name {
		case "proxy":
			if proxy = set.value; proxy == "" {
				proxy = noProxy
			}
		case "sslcainfo":
			tls.CA = s.path(set.value)
		case "sslcert":
			tls.Cert = s.path(set.value)
		case "sslkey":
			tls.Key = s.path(set.value)
		case "extraheader":
			name, value, ok := strings.Cut(set.value, ":")
			switch value = strings.TrimSpace(value); {
			case set.value == "":
				clear(header)
			case !ok || !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(value):
				return nil, nil, errors.New("an http.extraHeader of git's configuration cannot be sent")
			default:
				header.Add(name, value)
			}
		}
	}
	out.Proxy = cmp.Or(out.Proxy, proxy)
	if out.TLS != nil {
		tls.CA = cmp.Or(out.TLS.CA, tls.CA)
		if out.TLS.Cert != "" {
			tls.Cert, tls.Key = out.TLS.Cert, out.TLS.Key
		}
	}
	if out.TLS = nil; tls != (lock.AuthTLS{}) {
		out.TLS = &tls
	}
	if Restricts(a) {
		clear(header)
	}
	if out == (lock.Auth{}) {
		return nil, header, nil
	}
	return &out, header, nil
}

// gitLogin is how a git server is logged in to: by what the lock says, what git's
// configuration does, and else by .netrc.
func (f *Fetcher) gitLogin(a *lock.Auth, u *url.URL) (*login, error) {
	site, err := f.git()
	if err != nil {
		return nil, err
	}
	all, header, err := site.auth(a, u)
	if err != nil {
		return nil, err
	}
	l, err := f.client.loginFor(&Request{Auth: all}, u)
	bySite := Restricts(all) && !Restricts(a) // a client certificate
	if err != nil || len(header) == 0 && !bySite {
		return l, err
	}
	with := *l
	if with.by = byGit; len(header) > 0 {
		if with.header != "" && header.Get(with.header) != "" { // before .netrc
			with.header, with.value = "", ""
		}
		with.more = header
	}
	return &with, nil
}
