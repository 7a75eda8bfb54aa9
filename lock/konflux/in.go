// Package konflux reads and writes the files by which Konflux repositories
// say what they need, and what they got: rpms.in.yaml (of
// rpm-lockfile-prototype 0.30), rpms.lock.yaml, and Hermeto's
// artifacts.lock.yaml and prefetch-input.
//
// # rpms.in.yaml
//
// All keys are followed but contentOrigin.composes, which needs a server of
// Red Hat's own, and zchunk, which changes no choice. What a Containerfile
// asks for is found by following the RUN lines of a stage, and of the stages
// it is made from, once for each arch: see Stage.Requests. What cannot be
// told there is an error; the options of a line (which repositories to use,
// what to exclude) are not looked at, but for --allowerasing and
// --installroot. A bare "dnf upgrade" asks for nothing: what it brings is
// what has been locked. flatpak adds the packages of the container.yaml
// beside the file. Of an rpm-ostree treefile count packages, packages-ARCH,
// repo-packages, exclude-packages, modules, repos, recommends, releasever,
// include, arch-include and conditional-include.
//
// Of a repository's options those that are known to change no choice are
// passed over: see passedOver. Others that are not known are errors.
//
// Paths are relative to the file that has them; an absolute one is refused,
// as it is another file on every machine.
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

// In is what an rpms.in.yaml asks for, with all variables in place.
type In struct {
	Arches []string
	Repos  []Repo
	// What is to be installed, reinstalled, upgraded, enabled and disabled,
	// besides what a Containerfile, a treefile or a container.yaml asks for:
	// see Requests.
	Packages, Reinstall, Upgrade, ModuleEnable, ModuleDisable []Package
	// Exclude are names that are taken away from what is asked for.
	Exclude []string
	// AssumeProvides are names and capabilities that count as provided.
	AssumeProvides []string
	// MatchVersions are globs: what is asked for and matches one is wanted in
	// the version that the context has of what matches it.
	MatchVersions []string
	Context       Context
	// FromContainerfile is the stage whose RUN lines count; nil for none.
	FromContainerfile *ContainerfileRef
	AllowErasing      bool
	NoSources         bool
	// WeakDeps is installWeakDeps; nil where the file does not say.
	WeakDeps *bool
	// ReleaseVer is that of a treefile; empty where it does not say.
	ReleaseVer string
	// Files are the files that were read, in that order; what was fetched has
	// its address as name, "image:REFERENCE" for an image.
	Files []File

	r    *reader
	base string // the folder of the file
	tree *treefile
}

// Context says what is installed already: at most one of its fields is set,
// besides Flatpak. Where none is, Containerfile and Dockerfile beside the file
// are looked for.
type Context struct {
	Image         string
	Containerfile *ContainerfileRef
	Treefile      string
	LocalSystem   bool
	Bare          bool
	Flatpak       bool
}

// File is a file that was read.
type File struct {
	Name   string // slash-separated, relative to ReadIn's dir
	SHA256 digest.Digest
}

// Network brings what a file names and does not hold. A function that is nil
// makes what needs it an error.
type Network struct {
	// URL is the content of a file.
	URL func(url string) ([]byte, error)
	// Git is a file of a repository at a ref.
	Git func(url, ref, file string) ([]byte, error)
	// Labels are an image's labels, and the digest by which the image is known.
	Labels func(image string) (map[string]string, digest.Digest, error)
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
		Repos     []yaml.Node `yaml:"repos"`
		Repofiles []yaml.Node `yaml:"repofiles"`
		Composes  []yaml.Node `yaml:"composes"`
	} `yaml:"contentOrigin"`
	Packages        []yaml.Node `yaml:"packages"`
	ExcludePackages []string    `yaml:"excludePackages"`
	Arches          []string    `yaml:"arches"`
	Context         struct {
		Image         string    `yaml:"image"`
		Containerfile yaml.Node `yaml:"containerfile"`
		Treefile      string    `yaml:"rpmOstreeTreefile"`
		LocalSystem   bool      `yaml:"localSystem"`
		Bare          bool      `yaml:"bare"`
		Flatpak       bool      `yaml:"flatpak"`
	} `yaml:"context"`
	InstallWeakDeps *bool        `yaml:"installWeakDeps"`
	NoSources       bool         `yaml:"noSources"`
	AllowErasing    bool         `yaml:"allowerasing"`
	Zchunk          bool         `yaml:"zchunk"`
	ModuleEnable    []yaml.Node  `yaml:"moduleEnable"`
	ModuleDisable   []yaml.Node  `yaml:"moduleDisable"`
	Reinstall       []yaml.Node  `yaml:"reinstallPackages"`
	Upgrade         []yaml.Node  `yaml:"upgradePackages"`
	AssumeProvides  []string     `yaml:"assumeProvides"`
	FromContainer   yaml.Node    `yaml:"packagesFromContainerfile"`
	Variables       []inVariable `yaml:"variables"`
	MatchVersions   []string     `yaml:"matchContextVersions"`
}

