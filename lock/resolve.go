package lock

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"caisson/lock/digest"
)

// Options are what Resolve works on and by what means.
type Options struct {
	// Dir is the folder that the manifest's paths are relative to.
	Dir      string
	Manifest *Manifest
	// Digest is that of the manifest's text.
	Digest digest.Digest
	// Old is the lock to keep close to; may be nil. Packages named in Update
	// are chosen anew, and all are where UpdateAll is set.
	Old       *Lock
	Update    []string
	UpdateAll bool
	// Fetch reaches the network.
	Fetch Fetch
	// Fingerprints reads an OpenPGP key file; CheckSignature tells whether
	// signature over signed is by one of the keys.
	Fingerprints   func(key []byte) ([]string, error)
	CheckSignature func(keys [][]byte, signed, signature io.Reader) error
	// Progress is told what begins; it may be nil.
	Progress func(stage string)
}

// resolver collects inputs while the manifest is worked through.
type resolver struct {
	Options
	m      *Manifest
	lock   *Lock
	inputs map[string]*Input // by kind/name
}

// Resolve chooses every input of the image and pins it.
func Resolve(ctx context.Context, o Options) (*Lock, error) {
	r := &resolver{Options: o, m: o.Manifest, inputs: map[string]*Input{}}
	r.lock = &Lock{
		Version: Version, Revision: Revision, Name: r.m.Name, Manifest: o.Digest, Arches: slices.Sorted(slices.Values(r.m.Arches)),
		RPM: RPMOptions{WeakDeps: on(r.m.RPM.WeakDeps), Best: on(r.m.RPM.Best)}, Image: r.image(r.m.Image),
	}
	if err := r.expandFrom(); err != nil {
		return nil, err
	}
	if err := r.packages(ctx); err != nil {
		return nil, err
	}
	for _, f := range []func(context.Context) error{r.goPayloads, r.cargoPayloads, r.files, r.trees} {
		if err := f(ctx); err != nil {
			return nil, err
		}
	}
	r.steps()
	r.variants()
	for _, in := range r.inputs {
		r.lock.Inputs = append(r.lock.Inputs, *in)
	}
	r.lock.sortInputs()
	sortRepos(r.lock.Repos)
	r.setEpoch()
	if err := r.lock.check(); err != nil {
		return nil, err
	}
	return r.lock, nil
}

func (r *resolver) say(format string, args ...any) {
	if r.Progress != nil {
		r.Progress(fmt.Sprintf(format, args...))
	}
}

// add records an input, or further uses of one that is there.
func (r *resolver) add(in Input) error {
	key := in.Kind + "/" + in.Name
	old, ok := r.inputs[key]
	if !ok {
		r.inputs[key] = &in
		return nil
	}
	if old.SHA256 != in.SHA256 {
		return fmt.Errorf("two different files are called %s: %s and %s", key, old.SHA256, in.SHA256)
	}
	old.For = append(old.For, in.For...)
	return nil
}

// old is the input of that kind and name in the lock there was, or nil.
func (r *resolver) old(kind, name string) *Input {
	if r.Old == nil || r.UpdateAll {
		return nil
	}
	return r.Old.Find(kind, name)
}

func (r *resolver) setEpoch() {
	if r.m.Epoch != nil {
		r.lock.Epoch = *r.m.Epoch
		return
	}
	for _, in := range r.lock.Inputs {
		if in.RPM != nil {
			r.lock.Epoch = max(r.lock.Epoch, in.RPM.BuildTime)
		}
	}
}

func (r *resolver) image(m ManifestImage) Image {
	return Image{
		Overlay: m.Overlay, Services: Services(m.Services),
		Cmdline: strings.Join(strings.Fields(m.Kernel.Cmdline), " "), Root: m.Root.Format, Verity: m.Verity.Bind, Output: m.Output,
	}
}

// variants merges each variant's image settings into the image's: lists are
// added to, a command line that begins with + is appended.
func (r *resolver) variants() {
	for _, name := range slices.Sorted(maps.Keys(r.m.Variants)) {
		im, v := r.image(r.m.Image), r.m.Variants[name].Image
		im.Overlay = slices.Concat(im.Overlay, v.Overlay)
		im.Services.Enable = slices.Concat(im.Services.Enable, v.Services.Enable)
		im.Services.Disable = slices.Concat(im.Services.Disable, v.Services.Disable)
		if more, ok := strings.CutPrefix(v.Kernel.Cmdline, "+"); ok {
			im.Cmdline = strings.Join(strings.Fields(im.Cmdline+" "+more), " ")
		} else if v.Kernel.Cmdline != "" {
			im.Cmdline = strings.Join(strings.Fields(v.Kernel.Cmdline), " ")
		}
		if len(v.Output) > 0 {
			im.Output = v.Output
		}
		r.lock.Variants = append(r.lock.Variants, Variant{Name: name, Image: im})
	}
}

