package solve

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"caisson/lock/rpmmd"
)

// moduleBuild is one build of a module stream, and what is known of it.
type moduleBuild struct {
	*rpmmd.ModuleStream
	// unit is "name:stream:context", which the builds of a stream that may
	// replace each other have in common.
	unit      string
	artifacts []id    // the packages of the pool that belong to it, ascending
	names     []int32 // the names of all of its packages that are not source packages
}

// modularity is what the repositories' modules.yaml say together.
type modularity struct {
	builds   []moduleBuild // in libdnf's order
	defaults map[string]*rpmmd.ModuleDefaults
	arch     string // the machine's
	platform string // "name:stream" of the distribution; empty where no package says it
	state    *moduleState
}

// moduleState is what follows from the streams that are active.
type moduleState struct {
	active []bool      // by build
	hidden []bool      // by id: the packages that no request gets
	of     map[id]int  // the newest active build that a package belongs to
	asked  []moduleAsk // the specs of the request that name modules
}

// indexModules finds out which streams are active as long as no request says
// otherwise.
func (p *Pool) indexModules() error {
	m := &p.modules
	m.defaults = map[string]*rpmmd.ModuleDefaults{}
	var later []moduleBuild
	for i := range p.repos {
		md := p.repos[i].Modules
		if md == nil {
			continue
		}
		for j := range md.Defaults {
			m.addDefaults(&md.Defaults[j])
		}
		order := make([]*rpmmd.ModuleStream, len(md.Streams))
		for j := range md.Streams {
			order[j] = &md.Streams[j]
		}
		slices.SortStableFunc(order, func(a, b *rpmmd.ModuleStream) int { return strings.Compare(a.Name, b.Name) })
		for _, s := range order {
			b := moduleBuild{ModuleStream: s}
			p.findArtifacts(&b)
			if s.StaticContext {
				m.builds = append(m.builds, b)
			} else {
				later = append(later, b)
			}
		}
	}
	m.builds = append(m.builds, later...)
	m.nameUnits()
	m.platform = p.platform()
	active, err := m.activate(nil, nil)
	if err != nil {
		return fmt.Errorf("default module streams: %w", err)
	}
	m.state = p.moduleState(active)
	return nil
}

// addDefaults merges the defaults of several repositories: those modified last
// count; where two of the same time disagree, no stream is a default.
func (m *modularity) addDefaults(d *rpmmd.ModuleDefaults) {
	switch old := m.defaults[d.Module]; {
	case old == nil || old.Modified < d.Modified:
		m.defaults[d.Module] = d
	case old.Modified == d.Modified && old.Stream != d.Stream:
		merged := *old
		if merged.Stream = ""; old.Stream == "" {
			merged.Stream = d.Stream
		} else if d.Stream == "" {
			merged.Stream = old.Stream
		}
		m.defaults[d.Module] = &merged
	}
}

// findArtifacts finds the packages of a build.
func (p *Pool) findArtifacts(b *moduleBuild) {
	for _, a := range b.Artifacts {
		k, ok := parseArtifact(a)
		if !ok {
			continue
		}
		name, known := p.names[k.Name]
		if !known {
			continue
		}
		if k.Arch != "src" && k.Arch != "nosrc" {
			b.names = append(b.names, name)
		}
		for _, q := range p.byName[name] {
			if o := &p.pkgs[q]; o.EVR == k.EVR && o.Arch == k.Arch {
				b.artifacts = append(b.artifacts, q)
			}
		}
	}
	slices.Sort(b.artifacts)
	slices.Sort(b.names)
	b.names = slices.Compact(b.names)
}

// parseArtifact reads "name-epoch:version-release.arch".
func parseArtifact(s string) (k rpmmd.Package, ok bool) {
	base, arch, ok := cutLast(s, ".")
	rest, release, ok2 := cutLast(base, "-")
	name, version, ok3 := cutLast(rest, "-")
	if !ok || !ok2 || !ok3 || name == "" || arch == "" || release == "" {
		return k, false
	}
	evr, err := rpmmd.ParseEVR(version)
	evr.Release = release
	return rpmmd.Package{Name: name, Arch: arch, EVR: evr}, err == nil
}

