package prefetch

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"golang.org/x/net/http/httpproxy"

	"caisson/prefetch/gitfetch"
)

// Config is all that prefetch takes from its surroundings: the environment
// is read by EnvConfig and nowhere else. The zero value of a number or a
// duration stands for the default that its comment names.
type Config struct {
	// Version is Caisson's own, for the User-Agent.
	Version string
	// Dir is the project's folder, absolute: plain paths are relative to it,
	// and cargo's configuration is looked for in it and above it. Empty where
	// there is no project.
	Dir string

	// Env gives variables of the environment by name, for what an Auth of the
	// lock takes from there; nil for an empty environment.
	Env func(name string) string

	GoProxy   string // as GOPROXY; empty for "https://proxy.golang.org,direct"
	GoNoProxy string // as GONOPROXY: modules that no proxy is to be asked for
	GoSumDB   string // as GOSUMDB; empty for "sum.golang.org"
	// GoNoSumDB is as GONOSUMDB: modules that the checksum database is not to
	// be asked for. "*", which is all, where GOSUMDB is "off".
	GoNoSumDB string

	// CargoHome is the folder of cargo's own configuration; empty for none.
	CargoHome string
	// CargoIndex gives the index of a registry by its name, in lower case, as
	// CARGO_REGISTRIES_NAME_INDEX does.
	CargoIndex map[string]string
	// CargoTokens gives the token of a registry likewise, as
	// CARGO_REGISTRIES_NAME_TOKEN does.
	CargoTokens map[string]string
	// CratesIO is the sparse index ("sparse+https://…") that stands for that of
	// crates.io, whatever cargo's configuration says, and CratesIOToken its
	// token; empty where nothing does.
	CratesIO, CratesIOToken string
	// CargoHTTP is what counts before [http] in cargo's configuration.
	CargoHTTP CargoHTTP

	// SSH is how git repositories are reached by ssh, and Git what git's own
	// configuration says of servers.
	SSH gitfetch.SSH
	Git GitConfig

	// Proxy chooses the HTTP proxy for an address; nil for none.
	Proxy func(*url.URL) (*url.URL, error)
	// Netrc is a file of passwords by host; empty for none. They are sent by
	// https only.
	Netrc string
	// Registries are files that say where images are, as containers-registries.conf(5)
	// has it; of entries for one prefix the last counts.
	Registries []string
	// Keychain has the logins at OCI registries; nil for none.
	Keychain authn.Keychain
	// Login puts what a server's login needs round the transport; nil for
	// nothing.
	Login func(http.RoundTripper) http.RoundTripper
	// RootCAs are the certificates that are trusted; nil for the system's.
	RootCAs *x509.CertPool

	ConnectTimeout time.Duration // for a connection; 30 s
	IdleTimeout    time.Duration // without a byte from the server; 60 s
	Retries        int           // after a first try that failed; 4, and -1 for none
	Backoff        time.Duration // before the first of them, then doubled; 500 ms
	PerHost        int           // requests to one host at the same time; 16
	MaxSize        int64         // bytes of a file whose size is not known; 8 GiB
}

func (c Config) withDefaults() Config {
	set := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	set(&c.ConnectTimeout, 30*time.Second)
	set(&c.IdleTimeout, 60*time.Second)
	set(&c.Backoff, 500*time.Millisecond)
	switch {
	case c.Retries == 0:
		c.Retries = 4
	case c.Retries < 0:
		c.Retries = 0
	}
	if c.PerHost <= 0 {
		c.PerHost = 16
	}
	if c.MaxSize <= 0 {
		c.MaxSize = 8 << 30
	}
	if c.Version == "" {
		c.Version = "unknown"
	}
	if c.GoProxy == "" {
		c.GoProxy = "https://proxy.golang.org,direct"
	}
	if c.GoSumDB == "" {
		c.GoSumDB = "sum.golang.org"
	}
	return c
}

