package build

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

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
	ledger *ledger
	// setBy are the scriptlets that gave files their owners, capabilities or device
	// numbers, by path.
	setBy map[string]string
	// asked are the modes and owners that overlays give, by path.
	asked map[string]asked
	// removed counts what settings took out; nil where they ask for nothing.
	removed *Total
}

// unpackTools makes the tools root and, in it, the places where steps find
// what they are given.
func (b *builder) unpackTools(ctx context.Context) error {
	tools := b.of(lock.SetTools)
	p := b.begin(stepTools).of(int64(len(tools)), "packages")
	defer p.end()
	if len(tools) == 0 && b.hasPackages() {
		return errors.New("the lock has no tools set; rpm has to come from somewhere")
	}
	var rpms []rootfs.RPM
	for _, in := range tools {
		rpms = append(rpms, rootfs.RPM{Name: in.Name, Open: p.unpacked(in.Name, func() (io.ReadCloser, error) { return b.open(in) })})
		b.given[in] = true
	}
	if err := rootfs.Unpack(ctx, b.tools, rpms); err != nil {
		return err
	}
	places := []string{"proc", "dev", "tmp", "sysroot", "rpms", "src", "out", "in", "toolchain", "proxy", "registry", "target", givenMount}
	for _, d := range places {
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
	p := b.begin(installStep(set))
	defer p.end()
	inputs := b.of(set)
	if len(inputs) == 0 {
		return nil, fmt.Errorf("the lock has no packages for the %s", set)
	}
	i := newInstalled(set, filepath.Join(b.work, set))
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
		// rpm 4.20 would give scriptlets a network namespace of their own,
		// which the sandbox forbids, and has no network anyway.
		"--define", "__transaction_unshare %{nil}",
		"--nosignature", "-iv",
	}
	for _, d := range excluded {
		args = append(args, "--excludepath=/"+d)
	}
	args = append(args, b.leftOut(set)...)
	for _, in := range inputs {
		pkg, err := b.toInstall(in)
		if err != nil {
			return nil, err
		}
		i.packages = append(i.packages, pkg)
		i.inputOf[pkg] = ref(in)
		name := in.Name + ".rpm"
		if err := os.Symlink(inSandbox(in), filepath.Join(view, name)); err != nil {
			return nil, err
		}
		args = append(args, "/rpms/"+name)
	}
	lines, runs := b.rpmLines(inputs, p), newScriptRuns(i.packages)
	res, stderr, err := b.run(ctx, inputs, sandbox.Spec{
		Name: installStep(set), Root: b.tools, Args: args, FakeOwnership: true, Stdout: lines, Told: runs.told,
		Mounts: []sandbox.Mount{{Source: i.dir, Target: sysroot, Writable: true}, {Source: view, Target: "/rpms"}},
		ProcIn: []string{sysroot}, DevIn: []string{sysroot},
		Env: []string{"SYSTEMD_OFFLINE=1", "PYTHONDONTWRITEBYTECODE=1"},
	})
	if err != nil {
		return nil, err
	}
	if len(stderr) >= maxOutput {
		return nil, &StepError{Step: "install " + set, Reason: fmt.Sprintf("rpm printed more than %d bytes of messages", maxOutput), Tail: tail(stderr)}
	}
	if m := b.trouble(set, stderr); len(m) > 0 {
		return nil, &StepError{Step: "install " + set, Reason: "rpm ended well, but said", Tail: withTail(m, stderr)}
	}
	i.seen = res.Files
	b.noteScripts(i, inputs)
	if err := runs.settle(i.dir, lines.seen); err != nil {
		return nil, err
	}
	i.setBy = runs.setBy()
	if err := i.ledger.step(runs.made); err != nil {
		return nil, err
	}
	return i, checkClaims(installStep(set), i.dir, i.ledger.last)
}

// withTail are lines of an output, and its end, in which a scriptlet may have said
// why.
func withTail(lines []string, output string) string {
	end := tail(output)
	for i, l := range lines {
		if !strings.Contains(end, l) {
			return strings.Join(lines[:i+1], "\n") + "\n[...]\n" + end
		}
	}
	return end
}

