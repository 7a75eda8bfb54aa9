package hermeto

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Settings are Hermeto's configuration: what its files and the variables
// HERMETO_SECTION__KEY of the environment say. Of those without an effect here
// (the other package managers', and how programs are run) the form is checked.
// A nil one has the defaults.
type Settings struct {
	values map[string]any // by "section.key": string, int, bool or map[string]any
	// Notes say which names are old, and by what they are replaced.
	Notes []string
}

// settingKind is the form of a setting.
type settingKind int

const (
	settingText settingKind = iota
	settingURL              // of an artifact registry, not of an HTTP proxy
	settingSecret
	settingNumber // not negative
	settingFlag
	settingTable // of texts
)

// setting is one of Hermeto's (its core/config.py, Config).
type setting struct {
	section, key string
	kind         settingKind
	byDefault    any // Caisson's, which where there is an effect may be another
	effect       bool
}

func (s setting) name() string { return strings.TrimPrefix(s.section+"."+s.key, ".") }

// env is the variable that it can be set by.
func (s setting) env() string {
	return envPrefix + strings.ToUpper(strings.TrimPrefix(s.section+"__"+s.key, "__"))
}

const envPrefix = "HERMETO_"

// knownSettings are all of them, in the order in which they are shown.
func knownSettings() []setting {
	var out []setting
	proxy := func(section string, effect bool, more ...setting) {
		out = append(out, setting{section, "proxy_url", settingURL, nil, effect}, setting{section, "proxy_login", settingText, nil, effect},
			setting{section, "proxy_password", settingSecret, nil, effect})
		out = append(out, more...)
	}
	proxy("cargo", true)
	proxy("pip", false, setting{"pip", "ignore_dependencies_crates", settingFlag, false, false})
	proxy("yarn", false, setting{"yarn", "enabled", settingFlag, true, false})
	proxy("npm", false)
	proxy("pnpm", false)
	proxy("bundler", false)
	proxy("gomod", true, setting{"gomod", "download_max_tries", settingNumber, 5, false}, setting{"gomod", "environment_variables", settingTable, map[string]any{}, true})
	return append(out,
		setting{"http", "connect_timeout", settingNumber, 30, true},
		setting{"http", "read_timeout", settingNumber, 60, true},
		setting{"http", "max_retries", settingNumber, 4, true},
		setting{"runtime", "subprocess_timeout", settingNumber, 3600, false},
		setting{"runtime", "concurrency_limit", settingNumber, 16, true},
		setting{"", "mode", settingText, "strict", true},
	)
}

// renamed are settings' old names.
var renamed = [...][2]string{
	{"allow_yarnberry_processing", "yarn.enabled"}, {"ignore_pip_dependencies_crates", "pip.ignore_dependencies_crates"},
	{"goproxy_url", "gomod.proxy_url"}, {"gomod_download_max_tries", "gomod.download_max_tries"}, {"requests_timeout", "http.read_timeout"},
	{"subprocess_timeout", "runtime.subprocess_timeout"}, {"concurrency_limit", "runtime.concurrency_limit"},
	{"http.timeout", "http.read_timeout"}, {"default_environment_variables.gomod", "gomod.environment_variables"},
}

// SettingsFile is a configuration file's content, and how errors call it.
type SettingsFile struct {
	Name    string
	Content []byte
}

// ReadSettings reads configuration files, of which later ones count more, and
// the environment, which counts most, as os.Environ gives it.
func ReadSettings(files []SettingsFile, environ []string) (*Settings, error) {
	s := &Settings{values: map[string]any{}}
	for _, f := range files {
		var doc map[string]any
		if err := yaml.Unmarshal(f.Content, &doc); err != nil {
			return nil, fmt.Errorf("%s: %w", f.Name, err)
		}
		if err := s.file(doc); err != nil {
			return nil, fmt.Errorf("%s: %w", f.Name, err)
		}
	}
	slices.Sort(environ)
	for _, e := range environ {
		name, value, _ := strings.Cut(e, "=")
		if err := s.variable(name, value); err != nil {
			return nil, fmt.Errorf("%s: %w", strings.ToUpper(name), err)
		}
	}
	return s, s.check()
}

