package view_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/google/rpmpack"

	"caisson/lock"
	"caisson/lock/cargo"
	"caisson/lock/digest"
	"caisson/prefetch/cas"
	"caisson/prefetch/hermeto"
	"caisson/prefetch/view"
)

// crowd is a store and locks of many inputs, for benchmarks.
type crowd struct {
	b     *testing.B
	store *cas.Store
}

// put writes a file of the store without syncing it: there are thousands.
func (c crowd) put(content []byte) (digest.Digest, int64) {
	d := digest.Of(content)
	name := c.store.Path(d)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil { //nolint:gosec // as the store's are
		c.b.Fatal(err)
	}
	if err := os.WriteFile(name, content, 0o444); err != nil && !os.IsPermission(err) { //nolint:gosec // as the store's are
		c.b.Fatal(err)
	}
	return d, int64(len(content))
}

// modules are n files of modules as go.sum names them: some 1.7 go.mod for
// each zip, a fifth of the modules in two versions, three of five versions
// like no other.
func (c crowd) modules(n int) (out []lock.Input) {
	add := func(m, v, ext string) {
		d, size := c.put(fmt.Appendf(nil, "module %s // %s %s\n", m, v, ext))
		out = append(out, lock.Input{Kind: lock.KindGo, Name: m + "@" + v + ext, SHA256: d, Size: size, Go: &lock.Go{Module: m, Version: v}})
	}
	for i := 0; len(out) < n; i++ {
		m, v := fmt.Sprintf("example.com/group%d/module%d", i%(n/8), i), fmt.Sprintf("v1.%d.%d", i%7, i*3/5)
		add(m, v, ".mod")
		if i%5 == 0 {
			add(m, "v0.1.0", ".mod")
		}
		if i%4 != 0 {
			add(m, v, ".zip")
		}
	}
	return out[:n]
}

func (c crowd) crates(n int) (out []lock.Input) {
	for i := range n {
		name, version := fmt.Sprintf("%x-crate", (i-i%9/8)*7919), fmt.Sprintf("1.%d.0", i) // a ninth has two versions
		text := "[package]\nname = \"" + name + "\"\nversion = \"" + version + "\"\n[dependencies.serde]\nversion = \"1\"\n"
		var b bytes.Buffer
		gz := gzip.NewWriter(&b)
		tw := tar.NewWriter(gz)
		if err := tw.WriteHeader(&tar.Header{Name: name + "-" + version + "/Cargo.toml", Size: int64(len(text)), Mode: 0o644}); err != nil {
			c.b.Fatal(err)
		}
		if _, err := tw.Write([]byte(text)); err != nil {
			c.b.Fatal(err)
		}
		if err := tw.Close(); err != nil {
			c.b.Fatal(err)
		}
		if err := gz.Close(); err != nil {
			c.b.Fatal(err)
		}
		d, size := c.put(b.Bytes())
		out = append(out, lock.Input{
			Kind: lock.KindCrate, Name: name + "-" + version + ".crate", URL: name + "/" + version, Registry: cargo.CratesIO, SHA256: d, Size: size,
		})
	}
	return out
}

func (c crowd) packages(n int) (out []lock.Input) {
	for i := range n {
		name := fmt.Sprintf("package%d", i)
		w, err := rpmpack.NewRPM(rpmpack.RPMMetaData{Name: name, Version: "1", Release: "1", Arch: "noarch", BuildTime: time.Unix(1, 0), Compressor: "gzip:1"})
		if err != nil {
			c.b.Fatal(err)
		}
		for f := range 20 {
			w.AddFile(rpmpack.RPMFile{Name: fmt.Sprintf("/usr/share/%s/%d", name, f), Mode: 0o644})
		}
		var b bytes.Buffer
		if err := w.Write(&b); err != nil {
			c.b.Fatal(err)
		}
		d, size := c.put(b.Bytes())
		out = append(out, lock.Input{
			Kind: lock.KindRPM, Name: name + "-1-1.noarch", URL: "Packages/" + name + "-1-1.noarch.rpm", Repo: []string{"baseos", "appstream"}[i%2],
			SHA256: d, Size: size, RPM: &lock.RPM{Name: name, Version: "1", Release: "1", Arch: "noarch", BuildTime: 1}, For: []lock.Use{{Arch: "x86_64", By: name}},
		})
	}
	return out
}

// links is the least that a view can cost: its folders, and a link for each
// of the inputs that are in it.
type links struct {
	dirs  []string
	files [][2]string // in the store, in the view
}

// read is what a view is made of.
func (c crowd) read(dir string, inputs []lock.Input) links {
	type inode struct{ dev, ino uint64 }
	var l links
	paths := map[inode]string{}
	for i := range inputs {
		fi, err := os.Stat(c.store.Path(inputs[i].SHA256))
		if err != nil {
			c.b.Fatal(err)
		}
		st := stat(fi)
		paths[inode{st.Dev, st.Ino}] = c.store.Path(inputs[i].SHA256)
	}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		if d.IsDir() {
			l.dirs = append(l.dirs, rel)
			return nil
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		if from, ok := paths[inode{stat(fi).Dev, stat(fi).Ino}]; ok {
			l.files = append(l.files, [2]string{from, rel})
		}
		return nil
	})
	if err != nil {
		c.b.Fatal(err)
	}
	if len(l.files) < len(inputs) {
		c.b.Fatalf("%d of %d inputs are linked", len(l.files), len(inputs))
	}
	return l
}

