package solve

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"caisson/lock/rpmmd"
)

// job is one thing that a spec asks for: one of some packages, or a rich
// dependency.
type job struct {
	spec string
	list []id // ascending; empty: nothing matches
	rich depID
	why  string // why the list is empty, where that is known
}

// nevra is a spec read as a package's name and what may follow it. Each part
// may be a glob.
type nevra struct {
	name, version, release, arch string
	epoch                        int // -1: not given
}

func (n nevra) justName() bool {
	return n.epoch < 0 && n.version == "" && n.release == "" && n.arch == ""
}

// forms returns the ways in which a spec can be read as a NEVRA, in the order
// in which dnf tries them: name-version-release.arch, name.arch, name,
// name-version-release, name-version.
func forms(spec string) []nevra {
	if spec == "" || strings.ContainsAny(spec, "(/=<> ") {
		return nil
	}
	var out []nevra
	add := func(name, version, release, arch string) {
		if n, ok := makeNEVRA(name, version, release, arch); ok {
			out = append(out, n)
		}
	}
	base, arch, hasArch := cutLast(spec, ".")
	if hasArch && arch != "" && !strings.Contains(arch, "-") {
		if rest, release, ok := cutLast(base, "-"); ok && release != "" {
			if name, version, ok := cutLast(rest, "-"); ok && version != "" {
				add(name, version, release, arch)
			}
		}
		add(base, "", "", arch)
	}
	add(spec, "", "", "")
	if rest, last, ok := cutLast(spec, "-"); ok && last != "" {
		if name, version, ok := cutLast(rest, "-"); ok && version != "" {
			add(name, version, last, "")
		}
		add(rest, last, "", "")
	}
	return out
}

