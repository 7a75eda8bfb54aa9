package hermeto

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"

	"caisson/lock/konflux"
	"caisson/prefetch/view"
)

// configName is the file in which fetch-deps leaves what the other commands
// need.
const configName = ".build-config.json"

// BuildConfig is .build-config.json: how a build is told of the output.
// Values and templates have ${output_dir} where the output's path belongs, as
// Python's string.Template has it.
type BuildConfig struct {
	Variables []Variable    `json:"environment_variables"`
	Files     []ProjectFile `json:"project_files"`
	Options   *Options      `json:"options,omitempty"`
}

// Variable is an environment variable. Its value may name others.
type Variable struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// ProjectFile is a file that inject-files writes into the source.
type ProjectFile struct {
	Path     string `json:"abspath"`
	Template string `json:"template"`
}

// Options are what the input says of backends.
type Options struct {
	RPM *RPMOptions `json:"rpm,omitempty"`
}

// RPMOptions has dnf's options by repository.
type RPMOptions struct {
	DNF map[string]map[string]any `json:"dnf,omitempty"`
}

// goVariables is how Hermeto's output is used by go: a module cache that is
// also its own proxy.
var goVariables = [...]Variable{
	{"GOCACHE", "${output_dir}/deps/gomod"},
	{"GOMODCACHE", "${output_dir}/deps/gomod/pkg/mod"},
	{"GOPATH", "${output_dir}/deps/gomod"},
	{"GOPROXY", "file://${GOMODCACHE}/cache/download"},
	{"GOSUMDB", "off"},
}

// gitVariable is where libgit2 and git find the submodules of repositories
// that crates are in.
var gitVariable = Variable{"XDG_CONFIG_HOME", "${output_dir}/deps/cargo/git"}

// config is the plan's .build-config.json.
func (p *Plan) config(crates crateSources) (*BuildConfig, error) {
	c := &BuildConfig{Variables: []Variable{}, Files: []ProjectFile{}}
	for _, pkg := range p.req.Input.Packages {
		switch pkg.Type {
		case "gomod":
			own := p.req.Settings.environment()
			for _, v := range goVariables {
				if _, ok := own[v.Name]; !ok {
					c.Variables = append(c.Variables, v)
				}
			}
			for name, value := range own {
				c.Variables = append(c.Variables, Variable{name, value})
			}
		case "cargo":
			f, err := p.cargoConfig(pkg, crates)
			if err != nil {
				return nil, err
			}
			c.Files = append(c.Files, f)
		case "rpm":
			if len(pkg.DNF) == 0 {
				continue
			}
			dnf := map[string]map[string]any{}
			for repo, options := range pkg.DNF {
				dnf[repo] = map[string]any{}
				for k, v := range options {
					dnf[repo][k] = v
				}
			}
			c.Options = &Options{RPM: &RPMOptions{DNF: dnf}} // of several the last, as Hermeto has it
		}
	}
	if len(crates.repos) > 0 {
		c.Variables = append(c.Variables, gitVariable)
	}
	c.Variables = sortedSet(c.Variables, func(v Variable) string { return v.Name })
	slices.SortFunc(c.Files, func(a, b ProjectFile) int { return strings.Compare(a.Path, b.Path) })
	return c, nil
}

// cargoConfig is the source's own cargo configuration with the output's
// registries in place of those it has.
func (p *Plan) cargoConfig(pkg konflux.PrefetchPackage, crates crateSources) (ProjectFile, error) {
	abs, err := filepath.Abs(p.req.Source)
	if err != nil {
		return ProjectFile{}, err
	}
	name := ".cargo/config" // which cargo prefers where there are both
	own, _, err := p.read(pkg, name)
	if errors.Is(err, fs.ErrNotExist) {
		name = ".cargo/config.toml"
		own, _, err = p.read(pkg, name)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return ProjectFile{}, err
	}
	f := ProjectFile{Path: filepath.Join(abs, filepath.FromSlash(path.Join(pkg.Path, name)))}
	all := map[string]any{}
	if err := toml.Unmarshal(own, &all); err != nil {
		return f, fmt.Errorf("reading %s: %w", f.Path, err)
	}
	delete(all, "source")
	var b bytes.Buffer
	if err := toml.NewEncoder(&b).Encode(all); err != nil {
		return f, fmt.Errorf("writing %s: %w", f.Path, err)
	}
	f.Template = strings.ReplaceAll(b.String(), "$", "$$")
	if f.Template != "" {
		f.Template += "\n"
	}
	f.Template += string(view.CargoSources("${output_dir}/deps/cargo", crates.registries))
	const slot = "/output-dir" // an address has no braces
	git := string(view.CargoGitSources(slot+"/deps/cargo/git", crates.repos))
	f.Template += strings.ReplaceAll(git, "file://"+slot+"/deps/", "file://${output_dir}/deps/")
	return f, nil
}

// ReadConfig reads the .build-config.json of an output folder.
func ReadConfig(dir string) (*BuildConfig, error) {
	name := filepath.Join(dir, configName)
	b, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s has no %s: want a folder that fetch-deps has filled: %w", dir, configName, err)
	}
	if err != nil {
		return nil, err
	}
	c := new(BuildConfig)
	if err := json.Unmarshal(b, c); err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	return c, nil
}

// templateRE is a variable of Python's string.Template: "$$", "$name" or "${name}".
var templateRE = regexp.MustCompile(`\$(?:(\$)|([A-Za-z_]\w*)|\{([A-Za-z_]\w*)\})`)

// substitute puts values into a template; names without one stay.
func substitute(template string, values map[string]string) string {
	return templateRE.ReplaceAllStringFunc(template, func(s string) string {
		m := templateRE.FindStringSubmatch(s)
		if m[1] != "" {
			return "$"
		}
		if v, ok := values[m[2]+m[3]]; ok {
			return v
		}
		return s
	})
}

