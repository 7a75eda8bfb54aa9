// Package gittree keeps a git repository at one commit in one file, whose
// bytes depend on nothing but what the commit, and the tag that names it, say.
//
// # The form
//
// A tar archive (PAX), its entries in this order:
//
//	commit            the commit object, as git hashes it, without git's header
//	tag               the annotated tag object that was asked for, if it was one;
//	                  where it is of another tag, that follows as tag-2, and so on to tag-8
//	tree/PATH         the commit's files, sorted by the bytes of their paths
//	modules/PATH/…    the submodules that were taken, in the order of their paths in the
//	                  tree, each in this same form; in PATH "%" is %25 and "/" is %2F
//
// A file has mode 0644, 0755 or, as early git had it, 0664; a symbolic link
// is one, with mode 0777. A submodule's place in the tree is a folder with the
// PAX record CAISSON.gitlink: the commit's id in hex. A folder is an entry
// only where it is such a place or is empty. Everything is owned by 0:0 and
// dated 1970. Contents are git's own: no filter, no line ending, no
// export-subst is applied.
//
// All of git's objects can be made again from this, and are when the file is
// read: Check returns the ids that the contents have, under SHA-1 with
// detection of collision attacks or, where the commit names its tree by 64
// digits, SHA-256. It also writes the archive again, and refuses one that is
// not the same to the byte.
//
// # Limits
//
// 1 MiB for a commit, a tag, and .gitmodules; 16 MiB for the tree objects of a
// folder and those above it together, which is some 400,000 files in one; 4096
// bytes for a path and for a link's target; 4 million files; 10,000 places of
// submodules, 1000 submodules, 16 of them inside each other. Names that git
// refuses to check out (".git" in all its spellings, "." and "..", a
// .gitmodules that is a link) are errors, as are modes that git does not write.
// Memory does not follow the sizes of files.
package gittree

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// The limits that the package comment gives.
const (
	maxMeta    = 1 << 20
	maxTree    = 16 << 20
	maxPath    = 4096
	maxFiles   = 4_000_000
	maxLinks   = 10_000
	maxModules = 1000
	maxNested  = 16
	maxTags    = 8
)

// gitlinkRecord is the PAX record of a submodule's place.
const gitlinkRecord = "CAISSON.gitlink"

// Info is what a file of this form is about. Ids are in hex.
type Info struct {
	Commit string
	Tree   string
	// Tag is the annotated tag's object, Tagger's name for it TagName; empty
	// where a commit was asked for.
	Tag     string
	TagName string
	// Committed is the committer's time.
	Committed time.Time
	// Submodules are those that the file has, in the order of their paths.
	Submodules []Submodule
	// Links are the places of submodules, taken or not.
	Links []Submodule
	Files int   // of the tree, links included, without the submodules'
	Bytes int64 // of those files
}

// Submodule is a repository inside another.
type Submodule struct {
	Path string
	// URL is as .gitmodules has it: it may be relative to the URL of the
	// repository. Empty where .gitmodules does not name the path.
	URL    string
	Commit string
	// Info is nil where the file does not have the submodule.
	Info *Info
}

// commitObject is what is read of a commit or tag object.
type commitObject struct {
	tree      string
	committed time.Time
}

// header returns the value of the header line that rest begins with.
func header(rest []byte, key string) (value string, after []byte, ok bool) {
	line, after, found := bytes.Cut(rest, []byte("\n"))
	v, ok := strings.CutPrefix(string(line), key+" ")
	return v, after, ok && found
}

func parseCommit(raw []byte) (commitObject, error) {
	tree, _, ok := header(raw, "tree")
	if !ok || !IsID(tree) {
		return commitObject{}, errors.New("the commit object names no tree")
	}
	at, err := Time(raw)
	return commitObject{tree: tree, committed: at}, err
}

// Time is when a commit or tag object was made: its committer's or tagger's
// time.
func Time(raw []byte) (time.Time, error) {
	for {
		line, rest, _ := bytes.Cut(raw, []byte("\n"))
		if len(line) == 0 {
			return time.Time{}, errors.New("the object names no committer and no tagger")
		}
		raw = rest
		for _, key := range []string{"committer ", "tagger "} {
			if who, ok := strings.CutPrefix(string(line), key); ok {
				return personTime(who)
			}
		}
	}
}

// personTime is the time in "NAME <ADDRESS> SECONDS ZONE".
func personTime(who string) (time.Time, error) {
	_, when, _ := strings.Cut(who[strings.LastIndexByte(who, '>')+1:], " ")
	sec, _, _ := strings.Cut(when, " ")
	n, err := strconv.ParseInt(sec, 10, 64)
	if err != nil || n < 0 || n > 1<<40 {
		return time.Time{}, fmt.Errorf("the committer or tagger has no time that can be read: %.100q", who)
	}
	return time.Unix(n, 0).UTC(), nil
}

// tagObject is what is read of a tag object.
type tagObject struct {
	object, typ, name string
}

func parseTag(raw []byte) (t tagObject, err error) {
	var a, b, c bool
	rest := raw
	t.object, rest, a = header(rest, "object")
	t.typ, rest, b = header(rest, "type")
	t.name, _, c = header(rest, "tag")
	if !a || !b || !c || !IsID(t.object) {
		return t, errors.New("the tag object cannot be read")
	}
	return t, nil
}

// tagName is the name of the n-th tag object of a chain, from 1.
func tagName(n int) string {
	if n == 1 {
		return "tag"
	}
	return "tag-" + strconv.Itoa(n)
}

// IsID tells whether s is a whole object id in hex: 40 or 64 lower-case
// digits.
func IsID(s string) bool {
	return (len(s) == 40 || len(s) == 64) && strings.Trim(s, "0123456789abcdef") == ""
}

// moduleName is a submodule's path as one element of a name.
func moduleName(path string) string {
	return strings.NewReplacer("%", "%25", "/", "%2F").Replace(path)
}

func modulePath(name string) (string, error) {
	path := strings.NewReplacer("%2F", "/", "%25", "%").Replace(name)
	if moduleName(path) != name {
		return "", fmt.Errorf("%q is no submodule's name", name)
	}
	return path, nil
}