// makeNEVRA splits an epoch off the version. It is not ok where a part has a
// colon otherwise.
func makeNEVRA(name, version, release, arch string) (nevra, bool) {
	n := nevra{name: name, version: version, release: release, arch: arch, epoch: -1}
	if e, v, ok := strings.Cut(version, ":"); ok {
		epoch, err := strconv.ParseUint(e, 10, 31)
		if err != nil || v == "" {
			return nevra{}, false
		}
		n.epoch, n.version = int(epoch), v
	}
	return n, name != "" && !strings.Contains(name+n.version+release+arch, ":")
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

// matches reports whether a package has the parts that are given.
func (n nevra) matches(k *pkg) bool {
	part := func(pattern, s string, same func(a, b string) bool) bool {
		if isGlob(pattern) {
			return matchGlob(pattern, s)
		}
		return pattern == "" || same(pattern, s)
	}
	equal := func(a, b string) bool { return a == b }
	version := func(a, b string) bool { return rpmmd.CompareVersions(a, b) == 0 }
	return part(n.name, k.Name, equal) && part(n.arch, k.Arch, equal) &&
		(n.epoch < 0 || n.epoch == k.Epoch) &&
		part(n.version, k.Version, version) && part(n.release, k.Release, version)
}

// select returns the packages that a spec names as a NEVRA, and how it was read.
func (p *Pool) selectNEVRA(spec string, visible func(id) bool) ([]id, *nevra) {
	for _, n := range forms(spec) {
		var list []id
		consider := func(q id) {
			if visible(q) && n.matches(&p.pkgs[q]) {
				list = append(list, q)
			}
		}
		if isGlob(n.name) {
			for i := int(firstID); i < len(p.pkgs); i++ {
				consider(id(i))
			}
		} else if name, ok := p.names[n.name]; ok {
			for _, q := range p.byName[name] {
				consider(q)
			}
		}
		if len(list) > 0 {
			return list, &n
		}
	}
	return p.selectWholeNEVRA(spec, visible), nil
}

// selectWholeNEVRA matches a glob with whole NEVRAs.
func (p *Pool) selectWholeNEVRA(spec string, visible func(id) bool) []id {
	if !isGlob(spec) {
		return nil
	}
	var list []id
	for i := int(firstID); i < len(p.pkgs); i++ {
		if q := id(i); visible(q) && matchGlob(spec, p.pkgs[i].Package.String()) {
			list = append(list, q)
		}
	}
	return list
}

// selectProvides returns the packages that provide what a spec names: a glob
// over the names of provides, or a name with an optional version.
func (p *Pool) selectProvides(spec string, visible func(id) bool) []id {
	var list []id
	if isGlob(spec) {
		for name, text := range p.nameText {
			if len(p.provides(int32(name))) > 0 && matchGlob(spec, text) {
				for _, v := range p.provides(int32(name)) {
					list = append(list, v.by)
				}
			}
		}
	} else if d, ok := p.specDep(spec); ok {
		list = slices.Clone(p.providers(d))
	}
	list = slices.DeleteFunc(list, func(q id) bool { return q < firstID || !visible(q) })
	slices.Sort(list)
	return slices.Compact(list)
}

// specDep reads "name", "name >= version" or a rich dependency.
func (p *Pool) specDep(spec string) (depID, bool) {
	if strings.HasPrefix(spec, "(") {
		d, err := p.parseRich(spec)
		return d, err == nil
	}
	fields := strings.Fields(spec)
	switch len(fields) {
	case 1:
		return p.simpleDep(spec, 0, rpmmd.EVR{}), true
	case 3:
		r := richParser{s: fields[1]}
		flags := r.flags()
		evr, err := rpmmd.ParseEVR(fields[2])
		if flags == 0 || r.s != "" || err != nil {
			return 0, false
		}
		return p.simpleDep(fields[0], flags, evr), true
	}
	return 0, false
}

// jobsOf returns what a spec asks for. It fails only where filelists cannot
// be read; a spec that matches nothing is a job with an empty list.
func (s *solver) jobsOf(spec string) ([]job, error) {
	if i := slices.IndexFunc(s.modules.asked, func(a moduleAsk) bool { return a.spec == spec }); i >= 0 {
		return s.profileJobs(s.modules.asked[i])
	}
	if group, ok := strings.CutPrefix(spec, "@"); ok {
		return s.groupJobs(group)
	}
	list, form, err := s.selectSpec(spec)
	if err != nil {
		return nil, err
	}
	withHeirs := form != nil && form.justName()
	one := func(list []id) job {
		if withHeirs {
			list = s.withObsoleters(list)
		}
		return job{spec: spec, list: list}
	}
	if form != nil && isGlob(form.arch) {
		list = s.notInstalledYet(list)
		return s.splitJobs(list, func(k *pkg) string { return k.Name + "." + k.Arch }, func(l []id) job {
			return job{spec: spec, list: s.withObsoleters(l)}
		}), nil
	}
	if isGlob(spec) && !isPath(spec) && len(list) > 0 {
		if list = s.available(list); len(list) == 0 {
			return []job{{spec: spec, why: fmt.Sprintf("no repository has a package that matches %q", spec)}}, nil
		}
		return s.splitJobs(list, func(k *pkg) string { return k.Name }, one), nil
	}
	return []job{one(list)}, nil
}

func isPath(spec string) bool { return strings.HasPrefix(spec, "/") || strings.HasPrefix(spec, "*/") }

// selectSpec returns the packages that a spec names, installed ones too, and
// how it was read where it was read as a NEVRA.
func (s *solver) selectSpec(spec string) ([]id, *nevra, error) {
	visible := func(q id) bool { return !s.excluded[q] }
	list, form := s.p.selectNEVRA(spec, visible)
	if len(list) == 0 {
		list = s.p.selectProvides(spec, visible)
	}
	if len(list) == 0 && isPath(spec) {
		found, err := s.p.havePath(spec)
		if err != nil {
			return nil, nil, err
		}
		list = slices.DeleteFunc(slices.Clone(found), func(q id) bool { return !visible(q) })
	}
	return list, form, nil
}

// available leaves out the installed packages of which no other version is in
// the list.
func (s *solver) available(list []id) []id {
	names := map[int32]bool{}
	for _, q := range list {
		if !s.p.isInstalled(q) {
			names[s.p.pkgs[q].name] = true
		}
	}
	return slices.DeleteFunc(list, func(q id) bool { return !names[s.p.pkgs[q].name] })
}

// notInstalledYet leaves out the packages of which a version is installed, of
// the same architecture.
func (s *solver) notInstalledYet(list []id) []id {
	here := map[string]bool{}
	for _, q := range list {
		if s.p.isInstalled(q) {
			here[s.p.pkgs[q].Name+"."+s.p.pkgs[q].Arch] = true
		}
	}
	return slices.DeleteFunc(list, func(q id) bool { return here[s.p.pkgs[q].Name+"."+s.p.pkgs[q].Arch] })
}

// splitJobs makes one job of all packages that have the same key, in the order
// of their first packages.
func (s *solver) splitJobs(list []id, key func(*pkg) string, make func([]id) job) []job {
	groups := map[string][]id{}
	var keys []string
	for _, q := range list {
		k := key(&s.p.pkgs[q])
		if groups[k] == nil {
			keys = append(keys, k)
		}
		groups[k] = append(groups[k], q)
	}
	var jobs []job
	for _, k := range keys {
		jobs = append(jobs, make(groups[k]))
	}
	return jobs
}

// withObsoleters adds the packages that obsolete one of a list, unless the
// request does not want them.
func (s *solver) withObsoleters(list []id) []id {
	if s.req.KeepObsoleted {
		return list
	}
	p := s.p
	p.indexObsoletes()
	out := list
	for _, q := range list {
		for _, o := range p.obsoleters[p.pkgs[q].name] {
			hit := func(d depID) bool { return p.matchesName(q, d) }
			if !s.excluded[o] && slices.ContainsFunc(p.pkgs[o].obsoletes, hit) {
				out = append(out[:len(out):len(out)], o)
			}
		}
	}
	out = slices.Clone(out)
	slices.Sort(out)
	return slices.Compact(out)
}

// indexObsoletes notes for each name which packages have an Obsoletes of it.
func (p *Pool) indexObsoletes() {
	if p.obsoleters != nil {
		return
	}
	p.obsoleters = map[int32][]id{}
	for i := int(firstID); i < len(p.pkgs); i++ {
		for _, d := range p.pkgs[i].obsoletes {
			p.positive(d, false, func(d depID) {
				if x := p.deps[d]; x.op == opName {
					p.obsoleters[x.name] = append(p.obsoleters[x.name], id(i))
				}
			})
		}
	}
}

// exclude marks the packages that are hidden, and those that repositories or
// the request exclude: by NEVRA forms, as dnf's exclude option has them.
func (s *solver) exclude() {
	s.excluded = slices.Clone(s.modules.hidden)
	s.named = map[id]bool{}
	for _, q := range s.p.left {
		s.named[q] = true
	}
	for _, spec := range s.req.Exclude {
		for _, q := range s.p.selectAny(spec) {
			s.named[q] = true
		}
	}
	for q := range s.named {
		s.excluded[q] = true
	}
}

// selectAny is selectNEVRA among all packages.
func (p *Pool) selectAny(spec string) []id {
	list, _ := p.selectNEVRA(spec, func(id) bool { return true })
	return list
}

// leaveOut finds the packages that repositories exclude or do not include.
func (p *Pool) leaveOut() {
	for r := range p.repos {
		repo := &p.repos[r]
		mine := func(q id) bool { return int(p.pkgs[q].repo) == r }
		for _, spec := range repo.ExcludePkgs {
			for _, q := range p.selectAny(spec) {
				if mine(q) {
					p.left = append(p.left, q)
				}
			}
		}
		if len(repo.IncludePkgs) == 0 {
			continue
		}
		included := map[id]bool{}
		for _, spec := range repo.IncludePkgs {
			for _, q := range p.selectAny(spec) {
				included[q] = true
			}
		}
		for i := int(firstID); i < len(p.pkgs); i++ {
			if q := id(i); mine(q) && !included[q] {
				p.left = append(p.left, q)
			}
		}
	}
}

// noMatch says why a spec matches nothing.
func (s *solver) noMatch(spec string) string {
	list, _ := s.p.selectNEVRA(spec, func(id) bool { return true })
	hidden := func(q id) bool { return s.modules.hidden[q] && !s.named[q] }
	switch {
	case len(list) > 0 && !slices.ContainsFunc(list, func(q id) bool { return !hidden(q) }):
		return fmt.Sprintf("every package that matches %q is filtered out by modular filtering", spec)
	case len(list) > 0:
		return fmt.Sprintf("every package that matches %q is filtered out by exclude filtering", spec)
	}
	for _, n := range forms(spec) {
		if arch := s.p.foreign[n.name]; arch != "" {
			return fmt.Sprintf("%q is there for %s only", spec, arch)
		}
	}
	return fmt.Sprintf("nothing matches %q", spec)
}