// file takes over what a file says.
func (s *Settings) file(doc map[string]any) error {
	flat := map[string]any{}
	for section, v := range doc {
		table, ok := v.(map[string]any)
		if !ok {
			flat[section] = v
			continue
		}
		for key, v := range table {
			flat[section+"."+key] = v
		}
	}
	if _, ok := flat["gomod_strict_vendor"]; ok {
		delete(flat, "gomod_strict_vendor")
		s.Notes = append(s.Notes, "the setting gomod_strict_vendor has no effect: a vendor folder is always compared with its modules")
	}
	for _, r := range renamed {
		v, ok := flat[r[0]]
		if !ok {
			continue
		}
		delete(flat, r[0])
		if _, both := flat[r[1]]; !both {
			flat[r[1]] = v
		}
		s.Notes = append(s.Notes, fmt.Sprintf("the setting %s is called %s now", r[0], r[1]))
	}
	all := knownSettings()
	for _, name := range slices.Sorted(maps.Keys(flat)) {
		i := slices.IndexFunc(all, func(k setting) bool { return k.name() == name })
		if i < 0 {
			if v := flat[name]; v == nil && slices.ContainsFunc(all, func(k setting) bool { return k.section == name }) {
				continue // a section without anything
			}
			return fmt.Errorf("unknown setting %s", name)
		}
		if err := s.set(all[i], flat[name]); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// variable takes over a variable of the environment, if it is Hermeto's.
func (s *Settings) variable(name, value string) error {
	name = strings.ToUpper(name)
	if !strings.HasPrefix(name, envPrefix) {
		return nil
	}
	known := false
	for _, k := range knownSettings() {
		if k.env() == name {
			return s.set(k, envValue(k.kind, value))
		}
		known = known || k.section != "" && strings.HasPrefix(name, envPrefix+strings.ToUpper(k.section)+"__")
	}
	if known {
		return errors.New("unknown setting")
	}
	return nil
}

// envValue is a variable's value; one that has another form than it should
// stays a text.
func envValue(kind settingKind, value string) any {
	switch kind {
	case settingNumber:
		if n, err := strconv.Atoi(value); err == nil {
			return n
		}
	case settingFlag:
		if b, err := strconv.ParseBool(strings.ToLower(value)); err == nil {
			return b
		}
	case settingTable:
		var t map[string]any
		if json.Unmarshal([]byte(value), &t) == nil {
			return t
		}
	}
	return value
}

// set checks a value and keeps it; of tables the entries are.
func (s *Settings) set(k setting, v any) error {
	if v == nil && k.byDefault == nil {
		delete(s.values, k.name())
		return nil
	}
	switch k.kind {
	case settingNumber:
		if n, ok := v.(int); !ok || n < 0 {
			return errors.New("want a number that is not negative")
		}
	case settingFlag:
		if _, ok := v.(bool); !ok {
			return errors.New("want true or false")
		}
	case settingTable:
		t, ok := v.(map[string]any)
		if !ok {
			return errors.New("want names and texts")
		}
		have, _ := s.values[k.name()].(map[string]any)
		all := maps.Clone(have)
		if all == nil {
			all = map[string]any{}
		}
		for name, text := range t {
			if _, ok := text.(string); !ok {
				return fmt.Errorf("%s: want a text", name)
			}
			all[name] = text
		}
		v = all
	default:
		if _, ok := v.(string); !ok {
			return errors.New("want a text")
		}
	}
	s.values[k.name()] = v
	return nil
}

// text is a setting's value, empty where there is none.
func (s *Settings) text(name string) string {
	if s == nil {
		return ""
	}
	v, _ := s.values[name].(string)
	return v
}

// number is a setting's value.
func (s *Settings) number(name string) (int, bool) {
	n, ok := s.values[name].(int)
	return n, ok
}

// Mode is "strict" or "permissive".
func (s *Settings) Mode() string { return cmp.Or(s.text("mode"), "strict") }

// check compares settings with each other. No error repeats a secret.
func (s *Settings) check() error {
	if m := s.Mode(); m != "strict" && m != "permissive" {
		return fmt.Errorf("mode %q: want strict or permissive", m)
	}
	for _, k := range knownSettings() {
		if k.kind != settingURL {
			continue
		}
		addresses := []string{s.text(k.name())}
		if k.section == "gomod" {
			addresses = s.goProxies()
		}
		for _, a := range addresses {
			if err := checkRegistry(a, k.section == "gomod"); err != nil {
				return fmt.Errorf("%s: %w", k.name(), err)
			}
		}
		login, password := s.text(k.section+".proxy_login"), s.text(k.section+".proxy_password")
		switch {
		case (login == "") != (password == ""):
			return fmt.Errorf("%s: proxy_login and proxy_password belong together", k.section)
		case login != "" && (len(addresses) != 1 || addresses[0] == ""):
			return fmt.Errorf("%s: a proxy_login is for exactly one proxy_url", k.section)
		case login != "" && !secure(addresses[0]):
			return fmt.Errorf("%s: a login is sent by https only", k.section)
		}
	}
	return nil
}

// secure tells whether secrets may be sent to an address.
func secure(address string) bool {
	u, err := url.Parse(address)
	if err != nil {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return u.Scheme == "https" || u.Scheme == "http" && ip != nil && ip.IsLoopback()
}

// checkRegistry wants the address of a registry without a login.
func checkRegistry(address string, isGo bool) error {
	if address == "" || isGo && (address == "direct" || address == "off") {
		return nil
	}
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Scheme != "https" && u.Scheme != "http" && (u.Scheme != "file" || !isGo) || u.Scheme != "file" && u.Host == "":
		return errors.New("want an address such as https://proxy.example/repository")
	case u.User != nil:
		return errors.New("a login does not belong into the address; give it as proxy_login and proxy_password")
	}
	return nil
}

// goProxies are the entries of gomod.proxy_url.
func (s *Settings) goProxies() []string {
	return strings.FieldsFunc(s.text("gomod.proxy_url"), func(r rune) bool { return r == ',' || r == '|' || r == ' ' })
}
