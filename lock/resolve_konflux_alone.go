package lock

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"caisson/lock/konflux"
	"caisson/lock/rpmdb"
	"caisson/lock/rpmmd"
)

// KonfluxOptions say how an rpms.in.yaml is locked.
type KonfluxOptions struct {
	// File is the rpms.in.yaml, slash-separated, relative to Options.Dir.
	File string
	// Name is the lock's.
	Name string
	// Arches overrule those of the file, and Context its context.
	Arches  []string
	Context *konflux.Context
	// Vars are dnf's variables; releasever is that of the context unless it
	// is given here.
	Vars map[string]string
	// MissingSources allows that a source package is in no repository.
	MissingSources bool
	// System is the root of this machine and SystemArch its arch, for the
	// context localSystem.
	System, SystemArch string
}

// ResolveKonflux locks an rpms.in.yaml on its own: the packages that have to
// come on top of what its context has, all in the set root, and their source
// packages unless it says noSources. Weak dependencies are taken unless it
// says otherwise. Options.Manifest does not count. A repository without a key
// that is here is not checked, and the lock says so.
//
// The lock names the image that it was made for among its Sources, with its
// digest, and does not hold what is installed there: so it cannot be
// replayed, and no image can be built of it. It is what ToKonflux makes an
// rpms.lock.yaml of.
func ResolveKonflux(ctx context.Context, o Options, k KonfluxOptions) (*Lock, error) {
	o.Manifest = &Manifest{
		Version: 1, Name: k.Name, Arches: sorted(k.Arches), RPM: ManifestRPM{Set: SetRoot, Vars: k.Vars}, Sets: map[string]ManifestSet{SetRoot: {}},
	}
	r := newResolver(o)
	r.lock = &Lock{Version: Version, Revision: Revision, Name: k.Name, Arches: o.Manifest.Arches}
	if err := r.checkUpdate(); err != nil {
		return nil, err
	}
	in, err := r.readKonflux(ctx, k)
	if err != nil {
		return nil, err
	}
	at := func(err error) (*Lock, error) { return nil, fmt.Errorf("%s: %w", k.File, err) }
	if r.lock.Arches = sorted(r.m.Arches); len(r.lock.Arches) == 0 {
		return at(errors.New("arches: for which arch is it to be locked?"))
	}
	requests, err := archRequests(in, r.lock.Arches)
	if err != nil {
		return at(err)
	}
	r.extra = map[string]*archExtra{}
	for _, arch := range r.lock.Arches {
		if r.extra[arch], err = r.context(ctx, in, k, arch); err != nil {
			return at(err)
		}
		if err := r.fitContext(in, requests[arch], arch); err != nil {
			return at(fmt.Errorf("%s: %w", arch, err))
		}
	}
	for i := range in.Repos {
		if err := r.addKonfluxRepo(&in.Repos[i], true); err != nil {
			return nil, err
		}
	}
	if len(r.m.RPM.Repos) == 0 {
		return at(errors.New("contentOrigin: it names no repository"))
	}
	r.addRequests(requests)
	r.noteSources(in)
	r.lock.Manifest = in.Files[0].SHA256
	r.lock.Sources = slices.DeleteFunc(r.lock.Sources, func(s Source) bool { return s.Name == path.Clean(k.File) })
	r.lock.RPM = r.m.RPM.rpmOptions()
	if r.lock.Context, err = contextName(in); err != nil {
		return at(err)
	}
	if err := r.packages(ctx); err != nil {
		return nil, err
	}
	return r.finish()
}

// contextName is the file's context, as the lock says it.
func contextName(in *konflux.In) (string, error) {
	if in.Context.LocalSystem {
		return "localSystem", nil
	}
	image, err := in.BaseImage()
	if err != nil || image == "" {
		return contextBare, err
	}
	return "image " + image, nil
}

// contextBare is a context in which nothing is installed.
const contextBare = "bare"

// readKonflux reads the file, and takes over its options.
func (r *resolver) readKonflux(ctx context.Context, k KonfluxOptions) (*konflux.In, error) {
	if len(r.lock.Arches) == 0 {
		r.lock.Arches = []string{"x86_64"} // whose labels are read
	}
	in, err := konflux.ReadIn(r.Dir, k.File, r.konfluxNetwork(ctx))
	if err != nil {
		return nil, err
	}
	if k.Context != nil {
		in.Context = *k.Context
	}
	if len(k.Arches) == 0 {
		r.m.Arches = in.Arches
	}
	r.m.RPM.WeakDeps = in.WeakDeps
	switch {
	case in.NoSources:
	case k.MissingSources:
		r.m.RPM.Sources = sourcesAvailable
	default:
		r.m.RPM.Sources = sourcesYes
	}
	return in, nil
}

