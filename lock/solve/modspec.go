package solve

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// nsvcap is a spec of modules: name:stream:version:context:arch/profile, of
// which all but the name may be missing. Each part may be a glob.
type nsvcap struct {
	name, stream, version, context, arch, profile string
}

// parseModuleSpec reads "name[:stream[:version[:context]]][::arch][/profile]".
func parseModuleSpec(s string) (n nsvcap, ok bool) {
	s, n.profile, _ = strings.Cut(s, "/")
	s, n.arch, _ = strings.Cut(s, "::")
	f := strings.Split(s, ":")
	if len(f) == 5 && n.arch == "" {
		f, n.arch = f[:4], f[4]
	}
	for i, part := range []*string{&n.name, &n.stream, &n.version, &n.context} {
		if i < len(f) {
			*part = f[i]
		}
	}
	return n, len(f) <= 4 && !slices.Contains(f, "") && !strings.ContainsAny(n.arch+n.profile, ":/")
}

func (n nsvcap) matches(b *moduleBuild) bool {
	part := func(glob, s string) bool { return glob == "" || matchGlob(glob, s) }
	return part(n.name, b.Name) && part(n.stream, b.Stream) && part(n.context, b.Context) && part(n.arch, b.Arch) &&
		part(n.version, fmt.Sprint(b.Version))
}

// moduleAsk is a spec of the request that names modules.
type moduleAsk struct {
	spec    string // with its @
	profile string
	builds  []int // those that match, of one stream of each module
}

// requestModules returns the state of the modules under a request: what it
// enables and disables, and the streams that its specs name, which are enabled.
func (p *Pool) requestModules(req *Request) (*moduleState, error) {
	m := &p.modules
	enabled, disabled := map[string]string{}, map[string]bool{}
	for _, name := range req.DisableModules {
		disabled[name] = true
	}
	for _, spec := range req.EnableModules {
		if err := m.enable(spec, enabled, disabled); err != nil {
			return nil, err
		}
	}
	var asked []moduleAsk
	for _, spec := range req.Specs {
		name, ok := strings.CutPrefix(spec, "@")
		if !ok || len(m.builds) == 0 {
			continue
		}
		a, err := m.match(name, enabled)
		if err != nil {
			return nil, err
		}
		if len(a.builds) == 0 {
			continue // a group, perhaps
		}
		asked = append(asked, a)
		if err := m.choose(a, enabled); err != nil {
			return nil, err
		}
		for _, i := range a.builds {
			delete(disabled, m.builds[i].Name)
		}
	}
	if len(enabled)+len(disabled) == 0 {
		return m.state, nil
	}
	active, err := m.activate(enabled, disabled)
	if err != nil {
		return nil, moduleProblem("module streams that are asked for cannot be active together: %v", err)
	}
	st := p.moduleState(active)
	st.asked = asked
	return st, nil
}

func moduleProblem(format string, args ...any) *Problem {
	return &Problem{Lines: []string{fmt.Sprintf(format, args...)}}
}

// enable reads "name:stream" of a request, or "name" for the default stream.
func (m *modularity) enable(spec string, enabled map[string]string, disabled map[string]bool) error {
	a, err := m.match(spec, enabled)
	if err != nil {
		return err
	}
	if len(a.builds) == 0 {
		return moduleProblem("no module matches %q", spec)
	}
	for _, i := range a.builds {
		if name := m.builds[i].Name; disabled[name] {
			return moduleProblem("module %s is to be enabled and disabled", name)
		}
	}
	return m.choose(a, enabled)
}

// match finds the builds that a spec means. Where it leaves the stream open,
// it is the one that is enabled or the default.
func (m *modularity) match(spec string, enabled map[string]string) (moduleAsk, error) {
	a := moduleAsk{spec: "@" + spec}
	n, ok := parseModuleSpec(spec)
	if !ok {
		return a, nil
	}
	a.profile = n.profile
	streams := map[string]map[string]bool{}
	for i := range m.builds {
		b := &m.builds[i]
		if !n.matches(b) {
			continue
		}
		a.builds = append(a.builds, i)
		if streams[b.Name] == nil {
			streams[b.Name] = map[string]bool{}
		}
		streams[b.Name][b.Stream] = true
	}
	for _, name := range slices.Sorted(maps.Keys(streams)) {
		if len(streams[name]) < 2 {
			continue
		}
		stream := enabled[name]
		if d := m.defaults[name]; stream == "" && d != nil {
			stream = d.Stream
		}
		if !streams[name][stream] {
			return a, moduleProblem("%q leaves open which stream of module %s, and none is enabled or the default: %s",
				a.spec, name, strings.Join(slices.Sorted(maps.Keys(streams[name])), ", "))
		}
		a.builds = slices.DeleteFunc(a.builds, func(i int) bool { return m.builds[i].Name == name && m.builds[i].Stream != stream })
	}
	return a, nil
}