// nameUnits gives each build its unit. A build without a static context has
// that of a static one with the same requirements, or these instead.
func (m *modularity) nameUnits() {
	static := map[string]string{}
	for i := range m.builds {
		b := &m.builds[i]
		key := b.Name + ":" + b.Stream
		with := key + " " + requirements(b.ModuleStream)
		switch context := static[with]; {
		case b.StaticContext:
			b.unit = key + ":" + b.Context
			if static[with] == "" {
				static[with] = b.Context
			}
		case context != "":
			b.unit = key + ":" + context
		default:
			b.unit = key + ":" + cmp.Or(requirements(b.ModuleStream), "NoRequires")
		}
	}
}

// requirements is the text of what a build requires beside the platform.
func requirements(s *rpmmd.ModuleStream) string {
	var list []string
	for _, r := range s.Requires {
		switch {
		case r.Module == "platform":
		case len(r.Streams) == 0:
			list = append(list, r.Module)
		default:
			list = append(list, r.Module+":["+strings.Join(slices.Sorted(slices.Values(r.Streams)), ",")+"]")
		}
	}
	slices.Sort(list)
	return strings.Join(list, ";")
}

// platform is what the newest of each package that provides system-release
// says in base-module(name:stream), where they say one thing.
func (p *Pool) platform() string {
	found := ""
	for _, q := range p.providers(p.simpleDep("system-release", 0, rpmmd.EVR{})) {
		k := &p.pkgs[q]
		newer := func(o id) bool { return p.pkgs[o].EVR.Compare(k.EVR) > 0 }
		if q < firstID || slices.ContainsFunc(p.byName[k.name], newer) {
			continue
		}
		for _, d := range k.Package.Provides {
			s, ok := strings.CutPrefix(d.Name, "base-module(")
			if s = strings.TrimSuffix(s, ")"); !ok || s == found {
				continue
			}
			if found != "" || strings.Count(s, ":") != 1 {
				return ""
			}
			found = s
		}
	}
	return found
}

// activate returns which builds are active: of the enabled streams, of the
// default streams of modules that are neither enabled otherwise nor disabled,
// and of what these require. As libdnf does it, this is a request to a pool in
// which each build is a package. An enabled stream must come in, a default one
// is left out where it cannot.
func (m *modularity) activate(enabled map[string]string, disabled map[string]bool) ([]bool, error) {
	var required, optional []string
	for i := range m.builds {
		b := &m.builds[i]
		spec := "module(" + b.Name + ":" + b.Stream + ")"
		stream, isEnabled := enabled[b.Name]
		switch d := m.defaults[b.Name]; {
		case disabled[b.Name]:
		case isEnabled && stream == b.Stream:
			required = append(required, spec)
		case !isEnabled && d != nil && d.Stream == b.Stream:
			optional = append(optional, spec)
		}
	}
	active := make([]bool, len(m.builds))
	required, optional = unique(required), unique(optional)
	if len(required)+len(optional) == 0 {
		return active, nil
	}
	sol, err := m.solve(disabled, required, optional)
	if err != nil {
		return nil, err
	}
	units := map[string]bool{}
	for _, c := range sol.Packages {
		units[c.Package.Name] = true
	}
	for i := range m.builds {
		active[i] = units[m.builds[i].unit]
	}
	return active, nil
}

// unique leaves the first of equal texts.
func unique(list []string) []string {
	seen := map[string]bool{}
	return slices.DeleteFunc(list, func(s string) bool {
		was := seen[s]
		seen[s] = true
		return was
	})
}

