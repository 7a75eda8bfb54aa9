package konflux

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"caisson/lock/digest"
	"caisson/lock/internal/strictyaml"
)

// Repo is a repository as dnf's configuration has it. Options that are not
// there are nil. dnf's variables are not expanded, "$basearch" in ID among
// them. It has BaseURL or, where that is not given, Metalink or Mirrorlist.
type Repo struct {
	ID                     string
	BaseURL                []string
	Metalink, Mirrorlist   string
	GPGKey                 []string // paths relative to ReadIn's dir, or addresses
	GPGCheck, RepoGPGCheck *bool
	Priority, Cost         *int
	Exclude, Include       []string
	ModuleHotfixes         bool
	// The paths of PEM files are relative to ReadIn's dir, absolute, or hold
	// variables.
	SSLClientCert, SSLClientKey, SSLCACert string
	Username, Password, Proxy              string
	// At is the file and line that the repository is from.
	At string
}

// repoOptions are the options that are followed.
func repoOptions() []string {
	return []string{
		"baseurl", "cost", "enabled", "enablegroups", "exclude", "excludepkgs", "gpgcheck", "gpgkey", "includepkgs", "metalink", "mirrorlist",
		"module_hotfixes", "password", "priority", "proxy", "repo_gpgcheck", "repoid", "sslcacert", "sslclientcert", "sslclientkey", "username",
	}
}

// passedOver are the options of a repository that change no choice: they say
// how fast, how often and how patiently it is asked, or how it is shown.
// sslverify is among them: certificates are always checked. skip_if_unavailable
// is too: a repository that cannot be read is an error.
func passedOver() []string {
	return []string{
		"arches", "async", "autorefresh", "bandwidth", "build_cache", "color", "countme", "deltarpm", "deltarpm_percentage", "enabled_metadata",
		"failovermethod", "fastestmirror", "gpgcakey", "http_caching", "ip_resolve", "keepalive", "keepcache", "localpkg_gpgcheck",
		"max_parallel_downloads", "mediaid", "metadata_expire", "metadata_expire_filter", "metadata_timer_sync", "minrate", "mirrorlist_expire",
		"name", "pkg_gpgcheck", "proxy_auth_method", "retries", "skip_if_unavailable", "sslverify", "sslverifystatus", "throttle", "timeout",
		"type", "ui_repoid_vars", "user_agent", "zchunk",
	}
}

// checkOptions refuses options that are not known, and those that cannot be
// followed.
func checkOptions(o map[string]string) error {
	for _, k := range slices.Sorted(maps.Keys(o)) {
		switch {
		case k == sectionID, slices.Contains(repoOptions(), k), slices.Contains(passedOver(), k):
			continue
		case k == "proxy_username" || k == "proxy_password":
			return fmt.Errorf("option %s: put the login into proxy as a variable, $NAME, or leave it to the environment", k)
		}
		if near := strictyaml.Nearest(k, slices.Concat(repoOptions(), passedOver())); near != "" {
			return fmt.Errorf("unknown option %q; did you mean %q?", k, near)
		}
		return fmt.Errorf("unknown option %q; without it another choice might be made", k)
	}
	if groups, err := boolOption(o, "enablegroups"); err != nil {
		return err
	} else if groups != nil && !*groups {
		return errors.New("option enablegroups cannot be switched off")
	}
	return nil
}

// inlineRepo reads one entry of contentOrigin.repos.
func (r *reader) inlineRepo(n *yaml.Node, at string) error {
	options, vars, err := r.withVars(n)
	if err != nil {
		return err
	}
	o, err := stringify(options)
	if err != nil {
		return err
	}
	if o["baseurl"], err = address(o["baseurl"], vars); err != nil {
		return err
	}
	return r.addRepo(o, "repoid", r.in.base, at)
}

// withVars takes the keys of a mapping that say where variables are from, and
// reads those.
func (r *reader) withVars(n *yaml.Node) (map[string]any, map[string]string, error) {
	n = target(n)
	if n.Kind != yaml.MappingNode {
		return nil, nil, errors.New("want keys with values")
	}
	var f struct {
		Image         string         `yaml:"varsFromImage"`
		Containerfile yaml.Node      `yaml:"varsFromContainerfile"`
		Rest          map[string]any `yaml:",inline"`
	}
	if err := n.Decode(&f); err != nil {
		return nil, nil, errors.New("want keys with values")
	}
	vars := maps.Clone(r.vars)
	labels, err := r.labels(f.Image, &f.Containerfile)
	maps.Copy(vars, labels)
	return f.Rest, vars, err
}

