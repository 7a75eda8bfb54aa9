package view

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"caisson/lock/digest"
	"caisson/prefetch/cas"
)

// place is one folder of a view and what lies in it.
type place struct {
	name  string // relative to the view; "." is the view
	dirs  []string
	files []string // base names, as those of dirs
}

// places are the folders of the view, each after the one that it is in.
func (t *Tree) places() []place {
	all := map[string]*place{".": {name: "."}}
	var folder func(name string) *place
	folder = func(name string) *place {
		p := all[name]
		if p == nil {
			p = &place{name: name}
			all[name] = p
			above := folder(path.Dir(name))
			above.dirs = append(above.dirs, path.Base(name))
		}
		return p
	}
	for name := range t.entries {
		dir, base := path.Split(name)
		p := folder(path.Clean(dir))
		p.files = append(p.files, base)
	}
	for _, f := range t.folders {
		folder(path.Dir(f.name))
	}
	out := make([]place, 0, len(all))
	for _, p := range all {
		out = append(out, *p)
	}
	slices.SortFunc(out, func(a, b place) int { return strings.Compare(a.name, b.name) })
	return out
}

// reserve keeps the view's files in the store.
func (t *Tree) reserve() {
	digests := make([]digest.Digest, 0, len(t.entries))
	for _, e := range t.entries {
		if e.data == nil {
			digests = append(digests, e.digest)
		}
	}
	t.store.Reserve(digests)
}

const (
	// fillers is how many goroutines put files into a view: more would wait for
	// the file system's locks.
	fillers = 4
	// atOnce is how many files one of them takes.
	atOnce = 64
	// maxShared is the length of files, in bytes, that are one where they are
	// equal, as the .info of modules of one version: to link one costs less
	// than to make another.
	maxShared = 64
)

// filler writes a view.
type filler struct {
	tree  *Tree
	root  *os.File
	chmod bool     // modes are not what they are asked to be
	small sync.Map // of the bytes of small files to where one is
	mu    sync.Mutex
	stats Stats
}

// fill writes the view into an empty folder: the folders one after another,
// for a file system makes each below a locked one, and the files of those that
// are there meanwhile.
func (t *Tree) fill(ctx context.Context, root *os.File, places []place) (Stats, error) {
	w := &filler{tree: t, root: root, stats: Stats{Linked: make(map[cas.Linked]int)}}
	if err := w.mark(); err != nil {
		return Stats{}, err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(min(fillers, runtime.GOMAXPROCS(0)))
	todo, files := 0, 0 // of the places before i, those whose files nobody writes yet
	for i, p := range places {
		if gctx.Err() != nil {
			break
		}
		if err := w.mkdir(p.name); err != nil {
			return Stats{}, errors.Join(err, g.Wait())
		}
		if files += len(p.files); files < atOnce && i+1 < len(places) {
			continue
		}
		some := places[todo : i+1]
		todo, files = i+1, 0
		g.Go(func() error { return w.files(gctx, some) })
	}
	if err := errors.Join(g.Wait(), ctx.Err()); err != nil {
		return Stats{}, err
	}
	for _, f := range t.folders {
		n, err := f.fill(filepath.Join(root.Name(), f.name))
		if err != nil {
			return Stats{}, err
		}
		w.stats.Made += n
	}
	return w.stats, nil
}

// fill makes the folder and its files read-only, and returns their number.
func (f *folder) fill(dir string) (files int, err error) {
	if err := f.make(dir); err != nil {
		return 0, err
	}
	err = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		files++
		return os.Chmod(p, 0o444)
	})
	return files, err
}

// mark writes the marker, and finds out by it whether the umask or a default
// access control list takes bits away from modes.
func (w *filler) mark() error {
	const all = 0o755 // of folders; files have none that these lack
	if err := w.write(marker, []byte(markerText), all); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstatat(int(w.root.Fd()), marker, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return w.fault("stat", marker, err)
	}
	w.chmod = st.Mode&0o777 != all
	return w.mode(marker, 0o444)
}

func (w *filler) mkdir(name string) error {
	if name == "." {
		return nil
	}
	if err := unix.Mkdirat(int(w.root.Fd()), name, 0o755); err != nil {
		return w.fault("mkdir", name, err)
	}
	if !w.chmod {
		return nil
	}
	return w.mode(name, 0o755)
}

// files puts folders' files into them.
func (w *filler) files(ctx context.Context, places []place) error {
	st := Stats{Linked: make(map[cas.Linked]int)}
	for _, p := range places {
		for _, base := range p.files {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := w.put(path.Join(p.name, base), &st); err != nil {
				return err
			}
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stats.add(st)
	return nil
}

func (w *filler) put(name string, st *Stats) error {
	e := w.tree.entries[name]
	if e.data != nil {
		st.Made++
		return w.made(name, e.data)
	}
	how, err := w.tree.store.Link(e.digest, w.root, name)
	if errors.As(err, new(*cas.MissingError)) {
		return &cas.MissingError{Digest: e.digest, Name: e.what}
	}
	st.Linked[how]++
	return err
}

// made writes a read-only file, or links one that has the same bytes.
func (w *filler) made(name string, b []byte) error {
	if len(b) > maxShared {
		return w.writeReadOnly(name, b)
	}
	if first, ok := w.small.Load(string(b)); ok {
		root := int(w.root.Fd())
		if unix.Linkat(root, first.(string), root, name, 0) == nil { // else it has too many names
			return nil
		}
	}
	err := w.writeReadOnly(name, b)
	if err == nil {
		w.small.Store(string(b), name)
	}
	return err
}

func (w *filler) writeReadOnly(name string, b []byte) error {
	if err := w.write(name, b, 0o444); err != nil || !w.chmod {
		return err
	}
	return w.mode(name, 0o444)
}

func (w *filler) write(name string, b []byte, mode uint32) error {
	fd, err := unix.Openat(int(w.root.Fd()), name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, mode)
	if err != nil {
		return w.fault("create", name, err)
	}
	for len(b) > 0 && err == nil {
		var n int
		if n, err = unix.Write(fd, b); err == nil {
			b = b[n:]
		} else if errors.Is(err, unix.EINTR) {
			err = nil
		}
	}
	if err = errors.Join(err, unix.Close(fd)); err != nil {
		return w.fault("write", name, err)
	}
	return nil
}

func (w *filler) mode(name string, mode uint32) error {
	if err := unix.Fchmodat(int(w.root.Fd()), name, mode, 0); err != nil {
		return w.fault("chmod", name, err)
	}
	return nil
}

func (w *filler) fault(op, name string, err error) error {
	return &os.PathError{Op: op, Path: filepath.Join(w.root.Name(), name), Err: err}
}

// add adds numbers of files.
func (s *Stats) add(o Stats) {
	s.Made += o.Made
	for how, n := range o.Linked {
		s.Linked[how] += n
	}
}
