package vm

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"caisson/lock/digest"
)

// maxResults is how many files a build may leave.
const maxResults = 256

// writeResults writes the files of a folder, which has no others, as a tar archive.
func writeResults(w io.Writer, dir string) (written, error) {
	sum := sha256.New()
	n := &counter{w: io.MultiWriter(w, sum)}
	a := tar.NewWriter(n)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return written{}, err
	}
	for _, e := range entries {
		if err := writeResult(a, filepath.Join(dir, e.Name())); err != nil {
			return written{}, err
		}
	}
	if err := a.Close(); err != nil {
		return written{}, err
	}
	return written{n.n, digest.Digest(sum.Sum(nil))}, nil
}

func writeResult(a *tar.Writer, name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() {
		return fmt.Errorf("%s is no file", name)
	}
	if err := a.WriteHeader(&tar.Header{Name: filepath.Base(name), Size: st.Size(), Mode: 0o644, Format: tar.FormatPAX}); err != nil {
		return err
	}
	_, err = io.Copy(a, f)
	return err
}

// counter counts what is written.
type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += int64(n)
	return n, err
}

// readResults unpacks what a machine has left into a folder. The machine ran foreign
// code, so it is not believed: r has to be the archive that the message named; there
// are regular files only, each of a name that wanted knows, once, without a folder in
// it, and they are written as new files. What has no data, such as holes of a sparse
// file, is refused: of r's bytes, no more can come than there are.
func readResults(ctx context.Context, r io.ReaderAt, want written, dir string, wanted func(name string) bool) error {
	whole := io.NewSectionReader(r, 0, want.Size)
	sum, n, err := digest.Reader(whole)
	if err != nil {
		return err
	}
	if n != want.Size || sum != want.SHA256 {
		return fmt.Errorf("got %d bytes, %s, and the machine said %d bytes, %s", n, sum, want.Size, want.SHA256)
	}
	a := tar.NewReader(io.NewSectionReader(r, 0, want.Size))
	left := want.Size
	for count := 0; ; count++ {
		h, err := a.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		switch {
		case count == maxResults:
			return fmt.Errorf("more than %d files", maxResults)
		case h.Typeflag != tar.TypeReg:
			return fmt.Errorf("%q is no regular file", h.Name)
		case h.Name != filepath.Base(h.Name) || strings.HasPrefix(h.Name, ".") || !wanted(h.Name):
			return fmt.Errorf("%q is no file that a build leaves", h.Name)
		case h.Size < 0 || h.Size > left:
			return fmt.Errorf("%q has %d bytes, more than the machine wrote", h.Name, h.Size)
		}
		left -= h.Size
		if err := writeNew(filepath.Join(dir, h.Name), a, 0o644); err != nil {
			return errors.Join(fmt.Errorf("unpacking %q", h.Name), err)
		}
	}
}
