package lock

import (
	"context"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"

	"caisson/lock/digest"
	"caisson/lock/rpmmd"
)

const (
	repomdName = "repodata/repomd.xml"
	maxRepomd  = rpmmd.MaxRepomd
	// maxSignature is the largest repomd.xml.asc read, in bytes.
	maxSignature = 1 << 20
)

// metadata is what one repomd.xml names.
type metadata struct {
	place      *place
	fetch      Fetch
	advisories bool // fetch updateinfo too
	locked     bool // fetch gives what a lock pins, which does not change
	readers    int  // arches that have not read it
	blob       Blob // repomd.xml
	repomd     *rpmmd.Repomd
	files      map[string]dataFile // those that were fetched, by type
	content    *content
}

// dataFile is a metadata file that was fetched.
type dataFile struct {
	rel  string
	blob Blob
}

// content is what the solver needs of a repository's metadata.
type content struct {
	packages []rpmmd.Package
	comps    *rpmmd.Comps
	modules  *rpmmd.Modules
}

// open fetches repomd.xml: the one that the metalink names, or one of those
// that it accepts still; without a metalink the one there is.
func (d *metadata) open(ctx context.Context) error {
	w := d.place.want(repomdName)
	w.Max = maxRepomd
	if d.place.metalink == "" {
		return d.openAs(ctx, w)
	}
	var first error
	for i := range d.place.accepted {
		v := &d.place.accepted[i]
		var err error
		if v.SHA256() == "" {
			err = fmt.Errorf("%s: it has no SHA-256 of repomd.xml", d.place.metalink)
		} else if w.SHA256, err = digest.ParseHex(v.SHA256()); err == nil {
			w.Size = v.Size
			err = d.openAs(ctx, w)
		}
		if err == nil || ctx.Err() != nil {
			return err
		}
		if first == nil {
			first = err
		}
		if !isMoved(err) && v.SHA256() != "" {
			break
		}
	}
	err := fmt.Errorf("no mirror has the repomd.xml that %s names: %w", d.place.metalink, first)
	if isMoved(first) {
		err = &movedError{d.place.repo.ID, err}
	}
	return err
}

func (d *metadata) openAs(ctx context.Context, w Want) error {
	blob, err := d.fetch(ctx, w)
	if err == nil && !w.SHA256.IsZero() && blob.SHA256 != w.SHA256 {
		err = fmt.Errorf("%s: %w: got %s, want %s", w.URL, ErrMismatch, blob.SHA256, w.SHA256)
	}
	if err != nil {
		return err
	}
	f, err := os.Open(blob.Path)
	if err != nil {
		return err
	}
	defer f.Close()
	if d.repomd, err = rpmmd.ParseRepomd(f); err != nil {
		return fmt.Errorf("%s: %w", w.URL, err)
	}
	d.blob, d.files = blob, map[string]dataFile{"repomd.xml": {repomdName, blob}}
	return nil
}

// isMoved tells whether a file is not there, or is not the one that was named:
// what names it may be older, or newer, than it is.
func isMoved(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrMismatch) }

// read fetches and parses what is needed always.
func (d *metadata) read(ctx context.Context) (*content, error) {
	d.readers--
	c := d.content
	if c == nil {
		var err error
		if c, err = d.parse(ctx); err != nil {
			return nil, err
		}
		d.content = c
	}
	if d.readers == 0 { // it is large, and nobody else wants it
		d.content = nil
	}
	return c, nil
}

func (d *metadata) parse(ctx context.Context) (*content, error) {
	c := &content{}
	if d.repomd.Find("primary") == nil {
		return nil, errors.New("repomd.xml names no primary")
	}
	var err error
	if c.packages, err = readData(ctx, d, "primary", rpmmd.ParsePrimary); err != nil {
		return nil, err
	}
	for _, typ := range []string{"group_gz", "group"} { // the same, compressed and not
		if d.repomd.Find(typ) == nil {
			continue
		}
		if c.comps, err = readData(ctx, d, typ, rpmmd.ParseComps); err != nil {
			return nil, err
		}
		break
	}
	if d.repomd.Find("modules") != nil {
		if c.modules, err = readData(ctx, d, "modules", rpmmd.ParseModules); err != nil {
			return nil, err
		}
	}
	if d.advisories && d.repomd.Find("updateinfo") != nil {
		_, err = d.file(ctx, "updateinfo")
	}
	return c, err
}

