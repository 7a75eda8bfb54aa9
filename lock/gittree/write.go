package gittree

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

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
	case ModeGroup:
		h.Mode = 0o664
	case ModeExec:
		h.Mode = 0o755
	case ModeLink:
		h.Typeflag, h.Mode, h.Linkname, h.Size = tar.TypeSymlink, 0o777, target, 0
	case ModeDir:
		h.Typeflag, h.Mode, h.Name = tar.TypeDir, 0o755, name+"/"
	case ModeGitlink:
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
	id, raw, err := w.tags(s, prefix)
	if err != nil {
		return err
	}
	t := treeWriter{w: w, s: s, prefix: prefix}
	if err := s.walk(id, raw, t.entry); err != nil {
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

// tags writes the commit and after it the tags that lead to it. It returns the
// commit's id and object.
func (w *writer) tags(s *Source, prefix string) (id string, raw []byte, err error) {
	id, raw, tags, err := s.peel()
	if err != nil {
		return "", nil, err
	}
	if err := w.meta(prefix+"commit", raw); err != nil {
		return "", nil, err
	}
	for i, t := range tags {
		if err := w.meta(prefix+tagName(i+1), t); err != nil {
			return "", nil, err
		}
	}
	return id, raw, nil
}

// treeWriter writes the tree of one repository.
type treeWriter struct {
	w       *writer
	s       *Source
	prefix  string
	links   []Submodule
	modules []byte // .gitmodules
}

// entry writes an entry of the tree.
func (t *treeWriter) entry(e Entry) error {
	if e.Mode == ModeDir {
		return t.put(entry{mode: ModeDir}, e.Path, 0, "")
	}
	if t.w.files++; t.w.files > maxFiles {
		return fmt.Errorf("more than %d files", maxFiles)
	}
	return t.file(entry{mode: e.Mode, id: e.ID}, e.Path)
}

func (t *treeWriter) put(e entry, at string, size int64, target string) error {
	if err := t.w.tw.WriteHeader(treeHeader(t.prefix+"tree/"+at, e, size, target)); err != nil {
		return fmt.Errorf("writing %s: %w", at, err)
	}
	return nil
}

func (t *treeWriter) file(e entry, at string) error {
	switch {
	case e.mode == ModeGitlink:
		if t.w.links++; t.w.links > maxLinks {
			return fmt.Errorf("more than %d places of submodules", maxLinks)
		}
		t.links = append(t.links, Submodule{Path: at, Commit: e.id})
		return t.put(e, at, 0, "")
	case e.mode == ModeLink:
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
