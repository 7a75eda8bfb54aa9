package rootfs

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"golang.org/x/sys/unix"

	"caisson/build/rootfs/rpmtest"
	"caisson/lock/tooltest"
)

// realRPMs are packages of several distributions; the test is skipped where
// they are absent.
func realRPMs(t testing.TB) []string {
	t.Helper()
	all, err := filepath.Glob("../../../shared/data/rpms/*.rpm")
	if err != nil {
		t.Fatal(err)
	}
	if len(all) == 0 {
		t.Skip("../shared/data/rpms is absent")
	}
	return all
}

// TestReadPackageLikeRPM compares with what rpm says of real packages.
func TestReadPackageLikeRPM(t *testing.T) {
	rpm := tooltest.Find(t, "rpm")
	for _, name := range realRPMs(t) {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		p, err := ReadPackage(bufio.NewReader(iotest.HalfReader(f)))
		f.Close()
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var got strings.Builder
		fmt.Fprintf(&got, "%s %s\n", p.NEVRA, p.Compression)
		for _, f := range p.Files {
			ghost := 0
			if f.Ghost {
				ghost = 1
			}
			fmt.Fprintf(&got, "%s %o %s %s %d %s %s %d\n", f.Path, f.Mode, f.User, f.Group, f.Size, f.SHA256, f.Target, ghost)
		}
		digest := "%{FILEDIGESTS}"
		out, err := exec.Command(rpm, "-qp", "--nosignature", "--qf", "%{FILEDIGESTALGO}", name).Output()
		if err != nil {
			t.Fatal(err)
		}
		if string(out) != "8" {
			digest = ""
		}
		want, err := exec.Command(rpm, "-qp", "--nosignature", "--qf",
			"%{NAME}-%{VERSION}-%{RELEASE}.%{ARCH} %{PAYLOADCOMPRESSOR}\n"+
				"[%{FILENAMES} %{FILEMODES:octal} %{FILEUSERNAME} %{FILEGROUPNAME} %{FILESIZES} "+digest+" %{FILELINKTOS} %{FILEFLAGS}\n]", name).Output()
		if err != nil {
			t.Fatal(err)
		}
		if a, b := strings.Split(got.String(), "\n"), ghostBits(string(want)); !slices.Equal(a, b) {
			t.Errorf("%s: got\n%.2000s\nwant\n%.2000s", name, strings.Join(a, "\n"), strings.Join(b, "\n"))
		}
	}
}

// ghostBits makes of the flags at the ends of rpm's lines 1 for ghosts.
func ghostBits(s string) []string {
	lines := strings.Split(strings.ReplaceAll(s, "(none)", ""), "\n")
	for i, l := range lines {
		at := strings.LastIndexByte(l, ' ')
		var flags int
		if _, err := fmt.Sscan(l[at+1:], &flags); err == nil && at > 0 {
			lines[i] = fmt.Sprintf("%s %d", l[:at], flags>>6&1)
		}
	}
	return lines
}

// TestRealPayloads hashes what real packages bring: where a header has
// SHA-256, the payload agrees with it; where it has not, the payload fills in.
func TestRealPayloads(t *testing.T) {
	for _, name := range realRPMs(t) {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		br := bufio.NewReader(bytes.NewReader(b))
		p, err := ReadPackage(br)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		want := map[string]string{}
		hashed := p.Hashed()
		for i := range p.Files {
			want[p.Files[i].Path] = p.Files[i].SHA256
			p.Files[i].SHA256 = ""
		}
		if err := p.HashPayload(br); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if !p.Hashed() {
			t.Errorf("%s: the payload did not fill in every digest", name)
		}
		for _, f := range p.Files {
			if hashed && !f.Ghost && f.SHA256 != want[f.Path] {
				t.Errorf("%s: %s: payload sha256:%s, header sha256:%s", name, f.Path, f.SHA256, want[f.Path])
			}
		}
		if strings.HasPrefix(filepath.Base(name), "which") && hashed {
			t.Errorf("%s: its header has MD5 alone", name)
		}
	}
}

func TestHashPayloadOfOldDigests(t *testing.T) {
	entries := []entry{
		{name: "./usr/a", mode: unix.S_IFREG | 0o644, ino: 5, nlink: 2}, {name: "./usr/b", mode: unix.S_IFREG | 0o644, data: "both", ino: 5, nlink: 2},
		{name: "./usr/c", mode: unix.S_IFREG | 0o644, ino: 6, nlink: 2}, {name: "./usr/d", mode: unix.S_IFREG | 0o644, ino: 6, nlink: 2},
	}
	b := makeRPM("", named(entries...), archive(t, entries...))
	br := bufio.NewReader(bytes.NewReader(b))
	p, err := ReadPackage(br)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.HashPayload(br); err != nil {
		t.Fatal(err)
	}
	for i, content := range []string{"both", "both", "", ""} {
		if want := fmt.Sprintf("%x", sha256.Sum256([]byte(content))); p.Files[i].SHA256 != want {
			t.Errorf("%s: got %s, want %s", p.Files[i].Path, p.Files[i].SHA256, want)
		}
	}
}

