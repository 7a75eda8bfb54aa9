package lock

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"caisson/lock/digest"
	"caisson/lock/konflux"
)

// importedRPMs is Lock.Imported of a lock that FromKonflux made.
const importedRPMs = "rpms.lock.yaml"

// ToKonflux is what an rpms.lock.yaml can say of a lock: the packages of a
// set, or of all sets where set is empty; of each repository that a package
// of a module is from, the modules file. Inputs of other kinds are not in it,
// nor are requests, reasons and keys.
func ToKonflux(l *Lock, set string) (*konflux.Lock, error) {
	if set != "" && !slices.ContainsFunc(l.Sets, func(s Set) bool { return s.Name == set }) {
		var names []string
		for _, s := range l.Sets {
			names = append(names, s.Name)
		}
		return nil, fmt.Errorf("the lock has no set %q; it has %s", set, strings.Join(names, ", "))
	}
	out := &konflux.Lock{}
	for _, arch := range l.Arches {
		a, err := l.toKonflux(arch, set)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", arch, err)
		}
		out.Arches = append(out.Arches, a)
	}
	return out, nil
}

func (l *Lock) toKonflux(arch, set string) (konflux.LockArch, error) {
	out := konflux.LockArch{Arch: arch}
	modular := map[string]bool{} // repositories
	built := map[string]bool{}   // file names of source packages
	for in := range l.inputs() {
		if in.Kind != KindRPM || in.RPM.IsSource() || !in.usedOn(arch, set) {
			continue
		}
		f, err := l.packageFile(in, arch)
		if err != nil {
			return out, err
		}
		out.Packages = append(out.Packages, f)
		built[in.RPM.SourceRPM] = true
		if in.RPM.Module != "" {
			modular[in.Repo] = true
		}
	}
	for in := range l.inputs() {
		if in.Kind != KindRPM || !in.RPM.IsSource() || !in.usedOn(arch, "") || set != "" && !built[in.RPM.file()] {
			continue
		}
		f, err := l.packageFile(in, arch)
		if err != nil {
			return out, err
		}
		out.Source = append(out.Source, f)
	}
	for in := range l.inputs() {
		if !in.isModules(arch) || l.Imported == "" && !modular[in.Repo] {
			continue
		}
		f, err := l.lockFile(in, arch)
		if err != nil {
			return out, err
		}
		out.ModuleMetadata = append(out.ModuleMetadata, f)
	}
	return out, nil
}

// usedOn tells whether the input serves the set, or any where it is empty.
func (in *Input) usedOn(arch, set string) bool {
	return slices.ContainsFunc(in.For, func(u Use) bool { return (u.Arch == "" || u.Arch == arch) && (set == "" || u.Set == set) })
}

// isModules tells whether the input is the modules file of a repository.
func (in *Input) isModules(arch string) bool {
	rest, ok := strings.CutPrefix(in.Name, in.Repo+"-"+arch+"/modules")
	return in.Kind == KindRepodata && ok && (rest == "" || rest[0] == '#')
}

func (l *Lock) packageFile(in *Input, arch string) (konflux.LockFile, error) {
	f, err := l.lockFile(in, arch)
	f.Name, f.EVR, f.SourceRPM = in.RPM.Name, in.RPM.EVR(), in.RPM.SourceRPM
	return f, err
}

func (l *Lock) lockFile(in *Input, arch string) (konflux.LockFile, error) {
	f := konflux.LockFile{URL: in.URL, RepoID: in.Repo, Size: in.Size, Checksum: in.SHA256.String()}
	if isURL(in.URL) {
		return f, nil
	}
	for _, r := range l.Repos {
		if r.ID != in.Repo || r.Arch != arch {
			continue
		}
		if r.ISO != "" {
			return f, fmt.Errorf("%s is in %s, and an rpms.lock.yaml has addresses only", in.Name, r.BaseURL)
		}
		f.URL = r.BaseURL + in.URL
		return f, nil
	}
	return f, fmt.Errorf("%s: there is no repository %q", in.Name, in.Repo)
}

// FromKonflux makes a lock of an rpms.lock.yaml, whose digest is d: an
// imported one, without metadata, keys and reasons. All packages are in the
// set root, source packages in SetSource, and unsigned, for that file names no key. Each must be pinned by a
// SHA-256. Addresses are relative to their repository where they tell its
// base (what comes before "/Packages/" or "/repodata/").
//
// The same package under several repositories is one input each: the first
// has its NEVRA as the name, the others NEVRA@REPOSITORY.
func FromKonflux(name string, k *konflux.Lock, d digest.Digest) (*Lock, error) {
	l := &Lock{
		Version: Version, Revision: Revision, Name: name, Manifest: d, Imported: importedRPMs, Sets: []Set{{Name: SetRoot}},
	}
	c := converter{bases: map[repoKey]string{}, inputs: map[string]*Input{}}
	for i := range k.Arches {
		c.addBases(&k.Arches[i])
	}
	for i := range k.Arches {
		a := &k.Arches[i]
		if !slices.Contains(l.Arches, a.Arch) {
			l.Arches = append(l.Arches, a.Arch)
		}
		if err := c.addArch(a); err != nil {
			return nil, fmt.Errorf("%s: %w", a.Arch, err)
		}
	}
	slices.Sort(l.Arches)
	for key, base := range c.bases {
		l.Repos = append(l.Repos, Repo{ID: key.id, Arch: key.arch, BaseURL: base, Priority: defaultPriority})
	}
	slices.SortFunc(l.Repos, compareRepos)
	l.Inputs = c.named()
	l.sortInputs()
	if err := l.check(); err != nil {
		return nil, err
	}
	return l, nil
}