func newInstalled(set, dir string) *installed {
	return &installed{set: set, dir: dir, inputOf: map[*rootfs.Package]string{}, ledger: newLedger(dir), asked: map[string]asked{}}
}

// makeDir makes a folder with mode 0755 whatever the umask is.
func makeDir(dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	return os.Chmod(dir, 0o755)
}

// makeDirs makes the folders of rel that are missing below base, and returns
// them.
func makeDirs(base, rel string) ([]string, error) {
	var made []string
	at := ""
	for part := range strings.SplitSeq(rel, "/") {
		at = path.Join(at, part)
		switch err := makeDir(filepath.Join(base, at)); {
		case err == nil:
			made = append(made, at)
		case !errors.Is(err, os.ErrExist):
			return nil, err
		}
	}
	return made, nil
}

// header reads what a package's header says of its files.
func (b *builder) header(in *lock.Input) (*rootfs.Package, error) {
	return b.readPackage(in, func(*rootfs.Package, *bufio.Reader) error { return nil })
}

// toInstall reads what a package says of its files, the SHA-256 of each
// included. A pipe in a package is refused: rpm 4.18 waits for its other end
// for ever.
func (b *builder) toInstall(in *lock.Input) (*rootfs.Package, error) {
	p, err := b.readPackage(in, func(p *rootfs.Package, payload *bufio.Reader) error {
		if p.Hashed() {
			return nil
		}
		return p.HashPayload(payload)
	})
	if err != nil {
		return nil, err
	}
	for _, f := range p.Files {
		if f.IsFIFO() {
			return nil, fmt.Errorf("%s: %s is a pipe, on which rpm would wait for ever; exclude the package", ref(in), f.Path)
		}
	}
	return p, nil
}

// readPackage reads a package's header, and lets more read on in its payload.
func (b *builder) readPackage(in *lock.Input, more func(p *rootfs.Package, payload *bufio.Reader) error) (*rootfs.Package, error) {
	r, err := b.open(in)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	br := bufio.NewReader(r)
	p, err := rootfs.ReadPackage(br)
	if err == nil {
		err = more(p, br)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ref(in), err)
	}
	p.NEVRA = in.Name
	return p, nil
}

// finishRoot lays over the root what the steps and the overlays bring, sets
// its services, and reads it.
func (b *builder) finishRoot(ctx context.Context, root *installed) error {
	for _, name := range b.image.Overlay {
		in := b.Lock.Find(lock.KindTree, name)
		if err := b.layOverlay(root, in); err != nil {
			return err
		}
	}
	if err := place(root, b.out, func(p string) origin { return b.made[p] }); err != nil {
		return err
	}
	if err := root.ledger.know(); err != nil {
		return err
	}
	if err := b.setServices(ctx, root); err != nil {
		return err
	}
	return b.readRoot(ctx, root)
}

// layOverlay lays an overlay over the root.
func (b *builder) layOverlay(root *installed, in *lock.Input) error {
	tmp := filepath.Join(b.work, "overlay-"+strings.ReplaceAll(in.Name, "/", "-"))
	wanted, err := b.unpackOwned(in, tmp)
	if err != nil {
		return err
	}
	how := origin{account: Placed, inputs: []string{ref(in)}, by: "overlay"}
	if err := place(root, tmp, func(string) origin { return how }); err != nil {
		return err
	}
	return root.ask(wanted, how)
}

// readRoot reads the root's folder and writes the lock's settings into it.
func (b *builder) readRoot(ctx context.Context, root *installed) error {
	if err := b.scan(ctx, root, rootfs.Rules(false)); err != nil {
		return err
	}
	if err := b.applySettings(root); err != nil {
		return err
	}
	if err := root.giveAsked(); err != nil {
		return err
	}
	if err := root.checkPasswords(b.image.Settings); err != nil {
		return err
	}
	if err := root.addState(b.image.IsArchive()); err != nil {
		return err
	}
	if b.image.IsArchive() { // who unpacks it labels by a policy of his own
		return nil
	}
	return root.label()
}