// TestHostileHeaders reads headers that claim more than there is.
func TestHostileHeaders(t *testing.T) {
	claim := func(entries, data uint32) []byte {
		b := []byte{0x8e, 0xad, 0xe8, 1, 0, 0, 0, 0}
		return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(b, entries), data)
	}
	one := []PackageFile{{Path: "/a", Mode: unix.S_IFREG | 0o644, User: "root", Group: "root"}}
	with := func(change func(tags []rpmtest.Tag)) []byte {
		tags := fileTags(one)
		change(tags)
		return rpmtest.Header(tags...)
	}
	index := func(id uint32) int {
		return slices.IndexFunc(fileTags(one), func(t rpmtest.Tag) bool { return t.ID == id })
	}
	for name, c := range map[string]struct {
		header []byte
		want   string
	}{
		"4 GiB of data":              {claim(1, 0xffffffff), "bytes of data"},
		"4 G entries":                {claim(0xffffffff, 16), "entries"},
		"32 MiB that are not there":  {claim(0, maxHeaderData), "unexpected EOF"},
		"an index that is not there": {claim(maxEntries, 16), "unexpected EOF"},
		"no magic":                   {[]byte("no header at all"), "begins with"},
		"a tag twice":                {rpmtest.Header(rpmtest.Text(tagName, "a"), rpmtest.Text(tagName, "b")), "twice"},
		"4 G numbers":                {with(func(t []rpmtest.Tag) { t[index(tagFileModes)].Count = 0xffffffff }), "tag 1030"},
		"4 G names":                  {with(func(t []rpmtest.Tag) { t[index(tagBaseNames)].Count = 0xffffffff }), "at most"},
		"4 G folders":                {with(func(t []rpmtest.Tag) { t[index(tagDirNames)].Count = 0xffffffff }), "at most"},
		"a name without an end":      {rpmtest.Header(rpmtest.Ints(tagDirIndexes, 0), rpmtest.Texts(tagDirNames, "/"), rpmtest.Tag{ID: tagBaseNames, Type: typeStringArray, Count: 1, Data: []byte("a")}), "does not end"},
		"a folder that is not there": {with(func(t []rpmtest.Tag) { t[index(tagDirIndexes)] = rpmtest.Ints(tagDirIndexes, 7) }), "folder 7 of 1"},
		"fewer modes than names":     {with(func(t []rpmtest.Tag) { t[index(tagFileModes)] = rpmtest.Shorts(tagFileModes) }), "tag 1030"},
		"numbers as texts":           {with(func(t []rpmtest.Tag) { t[index(tagFileFlags)] = rpmtest.Texts(tagFileFlags, "x") }), "no number"},
		"texts as numbers":           {with(func(t []rpmtest.Tag) { t[index(tagFileUserName)] = rpmtest.Ints(tagFileUserName, 1) }), "no text"},
		"a negative size": {with(func(t []rpmtest.Tag) {
			t[index(tagFileSizes)] = rpmtest.Tag{ID: tagLongFileSizes, Type: typeInt64, Count: 1, Data: bytes.Repeat([]byte{0xff}, 8)}
		}), "bytes"},
		"another payload": {rpmtest.Header(rpmtest.Text(tagPayloadFormat, "drpm")), "want cpio"},
	} {
		_, err := ReadPackage(bufio.NewReader(bytes.NewReader(rpmBytes(c.header, nil))))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want an error with %q", name, err, c.want)
		}
	}
	if _, err := ReadPackage(bufio.NewReader(strings.NewReader(strings.Repeat("no rpm ", 100)))); err == nil {
		t.Error("text was read as an RPM")
	}
	broken := errors.New("broken")
	whole := makeRPM("", one, nil)
	for n := range whole {
		if _, err := ReadPackage(bufio.NewReader(io.MultiReader(bytes.NewReader(whole[:n]), iotest.ErrReader(broken)))); !errors.Is(err, broken) {
			t.Fatalf("a reader that breaks after %d bytes: got %v", n, err)
		}
	}
}

// TestMemory reads a header and an xz payload that claim as much as they may.
func TestMemory(t *testing.T) {
	tags := []rpmtest.Tag{{ID: tagBaseNames, Type: typeStringArray, Count: maxFiles, Data: make([]byte, 30<<20)}, rpmtest.Texts(tagDirNames, "/"), rpmtest.Ints(tagDirIndexes, make([]uint32, maxFiles)...)}
	for id := range uint32(200) { // a list of long lists: they overlap, and are not asked for
		tags = append(tags, rpmtest.Tag{ID: 9000 + id, Type: typeInt16, Count: 0xffffffff})
	}
	b := rpmBytes(rpmtest.Header(tags...), nil)
	got := allocated(func() {
		if _, err := ReadPackage(bufio.NewReader(bytes.NewReader(b))); err == nil {
			t.Error("a header without modes was read")
		}
	})
	if limit := uint64(200 << 20); got > limit {
		t.Errorf("a header of 30 MiB: %d bytes allocated, want at most %d", got, limit)
	}
}

func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

func FuzzReadPackage(f *testing.F) {
	all, _ := filepath.Glob("../../../shared/data/rpms/*.rpm")
	for _, name := range all {
		if b, err := os.ReadFile(name); err == nil {
			f.Add(b[:min(len(b), 16<<10)])
		}
	}
	entries := []entry{{name: "./a", mode: unix.S_IFREG | 0o644, data: "a"}, {name: "./l", mode: unix.S_IFLNK | 0o777, data: "a"}}
	for _, c := range []string{"", "gzip", "xz", "lzma", "zstd"} {
		f.Add(makeRPM(c, named(entries...), compress(f, c, archive(f, entries...))))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		br := bufio.NewReader(bytes.NewReader(b))
		p, err := ReadPackage(br)
		if err != nil {
			return
		}
		for _, f := range p.Files {
			if !strings.HasPrefix(f.Path, "/") || strings.Contains(f.Path, "/../") || f.Size < 0 {
				t.Errorf("%q of %d bytes", f.Path, f.Size)
			}
		}
		if payload, err := p.Payload(br); err == nil {
			err = p.walkPayload(io.LimitReader(payload, 1<<20), func(it item) error {
				_, err := io.Copy(io.Discard, it.r)
				return err
			})
			_ = err
			payload.Close()
		}
	})
}
