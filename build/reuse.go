package build

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"caisson/build/sandbox"
	"caisson/lock"
)

// What a step made is kept in the store as a tar archive, remembered under the
// step's key: all that its bytes can depend on. The archive begins with the
// step's record; the files follow below resultDir. A collection of the store
// removes it as anything that no lock names.
const (
	resultRecord = "record.json"
	resultDir    = "out"
)

// reusable is a step whose result can be taken from an earlier build.
type reusable struct {
	name   string // the step's
	inputs []*lock.Input
	dir    string // what the step leaves in it is its result; empty before
}

// stepRecord is what is kept beside a step's files.
type stepRecord struct {
	Evidence sandbox.Evidence `json:"evidence"`
	Printed  string           `json:"printed"`
}

// errNotKept says that a result has something that an archive would not keep as
// it is.
var errNotKept = errors.New("not to be kept")

// orReuse has a step made, or takes what an earlier build kept of the same one
// where Options ask for that. What cannot be taken is made, and what cannot be
// kept is not: neither is an error.
func (b *builder) orReuse(n int, s lock.Step, r reusable, run func() error) error {
	if b.Reuse == "" {
		return run()
	}
	key, err := b.stepKey(n, s, r.inputs)
	if err != nil {
		return err
	}
	if b.recall(key, r) == nil {
		return nil
	}
	if err := errors.Join(removeAll(r.dir), makeDir(r.dir)); err != nil { // what was taken until it failed
		return err
	}
	if err := run(); err != nil {
		return err
	}
	if err := b.keepResult(key, r); err != nil && !errors.Is(err, errNotKept) {
		b.log.Append(r.name, fmt.Sprintf("its result could not be kept: %v", err))
	}
	return nil
}

// stepKey is a digest of all that a step's result depends on: the program that
// runs it, the tools, the step, what it is given, and the settings of the lock.
func (b *builder) stepKey(n int, s lock.Step, inputs []*lock.Input) (string, error) {
	digests := func(inputs []*lock.Input) []string {
		out := make([]string, len(inputs))
		for i, in := range inputs {
			out[i] = in.SHA256.String() + " " + ref(in)
		}
		slices.Sort(out)
		return out
	}
	key, err := json.Marshal(struct {
		Program, Name, Arch string
		Revision            int
		Epoch               int64
		RecordNetwork       bool
		Step                lock.Step
		Tools, Inputs       []string
	}{
		b.Reuse, StepName(n, s), b.Arch, b.Lock.Revision, b.Lock.Epoch, b.Lock.RecordNetwork, s,
		digests(b.of(lock.SetTools)), digests(inputs),
	})
	return fmt.Sprintf("step %x", sha256.Sum256(key)), err
}

// recall puts a kept result into the step's folder, and its record among this
// build's.
func (b *builder) recall(key string, r reusable) error {
	d, ok := b.Store.Lookup(key)
	if !ok {
		return fs.ErrNotExist
	}
	f, err := b.Store.Open(d)
	if err != nil {
		return err
	}
	defer f.Close()
	rec, err := unpackResult(f, r.dir)
	if err != nil {
		return err
	}
	if rec.Evidence.Step != r.name {
		return fmt.Errorf("%s is of the step %q, not of %q", d, rec.Evidence.Step, r.name)
	}
	b.log.Append(r.name, rec.Printed)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.steps[r.name] = rec.Evidence
	b.reused[r.name] = true
	for _, in := range r.inputs {
		b.given[in], b.givenThen[in] = true, true
	}
	return nil
}

// unpackResult reads an archive to its end, where the store says whether it is
// sound.
func unpackResult(r io.Reader, dir string) (*stepRecord, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	tr := tar.NewReader(r)
	h, err := tr.Next()
	if err != nil {
		return nil, err
	}
	var rec stepRecord
	if h.Name != resultRecord {
		return nil, fmt.Errorf("%q comes first, want %s", h.Name, resultRecord)
	}
	if err := json.NewDecoder(tr).Decode(&rec); err != nil {
		return nil, err
	}
	var closed []*tar.Header // folders get their modes when they are full
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = unpackOne(root, h, tr)
		}
		if err != nil {
			return nil, err
		}
		if h.Typeflag == tar.TypeDir {
			closed = append(closed, h)
		}
	}
	for _, h := range slices.Backward(closed) {
		if err := root.Chmod(resultName(h), h.FileInfo().Mode()&modeBits); err != nil {
			return nil, err
		}
	}
	_, err = io.Copy(io.Discard, r)
	return &rec, err
}