// choose enables the streams of a spec.
func (m *modularity) choose(a moduleAsk, enabled map[string]string) error {
	for _, i := range a.builds {
		b := &m.builds[i]
		if was, ok := enabled[b.Name]; ok && was != b.Stream {
			return moduleProblem("two streams of module %s are asked for: %s and %s", b.Name, was, b.Stream)
		}
		enabled[b.Name] = b.Stream
	}
	return nil
}

// profileJobs returns the jobs of a spec that names modules: one for each
// package of the profiles, which are those named or else the default ones.
func (s *solver) profileJobs(a moduleAsk) ([]job, error) {
	m := &s.p.modules
	byModule := map[string][]int{}
	var order []string
	for _, i := range a.builds {
		name := m.builds[i].Name
		if byModule[name] == nil {
			order = append(order, name)
		}
		byModule[name] = append(byModule[name], i)
	}
	var jobs []job
	for _, name := range order {
		builds := slices.DeleteFunc(byModule[name], func(i int) bool { return !s.modules.active[i] })
		if len(builds) == 0 {
			return nil, moduleProblem("%q: no build of module %s is active", a.spec, name)
		}
		newest := &m.builds[builds[0]]
		for _, i := range builds {
			if m.builds[i].Version > newest.Version {
				newest = &m.builds[i]
			}
		}
		packages, err := m.profilePackages(a, newest)
		if err != nil {
			return nil, err
		}
		for _, k := range packages {
			jobs = append(jobs, job{spec: a.spec, list: s.moduleCandidates(k)})
		}
	}
	return jobs, nil
}

// profilePackages are the names of the packages that a spec installs of a build.
func (m *modularity) profilePackages(a moduleAsk, b *moduleBuild) ([]string, error) {
	wanted := []string{a.profile}
	if a.profile == "" {
		wanted = nil
		if d := m.defaults[b.Name]; d != nil {
			wanted = d.Profiles[b.Stream]
		}
	}
	var have, names []string
	for _, p := range b.Profiles {
		have = append(have, p.Name)
	}
	for _, w := range wanted {
		found := false
		for _, p := range b.Profiles {
			if matchGlob(w, p.Name) {
				found = true
				names = append(names, p.RPMs...)
			}
		}
		if !found {
			return nil, moduleProblem("%q: module %s:%s has no profile %q, only: %s", a.spec, b.Name, b.Stream, w, strings.Join(have, ", "))
		}
	}
	if len(wanted) == 0 {
		return nil, moduleProblem("%q: module %s:%s has no default profile; name one of: %s", a.spec, b.Name, b.Stream, strings.Join(have, ", "))
	}
	return unique(names), nil
}

// moduleCandidates are the packages of a name that a profile means: those of
// the active builds of all modules that are asked for, and of repositories with
// hotfixes, or else any.
func (s *solver) moduleCandidates(name string) []id {
	p := s.p
	n, ok := p.names[name]
	if !ok {
		return nil
	}
	visible := slices.DeleteFunc(slices.Clone(p.byName[n]), func(q id) bool { return s.excluded[q] })
	own := slices.DeleteFunc(slices.Clone(visible), func(q id) bool {
		return !p.repos[p.pkgs[q].repo].ModuleHotfixes && !slices.ContainsFunc(s.modules.asked, func(a moduleAsk) bool {
			return slices.ContainsFunc(a.builds, func(i int) bool {
				_, in := slices.BinarySearch(p.modules.builds[i].artifacts, q)
				return in && s.modules.active[i]
			})
		})
	})
	if len(own) > 0 {
		return own
	}
	return visible
}