// reader collects what ReadIn reads.
type reader struct {
	dir string
	net Network
	in  *In
	// vars are the variables that stand for {NAME}.
	vars map[string]string
}

// ReadIn reads the rpms.in.yaml at a slash-separated path relative to dir,
// and what it names, from net where that is not beside it. Its error says all
// that is wrong.
func ReadIn(dir, name string, net Network) (*In, error) {
	name = path.Clean(name)
	r := &reader{dir: dir, net: net, vars: map[string]string{}, in: &In{base: path.Dir(name)}}
	r.in.r = r
	b, err := r.read(name)
	if err != nil {
		return nil, err
	}
	var f inFile
	doc, err := strictyaml.Decode(name, b, &f)
	if err != nil {
		return nil, err
	}
	var errs []error
	try := func(at []any, err error) {
		if err != nil {
			errs = append(errs, doc.Errorf(at, "%w", err))
		}
	}
	for i := range f.Variables {
		try([]any{"variables", i}, r.variables(&f.Variables[i]))
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...) // all others may depend on them
	}
	r.lists(&f, try)
	r.context(&f, try)
	if len(f.ContentOrigin.Composes) > 0 {
		try([]any{"contentOrigin", "composes"}, errors.New("a compose is looked up at a server of Red Hat's own (CTS); name its repositories under contentOrigin.repos"))
	}
	for i := range f.ContentOrigin.Repos {
		at := []any{"contentOrigin", "repos", i}
		try(at, r.inlineRepo(&f.ContentOrigin.Repos[i], doc.At(at)))
	}
	for i := range f.ContentOrigin.Repofiles {
		try([]any{"contentOrigin", "repofiles", i}, r.repofiles(&f.ContentOrigin.Repofiles[i]))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if err := r.in.keepTreeRepos(); err != nil {
		return nil, err
	}
	return r.in, nil
}

// lists reads what is asked for.
func (r *reader) lists(f *inFile, try func([]any, error)) {
	in := r.in
	in.Arches, in.WeakDeps, in.AllowErasing, in.NoSources = f.Arches, f.InstallWeakDeps, f.AllowErasing, f.NoSources
	for _, l := range []struct {
		key  string
		from []yaml.Node
		to   *[]Package
	}{
		{"packages", f.Packages, &in.Packages}, {"reinstallPackages", f.Reinstall, &in.Reinstall}, {"upgradePackages", f.Upgrade, &in.Upgrade},
		{"moduleEnable", f.ModuleEnable, &in.ModuleEnable}, {"moduleDisable", f.ModuleDisable, &in.ModuleDisable},
	} {
		for i := range l.from {
			p, err := parsePackage(&l.from[i])
			try([]any{l.key, i}, err)
			p.Name = r.substitute(p.Name)
			*l.to = append(*l.to, p)
		}
	}
	for _, l := range []struct {
		key  string
		from []string
		to   *[]string
	}{
		{"excludePackages", f.ExcludePackages, &in.Exclude}, {"assumeProvides", f.AssumeProvides, &in.AssumeProvides},
		{"matchContextVersions", f.MatchVersions, &in.MatchVersions},
	} {
		for i, s := range l.from {
			if strings.TrimSpace(s) == "" {
				try([]any{l.key, i}, errors.New("an empty one"))
			}
			*l.to = append(*l.to, r.substitute(s))
		}
	}
	for i, p := range in.MatchVersions {
		if _, err := path.Match(p, ""); err != nil {
			try([]any{"matchContextVersions", i}, fmt.Errorf("%q is no glob", p))
		}
	}
}

