package lock

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"caisson/lock/konflux"
)

// expandFrom takes over the repositories, packages and installWeakDeps of a
// Konflux file.
func (r *resolver) expandFrom() error {
	if r.m.RPM.From == "" {
		return nil
	}
	in, err := konflux.ReadIn(r.Dir, r.m.RPM.From)
	if err != nil {
		return err
	}
	for _, k := range in.Repos {
		repo := ManifestRepo{
			ID: k.ID, BaseURL: StringList{k.BaseURL}, GPGKey: k.GPGKey, GPGCheck: k.GPGCheck, RepoGPGCheck: k.RepoGPGCheck, Priority: k.Priority,
		}
		if slices.ContainsFunc(r.m.RPM.Repos, func(o ManifestRepo) bool { return o.ID == repo.ID }) {
			return fmt.Errorf("%s: two repositories are called %q", k.At, repo.ID)
		}
		if key, err := repo.check(); err != nil {
			return fmt.Errorf("%s: %s: %w", k.At, key, err)
		}
		r.m.RPM.Repos = append(r.m.RPM.Repos, repo)
	}
	for _, f := range in.Files {
		r.lock.Sources = append(r.lock.Sources, Source{Name: f.Name, SHA256: f.SHA256})
	}
	slices.SortFunc(r.lock.Sources, func(a, b Source) int { return strings.Compare(a.Name, b.Name) })
	r.lock.Sources = slices.Compact(r.lock.Sources)
	if r.m.RPM.WeakDeps == nil {
		r.m.RPM.WeakDeps = in.WeakDeps
	}
	if len(r.m.RPM.Repos) == 0 {
		return fmt.Errorf("%s: it names no repository, and the manifest has none", r.m.RPM.From)
	}
	r.addPackages(in)
	return nil
}

// addPackages adds what a Konflux file asks for to the set that the manifest
// names: what is for all arches to all, the rest to each arch's own.
func (r *resolver) addPackages(in *konflux.In) {
	set := r.m.Sets[r.m.RPM.Set]
	count := map[string]int{}
	for _, arch := range r.lock.Arches {
		for _, p := range sorted(in.PackagesFor(arch)) {
			count[p]++
		}
	}
	for _, p := range slices.Sorted(maps.Keys(count)) {
		if count[p] == len(r.lock.Arches) {
			set.Packages = append(slices.Clip(set.Packages), p)
		}
	}
	r.m.Sets[r.m.RPM.Set] = set
	for _, arch := range r.lock.Arches {
		var only []string
		for _, p := range sorted(in.PackagesFor(arch)) {
			if count[p] < len(r.lock.Arches) {
				only = append(only, p)
			}
		}
		if len(only) > 0 {
			r.only = append(r.only, ArchPackages{Arch: arch, Packages: only})
		}
	}
}
