// Package objects reads the objects of git repositories from a folder, in
// memory that does not follow their sizes.
//
// A folder is one that git calls "objects": packs and their indexes
// (gitformat-pack, version 2 of both), loose objects, and alternates. An
// object is read as a stream. What it is a change of, where a pack has it so,
// is in memory up to a megabyte, else in a temporary file. Index makes the
// index of a pack that has come without one, the same to the byte as git's own.
//
// That an object is what its id says is not checked here: who reads it has to.
//
// # Limits
//
// A million objects in a pack that is indexed, for each of which some 45 bytes
// are in memory (57 where ids are SHA-256); chains of 4095 changes, the most
// that git makes; 5 alternates of each other. No multi-pack-index is needed,
// and none read.
package objects

import (
	"bufio"
	"compress/zlib"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/go-git/go-git/v5/plumbing/cache"

	"caisson/lock/gittree"
)

const (
	maxObjects    = 1_000_000
	maxChain      = 4095
	maxAlternates = 5
	// maxLooseHead is how long the head of a loose object may be, in bytes.
	maxLooseHead = 32
)

// Store is a folder of objects. It may be used from many goroutines.
type Store struct {
	dir    string
	temp   string // where temporary files are
	hexLen int
	packs  []*pack
	lower  []*Store  // the alternates
	idle   sync.Pool // of inflaters
	bases  *cache.BufferLRU
}

// Open opens a folder of objects whose ids have so many hex digits, 40 or 64.
// Temporary files are in temp, empty for where the system has them.
func Open(dir string, hexLen int, temp string) (*Store, error) {
	return open(dir, hexLen, temp, maxAlternates)
}

func open(dir string, hexLen int, temp string, depth int) (*Store, error) {
	s := &Store{dir: dir, temp: temp, hexLen: hexLen, bases: cache.NewBufferLRU(allInMemory)}
	names, err := filepath.Glob(filepath.Join(escapeGlob(dir), "pack", "pack-*.idx"))
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		p, err := openPack(strings.TrimSuffix(name, ".idx"), hexLen/2)
		if errors.Is(err, fs.ErrNotExist) {
			continue // an index alone, as git passes over it
		}
		if err != nil {
			return nil, errors.Join(err, s.Close())
		}
		p.number = int64(len(s.packs))
		s.packs = append(s.packs, p)
	}
	others, err := readAlternates(dir)
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	for _, other := range others {
		if depth == 0 {
			return nil, errors.Join(fmt.Errorf("%s: more than %d alternates of each other", dir, maxAlternates), s.Close())
		}
		l, err := open(other, hexLen, temp, depth-1)
		if err != nil {
			return nil, errors.Join(err, s.Close())
		}
		s.lower = append(s.lower, l)
	}
	return s, nil
}

// escapeGlob makes a path a pattern for itself.
func escapeGlob(path string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(path)
}

