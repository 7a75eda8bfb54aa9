package cas

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"caisson/lock/digest"
)

// maxNote is how long a note may be, in bytes.
const maxNote = 64 << 10

// Lookup returns the digest that was last remembered under key, in the
// uppermost layer that knows it. It does not tell whether the store has the
// file.
func (s *Store) Lookup(key string) (digest.Digest, bool) {
	d, _, ok := s.LookupNote(key)
	return d, ok
}

// LookupNote is Lookup with the note that RememberNote was given.
func (s *Store) LookupNote(key string) (d digest.Digest, note string, ok bool) {
	if d, note, ok := readIndex(s.indexPath(key)); ok {
		return d, note, true
	}
	for _, l := range s.lower {
		if d, note, ok := l.LookupNote(key); ok {
			return d, note, true
		}
	}
	return digest.Digest{}, "", false
}

// readIndex reads an entry: a line with the digest, and perhaps a second one
// with the note.
func readIndex(path string) (digest.Digest, string, bool) {
	b, err := os.ReadFile(path)
	if err != nil {
		return digest.Digest{}, "", false
	}
	text, ok := strings.CutSuffix(string(b), "\n")
	if !ok {
		return digest.Digest{}, "", false
	}
	line, note, _ := strings.Cut(text, "\n")
	d, err := digest.Parse(line)
	return d, note, err == nil && !d.IsZero()
}

// Remember keeps d under key, for other processes and later runs. The key
// itself is not written, only its digest: it may hold what is secret. An
// entry that a loss of power tears reads as one that is absent.
func (s *Store) Remember(key string, d digest.Digest) error { return s.RememberNote(key, d, "") }

// RememberNote is Remember, with a line of text that is kept as long as the
// entry is: until the file is collected.
func (s *Store) RememberNote(key string, d digest.Digest, note string) error {
	if d.IsZero() {
		return errors.New("remembering an unknown digest")
	}
	if len(note) > maxNote || strings.Contains(note, "\n") {
		return fmt.Errorf("remembering a note of %d bytes: want one line of at most %d", len(note), maxNote)
	}
	entry := d.String() + "\n"
	if note != "" {
		entry += note + "\n"
	}
	t, err := s.Create()
	if err != nil {
		return err
	}
	defer t.Discard()
	if _, err := t.Write([]byte(entry)); err != nil {
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
