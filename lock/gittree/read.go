package gittree

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
)

// File is one entry that Read shows.
type File struct {
	// Module is the path of the submodule that has it, with those of the
	// submodules above it before it, and "" for the repository itself.
	Module string
	// Path is the file's in its repository; empty for a commit or tag object,
	// whose kind is then in Object.
	Path   string
	Object string // commit or tag; empty for a file
	// Mode is git's: "100644", "100664", "100755", "120000" for a symbolic
	// link, "160000" for a submodule's place, "40000" for an empty folder.
	Mode   string
	Size   int64  // bytes
	Target string // of a symbolic link
}

// Check reads a whole file of this form and proves it: all ids in the Info
// have been made anew from the contents, the commit's tree is the tree, the
// tag is of the commit, each submodule is at the commit that its place names.
func Check(r io.Reader) (*Info, error) { return Read(r, nil) }

// Read is Check, and shows each entry to visit, in the order of the form.
// What is shown is proved only when Read has returned without an error. visit
// may leave contents unread.
func Read(r io.Reader, visit func(f File, r io.Reader) error) (*Info, error) {
	return read(r, sink{file: visit})
}

// sink is who is shown what is read.
type sink struct {
	file func(f File, r io.Reader) error
	// object is told of every object when its id is known: blobs after file
	// has been called, commits, tags and trees with their contents. It may be
	// nil.
	object func(module, typ, id string, raw []byte) error
}

func read(r io.Reader, to sink) (*Info, error) {
	in, out := sha256.New(), sha256.New()
	d := &reader{sink: to, out: tar.NewWriter(out)}
	tee := io.TeeReader(r, in)
	d.tr = tar.NewReader(tee)
	if err := d.advance(); err != nil {
		return nil, err
	}
	info, err := d.repository("", "", 0)
	if err != nil {
		return nil, err
	}
	if d.next != nil {
		return nil, fmt.Errorf("%q is not expected there", d.next.Name)
	}
	if err := d.out.Close(); err != nil {
		return nil, err
	}
	if n, err := tee.Read(make([]byte, 1)); n > 0 || !errors.Is(err, io.EOF) {
		return nil, errors.Join(errors.New("something follows the archive"), err)
	}
	if !bytes.Equal(in.Sum(nil), out.Sum(nil)) {
		return nil, errors.New("the archive is not written as it should be")
	}
	return info, nil
}

// reader reads the archive and writes it again.
type reader struct {
	sink
	tr      *tar.Reader
	out     *tar.Writer
	next    *tar.Header // nil at the end
	files   int
	links   int
	modules int
}

// advance reads the next header, and refuses what Write never writes before
// archive/tar acts on it.
func (d *reader) advance() error {
	h, err := d.tr.Next()
	if errors.Is(err, io.EOF) {
		d.next = nil
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading the archive: %w", err)
	}
	for k := range h.PAXRecords {
		switch k {
		case "path", "linkpath", "size", gitlinkRecord:
		default:
			return fmt.Errorf("%q has a header %q that is not expected", h.Name, k)
		}
	}
	if t := h.Typeflag; t != tar.TypeReg && t != tar.TypeDir && t != tar.TypeSymlink {
		return fmt.Errorf("%q has the unexpected type %q", h.Name, t)
	}
	d.next = h
	return nil
}

// meta reads the commit or tag object that is next.
func (d *reader) meta(name, module, typ string) ([]byte, error) {
	h := d.next
	if h == nil || h.Name != name {
		return nil, fmt.Errorf("%q is missing", name)
	}
	if h.Size > maxMeta || h.Typeflag != tar.TypeReg {
		return nil, fmt.Errorf("%q is no object of %d bytes at most", name, maxMeta)
	}
	raw, err := io.ReadAll(d.tr)
	if err != nil {
		return nil, fmt.Errorf("reading %q: %w", name, err)
	}
	if err := d.out.WriteHeader(newHeader(name, int64(len(raw)))); err != nil {
		return nil, err
	}
	if _, err := d.out.Write(raw); err != nil {
		return nil, err
	}
	if d.file != nil {
		if err := d.file(File{Module: module, Object: typ, Size: h.Size}, bytes.NewReader(raw)); err != nil {
			return nil, err
		}
	}
	return raw, d.advance()
}

