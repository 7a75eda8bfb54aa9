package erofs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
)

func TestWriteRefuses(t *testing.T) {
	root := dir("")
	link := func(target string) Entry { return Entry{Path: "link", Mode: 0o120777, Target: target} }
	xattr := func(name string, size int) Entry {
		return Entry{Path: "x", Mode: 0o100644, Xattrs: map[string][]byte{name: make([]byte, size)}}
	}
	short, long, broken := regular("f", 5000), regular("f", 5000), regular("f", 5000)
	short.Open, long.Open = open("f", 4999), open("f", 5001)
	broken.Open = func() (io.ReadCloser, error) { return io.NopCloser(iotest.ErrReader(iotest.ErrTimeout)), nil }
	locked := regular("f", 1)
	locked.Open = func() (io.ReadCloser, error) { return nil, os.ErrPermission }
	for _, c := range []struct {
		name    string
		entries []Entry
		want    string
	}{
		{"nothing", nil, "no entry for the root"},
		{"no root", []Entry{regular("f", 1)}, `"f": no entry for its directory ""`},
		{"root is a file", []Entry{regular("", 1)}, "the root has mode 0100644"},
		{"missing parent", []Entry{root, regular("a/f", 1)}, `"a/f": no entry for its directory "a"`},
		{"parent is a file", []Entry{root, regular("a", 1), regular("a/f", 1)}, `"a" is not a directory`},
		{"parent is a link", []Entry{root, link("/"), regular("link/f", 1)}, `"link" is not a directory`},
		{"duplicate", []Entry{root, dir("a"), regular("a", 1)}, `"a" is there twice`},
		{"two roots", []Entry{root, root}, `"" is there twice`},
		{"slash in front", []Entry{root, dir("/a")}, `path "/a" has the part ""`},
		{"slash at the end", []Entry{root, dir("a/")}, `has the part ""`},
		{"dot", []Entry{root, dir("./a")}, `has the part "."`},
		{"dot dot", []Entry{root, dir("a/../b")}, `has the part ".."`},
		{"NUL", []Entry{root, dir("a\x00b")}, "NUL"},
		{"long name", []Entry{root, dir(strings.Repeat("n", 256))}, "256 bytes, more than 255"},
		{"mode", []Entry{root, {Path: "m", Mode: 0o644}}, "mode 0644"},
		{"negative size", []Entry{root, regular("f", -1)}, "size is -1"},
		{"no content", []Entry{root, {Path: "f", Mode: 0o100644, Size: 3}}, "no content for 3 bytes"},
		{"no target", []Entry{root, link("")}, `target ""`},
		{"long target", []Entry{root, link(strings.Repeat("t", 4096))}, "want 1 to 4095 bytes"},
		{"hard link to nothing", []Entry{root, {Path: "h", HardLink: "no"}}, `"h": hard link to "no", which is no entry`},
		{"hard link to itself", []Entry{root, {Path: "h", HardLink: "h"}}, "itself a hard link"},
		{"hard link to a hard link", []Entry{root, regular("f", 1), {Path: "g", HardLink: "f"}, {Path: "h", HardLink: "g"}}, "itself a hard link"},
		{"hard link to a directory", []Entry{root, dir("d"), {Path: "h", HardLink: "d"}}, "which is a directory"},
		{"short content", []Entry{root, short}, `"f": content has 4999 bytes, want 5000`},
		{"long content", []Entry{root, long}, `"f": content is longer than its size of 5000 bytes`},
		{"unreadable content", []Entry{root, broken}, `"f": timeout`},
		{"no access", []Entry{root, locked}, `"f": permission denied`},
		{"attribute's prefix", []Entry{root, xattr("system.other", 1)}, `"system.other" cannot be stored`},
		{"attribute without a name", []Entry{root, xattr("user.", 1)}, "cannot be stored"},
		{"attribute's name", []Entry{root, xattr("user."+strings.Repeat("n", 256), 1)}, "at most 255"},
		{"attribute's value", []Entry{root, xattr("user.n", 65536)}, "65536 bytes, more than 65535"},
	} {
		if _, err := Write(newBuffer(), c.entries, testOptions()); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want an error with %q", c.name, err, c.want)
		}
	}
	if _, err := Write(newBuffer(), []Entry{root}, Options{Label: strings.Repeat("l", 16)}); err == nil {
		t.Error("label of 16 bytes: no error")
	}
}

// faulty fails at and above an offset.
type faulty struct {
	*buffer
	at int64
}

func (f faulty) WriteAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > f.at {
		return 0, iotest.ErrTimeout
	}
	return f.buffer.WriteAt(p, off)
}

