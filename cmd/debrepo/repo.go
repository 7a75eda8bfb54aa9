package main

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"caisson/cmd/debrepo/rpmwrite"
)

// converterVersion changes with anything that changes the packages made from the same .debs.
const converterVersion = 7

// repository is the folder that make writes. Nothing appears there under its final name before it is whole, and the metadata comes last.
type repository struct {
	dir      string
	key      *key
	tmp      string
	progress io.Writer
}

// state is what the last run did, to not do it again.
type state struct {
	Converter int              `json:"converter"`
	Key       string           `json:"key"`
	Packages  map[string]built `json:"packages"`  // by digest of what they were made from
	Published string           `json:"published"` // digest of the packages in the metadata
}

// built is an RPM in the repository, and what it says of itself to the others.
type built struct {
	File     string    `json:"file"`
	Size     int64     `json:"size"`
	Built    time.Time `json:"built"`
	Provides []string  `json:"provides"`
	Requires []string  `json:"requires"` // each is one name, or alternatives joined by "|"
}

// makeRepository makes or refreshes the repository in dir of packages and what they need, of a suite or the machine's sources.
func makeRepository(ctx context.Context, dir, cache, suite string, packages []string, progress io.Writer) error {
	for _, d := range []string{dir, filepath.Join(dir, "Packages"), filepath.Join(dir, "files"), cache} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	unlock, err := lock(dir)
	if err != nil {
		return err
	}
	defer unlock()
	r := &repository{dir: dir, tmp: filepath.Join(dir, ".tmp"), progress: progress}
	if err := os.RemoveAll(r.tmp); err != nil { // of a run that was killed
		return err
	}
	if err := os.Mkdir(r.tmp, 0o755); err != nil {
		return err
	}
	defer os.RemoveAll(r.tmp)
	if r.key, err = openKey(dir); err != nil {
		return err
	}
	a, err := openApt(ctx, cache, suite, progress)
	if err != nil {
		return err
	}
	own := slices.Contains(packages, kernelUKI)
	if own {
		packages = slices.Concat(slices.DeleteFunc(slices.Clone(packages), func(p string) bool { return p == kernelUKI }), ukiPackages, ukiInitrd)
	}
	wanted, err := a.existing(ctx, slices.Concat(packages, sourcePackages))
	if err != nil {
		return err
	}
	chosen, err := a.choose(ctx, wanted)
	if err != nil {
		return err
	}
	if err := a.fetch(ctx, wanted, chosen); err != nil {
		return errors.Join(err, a.forget())
	}
	var image *ukiSources
	if own {
		if image, err = a.ukiSources(ctx, chosen); err != nil {
			return err
		}
	}
	return r.refresh(ctx, a, chosen, image)
}

// lock keeps two runs from writing the same repository.
func lock(dir string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, ".lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("%s is being written by another debrepo: %w", dir, err)
	}
	return func() { f.Close() }, nil
}

// refresh makes what has changed of the packages chosen, and of the vendor's kernel image unless there is none.
func (r *repository) refresh(ctx context.Context, a *apt, chosen []download, image *ukiSources) error {
	old := r.readState()
	now := state{Converter: converterVersion, Key: r.key.fingerprint(), Packages: map[string]built{}}
	var todo []download
	var basePasswd, baseFiles download
	for _, d := range chosen {
		switch name, _, _ := strings.Cut(d.File, "_"); name {
		case "base-passwd":
			basePasswd = d
			continue
		case "base-files":
			baseFiles = d
		}
		if b, ok := old.Packages[d.SHA256]; ok && r.has(b) {
			now.Packages[d.SHA256] = b
		} else {
			todo = append(todo, d)
		}
	}
	if basePasswd.File == "" || baseFiles.File == "" {
		return errors.New("apt did not choose base-passwd and base-files, whose files are needed")
	}
	if err := r.own(ctx, a, basePasswd, baseFiles, old, &now); err != nil {
		return err
	}
	if err := r.convertAll(ctx, a, todo, &now); err != nil {
		return err
	}
	if image != nil {
		if err := r.kernelUKI(ctx, a, image, old, &now); err != nil {
			return err
		}
	}
	if err := closed(now.Packages); err != nil {
		return err
	}
	if err := r.placeFiles(ctx, a.archive(baseFiles)); err != nil {
		return err
	}
	return r.publish(ctx, old, now)
}

// readState gives the state of the last run, empty where it does not count any more.
func (r *repository) readState() state {
	var s state
	b, err := os.ReadFile(filepath.Join(r.dir, ".state.json"))
	if err == nil {
		err = json.Unmarshal(b, &s)
	}
	if err != nil || s.Converter != converterVersion || s.Key != r.key.fingerprint() {
		return state{}
	}
	return s
}

func (r *repository) writeState(s state) error {
	b, err := json.MarshalIndent(s, "", " ")
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(r.dir, ".state.json"), b, 0o644)
}

func (r *repository) has(b built) bool {
	st, err := os.Stat(filepath.Join(r.dir, "Packages", b.File))
	return err == nil && st.Size() == b.Size
}

// own makes filesystem and setup.
func (r *repository) own(ctx context.Context, a *apt, basePasswd, baseFiles download, old state, now *state) error {
	id := func(p string) string { return p + " of " + basePasswd.SHA256 + " and " + baseFiles.SHA256 }
	have := true
	for _, name := range []string{"filesystem", "setup"} {
		b, ok := old.Packages[id(name)]
		have = have && ok && r.has(b)
		now.Packages[id(name)] = b
	}
	if have {
		return nil
	}
	packages, err := ownPackages(ctx, a.archive(basePasswd), a.archive(baseFiles))
	if err != nil {
		return err
	}
	for _, p := range packages {
		b, err := r.write(p)
		if err != nil {
			return err
		}
		now.Packages[id(p.Name)] = b
	}
	return nil
}