// solve chooses builds.
func (m *modularity) solve(disabled map[string]bool, required, optional []string) (*Solution, error) {
	repo := Repo{ID: "modules"}
	for i := range m.builds {
		if b := &m.builds[i]; !disabled[b.Name] {
			repo.Packages = append(repo.Packages, b.asPackage(i))
		}
	}
	if name, stream, ok := strings.Cut(m.platform, ":"); ok {
		b := moduleBuild{ModuleStream: &rpmmd.ModuleStream{Name: name, Stream: stream}, unit: m.platform + ":00000000"}
		repo.Packages = append(repo.Packages, b.asPackage(len(m.builds)))
	}
	p, err := NewPool([]Repo{repo}, Options{Arch: m.arch})
	if err != nil {
		return nil, err
	}
	ask := func(specs []string) (*Solution, error) { return p.Solve(Request{Specs: specs, Best: true}) }
	sol, err := ask(slices.Concat(required, optional))
	var problem *Problem
	if !errors.As(err, &problem) {
		return sol, err
	}
	if sol, err = ask(required); err != nil {
		return nil, err
	}
	for _, o := range optional {
		if more, err := ask(append(slices.Clip(required), o)); err == nil {
			sol, required = more, append(required, o)
		}
	}
	return sol, nil
}

// asPackage is a build as a package: of its unit's name, exclusive with the
// other streams of its module.
func (b *moduleBuild) asPackage(i int) rpmmd.Package {
	whole := "module(" + b.Name + ")"
	k := rpmmd.Package{
		Name: b.unit, Arch: cmp.Or(b.Arch, "noarch"), EVR: rpmmd.EVR{Version: strconv.FormatUint(b.Version, 10)},
		Location: fmt.Sprintf("%08d", i), // keeps the order
		Provides: []rpmmd.Dep{{Name: whole}, {Name: "module(" + b.Name + ":" + b.Stream + ")"}},
	}
	k.Conflicts = []rpmmd.Dep{{Name: whole}}
	for _, r := range b.Requires {
		var any []string
		for _, s := range r.Streams {
			if strings.Contains(s, "-") { // wherever it is, as libdnf has it
				k.Conflicts = append(k.Conflicts, rpmmd.Dep{Name: "module(" + r.Module + ":" + s[1:] + ")"})
				continue
			}
			any = append(any, "module("+r.Module+":"+s+")")
		}
		switch len(any) {
		case 0:
			k.Requires = append(k.Requires, rpmmd.Dep{Name: "module(" + r.Module + ")"})
		case 1:
			k.Requires = append(k.Requires, rpmmd.Dep{Name: any[0]})
		default:
			k.Requires = append(k.Requires, rpmmd.Dep{Name: "(" + strings.Join(any, " or ") + ")"})
		}
	}
	return k
}

// moduleState works out what is hidden: the packages of builds that are not
// active, and those that provide the name of an active build's package without
// being of one. Repositories with ModuleHotfixes hide nothing.
func (p *Pool) moduleState(active []bool) *moduleState {
	st := &moduleState{active: active, hidden: make([]bool, len(p.pkgs)), of: map[id]int{}}
	builds := p.modules.builds
	for i := range builds {
		b := &builds[i]
		if !active[i] {
			for _, q := range b.artifacts {
				st.hidden[q] = true
			}
			continue
		}
		for _, q := range b.artifacts {
			if was, ok := st.of[q]; !ok || builds[was].Version < b.Version {
				st.of[q] = i
			}
		}
		gone := p.demodularized(b, active)
		for _, name := range b.names {
			if gone[p.nameText[name]] {
				continue
			}
			for _, v := range p.provides(name) {
				st.hidden[v.by] = true
			}
		}
	}
	clear(st.hidden[:p.available])
	for q := range st.of {
		st.hidden[q] = false
	}
	for i := int(firstID); i < len(p.pkgs); i++ {
		if p.repos[p.pkgs[i].repo].ModuleHotfixes {
			st.hidden[i] = false
		}
	}
	return st
}

// demodularized are the names of packages that the newest active builds of a
// stream give up.
func (p *Pool) demodularized(b *moduleBuild, active []bool) map[string]bool {
	newest := b.Version
	var same []*moduleBuild
	for i := range p.modules.builds {
		o := &p.modules.builds[i]
		if active[i] && o.Name == b.Name && o.Stream == b.Stream && o.Arch == b.Arch {
			same = append(same, o)
			newest = max(newest, o.Version)
		}
	}
	names := map[string]bool{}
	for _, o := range same {
		if o.Version == newest {
			for _, name := range o.Demodularized {
				names[name] = true
			}
		}
	}
	return names
}
