package build

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"caisson/lock"
)

// testReuse builds twice and more: a step whose tools and inputs are the same does
// not run again, and the image and all that is said of it are the same. Whatever
// is different has it run.
func testReuse(t *testing.T, d *distro) {
	t.Parallel()
	d = d.with(func(d *distro) {
		d.addFile(t, "given", "what is given")
		d.lock.RecordNetwork = true
		d.lock.Steps = []lock.Step{{Run: `
			install -d $OUT/opt/empty && install -d -m 500 $OUT/opt/closed
			cat $IN/* > $OUT/opt/file; ln $OUT/opt/file $OUT/opt/same; ln -s ../opt/file $OUT/opt/link; chmod 4751 $OUT/opt/file
			echo printed; (echo > /dev/tcp/192.0.2.1/80) 2> /dev/null || :`}}
	})
	build := func(d *distro, program, want string) (*Image, string) {
		t.Helper()
		o := d.options(t.TempDir())
		o.Reuse = program
		told := false
		o.Events = func(e Event) { told = told || e.Reused && e.Step == "step 1: run" && e.State == Ended }
		img, err := Build(context.Background(), o)
		if err != nil {
			t.Fatal(err)
		}
		ev := readEvidence(t, o.Out)
		if got := strings.Join(ev.Reused, ", "); got != want || told != (want != "") {
			t.Errorf("reused %q, and told so: %v; want %q", got, told, want)
		}
		for i := range ev.Steps {
			if s := &ev.Steps[i]; s.Step == "step 1: run" && len(s.NetworkAttempts()) != 1 {
				t.Errorf("the record of %s has %d network attempts, want 1", s.Step, len(s.NetworkAttempts()))
			}
		}
		if ev.Unread == nil || len(*ev.Unread)+len(ev.Unused) != 0 {
			t.Errorf("unread %v, unused %v", ev.Unread, ev.Unused)
		}
		return img, o.Out
	}
	more := t.TempDir()
	put(t, more, file{path: "usr/share/more-tools", mode: 0o644, content: "more"})
	first, out := build(d, "", "")
	kept, _ := build(d, "this", "")
	taken, outTaken := build(d, "this", "step 1: run")
	for _, img := range []*Image{kept, taken} {
		if img.Files[0] != first.Files[0] {
			t.Errorf("got %+v, want %+v", img.Files[0], first.Files[0])
		}
	}
	for _, name := range []string{"files.json", "build.log"} {
		if !slices.Equal(content(t, filepath.Join(outTaken, name)), content(t, filepath.Join(out, name))) {
			t.Errorf("%s is another one", name)
		}
	}
	build(d, "another", "")
	build(d.with(func(d *distro) { d.addFile(t, "more", "is given, too") }), "this", "")
	build(d.with(func(d *distro) { d.lock.Steps[0].Run += "\n:" }), "this", "")
	build(d.with(func(d *distro) { d.lock.Epoch++ }), "this", "")
	build(d.with(func(d *distro) { d.add(t, lock.SetTools, "more-tools", more, "") }), "this", "")
	d.damageResults(t)
	again, _ := build(d, "this", "")
	if again.Files[0] != first.Files[0] {
		t.Errorf("got %+v, want %+v", again.Files[0], first.Files[0])
	}
}

// addFile puts a file into the store and the lock.
func (d *distro) addFile(t *testing.T, name, text string) {
	t.Helper()
	sum, size, err := d.store.Put(strings.NewReader(text), [32]byte{})
	if err != nil {
		t.Fatal(err)
	}
	d.lock.Inputs = append(d.lock.Inputs, lock.Input{Kind: lock.KindFile, Name: name, URL: "https://a.example/" + name, SHA256: sum, Size: size})
	slices.SortFunc(d.lock.Inputs, func(a, b lock.Input) int { return strings.Compare(a.Kind+a.Name, b.Kind+b.Name) })
}

// damageResults flips a byte in the last file of each result that is kept.
func (d *distro) damageResults(t *testing.T) {
	t.Helper()
	files, err := filepath.Glob(d.store.Dir() + "/sha256/*/*")
	if err != nil {
		t.Fatal(err)
	}
	damaged := 0
	for _, name := range files {
		b := content(t, name)
		if !strings.HasPrefix(string(b), resultRecord) {
			continue
		}
		at := strings.LastIndex(string(b), "what is given")
		if at < 0 {
			continue
		}
		b[at] ^= 1
		if err := errors.Join(os.Chmod(name, 0o644), os.WriteFile(name, b, 0o644)); err != nil {
			t.Fatal(err)
		}
		damaged++
	}
	if damaged == 0 {
		t.Fatal("no result is kept")
	}
}

func content(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// What an archive does not keep as it is is not kept.
func TestNotKept(t *testing.T) {
	for name, put := range map[string]func(path string) error{
		"a pipe": func(p string) error { return unix.Mkfifo(p, 0o600) },
		"an attribute": func(p string) error {
			return errors.Join(os.WriteFile(p, nil, 0o600), unix.Setxattr(p, "user.a", []byte("b"), 0))
		},
	} {
		dir := t.TempDir()
		if err := put(filepath.Join(dir, "x")); err != nil {
			t.Fatal(err)
		}
		if err := packResult(tar.NewWriter(io.Discard), dir); !errors.Is(err, errNotKept) {
			t.Errorf("%s: got %v, want %v", name, err, errNotKept)
		}
	}
}
