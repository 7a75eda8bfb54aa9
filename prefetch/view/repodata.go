package view

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"path"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"caisson/lock"
	"caisson/lock/digest"
	"caisson/prefetch/rpmsig"
)

const repomdName = "repodata/repomd.xml"

// repository is a folder of packages that gets repodata.
type repository struct {
	tree     *Tree
	dir      string
	epoch    int64 // the time of all that is written, in seconds since 1970
	packages []*lock.Input
	data     []repoData
}

// repoData is one file that repomd.xml names.
type repoData struct {
	typ      string
	input    *lock.Input   // where it is taken over
	name     string        // relative to the repository
	digest   digest.Digest // of the file
	size     int64         // in bytes
	open     digest.Digest // of what is compressed in it
	openSize int64
}

// parts are the files that are made from the packages, with their names'
// spaces.
var parts = []struct{ typ, element, space string }{
	{"primary", "metadata", "http://linux.duke.edu/metadata/common"},
	{"filelists", "filelists", "http://linux.duke.edu/metadata/filelists"},
	{"other", "otherdata", "http://linux.duke.edu/metadata/other"},
}

func (r *repository) write(ctx context.Context) error {
	slices.SortFunc(r.packages, func(a, b *lock.Input) int { return strings.Compare(a.Name, b.Name) })
	key := strings.Builder{}
	key.WriteString("view-repodata-2")
	for _, in := range r.packages {
		name, err := RPMFile(in)
		if err != nil {
			return err
		}
		if err := r.tree.Link(path.Join(r.dir, name), in); err != nil {
			return err
		}
		key.WriteString("\x00" + name + "\x00" + in.SHA256.Hex())
	}
	data, err := r.made(ctx, key.String())
	if err != nil {
		return err
	}
	for _, d := range r.data {
		d.name = "repodata/" + d.typ + strings.TrimPrefix(path.Base(d.input.URL), stem(path.Base(d.input.URL)))
		d.digest, d.size = d.input.SHA256, d.input.Size
		if err := r.tree.Link(path.Join(r.dir, d.name), d.input); err != nil {
			return err
		}
		data = append(data, d)
	}
	return r.tree.File(path.Join(r.dir, repomdName), repomd(data, r.epoch))
}

// stem is a file name before its first dot.
func stem(name string) string {
	s, _, _ := strings.Cut(name, ".")
	return s
}

// made is primary, filelists and other: those that the store remembers, or
// new ones.
func (r *repository) made(ctx context.Context, key string) ([]repoData, error) {
	if data, ok := r.recallMade(key); ok {
		return data, r.linkMade(data)
	}
	packages := make([]packageXML, len(r.packages))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i, in := range r.packages {
		g.Go(func() error {
			err := ctx.Err()
			if err == nil {
				packages[i], err = r.describe(in)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", in.Name, err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	var out []repoData
	var sums bytes.Buffer
	kept := true
	for n, p := range parts {
		d, packed, err := packPart(n, packages)
		if err != nil {
			return nil, err
		}
		if _, ok := r.tree.keep(packed); ok {
			err = r.tree.add(path.Join(r.dir, d.name), entry{digest: d.digest, what: p.typ})
		} else {
			kept = false
			err = r.tree.File(path.Join(r.dir, d.name), packed)
		}
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&sums, "%s %s %d %s %d\n", p.typ, d.digest, d.size, d.open, d.openSize)
		out = append(out, d)
	}
	if kept {
		r.tree.remember(key, sums.Bytes())
	}
	return out, nil
}

// packPart is one of the three files, and how repomd.xml describes it.
func packPart(n int, packages []packageXML) (repoData, []byte, error) {
	p := parts[n]
	rpm := ""
	if n == 0 {
		rpm = ` xmlns:rpm="http://linux.duke.edu/metadata/rpm"`
	}
	var text bytes.Buffer
	fmt.Fprintf(&text, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<%s xmlns=\"%s\"%s packages=\"%d\">\n", p.element, p.space, rpm, len(packages))
	for _, x := range packages {
		text.Write(x[n])
	}
	fmt.Fprintf(&text, "</%s>\n", p.element)
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	if _, err := w.Write(text.Bytes()); err != nil {
		return repoData{}, nil, err
	}
	if err := w.Close(); err != nil {
		return repoData{}, nil, err
	}
	return repoData{
		typ: p.typ, name: "repodata/" + p.typ + ".xml.gz",
		digest: digest.Of(packed.Bytes()), size: int64(packed.Len()),
		open: digest.Of(text.Bytes()), openSize: int64(text.Len()),
	}, packed.Bytes(), nil
}

// recallMade reads what made remembered, if all of it is still there.
func (r *repository) recallMade(key string) ([]repoData, bool) {
	d, ok := r.tree.recall(key)
	if !ok {
		return nil, false
	}
	b, err := r.tree.read(d)
	if err != nil {
		return nil, false
	}
	var out []repoData
	for line := range strings.Lines(string(b)) {
		var m repoData
		var got, open string
		if _, err := fmt.Sscanf(line, "%s %s %d %s %d\n", &m.typ, &got, &m.size, &open, &m.openSize); err != nil {
			return nil, false
		}
		if m.digest, err = digest.Parse(got); err != nil {
			return nil, false
		}
		if m.open, err = digest.Parse(open); err != nil {
			return nil, false
		}
		if !r.tree.store.Has(m.digest) {
			return nil, false
		}
		m.name = "repodata/" + m.typ + ".xml.gz"
		out = append(out, m)
	}
	return out, len(out) == len(parts)
}

func (r *repository) linkMade(data []repoData) error {
	for _, d := range data {
		if err := r.tree.add(path.Join(r.dir, d.name), entry{digest: d.digest, what: d.typ}); err != nil {
			return err
		}
	}
	return nil
}

// describe reads a package's headers.
func (r *repository) describe(in *lock.Input) (packageXML, error) {
	f, err := r.tree.store.Open(in.SHA256)
	if err != nil {
		return packageXML{}, err
	}
	defer f.Close()
	p, err := rpmsig.Open(f, f.Size())
	if err != nil {
		return packageXML{}, err
	}
	name, err := RPMFile(in)
	if err != nil {
		return packageXML{}, err
	}
	return describePackage(p, in.SHA256, f.Size(), name)
}

// repomd is repomd.xml.
func repomd(data []repoData, epoch int64) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, `<?xml version="1.0" encoding="UTF-8"?>
<repomd xmlns="http://linux.duke.edu/metadata/repo" xmlns:rpm="http://linux.duke.edu/metadata/rpm">
  <revision>%d</revision>
`, epoch)
	for _, d := range data {
		fmt.Fprintf(&b, "  <data type=\"%s\">\n    <checksum type=\"sha256\">%s</checksum>\n", d.typ, d.digest.Hex())
		if !d.open.IsZero() {
			fmt.Fprintf(&b, "    <open-checksum type=\"sha256\">%s</open-checksum>\n", d.open.Hex())
		}
		fmt.Fprintf(&b, "    <location href=\"%s\"/>\n    <timestamp>%d</timestamp>\n", escape(d.name), epoch)
		if d.size > 0 {
			fmt.Fprintf(&b, "    <size>%d</size>\n", d.size)
		}
		if d.openSize > 0 {
			fmt.Fprintf(&b, "    <open-size>%d</open-size>\n", d.openSize)
		}
		b.WriteString("  </data>\n")
	}
	b.WriteString("</repomd>\n")
	return b.Bytes()
}
