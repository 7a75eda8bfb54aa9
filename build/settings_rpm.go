package build

import (
	"maps"
	"slices"
	"sort"
	"strings"

	"caisson/build/rootfs"
	"caisson/lock"
	"caisson/prefetch/cas"
)

// scriptless tells whether a set's scriptlets and triggers are not run.
func (b *builder) scriptless(set string) bool {
	name := b.Lock.SetFor(set, b.Variant)
	return slices.ContainsFunc(b.Lock.Sets, func(s lock.Set) bool { return s.Name == name && s.Scriptlets == lock.ScriptletsSkip })
}

// leftOut are rpm's arguments for what of a set is neither run nor installed.
// Documentation is left out by rpm itself where a package marks it as such:
// its database then says so, and rpm --verify misses nothing.
func (b *builder) leftOut(set string) []string {
	var args []string
	if b.scriptless(set) {
		args = append(args, "--noscripts", "--notriggers")
	}
	if s := b.image.Settings; set == lock.SetRoot && s != nil && s.NoDocs {
		args = append(args, "--excludedocs", "--define", "_install_langs "+strings.Join(languages(s.Locale), ":"))
	}
	return args
}

// languages are the names by which packages may mark what belongs to a
// locale: de_DE.UTF-8, de_DE, de. "C" stands for what is in none.
func languages(locale string) []string {
	out := []string{"C"}
	for _, cut := range []string{"", "@", ".", "_"} {
		l := locale
		if cut != "" {
			l, _, _ = strings.Cut(locale, cut)
		}
		if l != "" && !slices.Contains(out, l) {
			out = append(out, l)
		}
	}
	return out
}

// trouble are the lines of rpm's messages that mean that something did not
// happen. Without scriptlets the users whom they add are not there yet: their
// absence is found when owners are given.
func (b *builder) trouble(set, stderr string) []string {
	found := rpmTrouble.FindAllString(stderr, -1)
	if b.scriptless(set) {
		found = slices.DeleteFunc(found, func(l string) bool { return strings.HasSuffix(l, "does not exist - using root") })
	}
	return found[:min(len(found), 10)]
}

// noteScripts notes what a set's packages would have run.
func (b *builder) noteScripts(i *installed, inputs []*lock.Input) {
	if !b.scriptless(i.set) {
		return
	}
	// Only rpm ran, and it takes root for users who are yet to be added: the
	// headers know better.
	for id, r := range i.seen {
		r.UID, r.GID = nil, nil
		i.seen[id] = r
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.skipped[i.set] = skippedOf(i.set, i.packages, inputs)
}

// skippedOf are the scriptlets and triggers that an installation of a set's
// packages, of these inputs, sets off.
func skippedOf(set string, packages []*rootfs.Package, inputs []*lock.Input) []SkippedScript {
	names := map[string]bool{}
	for _, in := range inputs {
		names[in.RPM.Name] = true
	}
	var paths []string
	for _, p := range packages {
		for k := range p.Files {
			paths = append(paths, p.Files[k].Path)
		}
	}
	slices.Sort(paths)
	brought := func(prefix string) bool {
		at := sort.SearchStrings(paths, prefix)
		return at < len(paths) && strings.HasPrefix(paths[at], prefix)
	}
	skipped := []SkippedScript{}
	for _, p := range packages {
		for k := range p.Scripts {
			s := &p.Scripts[k]
			if on, ok := s.SetOff(names, brought); ok {
				skipped = append(skipped, SkippedScript{Set: set, Package: p.NEVRA, Kind: s.Kind, Program: s.Program, On: on})
			}
		}
	}
	return skipped
}

// Skipped is what Evidence.Skipped has after a build of the lock, by the headers of
// the packages in the store.
func Skipped(l *lock.Lock, store *cas.Store, arch, variant string) ([]SkippedScript, error) {
	b := &builder{Options: Options{Lock: l, Store: store, Arch: arch, Variant: variant}, skipped: map[string][]SkippedScript{}}
	b.image, _ = l.ImageFor(variant)
	sets := []string{lock.SetRoot}
	if b.hasInitrd() {
		sets = append(sets, lock.SetInitrd)
	}
	for _, set := range sets {
		if !b.scriptless(set) {
			continue
		}
		var packages []*rootfs.Package
		for _, in := range b.of(set) {
			p, err := b.header(in)
			if err != nil {
				return nil, err
			}
			packages = append(packages, p)
		}
		b.skipped[set] = skippedOf(set, packages, b.of(set))
	}
	return b.skippedScripts(), nil
}

// skippedScripts are those of all sets.
func (b *builder) skippedScripts() []SkippedScript {
	var out []SkippedScript
	for _, set := range slices.Sorted(maps.Keys(b.skipped)) {
		out = append(out, b.skipped[set]...)
	}
	return out
}

// countSkipped has each set whose scriptlets were not run, also one that had
// none.
func (b *builder) countSkipped() map[string]int {
	if len(b.skipped) == 0 {
		return nil
	}
	out := map[string]int{}
	for set, s := range b.skipped {
		out[set] = len(s)
	}
	return out
}
