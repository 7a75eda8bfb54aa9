package lock

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"caisson/lock/digest"
)

// ImportedPrefetch is Lock.Imported of a lock that Merge made.
const ImportedPrefetch = "prefetch-input"

// Merge is one lock of the inputs of others, for a request whose digest is d
// and that has no manifest. It has no payloads, sets or image settings, and
// what the others were imported from are its sources. Two files under one name,
// or one repository at two places, are errors.
func Merge(name string, d digest.Digest, locks ...*Lock) (*Lock, error) {
	out := &Lock{Version: Version, Revision: Revision, Name: name, Manifest: d, Imported: ImportedPrefetch}
	inputs := make(map[string]*Input)
	for _, l := range locks {
		out.Epoch = max(out.Epoch, l.Epoch)
		out.Arches = append(out.Arches, l.Arches...)
		out.Sources = append(out.Sources, l.Sources...)
		for _, r := range l.Repos {
			i := slices.IndexFunc(out.Repos, func(o Repo) bool { return compareRepos(o, r) == 0 })
			if i < 0 {
				out.Repos = append(out.Repos, r)
			} else if !reflect.DeepEqual(out.Repos[i], r) {
				return nil, fmt.Errorf("repository %q (%s) is asked for in two ways, at %q and at %q", r.ID, r.Arch, out.Repos[i].BaseURL, r.BaseURL)
			}
		}
		for _, in := range l.Inputs {
			key := in.Kind + "/" + in.Name
			old, ok := inputs[key]
			if !ok {
				in.For = slices.Clone(in.For)
				inputs[key] = &in
				continue
			}
			if old.SHA256 != in.SHA256 || old.Repo != in.Repo {
				return nil, fmt.Errorf("two different files are both %s %s: %s is %s, %s is %s", in.Kind, in.Name, old.place(), old.SHA256, in.place(), in.SHA256)
			}
			old.For = append(old.For, in.For...)
		}
	}
	for _, in := range inputs {
		out.Inputs = append(out.Inputs, *in)
	}
	out.sortInputs()
	slices.SortFunc(out.Repos, compareRepos)
	slices.Sort(out.Arches)
	out.Arches = slices.Compact(out.Arches)
	slices.SortFunc(out.Sources, func(a, b Source) int { return strings.Compare(a.Name, b.Name) })
	out.Sources = slices.Compact(out.Sources)
	if err := out.check(); err != nil {
		return nil, err
	}
	return out, nil
}
