package build

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"caisson/build/rootfs"
	"caisson/build/sandbox"
	"caisson/lock"
)

// sysroot is where a root that is being installed lies in the sandbox.
const sysroot = "/sysroot"

// excluded are folders that rpm leaves alone: while it runs, the sandbox's own
// are mounted there.
var excluded = []string{"dev", "proc"}

// installed is a root as rpm and the steps after it left it.
type installed struct {
	set      string
	dir      string
	packages []*rootfs.Package
	inputOf  map[*rootfs.Package]string // as KIND/NAME
	// seen is what the steps so far believe of files; each step is given it.
	seen   map[sandbox.FileID]sandbox.Recorded
	tree   *rootfs.Tree
	claims map[string][]rootfs.Claim
	// copied are files taken from another root, with their inputs.
	copied map[string][]string
}

// unpackTools makes the tools root and, in it, the places where steps find
// what they are given.
func (b *builder) unpackTools(ctx context.Context) error {
	tools := b.of(lock.SetTools)
	if len(tools) == 0 {
		return errors.New("the lock has no tools set; rpm has to come from somewhere")
	}
	var rpms []rootfs.RPM
	for _, in := range tools {
		rpms = append(rpms, rootfs.RPM{Name: in.Name, Open: func() (io.ReadCloser, error) { return b.open(in) }})
		b.given[in] = true
	}
	if err := rootfs.Unpack(ctx, b.tools, rpms); err != nil {
		return err
	}
	for _, d := range []string{"proc", "dev", "tmp", "store", "sysroot", "rpms", "src", "out", "in", "toolchain", "proxy", "registry", "target"} {
		if err := os.MkdirAll(filepath.Join(b.tools, d), 0o755); err != nil {
			return err
		}
	}
	return nameService(b.tools)
}

// nameService gives the tools root what the C library asks first. There is no
// name server: the address is one of documentation (RFC 5737), so that a step
// which looks up a name is seen to reach for a network.
func nameService(root string) error {
	for name, text := range map[string]string{"hosts": "127.0.0.1 localhost\n", "resolv.conf": "nameserver 192.0.2.53\n"} {
		p := filepath.Join(root, "etc", name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			return err
		}
		if _, err := os.Lstat(p); err == nil {
			continue
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil { //nolint:gosec // read in the sandbox
			return err
		}
	}
	return nil
}

// rpmTrouble finds the lines of rpm's stderr that mean that something did not
// happen. rpm exits 0 when a Lua scriptlet fails, and takes root for an owner
// it does not know.
var rpmTrouble = regexp.MustCompile(`(?m)^(error: .*|warning: .*(scriptlet failed|does not exist - using root).*)$`)

// install lets the tools root's rpm install a set into an empty root.
func (b *builder) install(ctx context.Context, set string) (*installed, error) {
	inputs := b.of(set)
	if len(inputs) == 0 {
		return nil, fmt.Errorf("the lock has no packages for the %s", set)
	}
	i := &installed{set: set, dir: filepath.Join(b.work, set), inputOf: map[*rootfs.Package]string{}, copied: map[string][]string{}}
	view := filepath.Join(b.work, "rpms-"+set)
	for _, d := range []string{i.dir, view} {
		if err := makeDir(d); err != nil {
			return nil, err
		}
	}
	for _, d := range excluded {
		if err := makeDir(filepath.Join(i.dir, d)); err != nil {
			return nil, err
		}
	}
	args := []string{
		"rpm", "--root", sysroot, "--dbpath", "/usr/lib/sysimage/rpm", "--define", "_db_backend sqlite",
		"--nosignature", "-i",
	}
	for _, d := range excluded {
		args = append(args, "--excludepath=/"+d)
	}
	for _, in := range inputs {
		p, err := b.header(in)
		if err != nil {
			return nil, err
		}
		i.packages = append(i.packages, p)
		i.inputOf[p] = ref(in)
		name := in.Name + ".rpm"
		if err := os.Symlink(inStore(in), filepath.Join(view, name)); err != nil {
			return nil, err
		}
		args = append(args, "/rpms/"+name)
	}
	res, stderr, err := b.run(ctx, inputs, sandbox.Spec{
		Name: "install " + set, Root: b.tools, Args: args, FakeOwnership: true,
		Mounts: []sandbox.Mount{{Source: i.dir, Target: sysroot, Writable: true}, {Source: view, Target: "/rpms"}},
		ProcIn: []string{sysroot}, DevIn: []string{sysroot},
		Env: []string{"SYSTEMD_OFFLINE=1", "PYTHONDONTWRITEBYTECODE=1"},
	})
	if err != nil {
		return nil, err
	}
	if m := rpmTrouble.FindAllString(stderr, 10); m != nil {
		return nil, &StepError{Step: "install " + set, Reason: "rpm ended well, but said", Tail: strings.Join(m, "\n")}
	}
	i.seen = res.Files
	return i, nil
}

// makeDir makes a folder with mode 0755 whatever the umask is.
func makeDir(dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	return os.Chmod(dir, 0o755)
}

// makeDirs makes the folders of rel that are missing below base.
func makeDirs(base, rel string) error {
	at := base
	for part := range strings.SplitSeq(rel, "/") {
		at = filepath.Join(at, part)
		if err := makeDir(at); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	return nil
}

// header reads what a package's header says of its files. A pipe in a package
// is refused: rpm 4.18 waits for its other end for ever.
func (b *builder) header(in *lock.Input) (*rootfs.Package, error) {
	r, err := b.open(in)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	p, err := rootfs.ReadPackage(bufio.NewReader(r))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ref(in), err)
	}
	p.NEVRA = in.Name
	for _, f := range p.Files {
		if f.IsFIFO() {
			return nil, fmt.Errorf("%s: %s is a pipe, on which rpm would wait for ever; exclude the package", ref(in), f.Path)
		}
	}
	return p, nil
}