// convertAll converts .debs, as many at a time as there are processors.
func (r *repository) convertAll(ctx context.Context, a *apt, todo []download, now *state) error {
	if len(todo) == 0 {
		return nil
	}
	fmt.Fprintf(r.progress, "debrepo: converting %d packages\n", len(todo))
	slices.SortFunc(todo, func(x, y download) int { return int(y.Size - x.Size) }) // the large ones first
	var mu sync.Mutex
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.NumCPU())
	for _, d := range todo {
		g.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			b, err := r.convertOne(ctx, a.archive(d), d)
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			now.Packages[d.SHA256] = b
			return r.writeState(*now) // a run that is killed has not worked in vain
		})
	}
	return g.Wait()
}

func (r *repository) convertOne(ctx context.Context, name string, d download) (built, error) {
	sum, err := fileDigest(name)
	if err != nil {
		return built{}, err
	}
	if sum != d.SHA256 {
		return built{}, errors.Join(fmt.Errorf("%s: got sha256:%s, want sha256:%s; the file is removed, run again", name, sum, d.SHA256), os.Remove(name))
	}
	spill, err := os.CreateTemp(r.tmp, "files-*")
	if err != nil {
		return built{}, err
	}
	defer spill.Close()
	if err := os.Remove(spill.Name()); err != nil {
		return built{}, err
	}
	p, err := convert(ctx, name, spill)
	if err != nil {
		return built{}, err
	}
	return r.write(p)
}

// write puts one package into the repository. Its file's time is its build time.
func (r *repository) write(p *rpmwrite.Package) (b built, err error) {
	spool, err := os.CreateTemp(r.tmp, "payload-*")
	if err != nil {
		return b, err
	}
	defer spool.Close()
	if err := os.Remove(spool.Name()); err != nil {
		return b, err
	}
	out, err := os.CreateTemp(r.tmp, "rpm-*")
	if err != nil {
		return b, err
	}
	err = rpmwrite.Write(out, p, spool, r.key.sign)
	if err == nil {
		err = out.Chmod(0o644)
	}
	if err == nil {
		b.Size, err = out.Seek(0, io.SeekCurrent)
	}
	if cerr := out.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return b, fmt.Errorf("writing the rpm of %s: %w", p.Name, err)
	}
	if err := os.Chtimes(out.Name(), p.BuildTime, p.BuildTime); err != nil {
		return b, err
	}
	b.File, b.Built = p.FileName(), p.BuildTime
	b.Provides, b.Requires = names(p)
	return b, os.Rename(out.Name(), filepath.Join(r.dir, "Packages", b.File))
}

// names are what p provides and requires, without versions: apt has seen to those.
func names(p *rpmwrite.Package) (provides, requires []string) {
	for _, d := range p.Provides {
		provides = append(provides, d.Name)
	}
	for _, d := range p.Requires {
		if strings.HasPrefix(d.Name, "(") {
			var alternatives []string
			for alternative := range strings.SplitSeq(strings.Trim(d.Name, "()"), " or ") {
				name, _, _ := strings.Cut(alternative, " ")
				alternatives = append(alternatives, name)
			}
			requires = append(requires, strings.Join(alternatives, "|"))
			continue
		}
		requires = append(requires, d.Name)
	}
	return provides, requires
}

// closed fails where a package requires what none provides.
func closed(packages map[string]built) error {
	provided := map[string]bool{}
	for _, b := range packages {
		for _, n := range b.Provides {
			provided[n] = true
		}
	}
	var missing []string
	for _, b := range packages {
		for _, alternatives := range b.Requires {
			if !slices.ContainsFunc(strings.Split(alternatives, "|"), func(n string) bool { return provided[n] }) {
				missing = append(missing, fmt.Sprintf("%s requires %q", b.File, alternatives))
			}
		}
	}
	slices.Sort(missing)
	if len(missing) > 0 {
		return fmt.Errorf("no package provides what others require: %s", strings.Join(missing, ", "))
	}
	return nil
}

// placeFiles writes the public key and its certificate, and the licence text that serves as an example of a plain file.
func (r *repository) placeFiles(ctx context.Context, baseFiles string) error {
	public, err := r.key.public()
	if err != nil {
		return err
	}
	if err := writeFile(filepath.Join(r.dir, "RPM-GPG-KEY-debrepo"), public, 0o644); err != nil {
		return err
	}
	certificate, _, err := r.key.certificate()
	if err != nil {
		return err
	}
	if err := writeFile(filepath.Join(r.dir, "SECUREBOOT-CERT-debrepo.pem"), certificate, 0o644); err != nil {
		return err
	}
	found := errors.New("found")
	err = debTar(ctx, "--fsys-tarfile", baseFiles, func(h *tar.Header, in io.Reader) error {
		if rpmPath(h.Name) != "/usr/share/common-licenses/Apache-2.0" || h.Size > maxControl {
			return nil
		}
		b, err := io.ReadAll(in)
		if err != nil {
			return err
		}
		if err := writeFile(filepath.Join(r.dir, "files", "Apache-2.0.txt"), b, 0o644); err != nil {
			return err
		}
		return found
	})
	if !errors.Is(err, found) {
		return errors.Join(fmt.Errorf("%s has no /usr/share/common-licenses/Apache-2.0", baseFiles), err)
	}
	return nil
}
