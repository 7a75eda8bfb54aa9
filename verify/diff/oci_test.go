package diff

import (
	"io"
	"strings"
	"testing"

	"caisson/build/image/ocilayout"
	"caisson/build/image/paxtar"

	"golang.org/x/sys/unix"
)

// grown is a file in memory.
type grown struct{ b []byte }

func (g *grown) WriteAt(p []byte, off int64) (int, error) {
	if n := int(off) + len(p); n > len(g.b) {
		g.b = append(g.b, make([]byte, n-len(g.b))...)
	}
	return copy(g.b[off:], p), nil
}

// image is a container image whose root has these files.
func image(t *testing.T, user string, files ...string) []byte {
	t.Helper()
	var entries []paxtar.Entry
	for i := 0; i+1 < len(files); i += 2 {
		entries = append(entries, paxtar.Entry{Path: files[i], Mode: unix.S_IFREG | 0o644, Size: int64(len(files[i+1])), Open: func() (io.ReadCloser, error) {
			return io.NopCloser(strings.NewReader(files[i+1])), nil
		}})
	}
	var g grown
	if _, err := ocilayout.Write(&g, ocilayout.Options{Arch: "amd64", Container: ocilayout.Container{User: user}}, func(w io.Writer) error { return paxtar.Write(w, entries, 0) }); err != nil {
		t.Fatal(err)
	}
	return g.b
}

// TestContainerImages finds in container images the files that differ, whatever
// the blobs are called.
func TestContainerImages(t *testing.T) {
	a := image(t, "1", "etc/motd", "hello\n", "etc/same", "same")
	b := image(t, "2", "etc/motd", "goodbye\n", "etc/same", "same", "etc/more", "x")
	owner := func(part, path string) string { return part + ":" + path }
	nodes, err := Disks(t.Context(), Source{Name: "image", Disk: mem(a), Size: int64(len(a)), Owner: owner}, Source{Name: "rebuild", Disk: mem(b), Size: int64(len(b)), Owner: owner}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	got := text(t, nodes)
	for _, want := range []string{"* a container image\n", "* configuration\n", `"User": "1"`, "* manifest\n", "* layer 1 → /etc/motd\n", "from root:/etc/motd\n", "-hello", "+goodbye", "+ layer 1 → /etc/more\n", "only in rebuild\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if strings.Contains(got, "etc/same") || strings.Contains(got, "blobs/") {
		t.Errorf("got\n%s", got)
	}
	// One that cannot be opened is compared as the archive that it is.
	broken := []byte(strings.Replace(string(a), `"imageLayoutVersion":"1.0.0"`, `"imageLayoutVersion":"9.0.0"`, 1))
	if got := compareFiles(t, "x.tar", a, broken); !strings.Contains(got, "a layout of version") || !strings.Contains(got, "/oci-layout") {
		t.Errorf("got\n%s", got)
	}
}
