package gittree

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"time"
)

// Source is where Write finds the objects of a repository. Write believes
// what it is given: Check proves the outcome.
type Source struct {
	// ID is the commit's, or that of an annotated tag, in hex.
	ID string
	// Open opens an object.
	Open func(id string) (*Object, error)
	// Module is where a submodule is found that .gitmodules names, or nil
	// for one that is not to be taken. Module itself is nil where none is.
	Module func(s Submodule) (*Source, error)
}

// Object is an open object of a repository.
type Object struct {
	Type string // commit, tree, blob or tag
	Size int64  // bytes
	io.ReadCloser
}

// Write writes a repository at a commit in the form of the package comment.
func Write(w io.Writer, s *Source) error {
	tw := &writer{tw: tar.NewWriter(w)}
	if err := tw.repository(s, ""); err != nil {
		return err
	}
	return tw.tw.Close()
}

// writer writes entries; prefix is "" or "modules/PATH/…".
type writer struct {
	tw      *tar.Writer
	files   int
	links   int
	modules int
}

func newHeader(name string, size int64) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: size, ModTime: time.Unix(0, 0), Format: tar.FormatPAX}
}

// meta writes a commit or tag object.
func (w *writer) meta(name string, raw []byte) error {
	if err := w.tw.WriteHeader(newHeader(name, int64(len(raw)))); err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	_, err := w.tw.Write(raw)
	return err
}

// treeHeader is the header of a tree's entry. target is a symbolic link's.
func treeHeader(name string, e entry, size int64, target string) *tar.Header {
	h := newHeader(name, size)
	switch e.mode {
	case modeGroup:
		h.Mode = 0o664
	case modeExec:
		h.Mode = 0o755
	case modeLink:
		h.Typeflag, h.Mode, h.Linkname, h.Size = tar.TypeSymlink, 0o777, target, 0
	case modeDir:
		h.Typeflag, h.Mode, h.Name = tar.TypeDir, 0o755, name+"/"
	case modeGitlink:
		h.Typeflag, h.Mode, h.Name = tar.TypeDir, 0o755, name+"/"
		h.PAXRecords = map[string]string{gitlinkRecord: e.id}
	}
	return h
}

// repository writes one repository, and below it its submodules.
func (w *writer) repository(s *Source, prefix string) error {
	if strings.Count(prefix, "/modules/") >= maxNested {
		return fmt.Errorf("%s: more than %d submodules inside each other", prefix, maxNested)
	}
	id, err := w.tags(s, prefix)
	if err != nil {
		return err
	}
	raw, err := s.read(id, typeCommit, maxMeta)
	if err != nil {
		return err
	}
	c, err := parseCommit(raw)
	if err != nil {
		return fmt.Errorf("%s: %w", id, err)
	}
	t := treeWriter{w: w, s: s, prefix: prefix, hexLen: len(id)}
	if err := t.dir(c.tree, ""); err != nil {
		return err
	}
	if s.Module == nil || len(t.links) == 0 || t.modules == nil {
		return nil
	}
	urls, err := parseModules(t.modules)
	if err != nil {
		return err
	}
	for _, link := range t.links {
		url, ok := urls[link.Path]
		if !ok {
			continue
		}
		link.URL = url
		sub, err := s.Module(link)
		if err != nil {
			return fmt.Errorf("submodule %s: %w", link.Path, err)
		}
		if sub == nil {
			continue
		}
		if w.modules++; w.modules > maxModules {
			return fmt.Errorf("more than %d submodules", maxModules)
		}
		if err := w.repository(sub, prefix+"modules/"+moduleName(link.Path)+"/"); err != nil {
			return fmt.Errorf("submodule %s: %w", link.Path, err)
		}
	}
	return nil
}

// tags writes the commit and before it, in the order of the form after it,
// the tags that lead to it. It returns the commit's id.
func (w *writer) tags(s *Source, prefix string) (id string, err error) {
	var tags [][]byte
	id = s.ID
	for {
		if !IsID(id) {
			return "", fmt.Errorf("%q is no id of an object", id)
		}
		o, err := s.Open(id)
		if err != nil {
			return "", fmt.Errorf("object %s: %w", id, err)
		}
		raw, err := o.readAll(maxMeta)
		switch {
		case err != nil:
			return "", fmt.Errorf("object %s: %w", id, err)
		case o.Type == typeCommit:
			if err := w.meta(prefix+"commit", raw); err != nil {
				return "", err
			}
			for i, t := range tags {
				if err := w.meta(prefix+tagName(i+1), t); err != nil {
					return "", err
				}
			}
			return id, nil
		case o.Type != typeTag:
			return "", fmt.Errorf("object %s is a %s, want a commit", id, o.Type)
		case len(tags) == maxTags:
			return "", fmt.Errorf("tag %s: more than %d tags of tags", s.ID, maxTags)
		}
		t, err := parseTag(raw)
		if err != nil {
			return "", fmt.Errorf("tag %s: %w", id, err)
		}
		tags, id = append(tags, raw), t.object
	}
}