// readAlternates reads where else a repository's objects are
// (gitrepository-layout, objects/info/alternates).
func readAlternates(dir string) ([]string, error) {
	b, err := os.ReadFile(filepath.Join(dir, "info", "alternates"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []string
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		if !filepath.IsAbs(line) {
			line = filepath.Join(dir, line)
		}
		out = append(out, line)
	}
	return out, nil
}

// Close closes the packs.
func (s *Store) Close() error {
	var errs []error
	for _, p := range s.packs {
		errs = append(errs, p.close())
	}
	for _, l := range s.lower {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}

// Open opens an object; one that is not there is fs.ErrNotExist.
func (s *Store) Open(id string) (*gittree.Object, error) {
	return each(s, id, s.openPacked, s.openLoose, (*Store).Open)
}

// Size is an object's, in bytes.
func (s *Store) Size(id string) (int64, error) {
	return each(s, id, s.packedSize, s.looseSize, (*Store).Size)
}

// each looks for an object in the packs, among the loose ones, and below.
func each[T any](s *Store, id string, packed func(*pack, int64) (T, error), loose func(string) (T, error), below func(*Store, string) (T, error)) (T, error) {
	var none T
	raw, err := hex.DecodeString(id)
	if err != nil || len(id) != s.hexLen {
		return none, fmt.Errorf("the repository has no object %q: %w", id, fs.ErrNotExist)
	}
	for _, p := range s.packs {
		at, ok, err := p.find(raw)
		if err != nil {
			return none, err
		}
		if ok {
			o, err := packed(p, at)
			if err != nil {
				return none, fmt.Errorf("the object at byte %d of the pack: %w", at, err)
			}
			return o, nil
		}
	}
	o, err := loose(id)
	if !errors.Is(err, fs.ErrNotExist) {
		return o, err
	}
	for _, l := range s.lower {
		if o, err := below(l, id); !errors.Is(err, fs.ErrNotExist) {
			return o, err
		}
	}
	return none, fmt.Errorf("the repository does not have it: %w", fs.ErrNotExist)
}

// Find are the ids that begin with so many hex digits, an even number; sorted.
func (s *Store) Find(prefix string) ([]string, error) {
	raw, err := hex.DecodeString(prefix)
	if err != nil || len(raw) == 0 {
		return nil, fmt.Errorf("%q is no beginning of an id", prefix)
	}
	var out []string
	for _, p := range s.packs {
		ids, err := p.withPrefix(raw)
		if err != nil {
			return nil, err
		}
		out = append(out, ids...)
	}
	loose, err := os.ReadDir(filepath.Join(s.dir, prefix[:2]))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, e := range loose {
		if id := prefix[:2] + e.Name(); len(id) == s.hexLen && strings.HasPrefix(id, prefix) {
			out = append(out, id)
		}
	}
	for _, l := range s.lower {
		ids, err := l.Find(prefix)
		if err != nil {
			return nil, err
		}
		out = append(out, ids...)
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// openLoose opens an object that is a file of its own (gitformat-loose).
func (s *Store) openLoose(id string) (*gittree.Object, error) {
	f, err := os.Open(filepath.Join(s.dir, id[:2], id[2:]))
	if err != nil {
		return nil, err
	}
	o, err := s.readLoose(f)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("the loose object %s: %w", id, err), f.Close())
	}
	return o, nil
}

func (s *Store) readLoose(f *os.File) (*gittree.Object, error) {
	z, err := s.inflate(f)
	if err != nil {
		return nil, err
	}
	head, err := readHead(z)
	if err != nil {
		return nil, err
	}
	typ, size, ok := strings.Cut(head, " ")
	n, err := strconv.ParseInt(size, 10, 64)
	if !ok || err != nil || n < 0 || !slices.Contains(typeNames[:], typ) || typ == "" {
		return nil, fmt.Errorf("it begins with %q", head)
	}
	return &gittree.Object{Type: typ, Size: n, ReadCloser: &body{r: exactly(z, n), close: func() error {
		s.idle.Put(z)
		return f.Close()
	}}}, nil
}

func (s *Store) looseSize(id string) (int64, error) {
	o, err := s.openLoose(id)
	if err != nil {
		return 0, err
	}
	return o.Size, o.Close()
}

// readHead reads up to a NUL.
func readHead(r io.Reader) (string, error) {
	var b [maxLooseHead]byte
	for i := range b {
		if _, err := io.ReadFull(r, b[i:i+1]); err != nil {
			return "", noEOF(err)
		}
		if b[i] == 0 {
			return string(b[:i]), nil
		}
	}
	return "", errors.New("its head is too long")
}

// bufferSize is how much of a file is read at once, in bytes.
const bufferSize = 32 << 10

// inflater inflates. Its buffers serve one stream after another.
type inflater struct {
	io.ReadCloser
	in *bufio.Reader // of what is read in pieces; nil for what is not
}

// reset begins another stream, of which it takes no byte too many where that
// can be read byte by byte.
func (z *inflater) reset(r io.Reader) (err error) {
	if _, ok := r.(io.ByteReader); !ok {
		if z.in == nil {
			z.in = bufio.NewReaderSize(r, bufferSize)
		}
		z.in.Reset(r)
		r = z.in
	}
	if z.ReadCloser == nil {
		z.ReadCloser, err = zlib.NewReader(r)
	} else if again, ok := z.ReadCloser.(zlib.Resetter); ok {
		err = again.Reset(r, nil)
	}
	return noEOF(err)
}

// inflate begins to inflate a stream.
func (s *Store) inflate(r io.Reader) (*inflater, error) {
	z, ok := s.idle.Get().(*inflater)
	if !ok {
		z = new(inflater)
	}
	return z, z.reset(r)
}

// noEOF makes the end of a file an error where there should be more.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// body is a reader, and what closing it takes.
type body struct {
	r     io.Reader
	close func() error
}

func (b *body) Read(p []byte) (int, error) { return b.r.Read(p) }

func (b *body) Close() error { return b.close() }

// exactly is a reader of so many bytes: that there are fewer or more is an
// error of the last Read.
func exactly(r io.Reader, n int64) io.Reader { return &exact{r, n} }

type exact struct {
	r    io.Reader
	left int64
}

func (e *exact) Read(p []byte) (int, error) {
	if e.left > 0 {
		n, err := e.r.Read(p[:min(int64(len(p)), e.left)])
		e.left -= int64(n)
		if e.left > 0 {
			err = noEOF(err)
		} else if errors.Is(err, io.EOF) {
			err = nil // the next Read looks for more
		}
		return n, err
	}
	var one [1]byte
	if n, err := io.ReadFull(e.r, one[:]); n > 0 || !errors.Is(err, io.EOF) {
		return 0, errors.Join(errors.New("it is longer than it says"), err)
	}
	return 0, io.EOF
}
