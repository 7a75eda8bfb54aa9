package lock

import (
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"unicode"

	"caisson/lock/digest"
)

// Check tells, with no network, whether the lock still answers the manifest:
// nil, or all that has changed since. It looks at the manifest's digest, at
// the other files that took part in the choice, at the local folders, and at
// keys and files beside the manifest.
func Check(l *Lock, manifest digest.Digest, dir string) error {
	var changed []error
	if l.Manifest != manifest {
		changed = append(changed, fmt.Errorf("the manifest has changed: got %s, the lock was made for %s", manifest, l.Manifest))
	}
	compare := func(kind, name string, want digest.Digest) {
		var got digest.Digest
		var err error
		if kind == KindTree {
			var p Input
			p, err = PackedInput(dir, name)
			got = p.SHA256
		} else {
			got, _, err = digestFile(filepath.Join(dir, filepath.FromSlash(name)))
		}
		if err == nil && got != want {
			err = fmt.Errorf("%s has changed: got %s, the lock has %s", name, got, want)
		}
		changed = append(changed, err)
	}
	for _, s := range l.Sources {
		if !isURL(s.Name) && !strings.HasPrefix(s.Name, imageSource) { // those are not here
			compare(KindFile, s.Name, s.SHA256)
		}
	}
	for i := range l.Inputs {
		switch in := &l.Inputs[i]; in.Kind {
		case KindTree, KindKey, KindFile:
			if !isURL(in.URL) {
				compare(in.Kind, in.URL, in.SHA256)
			}
		}
	}
	return errors.Join(changed...)
}

// check is what a lock must satisfy beyond its syntax.
func (l *Lock) check() error {
	if !nameRE.MatchString(l.Name) {
		return fmt.Errorf("name %q: want lower-case letters, digits, '.', '_' and '-'", l.Name)
	}
	if l.Revision < 1 {
		return fmt.Errorf("revision %d: want 1 or more", l.Revision)
	}
	if l.Manifest.IsZero() {
		return errors.New("no digest of the manifest")
	}
	if l.Imported != "" && l.Imported != importedRPMs && l.Imported != ImportedPrefetch {
		return fmt.Errorf("imported %q: want %q or %q, or nothing", l.Imported, importedRPMs, ImportedPrefetch)
	}
	if l.Epoch < 0 || l.Epoch > maxEpoch {
		return fmt.Errorf("epoch %d: want seconds since 1970, at most %d", l.Epoch, int64(maxEpoch))
	}
	for _, f := range []func() error{l.checkRepos, l.checkInputs, l.checkReferences, l.checkSettings} {
		if err := f(); err != nil {
			return err
		}
	}
	return nil
}

func (l *Lock) checkRepos() error {
	for i := range l.Repos {
		r := &l.Repos[i]
		if r.ID == "" {
			return errors.New("a repository without an id")
		}
		if i > 0 && compareRepos(l.Repos[i-1], *r) >= 0 {
			return fmt.Errorf("repository %q (%s) is there twice, or not in its place", r.ID, r.Arch)
		}
		if err := l.checkRepo(r); err != nil {
			return fmt.Errorf("repository %q (%s): %w", r.ID, r.Arch, err)
		}
	}
	if s := l.RPM.Sources; s != "" && s != sourcesYes && s != sourcesAvailable {
		return fmt.Errorf("rpm: sources %q is not known to this Caisson", s)
	}
	if !slices.IsSorted(l.MissingSources) || len(l.MissingSources) > 0 && l.RPM.Sources != sourcesAvailable {
		return errors.New("missingSources is not sorted, or source packages were not asked for")
	}
	return nil
}

// checkBases wants slashes at the end. An imported repository may have no
// address: its files then have absolute ones.
func (l *Lock) checkBases(r *Repo) error {
	for _, base := range append([]string{r.BaseURL}, r.Mirrors...) {
		if !strings.HasSuffix(base, "/") && (base != "" || l.Imported == "") {
			return fmt.Errorf("baseurl %q does not end in a slash", base)
		}
	}
	return nil
}

