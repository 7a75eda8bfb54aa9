package gittree

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"strings"

	"github.com/pjbgf/sha1cd"
)

// The types of objects.
const (
	typeCommit = "commit"
	typeTree   = "tree"
	typeBlob   = "blob"
	typeTag    = "tag"
)

// The modes of a tree's entries, as tree objects spell them. ModeGitlink is a
// submodule's place.
const (
	ModeDir     = "40000"
	ModeFile    = "100644"
	ModeGroup   = "100664" // written by git before 1.0 only
	ModeExec    = "100755"
	ModeLink    = "120000"
	ModeGitlink = "160000"
)

// idHash hashes one object into its id.
type idHash struct {
	hash.Hash
	cd sha1cd.CollisionResistantHash // nil for SHA-256
}

// newHash begins an object of that type and size; hexLen, 40 or 64, says by
// which hash.
func newHash(hexLen int, typ string, size int64) idHash {
	h := idHash{Hash: sha256.New()}
	if hexLen == 40 {
		h.Hash = sha1cd.New()
		h.cd, _ = h.Hash.(sha1cd.CollisionResistantHash)
	}
	fmt.Fprintf(h, "%s %d\x00", typ, size)
	return h
}

// id is the object's id in hex. Contents that were made to collide under
// SHA-1 have none.
func (h idHash) id() (string, error) {
	if h.cd == nil {
		return hex.EncodeToString(h.Sum(nil)), nil
	}
	sum, collision := h.cd.CollisionResistantSum(nil)
	if collision {
		return "", fmt.Errorf("an object shows a SHA-1 collision attack (%x)", sum)
	}
	return hex.EncodeToString(sum), nil
}

// hashObject is the id of an object that is in memory.
func hashObject(hexLen int, typ string, raw []byte) (string, error) {
	h := newHash(hexLen, typ, int64(len(raw)))
	h.Write(raw)
	return h.id()
}

// entry is one line of a tree object.
type entry struct {
	mode string
	name string
	id   string
}

func (e entry) isDir() bool { return e.mode == ModeDir }

// sortKey is what git orders a tree's entries by: a folder's name ends in a
// slash.
func (e entry) sortKey() string {
	if e.isDir() {
		return e.name + "/"
	}
	return e.name
}

// parseTree reads a tree object. It refuses what git would not write: other
// modes, another order, a name that is there twice.
func parseTree(raw []byte, hexLen int) ([]entry, error) {
	var out []entry
	for len(raw) > 0 {
		mode, rest, ok := bytes.Cut(raw, []byte(" "))
		name, after, ok2 := bytes.Cut(rest, []byte{0})
		if !ok || !ok2 || len(after) < hexLen/2 {
			return nil, fmt.Errorf("the tree object is cut after %d entries", len(out))
		}
		e := entry{mode: string(mode), name: string(name), id: hex.EncodeToString(after[:hexLen/2])}
		raw = after[hexLen/2:]
		if err := checkEntry(e); err != nil {
			return nil, err
		}
		if len(out) > 0 && out[len(out)-1].sortKey() >= e.sortKey() {
			return nil, fmt.Errorf("%q is not in its place in its tree", e.name)
		}
		out = append(out, e)
	}
	return out, checkTwice(out)
}

// checkTwice refuses a tree with a folder that has the name of a file.
func checkTwice(entries []entry) error {
	files := make(map[string]bool)
	for _, e := range entries {
		if !e.isDir() {
			files[e.name] = true
		} else if files[e.name] {
			return fmt.Errorf("%q is in its tree twice", e.name)
		}
	}
	return nil
}

// treeObject is the raw object of entries that are in git's order.
func treeObject(entries []entry) ([]byte, error) {
	var b bytes.Buffer
	for _, e := range entries {
		id, err := hex.DecodeString(e.id)
		if err != nil {
			return nil, err
		}
		b.WriteString(e.mode)
		b.WriteByte(' ')
		b.WriteString(e.name)
		b.WriteByte(0)
		b.Write(id)
	}
	return b.Bytes(), nil
}

// checkEntry refuses modes that git does not write and names that it does not
// check out.
func checkEntry(e entry) error {
	switch e.mode {
	case ModeDir, ModeFile, ModeGroup, ModeExec, ModeLink, ModeGitlink:
	default:
		return fmt.Errorf("%q has mode %q, which git does not write", e.name, e.mode)
	}
	switch {
	case e.name == "", e.name == ".", e.name == "..", strings.ContainsAny(e.name, "/\x00"):
		return fmt.Errorf("%q is no file name", e.name)
	case len(e.name) > 255:
		return fmt.Errorf("%.40q… is longer than 255 bytes", e.name)
	}
	for part := range strings.SplitSeq(e.name, `\`) { // a separator elsewhere
		if isDotGit(part) {
			return fmt.Errorf("%q would be taken for .git by some file system", e.name)
		}
		if e.mode == ModeLink && isDotModules(part) {
			return fmt.Errorf("%q is a symbolic link", e.name)
		}
	}
	return nil
}

// isDotGit tells whether a file system could take the name for .git: HFS+
// leaves characters out, NTFS does not tell cases, takes what follows a colon
// for a stream, drops dots and spaces at the end, and has short names.
func isDotGit(name string) bool {
	n := foldName(name)
	return n == ".git" || n == "git~1"
}

// isDotModules is isDotGit for .gitmodules.
func isDotModules(name string) bool {
	n := foldName(name)
	short, ok := strings.CutPrefix(n, "gitmod~")
	return n == ".gitmodules" || ok && len(short) == 1 && short >= "1" && short <= "4" ||
		strings.HasPrefix(n, "gi7eba~") || strings.HasPrefix(n, "gi7eb~")
}

func foldName(name string) string {
	n := strings.Map(func(r rune) rune {
		switch {
		case r >= 0x200c && r <= 0x200f, r >= 0x202a && r <= 0x202e, r >= 0x206a && r <= 0x206f, r == 0xfeff:
			return -1 // HFS+ ignores these
		}
		return r
	}, name)
	n, _, _ = strings.Cut(n, ":")
	return strings.ToLower(strings.TrimRight(n, ". "))
}
