package lock

import (
	"context"
	"fmt"
	"io"
	"maps"
	"path"
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
	// SplitClearSigned is the text of a clear-signed OpenPGP message and the
	// signature over it, as CheckSignature takes them.
	SplitClearSigned func(message []byte) (text, signature []byte, err error)
	// VerifyImage checks by whom an image in a registry is signed.
	VerifyImage func(ctx context.Context, v ImageVerify) (Verified, error)
	// SumDBKey is the verifier key of the Go checksum database; empty stands
	// for that of sum.golang.org.
	SumDBKey string
	// NoSumDB are patterns of the modules that the database is not to be asked
	// for, as GONOSUMDB has them.
	NoSumDB string
	// NeedsOnly leaves out packages, the payloads and their sources: wanted is
	// only what payloads need. Then a Go payload may name no toolchain, and gets
	// none.
	NeedsOnly bool
	// Progress is told what begins; it may be nil.
	Progress func(stage string)
}

// resolver collects inputs while the manifest is worked through.
type resolver struct {
	Options
	m      *Manifest // a copy: a Konflux file adds to it
	lock   *Lock
	inputs map[string]*Input        // by kind/name
	chosen map[string]*Input        // of the old lock, by kind/name
	only   []ArchPackages           // what a Konflux file asks for on some arches
	repos  map[string]Repo          // of the arch at hand, by id
	extra  map[string]*archExtra    // what else counts on an arch
	tops   map[string]digest.Digest // of images that a Konflux file names, by reference: what they were when first looked at
}

func newResolver(o Options) *resolver {
	m := *o.Manifest
	m.RPM.Repos = slices.Clone(m.RPM.Repos)
	m.Sets = maps.Clone(m.Sets)
	r := &resolver{Options: o, m: &m, inputs: map[string]*Input{}, chosen: map[string]*Input{}}
	if o.Old != nil && !o.UpdateAll {
		for i := range o.Old.Inputs {
			in := &o.Old.Inputs[i]
			r.chosen[in.Kind+"/"+in.Name] = in
		}
	}
	return r
}

// Resolve chooses every input of the image and pins it.
func Resolve(ctx context.Context, o Options) (*Lock, error) {
	r := newResolver(o)
	r.lock = &Lock{
		Version: Version, Revision: Revision, Name: r.m.Name, Supplier: r.m.Supplier, Manifest: o.Digest, Arches: slices.Sorted(slices.Values(r.m.Arches)),
		Image: image(r.m.Image), RecordNetwork: r.m.Network == networkRecord,
	}
	if err := r.checkUpdate(); err != nil {
		return nil, err
	}
	if err := r.expandFrom(ctx); err != nil {
		return nil, err
	}
	r.lock.RPM = r.m.RPM.rpmOptions()
	// The files first: a repository may be in one.
	for _, f := range []func(context.Context) error{r.files, r.packages, r.goPayloads, r.cargoPayloads, r.gits, r.images, r.trees} {
		if err := f(ctx); err != nil {
			return nil, err
		}
	}
	if r.NeedsOnly {
		r.lock.Payloads = nil
	}
	r.steps()
	r.variants()
	return r.finish()
}

// finish puts the lock together.
func (r *resolver) finish() (*Lock, error) {
	for _, in := range r.inputs {
		r.lock.Inputs = append(r.lock.Inputs, *in)
	}
	r.lock.sortInputs()
	slices.SortFunc(r.lock.Repos, compareRepos)
	r.setEpoch()
	if err := r.lock.check(); err != nil {
		return nil, err
	}
	return r.lock, nil
}

