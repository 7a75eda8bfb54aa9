package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"caisson/build/image/ocilayout"
	"caisson/build/image/paxtar"
	"caisson/build/rootfs"
	"caisson/build/sandbox"
	"caisson/lock"
	"caisson/lock/digest"
)

// archives are the root, packed as the lock asks for it.
type archives struct {
	*builder
	files    []Output
	manifest *digest.Digest // of the OCI image
}

// ociArch is the architecture of image-spec for those of RPM: what Go calls it.
var ociArch = map[string]string{"x86_64": "amd64", "aarch64": "arm64", "s390x": "s390x", "ppc64le": "ppc64le"}

// pack writes the root in the forms asked for, the container image first. The
// folder that it is read from is gone then.
func (b *builder) pack(ctx context.Context, root *installed) (*archives, error) {
	a := &archives{builder: b}
	if err := a.check(root.tree); err != nil {
		return nil, err
	}
	entries := paxEntries(root.tree)
	p := b.begin(stepOutputs).of(int64(len(b.image.Output))*sizeOf(root.tree), "bytes")
	defer p.end()
	// The order of lock.Outputs, whatever the manifest's is.
	for _, o := range lock.Outputs() {
		if !slices.Contains(b.image.Output, o) {
			continue
		}
		out, err := a.write(ctx, o, entries, p)
		if err != nil {
			return nil, fmt.Errorf("writing the %s archive: %w", o, err)
		}
		a.files = append(a.files, out)
	}
	return a, b.removeRoots(ctx)
}

// write writes one archive.
func (a *archives) write(ctx context.Context, output string, entries []paxtar.Entry, p *progress) (Output, error) {
	name := OutputFiles(filepath.Join(a.work, a.imageName()), output)[0]
	layer := func(w io.Writer) error {
		return paxtar.Write(toldWriter{ctx, w, p}, entries, a.Lock.Epoch)
	}
	err := create(name, func(f *os.File) error {
		if output == lock.OutputTar {
			return layer(f)
		}
		written, err := ocilayout.Write(f, a.config(), layer)
		if err != nil {
			return err
		}
		d, err := digest.Parse(written.Manifest.Digest)
		a.manifest = &d
		return err
	})
	if err != nil {
		return Output{}, err
	}
	return describeSynced(name)
}

// config is what there is to say of a container beside its files.
func (a *archives) config() ocilayout.Options {
	o := ocilayout.Options{Arch: ociArch[a.Arch], Created: a.Lock.Epoch, By: "caisson build"}
	if c := a.image.Container; c != nil {
		o.Env = c.Env
		o.Container = ocilayout.Container{User: c.User, Entrypoint: c.Entrypoint, Cmd: c.Cmd, WorkingDir: c.Workdir, Labels: c.Labels}
	}
	return o
}

// whiteout begins the names of files that mean, in a layer, that another one is
// gone (image-spec, layer.md).
const whiteout = ".wh."

// check refuses a container image that could not be started, or that would not
// have all of the root's files.
func (a *archives) check(t *rootfs.Tree) error {
	if t.Len() == 1 { // the root folder itself
		return errors.New("the root is empty: no package, no step and no overlay brings anything")
	}
	if !slices.Contains(a.image.Output, lock.OutputOCI) {
		return nil
	}
	if ociArch[a.Arch] == "" {
		return fmt.Errorf("the architecture %q has no name in OCI images", a.Arch)
	}
	for _, e := range t.Entries() {
		if strings.HasPrefix(path.Base(e.Path), whiteout) {
			return fmt.Errorf("/%s: in a container image a file whose name begins with %s stands for one that was removed", e.Path, whiteout)
		}
	}
	c := a.image.Container
	if c == nil {
		return nil
	}
	if err := checkProgram(t, c); err != nil {
		return err
	}
	user, group, _ := strings.Cut(c.User, ":")
	for _, id := range []struct{ name, file string }{{user, "etc/passwd"}, {group, "etc/group"}} {
		if id.name == "" || strings.Trim(id.name, "0123456789") == "" {
			continue
		}
		ids := map[string]uint32{}
		if t.Resolve(id.file) != nil {
			var err error
			if ids, err = t.IDs(id.file); err != nil {
				return err
			}
		}
		if _, ok := ids[id.name]; !ok {
			return fmt.Errorf("image.container.user: the root's /%s has no %q: give a number, or add it", id.file, id.name)
		}
	}
	return nil
}

// checkProgram looks for what the container starts, where it is named by its
// path.
func checkProgram(t *rootfs.Tree, c *lock.Container) error {
	key, args := "entrypoint", c.Entrypoint
	if len(args) == 0 {
		key, args = "cmd", c.Cmd
	}
	if len(args) == 0 || !path.IsAbs(args[0]) {
		return nil
	}
	if e := t.Resolve(args[0]); e == nil || !e.Is(unix.S_IFREG) || e.Mode&0o111 == 0 {
		return fmt.Errorf("image.container.%s: the root has no program %s", key, args[0])
	}
	return nil
}

// paxEntries are a tree's as they are written.
func paxEntries(t *rootfs.Tree) []paxtar.Entry {
	var out []paxtar.Entry
	for _, e := range t.Entries() {
		out = append(out, paxtar.Entry{
			Path: e.Path, Mode: e.Mode, UID: e.UID, GID: e.GID, Size: e.Size, Target: e.Target, HardLink: e.HardLink, Rdev: e.Rdev, Xattrs: e.Xattrs, Open: e.Open,
		})
	}
	return out
}

func (a *archives) accounts(root, _ *installed) ([]File, error) { return a.accountRoots(root) }

// describe is what there is to say of the archives.
func (a *archives) describe() *Image {
	return &Image{
		Name: a.Lock.Name, Variant: a.Variant, Arch: a.Arch, Lock: a.lockDigest, Epoch: a.Lock.Epoch, Manifest: a.manifest, Files: a.files,
	}
}

// hasPackages tells whether the root begins with packages, as that of every disk
// does.
func (b *builder) hasPackages() bool { return !b.image.IsArchive() || len(b.of(lock.SetRoot)) > 0 }

// installRoot installs the root's packages. An archive may have none: its root
// begins empty then, with the folders that a step which works on it needs.
func (b *builder) installRoot(ctx context.Context) (*installed, error) {
	if b.hasPackages() {
		return b.install(ctx, lock.SetRoot)
	}
	defer b.begin(installStep(lock.SetRoot)).end()
	i := newInstalled(lock.SetRoot, filepath.Join(b.work, lock.SetRoot))
	i.seen = map[sandbox.FileID]sandbox.Recorded{}
	if err := makeDir(i.dir); err != nil {
		return nil, err
	}
	if slices.ContainsFunc(b.Lock.Steps, func(s lock.Step) bool { return usesRoot.MatchString(s.Run) }) {
		for _, d := range excluded {
			if err := makeDir(filepath.Join(i.dir, d)); err != nil {
				return nil, err
			}
		}
	}
	return i, i.ledger.step(byInstallation)
}

// toldWriter moves a step on with what is written, until ctx is done.
type toldWriter struct {
	ctx context.Context //nolint:containedctx // it lives as long as one call
	w   io.Writer
	p   *progress
}

func (t toldWriter) Write(b []byte) (int, error) {
	if err := t.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := t.w.Write(b)
	t.p.moved(int64(n), "")
	return n, err
}
