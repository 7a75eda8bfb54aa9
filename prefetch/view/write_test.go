package view

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"caisson/lock"
	"caisson/lock/digest"
	"caisson/prefetch/cas"
)

func sample(t *testing.T, s *cas.Store, content string) *Tree {
	t.Helper()
	tree := New(s)
	in := &lock.Input{Kind: lock.KindFile, Name: "x", SHA256: put(t, s, []byte(content))}
	if err := tree.Link("a/b/linked", in); err != nil {
		t.Fatal(err)
	}
	if err := tree.File(".hidden", []byte("made "+content)); err != nil {
		t.Fatal(err)
	}
	return tree
}

// left is what is beside the view.
func left(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(dir))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return strings.Join(names, " ")
}

func TestWrite(t *testing.T) {
	s := newStore(t)
	dir := filepath.Join(t.TempDir(), "sub", "view")
	st, err := sample(t, s, "one").Write(t.Context(), dir)
	if err != nil || st.Linked[cas.HardLink] != 1 || st.Made != 1 {
		t.Fatalf("%+v, %v", st, err)
	}
	a, err := os.Stat(dir + "/a/b/linked")
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.Stat(s.Path(digest.Of([]byte("one"))))
	if err != nil {
		t.Fatal(err)
	}
	if !os.SameFile(a, b) || a.Mode() != 0o444 {
		t.Errorf("not the store's file, or not read-only: %v", a.Mode())
	}
	one := listing(t, dir)
	if _, err := sample(t, s, "one").Write(t.Context(), dir); err != nil || listing(t, dir) != one {
		t.Errorf("again: %v\n%s", err, listing(t, dir))
	}
	// Another one in its place, with what somebody put into it gone.
	if err := os.WriteFile(dir+"/a/more", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir+"/a", 0o555); err != nil { //nolint:gosec // a folder
		t.Fatal(err)
	}
	if _, err := sample(t, s, "two").Write(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	if got := listing(t, dir); got == one || strings.Contains(got, "more") {
		t.Errorf("got\n%s", got)
	}
	if got := left(t, dir); got != "view" {
		t.Errorf("left: %s", got)
	}
	if err := s.Verify(digest.Of([]byte("one"))); err != nil {
		t.Error(err)
	}
}

func TestWriteForeign(t *testing.T) {
	s := newStore(t)
	dir := filepath.Join(t.TempDir(), "view")
	if err := os.Mkdir(dir, 0o755); err != nil { //nolint:gosec // a folder
		t.Fatal(err)
	}
	if _, err := sample(t, s, "x").Write(t.Context(), dir); err != nil {
		t.Errorf("an empty folder: %v", err)
	}
	other := filepath.Join(t.TempDir(), "other")
	if err := os.MkdirAll(other+"/deps", 0o755); err != nil { //nolint:gosec // a folder
		t.Fatal(err)
	}
	var foreign *ForeignError
	if _, err := sample(t, s, "x").Write(t.Context(), other); !errors.As(err, &foreign) {
		t.Errorf("a foreign folder: %v", err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := sample(t, s, "x").Write(t.Context(), file); err == nil {
		t.Error("a file was replaced")
	}
}

// TestWriteFails leaves the view that was there, and nothing beside it.
func TestWriteFails(t *testing.T) {
	s := newStore(t)
	dir := filepath.Join(t.TempDir(), "view")
	if _, err := sample(t, s, "one").Write(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	before := listing(t, dir)
	tree := sample(t, s, "two")
	if err := tree.Link("missing", &lock.Input{Kind: lock.KindFile, Name: "lost", SHA256: digest.Of([]byte("lost"))}); err != nil {
		t.Fatal(err)
	}
	var m *cas.MissingError
	if _, err := tree.Write(t.Context(), dir); !errors.As(err, &m) || m.Name != "file lost" {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := sample(t, s, "two").Write(ctx, dir); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if got := listing(t, dir); got != before || left(t, dir) != "view" {
		t.Errorf("got\n%s\nleft: %s", got, left(t, dir))
	}
	// One that was killed is removed by the next.
	if err := os.Mkdir(filepath.Dir(dir)+"/.view"+tempMark+"1", 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := sample(t, s, "two").Write(t.Context(), dir); err != nil || left(t, dir) != "view" {
		t.Errorf("%v, left: %s", err, left(t, dir))
	}
}

// TestWriteMountPoint replaces entries where the folder itself cannot be.
func TestWriteMountPoint(t *testing.T) {
	s := newStore(t)
	dir := t.TempDir()
	if err := syscall.Mount("none", dir, "tmpfs", 0, ""); err != nil {
		missing(t, "no mounts: "+err.Error())
	}
	defer func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	}()
	for _, content := range []string{"one", "two", "two"} {
		tree := sample(t, s, content)
		st, err := tree.Write(t.Context(), dir)
		if err != nil || st.Linked[cas.Copy] != 1 {
			t.Fatalf("%+v, %v", st, err)
		}
		b, err := os.ReadFile(dir + "/a/b/linked")
		if err != nil || string(b) != content {
			t.Errorf("got %q, %v", b, err)
		}
		if got, want := listing(t, dir), listing(t, write(t, tree)); got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	}
	if err := os.Remove(dir + "/" + marker); err != nil {
		t.Fatal(err)
	}
	var foreign *ForeignError
	if _, err := sample(t, s, "x").Write(t.Context(), dir); !errors.As(err, &foreign) {
		t.Errorf("got %v", err)
	}
}

func TestNames(t *testing.T) {
	tree := New(newStore(t))
	for _, name := range []string{"", ".", "/x", "../x", "a/../b", "a//b", "a\x00", "a\nb", `a\b`, marker, "a/" + marker} {
		if err := tree.File(name, nil); err == nil {
			t.Errorf("%q was taken", name)
		}
	}
	if err := tree.File("a", []byte("1")); err != nil {
		t.Fatal(err)
	}
	if err := tree.File("a", []byte("1")); err != nil {
		t.Errorf("the same twice: %v", err)
	}
	if err := tree.File("a", []byte("2")); err == nil {
		t.Error("two files of one name")
	}
}
