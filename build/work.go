package build

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"caisson/lock"
	"caisson/lock/digest"
)

// Working folders lie in the output folder, so that their files can be
// renamed to their final names. One that is in use is locked (flock) by its
// build; one that is not is what a killed build left, and the next removes it.
// A folder that was to be kept has another name.
const (
	workPrefix = ".build-"
	keptPrefix = "failed-"
)

// workDir is a locked working folder.
type workDir struct {
	path string
	lock *os.File
}

// newWorkDir makes a working folder in out, and removes those of killed builds.
func newWorkDir(out string) (*workDir, error) {
	removeStale(out)
	for {
		dir, err := os.MkdirTemp(out, workPrefix)
		if err != nil {
			return nil, err
		}
		w := &workDir{path: dir}
		ours, err := w.claim()
		if err != nil {
			return nil, errors.Join(err, os.Remove(dir))
		}
		if ours {
			return w, nil
		}
	}
}

// claim locks a new folder. It is false where a build that looked for stale
// ones came in between and has removed it.
func (w *workDir) claim() (bool, error) {
	f, err := os.Open(w.path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	var st unix.Stat_t
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
	if err == nil {
		err = unix.Fstat(int(f.Fd()), &st)
	}
	if err != nil || st.Nlink == 0 {
		f.Close()
		if err != nil {
			err = fmt.Errorf("locking %s: %w", w.path, err)
		}
		return false, err
	}
	w.lock = f
	return true, nil
}

// removeRoots removes the folders of the working folder once the disk has been
// written from them, beside what is still done: the last of a build would else
// be to wait for it. Who keeps what fails keeps them to the end.
func (b *builder) removeRoots(ctx context.Context) error {
	if b.Keep {
		return nil
	}
	entries, err := os.ReadDir(b.work)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return err
		}
		if e.IsDir() {
			if err := removeAll(filepath.Join(b.work, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// remove removes the folder and all that is in it.
func (w *workDir) remove() error {
	defer w.lock.Close()
	return removeAll(w.path)
}

// keep gives the folder a name under which no other build removes it.
func (w *workDir) keep() (string, error) {
	defer w.lock.Close()
	dir, name := filepath.Split(w.path)
	kept := filepath.Join(dir, keptPrefix+strings.TrimPrefix(name, workPrefix))
	return kept, os.Rename(w.path, kept)
}

// removeStale removes the working folders that nobody has locked. That it
// cannot is no error: they only take room.
func removeStale(out string) {
	entries, err := os.ReadDir(out)
	if err != nil {
		return
	}
	for _, e := range entries {
		number, ok := strings.CutPrefix(e.Name(), workPrefix)
		if !ok || !e.IsDir() || strings.Trim(number, "0123456789") != "" {
			continue
		}
		dir := filepath.Join(out, e.Name())
		f, err := os.Open(dir)
		if err != nil {
			continue
		}
		if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			_ = removeAll(dir)
		}
		f.Close()
	}
}

// removeAll removes a tree whose folders may be closed to their owner: the
// files of several folders at a time, then the folders. What the first pass
// could not remove, the second meets again.
func removeAll(dir string) error {
	var g errgroup.Group
	g.SetLimit(2 * runtime.GOMAXPROCS(0)) //nolint:forbidigo // it changes no bytes
	_ = filepath.WalkDir(dir, func(p string, d os.DirEntry, _ error) error {
		if d != nil && d.IsDir() {
			g.Go(func() error { return removeFiles(p) })
		}
		return nil
	})
	_ = g.Wait()
	err := os.RemoveAll(dir)
	if err == nil || !errors.Is(err, os.ErrPermission) {
		return err
	}
	_ = filepath.WalkDir(dir, func(p string, d os.DirEntry, _ error) error {
		if d != nil && d.IsDir() {
			_ = os.Chmod(p, 0o700)
		}
		return nil
	})
	return os.RemoveAll(dir)
}

// removeFiles removes what is in a folder and is none.
func removeFiles(dir string) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if !e.IsDir() {
			err = errors.Join(err, os.Remove(filepath.Join(dir, e.Name())))
		}
	}
	return err
}

// descriptions are the files of an output folder that say something of its
// image and that later stages write, image.json first: with it goes the mark
// of a finished build.
var descriptions = []string{
	"image.json", "measurements.json", "report.json", "report.html", "sbom.spdx.json",
	"statements/sbom", "statements/provenance", "statements/test-result", "statements/vsa", "statements/reference-values",
}

// publish writes the build's own descriptions and gives all results their
// final names.
func (b *builder) publish(ctx context.Context, img *Image, files []File, ev *Evidence) error {
	for name, v := range map[string]any{"files.json": files, "evidence.json": ev} {
		if err := writeJSON(filepath.Join(b.work, name), v); err != nil {
			return err
		}
	}
	if err := b.log.Close(); err != nil {
		return err
	}
	for _, name := range []string{"files.json", "evidence.json", "build.log"} {
		out, err := describe(filepath.Join(b.work, name))
		if err != nil {
			return err
		}
		img.Files = append(img.Files, out)
	}
	return b.giveNames(ctx, img)
}

// removeDescriptions removes what an earlier build of this image left and
// this one does not replace.
func (b *builder) removeDescriptions(img *Image) error {
	names := describing()
	for _, output := range lock.Outputs() {
		names = append(names, OutputFiles(b.imageName(), output)...)
	}
	return removeOld(b.Out, slices.DeleteFunc(names, func(name string) bool {
		return slices.ContainsFunc(img.Files, func(f Output) bool { return f.Name == name })
	}))
}

// describing are the names of the files that say something of an image.
func describing() []string {
	var names []string
	for _, name := range descriptions {
		if strings.HasPrefix(name, "statements/") {
			names = append(names, name+".json", name+".sigstore.json")
		} else {
			names = append(names, name)
		}
	}
	return names
}

func removeOld(dir string, names []string) error {
	for _, name := range names {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("removing what an earlier build left: %w", err)
		}
	}
	return nil
}

func writeJSON(name string, v any) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	enc := json.NewEncoder(f)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	return f.Close()
}

// describe is a file of the output folder by name, size and digest.
func describe(name string) (Output, error) {
	f, err := os.Open(name)
	if err != nil {
		return Output{}, err
	}
	defer f.Close()
	d, n, err := digest.Reader(f)
	return Output{Name: filepath.Base(name), Size: n, SHA256: d}, err
}

// stepLog is build.log: what every step printed. Steps run beside each other,
// so they come in the order of their names, as in evidence.json: the log, too,
// is the same in every build.
type stepLog struct {
	mu    sync.Mutex
	f     *os.File
	steps map[string]string
}

func newStepLog(name string) (*stepLog, error) {
	f, err := os.Create(name)
	return &stepLog{f: f, steps: map[string]string{}}, err
}

// Append keeps a step's output under its name.
func (l *stepLog) Append(step, output string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if output != "" && !strings.HasSuffix(output, "\n") {
		output += "\n"
	}
	l.steps[step] += output
}

// text is what was appended under a name.
func (l *stepLog) text(step string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.steps[step]
}

// Close writes the log. Closing it again is no error.
func (l *stepLog) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f == nil {
		return nil
	}
	var err error
	for _, step := range slices.Sorted(maps.Keys(l.steps)) {
		if err == nil {
			_, err = io.WriteString(l.f, "== "+step+"\n"+l.steps[step])
		}
	}
	if closeErr := l.f.Close(); err == nil {
		err = closeErr
	}
	l.f = nil
	return err
}