func (l *Lock) checkRepo(r *Repo) error {
	if err := l.checkBases(r); err != nil {
		return err
	}
	switch {
	case r.ISO == "" && strings.HasPrefix(r.BaseURL, isoScheme):
		return fmt.Errorf("baseurl %q is in a file that is not named", r.BaseURL)
	case r.ISO != "" && !strings.HasPrefix(r.BaseURL, isoScheme+r.ISO+"/"):
		return fmt.Errorf("baseurl %q is not in the file %q", r.BaseURL, r.ISO)
	case r.ISO != "" && (len(r.Mirrors) > 0 || slices.Contains(strings.Split(r.BaseURL, "/"), "..")):
		return fmt.Errorf("baseurl %q is not a folder of the file %q alone", r.BaseURL, r.ISO)
	case r.ISO != "" && l.Find(KindFile, r.ISO) == nil:
		return fmt.Errorf("the file %q that it is in is not among the inputs", r.ISO)
	case r.Repomd.IsZero() && l.Imported == "":
		return errors.New("no digest of its repomd.xml")
	case r.Order < 0 || r.Cost < 0:
		return fmt.Errorf("order %d, cost %d", r.Order, r.Cost)
	case (r.GPGCheck || r.RepoGPGCheck) && len(r.Keys) == 0:
		return errors.New("its signatures are to be checked, and it has no key")
	}
	return nil
}

// Unchecked are the repositories whose packages need no signature.
func (l *Lock) Unchecked() []Repo {
	var out []Repo
	for _, r := range l.Repos {
		if !r.GPGCheck {
			out = append(out, r)
		}
	}
	return out
}

func (l *Lock) checkInputs() error {
	repos := make(map[string]bool)
	baseless := make(map[string]bool) // with their arch; of an imported lock
	for _, r := range l.Repos {
		repos[r.ID] = true
		baseless[r.ID+" "+r.Arch] = r.BaseURL == ""
	}
	for i := range l.Inputs {
		in := &l.Inputs[i]
		if i > 0 {
			switch c := compareInputs(l.Inputs[i-1], *in); {
			case c == 0:
				return fmt.Errorf("input %s %s is there twice", in.Kind, in.Name)
			case c > 0:
				return fmt.Errorf("input %s %s is not in its place: they are sorted by kind and name", in.Kind, in.Name)
			}
		}
		if strings.ContainsFunc(in.Kind+in.Name+in.URL, unicode.IsControl) {
			return fmt.Errorf("input %q %q: url %q: want no control characters", in.Kind, in.Name, in.URL)
		}
		if err := in.check(l.Imported != ""); err != nil {
			return fmt.Errorf("input %s %s: %w", in.Kind, in.Name, err)
		}
		if in.Repo != "" && !repos[in.Repo] {
			return fmt.Errorf("input %s %s: there is no repository %q", in.Kind, in.Name, in.Repo)
		}
		if i := slices.IndexFunc(in.For, func(u Use) bool { return baseless[in.Repo+" "+u.Arch] }); i >= 0 && !isURL(in.URL) {
			return fmt.Errorf("input %s %s: repository %q has no baseurl for %s", in.Kind, in.Name, in.Repo, in.For[i].Arch)
		}
	}
	return nil
}

// checkReferences checks that what is named elsewhere in the lock is there.
func (l *Lock) checkReferences() error {
	trees := make(map[string]bool)
	for _, in := range l.Inputs {
		if in.Kind == KindTree {
			trees[in.Name] = true
		}
	}
	payloads := make(map[string]bool)
	for _, p := range l.Payloads {
		payloads[p.Kind+":"+p.Name] = true
		if !trees[p.Source] {
			return fmt.Errorf("payload %q: its source %q is not among the inputs", p.Name, p.Source)
		}
	}
	for i, s := range l.Steps {
		if err := s.check(payloads); err != nil {
			return fmt.Errorf("step %d: %w", i, err)
		}
	}
	for _, v := range append([]Variant{{Image: l.Image}}, l.Variants...) {
		for _, o := range v.Image.Overlay {
			if !trees[o] {
				return fmt.Errorf("overlay %q is not among the inputs", o)
			}
		}
	}
	return nil
}