// context reads the context, and where packages are from besides.
func (r *reader) context(f *inFile, try func([]any, error)) {
	c, in := &f.Context, r.in
	in.Context = Context{
		Image: r.substitute(c.Image), Treefile: c.Treefile, LocalSystem: c.LocalSystem, Bare: c.Bare, Flatpak: c.Flatpak,
	}
	var err error
	in.Context.Containerfile, err = r.containerfileRef(&c.Containerfile)
	try([]any{"context", "containerfile"}, err)
	var given []string
	for _, k := range []struct {
		name string
		set  bool
	}{
		{"image", c.Image != ""}, {"containerfile", in.Context.Containerfile != nil}, {"rpmOstreeTreefile", c.Treefile != ""},
		{"localSystem", c.LocalSystem}, {"bare", c.Bare},
	} {
		if k.set {
			given = append(given, k.name)
		}
	}
	if len(given) > 1 {
		try([]any{"context"}, fmt.Errorf("want one of %s", strings.Join(given, ", ")))
	}
	if c.Flatpak && (c.LocalSystem || c.Treefile != "") {
		try([]any{"context"}, fmt.Errorf("flatpak does not go with %s", given[0]))
	}
	in.FromContainerfile, err = r.containerfileRef(&f.FromContainer)
	try([]any{"packagesFromContainerfile"}, err)
	if in.FromContainerfile == nil && len(f.Packages) == 0 {
		// As the prototype does, though it calls that deprecated.
		in.FromContainerfile = in.Context.Containerfile
	}
	if c.Treefile != "" {
		in.tree, err = r.treefile(path.Join(in.base, c.Treefile))
		try([]any{"context", "rpmOstreeTreefile"}, err)
	}
}

// containerfileRef reads the name of a Containerfile, or that and a stage.
func (r *reader) containerfileRef(n *yaml.Node) (*ContainerfileRef, error) {
	n = target(n)
	if n.IsZero() || n.Tag == "!!null" {
		return nil, nil
	}
	ref := &ContainerfileRef{}
	if n.Kind == yaml.ScalarNode {
		ref.File = n.Value
	} else {
		var f struct {
			File         string `yaml:"file"`
			StageNum     int    `yaml:"stageNum"`
			StageName    string `yaml:"stageName"`
			ImagePattern string `yaml:"imagePattern"`
			ArgFile      string `yaml:"argFile"`
		}
		if err := decodeNode(n, &f); err != nil {
			return nil, err
		}
		*ref = ContainerfileRef(f)
	}
	ref.File = r.substitute(ref.File)
	if ref.File == "" || path.IsAbs(ref.File) || path.IsAbs(ref.ArgFile) {
		return nil, fmt.Errorf("got %q; want the path of a Containerfile, relative to this file", ref.File)
	}
	if ref.StageNum < 0 {
		return nil, fmt.Errorf("stageNum %d; they are numbered from 1", ref.StageNum)
	}
	return ref, nil
}

// decodeNode reads keys that all must be known.
func decodeNode(n *yaml.Node, v any) error {
	b, err := yaml.Marshal(n)
	if err != nil {
		return err
	}
	_, err = strictyaml.Decode("", b, v)
	if err == nil {
		return nil
	}
	// Its place in the copy means nothing.
	msg := err.Error()
	if _, rest, ok := strings.Cut(strings.TrimPrefix(msg, ":"), ": "); ok {
		msg = rest
	}
	return errors.New(msg)
}

// on tells whether a request is for an arch.
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
	if n.Kind != yaml.MappingNode {
		return Package{}, errors.New("want a name, or name and arches")
	}
	var p struct {
		Name   string `yaml:"name"`
		Arches struct {
			Only yaml.Node `yaml:"only"`
			Not  yaml.Node `yaml:"not"`
		} `yaml:"arches"`
	}
	if err := decodeNode(n, &p); err != nil {
		return Package{}, err
	}
	if strings.TrimSpace(p.Name) == "" {
		return Package{}, errors.New("a package without a name")
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
	r.note(name, digest.Of(b))
	return b, nil
}

// note notes that something was read.
func (r *reader) note(name string, d digest.Digest) {
	f := File{Name: name, SHA256: d}
	if !slices.Contains(r.in.Files, f) {
		r.in.Files = append(r.in.Files, f)
	}
}

// errNoNetwork says that something would have to be fetched.
var errNoNetwork = errors.New("it would have to be fetched, and nothing here can")

// fetch reads a file by its address.
func (r *reader) fetch(url string) ([]byte, error) {
	if r.net.URL == nil {
		return nil, fmt.Errorf("%s: %w", url, errNoNetwork)
	}
	b, err := r.net.URL(url)
	if err != nil {
		return nil, err
	}
	if len(b) > maxFile {
		return nil, fmt.Errorf("%s: more than the %d bytes that are read", url, maxFile)
	}
	r.note(url, digest.Of(b))
	return b, nil
}
