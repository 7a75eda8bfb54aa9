// Package konflux reads the files by which Konflux repositories say what
// they need.
//
// Of rpms.in.yaml it takes the repositories (repos and repofiles), packages
// less excludePackages, arches and installWeakDeps. The context is passed
// over: an image of Caisson starts from nothing, so there are no packages to
// count as installed, and for the same reason allowerasing means nothing.
// noSources and zchunk do not change the choice. Keys and repository options
// that would change it in other ways are errors; options that say how to
// reach a repository (certificates, proxies, time limits) are passed over.
// Of several baseurls the first is taken.
package konflux

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"caisson/lock/digest"
	"caisson/lock/internal/strictyaml"
)

// In is what an rpms.in.yaml asks for.
type In struct {
	Arches   []string
	Repos    []Repo
	Packages []Package
	// Exclude are names that are taken away from Packages.
	Exclude []string
	// WeakDeps is installWeakDeps; nil where the file does not say.
	WeakDeps *bool
	// Files are the files that were read, in that order.
	Files []File
}

// File is a file that was read.
type File struct {
	Name   string // slash-separated, relative to ReadIn's dir
	SHA256 digest.Digest
}

// Package is a request, for all arches unless Only or Not names some.
type Package struct {
	Name      string
	Only, Not []string
}

// maxFile is the largest file read, in bytes.
const maxFile = 1 << 20

// inFile has the keys of rpms.in.yaml (rpm-lockfile-prototype 0.30,
// schema.py).
type inFile struct {
	ContentOrigin struct {
		Repos     []map[string]any `yaml:"repos"`
		Repofiles []yaml.Node      `yaml:"repofiles"`
		Composes  []yaml.Node      `yaml:"composes"`
	} `yaml:"contentOrigin"`
	Packages        []yaml.Node `yaml:"packages"`
	ExcludePackages []string    `yaml:"excludePackages"`
	Arches          []string    `yaml:"arches"`
	Context         yaml.Node   `yaml:"context"`
	InstallWeakDeps *bool       `yaml:"installWeakDeps"`
	NoSources       bool        `yaml:"noSources"`
	AllowErasing    bool        `yaml:"allowerasing"`
	Zchunk          bool        `yaml:"zchunk"`
	ModuleEnable    []yaml.Node `yaml:"moduleEnable"`
	ModuleDisable   []yaml.Node `yaml:"moduleDisable"`
	Reinstall       []yaml.Node `yaml:"reinstallPackages"`
	Upgrade         []yaml.Node `yaml:"upgradePackages"`
	AssumeProvides  []yaml.Node `yaml:"assumeProvides"`
	FromContainer   yaml.Node   `yaml:"packagesFromContainerfile"`
	Variables       []yaml.Node `yaml:"variables"`
	MatchVersions   []yaml.Node `yaml:"matchContextVersions"`
}

// reader collects what ReadIn reads.
type reader struct {
	dir string
	in  In
}

