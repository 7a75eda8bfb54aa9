package cas

import (
	"crypto/sha256"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"caisson/lock/digest"
)

// partialKept is how long a transfer that nobody goes on with is kept.
const partialKept = 7 * 24 * time.Hour

// validatorSuffix is what the name of a kept transfer's validator ends in.
const validatorSuffix = ".validator"

// maxValidator is the longest validator that is kept, in bytes.
const maxValidator = 4 << 10

// partialPath is where a transfer is kept: by what it has to become and where
// it comes from. The address itself is not written, it may hold what is secret.
func (s *Store) partialPath(want digest.Digest, from string) string {
	return filepath.Join(s.dir, "partial", want.Hex()+"-"+digest.Of([]byte(from)).Hex()[:32])
}

// Keep makes what is written, now and later, survive the process: Resume with
// the same want and from goes on with it. The validator is what the server
// calls this version of the file; without one nothing is kept. Where nothing
// can be kept, or somebody else keeps the same, the file stays what it was:
// that is no error.
func (t *Temp) Keep(want digest.Digest, from, validator string) {
	if t.done || t.kept || validator == "" || len(validator) > maxValidator || strings.Contains(validator, "\n") {
		return
	}
	path := t.s.partialPath(want, from)
	if os.MkdirAll(filepath.Dir(path), 0o777) != nil {
		return
	}
	// Not a rename: it would replace what another process keeps.
	if os.Link(t.path, path) != nil {
		return
	}
	os.Remove(t.path)
	t.path, t.kept = path, true
	if os.WriteFile(path+validatorSuffix, []byte(validator+"\n"), 0o600) != nil {
		os.Remove(path + validatorSuffix)
	}
}

// Resume makes an empty file one that was kept, and returns its validator, or
// "" where there is none that can be gone on with. All bytes of it are hashed.
func (t *Temp) Resume(want digest.Digest, from string) (validator string) {
	if t.done || t.kept || t.size > 0 {
		return ""
	}
	path := t.s.partialPath(want, from)
	b, err := os.ReadFile(path + validatorSuffix)
	validator, whole := strings.CutSuffix(string(b), "\n")
	if err != nil || !whole || validator == "" {
		return ""
	}
	f := lockNamed(path, os.O_RDWR)
	if f == nil {
		return ""
	}
	h := sha256.New()
	n, err := io.Copy(h, f)
	if err != nil || n == 0 {
		f.Close()
		return ""
	}
	os.Remove(t.path)
	t.f.Close()
	t.f, t.path, t.h, t.size, t.kept = f, path, h, n, true
	return validator
}

// unkeep gives a kept file a temporary name again.
func (t *Temp) unkeep() error {
	if !t.kept {
		return nil
	}
	os.Remove(t.path + validatorSuffix)
	path := newName(filepath.Join(t.s.dir, "tmp"))
	if err := os.Rename(t.path, path); err != nil {
		return err
	}
	t.path, t.kept = path, false
	return nil
}

// lockNamed opens a file and locks it; nil where that cannot be done now. Who
// renames or removes such a file holds its lock: one that was locked and still
// has its name is nobody else's.
func lockNamed(path string, mode int) *os.File {
	f, err := os.OpenFile(path, mode|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil
	}
	if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
		mine, err := f.Stat()
		named, e := os.Lstat(path)
		if err == nil && e == nil && mine.Mode().IsRegular() && os.SameFile(mine, named) {
			return f
		}
	}
	f.Close()
	return nil
}

// removeStalePartials removes the kept transfers that are too old, or that
// have no validator, and validators without one.
func (s *Store) removeStalePartials() {
	for _, p := range s.partials() {
		_, err := os.Lstat(p.path + validatorSuffix)
		if err != nil || p.readOnly || time.Since(p.modTime) > partialKept {
			removePartial(p.path)
		}
	}
}

// partial is a kept transfer, or a validator that is left of one.
type partial struct {
	path    string // without the validator's suffix
	want    string // hex
	size    int64
	modTime time.Time
	// readOnly: it was killed in Commit, and is not written to any more.
	readOnly bool
}

// partials lists what is kept.
func (s *Store) partials() []partial {
	dir := filepath.Join(s.dir, "partial")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var out []partial
	for _, e := range entries {
		name, side := strings.CutSuffix(e.Name(), validatorSuffix)
		path := filepath.Join(dir, name)
		if side {
			if _, err := os.Lstat(path); err != nil {
				os.Remove(path + validatorSuffix)
			}
			continue
		}
		fi, err := e.Info()
		if err != nil {
			continue
		}
		want, _, _ := strings.Cut(name, "-")
		out = append(out, partial{path, want, fi.Size(), fi.ModTime(), fi.Mode()&0o200 == 0})
	}
	return out
}

// removePartial removes a kept transfer that nobody is at.
func removePartial(path string) bool {
	f := lockNamed(path, os.O_RDONLY)
	if f == nil {
		return false
	}
	defer f.Close()
	os.Remove(path + validatorSuffix)
	return os.Remove(path) == nil
}
