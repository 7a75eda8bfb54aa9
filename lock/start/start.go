// Package start makes a first manifest of the definitions that a project has
// for other tools.
//
// What it promises: the manifest that it returns is one that lock.ParseManifest
// takes; what of a file is not in it is in the notes, with the file and the
// line and why, but for what only says how the other tool itself works (where
// its cache is, how it shows its progress); a file that its own tool would not
// take is an error that names the line.
//
// What it does not: it runs nothing, fetches nothing and asks no repository,
// so that a package may be named that no repository has. The other tools begin
// with another image or with what a group of packages happens to bring, and an
// image of Caisson with nothing: the sets tools and initrd are proposals, and
// so is all that the manifest has a comment at.
//
// Read are rpms.in.yaml, rpms.lock.yaml, Hermeto's prefetch-input,
// Containerfiles, mkosi.conf with its drop-ins, profiles and scripts, OpenCHAMI
// image-build's config.yaml, .aib.yml of automotive-image-builder, and
// kickstarts.
package start

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"caisson/lock"
)

// Draft is a manifest that was made of other files.
type Draft struct {
	Manifest []byte // YAML with comments
	// Notes are what could not be carried over, by file and line.
	Notes []Note
	// Read are the files that it was made of, as they were given or found.
	Read []string
}

// Note is something that the manifest has not.
type Note struct {
	File string
	Line int    // from 1
	What string // as the file has it, shortened
	Why  string
}

func (n Note) String() string { return fmt.Sprintf("%s:%d: %s: %s", n.File, n.Line, n.What, n.Why) }

// maxFile is the largest file read, in bytes.
const maxFile = 1 << 20

// From makes a manifest that is to lie in the folder dir of the files that are
// named; of a folder, of those in it that it knows. None of them is needed: a
// manifest without a source is a pattern to fill in. The profiles are mkosi's;
// one that no file has is an error.
func From(dir string, sources []string, profiles ...string) (*Draft, error) {
	d, err := newDraft(dir)
	if err != nil {
		return nil, err
	}
	d.profiles = profiles
	found, err := find(sources)
	if err != nil {
		return nil, err
	}
	for _, s := range found {
		if err := d.open(s); err != nil {
			return nil, err
		}
	}
	for _, p := range profiles {
		if !d.named[p] {
			return nil, fmt.Errorf("no mkosi.profiles in what was read has a profile %q", p)
		}
	}
	out := &Draft{}
	for _, s := range found {
		out.Read = append(out.Read, s.name)
	}
	if out.Manifest, err = d.finish(out.Read); err != nil {
		return nil, err
	}
	out.Notes = d.notes
	order := func(name string) int {
		if i := slices.Index(out.Read, name); i >= 0 {
			return i
		}
		return len(out.Read) // what belongs to one of them
	}
	slices.SortStableFunc(out.Notes, func(a, b Note) int {
		return cmp.Or(cmp.Compare(order(a.File), order(b.File)), cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line))
	})
	return out, nil
}

// open reads one source into the draft.
func (d *draft) open(s source) error {
	b, err := readFile(s.name)
	if err != nil {
		return err
	}
	d.at = s.name
	return s.kind.read(d, s.name, b)
}

// readFile reads a file of at most maxFile bytes, which has to be text; a byte
// order mark at its beginning is left out.
func readFile(name string) ([]byte, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0) // a FIFO has no writer
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return nil, errors.Join(fmt.Errorf("%s: not a file", name), err)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	if len(b) > maxFile {
		return nil, fmt.Errorf("%s: more than the %d bytes that are read", name, maxFile)
	}
	if i := bytes.IndexByte(b, 0); i >= 0 {
		return nil, fmt.Errorf("%s:%d: it is no text: there is a NUL in it", name, 1+bytes.Count(b[:i], []byte("\n")))
	}
	return bytes.TrimPrefix(b, []byte("\ufeff")), nil
}

// relative is a path as the manifest has it, from the manifest's folder.
func (d *draft) relative(name string) (string, error) {
	abs, err := filepath.Abs(name)
	if err != nil {
		return "", err
	}
	rel, err := filepath.Rel(d.dir, abs)
	return filepath.ToSlash(rel), err
}

// finish writes the manifest and makes sure that it is one.
func (d *draft) finish(read []string) ([]byte, error) {
	d.fill()
	b, err := renderManifest(&d.m, d.head(slices.Clone(read)), d.comments)
	if err != nil {
		return nil, err
	}
	if _, err := lock.ParseManifest("", b); err != nil {
		return nil, fmt.Errorf("what the files say together makes no manifest: %s", refusal(err))
	}
	return b, nil
}

// shorten makes a line of something for a note.
func shorten(s string) string {
	const most = 70
	s = strings.Join(strings.Fields(strings.ToValidUTF8(s, "?")), " ")
	if r := []rune(s); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return s
}
