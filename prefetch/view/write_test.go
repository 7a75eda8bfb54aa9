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
	put(t, s, []byte(content))
	return stored(t, s, content)
}

// stored is a view with a file that the store has, or should have.
func stored(t *testing.T, s *cas.Store, content string) *Tree {
	t.Helper()
	tree := New(s)
	in := &lock.Input{Kind: lock.KindFile, Name: "x", SHA256: digest.Of([]byte(content))}
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
	if st, err := sample(t, s, "one").Write(t.Context(), dir); err != nil || listing(t, dir) != one || !st.Kept || st.Linked[cas.HardLink] != 1 || st.Made != 1 {
		t.Errorf("again: %+v, %v\n%s", st, err, listing(t, dir))
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
	for i, content := range []string{"one", "two", "two"} {
		tree := sample(t, s, content)
		st, err := tree.Write(t.Context(), dir)
		if err != nil || st.Linked[cas.Copy] != 1 || st.Kept != (i == 2) {
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

// TestKept writes a view anew for whatever is not as it should be, and only
// then.
func TestKept(t *testing.T) {
	s := newStore(t)
	dir := filepath.Join(t.TempDir(), "view")
	linked, made, store := dir+"/a/b/linked", dir+"/.hidden", s.Path(digest.Of([]byte("one")))
	write := func(want bool) {
		t.Helper()
		if st, err := sample(t, s, "one").Write(t.Context(), dir); err != nil || st.Kept != want {
			t.Fatalf("%+v, %v, want %v", st, err, want)
		}
		if got := listing(t, dir); strings.Count(got, "\n") != 3 || !strings.Contains(got, "linked "+digest.Of([]byte("one")).Hex()) {
			t.Fatalf("got\n%s", got)
		}
	}
	write(false)
	write(true)
	replace := func(name, content string, mode os.FileMode) error {
		return errors.Join(os.Remove(name), os.WriteFile(name, []byte(content), 0o600), os.Chmod(name, mode))
	}
	for name, change := range map[string]func() error{
		"another file":       func() error { return os.WriteFile(dir+"/a/more", nil, 0o600) },
		"another folder":     func() error { return os.Mkdir(dir+"/a/more", 0o700) },
		"a file less":        func() error { return os.Remove(linked) },
		"a folder less":      func() error { return os.RemoveAll(dir + "/a") },
		"other bytes":        func() error { return replace(linked, "eno", 0o444) },
		"other bytes, made":  func() error { return replace(made, "made eno", 0o444) },
		"more bytes, made":   func() error { return replace(made, "made one!", 0o444) },
		"another mode, made": func() error { return os.Chmod(made, 0o600) },
		"a link out":         func() error { return errors.Join(os.Remove(linked), os.Symlink(store, linked)) },
		"a folder that is elsewhere": func() error {
			return errors.Join(os.Rename(dir+"/a", dir+"-a"), os.Symlink(dir+"-a", dir+"/a"))
		},
		"no marker": func() error { return errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700)) },
	} {
		t.Run(name, func(t *testing.T) {
			if err := change(); err != nil {
				t.Fatal(err)
			}
			write(false)
			write(true)
		})
	}
	// A copy of the same bytes is as good as a link.
	if err := replace(linked, "one", 0o444); err != nil {
		t.Fatal(err)
	}
	if st, err := sample(t, s, "one").Write(t.Context(), dir); err != nil || !st.Kept || st.Linked[cas.Copy] != 1 {
		t.Errorf("%+v, %v", st, err)
	}
	if err := s.Verify(digest.Of([]byte("one"))); err != nil {
		t.Error(err)
	}
	// What the store has lost is missed, though the view has it.
	if err := os.Remove(store); err != nil {
		t.Fatal(err)
	}
	if _, err := stored(t, s, "one").Write(t.Context(), dir); !errors.As(err, new(*cas.MissingError)) {
		t.Errorf("got %v", err)
	}
}

// TestWriteThrough: who writes to a hard link in spite of its mode damages the
// store, which notices as soon as it reads, and once it is mended so is the
// view.
func TestWriteThrough(t *testing.T) {
	s := newStore(t)
	dir := filepath.Join(t.TempDir(), "view")
	if _, err := sample(t, s, "one").Write(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	d, linked := digest.Of([]byte("one")), dir+"/a/b/linked"
	if os.Geteuid() != 0 {
		if err := os.WriteFile(linked, []byte("eno"), 0o600); !errors.Is(err, os.ErrPermission) {
			t.Errorf("a file of the view was written to: %v", err)
		}
	}
	if err := errors.Join(os.Chmod(linked, 0o600), os.WriteFile(linked, []byte("eno"), 0o600), os.Chmod(linked, 0o444)); err != nil {
		t.Fatal(err)
	}
	if err := s.Verify(d); !errors.As(err, new(*cas.DamagedError)) {
		t.Errorf("got %v", err)
	}
	if st, err := sample(t, s, "one").Write(t.Context(), dir); err != nil || st.Kept {
		t.Errorf("%+v, %v", st, err)
	}
	if b, err := os.ReadFile(linked); err != nil || string(b) != "one" {
		t.Errorf("got %q, %v", b, err)
	}
	if err := s.Verify(d); err != nil {
		t.Error(err)
	}
}

// TestUmask: a view is for others to read, whatever the umask.
func TestUmask(t *testing.T) {
	s := newStore(t)
	tree := sample(t, s, "one")
	defer syscall.Umask(syscall.Umask(0o277))
	dir := filepath.Join(t.TempDir(), "view")
	if err := os.Chmod(filepath.Dir(dir), 0o700); err != nil { //nolint:gosec // a folder
		t.Fatal(err)
	}
	if _, err := tree.Write(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]os.FileMode{"": 0o755, "a": 0o755, "a/b": 0o755, ".hidden": 0o444, marker: 0o444, "a/b/linked": 0o444} {
		if fi, err := os.Stat(filepath.Join(dir, name)); err != nil || fi.Mode().Perm() != want {
			t.Errorf("%q: got %v, %v, want %v", name, fi.Mode(), err, want)
		}
	}
}