// resultName is where in the step's folder an entry belongs.
func resultName(h *tar.Header) string {
	return strings.TrimSuffix(strings.TrimPrefix(h.Name, resultDir+"/"), "/")
}

func unpackOne(root *os.Root, h *tar.Header, r io.Reader) error {
	name := resultName(h)
	switch h.Typeflag {
	case tar.TypeDir:
		return root.Mkdir(name, 0o700)
	case tar.TypeSymlink:
		return root.Symlink(h.Linkname, name)
	case tar.TypeLink:
		return root.Link(h.Linkname, name)
	}
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Chmod(h.FileInfo().Mode()&modeBits), f.Close())
}

// keepResult writes a step's result to the store.
func (b *builder) keepResult(key string, r reusable) error {
	b.mu.Lock()
	ev, ok := b.steps[r.name]
	b.mu.Unlock()
	if !ok {
		return fmt.Errorf("%s left no record", r.name)
	}
	rec, err := json.Marshal(stepRecord{Evidence: ev, Printed: b.log.text(r.name)})
	if err != nil {
		return err
	}
	t, err := b.Store.Create()
	if err != nil {
		return err
	}
	defer t.Discard()
	tw := tar.NewWriter(t)
	h := &tar.Header{Name: resultRecord, Mode: 0o644, Size: int64(len(rec)), Format: tar.FormatPAX, ModTime: time.Unix(0, 0)}
	if err := tw.WriteHeader(h); err != nil {
		return err
	}
	if _, err := tw.Write(rec); err != nil {
		return err
	}
	if err := packResult(tw, r.dir); err != nil {
		return err
	}
	if err := tw.Close(); err != nil {
		return err
	}
	sum := t.Sum()
	if _, err := t.Commit(sum); err != nil {
		return err
	}
	return b.Store.Remember(key, sum)
}

// packResult writes all that is below dir: names, modes, contents, and which
// names are of the same file. Of what has more to it, it is errNotKept.
func packResult(tw *tar.Writer, dir string) error {
	first := map[uint64]string{} // by inode: the name that a file's contents were written under
	return filepath.WalkDir(dir, func(full string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, full)
		if err != nil || rel == "." {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(full, &st); err != nil {
			return err
		}
		if n, err := unix.Llistxattr(full, nil); err == nil && n > 0 {
			return fmt.Errorf("/%s has extended attributes: %w", rel, errNotKept)
		}
		info, err := os.Lstat(full)
		if err != nil {
			return err
		}
		link := ""
		if info.Mode().Type() == fs.ModeSymlink {
			if link, err = os.Readlink(full); err != nil {
				return err
			}
		} else if !info.IsDir() && !info.Mode().IsRegular() {
			return fmt.Errorf("/%s is a %s: %w", rel, info.Mode().Type(), errNotKept)
		}
		h, err := tar.FileInfoHeader(info, link)
		if err != nil {
			return err
		}
		*h = tar.Header{Typeflag: h.Typeflag, Name: resultDir + "/" + rel, Linkname: h.Linkname, Mode: h.Mode, Size: h.Size, Format: tar.FormatPAX, ModTime: time.Unix(0, 0)}
		if !info.Mode().IsRegular() {
			return tw.WriteHeader(h)
		}
		if name, ok := first[st.Ino]; ok {
			h.Typeflag, h.Linkname, h.Size = tar.TypeLink, name, 0
			return tw.WriteHeader(h)
		}
		first[st.Ino] = rel
		return packFile(tw, h, full)
	})
}

func packFile(tw *tar.Writer, h *tar.Header, full string) error {
	f, err := os.Open(full)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := tw.WriteHeader(h); err != nil {
		return err
	}
	_, err = io.Copy(tw, f)
	return err
}

// reusedSteps are the steps whose results were taken from an earlier build,
// sorted.
func (b *builder) reusedSteps() []string {
	var out []string
	for name := range b.reused {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}
