package cas

import (
	"os"
	"path/filepath"
	"testing"
)

func TestDirOfADeadProcessIsRemoved(t *testing.T) {
	root := t.TempDir()
	s, err := Open(root)
	if err != nil {
		t.Fatal(err)
	}
	mine, remove, err := s.CreateDir()
	if err != nil {
		t.Fatal(err)
	}
	stale := filepath.Join(root, "tmp", "0123"+dirSuffix)
	for _, d := range []string{filepath.Join(mine, "sub"), filepath.Join(stale, "sub"), filepath.Join(root, "tmp", "4567"+dirSuffix)} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "tmp", "0123"), nil, 0o600); err != nil { // nobody has locked it
		t.Fatal(err)
	}
	if _, err := Open(root); err != nil {
		t.Fatal(err)
	}
	left, err := filepath.Glob(filepath.Join(root, "tmp", "*"))
	if err != nil || len(left) != 2 {
		t.Errorf("got %v, %v; want what is in use: %s and its file", left, err, mine)
	}
	remove()
	if left, _ := filepath.Glob(filepath.Join(root, "tmp", "*")); len(left) != 0 {
		t.Errorf("%v is left", left)
	}
}
