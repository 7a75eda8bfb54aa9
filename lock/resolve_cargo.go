package lock

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/package-url/packageurl-go"

	"caisson/lock/cargo"
	"caisson/lock/digest"
)

// cargoPayloads pins the crates and git repositories of the Rust sources:
// Cargo.lock has their SHA-256 and commits.
func (r *resolver) cargoPayloads(ctx context.Context) error {
	locks := make([]*cargo.Lock, len(r.m.Inputs.Cargo))
	sources := make(map[string]map[string]bool) // of a crate, by its file name
	for i, c := range r.m.Inputs.Cargo {
		l, err := r.readCargo(path.Clean(c.Dir))
		if err != nil {
			return fmt.Errorf("inputs.cargo: %s: %w", c.Name, err)
		}
		locks[i] = l
		for _, k := range l.Crates {
			if sources[k.File()] == nil {
				sources[k.File()] = make(map[string]bool)
			}
			sources[k.File()][k.Source] = true
		}
	}
	for i, c := range r.m.Inputs.Cargo {
		twice := func(k cargo.Crate) bool { return len(sources[k.File()]) > 1 }
		if err := r.cargoPayload(ctx, c, locks[i], twice); err != nil {
			return fmt.Errorf("inputs.cargo: %s: %w", c.Name, err)
		}
	}
	return nil
}

// readCargo reads the Cargo.lock of a folder. A member of a workspace has
// none: then the error names the folder above that has it.
func (r *resolver) readCargo(dir string) (*cargo.Lock, error) {
	src := os.DirFS(filepath.Join(r.Dir, dir))
	l, err := cargo.Read(src)
	if errors.Is(err, fs.ErrNotExist) {
		for up := path.Dir(dir); !strings.HasPrefix(up, "../") && up != dir; dir, up = up, path.Dir(up) {
			if _, serr := os.Stat(filepath.Join(r.Dir, up, "Cargo.lock")); serr == nil {
				return nil, fmt.Errorf("there is no Cargo.lock; the folder belongs to the workspace in %q: give that as dir, and the program's name as the step's bin", up)
			}
		}
	}
	if err != nil {
		return nil, err
	}
	top := "."
	if r.NeedsOnly { // it may name what lies beside it
		root, err := os.OpenRoot(r.Dir)
		if err != nil {
			return nil, err
		}
		defer root.Close()
		src, top = root.FS(), dir
	}
	_, err = cargo.Folders(src, top)
	return l, err
}

// cargoPayload pins what one source needs. twice tells whether a crate's name
// and version are those of another registry's crate too.
func (r *resolver) cargoPayload(ctx context.Context, c ManifestCargo, l *cargo.Lock, twice func(cargo.Crate) bool) error {
	c.Dir = path.Clean(c.Dir)
	set := "cargo:" + c.Name
	r.lock.Payloads = append(r.lock.Payloads, Payload{Kind: "cargo", Name: c.Name, Source: c.Dir})
	if err := r.tree(c.Dir, Use{Set: set, By: "inputs.cargo " + c.Name}); err != nil {
		return err
	}
	for _, k := range l.Crates {
		sum, err := digest.ParseHex(k.Checksum)
		if err != nil {
			return fmt.Errorf("reading Cargo.lock: %s: %w", k.File(), err)
		}
		quals := map[string]string{"checksum": sum.String()}
		name := k.File()
		if k.Source != cargo.CratesIO {
			quals["repository_url"] = strings.TrimPrefix(strings.TrimPrefix(k.Source, "registry+"), "sparse+")
			if twice(k) {
				name += " of " + k.Source
			}
		}
		in := Input{
			Kind: KindCrate, Name: name, URL: k.Name + "/" + k.Version, Registry: k.Source, SHA256: sum,
			PURL: packageurl.NewPackageURL(packageurl.TypeCargo, "", k.Name, k.Version, packageurl.QualifiersFromMap(quals), "").ToString(),
			For:  []Use{{Set: set, By: cmp.Or(k.By, c.Dir), Dep: "Cargo.lock"}},
		}
		if err := r.add(in); err != nil {
			return err
		}
	}
	return r.cargoRepos(ctx, c, l, set)
}

// cargoRepos pins the git repositories that packages come from, each once
// whatever it is asked for by, with its submodules, as cargo takes it.
func (r *resolver) cargoRepos(ctx context.Context, c ManifestCargo, l *cargo.Lock, set string) error {
	type id struct{ url, commit string }
	seen := make(map[id]bool)
	for _, g := range l.Git {
		if seen[id{g.URL, g.Commit}] {
			continue
		}
		seen[id{g.URL, g.Commit}] = true
		w := Want{Kind: KindGit, URL: g.URL, Ref: g.Commit, Submodules: true}
		in, err := r.pinGit(ctx, w, Use{Set: set, By: cmp.Or(g.By, c.Dir), Dep: "Cargo.lock"})
		if err == nil {
			err = r.add(*in)
		}
		if err != nil {
			return fmt.Errorf("%s at %s: %w", g.URL, g.Commit, err)
		}
	}
	return nil
}
