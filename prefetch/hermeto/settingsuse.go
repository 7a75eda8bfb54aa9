package hermeto

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"caisson/prefetch"
)

// Apply has the settings count for what is fetched.
func (s *Settings) Apply(c *prefetch.Config) error {
	if proxies := s.text("gomod.proxy_url"); proxies != "" {
		c.GoProxy = proxies
		if login := s.text("gomod.proxy_login"); login != "" {
			u, err := url.Parse(proxies)
			if err != nil {
				return errors.New("gomod.proxy_url: not an address")
			}
			u.User = url.UserPassword(login, s.text("gomod.proxy_password"))
			c.GoProxy = u.String()
		}
	}
	if proxy := s.text("cargo.proxy_url"); proxy != "" {
		c.CratesIO = "sparse+" + strings.TrimSuffix(proxy, "/") + "/"
		if login := s.text("cargo.proxy_login"); login != "" {
			c.CratesIOToken = "Basic " + base64.StdEncoding.EncodeToString([]byte(login+":"+s.text("cargo.proxy_password")))
		}
	}
	for name, d := range map[string]*time.Duration{"http.connect_timeout": &c.ConnectTimeout, "http.read_timeout": &c.IdleTimeout} {
		if n, ok := s.number(name); ok {
			*d = time.Duration(n) * time.Second
		}
	}
	if n, ok := s.number("http.max_retries"); ok {
		if c.Retries = n; n == 0 {
			c.Retries = -1
		}
	}
	if n, ok := s.number("runtime.concurrency_limit"); ok {
		c.PerHost = n
	}
	return nil
}

// environment is what gomod.environment_variables adds to the build's.
func (s *Settings) environment() map[string]string {
	out := map[string]string{}
	if s != nil {
		table, _ := s.values["gomod.environment_variables"].(map[string]any)
		for name, v := range table {
			out[name] = fmt.Sprint(v)
		}
	}
	return out
}

// proxyComment marks an address that Conforma looks at as a registry proxy's.
const proxyComment = "proxy URL"

// goReferences are the proxies that modules are had from, where the settings
// name others than Go's own: then all but "direct".
func (s *Settings) goReferences() []ExternalReference {
	const goOwn = "https://proxy.golang.org"
	var out []ExternalReference
	own := true
	for _, p := range s.goProxies() {
		if p != "direct" {
			own = own && p == goOwn
			out = append(out, ExternalReference{URL: p, Type: "distribution", Comment: proxyComment})
		}
	}
	if own {
		return nil
	}
	return out
}

// crateReferences is the proxy that the crates of crates.io are had from.
func (s *Settings) crateReferences() []ExternalReference {
	proxy := s.text("cargo.proxy_url")
	if proxy == "" {
		return nil
	}
	return []ExternalReference{{URL: strings.TrimSuffix(proxy, "/") + "/", Type: "distribution", Comment: proxyComment}}
}

// Show is the configuration as YAML: all of it, or what differs from the
// defaults. raw shows secrets too.
func (s *Settings) Show(diff, raw bool) ([]byte, error) {
	var b bytes.Buffer
	if diff {
		b.WriteString("# Only what differs from the defaults\n")
	} else {
		b.WriteString("# Values that differ from the defaults are marked with (*)\n")
	}
	section := ""
	for _, k := range knownSettings() {
		v, ok := s.values[k.name()]
		if !ok {
			v = k.byDefault
		}
		standard, err := yamlValue(k.byDefault)
		if err != nil {
			return nil, err
		}
		if _, secret := v.(string); secret && k.kind == settingSecret && !raw {
			v = "**********"
		}
		text, err := yamlValue(v)
		if err != nil {
			return nil, err
		}
		if diff && text == standard {
			continue
		}
		if k.section != section {
			section = k.section
			b.WriteByte('\n')
			if section != "" {
				b.WriteString(section + ":\n")
			}
		}
		indent := ""
		if section != "" {
			indent = "  "
		}
		if !diff {
			b.WriteString(indent + "# " + k.env())
			if !k.effect {
				b.WriteString(", without an effect here")
			}
			b.WriteByte('\n')
		}
		b.WriteString(indent + k.key + ": " + text)
		switch {
		case diff:
			b.WriteString("  # default: " + standard)
		case text != standard:
			b.WriteString("  # (*)")
		}
		b.WriteByte('\n')
	}
	return b.Bytes(), nil
}

// yamlValue is a value on one line.
func yamlValue(v any) (string, error) {
	var n yaml.Node
	if err := n.Encode(v); err != nil {
		return "", fmt.Errorf("writing YAML: %w", err)
	}
	n.Style |= yaml.FlowStyle
	b, err := yaml.Marshal(&n)
	if err != nil {
		return "", fmt.Errorf("writing YAML: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}
