package view

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"path"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"caisson/lock"
	"caisson/lock/cargo"
	"caisson/lock/digest"
)

// Registry is the name of a crates' registry: of its folder, and of its
// source in cargo's configuration.
func Registry(source string) string {
	if source == cargo.CratesIO {
		return "crates-io"
	}
	return "registry-" + digest.Of([]byte(source)).Hex()[:16]
}

// CargoSources is the part of a cargo configuration that replaces crates.io
// and other registries by the local ones that Cargo put below dir.
func CargoSources(dir string, sources []string) []byte {
	all := append([]string{cargo.CratesIO}, sources...) // never ask crates.io
	slices.Sort(all)
	var b bytes.Buffer
	for _, source := range slices.Compact(all) {
		name := Registry(source)
		fmt.Fprintf(&b, "[source.%s]\n", name)
		if source != cargo.CratesIO {
			fmt.Fprintf(&b, "registry = %s\n", TOMLString(strings.TrimPrefix(source, "registry+")))
		}
		fmt.Fprintf(&b, "replace-with = \"caisson-%s\"\n\n", name)
		fmt.Fprintf(&b, "[source.caisson-%s]\nlocal-registry = %s\n\n", name, TOMLString(path.Join(dir, name)))
	}
	return b.Bytes()
}

// TOMLString writes a TOML basic string (TOML 1.0, section String).
func TOMLString(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < 0x20 || r == 0x7f:
			fmt.Fprintf(&b, "\\u%04X", r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// Cargo puts the crates of a lock below dir: a local registry (The Cargo Book,
// "Source Replacement") for each registry that they come from, named by
// Registry. Cargo hashes each crate against Cargo.lock before it unpacks it,
// which it does not do with a vendored folder. The lines of the indexes are
// made from the crates, once, and then remembered in the store. It returns
// the registries' sources, for CargoSources.
func (t *Tree) Cargo(ctx context.Context, dir string, l *lock.Lock) ([]string, error) {
	bySource := map[string][]*lock.Input{cargo.CratesIO: nil}
	for i := range l.Inputs {
		if in := &l.Inputs[i]; in.Kind == lock.KindCrate {
			bySource[in.Registry] = append(bySource[in.Registry], in)
		}
	}
	sources := slices.Sorted(maps.Keys(bySource))
	for _, source := range sources {
		if err := t.cargoRegistry(ctx, path.Join(dir, Registry(source)), bySource[source]); err != nil {
			return nil, fmt.Errorf("laying out a local registry: %w", err)
		}
	}
	return sources, nil
}

// CargoConfig puts a cargo configuration at dir/config.toml, for --config or
// as .cargo/config.toml: the registries that Cargo put below dir, and the
// repositories that CargoGit put below dir/git, in place of their sources. dir
// will be read at the absolute path at. Where there are no repositories cargo
// is told to be offline: with them it cannot be.
func (t *Tree) CargoConfig(dir, at string, sources []string, repos []cargo.Git) error {
	b := append(CargoSources(at, sources), CargoGitSources(path.Join(at, "git"), repos)...)
	return t.File(path.Join(dir, "config.toml"), fmt.Appendf(b, "[net]\noffline = %t\n", len(repos) == 0))
}

func (t *Tree) cargoRegistry(ctx context.Context, dir string, crates []*lock.Input) error {
	key := strings.Builder{}
	key.WriteString("view-index-2")
	for _, in := range crates {
		c, err := crateOf(in)
		if err != nil {
			return err
		}
		if err := t.Link(path.Join(dir, c.File()), in); err != nil {
			return err
		}
		key.WriteString("\x00" + in.Name + "\x00" + in.SHA256.Hex())
	}
	lines, err := t.indexLines(ctx, key.String(), crates)
	if err != nil {
		return err
	}
	if len(lines) == 0 {
		return t.File(path.Join(dir, "index/config.json"), []byte("{}\n")) // cargo wants the folder
	}
	files := map[string][]byte{}
	for line := range bytes.Lines(lines) {
		name, text, ok := strings.Cut(string(line), " ")
		if !ok {
			return fmt.Errorf("reading the index: the line %q has no name", name)
		}
		files[name] = append(files[name], text...)
	}
	for name, b := range files {
		if err := t.File(path.Join(dir, "index", name), b); err != nil {
			return err
		}
	}
	return nil
}

// crateOf is the crate of an input: its address is NAME/VERSION.
func crateOf(in *lock.Input) (cargo.Crate, error) {
	name, version, ok := strings.Cut(in.URL, "/")
	if !ok || name == "" || version == "" || strings.Contains(version, "/") {
		return cargo.Crate{}, fmt.Errorf("%s: its address %q is not that of a name and a version", in.Name, in.URL)
	}
	return cargo.Crate{Name: name, Version: version, Source: in.Registry, Checksum: in.SHA256.Hex()}, nil
}

// CargoGit puts bare repositories below dir, one for each of the git
// repositories that a Cargo.lock names, which are inputs of the lock, with the
// configuration by which git finds their submodules in dir/git/config. at is
// the absolute path at which dir will be read. Unlike all else in a view they
// are made anew each time, from the files' contents.
func (t *Tree) CargoGit(ctx context.Context, dir, at string, l *lock.Lock, repos []cargo.Git) error {
	if len(repos) == 0 {
		return nil
	}
	all := make([]GitRepo, len(repos))
	for i, g := range repos {
		in := gitInput(l, g)
		if in == nil {
			return fmt.Errorf("laying out git repositories: the lock has no %s at %s", g.URL, g.Commit)
		}
		all[i] = GitRepo{Git: g, Open: func() (io.ReadCloser, error) {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			return t.store.Open(in.SHA256)
		}}
	}
	t.folders = append(t.folders, folder{dir, func(real string) error { return GitRepositories(real, at, all) }})
	return nil
}

func gitInput(l *lock.Lock, g cargo.Git) *lock.Input {
	for i := range l.Inputs {
		if in := &l.Inputs[i]; in.Git != nil && in.URL == g.URL && in.Git.Commit == g.Commit {
			return in
		}
	}
	return nil
}

// indexLines is the sorted lines of an index, each after the name of its file
// and a space: those that the store remembers, or new ones.
func (t *Tree) indexLines(ctx context.Context, key string, crates []*lock.Input) ([]byte, error) {
	if d, ok := t.recall(key); ok {
		if b, err := t.read(d); err == nil {
			return b, nil
		}
	}
	lines := make([][]byte, len(crates))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i, in := range crates {
		g.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			c, err := crateOf(in)
			if err != nil {
				return err
			}
			line, err := cargo.IndexLine(c, t.store.Path(in.SHA256))
			lines[i] = fmt.Appendf(nil, "%s %s\n", cargo.IndexPath(c.Name), line)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	slices.SortFunc(lines, bytes.Compare)
	b := bytes.Join(lines, nil)
	t.remember(key, b)
	return b, nil
}