// check checks a step against the payloads that there are, by kind and name.
func (s *Step) check(payloads map[string]bool) error {
	switch {
	case s.Go != nil && s.Cargo == nil && s.Run == "":
		if !payloads["go:"+s.Go.Input] {
			return fmt.Errorf("there is no Go payload %q", s.Go.Input)
		}
		if s.Go.Arch != "" && (GoArch(s.Go.Arch) == "" || s.Go.Cgo) {
			return fmt.Errorf("a Go program for %q is not made, or not with cgo", s.Go.Arch)
		}
	case s.Cargo != nil && s.Go == nil && s.Run == "":
		if !payloads["cargo:"+s.Cargo.Input] {
			return fmt.Errorf("there is no Cargo payload %q", s.Cargo.Input)
		}
	case s.Run == "" || s.Go != nil || s.Cargo != nil:
		return errors.New("want exactly one of go, cargo, run")
	}
	return nil
}

// checkDetails wants the details of the input's own kind, and no others.
func (in *Input) checkDetails() error {
	switch {
	case (in.Kind == KindRPM) != (in.RPM != nil):
		return errors.New("rpm details belong to packages, and packages have them")
	case (in.Kind == KindGo || in.Kind == KindToolchain) != (in.Go != nil):
		return errors.New("go details belong to Go modules and toolchains, and these have them")
	case (in.Kind == KindGit) != (in.Git != nil):
		return errors.New("git details belong to git repositories, and these have them")
	case (in.Kind == KindOCI) != (in.OCI != nil):
		return errors.New("oci details belong to images, and images have them")
	}
	return nil
}

// check is what an input must satisfy. An imported one may lack a repository.
func (in *Input) check(imported bool) error {
	switch {
	case in.Name == "":
		return errors.New("no name")
	case in.SHA256.IsZero():
		return errors.New("no sha256")
	case in.Size < 0:
		return fmt.Errorf("size %d", in.Size)
	case in.Verified != nil && in.Verified.What == "":
		return errors.New("verified, and not what of it")
	}
	if err := in.checkDetails(); err != nil {
		return err
	}
	if err := in.Auth.check(); err != nil {
		return fmt.Errorf("auth: %w", err)
	}
	for i := 1; i < len(in.For); i++ {
		if compareUses(in.For[i-1], in.For[i]) >= 0 {
			return errors.New("its uses are not sorted, or one is there twice")
		}
	}
	switch in.Kind {
	case KindRPM, KindRepodata:
		if in.Repo == "" && (!imported || !isURL(in.URL)) {
			return errors.New("no repository")
		}
		return in.checkInside()
	case KindGo, KindToolchain, KindCrate:
		return in.checkInside()
	case KindKey, KindFile, KindTree:
		return nil
	case KindGit:
		return in.checkGit()
	case KindOCI:
		return in.checkOCI()
	}
	return fmt.Errorf("kind %q is not known to this Caisson", in.Kind)
}

// checkOCI wants an address that has the digest, and a role that is known.
func (in *Input) checkOCI() error {
	a, err := ParseOCIAddress(in.URL)
	if err != nil {
		return fmt.Errorf("url: %w", err)
	}
	if d, ok := a.Digest(); !ok || d != in.SHA256 {
		return fmt.Errorf("url ends in %q, want %s", a.ID, in.SHA256)
	}
	kind := OCIBlobs
	switch in.OCI.Role {
	case RoleIndex, RoleManifest:
		kind = OCIManifests
	case RoleConfig, RoleLayer, RoleSBOM:
	default:
		return fmt.Errorf("role %q is not known to this Caisson", in.OCI.Role)
	}
	if a.Kind != kind {
		return fmt.Errorf("url is of %s; the role %s wants %s", a.Kind, in.OCI.Role, kind)
	}
	return nil
}

// checkInside refuses a relative address that leaves what it is relative to.
func (in *Input) checkInside() error {
	if isURL(in.URL) {
		return nil
	}
	if in.URL == "" || path.IsAbs(in.URL) || slices.Contains(strings.Split(in.URL, "/"), "..") {
		return fmt.Errorf("url %q is not below its repository", in.URL)
	}
	return nil
}
