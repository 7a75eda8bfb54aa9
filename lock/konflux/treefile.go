package konflux

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxTreefiles is how many files a treefile may include.
const maxTreefiles = 200

// treeFile has the keys of an rpm-ostree treefile that count here
// (https://coreos.github.io/rpm-ostree/treefile/).
type treeFile struct {
	Packages     []string `yaml:"packages"`
	RepoPackages []struct {
		Repo     string   `yaml:"repo"`
		Packages []string `yaml:"packages"`
	} `yaml:"repo-packages"`
	Exclude    []string       `yaml:"exclude-packages"`
	Repos      []string       `yaml:"repos"`
	Recommends *bool          `yaml:"recommends"`
	ReleaseVer yaml.Node      `yaml:"releasever"`
	Variables  map[string]any `yaml:"variables"`
	Include    yaml.Node      `yaml:"include"`
	ArchIncl   map[string]any `yaml:"arch-include"`
	CondIncl   []struct {
		If      yaml.Node `yaml:"if"`
		Include yaml.Node `yaml:"include"`
	} `yaml:"conditional-include"`
	Modules struct {
		Enable  []string `yaml:"enable"`
		Install []string `yaml:"install"`
	} `yaml:"modules"`
	Other map[string]yaml.Node `yaml:",inline"`
}

// treefile is a treefile and those that it includes, in the order in which
// they count: what includes is stronger than what it includes.
type treefile struct {
	files []treePart
	vars  map[string]string
}

// treePart is one file, and on which arches it counts; no arches: on all.
type treePart struct {
	name string
	on   func(arch string) bool
	treeFile
}

// treefile reads a treefile.
func (r *reader) treefile(name string) (*treefile, error) {
	t := &treefile{vars: map[string]string{}}
	if err := r.addTreefile(t, name, func(string) bool { return true }); err != nil {
		return nil, err
	}
	for _, p := range t.files {
		if p.Recommends != nil && r.in.WeakDeps == nil {
			r.in.WeakDeps = p.Recommends
		}
	}
	r.in.ReleaseVer = t.vars["releasever"]
	return t, nil
}

func (r *reader) addTreefile(t *treefile, name string, on func(string) bool) error {
	if len(t.files) >= maxTreefiles {
		return fmt.Errorf("%s: more than %d treefiles, or one that includes itself", name, maxTreefiles)
	}
	b, err := r.read(name)
	if err != nil {
		return err
	}
	p := treePart{name: name, on: on}
	if err := lenient(name, b, &p.treeFile); err != nil {
		return err
	}
	t.files = append(t.files, p)
	if v := p.ReleaseVer.Value; v != "" && t.vars["releasever"] == "" {
		t.vars["releasever"] = v
	}
	for k, v := range p.Variables {
		if _, given := t.vars[k]; !given {
			t.vars[k] = fmt.Sprint(v)
		}
	}
	for _, more := range words(&p.Include) {
		if err := r.addTreefile(t, path.Join(path.Dir(name), more), on); err != nil {
			return err
		}
	}
	for _, arch := range slices.Sorted(maps.Keys(p.ArchIncl)) {
		here := func(a string) bool { return a == arch && on(a) }
		for _, more := range anyWords(p.ArchIncl[arch]) {
			if err := r.addTreefile(t, path.Join(path.Dir(name), more), here); err != nil {
				return err
			}
		}
	}
	for i := range p.CondIncl {
		conds := words(&p.CondIncl[i].If)
		for _, c := range conds {
			if _, err := t.holds(c, "x86_64"); err != nil {
				return fmt.Errorf("%s: conditional-include: %w", name, err)
			}
		}
		here := func(a string) bool {
			return on(a) && !slices.ContainsFunc(conds, func(c string) bool { ok, _ := t.holds(c, a); return !ok })
		}
		for _, more := range words(&p.CondIncl[i].Include) {
			if err := r.addTreefile(t, path.Join(path.Dir(name), more), here); err != nil {
				return err
			}
		}
	}
	return nil
}

// anyWords is a text or a list of them.
func anyWords(v any) []string {
	switch v := v.(type) {
	case string:
		return []string{v}
	case []any:
		var out []string
		for _, e := range v {
			out = append(out, fmt.Sprint(e))
		}
		return out
	}
	return nil
}

var condition = regexp.MustCompile(`^\s*([A-Za-z_][A-Za-z0-9_-]*)\s*(==|!=|<=|>=|<|>)\s*("[^"]*"|'[^']*'|[A-Za-z0-9_.-]+)\s*$`)

// holds tells whether a condition of a conditional-include holds on an arch.
func (t *treefile) holds(cond, arch string) (bool, error) {
	m := condition.FindStringSubmatch(cond)
	if m == nil {
		return false, fmt.Errorf("%q: want VARIABLE OPERATOR VALUE", cond)
	}
	left, ok := t.vars[m[1]]
	if m[1] == "basearch" {
		left, ok = arch, true
	}
	if !ok {
		return false, fmt.Errorf("%q: there is no variable %s", cond, m[1])
	}
	right := strings.Trim(m[3], `"'`)
	switch m[2] {
	case "==":
		return left == right, nil
	case "!=":
		return left != right, nil
	}
	l, err1 := strconv.Atoi(left)
	r, err2 := strconv.Atoi(right)
	if err1 != nil || err2 != nil {
		return false, fmt.Errorf("%q: want whole numbers, got %q and %q", cond, left, right)
	}
	switch m[2] {
	case "<":
		return l < r, nil
	case "<=":
		return l <= r, nil
	case ">":
		return l > r, nil
	}
	return l >= r, nil
}

// requests adds what the treefile asks for on an arch. An entry may name
// several packages.
func (t *treefile) requests(arch string, out *ArchRequests) {
	for i := range t.files {
		p := &t.files[i]
		if !p.on(arch) {
			continue
		}
		lists := [][]string{p.Packages}
		if n, ok := p.Other["packages-"+arch]; ok {
			lists = append(lists, words(&n))
		}
		for _, rp := range p.RepoPackages {
			lists = append(lists, rp.Packages)
		}
		for _, list := range lists {
			for _, entry := range list {
				out.Install = append(out.Install, strings.Fields(entry)...)
			}
		}
		out.Hide = append(out.Hide, p.Exclude...)
		out.ModuleEnable = append(out.ModuleEnable, p.Modules.Enable...)
		out.addGroups(p.Modules.Install)
	}
}

// keepTreeRepos takes only the repositories that a treefile names, where it
// names some.
func (in *In) keepTreeRepos() error {
	if in.tree == nil {
		return nil
	}
	var names []string
	for _, p := range in.tree.files {
		names = append(names, p.Repos...)
	}
	if len(names) == 0 {
		return nil
	}
	for _, p := range in.tree.files {
		for _, rp := range p.RepoPackages {
			names = append(names, rp.Repo)
		}
	}
	var missing []error
	for _, n := range names {
		if n != "" && !slices.ContainsFunc(in.Repos, func(r Repo) bool { return r.ID == n }) {
			missing = append(missing, fmt.Errorf("%s: it uses the repository %q, which contentOrigin does not have", in.tree.files[0].name, n))
		}
	}
	in.Repos = slices.DeleteFunc(in.Repos, func(r Repo) bool { return !slices.Contains(names, r.ID) })
	return errors.Join(missing...)
}