// ReadIn reads the rpms.in.yaml at a slash-separated path relative to dir,
// and the repository files that it names. Its error says all that is wrong.
func ReadIn(dir, name string) (*In, error) {
	r := &reader{dir: dir}
	b, err := r.read(path.Clean(name))
	if err != nil {
		return nil, err
	}
	var f inFile
	doc, err := strictyaml.Decode(name, b, &f)
	if err != nil {
		return nil, err
	}
	r.in.Arches, r.in.Exclude, r.in.WeakDeps = f.Arches, f.ExcludePackages, f.InstallWeakDeps
	errs := f.unsupported(doc)
	for i := range f.Packages {
		p, err := parsePackage(&f.Packages[i])
		if err != nil {
			errs = append(errs, doc.Errorf([]any{"packages", i}, "%w", err))
		}
		r.in.Packages = append(r.in.Packages, p)
	}
	base := path.Dir(path.Clean(name))
	for i, o := range f.ContentOrigin.Repos {
		at := []any{"contentOrigin", "repos", i}
		options, err := stringify(o)
		if err == nil {
			err = r.addRepo(options, "repoid", base, doc.At(at))
		}
		if err != nil {
			errs = append(errs, doc.Errorf(at, "%w", err))
		}
	}
	for i := range f.ContentOrigin.Repofiles {
		if err := r.repofiles(base, &f.ContentOrigin.Repofiles[i]); err != nil {
			errs = append(errs, doc.Errorf([]any{"contentOrigin", "repofiles", i}, "%w", err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return &r.in, nil
}

// unsupported is an error for each key that would change what is chosen.
func (f *inFile) unsupported(doc *strictyaml.Doc) []error {
	var errs []error
	for _, k := range []struct {
		path []any
		used bool
	}{
		{[]any{"contentOrigin", "composes"}, len(f.ContentOrigin.Composes) > 0},
		{[]any{"packagesFromContainerfile"}, !f.FromContainer.IsZero()},
		{[]any{"reinstallPackages"}, len(f.Reinstall) > 0},
		{[]any{"upgradePackages"}, len(f.Upgrade) > 0},
		{[]any{"moduleEnable"}, len(f.ModuleEnable) > 0},
		{[]any{"moduleDisable"}, len(f.ModuleDisable) > 0},
		{[]any{"assumeProvides"}, len(f.AssumeProvides) > 0},
		{[]any{"matchContextVersions"}, len(f.MatchVersions) > 0},
		{[]any{"variables"}, len(f.Variables) > 0},
	} {
		if k.used {
			errs = append(errs, doc.Errorf(k.path, "not supported yet, and without it another choice would be made"))
		}
	}
	return errs
}

// PackagesFor is the names asked for on an arch.
func (in *In) PackagesFor(arch string) []string {
	var out []string
	for _, p := range in.Packages {
		if p.on(arch) && !slices.Contains(in.Exclude, p.Name) {
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
	n = target(n)
	if n.Kind == yaml.ScalarNode {
		if n.Tag == "!!null" || strings.TrimSpace(n.Value) == "" {
			return Package{}, errors.New("a package without a name")
		}
		return Package{Name: n.Value}, nil
	}
	var p struct {
		Name   string `yaml:"name"`
		Arches struct {
			Only yaml.Node `yaml:"only"`
			Not  yaml.Node `yaml:"not"`
		} `yaml:"arches"`
	}
	if err := n.Decode(&p); err != nil || n.Kind != yaml.MappingNode {
		return Package{}, errors.New("want a name, or name and arches")
	}
	if strings.TrimSpace(p.Name) == "" {
		return Package{}, errors.New("a package without a name")
	}
	for i := 0; i < len(n.Content); i += 2 {
		if k := n.Content[i].Value; k != "name" && k != "arches" {
			return Package{}, fmt.Errorf("unknown key %q; known here: name, arches", k)
		}
	}
	only, not := words(&p.Arches.Only), words(&p.Arches.Not)
	if len(only) > 0 && len(not) > 0 {
		return Package{}, errors.New("arches: want only or not, got both")
	}
	return Package{Name: p.Name, Only: only, Not: not}, nil
}

// target follows aliases.
func target(n *yaml.Node) *yaml.Node {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

// words is a string or a list of strings.
func words(n *yaml.Node) []string {
	n = target(n)
	if n.Kind == yaml.ScalarNode {
		return []string{n.Value}
	}
	var out []string
	for _, c := range n.Content {
		out = append(out, target(c).Value)
	}
	return out
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
func (r *reader) repofiles(base string, n *yaml.Node) error {
	n = target(n)
	loc := n.Value
	if n.Kind == yaml.MappingNode {
		for i := 0; i+1 < len(n.Content); i += 2 {
			if k := n.Content[i].Value; k != "location" {
				return fmt.Errorf("%s is not supported yet", k)
			}
			loc = target(n.Content[i+1]).Value
		}
	}
	if loc == "" || strings.Contains(loc, "://") || path.IsAbs(loc) {
		return fmt.Errorf("got %q; want a path beside this file: other places are not supported yet", loc)
	}
	names := []string{path.Join(base, loc)}
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

// read reads a file and notes that it was read.
func (r *reader) read(name string) ([]byte, error) {
	f, err := os.Open(filepath.Join(r.dir, filepath.FromSlash(name)))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxFile {
		return nil, fmt.Errorf("%s: more than the %d bytes that are read", name, maxFile)
	}
	r.in.Files = append(r.in.Files, File{Name: name, SHA256: digest.Of(b)})
	return b, nil
}
