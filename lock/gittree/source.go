package gittree

import (
	"bytes"
	"fmt"
	"io"
	"path"
)

// Source is where Write and Walk find the objects of a repository. They believe
// what they are given: Check proves what Write makes of it.
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

// Entry is a file of a commit, the place of a submodule, or an empty folder.
type Entry struct {
	Path string
	Mode string // one of the Mode constants
	ID   string // in hex
}

// Walk shows the entries of a commit, or of the commit that a tag is of, in
// the order of git. It refuses what the package comment does.
func Walk(s *Source, visit func(e Entry) error) error {
	id, raw, _, err := s.peel()
	if err != nil {
		return err
	}
	return s.walk(id, raw, visit)
}

// Peel is the id of the commit that the source's tags lead to.
func Peel(s *Source) (id string, err error) {
	id, _, _, err = s.peel()
	return id, err
}

// peel is the commit of the source, its object, and those of the tags that
// lead to it, the outermost first.
func (s *Source) peel() (id string, commit []byte, tags [][]byte, err error) {
	id = s.ID
	for {
		if !IsID(id) {
			return "", nil, nil, fmt.Errorf("%q is no id of an object", id)
		}
		o, err := s.Open(id)
		if err != nil {
			return "", nil, nil, fmt.Errorf("object %s: %w", id, err)
		}
		raw, err := o.readAll(maxMeta)
		switch {
		case err != nil:
			return "", nil, nil, fmt.Errorf("object %s: %w", id, err)
		case o.Type == typeCommit:
			return id, raw, tags, nil
		case o.Type != typeTag:
			return "", nil, nil, fmt.Errorf("object %s is a %s, want a commit", id, o.Type)
		case len(tags) == maxTags:
			return "", nil, nil, fmt.Errorf("tag %s: more than %d tags of tags", s.ID, maxTags)
		}
		t, err := parseTag(raw)
		if err != nil {
			return "", nil, nil, fmt.Errorf("tag %s: %w", id, err)
		}
		tags, id = append(tags, raw), t.object
	}
}

// walk shows the entries of a commit.
func (s *Source) walk(id string, commit []byte, visit func(e Entry) error) error {
	c, err := parseCommit(commit)
	if err != nil {
		return fmt.Errorf("%s: %w", id, err)
	}
	w := walker{s: s, hexLen: len(id), visit: visit}
	return w.dir(c.tree, "")
}

// walker walks a tree.
type walker struct {
	s      *Source
	hexLen int
	visit  func(e Entry) error
	open   int64 // bytes of the tree objects on the way
}

// dir shows what is in the tree object id, which is at that path.
func (w *walker) dir(id, at string) error {
	raw, err := w.s.read(id, typeTree, maxTree-w.open)
	if err != nil {
		return err
	}
	w.open += int64(len(raw))
	defer func() { w.open -= int64(len(raw)) }()
	entries, err := parseTree(raw, w.hexLen)
	if err != nil {
		return fmt.Errorf("tree %s: %w", id, err)
	}
	if len(entries) == 0 && at != "" {
		return w.visit(Entry{Path: at, Mode: ModeDir, ID: id})
	}
	for _, e := range entries {
		name := path.Join(at, e.name)
		if len(name) > maxPath {
			return fmt.Errorf("%.40q… is longer than %d bytes", name, maxPath)
		}
		if e.isDir() {
			err = w.dir(e.id, name)
		} else {
			err = w.visit(Entry{Path: name, Mode: e.mode, ID: e.id})
		}
		if err != nil {
			return err
		}
	}
	return nil
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