// resolved is the variables with their values for an output at that path.
func (c *BuildConfig) resolved(dir string) ([]Variable, error) {
	values := map[string]string{}
	for _, v := range c.Variables {
		values[v.Name] = v.Value
	}
	values["output_dir"] = dir
	out := slices.Clone(c.Variables)
	for i := range out {
		for range values { // one variable may name another, and that a third
			out[i].Value = substitute(out[i].Value, values)
		}
		for _, m := range templateRE.FindAllStringSubmatch(out[i].Value, -1) {
			if _, ok := values[m[2]+m[3]]; ok {
				return nil, fmt.Errorf("the variable %s names itself", out[i].Name)
			}
		}
	}
	return out, nil
}

// Env is the environment that a build needs, for an output that it will see
// at dir: lines for a shell, or a JSON list.
func (c *BuildConfig) Env(dir, format string) ([]byte, error) {
	all, err := c.resolved(dir)
	if err != nil {
		return nil, err
	}
	switch format {
	case "json":
		b, err := json.Marshal(all)
		return append(b, '\n'), err
	case "env":
		var b bytes.Buffer
		for _, v := range all {
			b.WriteString("export " + shellQuote(v.Name) + "=" + shellQuote(v.Value) + "\n")
		}
		return b.Bytes(), nil
	}
	return nil, fmt.Errorf("format %q: want env or json", format)
}

var shellSafe = regexp.MustCompile(`^[\w@%+=:,./-]+$`)

// shellQuote is Python's shlex.quote.
func shellQuote(s string) string {
	if shellSafe.MatchString(s) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'"'"'`) + "'"
}

// Inject writes the project files, and deps/rpm/ARCH/repos.d/NAME.repo of the
// output in dir, all for an output that a build will see at the path at. It
// returns what it wrote.
func (c *BuildConfig) Inject(dir, at, name string) ([]string, error) {
	var wrote []string
	for _, f := range c.Files {
		if !filepath.IsAbs(f.Path) {
			return wrote, fmt.Errorf("project file %q: want an absolute path", f.Path)
		}
		if err := replaceFile(f.Path, []byte(substitute(f.Template, map[string]string{"output_dir": at}))); err != nil {
			return wrote, err
		}
		wrote = append(wrote, f.Path)
	}
	if name, err := moveSubmodules(dir, at); err != nil {
		return wrote, err
	} else if name != "" {
		wrote = append(wrote, name)
	}
	arches, err := os.ReadDir(filepath.Join(dir, "deps/rpm"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return wrote, err
	}
	for _, a := range arches {
		if !a.IsDir() {
			continue
		}
		text, err := c.repoFile(filepath.Join(dir, "deps/rpm", a.Name()), path.Join(at, "deps/rpm", a.Name()))
		if err != nil {
			return wrote, err
		}
		if text == nil {
			continue
		}
		to := filepath.Join(dir, "deps/rpm", a.Name(), "repos.d", name+".repo")
		if err := replaceFile(to, text); err != nil {
			return wrote, err
		}
		wrote = append(wrote, to)
	}
	return wrote, nil
}

// submodulesRE is where the repositories are in the configuration by which git
// finds their submodules: see view.GitRepositories.
var submodulesRE = regexp.MustCompile(`\[url "(file://.*/deps/cargo/git)/git-[0-9a-f]{16}`)

// moveSubmodules has git look for submodules in an output at the path at. It
// returns the file that it wrote, empty for none.
func moveSubmodules(dir, at string) (string, error) {
	name := filepath.Join(dir, "deps/cargo/git/git/config")
	b, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	m := submodulesRE.FindSubmatch(b)
	if m == nil { // there are no submodules
		return "", nil
	}
	moved := bytes.ReplaceAll(b, []byte(string(m[1])+"/"), []byte(view.FileURL(path.Join(at, "deps/cargo/git"))+"/"))
	if bytes.Equal(moved, b) {
		return "", nil
	}
	return name, replaceFile(name, moved)
}

// repoFile is a .repo file of the repositories in dir, nil where there are
// none.
func (c *BuildConfig) repoFile(dir, at string) ([]byte, error) {
	repos, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	for _, r := range repos {
		id := r.Name()
		if !r.IsDir() || id == "repos.d" {
			continue
		}
		options := map[string]string{"gpgcheck": "1"}
		if id == view.NoRepo {
			options["name"] = "Packages unaffiliated with an official repository"
		}
		if c.Options != nil && c.Options.RPM != nil {
			for k, v := range c.Options.RPM.DNF[id] {
				options[k] = fmt.Sprint(v)
			}
		}
		options["baseurl"] = view.FileURL(path.Join(at, id))
		if strings.ContainsAny(id, "[]\n") {
			return nil, fmt.Errorf("repository %q: a .repo file cannot have that name", id)
		}
		fmt.Fprintf(&b, "[%s]\n", id)
		for _, k := range slices.Sorted(maps.Keys(options)) {
			if strings.ContainsAny(k+options[k], "\r\n") {
				return nil, fmt.Errorf("repository %q: option %q has a line break", id, k)
			}
			fmt.Fprintf(&b, "%s = %s\n", k, options[k])
		}
		b.WriteByte('\n')
	}
	if b.Len() == 0 {
		return nil, nil
	}
	return b.Bytes(), nil
}

// replaceFile writes a file under another name first; its folder is made.
func replaceFile(name string, b []byte) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil { //nolint:gosec // a project's folder
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+"-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(b)
	if err = errors.Join(err, f.Chmod(0o644), f.Close()); err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	return os.Rename(f.Name(), name)
}