// context is what is installed already on an arch.
func (r *resolver) context(ctx context.Context, in *konflux.In, k KonfluxOptions, arch string) (*archExtra, error) {
	x := &archExtra{assume: in.AssumeProvides, releasever: in.ReleaseVer}
	if in.Context.LocalSystem {
		if k.System == "" || arch != k.SystemArch {
			return nil, fmt.Errorf("context.localSystem: this machine is %q; only that arch can be locked for it", k.SystemArch)
		}
		var err error
		if x.installed, err = rpmdb.FromRoot(ctx, k.System); err != nil {
			return nil, fmt.Errorf("context.localSystem: %w", err)
		}
	} else {
		image, err := in.BaseImage()
		if err != nil {
			return nil, err
		}
		if image != "" {
			if x.installed, err = r.imagePackages(ctx, image, arch); err != nil {
				return nil, err
			}
			s := Source{Name: imageSource + image, SHA256: r.tops[image]}
			if !slices.Contains(r.lock.Sources, s) {
				r.lock.Sources = append(r.lock.Sources, s)
			}
		} else if len(in.MatchVersions) > 0 {
			return nil, errors.New("matchContextVersions: it needs an image as context")
		}
	}
	if v := rpmdb.ReleaseVer(x.installed); v != "" {
		x.releasever = v
	}
	return x, nil
}

// fitContext fits what is asked for to what is installed.
func (r *resolver) fitContext(in *konflux.In, req *konflux.ArchRequests, arch string) error {
	installed := r.extra[arch].installed
	if req.InstallRoot != "" && len(installed) > 0 {
		return fmt.Errorf("%s: --installroot begins with an empty root, and the context is not empty: use context: {bare: true}", req.InstallRoot)
	}
	req.Reinstall = slices.DeleteFunc(req.Reinstall, func(spec string) bool {
		for i := range installed {
			p := &installed[i]
			for _, form := range []string{p.Name, p.Name + "." + p.Arch, p.Name + "-" + p.EVR.String(), nevra(p)} {
				if ok, err := path.Match(spec, form); ok && err == nil {
					return false
				}
			}
		}
		r.say("%s: %s is not reinstalled, as it is not installed", arch, spec)
		return true
	})
	if in.Context.LocalSystem && len(in.MatchVersions) > 0 {
		return errors.New("matchContextVersions: it needs an image as context")
	}
	pins, err := contextVersions(in.MatchVersions, installed)
	if err != nil {
		return err
	}
	for _, pattern := range in.MatchVersions {
		if _, ok := pins[pattern]; !ok {
			r.say("matchContextVersions: nothing installed is like %q (%s)", pattern, arch)
		}
	}
	for i, spec := range req.Install {
		for _, pattern := range in.MatchVersions {
			if ok, err := path.Match(pattern, spec); ok && err == nil && pins[pattern] != "" {
				req.Install[i] = spec + "-" + pins[pattern]
				break
			}
		}
	}
	return nil
}

// contextVersions is for each glob the EVR of the installed packages that are
// like it. Of a name that is installed several times, the newest counts.
func contextVersions(patterns []string, installed []rpmmd.Package) (map[string]string, error) {
	newest := map[string]rpmmd.EVR{}
	for i := range installed {
		p := &installed[i]
		if old, ok := newest[p.Name]; !ok || p.EVR.Compare(old) > 0 {
			newest[p.Name] = p.EVR
		}
	}
	out := map[string]string{}
	first := map[string]string{}
	for _, pattern := range patterns {
		for _, name := range slices.Sorted(maps.Keys(newest)) {
			if ok, err := path.Match(pattern, name); !ok || err != nil {
				continue
			}
			evr := newest[name].String()
			if old, ok := out[pattern]; ok && old != evr {
				return nil, fmt.Errorf("matchContextVersions: %q is like %s-%s and %s-%s: of which version?", pattern, first[pattern], old, name, evr)
			}
			out[pattern], first[pattern] = evr, name
		}
	}
	return out, nil
}

// IsKonfluxIn tells whether a file is an rpms.in.yaml, by its content.
func IsKonfluxIn(b []byte) bool {
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, "contentOrigin:") {
			return true
		}
	}
	return false
}
