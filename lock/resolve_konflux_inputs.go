package lock

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/mod/modfile"

	"caisson/lock/digest"
	"caisson/lock/konflux"
)

// expandInputs adds what inputs.from asks for to the manifest's inputs: a
// gomod package to inputs.go (with the toolchain that its go.mod names), a
// cargo one to inputs.cargo, the files of a generic one to inputs.files, and
// the rpms.in.yaml beside an rpm one to rpm.from, where the manifest says
// nothing of packages itself. An input is called after its folder, a file
// after itself.
func (r *resolver) expandInputs() error {
	from := r.m.Inputs.From
	if from == "" {
		return nil
	}
	b, err := r.readSource(from)
	if err != nil {
		return fmt.Errorf("inputs.from: %w", err)
	}
	in, err := konflux.ReadPrefetchInput(from, b)
	if err != nil {
		return fmt.Errorf("inputs.from: %w", err)
	}
	r.m.Inputs.Go, r.m.Inputs.Cargo, r.m.Inputs.Files = slices.Clone(r.m.Inputs.Go), slices.Clone(r.m.Inputs.Cargo), slices.Clone(r.m.Inputs.Files)
	for _, p := range in.Packages {
		var err error
		dir := path.Join(path.Dir(path.Clean(from)), p.Path)
		switch p.Type {
		case "gomod":
			err = r.expandGo(dir)
		case "cargo":
			r.m.Inputs.Cargo = append(r.m.Inputs.Cargo, ManifestCargo{Name: r.inputName(dir, "cargo"), Dir: dir})
		case "generic":
			err = r.expandArtifacts(dir, p.Lockfile)
		case "rpm":
			err = r.expandRPM(dir)
		}
		if err != nil {
			return fmt.Errorf("inputs.from: %s: %s in %s: %w", from, p.Type, p.Path, err)
		}
	}
	return nil
}

// readSource reads a file beside the manifest that says what to choose.
func (r *resolver) readSource(name string) ([]byte, error) {
	name = path.Clean(name)
	b, err := readFileMax(filepath.Join(r.Dir, filepath.FromSlash(name)), maxManifest)
	if err != nil {
		return nil, err
	}
	s := Source{Name: name, SHA256: digest.Of(b)}
	if !slices.Contains(r.lock.Sources, s) {
		r.lock.Sources = append(r.lock.Sources, s)
		slices.SortFunc(r.lock.Sources, func(a, b Source) int { return strings.Compare(a.Name, b.Name) })
	}
	return b, nil
}

var notInName = regexp.MustCompile(`[^a-z0-9._-]+`)

// inputName is a name for what is in a folder that no other input has.
func (r *resolver) inputName(dir, kind string) string {
	base := strings.Trim(notInName.ReplaceAllString(strings.ToLower(path.Base(dir)), "-"), "-._")
	if base == "" {
		base = kind
	}
	name := base
	for n := 2; r.m.hasInput(name); n++ {
		name = fmt.Sprintf("%s-%d", base, n)
	}
	return name
}

func (m *Manifest) hasInput(name string) bool {
	return slices.ContainsFunc(m.Inputs.Go, func(g ManifestGo) bool { return g.Name == name }) ||
		slices.ContainsFunc(m.Inputs.Cargo, func(c ManifestCargo) bool { return c.Name == name }) ||
		slices.ContainsFunc(m.Inputs.Git, func(g ManifestGit) bool { return g.Name == name }) ||
		slices.ContainsFunc(m.Inputs.OCI, func(o ManifestOCI) bool { return o.Name == name }) ||
		slices.ContainsFunc(m.Inputs.Files, func(f ManifestFile) bool { return f.Name == name })
}

