package rootfs

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"io"
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
	"github.com/ulikunitz/xz/lzma"
	"golang.org/x/sys/unix"

	"caisson/build/image/cpio"
)

// tool finds a program of the machine, or skips the test.
func tool(t testing.TB, name string) string {
	t.Helper()
	p, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("CAISSON_TOOLS") == "required" {
			t.Fatalf("%s is required: %v", name, err)
		}
		t.Skipf("%s is not installed", name)
	}
	return p
}

// entry is a file of a test's payload.
type entry struct {
	name  string
	mode  uint32
	data  string // or a link's target
	ino   uint32
	nlink uint32
}

// archive is a payload.
func archive(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := cpio.NewWriter(&b)
	for _, e := range entries {
		if err := w.WriteHeader(cpio.Header{Name: e.name, Mode: e.mode, Nlink: max(1, e.nlink), Ino: e.ino, Size: int64(len(e.data))}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// named are header entries for the files of a payload.
func named(entries ...entry) []PackageFile {
	var out []PackageFile
	for _, e := range entries {
		f := PackageFile{Path: path.Clean("/" + e.name), Mode: e.mode, User: "root", Group: "root", Ino: e.ino, Size: int64(len(e.data))}
		if e.mode&unix.S_IFMT == unix.S_IFLNK {
			f.Target = e.data
		}
		out = append(out, f)
	}
	return out
}

// compress is a payload as one of rpm's compressors writes it.
func compress(t testing.TB, how string, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	var w io.WriteCloser
	var err error
	switch how {
	case "", "none":
		return b
	case "gzip":
		w = gzip.NewWriter(&out)
	case "xz":
		w, err = xz.NewWriter(&out)
	case "lzma":
		w, err = lzma.NewWriter(&out)
	case "zstd":
		w, err = zstd.NewWriter(&out)
	default:
		cmd := exec.Command(tool(t, how), "-c")
		cmd.Stdin = bytes.NewReader(b)
		packed, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		return packed
	}
	if err == nil {
		_, err = w.Write(b)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// tag is an entry of a test's header.
type tag struct {
	id, typ, count uint32
	data           []byte
}

func texts(id uint32, all ...string) tag {
	return tag{id, typeStringArray, uint32(len(all)), []byte(strings.Join(all, "\x00") + "\x00")}
}

func text(id uint32, s string) tag { return tag{id, typeString, 1, []byte(s + "\x00")} }

func ints(id uint32, all ...uint32) tag {
	t := tag{id: id, typ: typeInt32, count: uint32(len(all))}
	for _, n := range all {
		t.data = binary.BigEndian.AppendUint32(t.data, n)
	}
	return t
}

func shorts(id uint32, all ...uint16) tag {
	t := tag{id: id, typ: typeInt16, count: uint32(len(all))}
	for _, n := range all {
		t.data = binary.BigEndian.AppendUint16(t.data, n)
	}
	return t
}

// headerBytes is a header structure of tags.
func headerBytes(tags ...tag) []byte {
	var index, data []byte
	for _, t := range tags {
		for t.typ != typeStringArray && t.typ != typeString && len(data)%4 != 0 {
			data = append(data, 0)
		}
		for _, n := range []uint32{t.id, t.typ, uint32(len(data)), t.count} {
			index = binary.BigEndian.AppendUint32(index, n)
		}
		data = append(data, t.data...)
	}
	out := []byte{0x8e, 0xad, 0xe8, 1, 0, 0, 0, 0}
	out = binary.BigEndian.AppendUint32(out, uint32(len(tags)))
	out = binary.BigEndian.AppendUint32(out, uint32(len(data)))
	return slices.Concat(out, index, data)
}

// fileTags are the tags that say of files what a header says.
func fileTags(files []PackageFile) []tag {
	if len(files) == 0 {
		return nil
	}
	var base, dirs, users, groups, links, digests, caps []string
	var index, flags, sizes, inodes []uint32
	var modes, rdevs []uint16
	for _, f := range files {
		dir, name := path.Split(f.Path)
		i := slices.Index(dirs, dir)
		if i < 0 {
			i = len(dirs)
			dirs = append(dirs, dir)
		}
		base, index = append(base, name), append(index, uint32(i))
		users, groups = append(users, f.User), append(groups, f.Group)
		links, digests, caps = append(links, f.Target), append(digests, f.SHA256), append(caps, f.Caps)
		flag := uint32(0)
		if f.Ghost {
			flag = flagGhost
		}
		flags, sizes, inodes = append(flags, flag), append(sizes, uint32(f.Size)), append(inodes, f.Ino)
		modes, rdevs = append(modes, uint16(f.Mode)), append(rdevs, uint16(f.Rdev))
	}
	return []tag{
		ints(tagFileSizes, sizes...), shorts(tagFileModes, modes...), shorts(tagFileRdevs, rdevs...), texts(tagFileDigests, digests...),
		texts(tagFileLinkTos, links...), ints(tagFileFlags, flags...), texts(tagFileUserName, users...), texts(tagFileGroupName, groups...),
		ints(tagFileInodes, inodes...), ints(tagDirIndexes, index...), texts(tagBaseNames, base...), texts(tagDirNames, dirs...),
		texts(tagFileCaps, caps...), ints(tagFileDigestAlgo, algoSHA256),
	}
}

// rpmBytes is an RPM with that header and payload.
func rpmBytes(header, payload []byte) []byte {
	lead := make([]byte, leadSize)
	copy(lead, "\xed\xab\xee\xdb\x03\x00")
	signature := headerBytes(text(1000, "seven"))
	for len(signature)%8 != 0 {
		signature = append(signature, 0)
	}
	return slices.Concat(lead, signature, header, payload)
}

// makeRPM is an RPM whose header names files, with that payload.
func makeRPM(compressor string, files []PackageFile, payload []byte) []byte {
	tags := []tag{text(tagName, "made"), text(tagVersion, "1"), text(tagRelease, "1"), text(tagArch, "noarch"), text(tagPayloadFormat, "cpio")}
	if compressor != "" {
		tags = append(tags, text(tagCompressor, compressor))
	}
	return rpmBytes(headerBytes(append(tags, fileTags(files)...)...), payload)
}

// of is a package to unpack.
func of(name string, b []byte) RPM {
	return RPM{Name: name, Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }}
}