// repository reads one repository: prefix is that of its names, module its
// path.
func (d *reader) repository(prefix, module string, depth int) (*Info, error) {
	if depth > maxNested {
		return nil, fmt.Errorf("more than %d submodules inside each other", maxNested)
	}
	raw, err := d.meta(prefix+"commit", module, typeCommit)
	if err != nil {
		return nil, err
	}
	c, err := parseCommit(raw)
	if err != nil {
		return nil, err
	}
	info := &Info{Committed: c.committed}
	hexLen := len(c.tree)
	if info.Commit, err = hashObject(hexLen, typeCommit, raw); err != nil {
		return nil, err
	}
	if err := d.tell(module, typeCommit, info.Commit, raw); err != nil {
		return nil, err
	}
	if err := d.tags(prefix, module, info); err != nil {
		return nil, err
	}
	t := treeReader{d: d, info: info, prefix: prefix + "tree/", module: module, hexLen: hexLen}
	if info.Tree, err = t.read(); err != nil {
		return nil, err
	}
	if info.Tree != c.tree {
		return nil, fmt.Errorf("the files are the tree %s, want %s, which the commit names", info.Tree, c.tree)
	}
	t.nameLinks()
	return info, d.submodules(prefix+"modules/", module, depth, info)
}

func (d *reader) tell(module, typ, id string, raw []byte) error {
	if d.object == nil {
		return nil
	}
	return d.object(module, typ, id, raw)
}

// tags reads the tag objects, the outermost first.
func (d *reader) tags(prefix, module string, info *Info) error {
	want, typ := "", ""
	for n := 1; d.next != nil && d.next.Name == prefix+tagName(n); n++ {
		if n > maxTags {
			return fmt.Errorf("more than %d tags of tags", maxTags)
		}
		raw, err := d.meta(d.next.Name, module, typeTag)
		if err != nil {
			return err
		}
		t, err := parseTag(raw)
		if err != nil {
			return err
		}
		id, err := hashObject(len(info.Commit), typeTag, raw)
		if err != nil {
			return err
		}
		if n == 1 {
			info.Tag, info.TagName = id, t.name
		} else if id != want || typ != typeTag {
			return fmt.Errorf("a tag is of the %s %s, got the tag %s", typ, want, id)
		}
		if err := d.tell(module, typeTag, id, raw); err != nil {
			return err
		}
		want, typ = t.object, t.typ
	}
	if info.Tag != "" && (want != info.Commit || typ != typeCommit) {
		return fmt.Errorf("the tag is of the %s %s, got the commit %s", typ, want, info.Commit)
	}
	return nil
}

// submodules reads those that are below prefix.
func (d *reader) submodules(prefix, module string, depth int, info *Info) error {
	at := 0
	for d.next != nil && strings.HasPrefix(d.next.Name, prefix) {
		name, _, _ := strings.Cut(d.next.Name[len(prefix):], "/")
		where, err := modulePath(name)
		if err != nil {
			return err
		}
		for at < len(info.Links) && info.Links[at].Path != where {
			at++
		}
		if at == len(info.Links) {
			return fmt.Errorf("submodule %q has no place in the tree, or is not in its own", where)
		}
		if d.modules++; d.modules > maxModules {
			return fmt.Errorf("more than %d submodules", maxModules)
		}
		s := info.Links[at]
		at++
		if s.Info, err = d.repository(prefix+name+"/", path.Join(module, where), depth+1); err != nil {
			return fmt.Errorf("submodule %s: %w", where, err)
		}
		if s.Info.Commit != s.Commit {
			return fmt.Errorf("submodule %s: got the commit %s, want %s", where, s.Info.Commit, s.Commit)
		}
		info.Submodules = append(info.Submodules, s)
	}
	return nil
}

// treeReader reads one repository's files and makes its tree objects.
type treeReader struct {
	d       *reader
	info    *Info
	prefix  string
	module  string
	hexLen  int
	modules []byte // .gitmodules
	frames  []frame
	open    int // bytes of the tree objects of frames
}

