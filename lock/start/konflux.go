package start

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"caisson/lock"
	"caisson/lock/digest"
	"caisson/lock/internal/strictyaml"
	"caisson/lock/konflux"
)

// errLater says that a file needs something that is fetched when it is locked.
var errLater = errors.New("it is fetched when the manifest is locked")

func noNetwork() konflux.Network {
	return konflux.Network{
		URL:    func(string) ([]byte, error) { return nil, errLater },
		Git:    func(string, string, string) ([]byte, error) { return nil, errLater },
		Labels: func(string) (map[string]string, digest.Digest, error) { return nil, digest.Digest{}, errLater },
	}
}

// rpmsIn names an rpms.in.yaml in the manifest, which then follows it. What
// it has for a machine with an image below it means nothing for an image.
func (d *draft) rpmsIn(name string, b []byte) error {
	rel, err := d.relative(name)
	if err != nil {
		return err
	}
	if d.m.RPM.From != "" {
		d.note(1, "the file", "the manifest names one rpms.in.yaml, which is "+d.m.RPM.From)
		return nil
	}
	in, err := konflux.ReadIn(d.dir, rel, noNetwork())
	for _, e := range each(err) {
		if !errors.Is(e, fs.ErrNotExist) && !errors.Is(e, errLater) {
			return e
		}
		d.note(lineOf(e), "a file that it names", "it is not here, and `caisson lock` will want it: "+shortReason(e))
	}
	d.m.RPM.From = rel
	d.comments["rpm.from"] = "Its repositories; its packages go into the root set."
	var top yaml.Node
	if err := yaml.Unmarshal(b, &top); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	d.rpmsInKeys(&top)
	if in == nil {
		return nil
	}
	for _, p := range in.Packages {
		d.known[p.Name] = true
	}
	for i := range in.Repos {
		r := &in.Repos[i]
		d.usesVars = d.usesVars || strings.Contains(strings.Join(r.BaseURL, " ")+r.Metalink+r.Mirrorlist, "$releasever")
		if len(r.GPGKey) == 0 && (r.GPGCheck == nil || *r.GPGCheck) {
			d.note(lineOf(errors.New(r.At+":")), "repository "+r.ID, "it has no gpgkey, which `caisson lock` will want: give it one in "+r.At)
		}
	}
	return nil
}

// rpmsInKeys looks at the file's own keys.
func (d *draft) rpmsInKeys(top *yaml.Node) {
	for key, value := range pairs(top) {
		switch key.Value {
		case "arches":
			var arches []string
			if value.Decode(&arches) == nil {
				for _, a := range arches {
					d.arch(key.Line, a)
				}
			}
		case "packages":
			for _, n := range value.Content {
				if n.Kind == yaml.ScalarNode {
					d.known[n.Value] = true
				}
			}
		case "context", "reinstallPackages", "upgradePackages", "allowerasing":
			d.note(key.Line, key.Value, "an image's root starts from nothing, so there is nothing to start from, to replace or to upgrade: name what it needs in sets.root")
		case "assumeProvides", "matchContextVersions":
			d.note(key.Line, key.Value, "an image's root starts from nothing, so there is nothing to assume or to match; `caisson lock` refuses it")
		case "noSources":
			d.note(key.Line, key.Value, "whether source packages are locked is said by rpm.sources: no (unless given), yes or available")
		}
	}
}

// each are the errors that were joined into one.
func each(err error) []error {
	if all, ok := err.(interface{ Unwrap() []error }); ok {
		return all.Unwrap()
	}
	if err == nil {
		return nil
	}
	return []error{err}
}

var errorLine = regexp.MustCompile(`:([0-9]+):`)

// lineOf is the line that an error is about; 1 where it does not say.
func lineOf(err error) int {
	line := 1
	if m := errorLine.FindStringSubmatch(err.Error()); m != nil {
		_, _ = fmt.Sscan(m[1], &line) // digits; a number that is too long leaves 1
	}
	return line
}