// setServices runs the root's own systemctl.
func (b *builder) setServices(ctx context.Context, root *installed) error {
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
	return root.ledger.step(generated("services"))
}

// scan reads a root's folder, gives every entry its owner and normalises it.
func (b *builder) scan(ctx context.Context, i *installed, rules []rootfs.Rule) error {
	t, err := rootfs.Scan(ctx, i.dir)
	if err != nil {
		return err
	}
	i.tree = t
	if i.set == lock.SetRoot {
		if err := b.setUsers(i); err != nil {
			return err
		}
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
	i.ownPlaced(t)
	for _, d := range excluded {
		for _, c := range i.claims[d] {
			if e := t.Get(d); e != nil && e.Is(c.File.Mode&unix.S_IFMT) {
				e.Mode = c.File.Mode
			}
		}
	}
	var used []string
	for _, r := range t.Normalise(rules, i.isPlaced) {
		used = append(used, fmt.Sprintf("/%s: %s", r.Match, r.Reason))
	}
	b.log.Append("normalise "+i.set, strings.Join(used, "\n"))
	return nil
}

// isPlaced tells whether a file is one that a step or an overlay brought.
func (i *installed) isPlaced(p string) bool {
	a := i.ledger.by[p].account
	return a == Placed || a == Compiled
}

// ownPlaced gives what a step or an overlay brought to 0:0, whatever a
// package says of a file of that name, unless a program said otherwise since.
func (i *installed) ownPlaced(t *rootfs.Tree) {
	for _, e := range t.Entries() {
		if !i.isPlaced(e.Path) {
			continue
		}
		e.UID, e.GID, e.Xattrs = 0, 0, nil
		if r, ok := i.seen[sandbox.FileID{Dev: e.Dev, Ino: e.Ino}]; ok {
			if r.UID != nil {
				e.UID = *r.UID
			}
			if r.GID != nil {
				e.GID = *r.GID
			}
			e.Xattrs = r.Xattrs
		}
	}
}

// normalised is how what is written into the tree itself came to be.
var normalised = origin{account: Generated, by: "normalise"}

// put writes into the tree at p and enters in the ledger how: of p, and of the
// folders above that were missing.
func (i *installed) put(p string, how origin, write func() error) error {
	i.ledger.set(p, how)
	for d := path.Dir(p); d != "." && i.tree.Get(d) == nil; d = path.Dir(d) {
		i.ledger.set(d, how)
	}
	return write()
}

func (i *installed) putFile(p string, perm uint32, content []byte) error {
	return i.put(p, normalised, func() error { return i.tree.PutFile(p, perm, content) })
}

func (i *installed) putLink(p, target string) error {
	return i.put(p, normalised, func() error { return i.tree.PutLink(p, target) })
}

// putDir adds a folder unless it is there.
func (i *installed) putDir(p string, perm uint32) error {
	if e := i.tree.Get(p); e != nil && e.Is(unix.S_IFDIR) {
		return nil
	}
	return i.put(p, normalised, func() error { return i.tree.PutDir(p, perm) })
}

// addState adds the files by which systemd knows a prepared image: an empty
// machine-id, so that each machine gets its own at boot and it is no first
// boot, and the marks that /etc and /var are as new as /usr. An archive without
// systemd is left as it is.
func (i *installed) addState(archive bool) error {
	if archive && i.tree.Resolve("usr/lib/systemd/systemd") == nil {
		return nil // whatever runs a container mounts what it needs
	}
	if err := i.putFile("etc/machine-id", 0o444, nil); err != nil {
		return err
	}
	for _, p := range []string{"etc/.updated", "var/.updated"} {
		if err := i.putFile(p, 0o644, nil); err != nil {
			return err
		}
	}
	for _, d := range []string{"dev", "proc", "sys", "run"} {
		if err := i.putDir(d, 0o755); err != nil {
			return err
		}
	}
	return nil
}
