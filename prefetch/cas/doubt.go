package cas

import (
	"os"
	"path/filepath"

	"caisson/lock/digest"
)

// doubtPath is the mark of a file that was found damaged.
func (s *Store) doubtPath(d digest.Digest) string {
	return filepath.Join(s.dir, "damaged", d.Hex())
}

// Doubted tells whether somebody has read the file of that digest since it was
// put there, and found it damaged: to look at its size will not do.
func (s *Store) Doubted(d digest.Digest) bool {
	_, err := os.Lstat(s.doubtPath(d))
	return err == nil
}

// doubt marks a file as damaged. Where nothing can be written it stays
// unmarked: who reads it finds out again.
func (s *Store) doubt(d digest.Digest) {
	path := s.doubtPath(d)
	if os.MkdirAll(filepath.Dir(path), 0o777) == nil {
		_ = os.WriteFile(path, nil, 0o644)
	}
}

// trust takes the mark away, where there is one.
func (s *Store) trust(d digest.Digest) {
	if s.Doubted(d) {
		os.Remove(s.doubtPath(d))
	}
}

// removeDoubts removes the marks of files that no layer has.
func (s *Store) removeDoubts() {
	entries, err := os.ReadDir(filepath.Join(s.dir, "damaged"))
	if err != nil {
		return
	}
	for _, e := range entries {
		d, err := digest.ParseHex(e.Name())
		if err == nil {
			if _, _, there := s.find(d); there {
				continue
			}
		}
		os.Remove(filepath.Join(s.dir, "damaged", e.Name()))
	}
}