func readData[T any](ctx context.Context, d *metadata, typ string, parse func(io.Reader) (T, error)) (out T, err error) {
	blob, err := d.file(ctx, typ)
	if err != nil {
		return out, err
	}
	f, err := os.Open(blob.Path)
	if err != nil {
		return out, err
	}
	defer f.Close()
	if out, err = parse(f); err != nil {
		err = fmt.Errorf("%s: %w", d.place.want(d.files[typ].rel).URL, err)
	}
	return out, err
}

// types are the types of the files that were fetched, sorted.
func (d *metadata) types() []string { return slices.Sorted(maps.Keys(d.files)) }

// file fetches one of the files that repomd.xml names, once.
func (d *metadata) file(ctx context.Context, typ string) (Blob, error) {
	if f, ok := d.files[typ]; ok {
		return f.blob, nil
	}
	named := d.repomd.Find(typ)
	blob, err := d.fetchData(ctx, named)
	if err != nil {
		if !d.locked && isMoved(err) {
			err = &movedError{d.place.repo.ID, fmt.Errorf("%s is not the file that repomd.xml (%s) names, which has %s:%s: %w",
				named.Location, d.blob.SHA256, named.Checksum.Algorithm, named.Checksum.Hex, err)}
		}
		return Blob{}, err
	}
	d.files[typ] = dataFile{named.Location, blob}
	return blob, nil
}

// fetchData fetches a file that is pinned by SHA-256; or by SHA-384 or
// SHA-512, which is checked here, at each mirror in turn.
func (d *metadata) fetchData(ctx context.Context, f *rpmmd.Data) (Blob, error) {
	w := d.place.want(f.Location)
	if w.Size = f.Size; w.Size == 0 {
		w.Max = rpmmd.MaxFilelists
	}
	var sum func() hash.Hash
	switch f.Checksum.Algorithm {
	case "sha256":
		var err error
		if w.SHA256, err = digest.ParseHex(f.Checksum.Hex); err != nil {
			return Blob{}, fmt.Errorf("%s: %w", w.URL, err)
		}
		return d.fetch(ctx, w)
	case "sha384":
		sum = sha512.New384
	case "sha512":
		sum = sha512.New
	default:
		return Blob{}, fmt.Errorf("%s: repomd.xml pins it by %s, which can be forged; want sha256, sha384 or sha512", w.URL, f.Checksum.Algorithm)
	}
	var first error
	for _, at := range append([]string{w.URL}, w.Mirrors...) {
		one := w
		one.URL, one.Mirrors = at, nil
		blob, err := d.fetch(ctx, one)
		if err == nil {
			err = checkSum(blob.Path, sum(), f.Checksum)
		}
		if err == nil || ctx.Err() != nil {
			return blob, err
		}
		if first == nil {
			first = fmt.Errorf("%s: %w", at, err)
		}
	}
	return Blob{}, first
}

// checkSum compares a file's digest with the one in the metadata.
func checkSum(name string, h hash.Hash, want rpmmd.Checksum) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := io.Copy(h, f); err != nil {
		return err
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != want.Hex {
		return fmt.Errorf("%w: got %s:%s, want %s:%s", ErrMismatch, want.Algorithm, got, want.Algorithm, want.Hex)
	}
	return nil
}

// checkRepomd checks the signature of repomd.xml.
func (l *repoLoader) checkRepomd(ctx context.Context, blob Blob) error {
	w := l.want(repomdName + ".asc")
	w.Max = maxSignature
	sig, err := l.r.Fetch(ctx, w)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("repo_gpgcheck is on and %s does not exist", w.URL)
	}
	if err != nil {
		return err
	}
	var keys [][]byte
	for _, k := range l.keys {
		in := l.r.inputs[KindKey+"/"+k]
		b, d, err := l.r.readKey(ctx, in)
		if err != nil {
			return err
		}
		if d != in.SHA256 {
			return fmt.Errorf("gpgkey: %s changed while it was read: got %s, want %s", k, d, in.SHA256)
		}
		keys = append(keys, b)
	}
	signed, err := os.Open(blob.Path)
	if err != nil {
		return err
	}
	defer signed.Close()
	signature, err := os.Open(sig.Path)
	if err != nil {
		return err
	}
	defer signature.Close()
	if err := l.r.CheckSignature(keys, signed, signature); err != nil {
		if moved := l.recheck(ctx); errors.As(moved, new(*movedError)) {
			return moved // the signature may be the next one's
		}
		return fmt.Errorf("%s: %w", w.URL, err)
	}
	return nil
}
