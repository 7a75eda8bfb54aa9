package paxtar

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"golang.org/x/sys/unix"

	"caisson/lock/tooltest"
)

func content(s string) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return io.NopCloser(iotest.HalfReader(strings.NewReader(s))), nil }
}

// fixture has all that a file system can have. The first name of b's file sorts
// last.
func fixture() []Entry {
	long := strings.Repeat("long/", 60) + "é"
	return []Entry{
		{Mode: unix.S_IFDIR | 0o755},
		{Path: "d", Mode: unix.S_IFDIR | unix.S_ISVTX | 0o777, UID: 1, GID: 2},
		{Path: "d/z", Mode: unix.S_IFREG | unix.S_ISUID | 0o755, Size: 5, UID: 3000000, GID: 4, Open: content("hello"),
			Xattrs: map[string][]byte{"security.capability": {1, 0, 0, 2, '=', '\n'}, "user.a": []byte("b")}},
		{Path: "d/b", Mode: unix.S_IFREG | unix.S_ISUID | 0o755, UID: 3000000, GID: 4, HardLink: "d/z"},
		{Path: "d/a", Mode: unix.S_IFREG | unix.S_ISUID | 0o755, UID: 3000000, GID: 4, HardLink: "d/z"},
		{Path: "link", Mode: unix.S_IFLNK | 0o777, Target: "../" + long},
		{Path: "null", Mode: unix.S_IFCHR | 0o666, Rdev: uint32(unix.Mkdev(1, 3))},
		{Path: "disk", Mode: unix.S_IFBLK | 0o660, Rdev: uint32(unix.Mkdev(259, 300))},
		{Path: "pipe", Mode: unix.S_IFIFO | 0o600},
		{Path: long, Mode: unix.S_IFREG, Open: content("")},
	}
}

func written(t *testing.T, entries []Entry) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, entries, 1700000000); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestGolden compares an archive with what it was: a change is one of
// lock.Revision.
func TestGolden(t *testing.T) {
	b := written(t, fixture())
	const want = "a00a4839ffbda84f843db11ede7f9f1f2aebf4ce492aa1499a2b4c3c440babd9"
	if got := fmt.Sprintf("%x", sha256.Sum256(b)); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	other := fixture()
	slices.Reverse(other)
	if !bytes.Equal(written(t, other), b) {
		t.Error("the order of the entries changes the bytes")
	}
}

// TestTools has the archive read by Go and by GNU tar.
func TestTools(t *testing.T) {
	b := written(t, fixture())
	var got []string
	for r := tar.NewReader(bytes.NewReader(b)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if h.ModTime.Unix() != 1700000000 || h.Uname != "" {
			t.Errorf("got %+v", h)
		}
		got = append(got, fmt.Sprintf("%c %.5s %o %d:%d %.5s %d,%d %q %q", h.Typeflag, h.Name, h.Mode, h.Uid, h.Gid, h.Linkname, h.Devmajor, h.Devminor, text, h.PAXRecords["SCHILY.xattr.security.capability"]))
	}
	want := []string{
		`5 d/ 1777 1:2  0,0 "" ""`,
		`0 d/a 4755 3000000:4  0,0 "hello" "\x01\x00\x00\x02=\n"`,
		`1 d/b 4755 3000000:4 d/a 0,0 "" ""`,
		`1 d/z 4755 3000000:4 d/a 0,0 "" ""`,
		`4 disk 660 0:0  259,300 "" ""`,
		`2 link 777 0:0 ../lo 0,0 "" ""`,
		`0 long/ 0 0:0  0,0 "" ""`,
		`3 null 666 0:0  1,3 "" ""`,
		`6 pipe 600 0:0  0,0 "" ""`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	name := filepath.Join(t.TempDir(), "a.tar")
	if err := os.WriteFile(name, b, 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(tooltest.Find(t, "tar"), "--numeric-owner", "--xattrs", "--xattrs-include=*", "-tvvf", name).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "6 security.capability") || !strings.Contains(string(out), "hrwsr-xr-x  3000000/4") || strings.Contains(string(out), "tar:") {
		t.Errorf("tar: %v\n%s", err, out)
	}
}

func TestRefuses(t *testing.T) {
	failed := errors.New("failed")
	for _, tt := range []struct {
		entry Entry
		want  string
	}{
		{Entry{Path: "a", Mode: unix.S_IFSOCK}, "a: a file of mode 0140000 has no form in a tar archive"},
		{Entry{Path: "a", Mode: unix.S_IFREG, HardLink: "b"}, `a: it is a link to "b", which is no file`},
		{Entry{Path: "a", Mode: unix.S_IFREG, Size: 3, Open: content("ab")}, "a: its content has another size"},
		{Entry{Path: "a", Mode: unix.S_IFREG, Size: 1, Open: content("ab")}, "a: its content has another size"},
		{Entry{Path: "a", Mode: unix.S_IFREG, Open: func() (io.ReadCloser, error) { return nil, failed }}, "a: failed"},
		{Entry{Path: "a", Mode: unix.S_IFREG, Size: 9, Open: func() (io.ReadCloser, error) { return io.NopCloser(iotest.ErrReader(failed)), nil }}, "a: failed"},
	} {
		if err := Write(io.Discard, []Entry{tt.entry}, 0); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("got %v, want an error with %q", err, tt.want)
		}
	}
}