func (f faulty) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > f.at {
		return 0, iotest.ErrTimeout
	}
	return bytes.NewReader(f.b).ReadAt(p, off)
}

func TestFaults(t *testing.T) {
	b := write(t, testEntries(), testOptions())
	for at := int64(0); at < int64(len(b)); at += int64(len(b)) / 50 {
		if _, err := Write(faulty{newBuffer(), at}, testEntries(), testOptions()); !errors.Is(err, iotest.ErrTimeout) {
			t.Errorf("writing fails at %d: got %v", at, err)
		}
		_, _, err := walkReader(faulty{&buffer{b}, at})
		if !errors.Is(err, iotest.ErrTimeout) {
			t.Errorf("reading fails at %d: got %v", at, err)
		}
		if _, _, _, err := walk(b[:at]); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("image ends at %d: got %v", at, err)
		}
	}
}

func TestWalkStops(t *testing.T) {
	f, err := Open(bytes.NewReader(write(t, testEntries(), testOptions())))
	if err != nil {
		t.Fatal(err)
	}
	calls := 0
	err = f.Walk(func(Entry) error {
		if calls++; calls == 5 {
			return iotest.ErrTimeout
		}
		return nil
	})
	if err != iotest.ErrTimeout || calls != 5 {
		t.Errorf("%d calls, %v, want 5, %v", calls, err, iotest.ErrTimeout)
	}
}

// smallEntries is a tree of which the image is small.
func smallEntries() []Entry {
	return []Entry{
		dir(""), dir("dir"), regular("dir/file", 100),
		{Path: "dir/hard", HardLink: "dir/file"},
		{Path: "link", Mode: 0o120777, Mtime: 1, Target: "dir"},
		{Path: "null", Mode: 0o20666, Mtime: buildTime, Rdev: 1<<8 | 3},
		{Path: "x", Mode: 0o100644, Mtime: buildTime, Xattrs: map[string][]byte{"user.a": []byte("b"), "security.c": nil}},
	}
}

// withoutChecksum removes the checksum, which hides what is behind it.
func withoutChecksum(b []byte) []byte {
	b[superOffset+sbCompat] &^= compatChecksum
	return b
}