// shortReason is an error without the place that the note has.
func shortReason(err error) string {
	s := err.Error()
	if i := errorLine.FindStringIndex(s); i != nil {
		s = s[i[1]:]
	}
	return strings.TrimSpace(s)
}

// rpmsLock takes repositories and packages of an rpms.lock.yaml, unless an
// rpms.in.yaml says what it was made from.
func (d *draft) rpmsLock(name string, b []byte) error {
	l, err := konflux.ParseLock(name, b)
	if err != nil {
		return err
	}
	if d.m.RPM.From != "" {
		d.note(1, "the file", "what "+d.m.RPM.From+" asks for is chosen anew by `caisson lock`; `caisson convert` makes a lock of this choice")
		return nil
	}
	d.locked = true
	for i := range l.Arches {
		a := &l.Arches[i]
		d.arch(1, a.Arch)
		for j := range a.Packages {
			p := &a.Packages[j]
			d.lockedRepo(a.Arch, p)
			n, _, _, err := p.NEVRA()
			if err != nil {
				d.note(1, p.URL, "its name cannot be told: "+err.Error())
				continue
			}
			d.packages(1, lock.SetRoot, n)
		}
		if len(a.Source) > 0 {
			d.m.RPM.Sources = "available"
		}
		for j := range a.ModuleMetadata {
			d.note(lineWith(b, a.ModuleMetadata[j].URL), "modules of "+a.ModuleMetadata[j].RepoID, "which streams were enabled is not in the file: name them in rpm.moduleEnable")
		}
	}
	return nil
}

// lineWith is the first line that has a text.
func lineWith(b []byte, text string) int {
	before, _, found := strings.Cut(string(b), text)
	if !found {
		return 1
	}
	return strings.Count(before, "\n") + 1
}

// lockedRepo adds the repository that a locked file lies in.
func (d *draft) lockedRepo(arch string, f *konflux.LockFile) {
	anyArch := func(s string) string {
		return strings.ReplaceAll(strings.ReplaceAll(s, "/"+arch+"/", "/$basearch/"), "-"+arch+"-", "-$basearch-")
	}
	base, _, ok := strings.Cut(f.URL, "/Packages/")
	if !ok {
		base = strings.TrimSuffix(f.URL, "/"+path.Base(f.URL))
	}
	id := identifier(anyArch(f.RepoID))
	if id == "" {
		id = identifier(path.Base(base))
	}
	if slices.ContainsFunc(d.m.RPM.Repos, func(r lock.ManifestRepo) bool { return r.ID == id }) {
		return
	}
	d.repo(1, lock.ManifestRepo{ID: id, BaseURL: lock.StringList{anyArch(base) + "/"}})
}

// prefetchInput names a prefetch-input in the manifest, which then follows it.
// Where it has what only Hermeto fetches, the rest is taken out of it.
func (d *draft) prefetchInput(name string, b []byte) error {
	rel, err := d.relative(name)
	if err != nil {
		return err
	}
	in, err := konflux.ReadPrefetchInput(name, b)
	if err != nil {
		return d.prefetchRest(name, b, err)
	}
	if d.m.Inputs.From != "" {
		d.note(1, "the file", "the manifest names one prefetch-input, which is "+d.m.Inputs.From)
		return nil
	}
	d.m.Inputs.From = rel
	d.comments["inputs.from"] = "What Hermeto would fetch. A program is built by a step: go: {input, package, to} or cargo: {input, bin, to}."
	for _, f := range in.Flags {
		d.note(lineWith(b, f), "flag "+f, "it changes nothing here")
	}
	return nil
}

