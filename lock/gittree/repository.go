package gittree

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
)

// Repository makes a bare git repository in a new or empty folder, and one
// for each submodule at ModuleDir: git, cargo and go can clone it from there
// by a file:// address, without a network. It has the one commit, which is
// marked as shallow where it has parents, and all that the commit needs, in
// one pack. The same file and refs give the same repository to the byte.
//
// refs are the names under which the commit is to be had: "refs/heads/main",
// "refs/tags/v1.0"; below refs/tags/ the tag object where the file has one.
// HEAD is the first that is a branch; without one, and in submodules, it is
// the commit. Repository is Check besides; after an error the folder is of no
// use.
func Repository(dir string, r io.Reader, refs []string) (*Info, error) {
	for _, ref := range refs {
		if err := plumbing.ReferenceName(ref).Validate(); err != nil || !strings.HasPrefix(ref, "refs/") {
			return nil, fmt.Errorf("%q is no name of a ref, such as refs/heads/main", ref)
		}
	}
	if err := makeEmpty(dir); err != nil {
		return nil, err
	}
	m := mirror{dir: dir}
	defer m.drop()
	info, err := read(r, sink{file: m.file, object: m.object})
	if err != nil {
		return nil, err
	}
	if err := m.finish(); err != nil {
		return nil, err
	}
	return info, writeRefs(dir, info, refs)
}

// ModuleDir is where Repository puts the repository of a submodule: path is
// its own in the whole tree.
func ModuleDir(dir, path string) string {
	return filepath.Join(dir, "modules", filepath.FromSlash(path)+".git")
}

// mirror writes the repositories, one after another.
type mirror struct {
	dir    string
	module string
	pack   *packWriter // of the module; nil before its commit
	blob   bool        // pack has one that waits for its id
	commit string
}

// at is the repository at hand.
func (m *mirror) at() string {
	if m.module == "" {
		return m.dir
	}
	return ModuleDir(m.dir, m.module)
}

func (m *mirror) file(f File, r io.Reader) error {
	m.blob = false
	switch f.Mode {
	case ModeFile, ModeGroup, ModeExec:
	case ModeLink:
		r = strings.NewReader(f.Target)
	default:
		return nil
	}
	m.blob = true
	return m.pack.write(typeBlob, f.Size, r)
}

func (m *mirror) object(module, typ, id string, raw []byte) error {
	switch typ {
	case typeBlob:
		if !m.blob {
			return nil
		}
		return m.pack.name(id)
	case typeCommit:
		if err := m.begin(module, id, raw); err != nil {
			return err
		}
	}
	if err := m.pack.write(typ, int64(len(raw)), bytes.NewReader(raw)); err != nil {
		return err
	}
	return m.pack.name(id)
}

// begin begins a repository: a commit is the first that is told of each.
func (m *mirror) begin(module, id string, commit []byte) error {
	if err := m.finish(); err != nil {
		return err
	}
	m.module, m.commit = module, id
	dir := m.at()
	for _, d := range []string{"objects/info", "objects/pack", "refs/heads", "refs/tags"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil { //nolint:gosec // for all to read
			return err
		}
	}
	config := "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = true\n"
	if len(id) == 64 {
		config = strings.Replace(config, "= 0", "= 1", 1) + "[extensions]\n\tobjectformat = sha256\n"
	}
	files := map[string]string{"HEAD": id + "\n", "config": config + "[uploadpack]\n\tallowAnySHA1InWant = true\n"}
	if _, rest, ok := header(commit, "tree"); ok {
		if _, _, parents := header(rest, "parent"); parents {
			files["shallow"] = id + "\n"
		}
	}
	for name, text := range files {
		if err := writeFile(filepath.Join(dir, name), text); err != nil {
			return err
		}
	}
	var err error
	m.pack, err = newPack(filepath.Join(dir, "objects", "pack"), len(id))
	return err
}

// finish completes the repository at hand.
func (m *mirror) finish() error {
	if m.pack == nil {
		return nil
	}
	p := m.pack
	if err := p.close(); err != nil {
		return err
	}
	m.pack = nil
	return nil
}

// drop leaves no pack half written.
func (m *mirror) drop() {
	if m.pack != nil {
		m.pack.drop()
	}
}

func writeFile(name, text string) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644) //nolint:gosec // for all to read
	if err != nil {
		return err
	}
	if _, err := f.WriteString(text); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

func writeRefs(dir string, info *Info, refs []string) error {
	for _, ref := range refs {
		id := info.Commit
		if strings.HasPrefix(ref, "refs/tags/") && info.Tag != "" {
			id = info.Tag
		}
		name := filepath.Join(dir, filepath.FromSlash(ref))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil { //nolint:gosec // for all to read
			return err
		}
		if err := writeFile(name, id+"\n"); err != nil {
			return err
		}
	}
	i := slices.IndexFunc(refs, func(ref string) bool { return strings.HasPrefix(ref, "refs/heads/") })
	if i < 0 {
		return nil
	}
	return writeFile(filepath.Join(dir, "HEAD"), "ref: "+refs[i]+"\n")
}