// finishRoot lays over the root what the steps and the overlays bring, sets
// its services, and reads it.
func (b *builder) finishRoot(ctx context.Context, root *installed) error {
	for _, name := range b.image.Overlay {
		in := b.Lock.Find(lock.KindTree, name)
		tmp := filepath.Join(b.work, "overlay-"+strings.ReplaceAll(name, "/", "-"))
		if err := b.unpackTree(in, tmp); err != nil {
			return err
		}
		if err := b.place(root, tmp, func(string) placing {
			return placing{account: Placed, inputs: []string{ref(in)}, by: "overlay"}
		}); err != nil {
			return err
		}
	}
	if err := b.place(root, b.out, func(p string) placing { return b.placed[p] }); err != nil {
		return err
	}
	if err := b.setServices(ctx, root); err != nil {
		return err
	}
	b.say("reading the root")
	if err := b.scan(ctx, root, rootfs.Rules(false)); err != nil {
		return err
	}
	return addState(root.tree)
}

// setServices runs the root's own systemctl.
func (b *builder) setServices(ctx context.Context, root *installed) error {
	before, err := links(root.dir)
	if err != nil {
		return err
	}
	for _, s := range []struct {
		verb  string
		units []string
	}{{"disable", b.image.Services.Disable}, {"enable", b.image.Services.Enable}} {
		if len(s.units) == 0 {
			continue
		}
		res, _, err := b.run(ctx, nil, sandbox.Spec{
			Name: s.verb + " services", Root: root.dir, RootWritable: true, FakeOwnership: true,
			Args: slices.Concat([]string{"systemctl", "--root=/", "--no-reload", s.verb}, s.units),
			Env:  []string{"SYSTEMD_OFFLINE=1"}, Files: root.seen,
		})
		if err != nil {
			return err
		}
		root.seen = res.Files
	}
	after, err := links(root.dir)
	if err != nil {
		return err
	}
	for p := range after {
		if !before[p] {
			b.placed[p] = placing{account: Generated, by: "services"}
		}
	}
	return nil
}

// links are the symbolic links by which units are enabled.
func links(root string) (map[string]bool, error) {
	out := map[string]bool{}
	err := filepath.WalkDir(filepath.Join(root, "etc/systemd"), func(p string, d os.DirEntry, err error) error {
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(root, p)
		out[rel] = true
		return err
	})
	return out, err
}

// scan reads a root's folder, gives every entry its owner and normalises it.
func (b *builder) scan(ctx context.Context, i *installed, rules []rootfs.Rule) error {
	t, err := rootfs.Scan(ctx, i.dir)
	if err != nil {
		return err
	}
	i.claims, err = t.Owners(i.packages, func(dev, ino uint64) (rootfs.Seen, bool) {
		r, ok := i.seen[sandbox.FileID{Dev: dev, Ino: ino}]
		return rootfs.Seen{UID: r.UID, GID: r.GID, Xattrs: r.Xattrs}, ok
	})
	if err != nil {
		return fmt.Errorf("%s: %w", i.set, err)
	}
	if err := devices(t, i.seen); err != nil {
		return err
	}
	for p := range b.placed { // written by us, not by the root's programs
		if e := t.Get(p); e != nil && i.set == lock.SetRoot {
			e.UID, e.GID = 0, 0
		}
	}
	for _, d := range excluded {
		for _, c := range i.claims[d] {
			t.Get(d).Mode = c.File.Mode
		}
	}
	var used []string
	for _, r := range t.Normalise(rules) {
		used = append(used, fmt.Sprintf("/%s: %s", r.Match, r.Reason))
	}
	i.tree = t
	return b.log.Append("normalise "+i.set, strings.Join(used, "\n"))
}

// addState adds the files by which systemd knows a prepared image: an empty
// machine-id, so that each machine gets its own at boot and it is no first
// boot, and the marks that /etc and /var are as new as /usr.
func addState(t *rootfs.Tree) error {
	if err := t.PutFile("etc/machine-id", 0o444, nil); err != nil {
		return err
	}
	for _, p := range []string{"etc/.updated", "var/.updated"} {
		if err := t.PutFile(p, 0o644, nil); err != nil {
			return err
		}
	}
	for _, d := range []string{"dev", "proc", "sys", "run"} {
		if err := t.PutDir(d, 0o755); err != nil {
			return err
		}
	}
	return nil
}
