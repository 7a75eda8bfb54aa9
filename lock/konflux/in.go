// Package konflux reads the files by which Konflux repositories say what
// they need.
//
// Of rpms.in.yaml it takes the repositories (repos and repofiles), packages,
// excludePackages and arches. The context is passed over: an image of Caisson
// starts from nothing, so there are no packages to count as installed. Keys
// that would change the choice in other ways are errors.
package konflux

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// In is what an rpms.in.yaml asks for.
type In struct {
	Arches   []string
	Repos    []Repo
	Packages []Package
	Exclude  []string
}

// Repo is a repository as dnf's configuration has it. Options that are not
// there are nil.
type Repo struct {
	ID, BaseURL            string
	GPGKey                 []string
	GPGCheck, RepoGPGCheck *bool
	Priority               *int
}

// Package is a request, for all arches unless Only or Not names some.
type Package struct {
	Name      string
	Only, Not []string
}

// maxFile is the largest file read, in bytes.
const maxFile = 1 << 20

type inFile struct {
	ContentOrigin struct {
		Repos     []map[string]any `yaml:"repos"`
		Repofiles []yaml.Node      `yaml:"repofiles"`
		Composes  []yaml.Node      `yaml:"composes"`
	} `yaml:"contentOrigin"`
	Packages         []yaml.Node `yaml:"packages"`
	ExcludePackages  []string    `yaml:"excludePackages"`
	Arches           []string    `yaml:"arches"`
	Context          yaml.Node   `yaml:"context"`
	InstallWeakDeps  yaml.Node   `yaml:"installWeakDeps"`
	NoSources        yaml.Node   `yaml:"noSources"`
	AllowErasing     yaml.Node   `yaml:"allowerasing"`
	Zchunk           yaml.Node   `yaml:"zchunk"`
	ModuleEnable     []yaml.Node `yaml:"moduleEnable"`
	ModuleDisable    []yaml.Node `yaml:"moduleDisable"`
	Reinstall        []yaml.Node `yaml:"reinstallPackages"`
	Upgrade          []yaml.Node `yaml:"upgradePackages"`
	AssumeProvides   []yaml.Node `yaml:"assumeProvides"`
	FromContainer    yaml.Node   `yaml:"packagesFromContainerfile"`
	Variables        []yaml.Node `yaml:"variables"`
	MatchContextVers []yaml.Node `yaml:"matchContextVersions"`
}

// ReadIn reads the rpms.in.yaml at a path relative to dir, and the repository
// files that it names.
func ReadIn(dir, name string) (*In, error) {
	b, err := readFile(filepath.Join(dir, name))
	if err != nil {
		return nil, err
	}
	var f inFile
	dec := yaml.NewDecoder(bytes.NewReader(b))
	dec.KnownFields(true)
	if err := dec.Decode(&f); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if err := f.unsupported(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	in := &In{Arches: f.Arches, Exclude: f.ExcludePackages}
	for _, n := range f.Packages {
		p, err := parsePackage(&n)
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", name, n.Line, err)
		}
		in.Packages = append(in.Packages, p)
	}
	base := filepath.Dir(name)
	for i, o := range f.ContentOrigin.Repos {
		r, err := repoFrom(stringify(o), "repoid", base)
		if err != nil {
			return nil, fmt.Errorf("%s: contentOrigin.repos[%d]: %w", name, i, err)
		}
		in.Repos = append(in.Repos, r)
	}
	for _, n := range f.ContentOrigin.Repofiles {
		repos, err := readRepofile(dir, base, &n)
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", name, n.Line, err)
		}
		in.Repos = append(in.Repos, repos...)
	}
	return in, nil
}

func (f *inFile) unsupported() error {
	for key, used := range map[string]bool{
		"contentOrigin.composes": len(f.ContentOrigin.Composes) > 0, "moduleEnable": len(f.ModuleEnable) > 0,
		"moduleDisable": len(f.ModuleDisable) > 0, "reinstallPackages": len(f.Reinstall) > 0, "upgradePackages": len(f.Upgrade) > 0,
		"assumeProvides": len(f.AssumeProvides) > 0, "packagesFromContainerfile": !f.FromContainer.IsZero(),
		"variables": len(f.Variables) > 0, "matchContextVersions": len(f.MatchContextVers) > 0,
	} {
		if used {
			return fmt.Errorf("%s is not supported: it would change what is chosen", key)
		}
	}
	return nil
}

// PackagesFor is the names asked for on any of the arches.
func (in *In) PackagesFor(arches []string) []string {
	var out []string
	for _, p := range in.Packages {
		if slices.ContainsFunc(arches, p.on) {
			out = append(out, p.Name)
		}
	}
	return out
}

func (p Package) on(arch string) bool {
	if len(p.Only) > 0 {
		return slices.Contains(p.Only, arch)
	}
	return !slices.Contains(p.Not, arch)
}