// frame is a folder that is being read.
type frame struct {
	name    string
	entries []entry
	size    int // of the tree object so far
}

// read reads all files and returns the root tree's id.
func (t *treeReader) read() (string, error) {
	t.frames = []frame{{}}
	for t.d.next != nil && strings.HasPrefix(t.d.next.Name, t.prefix) {
		h := t.d.next
		name := strings.TrimSuffix(h.Name[len(t.prefix):], "/")
		if name == "" || len(name) > maxPath {
			return "", fmt.Errorf("%.80q is no path of a file", h.Name)
		}
		if t.d.files++; t.d.files > maxFiles {
			return "", fmt.Errorf("more than %d files", maxFiles)
		}
		dirs := strings.Split(name, "/")
		if err := t.enter(dirs[:len(dirs)-1]); err != nil {
			return "", err
		}
		e, err := t.file(h, name, dirs[len(dirs)-1])
		if err == nil {
			err = t.append(e)
		}
		if err != nil {
			return "", err
		}
		if err := t.d.advance(); err != nil {
			return "", err
		}
	}
	if err := t.enter(nil); err != nil {
		return "", err
	}
	return t.finish(t.frames[0])
}

// enter leaves folders and enters others, until it is in dirs.
func (t *treeReader) enter(dirs []string) error {
	same := 0
	for same < len(dirs) && same+1 < len(t.frames) && t.frames[same+1].name == dirs[same] {
		same++
	}
	for len(t.frames) > same+1 {
		f := t.frames[len(t.frames)-1]
		t.frames = t.frames[:len(t.frames)-1]
		t.open -= f.size
		id, err := t.finish(f)
		if err != nil {
			return err
		}
		if err := t.append(entry{mode: ModeDir, name: f.name, id: id}); err != nil {
			return err
		}
	}
	for _, name := range dirs[same:] {
		if err := checkEntry(entry{mode: ModeDir, name: name}); err != nil {
			return err
		}
		t.frames = append(t.frames, frame{name: name})
	}
	return nil
}

// append adds an entry to the folder at hand.
func (t *treeReader) append(e entry) error {
	f := &t.frames[len(t.frames)-1]
	if n := len(f.entries); n > 0 && f.entries[n-1].sortKey() >= e.sortKey() {
		return fmt.Errorf("%q is not in its place in its tree", e.name)
	}
	size := len(e.mode) + len(e.name) + 2 + t.hexLen/2
	f.size += size
	if t.open += size; t.open > maxTree {
		return fmt.Errorf("a folder, with those above it, of more than %d bytes", maxTree)
	}
	f.entries = append(f.entries, e)
	return nil
}

// finish makes a folder's tree object.
func (t *treeReader) finish(f frame) (string, error) {
	if err := checkTwice(f.entries); err != nil {
		return "", err
	}
	raw, err := treeObject(f.entries)
	if err != nil {
		return "", err
	}
	id, err := hashObject(t.hexLen, typeTree, raw)
	if err != nil {
		return "", err
	}
	return id, t.d.tell(t.module, typeTree, id, raw)
}

// file reads one entry of the tree and returns its line in the tree object.
func (t *treeReader) file(h *tar.Header, at, base string) (entry, error) {
	e := entry{mode: headerMode(h), name: base}
	if err := checkEntry(e); err != nil {
		return e, err
	}
	f := File{Module: t.module, Path: at, Mode: e.mode, Size: h.Size, Target: h.Linkname}
	if isLink := e.mode == ModeLink; isLink != (f.Target != "") || len(f.Target) > maxPath {
		return e, fmt.Errorf("%s: %.80q is no target of a symbolic link", at, f.Target)
	}
	if e.mode == ModeGitlink {
		e.id = h.PAXRecords[gitlinkRecord]
	}
	if err := t.d.out.WriteHeader(treeHeader(t.prefix+at, e, h.Size, f.Target)); err != nil {
		return e, fmt.Errorf("%s: %w", at, err)
	}
	var err error
	switch e.mode {
	case ModeGitlink:
		err = t.link(f, e.id)
	case ModeDir:
		e.id, err = t.emptyDir(f)
	case ModeLink:
		f.Size = int64(len(f.Target))
		e.id, err = t.blob(f, strings.NewReader(f.Target), io.Discard)
	default:
		e.id, err = t.blob(f, t.d.tr, t.d.out)
	}
	return e, err
}