type repoKey struct{ id, arch string }

// converter collects the inputs of an imported lock.
type converter struct {
	bases  map[repoKey]string // empty where it cannot be told
	inputs map[string]*Input  // by all that tells one from another
}

// splitBase is the base of a repository's file, empty where it cannot be
// told, and the rest.
func splitBase(u string) (base, rest string) {
	if strings.ContainsAny(u, "?#") || strings.Count(u, "://") != 1 {
		return "", u
	}
	for _, dir := range []string{"/Packages/", "/repodata/"} {
		i := strings.Index(u, dir)
		if i < 0 {
			continue
		}
		base, rest = u[:i+1], u[i+1:]
		if slices.Contains(strings.Split(rest, "/"), "..") {
			break
		}
		return base, rest
	}
	return "", u
}

// addBases finds the base of each of an arch's repositories: the one that
// most of its files have.
func (c *converter) addBases(a *konflux.LockArch) {
	count := map[string]map[string]int{}
	for _, f := range slices.Concat(a.Packages, a.Source, a.ModuleMetadata) {
		if f.RepoID == "" {
			continue
		}
		if count[f.RepoID] == nil {
			count[f.RepoID] = map[string]int{}
		}
		if base, _ := splitBase(f.URL); base != "" {
			count[f.RepoID][base]++
		}
	}
	for id, bases := range count {
		best := ""
		for _, b := range slices.Sorted(maps.Keys(bases)) {
			if best == "" || bases[b] > bases[best] {
				best = b
			}
		}
		key := repoKey{id, a.Arch}
		c.bases[key] = cmp.Or(c.bases[key], best)
	}
}

func (c *converter) addArch(a *konflux.LockArch) error {
	for _, list := range []struct {
		files []konflux.LockFile
		set   string
	}{{a.Packages, SetRoot}, {a.Source, SetSource}} {
		for _, f := range list.files {
			in, err := c.input(f, a.Arch)
			if err != nil {
				return err
			}
			if err := in.importRPM(&f, list.set == SetSource); err != nil {
				return err
			}
			c.add(in, Use{Arch: a.Arch, Set: list.set, By: importedRPMs})
		}
	}
	for _, f := range a.ModuleMetadata {
		in, err := c.input(f, a.Arch)
		if err != nil {
			return err
		}
		in.Kind, in.Name = KindRepodata, f.RepoID+"-"+a.Arch+"/modules"
		c.add(in, Use{Arch: a.Arch, By: "repository " + f.RepoID})
	}
	return nil
}

// input has what all files have.
func (c *converter) input(f konflux.LockFile, arch string) (*Input, error) {
	if !isURL(f.URL) {
		return nil, fmt.Errorf("url %q: want an address such as https://host/file", f.URL)
	}
	if f.Size < 0 {
		return nil, fmt.Errorf("%s: size %d", f.URL, f.Size)
	}
	hex, ok := strings.CutPrefix(strings.ToLower(f.Checksum), "sha256:")
	if !ok {
		return nil, fmt.Errorf("%s: checksum %q: a lock pins every file by its SHA-256, and this one would not be", f.URL, f.Checksum)
	}
	sum, err := digest.ParseHex(hex)
	if err != nil {
		return nil, fmt.Errorf("%s: checksum: %w", f.URL, err)
	}
	in := &Input{URL: f.URL, Repo: f.RepoID, Size: f.Size, SHA256: sum}
	if base, rest := splitBase(f.URL); base != "" && base == c.bases[repoKey{f.RepoID, arch}] {
		in.URL = rest
	}
	return in, nil
}

// importRPM makes the input a package's.
func (in *Input) importRPM(f *konflux.LockFile, source bool) error {
	name, evr, arch, err := f.NEVRA()
	if err != nil {
		return err
	}
	if isSource(arch) != source {
		return fmt.Errorf("%s: a package of %s in the wrong list", f.URL, arch)
	}
	in.Kind, in.Name = KindRPM, name+"-"+evr.String()+"."+arch
	in.RPM = &RPM{Name: name, Epoch: evr.Epoch, Version: evr.Version, Release: evr.Release, Arch: arch, SourceRPM: f.SourceRPM}
	in.PURL = rpmPURL(in.RPM, in.Repo, in.SHA256)
	return nil
}

// add adds an input, or a use of one that is there.
func (c *converter) add(in *Input, u Use) {
	key := fmt.Sprintf("%q %q %q %q %d %s %+v", in.Kind, in.Name, in.Repo, in.URL, in.Size, in.SHA256, in.RPM)
	if old, ok := c.inputs[key]; ok {
		in = old
	} else {
		c.inputs[key] = in
	}
	in.For = append(in.For, u)
}

// named gives inputs that would have the same name different ones.
func (c *converter) named() []Input {
	var out []Input
	used := map[string]bool{}
	for _, key := range slices.Sorted(maps.Keys(c.inputs)) {
		in := *c.inputs[key]
		if used[in.Kind+in.Name] {
			if in.Kind == KindRPM && in.Repo != "" {
				in.Name += "@" + in.Repo
			}
			for n, tried := 2, in.Name; used[in.Kind+in.Name]; n++ {
				in.Name = fmt.Sprintf("%s#%d", tried, n)
			}
		}
		used[in.Kind+in.Name] = true
		out = append(out, in)
	}
	return out
}