// at returns the offset of an inode in the image of smallEntries.
func at(t *testing.T, b []byte, path string) int64 {
	f, err := Open(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	nodes, err := newTree(smallEntries())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := newLayout(nodes, f.Options().BuildTime); err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes {
		if n.entry.Path == path {
			return n.at
		}
	}
	t.Fatalf("no node %q", path)
	return 0
}

func TestReadRefuses(t *testing.T) {
	good := withoutChecksum(write(t, smallEntries(), testOptions()))
	root, d, f, x, l := at(t, good, ""), at(t, good, "dir"), at(t, good, "dir/file"), at(t, good, "x"), at(t, good, "link")
	names := root + inodeCompactSize // of the root: ".", "..", "dir", …
	le := binary.LittleEndian
	u16 := func(at int64, v uint16) func(b []byte) { return func(b []byte) { le.PutUint16(b[at:], v) } }
	u32 := func(at int64, v uint32) func(b []byte) { return func(b []byte) { le.PutUint32(b[at:], v) } }
	u64 := func(at int64, v uint64) func(b []byte) { return func(b []byte) { le.PutUint64(b[at:], v) } }
	for _, c := range []struct {
		name   string
		change func(b []byte)
		want   string
	}{
		{"magic", u32(superOffset, 1), "magic is 0x1, want 0xe0f5e1e2"},
		{"checksum", u32(superOffset+sbCompat, compatChecksum), "checksum of the superblock"},
		{"block size", func(b []byte) { b[superOffset+sbBlockBits] = 9 }, "2^9"},
		{"features", u32(superOffset+sbIncompat, 0x10), "features 0x10"},
		{"devices", u16(superOffset+sbDevices, 1), "devices"},
		{"root", u16(superOffset+sbRootNid, uint16(f/slotSize)), "root has mode"},
		{"root beyond", u16(superOffset+sbRootNid, 65535), "not within"},
		{"no blocks", u32(superOffset+sbBlocks, 0), "not within the 0 bytes"},
		{"inode format", u16(f, 1<<5), "inode format 0x20"},
		{"compressed", u16(f, layoutCompressed<<1), `"dir/file": `},
		{"chunks", u16(f, layoutChunked<<1), "chunk-based"},
		{"layout", u16(f, 7<<1), "data layout 7"},
		{"mode", u16(f+4, 0o644), "mode 0644"},
		{"type", u16(f+4, 0o40644), "has the type 1 in its directory, want 2"},
		{"file beyond", func(b []byte) { le.PutUint16(b[f:], layoutPlain<<1); le.PutUint32(b[f+16:], 7) }, "not within"},
		{"inline too long", u32(f+8, 4095), "not within"},
		{"huge directory", u32(d+8, 1<<31), "not within"},
		{"empty directory", u32(d+8, 0), "lacks its own entry"},
		{"short directory", u32(d+8, 5), "block of 5 bytes"},
		{"negative size", func(b []byte) { le.PutUint64(b[l+8:], 1<<63) }, "is negative"},
		{"long target", func(b []byte) { le.PutUint64(b[l+8:], 5000) }, "target has 5000 bytes"},
		{"NUL in a target", func(b []byte) { b[l+inodeExtendedSize+1] = 0 }, `target "d\x00r" has a NUL`},
		{"attributes beyond", u16(x+2, 65535), "not within"},
		{"attribute's prefix", func(b []byte) { b[x+inodeCompactSize+xattrHeaderSize+1] = 9 }, "prefix 9"},
		{"attribute cut off", func(b []byte) { b[x+inodeCompactSize+xattrHeaderSize+2] = 200 }, "cut off"},
		{"shared attributes", func(b []byte) { b[x+inodeCompactSize+4] = 100 }, "100 shared extended attributes"},
		{"names begin", u16(names+8, 11), "names of a block begin at 11"},
		{"names begin beyond", u16(names+8, 1200), "names of a block begin at 1200"},
		{"name beyond", u16(names+direntSize+8, 4000), "has a name from"},
		{"loop", u64(names+2*direntSize, uint64(root/slotSize)), "inode 36 for \"..\"|in more than one place"},
		{"other self", u64(names, uint64(d/slotSize)), `for "."`},
		{"inode beyond", u64(names+2*direntSize, 1<<60), "not within"},
		{"order", func(b []byte) { b[root+inodeCompactSize+6*direntSize+3] = 0x7f }, "after"},
		{"slash", func(b []byte) { b[root+inodeCompactSize+6*direntSize+4] = '/' }, `has the name "d/r"`},
	} {
		b := bytes.Clone(good)
		c.change(b)
		_, _, _, err := walk(b)
		ok := false
		for want := range strings.SplitSeq(c.want, "|") {
			ok = ok || err != nil && strings.Contains(err.Error(), want)
		}
		if !ok {
			t.Errorf("%s: got %v, want an error with %q", c.name, err, c.want)
		}
	}
}

// TestReadRefusesMkfs has images of mkfs.erofs in forms that are not read.
func TestReadRefusesMkfs(t *testing.T) {
	src := t.TempDir()
	if err := os.WriteFile(filepath.Join(src, "f"), bytes.Repeat([]byte("compressible "), 10000), 0o666); err != nil {
		t.Fatal(err)
	}
	for arg, want := range map[string]string{"-Eztailpacking -zlz4": "incompatible features", "-Elegacy-compress -zlz4": "as Linux before 5.3 had it", "--chunksize=4096": "incompatible features 0x4"} {
		image := filepath.Join(t.TempDir(), "image")
		run(t, "mkfs.erofs", append(strings.Fields(arg), image, src)...)
		b, err := os.ReadFile(image)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, _, err := walk(b); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want an error with %q", arg, err, want)
		}
	}
}

func FuzzWalk(f *testing.F) {
	f.Add(withoutChecksum(write(f, smallEntries(), testOptions())))
	shared := smallEntries()
	for i := range 4 {
		shared = append(shared, Entry{Path: fmt.Sprint(i), Mode: 0o100644, Mtime: buildTime, Xattrs: map[string][]byte{"user.same": []byte("value")}})
	}
	f.Add(withoutChecksum(write(f, shared, testOptions())))
	f.Fuzz(func(t *testing.T, b []byte) {
		entries, _, o, err := walk(b)
		if err != nil || o.check() != nil {
			return
		}
		var total int64
		for _, e := range entries {
			total += e.Size + 65536
		}
		if total > 2<<20 {
			return
		}
		// What can be read can be written, and read again.
		w := &buffer{make([]byte, 4<<20)}
		size, err := Write(w, entries, o)
		if err != nil {
			t.Fatal(err)
		}
		again, _, _, err := walk(w.b[:size])
		if err != nil || len(again) != len(entries) {
			t.Errorf("%d entries, written and read %d, %v", len(entries), len(again), err)
		}
	})
}
