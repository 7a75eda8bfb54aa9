package vm

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"caisson/lock"
	"caisson/lock/digest"
	"caisson/prefetch/cas"
)

func newStore(t *testing.T, files ...string) (*cas.Store, []*lock.Input) {
	t.Helper()
	s, err := cas.Open(filepath.Join(t.TempDir(), "store"))
	if err != nil {
		t.Fatal(err)
	}
	var inputs []*lock.Input
	for _, text := range files {
		sum, n, err := s.Put(strings.NewReader(text), digest.Of([]byte(text)))
		if err != nil {
			t.Fatal(err)
		}
		inputs = append(inputs, &lock.Input{Kind: lock.KindFile, Name: text, SHA256: sum, Size: n})
	}
	return s, inputs
}

// What goes into a machine comes out there as a store that a build can use.
func TestInputs(t *testing.T) {
	store, inputs := newStore(t, "one", "two")
	j := &job{Args: []string{"build", "--out", "/o"}, Env: []string{"TZ=UTC"}, UID: 7, GID: 8, Umask: 0o77, Persona: 1, Hostname: "h", Out: "/o"}
	var b bytes.Buffer
	if err := writeInputs(context.Background(), &b, j, []byte("lock"), store, append(inputs, inputs[0])); err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	got, err := readInputs(bytes.NewReader(b.Bytes()), root)
	if err != nil || !reflect.DeepEqual(got, j) {
		t.Errorf("%+v, %v", got, err)
	}
	if text, err := os.ReadFile(filepath.Join(root, LockPath)); err != nil || string(text) != "lock" {
		t.Errorf("the lock: %q, %v", text, err)
	}
	there, err := cas.Open(filepath.Join(root, StorePath))
	if err != nil {
		t.Fatal(err)
	}
	for _, in := range inputs {
		if err := there.Verify(in.SHA256); err != nil {
			t.Error(err)
		}
	}
	if _, err := readInputs(bytes.NewReader(b.Bytes()[:700]), t.TempDir()); err == nil {
		t.Error("half an archive is taken")
	}
}

// Damage is found before a machine is started, and so is what is missing, by the names
// of the inputs.
func TestInputsDamaged(t *testing.T) {
	store, inputs := newStore(t, "one", "two")
	name := store.Path(inputs[1].SHA256)
	if err := os.Chmod(name, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte("tow"), 0o600); err != nil {
		t.Fatal(err)
	}
	var damaged *cas.DamagedError
	err := writeInputs(context.Background(), &bytes.Buffer{}, &job{}, nil, store, inputs)
	if !errors.As(err, &damaged) || damaged.Name != "file/two" {
		t.Errorf("got %v", err)
	}
	var missing *cas.MissingError
	gone := []*lock.Input{{Kind: lock.KindFile, Name: "gone", SHA256: digest.Of([]byte("gone"))}}
	if err := writeInputs(context.Background(), &bytes.Buffer{}, &job{}, nil, store, gone); !errors.As(err, &missing) || missing.Name != "file/gone" {
		t.Errorf("got %v", err)
	}
}

func TestInputsRefused(t *testing.T) {
	for _, h := range []*tar.Header{{Name: "../x"}, {Name: "/x"}, {Name: "x", Typeflag: tar.TypeSymlink, Linkname: "y"}, {Name: "x"}} {
		if _, err := readInputs(bytes.NewReader(archive(h, "")), t.TempDir()); err == nil {
			t.Errorf("%s of type %q is taken", h.Name, h.Typeflag)
		}
	}
}

// Passwords stay outside.
func TestConditions(t *testing.T) {
	got := conditions([]string{"LANG=C", "COSIGN_PASSWORD=x", "LC_ALL=tr_TR", "SSH_AUTH_SOCK=/x", "TZ=NPT-5:45", "AWS_SECRET_ACCESS_KEY=x", "TMPDIR=/x"})
	if want := []string{"LANG=C", "LC_ALL=tr_TR", "TZ=NPT-5:45"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestOwnPath(t *testing.T) {
	for p, want := range map[string]bool{"/home/me/out": true, "/dev/shm/out": false, "/proc": false, "/": false, "/store": false, "/storey/out": true, "/caisson.lock": false} {
		if OwnPath(p) != want {
			t.Errorf("%s: %v", p, !want)
		}
	}
}

func TestListener(t *testing.T) {
	var b bytes.Buffer
	all := []message{{Out: "a line"}, {}, {Exit: &exit{Code: 4, Said: "x\ny", Result: &written{Size: 7}}}}
	for _, m := range all {
		if err := send(&b, m); err != nil {
			t.Fatal(err)
		}
	}
	for _, size := range []int{1, 3, b.Len()} {
		var got []message
		l := &listener{tell: func(m message) { got = append(got, m) }}
		for part := range slices.Chunk(b.Bytes(), size) {
			_, _ = l.Write(part)
		}
		if !reflect.DeepEqual(got, all) || l.err != nil {
			t.Errorf("%d bytes at a time: %+v, %v", size, got, l.err)
		}
	}
	for text, want := range map[string]string{"no JSON\n": "no message", strings.Repeat("x", maxMessage+1): "a line of more than"} {
		l := &listener{tell: func(message) { t.Error("it is told of") }}
		_, _ = l.Write([]byte(text))
		_, _ = l.Write([]byte("{}\n"))
		if l.err == nil || !strings.Contains(l.err.Error(), want) {
			t.Errorf("got %v, want %q", l.err, want)
		}
	}
}