// EnvConfig reads the environment as go, cargo and curl read it: GOPROXY,
// GONOPROXY, GOPRIVATE, GOSUMDB and GONOSUMDB, with what `go env -w` wrote;
// CARGO_HOME, CARGO_REGISTRIES_NAME_INDEX and _TOKEN, CARGO_HTTP_PROXY and
// CARGO_HTTP_CAINFO; HTTP_PROXY, HTTPS_PROXY and
// NO_PROXY; NETRC; git's configuration as GitConfig says; the files and helpers
// in which docker and podman keep their logins, and podman's registries.conf.
// dir is the project's folder.
func EnvConfig(version, dir string) (Config, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return Config{}, fmt.Errorf("reading the environment: %w", err)
	}
	proxies := httpproxy.FromEnvironment()
	goEnv, err := goEnvironment()
	if err != nil {
		return Config{}, err
	}
	c := Config{
		Version:    version,
		Dir:        abs,
		Env:        os.Getenv,
		GoProxy:    goEnv("GOPROXY"),
		GoNoProxy:  goEnv("GONOPROXY"),
		GoSumDB:    goEnv("GOSUMDB"),
		GoNoSumDB:  goEnv("GONOSUMDB"),
		CargoHome:  os.Getenv("CARGO_HOME"),
		CargoIndex: make(map[string]string), CargoTokens: make(map[string]string),
		CargoHTTP: CargoHTTP{Proxy: os.Getenv("CARGO_HTTP_PROXY"), CAInfo: os.Getenv("CARGO_HTTP_CAINFO")},
		Proxy:     proxies.ProxyFunc(),
		Netrc:     os.Getenv("NETRC"),
	}
	if ca := c.CargoHTTP.CAInfo; ca != "" {
		if c.CargoHTTP.CAInfo, err = filepath.Abs(ca); err != nil {
			return Config{}, fmt.Errorf("reading the environment: %w", err)
		}
	}
	if c.GoNoProxy == "" {
		c.GoNoProxy = goEnv("GOPRIVATE")
	}
	if c.GoNoSumDB == "" {
		c.GoNoSumDB = goEnv("GOPRIVATE")
	}
	if c.GoSumDB == "off" {
		c.GoNoSumDB = "*"
	}
	home, err := os.UserHomeDir()
	if err == nil {
		if c.CargoHome == "" {
			c.CargoHome = filepath.Join(home, ".cargo")
		}
		if c.Netrc == "" {
			c.Netrc = filepath.Join(home, ".netrc")
		}
	}
	c.SSH, c.Git = sshFromEnv(home), gitConfigFromEnv(home)
	c.Keychain = registryLoginsFromEnv(home)
	if c.Registries, err = registriesFromEnv(home); err != nil {
		return Config{}, err
	}
	for _, kv := range os.Environ() {
		name, value, _ := strings.Cut(kv, "=")
		name, ok := strings.CutPrefix(name, "CARGO_REGISTRIES_")
		if name, isIndex := strings.CutSuffix(name, "_INDEX"); ok && isIndex {
			c.CargoIndex[cargoEnvName(name)] = value
		}
		if name, isToken := strings.CutSuffix(name, "_TOKEN"); ok && isToken {
			c.CargoTokens[cargoEnvName(name)] = value
		}
	}
	return c, nil
}

// goEnvironment looks variables up as go does: an empty one counts as unset,
// and then the file that `go env -w` writes is asked.
func goEnvironment() (func(name string) string, error) {
	path := os.Getenv("GOENV")
	if path == "" {
		if dir, err := os.UserConfigDir(); err == nil {
			path = filepath.Join(dir, "go", "env")
		}
	}
	file := make(map[string]string)
	if path != "" && path != "off" {
		b, err := os.ReadFile(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("reading go's environment: %w", err)
		}
		for line := range strings.Lines(string(b)) {
			name, value, ok := strings.Cut(strings.TrimSpace(line), "=")
			if ok && !strings.HasPrefix(name, "#") {
				file[name] = value
			}
		}
	}
	return func(name string) string {
		if v := os.Getenv(name); v != "" {
			return v
		}
		return file[name]
	}, nil
}
