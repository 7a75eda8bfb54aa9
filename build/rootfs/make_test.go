package rootfs

import (
	"bytes"
	"compress/gzip"
	"io"
	"os/exec"
	"path"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
	"github.com/ulikunitz/xz/lzma"
	"golang.org/x/sys/unix"

	"caisson/build/rootfs/rpmtest"
	"caisson/lock/tooltest"
)

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
	var all []rpmtest.Entry
	for _, e := range entries {
		all = append(all, rpmtest.Entry{Name: e.name, Mode: e.mode, Data: e.data, Ino: e.ino, Nlink: e.nlink})
	}
	b, err := rpmtest.Archive(all...)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// named are header entries for the files of a payload: the names of one file agree.
func named(entries ...entry) []PackageFile {
	var out []PackageFile
	content := map[uint32]string{}
	for _, e := range entries {
		if e.nlink > 1 {
			content[e.ino] += e.data
		}
	}
	for _, e := range entries {
		if e.nlink > 1 {
			e.data = content[e.ino]
		}
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
		cmd := exec.Command(tooltest.Find(t, how), "-c")
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

// fileTags are the tags that say of files what a header says.
func fileTags(files []PackageFile) []rpmtest.Tag {
	var all []rpmtest.File
	for _, f := range files {
		all = append(all, rpmtest.File{
			Path: f.Path, Mode: f.Mode, User: f.User, Group: f.Group, Size: f.Size, SHA256: f.SHA256, Target: f.Target,
			Rdev: f.Rdev, Ino: f.Ino, Caps: f.Caps, Ghost: f.Ghost,
		})
	}
	return rpmtest.FileTags(all)
}

// rpmBytes is an RPM with that header and payload.
func rpmBytes(header, payload []byte) []byte {
	return rpmtest.Join(rpmtest.Header(rpmtest.Text(1000, "seven")), header, payload)
}

// makeRPM is an RPM whose header names files, with that payload.
func makeRPM(compressor string, files []PackageFile, payload []byte) []byte {
	tags := []rpmtest.Tag{rpmtest.Text(tagName, "made"), rpmtest.Text(tagVersion, "1"), rpmtest.Text(tagRelease, "1"), rpmtest.Text(tagArch, "noarch"), rpmtest.Text(tagPayloadFormat, "cpio")}
	if compressor != "" {
		tags = append(tags, rpmtest.Text(tagCompressor, compressor))
	}
	return rpmBytes(rpmtest.Header(append(tags, fileTags(files)...)...), payload)
}

// of is a package to unpack.
func of(name string, b []byte) RPM {
	return RPM{Name: name, Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }}
}
