package build

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"caisson/build/rootfs/rpmtest"
	"caisson/lock"
)

// state says of all files below dir what would show that one was touched. Other
// names (links) may come and go: builds beside this one are given the files so.
func state(t *testing.T, dir string) string {
	t.Helper()
	var out strings.Builder
	err := filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
		var st unix.Stat_t
		if err == nil {
			err = unix.Lstat(p, &st)
		}
		fmt.Fprintln(&out, p, st.Ino, st.Mode, st.Size, st.Mtim, st.Uid)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// hostileBuild builds, wants the error where that is not empty, and looks that the
// store is as it was, to the byte, and that a build that failed has left nothing.
// It returns the output folder.
func (d *distro) hostileBuild(t *testing.T, fail string) string {
	t.Helper()
	before, out := d.stored(t), t.TempDir()
	_, err := Build(context.Background(), d.options(out))
	if fail == "" && err != nil || fail != "" && (err == nil || !strings.Contains(err.Error(), fail)) {
		t.Errorf("got %v, want an error with %q", err, fail)
	}
	if left := names(t, out); err != nil && len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	d.untouched(t, before)
	return out
}

// stored is the state of what the store has; who reads it leaves a lease beside.
func (d *distro) stored(t *testing.T) string { return state(t, filepath.Join(d.store.Dir(), "sha256")) }

// untouched looks that the store is as it was.
func (d *distro) untouched(t *testing.T, before string) {
	t.Helper()
	if after := d.stored(t); after != before {
		t.Errorf("the store was\n%s\nand is\n%s", before, after)
	}
	for _, in := range d.lock.Inputs {
		if err := d.store.Verify(in.SHA256); err != nil {
			t.Errorf("%s: %v", in.Name, err)
		}
	}
}

// hostileRPM is an RPM that wants something which it must not have.
type hostileRPM struct {
	name    string
	entries []rpmtest.Entry
	header  []rpmtest.File // that of the entries where nil
	change  func(*rpmtest.Package)
	raw     func([]byte) []byte
	err     string            // part of the error; none where empty
	want    map[string]string // files of the image, by path
	tools   string            // part of the error where it is a package of the tools; none where empty
}

const (
	aFile = unix.S_IFREG | 0o644
	aLink = unix.S_IFLNK | 0o777
	aDir  = unix.S_IFDIR | 0o755
)

// hostileRPMs are such packages. OUTSIDE in a link is a folder of the machine.
func hostileRPMs() []hostileRPM {
	mode := func(e rpmtest.Entry, mode uint32) rpmtest.Entry { e.Mode = mode; return e }
	one := rpmtest.Entry{Name: "./opt/a", Mode: aFile, Data: "one"}
	two := rpmtest.Entry{Name: "./opt/b", Mode: aFile, Data: "two"}
	dots := rpmtest.Entry{Name: "./opt/../../../../../../OUTSIDE/victim", Mode: aFile, Data: "evil"}
	dotsHeader := rpmtest.Named(dots)
	dotsHeader[0].Path = strings.TrimPrefix(dots.Name, ".")
	inside := rpmtest.Entry{Name: "./opt/../../../../../../srv/a", Mode: aFile, Data: "evil"}
	insideHeader := rpmtest.Named(inside)
	insideHeader[0].Path = strings.TrimPrefix(inside.Name, ".")
	both := rpmtest.Entry{Name: "./opt/a", Mode: aFile, Data: "both", Ino: 7}
	twoNames := []rpmtest.Entry{{Name: "./opt/a", Mode: aFile, Ino: 7, Nlink: 2}, {Name: "./opt/b", Mode: aFile, Ino: 7, Nlink: 2, Data: "both"}}
	return []hostileRPM{
		{name: "dots to a file of the machine", entries: []rpmtest.Entry{dots}, header: dotsHeader}, // in the root's own /tmp, which is emptied
		{name: "dots", entries: []rpmtest.Entry{inside}, header: insideHeader, want: map[string]string{"/srv/a": "100644 0:0 vendor"}},
		{name: "an absolute name", entries: []rpmtest.Entry{{Name: "/opt/a", Mode: aFile, Data: "evil"}}, want: map[string]string{"/opt/a": "100644 0:0 vendor"}},
		{
			name:    "through an absolute link of its own",
			entries: []rpmtest.Entry{{Name: "./opt", Mode: aLink, Data: "OUTSIDE"}, {Name: "./opt/victim", Mode: aFile, Data: "evil"}},
			err:     "file /opt;6553f100: cpio: File from package already exists as a directory in system",
		},
		{
			name:    "through a link with dots",
			entries: []rpmtest.Entry{{Name: "./opt", Mode: aLink, Data: "../../../../../../..OUTSIDE"}, {Name: "./opt/victim", Mode: aFile, Data: "evil"}},
			err:     "file /opt;6553f100: cpio: File from package already exists as a directory in system",
		},
		{
			name:    "through a link into the store",
			entries: []rpmtest.Entry{{Name: "./opt", Mode: aLink, Data: givenMount}, {Name: "./opt/victim", Mode: aFile, Data: "evil"}},
			err:     "file /opt;6553f100: cpio: File from package already exists as a directory in system",
		},
		{name: "a device", entries: []rpmtest.Entry{{Name: "./opt/disk", Mode: unix.S_IFBLK | 0o666, Rdev: 0x801}}, want: map[string]string{"/opt/disk": "60666 0:0 vendor"}},
		{name: "set-id bits", entries: []rpmtest.Entry{mode(one, unix.S_IFREG|0o6755)}, want: map[string]string{"/opt/a": "106755 0:0 vendor"}},
		{name: "a newline", entries: []rpmtest.Entry{{Name: "./opt/a\nerror: b", Mode: aFile, Data: "x"}}, want: map[string]string{"/opt/a\nerror: b": "100644 0:0 vendor"}},
		{name: "not in the header", entries: []rpmtest.Entry{one, two}, header: rpmtest.Named(one), err: "cpio: Archive file not in header", tools: "does not name it"},
		{name: "not in the payload", entries: []rpmtest.Entry{one}, header: rpmtest.Named(one, two), err: "cpio: Missing file(s)", tools: "the payload does not have it"},
		{
			name: "other content than the header's", entries: []rpmtest.Entry{one}, header: rpmtest.Named(mode(rpmtest.Entry{Name: one.Name, Data: "TWO"}, aFile)),
			err: "on file /opt/a;6553f100: cpio: Digest mismatch", tools: "the header says sha256:",
		},
		{name: "another payload", entries: []rpmtest.Entry{one}, change: func(p *rpmtest.Package) { p.PayloadDigest = strings.Repeat("0", 64) }, err: "bad-1-1.x86_64 does not verify: Payload SHA256 digest: BAD"},
		{name: "4 GiB of header", entries: []rpmtest.Entry{one}, raw: func(b []byte) []byte {
			at := bytes.LastIndex(b, []byte{0x8e, 0xad, 0xe8, 1})
			return slices.Concat(b[:at+12], []byte{0xff, 0xff, 0xff, 0xf0}, b[at+16:])
		}, err: "rpm/bad-1-1.x86_64: reading the RPM's headers: header with 4294967280 bytes of data", tools: "header with 4294967280 bytes of data"},
		{name: "4 Gi entries", entries: []rpmtest.Entry{one}, raw: func(b []byte) []byte {
			at := bytes.LastIndex(b, []byte{0x8e, 0xad, 0xe8, 1})
			return slices.Concat(b[:at+8], []byte{0xff, 0xff, 0xff, 0xf0}, b[at+12:])
		}, err: "rpm/bad-1-1.x86_64: reading the RPM's headers: header with 4294967280 entries", tools: "header with 4294967280 entries"},
		{name: "names that differ in case", entries: []rpmtest.Entry{one, {Name: "./opt/A", Mode: aFile, Data: "big"}}, want: map[string]string{"/opt/a": "100644 0:0 vendor", "/opt/A": "100644 0:0 vendor"}},
		{name: "two names", entries: twoNames, header: rpmtest.Named(both, func() rpmtest.Entry { e := both; e.Name = "./opt/b"; return e }()), want: map[string]string{"/opt/a": "100644 0:0 vendor", "/opt/b": "100644 0:0 vendor"}},
		{
			name: "two names of different files", entries: twoNames,
			header: rpmtest.Named(twoNames[0], rpmtest.Entry{Name: "./opt/b", Mode: unix.S_IFREG | 0o6777, Data: "both", Ino: 8}),
			want:   map[string]string{"/opt/a": "100644 0:0 vendor", "/opt/b": "106777 0:0 vendor"}, tools: `"./opt/b": the payload has it as another name of "/opt/a"`,
		},
		{name: "a folder for a file", entries: []rpmtest.Entry{{Name: "./usr", Mode: aFile, Data: "x"}}, err: "file /usr conflicts between attempted installs of bad-1-1.x86_64 and base-1-1.x86_64", tools: `unpacking bad-1-1.x86_64: "./usr": removeat usr: directory not empty`},
		{name: "a pipe", entries: []rpmtest.Entry{{Name: "./opt/p", Mode: unix.S_IFIFO | 0o644}}, err: "/opt/p is a pipe"},
		{name: "a socket", entries: []rpmtest.Entry{{Name: "./opt/s", Mode: unix.S_IFSOCK | 0o644}}, err: "on file /opt/s;6553f100: cpio: open failed"},
		{name: "a file in /dev", entries: []rpmtest.Entry{{Name: "./dev/null", Mode: aFile, Data: "x"}}},
	}
}

func (h *hostileRPM) bytes(t *testing.T, outside string) []byte {
	t.Helper()
	h.entries, h.header = slices.Clone(h.entries), slices.Clone(h.header)
	for i := range h.entries {
		e := &h.entries[i]
		e.Name, e.Data = strings.ReplaceAll(e.Name, "/OUTSIDE", outside), strings.ReplaceAll(e.Data, "OUTSIDE", outside)
	}
	for i := range h.header {
		h.header[i].Path = strings.ReplaceAll(h.header[i].Path, "/OUTSIDE", outside)
	}
	payload, err := rpmtest.Archive(h.entries...)
	if err != nil {
		t.Fatal(err)
	}
	p := rpmtest.Package{Name: "bad", Files: h.header, Payload: payload}
	if p.Files == nil {
		p.Files = rpmtest.Named(h.entries...)
	}
	if h.change != nil {
		h.change(&p)
	}
	b := p.Bytes()
	if h.raw != nil {
		b = h.raw(b)
	}
	return b
}

// testHostileRPMs builds with packages that want out, or lie: as packages of the
// root, which rpm installs, and of the tools, which Caisson unpacks.
func testHostileRPMs(t *testing.T, d *distro) {
	outside := t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "victim"), []byte("innocent"), 0o600); err != nil {
		t.Fatal(err)
	}
	was := state(t, outside)
	type build struct {
		hostileRPM
		d         *distro
		set, fail string
	}
	var all []build // all of them in the store before the first is built
	for _, h := range hostileRPMs() {
		b := h.bytes(t, outside)
		for set, fail := range map[string]string{lock.SetRoot: h.err, lock.SetTools: h.tools} {
			if set == lock.SetTools && fail == "" {
				continue // rootfs.TestUnpackHostile
			}
			all = append(all, build{h, d.with(func(d *distro) { d.addRPM(t, set, "bad", b) }), set, fail})
		}
	}
	t.Run("all", func(t *testing.T) {
		for _, b := range all {
			t.Run(b.name+" in "+b.set, func(t *testing.T) {
				t.Parallel()
				work := b.d.hostileBuild(t, b.fail)
				if b.fail != "" {
					return
				}
				files := readFiles(t, work)
				for p, want := range b.want {
					f := files["root:"+p]
					if got := fmt.Sprintf("%o %d:%d %s", f.Mode, f.UID, f.GID, f.Account); got != want {
						t.Errorf("%s: got %q, want %q", p, got, want)
					}
				}
			})
		}
	})
	if now := state(t, outside); now != was {
		t.Errorf("outside was\n%s\nand is\n%s", was, now)
	}
}

// TestHostile is what a build must survive.
func TestHostile(t *testing.T) {
	d := newDistro(t)
	t.Run("Scripts", func(t *testing.T) { testScripts(t, d) })
	t.Run("Payloads", func(t *testing.T) { testPayloads(t, d) })
	t.Run("Steps", func(t *testing.T) { testHostileSteps(t, d) })
	t.Run("FullDisk", func(t *testing.T) { testFullDisk(t, d) })
	t.Run("Killed", func(t *testing.T) { testKilled(t, d) })
	t.Run("RPMs", func(t *testing.T) { testHostileRPMs(t, d) })
}
