package cas

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"caisson/lock/digest"
)

// Lookup returns the digest that was last remembered under key, in the
// uppermost layer that knows it. It does not tell whether the store has the
// file.
func (s *Store) Lookup(key string) (digest.Digest, bool) {
	if d, ok := readIndex(s.indexPath(key)); ok {
		return d, true
	}
	for _, l := range s.lower {
		if d, ok := l.Lookup(key); ok {
			return d, true
		}
	}
	return digest.Digest{}, false
}

func readIndex(path string) (digest.Digest, bool) {
	b, err := os.ReadFile(path)
	if err != nil {
		return digest.Digest{}, false
	}
	line, ok := bytes.CutSuffix(b, []byte("\n"))
	if !ok {
		return digest.Digest{}, false
	}
	d, err := digest.Parse(string(line))
	return d, err == nil && !d.IsZero()
}

// Remember keeps d under key, for other processes and later runs. The key
// itself is not written, only its digest: it may hold what is secret. An
// entry that a loss of power tears reads as one that is absent.
func (s *Store) Remember(key string, d digest.Digest) error {
	if d.IsZero() {
		return errors.New("remembering an unknown digest")
	}
	t, err := s.Create()
	if err != nil {
		return err
	}
	defer t.Discard()
	if _, err := t.Write([]byte(d.String() + "\n")); err != nil {
		return fmt.Errorf("writing to the store: %w", err)
	}
	path := s.indexPath(key)
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return fmt.Errorf("writing to the store: %w", err)
	}
	if err := t.f.Chmod(0o644); err != nil {
		return fmt.Errorf("writing to the store: %w", err)
	}
	if err := os.Rename(t.path, path); err != nil {
		return fmt.Errorf("writing to the store: %w", err)
	}
	t.done = true
	return t.f.Close()
}

func (s *Store) indexPath(key string) string {
	h := digest.Of([]byte(key)).Hex()
	return filepath.Join(s.dir, "index", h[:2], h)
}
