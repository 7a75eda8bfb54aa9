package tekton

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
)

// ParseArtifact reads a trusted artifact as build-trusted-artifacts' use-oci.sh
// is given it, oci:REPO[:TAG]@sha256:HEX=FOLDER: a blob of a registry, a tar by
// gzip, and where it goes.
func ParseArtifact(s string) (blob name.Digest, dir string, err error) {
	uri, ok := s, false
	if i := strings.LastIndexByte(s, '='); i >= 0 { // what is before is another's, and has none
		uri, dir, ok = s[:i], s[i+1:], true
	}
	ref, oci := strings.CutPrefix(uri, "oci:")
	switch {
	case !ok || dir == "":
		return blob, "", fmt.Errorf("%q: want oci:REPO@sha256:HEX=FOLDER", s)
	case uri == "":
		return blob, "", fmt.Errorf("there is no artifact for %s", dir)
	case !oci:
		return blob, "", fmt.Errorf("the artifact %q: want oci:REPO@sha256:HEX", uri)
	}
	if err := pinned(ref); err != nil {
		return blob, "", fmt.Errorf("the artifact %q: %w", uri, err)
	}
	blob, err = name.NewDigest(ref, name.StrictValidation)
	return blob, dir, err
}

// Pack writes the files, folders and symbolic links below a folder as a tar by
// gzip. The same content gives the same bytes, for whoever calls it and when.
func Pack(w io.Writer, dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	zw, err := gzip.NewWriterLevel(w, gzip.BestSpeed)
	if err != nil {
		return err
	}
	tw := tar.NewWriter(zw)
	err = fs.WalkDir(root.FS(), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == "." {
			return err
		}
		return packOne(tw, root, p, d)
	})
	return errors.Join(err, tw.Close(), zw.Close())
}

func packOne(tw *tar.Writer, root *os.Root, p string, d fs.DirEntry) error {
	h := &tar.Header{Name: p, ModTime: time.Unix(0, 0), Format: tar.FormatPAX}
	info, err := d.Info()
	if err != nil {
		return err
	}
	h.Mode = int64(info.Mode().Perm())
	switch {
	case d.IsDir():
		h.Typeflag, h.Name = tar.TypeDir, p+"/"
		return tw.WriteHeader(h)
	case d.Type() == fs.ModeSymlink:
		h.Typeflag = tar.TypeSymlink
		if h.Linkname, err = root.Readlink(p); err != nil {
			return err
		}
		return tw.WriteHeader(h)
	case !d.Type().IsRegular():
		return fmt.Errorf("%s is neither a file, a folder nor a symbolic link", p)
	}
	f, err := root.Open(p)
	if err != nil {
		return err
	}
	defer f.Close()
	h.Typeflag, h.Size = tar.TypeReg, info.Size()
	if err := tw.WriteHeader(h); err != nil {
		return err
	}
	_, err = io.Copy(tw, f)
	return err
}

// Unpack writes the content of a tar by gzip below a folder, which may be there.
// Nothing is written outside of it, and nothing that is there is replaced. It
// reads to the end, so that a reader that checks a digest has checked it. Owners,
// times, and the bits that lend rights are not taken over.
func Unpack(dir string, r io.Reader) error {
	zr, err := gzip.NewReader(r)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	tr := tar.NewReader(zr)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = unpackOne(root, h, tr)
		}
		if err != nil {
			return err
		}
	}
	if _, err := io.Copy(io.Discard, zr); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, r)
	return err
}

func unpackOne(root *os.Root, h *tar.Header, r io.Reader) error {
	name := path.Clean(h.Name)
	if name == "." || h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	if !filepath.IsLocal(name) {
		return fmt.Errorf("%q is outside of the folder", h.Name)
	}
	if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	mode := fs.FileMode(h.Mode) & fs.ModePerm
	switch h.Typeflag {
	case tar.TypeDir:
		if err := root.MkdirAll(name, 0o755); err != nil {
			return err
		}
		return root.Chmod(name, mode|0o700)
	case tar.TypeSymlink:
		return root.Symlink(h.Linkname, name)
	case tar.TypeLink:
		return root.Link(path.Clean(h.Linkname), name)
	case tar.TypeReg:
		f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, r)
		return errors.Join(err, f.Chmod(mode), f.Close())
	}
	return fmt.Errorf("%q is neither a file, a folder nor a link", h.Name)
}