func (r *resolver) steps() {
	for _, s := range r.m.Steps {
		out := Step{Run: s.Run}
		if s.Go != nil {
			g := GoStep(*s.Go)
			if g.Package == "" {
				g.Package = "."
			}
			out.Go = &g
		}
		if s.Cargo != nil {
			c := CargoStep(*s.Cargo)
			if c.Bin == "" {
				c.Bin = c.Input
			}
			out.Cargo = &c
		}
		r.lock.Steps = append(r.lock.Steps, out)
	}
}

// files pins the file inputs.
func (r *resolver) files(ctx context.Context) error {
	for _, f := range r.m.Inputs.Files {
		in := Input{Kind: KindFile, Name: f.Name, URL: f.URL, For: []Use{{By: "inputs.files " + f.Name}}}
		if f.SHA256 != "" {
			d, err := digest.ParseHex(strings.TrimPrefix(f.SHA256, "sha256:"))
			if err != nil {
				return fmt.Errorf("inputs.files: %s: %w", f.Name, err)
			}
			in.SHA256 = d
		}
		if !strings.Contains(f.URL, "://") {
			d, n, err := digestFile(filepath.Join(r.Dir, f.URL))
			if err != nil {
				return fmt.Errorf("inputs.files: %s: %w", f.Name, err)
			}
			if !in.SHA256.IsZero() && in.SHA256 != d {
				return fmt.Errorf("inputs.files: %s: %s has %s, want %s", f.Name, f.URL, d, in.SHA256)
			}
			in.SHA256, in.Size = d, n
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		in.PURL = "pkg:generic/" + f.Name + "?checksum=" + in.SHA256.String()
		if err := r.add(in); err != nil {
			return err
		}
	}
	return nil
}

func digestFile(name string) (digest.Digest, int64, error) {
	f, err := os.Open(name)
	if err != nil {
		return digest.Digest{}, 0, err
	}
	defer f.Close()
	return digest.Reader(f)
}

// trees pins the overlay folders.
func (r *resolver) trees(context.Context) error {
	overlays := slices.Clone(r.m.Image.Overlay)
	for _, v := range r.m.Variants {
		overlays = append(overlays, v.Image.Overlay...)
	}
	for _, o := range overlays {
		if err := r.tree(o, Use{By: "image.overlay"}); err != nil {
			return fmt.Errorf("image.overlay: %w", err)
		}
	}
	return nil
}

// tree pins a local folder. The commit of the lock there was stays as long as
// the content does: a commit elsewhere in the repository changes nothing here.
func (r *resolver) tree(rel string, use Use) error {
	if filepath.IsAbs(rel) {
		return fmt.Errorf("%s: want a path relative to the manifest", rel)
	}
	in, err := PackedInput(r.Dir, rel)
	if err != nil {
		return err
	}
	if old := r.old(KindTree, rel); old != nil && old.SHA256 == in.SHA256 {
		in.Tree = old.Tree
	} else {
		in.Tree = treeInfo(filepath.Join(r.Dir, rel))
	}
	in.For = []Use{use}
	return r.add(in)
}

// PackedInput is the KindTree input of a local folder as it is now, without
// its commit and its uses.
func PackedInput(dir, rel string) (Input, error) {
	pr, pw := io.Pipe()
	go func() { pw.CloseWithError(Pack(pw, filepath.Join(dir, rel))) }()
	d, n, err := digest.Reader(pr)
	if err != nil {
		return Input{}, err
	}
	return Input{Kind: KindTree, Name: rel, URL: rel, Size: n, SHA256: d}, nil
}

// Check tells, with no network, whether the lock still answers the manifest:
// nil, or what has changed since. It looks at the manifest's digest, at the
// local folders, and at keys and files beside the manifest.
func Check(l *Lock, manifest digest.Digest, dir string) error {
	var changed []error
	if l.Manifest != manifest {
		changed = append(changed, fmt.Errorf("the manifest has changed: %s, the lock was made for %s", manifest, l.Manifest))
	}
	for i := range l.Inputs {
		in := &l.Inputs[i]
		if strings.Contains(in.URL, "://") {
			continue
		}
		var now digest.Digest
		var err error
		switch in.Kind {
		case KindTree:
			var p Input
			p, err = PackedInput(dir, in.URL)
			now = p.SHA256
		case KindKey, KindFile:
			now, _, err = digestFile(filepath.Join(dir, in.URL))
		default:
			continue
		}
		if err == nil && now != in.SHA256 {
			err = fmt.Errorf("%s has changed: %s, the lock has %s", in.URL, now, in.SHA256)
		}
		if err != nil {
			changed = append(changed, err)
		}
	}
	return errors.Join(changed...)
}