// hasRepo tells whether there is a repository of that id for an arch.
func (l *Lock) hasRepo(id, arch string) bool {
	return slices.ContainsFunc(l.Repos, func(r Repo) bool { return r.ID == id && r.Arch == arch })
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
	if old.SHA256 == in.SHA256 && old.Kind == KindRPM && old.Repo != in.Repo && !r.lock.hasRepo(old.Repo, in.For[0].Arch) {
		// The repository is called otherwise on this arch.
		in.Name += "@" + in.Repo
		if old = r.inputs[in.Kind+"/"+in.Name]; old == nil {
			r.inputs[in.Kind+"/"+in.Name] = &in
			return nil
		}
	}
	if old.SHA256 != in.SHA256 {
		hint := ""
		if in.Kind == KindRPM {
			hint = "; lock from repositories of one compose, or hide one of the two by excludepkgs"
		}
		return fmt.Errorf("two different files are both %s %s: %s is %s, %s is %s%s", in.Kind, in.Name, old.place(), old.SHA256, in.place(), in.SHA256, hint)
	}
	uses := slices.Concat(old.For, in.For)
	if in.RPM != nil && in.RPM.Signed && !old.RPM.Signed {
		*old = in // found in two repositories, and this one is stricter
	}
	old.For = uses
	return nil
}

// place says where an input is from.
func (in *Input) place() string {
	if in.Repo != "" && len(in.For) > 0 {
		return fmt.Sprintf("%s of repository %q (%s)", in.URL, in.Repo, in.For[0].Arch)
	}
	return in.URL
}

// old is the input of that kind and name in the lock there was, or nil.
func (r *resolver) old(kind, name string) *Input { return r.chosen[kind+"/"+name] }

// checkUpdate refuses to update what the lock there was does not have: a
// package by its name, or another input by the name that the manifest gives.
func (r *resolver) checkUpdate() error {
	if r.Old == nil {
		return nil
	}
	have := make(map[string]bool)
	for i := range r.Old.Inputs {
		switch in := &r.Old.Inputs[i]; {
		case in.RPM != nil:
			have[in.RPM.Name] = have[in.RPM.Name] || !in.RPM.IsSource()
		case in.Kind == KindGit || in.Kind == KindFile:
			have[in.Name] = true
		case in.Kind == KindOCI:
			name, _, _ := strings.Cut(in.Name, "/")
			have[name] = true
		}
	}
	for _, name := range r.Update {
		if !have[name] {
			return fmt.Errorf("updating %q: the lock has no package, git repository, image or file of that name", name)
		}
	}
	return nil
}

func (r *resolver) setEpoch() {
	if r.m.Epoch != nil {
		r.lock.Epoch = *r.m.Epoch
		return
	}
	for _, in := range r.lock.Inputs {
		if in.RPM != nil && !in.RPM.IsSource() && !in.onlyFor(SetVM) { // sources are no input of the build, nor is where it runs
			r.lock.Epoch = max(r.lock.Epoch, in.RPM.BuildTime)
		}
	}
	if r.lock.Epoch == 0 && r.lock.IsArchive() {
		r.lock.Epoch = EpochWithout
	}
}

// EpochWithout is the epoch of an archive that is made without packages, unless
// one is given: the beginning of 1980, the earliest that all formats can hold
// which people pack files in.
const EpochWithout = 315532800

func image(m ManifestImage) Image {
	if slices.ContainsFunc(m.Output, isArchive) {
		return Image{
			Overlay: cleaned(m.Overlay), Services: Services(m.Services), Output: m.Output, Container: m.container(m.Output), Settings: m.settings(),
		}
	}
	im := Image{
		Overlay: cleaned(m.Overlay), Services: Services(m.Services),
		Cmdline: strings.Join(strings.Fields(m.Kernel.Cmdline), " "), Root: m.Root.Format, Compression: m.Root.compression(),
		Verity: m.bind(), Tree: m.tree(), Output: m.Output, Boot: m.Boot.boot(), Settings: m.settings(),
	}
	im.withDisk(m)
	return im
}

// cleaned are paths of trees as the lock names them.
func cleaned(paths []string) []string {
	var out []string
	for _, p := range paths {
		out = append(out, path.Clean(p))
	}
	return out
}