// read reads a whole object of that type.
func (s *Source) read(id, typ string, limit int64) ([]byte, error) {
	o, err := s.Open(id)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", typ, id, err)
	}
	raw, err := o.readAll(limit)
	if err == nil && o.Type != typ {
		err = fmt.Errorf("it is a %s", o.Type)
	}
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", typ, id, err)
	}
	return raw, nil
}

// readAll reads the object and closes it.
func (o *Object) readAll(limit int64) ([]byte, error) {
	defer o.Close()
	if o.Size > limit {
		return nil, fmt.Errorf("a %s of %d bytes; want %d at most", o.Type, o.Size, limit)
	}
	var b bytes.Buffer
	n, err := io.Copy(&b, io.LimitReader(o, o.Size+1))
	if err == nil && n != o.Size {
		err = fmt.Errorf("got %d bytes, want %d", n, o.Size)
	}
	return b.Bytes(), err
}

// treeWriter writes the tree of one repository.
type treeWriter struct {
	w       *writer
	s       *Source
	prefix  string
	hexLen  int
	links   []Submodule
	modules []byte // .gitmodules
}

// dir writes the tree object id, which is at that path.
func (t *treeWriter) dir(id, at string) error {
	raw, err := t.s.read(id, typeTree, maxTree)
	if err != nil {
		return err
	}
	entries, err := parseTree(raw, t.hexLen)
	if err != nil {
		return fmt.Errorf("tree %s: %w", id, err)
	}
	if len(entries) == 0 && at != "" {
		return t.put(entry{mode: modeDir}, at, 0, "")
	}
	for _, e := range entries {
		name := path.Join(at, e.name)
		if len(name) > maxPath {
			return fmt.Errorf("%.40q… is longer than %d bytes", name, maxPath)
		}
		if e.isDir() {
			err = t.dir(e.id, name)
		} else if t.w.files++; t.w.files > maxFiles {
			err = fmt.Errorf("more than %d files", maxFiles)
		} else {
			err = t.file(e, name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (t *treeWriter) put(e entry, at string, size int64, target string) error {
	if err := t.w.tw.WriteHeader(treeHeader(t.prefix+"tree/"+at, e, size, target)); err != nil {
		return fmt.Errorf("writing %s: %w", at, err)
	}
	return nil
}

func (t *treeWriter) file(e entry, at string) error {
	switch {
	case e.mode == modeGitlink:
		if t.w.links++; t.w.links > maxLinks {
			return fmt.Errorf("more than %d places of submodules", maxLinks)
		}
		t.links = append(t.links, Submodule{Path: at, Commit: e.id})
		return t.put(e, at, 0, "")
	case e.mode == modeLink:
		target, err := t.s.read(e.id, typeBlob, maxPath)
		if err != nil {
			return fmt.Errorf("%s: %w", at, err)
		}
		if len(target) == 0 || bytes.IndexByte(target, 0) >= 0 {
			return fmt.Errorf("%s: %q is no target of a symbolic link", at, target)
		}
		return t.put(e, at, 0, string(target))
	case at == ".gitmodules":
		var err error
		if t.modules, err = t.s.read(e.id, typeBlob, maxMeta); err != nil {
			return fmt.Errorf("%s: %w", at, err)
		}
		if err := t.put(e, at, int64(len(t.modules)), ""); err != nil {
			return err
		}
		_, err = t.w.tw.Write(t.modules)
		return err
	}
	o, err := t.s.Open(e.id)
	if err != nil {
		return fmt.Errorf("%s: %w", at, err)
	}
	defer o.Close()
	if o.Type != typeBlob {
		return fmt.Errorf("%s: object %s is a %s, want a blob", at, e.id, o.Type)
	}
	if err := t.put(e, at, o.Size, ""); err != nil {
		return err
	}
	n, err := io.Copy(t.w.tw, o)
	if err == nil && n != o.Size {
		err = errors.New("it is cut")
	}
	if err != nil {
		return fmt.Errorf("%s: %w", at, err)
	}
	return nil
}