func stat(fi fs.FileInfo) *syscall.Stat_t { return fi.Sys().(*syscall.Stat_t) }

// make makes them and nothing else.
func (l links) make(dir string) error {
	for _, d := range l.dirs {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil { //nolint:gosec // as the view's are
			return err
		}
	}
	for _, f := range l.files {
		if err := os.Link(f[0], filepath.Join(dir, f[1])); err != nil {
			return err
		}
	}
	return nil
}

// BenchmarkView makes views of so many inputs: where there is none, and where
// there is the same already. "links" is what link(2) and mkdir(2) alone take
// for as many inputs and folders, in turn with the views on the same file
// system; nothing is removed in between, for that is work that a file system
// may do later. All times are milliseconds.
func BenchmarkView(b *testing.B) {
	base, err := os.MkdirTemp("", "view-bench-")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { os.RemoveAll(base) })
	s, err := cas.Open(filepath.Join(base, "store"))
	if err != nil {
		b.Fatal(err)
	}
	c := crowd{b, s}
	for _, kind := range []struct {
		name   string
		inputs func(n int) []lock.Input
	}{
		{"go", c.modules}, {"cargo", c.crates}, {"rpm", c.packages},
		{"hermeto", func(n int) []lock.Input {
			return append(append(c.modules(n*2/5), c.crates(n/5)...), c.packages(n-n*2/5-n/5)...)
		}},
	} {
		for _, n := range []int{500, 2000, 8000} {
			b.Run(fmt.Sprintf("%s/%d", kind.name, n), func(b *testing.B) {
				c := crowd{b, s}
				l := &lock.Lock{Version: 1, Arches: []string{"x86_64"}, Repos: []lock.Repo{{ID: "baseos", Arch: "x86_64"}, {ID: "appstream", Arch: "x86_64"}}, Payloads: []lock.Payload{{Kind: "cargo", Name: "c", Source: "."}}, Inputs: kind.inputs(n)}
				dir, err := os.MkdirTemp(base, kind.name)
				if err != nil {
					b.Fatal(err)
				}
				project(b, filepath.Join(dir, "project"))
				c.measure(kind.name, dir, l)
			})
		}
	}
}

// project has a Rust source, for which Hermeto's layout has registries.
func project(b *testing.B, dir string) {
	for name, text := range map[string]string{"Cargo.toml": "[package]\nname = \"c\"\n", "Cargo.lock": "version = 3\n"} {
		if err := os.MkdirAll(dir, 0o750); err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			b.Fatal(err)
		}
	}
}

// spent is the least that something took: of a clock, and of all processors.
// The mean would tell of what else the machine does.
type spent struct{ wall, cpu time.Duration }

func (s *spent) measure(b *testing.B, f func() error) {
	began, cpu := time.Now(), processors(b)
	if err := f(); err != nil {
		b.Fatal(err)
	}
	wall, cpu := time.Since(began), processors(b)-cpu
	if s.wall == 0 {
		s.wall, s.cpu = wall, cpu
	}
	s.wall, s.cpu = min(s.wall, wall), min(s.cpu, cpu)
}

// processors is the time that this process has had.
func processors(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func (c crowd) measure(kind, dir string, l *lock.Lock) {
	write := func(name string) func() error {
		return func() error {
			return writeView(c.b.Context(), c.store, kind, filepath.Join(dir, name), filepath.Join(dir, "project"), l)
		}
	}
	var cold, first, again, links spent
	cold.measure(c.b, write("view")) // what is made of the inputs' bytes is remembered from here on
	least := c.read(filepath.Join(dir, "view"), l.Inputs)
	c.b.ResetTimer()
	for i := range c.b.N {
		first.measure(c.b, write(fmt.Sprint("view", i)))
		links.measure(c.b, func() error { return least.make(filepath.Join(dir, fmt.Sprint("links", i))) })
		again.measure(c.b, write(fmt.Sprint("view", i)))
	}
	c.b.ReportMetric(0, "ns/op")
	c.b.ReportMetric(float64(cold.wall)/1e6, "cold")
	c.b.ReportMetric(float64(first.wall)/1e6, "first")
	c.b.ReportMetric(float64(again.wall)/1e6, "again")
	c.b.ReportMetric(float64(links.wall)/1e6, "links")
	c.b.ReportMetric(float64(first.wall)/float64(links.wall), "first/links")
	c.b.ReportMetric(float64(first.cpu)/float64(links.cpu), "cpu-first/links")
}

func writeView(ctx context.Context, s *cas.Store, kind, dir, project string, l *lock.Lock) error {
	t := view.New(s)
	var err error
	switch kind {
	case "hermeto":
		_, err = hermeto.Of(l, s, project).Write(ctx, dir, false)
		return err
	case "go":
		err = t.Go("", l)
	case "cargo":
		_, err = t.Cargo(ctx, "", l)
	case "rpm":
		err = t.RPM(ctx, "", l)
	}
	if err == nil {
		_, err = t.Write(ctx, dir)
	}
	return err
}
