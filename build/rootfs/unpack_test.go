package rootfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/rpmpack"
	"golang.org/x/sys/unix"

	"caisson/lock/tooltest"
)

const (
	reg = unix.S_IFREG | 0o644
	dir = unix.S_IFDIR | 0o755
	lnk = unix.S_IFLNK | 0o777
)

// listing says what is in a folder, a line a name.
func listing(t *testing.T, at string) string {
	t.Helper()
	var lines []string
	err := filepath.WalkDir(at, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == at {
			return err
		}
		rel, _ := filepath.Rel(at, p)
		st, err := d.Info()
		if err != nil {
			return err
		}
		line := fmt.Sprintf("%q %v", rel, st.Mode())
		switch {
		case st.Mode()&fs.ModeSymlink != 0:
			target, _ := os.Readlink(p)
			line += " -> " + target
		case st.Mode().IsRegular():
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %q", b)
		}
		lines = append(lines, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	sort.Strings(lines)
	return strings.Join(lines, "\n")
}

func TestUnpackCompressors(t *testing.T) {
	entries := []entry{
		{name: "./usr", mode: dir}, {name: "./usr/bin", mode: dir},
		{name: "./usr/bin/a", mode: unix.S_IFREG | 0o4755, ino: 7, nlink: 3},
		{name: "./usr/bin/b", mode: unix.S_IFREG | 0o4755, ino: 7, nlink: 3},
		{name: "./usr/bin/c", mode: unix.S_IFREG | 0o4755, ino: 7, nlink: 3, data: "three names"},
		{name: "./usr/bin/secret", mode: unix.S_IFREG, data: "closed"},
		{name: "./usr/lib", mode: lnk, data: "bin"},
	}
	want := `"usr" drwxr-xr-x
"usr/bin" drwxr-xr-x
"usr/bin/a" -rwxr-xr-x "three names"
"usr/bin/b" -rwxr-xr-x "three names"
"usr/bin/c" -rwxr-xr-x "three names"
"usr/bin/secret" -rw------- "closed"
"usr/lib" Lrwxrwxrwx -> bin`
	for _, c := range []string{"", "none", "gzip", "bzip2", "xz", "lzma", "zstd"} {
		t.Run("compressor "+c, func(t *testing.T) {
			b := makeRPM(c, named(entries...), compress(t, c, archive(t, entries...)))
			at := t.TempDir()
			if err := Unpack(context.Background(), at, []RPM{of("made", b)}); err != nil {
				t.Fatal(err)
			}
			if got := listing(t, at); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
			cut := b[:len(b)-len(b)/4]
			if err := Unpack(context.Background(), t.TempDir(), []RPM{of("made", cut)}); err == nil {
				t.Error("a payload that was cut was unpacked")
			}
		})
	}
	b := makeRPM("lz9", named(entries...), nil)
	if err := Unpack(context.Background(), t.TempDir(), []RPM{of("made", b)}); err == nil || !strings.Contains(err.Error(), `"lz9"`) {
		t.Errorf("got %v, want an error that names the compressor", err)
	}
}

// TestUnpackHostile unpacks packages that want out: whatever the answer,
// nothing outside is touched.
func TestUnpackHostile(t *testing.T) {
	for _, c := range []struct {
		name    string
		entries []entry
		header  []PackageFile // of the entries where nil
		err     string        // part of it; none where empty
		want    string
	}{
		{name: "dots", entries: []entry{{name: "../../outside/victim", mode: reg, data: "evil"}}, want: `"outside/victim" -rw-r--r-- "evil"`},
		{name: "an absolute name", entries: []entry{{name: "/outside/victim", mode: reg, data: "evil"}}, want: `"outside/victim" -rw-r--r-- "evil"`},
		{
			name:    "through an absolute link of its own",
			entries: []entry{{name: "./d", mode: lnk, data: "OUTSIDE"}, {name: "./d/victim", mode: reg, data: "evil"}},
			want:    `victim" -rw-r--r-- "evil"`,
		},
		{
			name:    "through a link with dots",
			entries: []entry{{name: "./d", mode: lnk, data: "../../../../../../../../../OUTSIDE"}, {name: "./d/victim", mode: reg, data: "evil"}},
			want:    `victim" -rw-r--r-- "evil"`,
		},
		{
			name:    "a link that is its file",
			entries: []entry{{name: "./d", mode: lnk, data: "OUTSIDE/victim"}, {name: "./d", mode: lnk, data: "x"}},
			want:    `"d" Lrwxrwxrwx -> x`,
		},
		{
			name:    "links in a circle",
			entries: []entry{{name: "./a", mode: lnk, data: "b"}, {name: "./b", mode: lnk, data: "a"}, {name: "./a/victim", mode: reg, data: "evil"}},
			err:     "too many symbolic links",
		},
		{
			name:    "another name for a file outside",
			entries: []entry{{name: "./d", mode: lnk, data: "OUTSIDE"}, {name: "./d/victim", mode: reg, ino: 1, nlink: 2}, {name: "./e", mode: reg, ino: 1, nlink: 2, data: "evil"}},
			want:    `"e" -rw-r--r-- "evil"`,
		},
		{name: "a newline", entries: []entry{{name: "./a\nb", mode: reg, data: "x"}}, want: `"a\nb" -rw-r--r-- "x"`},
		{name: "not in the header", entries: []entry{{name: "./a", mode: reg, data: "x"}}, header: named(entry{name: "b", mode: reg}), err: "does not name it"},
		{name: "another type", entries: []entry{{name: "./a", mode: reg, data: "x"}}, header: named(entry{name: "a", mode: lnk}), err: "does not name it"},
		{
			name: "a ghost", entries: []entry{{name: "./a", mode: reg, data: "x"}},
			header: []PackageFile{{Path: "/a", Mode: reg, User: "root", Group: "root", Ghost: true}}, err: "does not name it",
		},
		{name: "a folder for a file", entries: []entry{{name: "./a/b", mode: reg, data: "x"}, {name: "./a", mode: reg, data: "x"}}, err: "directory not empty"},
		{name: "a file for a folder", entries: []entry{{name: "./a", mode: reg, data: "x"}, {name: "./a/b", mode: reg, data: "x"}}, err: "not a directory"},
		{name: "twice the same name", entries: []entry{{name: "./a", mode: reg, ino: 1, nlink: 2}, {name: "././a", mode: reg, ino: 1, nlink: 2, data: "x"}}, err: "file"},
		{
			name: "not in the payload", entries: []entry{{name: "./a", mode: reg, data: "x"}},
			header: named(entry{name: "a", mode: reg, data: "x"}, entry{name: "usr/b", mode: dir}), err: `"/usr/b": the package's header names it, and the payload does not have it`,
		},
		{
			name: "other content than the header's", entries: []entry{{name: "./a", mode: reg, data: "x"}},
			header: []PackageFile{{Path: "/a", Mode: reg, User: "root", Group: "root", Size: 1, SHA256: strings.Repeat("0", 64)}},
			err:    `"./a": the payload has sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881, the header says sha256:0000`,
		},
		{
			name: "more content than the header says", entries: []entry{{name: "./a", mode: reg, data: "xy"}},
			header: named(entry{name: "a", mode: reg, data: "x"}), err: `"./a": the payload has 2 bytes, the header says 1`,
		},
		{
			name: "names without content", entries: []entry{{name: "./a", mode: reg, ino: 1, nlink: 3}, {name: "./b", mode: reg, ino: 1, nlink: 3}},
			header: named(entry{name: "a", mode: reg, data: "x", ino: 1}, entry{name: "b", mode: reg, data: "x", ino: 1}), err: `"/a": the payload has no content, the header says 1 bytes`,
		},
		{
			name: "names of what are two files in the header", entries: []entry{{name: "./a", mode: reg, ino: 1, nlink: 2}, {name: "./b", mode: reg, ino: 1, nlink: 2, data: "x"}},
			header: named(entry{name: "a", mode: reg, ino: 1}, entry{name: "b", mode: reg, data: "x", ino: 1}), err: `"./b": the payload has it as another name of "/a", the header as another file`,
		},
		{
			name:    "a second name that is a folder's",
			entries: []entry{{name: "./d", mode: dir}, {name: "./a", mode: reg, ino: 1, nlink: 2}, {name: "./d/../d/f", mode: reg, ino: 1, nlink: 2, data: "x"}}, want: `"d/f" -rw-r--r-- "x"`,
		},
		{name: "names that differ in case", entries: []entry{{name: "./A", mode: reg, data: "x"}, {name: "./a", mode: reg, data: "y"}}, want: "\"A\" -rw-r--r-- \"x\"\n\"a\" -rw-r--r-- \"y\""},
		{name: "set-id bits", entries: []entry{{name: "./a", mode: unix.S_IFREG | 0o6755, data: "x"}}, want: `"a" -rwxr-xr-x "x"`},
		{name: "a device", entries: []entry{{name: "./a", mode: unix.S_IFBLK | 0o666}}, want: ``},
		{name: "a pipe", entries: []entry{{name: "./a", mode: unix.S_IFIFO | 0o666}}, want: ``},
	} {
		t.Run(c.name, func(t *testing.T) {
			base := t.TempDir()
			outside, at := filepath.Join(base, "outside"), filepath.Join(base, "root")
			for _, d := range []string{outside, at} {
				if err := os.Mkdir(d, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.WriteFile(filepath.Join(outside, "victim"), []byte("innocent"), 0o644); err != nil {
				t.Fatal(err)
			}
			before := listing(t, outside)
			for i := range c.entries {
				c.entries[i].data = strings.ReplaceAll(c.entries[i].data, "OUTSIDE", outside)
			}
			if c.header == nil {
				c.header = named(c.entries...)
			}
			err := Unpack(context.Background(), at, []RPM{of("hostile", makeRPM("", c.header, archive(t, c.entries...)))})
			if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
				t.Errorf("got %v, want an error with %q", err, c.err)
			}
			if got := listing(t, at); c.err == "" && !strings.Contains(got, c.want) {
				t.Errorf("got\n%s\nwant it to have\n%s", got, c.want)
			}
			if after := listing(t, outside); after != before {
				t.Errorf("outside is now\n%s", after)
			}
		})
	}
}

// TestUnpackSeveral unpacks packages that share paths, in the way of merged
// /usr: what comes out depends on their order in the list alone.
func TestUnpackSeveral(t *testing.T) {
	one := []entry{{name: "./lib/shared", mode: reg, data: "one"}, {name: "./lib/one", mode: reg, data: "1"}}
	two := []entry{{name: "./usr/lib", mode: dir}, {name: "./usr/lib/shared", mode: reg, data: "two"}}
	links := []entry{{name: "./lib", mode: lnk, data: "usr/lib"}, {name: "./run", mode: lnk, data: "/var/run"}}
	three := []entry{{name: "./run/x", mode: reg, data: "x"}, {name: "./lib", mode: dir}, {name: "./lib/shared", mode: reg, data: "three"}}
	var all []RPM
	for i, e := range [][]entry{one, two, links, three} {
		all = append(all, of(fmt.Sprint(i), makeRPM("", named(e...), archive(t, e...))))
	}
	for range 20 {
		at := t.TempDir()
		if err := Unpack(context.Background(), at, all); err != nil {
			t.Fatal(err)
		}
		want := `"lib" Lrwxrwxrwx -> usr/lib
"run" Lrwxrwxrwx -> /var/run
"usr" drwxr-xr-x
"usr/lib" drwxr-xr-x
"usr/lib/one" -rw-r--r-- "1"
"usr/lib/shared" -rw-r--r-- "one"
"var" drwxr-xr-x
"var/run" drwxr-xr-x
"var/run/x" -rw-r--r-- "x"`
		if got := listing(t, at); got != want {
			t.Fatalf("got\n%s\nwant\n%s", got, want)
		}
	}
}

func TestUnpackEnds(t *testing.T) {
	e := []entry{{name: "./a", mode: reg, data: "a"}}
	b := makeRPM("", named(e...), archive(t, e...))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := Unpack(ctx, t.TempDir(), []RPM{of("made", b)}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: got %v", err)
	}
	// A reader that ends in an error, as the store's does where bytes are not
	// the digest's, even behind the payload.
	damaged := errors.New("damaged")
	p := RPM{Name: "made", Open: func() (io.ReadCloser, error) {
		return io.NopCloser(io.MultiReader(strings.NewReader(string(b)), strings.NewReader("more"), iotest.ErrReader(damaged))), nil
	}}
	if err := Unpack(context.Background(), t.TempDir(), []RPM{p}); !errors.Is(err, damaged) {
		t.Errorf("damaged behind the payload: got %v", err)
	}
	p.Open = func() (io.ReadCloser, error) { return nil, fs.ErrNotExist }
	if err := Unpack(context.Background(), t.TempDir(), []RPM{p}); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "made") {
		t.Errorf("missing: got %v", err)
	}
}

// TestUnpackStripped reads a payload that leaves everything to the header, as
// RPMs with files of 4 GiB have it.
func TestUnpackStripped(t *testing.T) {
	files := []PackageFile{
		{Path: "/a", Mode: reg, User: "root", Group: "root", Size: 4, Ino: 1}, {Path: "/b", Mode: reg, User: "root", Group: "root", Size: 4, Ino: 1},
		{Path: "/l", Mode: lnk, User: "root", Group: "root", Target: "abc", Ino: 2},
	}
	payload := "07070X00000000" + "\x00\x00" + "07070X00000001" + "\x00\x00" + "data" + "07070X00000002" + "\x00\x00" + "abc\x00"
	trailer := archive(t)
	at := t.TempDir()
	if err := Unpack(context.Background(), at, []RPM{of("large", makeRPM("", files, append([]byte(payload), trailer...)))}); err != nil {
		t.Fatal(err)
	}
	want := "\"a\" -rw-r--r-- \"data\"\n\"b\" -rw-r--r-- \"data\"\n\"l\" Lrwxrwxrwx -> abc"
	if got := listing(t, at); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if err := Unpack(context.Background(), t.TempDir(), []RPM{of("large", makeRPM("", files[:1], append([]byte(payload), trailer...)))}); err == nil {
		t.Error("an index that the header does not have was unpacked")
	}
}

// TestUnpackOthersRPMs unpacks what rpmpack and rpmbuild write.
func TestUnpackOthersRPMs(t *testing.T) {
	for _, c := range []string{"gzip", "xz", "lzma", "zstd"} {
		r, err := rpmpack.NewRPM(rpmpack.RPMMetaData{Name: "packed", Version: "1", Release: "1", Arch: "noarch", Compressor: c})
		if err != nil {
			t.Fatal(err)
		}
		r.AddFile(rpmpack.RPMFile{Name: "/usr/share/packed/a", Body: []byte("packed"), Mode: 0o100640, Owner: "root", Group: "root"})
		r.AddFile(rpmpack.RPMFile{Name: "/usr/share/packed/l", Body: []byte("a"), Mode: 0o120777, Owner: "root", Group: "root"})
		var b strings.Builder
		if err := r.Write(&b); err != nil {
			t.Fatal(err)
		}
		at := t.TempDir()
		if err := Unpack(context.Background(), at, []RPM{of("packed", []byte(b.String()))}); err != nil {
			t.Errorf("%s: %v", c, err)
		}
		if got := listing(t, filepath.Join(at, "usr/share/packed")); got != "\"a\" -rw-r----- \"packed\"\n\"l\" Lrwxrwxrwx -> a" {
			t.Errorf("%s: got\n%s", c, got)
		}
	}
	rpmbuild := tooltest.Find(t, "rpmbuild")
	for _, how := range []string{"w9.gzdio", "w9.bzdio", "w7.xzdio", "w2.xzdio", "w19.zstdio", "w.ufdio", "w3.lzdio"} {
		top := t.TempDir()
		spec := filepath.Join(top, "built.spec")
		text := `Name: built
Version: 1
Release: 1
Summary: s
License: l
BuildArch: noarch
%description
d
%install
mkdir -p %{buildroot}/usr/share/built
echo -n content > %{buildroot}/usr/share/built/a
ln %{buildroot}/usr/share/built/a %{buildroot}/usr/share/built/b
ln -s a %{buildroot}/usr/share/built/l
: > %{buildroot}/usr/share/built/e
ln %{buildroot}/usr/share/built/e %{buildroot}/usr/share/built/f
%files
/usr/share/built
`
		if err := os.WriteFile(spec, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(rpmbuild, "-bb", "--quiet", "--define", "_topdir "+top, "--define", "_binary_payload "+how, spec).CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		b, err := os.ReadFile(filepath.Join(top, "RPMS/noarch/built-1-1.noarch.rpm"))
		if err != nil {
			t.Fatal(err)
		}
		at := t.TempDir()
		if err := Unpack(context.Background(), at, []RPM{of("built", b)}); err != nil {
			t.Errorf("%s: %v", how, err)
			continue
		}
		want := `"a" -rw-r--r-- "content"
"b" -rw-r--r-- "content"
"e" -rw-r--r-- ""
"f" -rw-r--r-- ""
"l" Lrwxrwxrwx -> a`
		if got := listing(t, filepath.Join(at, "usr/share/built")); got != want {
			t.Errorf("%s: got\n%s\nwant\n%s", how, got, want)
		}
	}
}