// stringify writes the values of repository options as a .repo file has them.
func stringify(o map[string]any) (map[string]string, error) {
	out := make(map[string]string, len(o))
	for k, v := range o {
		switch v := v.(type) {
		case nil:
		case []any:
			var all []string
			for _, e := range v {
				all = append(all, fmt.Sprint(e))
			}
			out[k] = strings.Join(all, " ")
		case map[string]any, map[any]any:
			return nil, fmt.Errorf("option %q: want a value, got keys with values", k)
		default:
			out[k] = fmt.Sprint(v)
		}
	}
	return out, nil
}

// repofiles reads the files that one entry of contentOrigin.repofiles names.
func (r *reader) repofiles(n *yaml.Node) error {
	n = target(n)
	if n.Kind == yaml.ScalarNode {
		return r.repofilesAt(n.Value)
	}
	keys, vars, err := r.withVars(n)
	if err != nil {
		return err
	}
	texts := map[string]string{}
	for k, v := range keys {
		s, ok := v.(string)
		if !ok || !slices.Contains([]string{"location", "giturl", "gitref", "file"}, k) {
			return fmt.Errorf("unknown key %q, or no text; known here: location, giturl, gitref, file, varsFromImage, varsFromContainerfile", k)
		}
		if texts[k], err = address(s, vars); err != nil {
			return err
		}
	}
	if loc, ok := texts["location"]; ok && len(texts) == 1 {
		return r.repofilesAt(loc)
	}
	url, ref, file := texts["giturl"], texts["gitref"], texts["file"]
	if url == "" || ref == "" || file == "" || len(texts) != 3 {
		return errors.New("want location, or giturl, gitref and file")
	}
	if r.net.Git == nil {
		return fmt.Errorf("%s: %w", file, errNoNetwork)
	}
	b, err := r.net.Git(url, ref, file)
	if err != nil {
		return err
	}
	name := strings.TrimRight(url, "/") + "/" + path.Clean(file)
	r.note(name+"@"+ref, digest.Of(b))
	return r.parseRepofile(name, b)
}

// repofilesAt reads the files at a path, like a glob, or at an address.
func (r *reader) repofilesAt(loc string) error {
	if isURL(loc) {
		b, err := r.fetch(loc)
		if err != nil {
			return err
		}
		return r.parseRepofile(loc, b)
	}
	if loc == "" || strings.Contains(loc, "://") || path.IsAbs(loc) {
		return fmt.Errorf("got %q; want a path beside this file, or an address of the web: an absolute path is another file on every machine", loc)
	}
	names := []string{path.Join(r.in.base, loc)}
	if strings.ContainsAny(loc, "*?[") {
		found, err := filepath.Glob(filepath.Join(r.dir, filepath.FromSlash(names[0])))
		if err != nil || len(found) == 0 {
			return fmt.Errorf("no file is like %q", loc)
		}
		names = names[:0]
		for _, f := range found {
			rel, err := filepath.Rel(r.dir, f)
			if err != nil {
				return err
			}
			names = append(names, filepath.ToSlash(rel))
		}
	}
	for _, name := range names {
		b, err := r.read(name)
		if err != nil {
			return err
		}
		if err := r.parseRepofile(name, b); err != nil {
			return err
		}
	}
	return nil
}

// addRepo makes a repository of dnf's options, unless it is switched off.
// Paths of keys and certificates are relative to base.
func (r *reader) addRepo(o map[string]string, idKey, base, at string) error {
	if enabled, err := boolOption(o, "enabled"); err != nil || enabled != nil && !*enabled {
		return err
	}
	repo, err := repoFrom(o, idKey, base)
	if err != nil {
		return err
	}
	repo.At = at
	r.in.Repos = append(r.in.Repos, repo)
	return nil
}