func (r *resolver) expandGo(dir string) error {
	if slices.ContainsFunc(r.m.Inputs.Go, func(g ManifestGo) bool { return path.Clean(g.Dir) == dir }) {
		return nil // the manifest says more of it
	}
	b, err := r.readSource(path.Join(dir, "go.mod"))
	if err != nil {
		return err
	}
	mod, err := modfile.ParseLax("go.mod", b, nil)
	if err != nil {
		return err
	}
	toolchain := ""
	switch {
	case mod.Toolchain != nil && mod.Toolchain.Name != "default":
		toolchain = mod.Toolchain.Name
	case mod.Go != nil && strings.Count(mod.Go.Version, ".") == 1:
		toolchain = "go" + mod.Go.Version + ".0" // the first release of a language version
	case mod.Go != nil:
		toolchain = "go" + mod.Go.Version
	default:
		return errors.New("its go.mod names no version of Go; name the folder and a toolchain under inputs.go")
	}
	r.m.Inputs.Go = append(r.m.Inputs.Go, ManifestGo{Name: r.inputName(dir, "go"), Dir: dir, Toolchain: toolchain})
	return nil
}

func (r *resolver) expandRPM(dir string) error {
	if r.m.RPM.From != "" || len(r.m.RPM.Repos) > 0 {
		return nil
	}
	name := path.Join(dir, "rpms.in.yaml")
	if _, err := os.Stat(filepath.Join(r.Dir, filepath.FromSlash(name))); err != nil {
		return fmt.Errorf("there is no rpms.in.yaml; say where packages are from by rpm.repos: %w", err)
	}
	r.m.RPM.From = name
	return nil
}

func (r *resolver) expandArtifacts(dir, lockfile string) error {
	if lockfile == "" {
		lockfile = "artifacts.lock.yaml"
	}
	if path.IsAbs(lockfile) || slices.Contains(strings.Split(path.Clean(lockfile), "/"), "..") {
		return fmt.Errorf("lockfile %q: want a path below its folder", lockfile)
	}
	name := path.Join(dir, lockfile)
	b, err := r.readSource(name)
	if err != nil {
		return err
	}
	list, err := konflux.ReadArtifacts(name, b)
	if err != nil {
		return err
	}
	for _, a := range list.Artifacts {
		hex, ok := strings.CutPrefix(strings.ToLower(a.Checksum), "sha256:")
		if !ok {
			return fmt.Errorf("%s: checksum %q: want sha256", a.URL, a.Checksum)
		}
		f := ManifestFile{Name: r.inputName(a.Filename, "file"), URL: a.URL, SHA256: hex}
		if f.Auth, err = ArtifactAuth(a.Auth); err != nil {
			return fmt.Errorf("%s: auth: %w", a.URL, err)
		}
		if _, err := parseSHA256(f.SHA256); err != nil {
			return fmt.Errorf("%s: %w", a.URL, err)
		}
		r.m.Inputs.Files = append(r.m.Inputs.Files, f)
	}
	return nil
}

// ArtifactAuth is a login of an artifacts.lock.yaml as ours are written: what is
// secret must have a variable in it, for a lock holds no secrets.
func ArtifactAuth(a *konflux.ArtifactAuth) (*Auth, error) {
	switch {
	case a == nil:
		return nil, nil
	case a.Basic != nil:
		if !Secret(a.Basic.Password).HasVariable() {
			return nil, errors.New("password: want $NAME, an environment variable")
		}
		out := &Auth{Basic: &AuthBasic{Username: a.Basic.Username, Password: Secret(a.Basic.Password)}}
		return out, out.check()
	}
	b := &AuthBearer{Header: a.Bearer.Header, Token: Secret(a.Bearer.Value)}
	if strings.EqualFold(b.Header, "Authorization") {
		token, ok := strings.CutPrefix(a.Bearer.Value, "Bearer ")
		if token = strings.TrimSpace(token); ok && Secret(token).HasVariable() {
			b.Token = Secret(token)
		} else {
			b.Raw = true
		}
		b.Header = ""
	}
	if !b.Token.HasVariable() {
		return nil, errors.New("value: want $NAME, an environment variable, in it")
	}
	out := &Auth{Bearer: b}
	return out, out.check()
}