func parsePackage(n *yaml.Node) (Package, error) {
	if n.Kind == yaml.ScalarNode {
		return Package{Name: n.Value}, nil
	}
	var p struct {
		Name   string `yaml:"name"`
		Arches struct {
			Only yaml.Node `yaml:"only"`
			Not  yaml.Node `yaml:"not"`
		} `yaml:"arches"`
	}
	if err := n.Decode(&p); err != nil {
		return Package{}, err
	}
	if p.Name == "" {
		return Package{}, errors.New("a package without a name")
	}
	return Package{Name: p.Name, Only: list(&p.Arches.Only), Not: list(&p.Arches.Not)}, nil
}

// list is a string or a list of strings.
func list(n *yaml.Node) []string {
	if n.Kind == yaml.ScalarNode {
		return []string{n.Value}
	}
	var out []string
	for _, c := range n.Content {
		out = append(out, c.Value)
	}
	return out
}

func stringify(o map[string]any) map[string]string {
	out := map[string]string{}
	for k, v := range o {
		out[k] = fmt.Sprint(v)
	}
	return out
}

// repoFrom makes a repository of dnf's options; paths of keys are below base.
func repoFrom(o map[string]string, idKey, base string) (Repo, error) {
	r := Repo{ID: o[idKey], BaseURL: o["baseurl"]}
	if r.ID == "" {
		return r, fmt.Errorf("no %s", idKey)
	}
	if fields := strings.Fields(r.BaseURL); len(fields) > 0 {
		r.BaseURL = fields[0]
	}
	if r.BaseURL == "" {
		return r, fmt.Errorf("repository %q has no baseurl; metalink and mirrorlist are not supported", r.ID)
	}
	for _, k := range strings.FieldsFunc(o["gpgkey"], func(c rune) bool { return c == ' ' || c == ',' || c == '\n' || c == '\t' }) {
		if !strings.Contains(k, "://") {
			k = filepath.Join(base, k)
		}
		r.GPGKey = append(r.GPGKey, k)
	}
	var err error
	if r.GPGCheck, err = boolOption(o, "gpgcheck"); err != nil {
		return r, err
	}
	if r.RepoGPGCheck, err = boolOption(o, "repo_gpgcheck"); err != nil {
		return r, err
	}
	if s := o["priority"]; s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			return r, fmt.Errorf("repository %q: priority %q is no number", r.ID, s)
		}
		r.Priority = &n
	}
	return r, nil
}

// boolOption reads a switch as dnf does.
func boolOption(o map[string]string, key string) (*bool, error) {
	switch v := strings.ToLower(o[key]); v {
	case "":
		return nil, nil
	case "1", "yes", "true", "on":
		on := true
		return &on, nil
	case "0", "no", "false", "off":
		off := false
		return &off, nil
	default:
		return nil, fmt.Errorf("%s: %q is neither yes nor no", key, v)
	}
}

func readRepofile(dir, base string, n *yaml.Node) ([]Repo, error) {
	loc := n.Value
	if n.Kind != yaml.ScalarNode {
		var f struct {
			Location string `yaml:"location"`
		}
		if err := n.Decode(&f); err != nil {
			return nil, err
		}
		loc = f.Location
	}
	if loc == "" || strings.Contains(loc, "://") {
		return nil, fmt.Errorf("repofiles: %q: want a file beside the manifest", loc)
	}
	name := filepath.Join(base, loc)
	b, err := readFile(filepath.Join(dir, name))
	if err != nil {
		return nil, err
	}
	return parseRepofile(name, b)
}

// parseRepofile reads a .repo file: sections in brackets, KEY=VALUE lines,
// values continued on indented lines. Sections that are not enabled are left
// out.
func parseRepofile(name string, b []byte) ([]Repo, error) {
	var repos []Repo
	var section map[string]string
	var last string
	finish := func() error {
		if section == nil || section["enabled"] == "0" {
			return nil
		}
		r, err := repoFrom(section, " id", filepath.Dir(name))
		if err == nil {
			repos = append(repos, r)
		}
		return err
	}
	sc := bufio.NewScanner(bytes.NewReader(b))
	for line := 1; sc.Scan(); line++ {
		text := strings.TrimSpace(sc.Text())
		switch {
		case text == "" || text[0] == '#' || text[0] == ';':
		case text[0] == '[' && strings.HasSuffix(text, "]"):
			if err := finish(); err != nil {
				return nil, fmt.Errorf("%s:%d: %w", name, line, err)
			}
			section, last = map[string]string{" id": strings.Trim(text, "[]")}, ""
		case section == nil:
			return nil, fmt.Errorf("%s:%d: %q before the first [section]", name, line, text)
		case last != "" && (sc.Text()[0] == ' ' || sc.Text()[0] == '\t'):
			section[last] += "\n" + text
		default:
			k, v, ok := strings.Cut(text, "=")
			if !ok {
				return nil, fmt.Errorf("%s:%d: %q is neither [section] nor KEY=VALUE", name, line, text)
			}
			last = strings.TrimSpace(k)
			section[last] = strings.TrimSpace(v)
		}
	}
	if err := sc.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if err := finish(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return repos, nil
}

func readFile(name string) ([]byte, error) {
	st, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if st.Size() > maxFile {
		return nil, fmt.Errorf("%s: %d bytes, more than the %d that are read", name, st.Size(), maxFile)
	}
	return os.ReadFile(name)
}
