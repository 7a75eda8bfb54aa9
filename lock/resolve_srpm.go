package lock

import (
	"cmp"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"

	"caisson/lock/rpmmd"
	"caisson/lock/solve"
)

// SetSource is the set of the source packages: they are in no root, and a
// build reads none of them.
const SetSource = "source"

// What rpm.sources may be.
const (
	sourcesNo        = "no"
	sourcesYes       = "yes"
	sourcesAvailable = "available"
)

// IsSource tells whether it is a source package.
func (r *RPM) IsSource() bool { return isSource(r.Arch) }

// file is what the package's file is called, which has no epoch.
func (r *RPM) file() string {
	return fmt.Sprintf("%s-%s-%s.%s.rpm", r.Name, r.Version, r.Release, r.Arch)
}

// serves tells whether an input is for an arch and not for all.
func (in *Input) serves(arch string) bool {
	return slices.ContainsFunc(in.For, func(u Use) bool { return u.Arch == arch })
}

// inputs are the lock's.
func (l *Lock) inputs() iter.Seq[*Input] {
	return func(yield func(*Input) bool) {
		for i := range l.Inputs {
			if !yield(&l.Inputs[i]) {
				return
			}
		}
	}
}

func isSource(arch string) bool { return arch == "src" || arch == "nosrc" }

// addSources locks the source packages of what was chosen for an arch, if they
// are asked for. The file names of those that no repository of the arch has
// come into missing, with a package that was made of each.
func (r *resolver) addSources(arch string, repos []solve.Repo, missing map[string]string) error {
	if r.lock.RPM.Sources == "" {
		return nil
	}
	found, lacking, err := r.findSources(arch, repos, builtFrom(maps.Values(r.inputs), arch))
	if err != nil {
		return err
	}
	maps.Copy(missing, lacking)
	for _, in := range found {
		if err := r.add(in); err != nil {
			return err
		}
	}
	return nil
}

// builtFrom is the source packages of an arch's packages by file name, each
// with the first package that was made of it.
func builtFrom(inputs iter.Seq[*Input], arch string) map[string]string {
	out := make(map[string]string)
	for in := range inputs {
		if in.Kind != KindRPM || in.RPM.SourceRPM == "" || !in.serves(arch) {
			continue
		}
		if by, ok := out[in.RPM.SourceRPM]; !ok || in.Name < by {
			out[in.RPM.SourceRPM] = in.Name
		}
	}
	return out
}

// findSources looks source packages up in the repositories of an arch: those
// of exactly that name, version and release. Of several the one in the better
// repository is taken, and of these the one of the highest epoch.
func (r *resolver) findSources(arch string, repos []solve.Repo, built map[string]string) (found []Input, missing map[string]string, err error) {
	type source struct {
		repo *solve.Repo
		*rpmmd.Package
	}
	have := make(map[string]source)
	repos = slices.Clone(repos)
	slices.SortStableFunc(repos, func(a, b solve.Repo) int {
		return cmp.Or(cmp.Compare(a.Priority, b.Priority), cmp.Compare(cmp.Or(a.Cost, defaultCost), cmp.Or(b.Cost, defaultCost)))
	})
	for i := range repos {
		repo := &repos[i]
		for j := range repo.Packages {
			p := &repo.Packages[j]
			if !isSource(p.Arch) {
				continue
			}
			file := fmt.Sprintf("%s-%s-%s.%s.rpm", p.Name, p.Version, p.Release, p.Arch)
			if built[file] == "" {
				continue
			}
			if old, ok := have[file]; !ok || old.repo == repo && old.Epoch < p.Epoch {
				have[file] = source{repo, p}
			}
		}
	}
	missing = make(map[string]string)
	for _, file := range slices.Sorted(maps.Keys(built)) {
		s, ok := have[file]
		if !ok {
			missing[file] = built[file]
			continue
		}
		in, err := r.rpmInput(s.repo.ID, s.Package, "")
		if err != nil {
			return nil, nil, err
		}
		in.For = []Use{{Arch: arch, Set: SetSource, By: built[file]}}
		found = append(found, in)
	}
	return found, missing, nil
}

// checkSources deals with source packages that an arch's repositories lack.
// Those of another arch will do: a source package is for all.
func (r *resolver) checkSources(missing map[string]string) error {
	for _, in := range r.inputs {
		if in.Kind == KindRPM && in.RPM.IsSource() {
			delete(missing, in.RPM.file())
		}
	}
	names := slices.Sorted(maps.Keys(missing))
	if r.lock.RPM.Sources == sourcesAvailable || len(names) == 0 {
		r.lock.MissingSources = names
		return nil
	}
	for i, n := range names {
		names[i] = n + " (of " + missing[n] + ")"
	}
	return fmt.Errorf("rpm.sources: no repository has %d of the source packages; add the repositories of sources, or say sources: available:\n  %s",
		len(names), strings.Join(names, "\n  "))
}
