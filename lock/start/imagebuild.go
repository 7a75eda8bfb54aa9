package start

import (
	"path/filepath"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"caisson/lock"
	"caisson/lock/internal/strictyaml"
)

// imageBuildFile has the keys of OpenCHAMI image-build's config.yaml. Its
// options are looked at one by one.
type imageBuildFile struct {
	Options        yaml.Node           `yaml:"options"`
	Modules        map[string][]string `yaml:"modules"`
	Packages       []string            `yaml:"packages"`
	PackageGroups  []string            `yaml:"package_groups"`
	RemovePackages []string            `yaml:"remove_packages"`
	Cmds           []imageBuildCmd     `yaml:"cmds"`
	CopyFiles      []imageBuildCopy    `yaml:"copyfiles"`
	Repos          []imageBuildRepo    `yaml:"repos"`
	OpenSCAP       yaml.Node           `yaml:"openscap"`
}

type imageBuildRepo struct {
	Alias    string `yaml:"alias"`
	URL      string `yaml:"url"`
	GPG      string `yaml:"gpg"`
	Priority *int   `yaml:"priority"`
	Config   string `yaml:"config"`
}

type imageBuildCopy struct {
	Src  string    `yaml:"src"`
	Dest string    `yaml:"dest"`
	Opts yaml.Node `yaml:"opts"`
}

type imageBuildCmd struct {
	Cmd              string    `yaml:"cmd"`
	LogLevel         string    `yaml:"loglevel"`
	BuildahExtraArgs yaml.Node `yaml:"buildah_extra_args"`
}

// UnmarshalYAML reads a command by itself, as older files have it, or with its
// options.
func (c *imageBuildCmd) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.ScalarNode {
		return n.Decode(&c.Cmd)
	}
	type plain imageBuildCmd
	return n.Decode((*plain)(c))
}

// imageBuild reads a config.yaml of OpenCHAMI's image-build.
func (d *draft) imageBuild(name string, b []byte) error {
	var f imageBuildFile
	doc, err := strictyaml.Decode(name, b, &f)
	if err != nil {
		return err
	}
	at := func(path ...any) int { return placeLine(doc, path) }
	d.imageBuildOptions(&f.Options)
	for i, r := range f.Repos {
		repo := lock.ManifestRepo{ID: r.Alias, Priority: r.Priority}
		if r.URL != "" {
			repo.BaseURL = lock.StringList{r.URL}
		}
		if r.GPG != "" {
			repo.GPGKey = []string{r.GPG}
		}
		d.repo(at("repos", i), repo)
	}
	for i, p := range f.Packages {
		d.packages(at("packages", i), lock.SetRoot, p)
	}
	for i, g := range f.PackageGroups {
		d.packages(at("package_groups", i), lock.SetRoot, "@"+strings.TrimLeft(g, "@^"))
	}
	for i, p := range f.RemovePackages {
		d.exclude(at("remove_packages", i), p)
	}
	d.imageBuildModules(f.Modules, at)
	for i, c := range f.CopyFiles {
		line := at("copyfiles", i)
		d.place(line, "copyfiles "+c.Src, filepath.Join(filepath.Dir(name), filepath.FromSlash(c.Src)), c.Dest, "")
		if c.Opts.Kind != 0 {
			d.note(line, "opts", "modes and owners are given by an .owners file beside an overlay, or by the step")
		}
	}
	for i, c := range f.Cmds {
		line := at("cmds", i)
		if strings.TrimSpace(c.Cmd) == "" || strings.Contains(c.Cmd, "\x00") {
			d.note(line, "cmd", "it is empty, or has a NUL in it")
			continue
		}
		if d.step(line, c.Cmd, "Of "+shorten(name)+", line "+strconv.Itoa(line)+": see that it needs no network and no running system.", inRoot("/bin/bash -c", c.Cmd)) {
			d.note(line, c.Cmd, "it is a run step now, which has no network and no running system: see that it needs none")
		}
		if c.BuildahExtraArgs.Kind != 0 {
			d.note(line, "buildah_extra_args", "there is no buildah")
		}
	}
	if f.OpenSCAP.Kind != 0 {
		d.note(f.OpenSCAP.Line, "openscap", "a benchmark can be run against what is built; it changes nothing in a build")
	}
	return nil
}

// placeLine is the line of a value.
func placeLine(doc *strictyaml.Doc, path []any) int {
	_, line, _ := strings.Cut(doc.At(path)[strings.LastIndexByte(doc.At(path), ':'):], ":")
	n, err := strconv.Atoi(line)
	if err != nil {
		return 1
	}
	return n
}

func (d *draft) imageBuildModules(modules map[string][]string, at func(path ...any) int) {
	for _, cmd := range []string{"enable", "install", "disable", "reset"} {
		for i, name := range modules[cmd] {
			line := at("modules", cmd, i)
			switch cmd {
			case "enable":
				d.try(line, name, func(m *lock.Manifest) { add(&m.RPM.ModuleEnable, name) })
			case "disable":
				d.try(line, name, func(m *lock.Manifest) { add(&m.RPM.ModuleDisable, name) })
			case "install":
				d.packages(line, lock.SetRoot, "@"+strings.TrimPrefix(name, "@"))
			}
		}
	}
	for cmd := range modules {
		if cmd != "enable" && cmd != "install" && cmd != "disable" && cmd != "reset" {
			d.note(at("modules", cmd), "modules "+cmd, "only enable, disable and install mean something here")
		}
	}
}

// imageBuildOptions looks at the options.
func (d *draft) imageBuildOptions(n *yaml.Node) {
	for key, value := range pairs(n) {
		what := key.Value + ": " + value.Value
		switch key.Value {
		case "name":
			d.called(value.Value)
		case "layer_type":
			if value.Value != "base" {
				d.note(key.Line, what, "a playbook needs a running system or a network; write what it does as steps and overlays")
			}
		case "pkg_manager":
			if value.Value != "dnf" {
				d.note(key.Line, what, "packages are chosen as dnf does")
			}
		case "parent":
			if value.Value != "scratch" {
				d.note(key.Line, what, "an image's root starts from nothing: give the parent's config.yaml to `caisson init` too")
			}
		case "proxy":
			d.note(key.Line, what, "the environment's proxies count; one for a repository alone is its proxy")
		case "gpgcheck":
			if value.Value == "false" || value.Value == "no" {
				d.note(key.Line, what, "packages are checked unless a repository says gpgcheck: false")
			}
		case "groups", "playbooks", "inventory", "vars", "ansible_verbosity":
			d.note(key.Line, what, "there is no Ansible")
		case "scap_benchmark", "oval_eval", "install_scap":
			d.note(key.Line, what, "a benchmark can be run against what is built")
		default:
			if strings.HasPrefix(key.Value, "publish") || strings.HasPrefix(key.Value, "s3_") || strings.HasPrefix(key.Value, "registry_opts") {
				d.note(key.Line, what, "what is built is published by `caisson push`; for a network boot add netboot to image.output")
				continue
			}
			d.note(key.Line, what, "the option is not known here")
		}
	}
}