// variants merges each variant's image settings into the image's: lists are
// added to, maps and the way to boot overridden key by key, a command line that
// begins with + is appended.
func (r *resolver) variants() {
	for _, name := range slices.Sorted(maps.Keys(r.m.Variants)) {
		im, v := image(r.m.Image), r.m.Variants[name].Image
		im.Overlay = slices.Concat(im.Overlay, cleaned(v.Overlay))
		im.Services.Enable = slices.Concat(im.Services.Enable, v.Services.Enable)
		im.Services.Disable = slices.Concat(im.Services.Disable, v.Services.Disable)
		im.Services.Mask = slices.Concat(im.Services.Mask, v.Services.Mask)
		im.Settings = im.Settings.merge(v.settings()).withDocs(v.Docs)
		if len(v.Output) > 0 {
			im.Output = v.Output
		}
		if im.IsArchive() {
			both := ManifestImage{Container: r.m.Image.Container.merge(v.Container)}
			im.Container = both.container(im.Output)
			r.lock.Variants = append(r.lock.Variants, Variant{Name: name, Image: im})
			continue
		}
		root := r.m.Image.Root.merge(v.Root)
		im.Root, im.Compression = root.Format, root.compression()
		im.withDisk(ManifestImage{Disk: r.m.Image.Disk.merge(v.Disk), Scratch: r.m.Image.Scratch.merge(v.Scratch)})
		boots := r.m.Image.withBoot(v)
		im.Boot, im.Verity, im.Tree = boots.Boot.boot(), boots.bind(), boots.tree()
		if more, ok := strings.CutPrefix(v.Kernel.Cmdline, "+"); ok {
			im.Cmdline = strings.Join(strings.Fields(im.Cmdline+" "+more), " ")
		} else if v.Kernel.Cmdline != "" {
			im.Cmdline = strings.Join(strings.Fields(v.Kernel.Cmdline), " ")
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

// trees pins the overlay folders.
func (r *resolver) trees(context.Context) error {
	add := func(where string, overlays []string) error {
		for _, o := range overlays {
			if err := r.tree(o, Use{By: where}); err != nil {
				return fmt.Errorf("%s: %w", where, err)
			}
		}
		return nil
	}
	if err := add("image.overlay", r.m.Image.Overlay); err != nil {
		return err
	}
	for _, v := range slices.Sorted(maps.Keys(r.m.Variants)) {
		if err := add("variants."+v+".image.overlay", r.m.Variants[v].Image.Overlay); err != nil {
			return err
		}
	}
	return nil
}

// tree pins a local folder. The clean commit of the lock there was stays as
// long as the content does: a commit elsewhere in the repository changes
// nothing here.
func (r *resolver) tree(rel string, use Use) error {
	if r.NeedsOnly {
		return nil
	}
	rel = path.Clean(rel)
	in, err := PackedInput(r.Dir, rel)
	if err != nil {
		return err
	}
	if in.Tree, err = treeInfo(filepath.Join(r.Dir, rel)); err != nil {
		return err
	}
	if in.Tree != nil && !in.Tree.Dirty {
		if in.Tree.Dirty, err = ownersDirty(filepath.Join(r.Dir, rel)); err != nil {
			return err
		}
	}
	if old := r.old(KindTree, rel); old != nil && old.SHA256 == in.SHA256 && old.Tree != nil && !old.Tree.Dirty {
		in.Tree = old.Tree
	}
	in.For = []Use{use}
	return r.add(in)
}

// PackedInput is the KindTree input of a local folder as it is now, without
// its commit and its uses.
func PackedInput(dir, rel string) (Input, error) {
	pr, pw := io.Pipe()
	go func() { pw.CloseWithError(PackInput(pw, dir, rel)) }()
	d, n, err := digest.Reader(pr)
	if err != nil {
		return Input{}, err
	}
	return Input{Kind: KindTree, Name: rel, URL: rel, Size: n, SHA256: d}, nil
}