func repoFrom(o map[string]string, idKey, base string) (Repo, error) {
	r := Repo{ID: o[idKey], Username: o["username"], Password: o["password"], Proxy: o["proxy"]}
	if r.ID == "" {
		return r, fmt.Errorf("a repository without %s", idKey)
	}
	fail := func(err error) (Repo, error) { return r, fmt.Errorf("repository %q: %w", r.ID, err) }
	if err := checkOptions(o); err != nil {
		return fail(err)
	}
	r.BaseURL = listOption(o["baseurl"])
	if len(r.BaseURL) == 0 {
		if r.Metalink = o["metalink"]; r.Metalink == "" {
			r.Mirrorlist = o["mirrorlist"]
		}
		if r.Metalink == "" && r.Mirrorlist == "" {
			return r, fmt.Errorf("repository %q has no baseurl, metalink or mirrorlist", r.ID)
		}
	}
	if r.Password != "" && !strings.HasPrefix(r.Password, "$") {
		return fail(errors.New(`password: a password does not belong into a file; say "$NAME", an environment variable`))
	}
	r.Exclude = slices.Concat(listOption(o["excludepkgs"]), listOption(o["exclude"]))
	r.Include = listOption(o["includepkgs"])
	for _, k := range listOption(o["gpgkey"]) {
		if path.IsAbs(k) {
			k = "file://" + k
		}
		r.GPGKey = append(r.GPGKey, beside(base, k))
	}
	r.SSLClientCert, r.SSLClientKey, r.SSLCACert = beside(base, o["sslclientcert"]), beside(base, o["sslclientkey"]), beside(base, o["sslcacert"])
	hotfixes, err := boolOption(o, "module_hotfixes")
	if err != nil {
		return fail(err)
	}
	r.ModuleHotfixes = hotfixes != nil && *hotfixes
	if r.GPGCheck, err = boolOption(o, "gpgcheck"); err != nil {
		return fail(err)
	}
	if r.RepoGPGCheck, err = boolOption(o, "repo_gpgcheck"); err != nil {
		return fail(err)
	}
	if r.Priority, err = intOption(o, "priority"); err != nil {
		return fail(err)
	}
	if r.Cost, err = intOption(o, "cost"); err != nil {
		return fail(err)
	}
	return r, nil
}

// beside is a path that is relative to a folder; what is absolute, an
// address, empty, or begins with a variable stays.
func beside(base, name string) string {
	if name == "" || path.IsAbs(name) || name[0] == '$' || strings.Contains(name, "://") {
		return name
	}
	if strings.Contains(base, "://") { // of a file that was fetched
		return base + "/" + name
	}
	return path.Join(base, name)
}

// listOption splits a list as dnf does; nil where it is empty.
func listOption(s string) []string {
	list := strings.FieldsFunc(s, func(c rune) bool { return c == ' ' || c == ',' || c == '\n' || c == '\t' })
	if len(list) == 0 {
		return nil
	}
	return list
}

func intOption(o map[string]string, key string) (*int, error) {
	s := o[key]
	if s == "" {
		return nil, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		return nil, fmt.Errorf("%s: %q is not a whole number", key, s)
	}
	return &n, nil
}

// boolOption reads a switch as dnf does.
func boolOption(o map[string]string, key string) (*bool, error) {
	var on bool
	switch v := strings.ToLower(o[key]); v {
	case "":
		return nil, nil
	case "1", "yes", "true", "on":
		on = true
	case "0", "no", "false", "off":
	default:
		return nil, fmt.Errorf("%s: %q is neither yes nor no", key, v)
	}
	return &on, nil
}

// sectionID is the key under which parseRepofile keeps a section's name. No
// option can be called so.
const sectionID = "[id]"

// parseRepofile reads a .repo file: sections in brackets, KEY=VALUE lines,
// values continued on indented lines. A [main] section is dnf's own.
func (r *reader) parseRepofile(name string, b []byte) error {
	base := path.Dir(name)
	if i := strings.LastIndexByte(name, '/'); isURL(name) {
		base = name[:i]
	}
	var section map[string]string
	var last, at string
	finish := func() error {
		if section == nil || section[sectionID] == "main" {
			return nil
		}
		if err := r.addRepo(section, sectionID, base, at); err != nil {
			return fmt.Errorf("%s: %w", at, err)
		}
		return nil
	}
	sc := bufio.NewScanner(bytes.NewReader(b))
	for line := 1; sc.Scan(); line++ {
		here := fmt.Sprintf("%s:%d", name, line)
		text := strings.TrimSpace(sc.Text())
		switch {
		case text == "" || text[0] == '#' || text[0] == ';':
		case last != "" && (sc.Text()[0] == ' ' || sc.Text()[0] == '\t'):
			section[last] += "\n" + text
		case text[0] == '[':
			id, ok := strings.CutSuffix(text[1:], "]")
			if !ok || id == "" {
				return fmt.Errorf("%s: %q is not a [section]", here, text)
			}
			if err := finish(); err != nil {
				return err
			}
			section, last, at = map[string]string{sectionID: id}, "", here
		default:
			k, v, ok := strings.Cut(text, "=")
			k = strings.TrimSpace(k)
			if !ok || k == "" {
				return fmt.Errorf("%s: %q is neither [section] nor KEY=VALUE", here, text)
			}
			if section == nil {
				return fmt.Errorf("%s: %q before the first [section]", here, text)
			}
			last = strings.ToLower(k)
			section[last] = strings.TrimSpace(v)
		}
	}
	if err := sc.Err(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return finish()
}