// prefetchRest takes over the entries that Caisson can fetch. why is what is
// wrong with the whole.
func (d *draft) prefetchRest(name string, b []byte, why error) error {
	var top yaml.Node
	if yaml.Unmarshal(b, &top) != nil || len(top.Content) == 0 {
		return why
	}
	list := top.Content[0]
	for key, value := range pairs(&top) {
		if key.Value == "packages" {
			list = value
		}
	}
	entries := []*yaml.Node{list}
	if list.Kind == yaml.SequenceNode {
		entries = list.Content
	}
	other := false
	for _, e := range entries {
		var p struct{ Type, Path string }
		if e.Decode(&p) != nil {
			return why
		}
		p.Path = path.Clean(p.Path)
		one, err := yaml.Marshal(e)
		if err != nil {
			return why
		}
		switch _, err := konflux.ReadPrefetchInput(name, one); {
		case err == nil:
			d.prefetchOne(e.Line, name, p.Type, p.Path)
		case slices.Contains([]string{"bundler", "npm", "pip", "pnpm", "x-maven", "yarn"}, p.Type):
			other = true
			d.note(e.Line, p.Type+" in "+p.Path, "only Hermeto fetches it: take what it brings as inputs.files, by their SHA-256")
		default:
			return why
		}
	}
	if !other {
		return why
	}
	return nil
}

// prefetchOne takes over one entry.
func (d *draft) prefetchOne(line int, file, kind, folder string) {
	rel, err := d.relative(filepath.Join(filepath.Dir(file), filepath.FromSlash(folder)))
	if err != nil {
		d.note(line, kind+" in "+folder, err.Error())
		return
	}
	n := plainName(path.Base(rel))
	if n == "" {
		n = kind
	}
	switch kind {
	case "gomod":
		at := fmt.Sprintf("inputs.go[%d]", len(d.m.Inputs.Go))
		if d.try(line, kind+" in "+folder, func(m *lock.Manifest) {
			m.Inputs.Go = append(m.Inputs.Go, lock.ManifestGo{Name: n, Dir: rel, Toolchain: toolchain(filepath.Join(d.dir, filepath.FromSlash(rel)))})
		}) {
			d.comments[at] = "Which release of Go builds it: check it. Its programs are built by steps: go: {input, package, to}."
		}
	case "cargo":
		d.try(line, kind+" in "+folder, func(m *lock.Manifest) { m.Inputs.Cargo = append(m.Inputs.Cargo, lock.ManifestCargo{Name: n, Dir: rel}) })
	case "rpm":
		d.note(line, kind+" in "+folder, "give its rpms.in.yaml to `caisson init` too")
	default:
		d.note(line, kind+" in "+folder, "take its files as inputs.files, by their SHA-256")
	}
}

var goDirective = regexp.MustCompile(`(?m)^(toolchain go|go )(1\.[0-9]+(\.[0-9]+)?)\s*$`)

// toolchain is the release of Go that a module asks for.
func toolchain(dir string) string {
	b, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	best := "go1.26.0"
	if err != nil {
		return best
	}
	for _, m := range goDirective.FindAllStringSubmatch(string(b), -1) {
		if best = "go" + m[2]; m[3] == "" {
			best += ".0"
		}
	}
	return best
}

// pairs are the keys and values of a YAML mapping, or of the document that is
// one, as they stand.
func pairs(n *yaml.Node) func(yield func(key, value *yaml.Node) bool) {
	if n.Kind == yaml.DocumentNode && len(n.Content) > 0 {
		n = n.Content[0]
	}
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return func(yield func(key, value *yaml.Node) bool) {
		if n.Kind != yaml.MappingNode {
			return
		}
		for i := 0; i+1 < len(n.Content); i += 2 {
			if !yield(n.Content[i], n.Content[i+1]) {
				return
			}
		}
	}
}

// decodeMapping reads a YAML document that is a mapping.
func decodeMapping(name string, b []byte, top *yaml.Node) error {
	if _, err := strictyaml.Decode(name, b, top); err != nil {
		return err
	}
	n := top
	if n.Kind == yaml.DocumentNode && len(n.Content) > 0 {
		n = n.Content[0]
	}
	if n.Kind != yaml.MappingNode {
		return fmt.Errorf("%s:%d: want keys with values", name, max(n.Line, 1))
	}
	return nil
}
