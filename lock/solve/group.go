package solve

import (
	"strings"

	"caisson/lock/rpmmd"
)

// groupJobs returns the jobs of "@name": an environment or a group, by id or
// name (globs too), from all repositories. As with dnf, mandatory, default
// and conditional packages are asked for, optional ones not, unless the spec
// names the types ("@core/mandatory,optional"); names that no repository has
// are passed over.
func (s *solver) groupJobs(name string) ([]job, error) {
	spec := "@" + name
	types := map[string]bool{"mandatory": true, "default": true, "conditional": true}
	if group, list, ok := strings.Cut(name, "/"); ok {
		name, types = group, map[string]bool{}
		for t := range strings.SplitSeq(list, ",") {
			types[t] = true
		}
	}
	groups := s.groups(name)
	if len(groups) == 0 {
		return []job{{spec: spec}}, nil
	}
	var jobs []job
	seen := map[rpmmd.GroupPackage]bool{}
	for _, g := range groups {
		for _, q := range g.Packages {
			if !types[q.Type] || seen[q] {
				continue
			}
			seen[q] = true
			jobs = append(jobs, s.memberJobs(spec, q)...)
		}
	}
	return jobs, nil
}

// memberJobs returns the jobs of one package of a group.
func (s *solver) memberJobs(spec string, q rpmmd.GroupPackage) []job {
	var list []id
	if n, ok := s.p.names[q.Name]; ok {
		for _, o := range s.p.byName[n] {
			if k := &s.p.pkgs[o]; !s.excluded[o] && (!q.BaseArchOnly || k.width&wide != 0) {
				list = append(list, o)
			}
		}
	}
	switch {
	case len(list) == 0:
		return nil
	case q.Type == "conditional" && q.Requires != "":
		d := s.p.depNumber(dep{op: opIf,
			left: s.p.simpleDep(q.Name, 0, rpmmd.EVR{}), right: s.p.simpleDep(q.Requires, 0, rpmmd.EVR{})})
		return []job{{spec: spec, list: list, rich: d}}
	}
	return []job{{spec: spec, list: s.withObsoleters(list)}}
}

// groups returns the groups that a name or glob means, those of a matching
// environment included.
func (s *solver) groups(name string) []rpmmd.Group {
	matches := func(id, text string) bool {
		return id == name || strings.EqualFold(text, name) || isGlob(name) && matchGlob(name, id)
	}
	wanted := map[string]bool{}
	for _, r := range s.p.repos {
		if r.Comps == nil {
			continue
		}
		for _, e := range r.Comps.Environments {
			if matches(e.ID, e.Name) {
				for _, g := range e.Groups {
					wanted[g] = true
				}
				for _, o := range e.Options {
					wanted[o.Group] = wanted[o.Group] || o.Default
				}
			}
		}
		for _, g := range r.Comps.Groups {
			if matches(g.ID, g.Name) {
				wanted[g.ID] = true
			}
		}
	}
	var groups []rpmmd.Group
	for _, r := range s.p.repos {
		if r.Comps == nil {
			continue
		}
		for _, g := range r.Comps.Groups {
			if wanted[g.ID] {
				groups = append(groups, g)
			}
		}
	}
	return groups
}