// headerMode is the mode in git of an entry of the archive. What else the
// header says is compared with what Write makes of this.
func headerMode(h *tar.Header) string {
	switch {
	case h.Typeflag == tar.TypeDir && h.PAXRecords[gitlinkRecord] != "":
		return ModeGitlink
	case h.Typeflag == tar.TypeDir:
		return ModeDir
	case h.Typeflag == tar.TypeSymlink:
		return ModeLink
	case h.Mode == 0o755:
		return ModeExec
	case h.Mode == 0o664:
		return ModeGroup
	}
	return ModeFile
}

// link keeps the place of a submodule.
func (t *treeReader) link(f File, id string) error {
	if !IsID(id) || len(id) != t.hexLen {
		return fmt.Errorf("%s: %.80q is no commit's id", f.Path, id)
	}
	if t.d.links++; t.d.links > maxLinks {
		return fmt.Errorf("more than %d places of submodules", maxLinks)
	}
	t.info.Files++
	t.info.Links = append(t.info.Links, Submodule{Path: f.Path, Commit: id})
	return t.show(f, bytes.NewReader(nil))
}

// emptyDir is the id of a folder with nothing in it.
func (t *treeReader) emptyDir(f File) (string, error) {
	id, err := hashObject(t.hexLen, typeTree, nil)
	if err != nil {
		return "", err
	}
	if err := t.show(f, bytes.NewReader(nil)); err != nil {
		return "", err
	}
	return id, t.d.tell(t.module, typeTree, id, nil)
}

func (t *treeReader) show(f File, r io.Reader) error {
	if t.d.file == nil {
		return nil
	}
	return t.d.file(f, r)
}

// blob shows a file's contents, writes them to the archive that is made
// again, and returns their id.
func (t *treeReader) blob(f File, r io.Reader, again io.Writer) (string, error) {
	h := newHash(t.hexLen, typeBlob, f.Size)
	body := &tee{r: r, to: [2]io.Writer{h, again}}
	if f.Path == ".gitmodules" && f.Mode != ModeLink {
		if f.Size > maxMeta {
			return "", fmt.Errorf("%s: %d bytes; want %d at most", f.Path, f.Size, maxMeta)
		}
		raw, err := io.ReadAll(body)
		if err != nil {
			return "", fmt.Errorf("reading %s: %w", f.Path, err)
		}
		t.modules = raw
		if err := t.show(f, bytes.NewReader(raw)); err != nil {
			return "", err
		}
	} else if err := t.show(f, body); err != nil {
		return "", err
	}
	if _, err := io.Copy(io.Discard, body); err != nil {
		return "", fmt.Errorf("reading %s: %w", f.Path, err)
	}
	t.info.Files++
	t.info.Bytes += f.Size
	id, err := h.id()
	if err != nil {
		return "", fmt.Errorf("%s: %w", f.Path, err)
	}
	return id, t.d.tell(t.module, typeBlob, id, nil)
}

// tee is io.TeeReader to two writers, one of them a hash.
type tee struct {
	r  io.Reader
	to [2]io.Writer
}

func (t *tee) Read(p []byte) (int, error) {
	n, err := t.r.Read(p)
	for _, w := range t.to {
		if _, werr := w.Write(p[:n]); werr != nil {
			return n, werr
		}
	}
	return n, err
}

// nameLinks gives the places of submodules the URLs that .gitmodules has. One
// that cannot be read names none.
func (t *treeReader) nameLinks() {
	if len(t.info.Links) == 0 {
		return
	}
	urls, err := parseModules(t.modules)
	if err != nil {
		return
	}
	for i := range t.info.Links {
		t.info.Links[i].URL = urls[t.info.Links[i].Path]
	}
}
