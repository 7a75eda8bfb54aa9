package diff

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"caisson/lock/rpmdb"
)

// installed is a package of a database: the digest of its header, and its
// number there.
type installed struct {
	sum    [sha256.Size]byte
	number uint32
	header rpmHeader // nil until it is wanted
}

// rpmdb compares two databases of rpm, package by package. It says false
// where that explains nothing.
func (d *differ) rpmdb(n *Node, at spot, a, b *io.SectionReader) bool {
	if n == nil {
		return true
	}
	x, errA := d.installed(a, nil)
	y, errB := d.installed(b, nil)
	if errA != nil || errB != nil {
		d.failed(n, errA, errB)
		return false
	}
	want := map[string]bool{}
	for name, p := range x {
		if q, ok := y[name]; ok && p.sum != q.sum {
			want[name] = true
		}
	}
	if len(want) > 0 {
		if x, errA = d.installed(a, want); errA == nil {
			y, errB = d.installed(b, want)
		}
		if errA != nil || errB != nil {
			d.failed(n, errA, errB)
			return false
		}
	}
	d.packages(n, at, x, y)
	if len(n.Details) > 0 {
		return true
	}
	if string(readUpTo(a, 0, 6)) == "SQLite" {
		d.fields(d.child(n, at.below("header of the database").path), readUpTo(a, 0, 100), readUpTo(b, 0, 100), 0, sqliteFields())
	}
	n.comment("the packages in it are the same; the database is written otherwise")
	return false
}

// packages shows the packages that differ.
func (d *differ) packages(n *Node, at spot, x, y map[string]*installed) {
	var names []string
	for name := range x {
		names = append(names, name)
	}
	for name := range y {
		if x[name] == nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	var numbersA, numbersB []string
	for _, name := range names {
		p, q := x[name], y[name]
		c := at.below(name).path
		switch {
		case q == nil:
			d.only(n, c, true).comment("a package of the database")
		case p == nil:
			d.only(n, c, false).comment("a package of the database")
		case p.sum != q.sum:
			s := d.child(n, c)
			s.comment("a package of the database: its header differs")
			if p.header == nil || q.header == nil {
				s.comment(fmt.Sprintf("%sthe headers that differ have more than %d bytes", notFurther, maxTable))
				continue
			}
			d.rpmTags(s, p.header, q.header, rpmTagName)
		case p.number != q.number:
			numbersA = append(numbersA, fmt.Sprintf("%s: %d\n", name, p.number))
			numbersB = append(numbersB, fmt.Sprintf("%s: %d\n", name, q.number))
		}
	}
	if len(numbersA) > 0 {
		s := d.child(n, at.below("numbers of the packages").path)
		s.comment("the order in which they were installed")
		d.text(s, numbersA, numbersB, 1)
	}
}

// installed reads a database: the digests of all headers, and of those that
// are wanted what they say.
func (d *differ) installed(r *io.SectionReader, want map[string]bool) (map[string]*installed, error) {
	out := map[string]*installed{}
	left := maxTable // bytes of headers that may be held
	err := withFile(r, func(dir string) error {
		return rpmdb.Headers(d.ctx, filepath.Join(dir, "rpmdb"), func(number uint32, b []byte) error {
			h, err := readRPMHeader(b)
			if err != nil {
				return fmt.Errorf("package %d: %w", number, err)
			}
			p := &installed{sum: sha256.Sum256(b), number: number}
			name := h.name()
			for i := 2; out[name] != nil; i++ {
				name = fmt.Sprintf("%s (%d)", h.name(), i)
			}
			if want[name] {
				if left -= len(b); left >= 0 {
					p.header = h
				}
			}
			if out[name] = p; len(out) > maxMembers {
				return &tooMuch{fmt.Sprintf("more than %d packages", maxMembers)}
			}
			return nil
		})
	}, "rpmdb")
	return out, err
}

// withFile makes a file of a content, in a folder that is gone afterwards.
func withFile(r *io.SectionReader, fn func(dir string) error, name string) error {
	dir, err := os.MkdirTemp("", "caisson-diff-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	at := filepath.Join(dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(at), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(at, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, reopen(r)())
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return err
	}
	return fn(dir)
}

// sqliteFields are those of the header that change by themselves ("SQLite:
// Database File Format", section 1.3).
func sqliteFields() []field {
	big := func(b []byte) string {
		b = bytes.Clone(b)
		slices.Reverse(b)
		return decimal(b)
	}
	return []field{
		{"page size", 16, 2, big}, {"file change counter", 24, 4, big}, {"pages", 28, 4, big}, {"free pages", 36, 4, big},
		{"schema cookie", 40, 4, big}, {"version valid for", 92, 4, big}, {"written by SQLite version", 96, 4, big},
	}
}

// owners are the packages that files belong to, as the image itself says.
type owners map[string]string

// readOwners reads what a root's own databases say: that of rpm, and the
// lists of dpkg.
func (d *differ) readOwners(t *tree) owners {
	out := owners{}
	for _, p := range rpmdb.Places() {
		for _, name := range []string{"rpmdb.sqlite", "Packages.db", "Packages"} {
			e := t.byPath["/"+p+"/"+name]
			if e == nil || e.open == nil || e.size == 0 {
				continue
			}
			h, err := d.holdOpened(e.open)
			if err == nil {
				err = withFile(h.SectionReader, func(dir string) error { return out.addRPM(d.ctx, dir) }, p+"/"+name)
			}
			h.free()
			if err == nil && len(out) > 0 {
				return out
			}
		}
	}
	const lists = "/var/lib/dpkg/info/"
	for _, e := range t.entries {
		name, ok := strings.CutPrefix(e.path, lists)
		if !ok || e.open == nil || !strings.HasSuffix(name, ".list") {
			continue
		}
		h, err := d.holdOpened(e.open)
		if err == nil {
			for _, path := range splitLines(readUpTo(h, 0, h.Size())) {
				out[strings.TrimSuffix(path, "\n")] = "deb/" + strings.TrimSuffix(name, ".list")
			}
		}
		h.free()
	}
	return out
}

func (o owners) addRPM(ctx context.Context, dir string) error {
	packages, err := rpmdb.FromRoot(ctx, dir)
	for _, p := range packages {
		for _, f := range p.Files {
			o[f] = fmt.Sprintf("rpm/%s-%s.%s", p.Name, p.EVR, p.Arch)
		}
	}
	return err
}

// of is the package of a file. Databases name files by the paths before /bin
// and its like became links.
func (o owners) of(path string) string {
	if p, ok := o[path]; ok {
		return p
	}
	if short, ok := strings.CutPrefix(path, "/usr"); ok {
		return o[short]
	}
	return ""
}
