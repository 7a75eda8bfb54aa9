package lock

import (
	"archive/tar"
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"

	"caisson/lock/filecap"
)

// OwnersSuffix follows the name of a folder in that of the file beside it
// which gives modes and owners to what is in the folder.
const OwnersSuffix = ".owners"

// maxOwners is the largest owners file read, in bytes.
const maxOwners = 1 << 20

// ownerLine is one line of an owners file:
//
//	PATH MODE OWNER GROUP [CAPABILITIES]
//
// PATH is absolute, from the folder on, or a pattern of path.Match, whose *
// matches no slash; a blank in a name is written as ?. MODE is octal, with
// setuid, setgid and sticky bit. OWNER and GROUP are numbers, or names that
// the image's own passwd and group have. CAPABILITIES are as cap_from_text(3)
// reads them, several clauses separated by blanks. "-" stands for what holds
// without the line: 0755 for folders and programs, 0644 for other files, root,
// root and none. Of several lines that match a path, the last counts, whole.
// # begins a comment. A line that matches nothing is an error.
type ownerLine struct {
	at           string // FILE:LINE
	pattern      string
	mode         int64 // -1: as it is
	owner, group string
	xattr        []byte // security.capability
	used         bool
}

var (
	ownerMode = regexp.MustCompile(`^[0-7]{3,4}$`)
	// ownerName is what useradd(8) takes, or a number of 32 bits.
	ownerName = regexp.MustCompile(`^([a-z_][a-z0-9_.-]{0,31}\$?|[0-9]{1,9}|[1-4][0-9]{9})$`)
)

// readOwners reads a folder's owners file; nil where there is none.
func readOwners(name string) ([]*ownerLine, error) {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return parseOwners(filepath.Base(name), io.LimitReader(f, maxOwners+1))
}

// parseOwners reads an owners file that errors call name.
func parseOwners(name string, r io.Reader) ([]*ownerLine, error) {
	var out []*ownerLine
	s := bufio.NewScanner(r)
	read := 0
	for n := 1; s.Scan(); n++ {
		if read += len(s.Bytes()) + 1; read > maxOwners {
			return nil, fmt.Errorf("%s: more than the %d bytes that an owners file may have", name, maxOwners)
		}
		text, _, _ := strings.Cut(s.Text(), "#")
		fields := strings.Fields(text)
		if len(fields) == 0 {
			continue
		}
		l, err := parseOwnerLine(fields)
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", name, n, err)
		}
		l.at = fmt.Sprintf("%s:%d", name, n)
		out = append(out, l)
	}
	if err := s.Err(); err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	return out, nil
}

func parseOwnerLine(f []string) (*ownerLine, error) {
	if len(f) < 4 {
		return nil, fmt.Errorf("got %d words; want PATH MODE OWNER GROUP [CAPABILITIES]", len(f))
	}
	l := &ownerLine{mode: -1}
	if !path.IsAbs(f[0]) || path.Clean(f[0]) != f[0] {
		return nil, fmt.Errorf("path %q: want an absolute one, such as /etc/agent.conf", f[0])
	}
	if _, err := path.Match(f[0], ""); err != nil {
		return nil, fmt.Errorf("path %q: %w", f[0], err)
	}
	l.pattern = strings.TrimPrefix(f[0], "/")
	if f[1] != "-" {
		if !ownerMode.MatchString(f[1]) {
			return nil, fmt.Errorf("mode %q: want three or four octal digits, or -", f[1])
		}
		l.mode, _ = strconv.ParseInt(f[1], 8, 64) // it matched
	}
	for i, to := range []*string{&l.owner, &l.group} {
		word := f[2+i]
		if word == "-" {
			continue
		}
		if _, err := strconv.ParseUint(word, 10, 32); !ownerName.MatchString(word) || word[0] <= '9' && err != nil {
			return nil, fmt.Errorf("%q is not the name or the number of a user or group", word)
		}
		*to = word
	}
	if caps := strings.Join(f[4:], " "); caps != "" && caps != "-" {
		var err error
		if l.xattr, err = filecap.Parse(caps); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// findOwner is the last line that matches a path; nil where none does.
func findOwner(lines []*ownerLine, name string) *ownerLine {
	var found *ownerLine
	for _, l := range lines {
		if ok, _ := path.Match(l.pattern, name); ok {
			l.used, found = true, l
		}
	}
	return found
}

// CapabilityRecord is the PAX record in which PackInput keeps a file's
// capabilities, as GNU tar does: the value of the extended attribute.
const CapabilityRecord = "SCHILY.xattr." + filecap.Xattr

// KeepRecord is the PAX record in which PackInput says what of a folder its
// line leaves as it is, in words: "mode", "owner", "group".
const KeepRecord = "CAISSON.keep"

// keeps are these words.
func (l *ownerLine) keeps() string {
	var out []string
	for _, k := range []struct {
		word string
		is   bool
	}{{"mode", l.mode < 0}, {"owner", l.owner == ""}, {"group", l.group == ""}} {
		if k.is {
			out = append(out, k.word)
		}
	}
	return strings.Join(out, " ")
}

// apply gives a packed file what its line says. Numbers go where an archive
// has them, names where it has those.
func (l *ownerLine) apply(h *tar.Header) error {
	if h.Typeflag == tar.TypeSymlink && (l.mode >= 0 || l.xattr != nil) {
		return fmt.Errorf("%s: /%s is a symbolic link, which has an owner and no mode", l.at, h.Name)
	}
	if h.Typeflag == tar.TypeDir && l.xattr != nil {
		return fmt.Errorf("%s: /%s is a folder, which has no capabilities", l.at, strings.TrimSuffix(h.Name, "/"))
	}
	if l.mode >= 0 {
		h.Mode = l.mode
	}
	if n, err := strconv.Atoi(l.owner); err == nil {
		h.Uid = n
	} else {
		h.Uname = l.owner
	}
	if n, err := strconv.Atoi(l.group); err == nil {
		h.Gid = n
	} else {
		h.Gname = l.group
	}
	if k := l.keeps(); h.Typeflag == tar.TypeDir && k != "" {
		h.PAXRecords = map[string]string{KeepRecord: k}
	}
	if l.xattr != nil {
		h.PAXRecords = map[string]string{CapabilityRecord: string(l.xattr)}
	}
	return nil
}

// withFolders adds to a sorted list of files the folders that a line matches.
func withFolders(files []packed, lines []*ownerLine) []packed {
	var out []packed
	seen := map[string]bool{"": true, ".": true}
	for _, f := range files {
		var above []packed
		for d := path.Dir(f.name); !seen[d]; d = path.Dir(d) {
			seen[d] = true
			if findOwner(lines, d) != nil {
				above = append([]packed{{name: d, dir: true}}, above...)
			}
		}
		out = append(append(out, above...), f)
	}
	return out
}

// PackInput writes what a KindTree input holds: the folder rel below base, as
// Pack does, with the modes, owners and capabilities that the owners file
// beside it gives, FOLDER.owners. Folders that it names are in the archive
// too, each before what is in it. The owners file itself is not.
func PackInput(w io.Writer, base, rel string) error {
	dir := filepath.Join(base, filepath.FromSlash(rel))
	var lines []*ownerLine
	if path.Clean(rel) != "." { // beside the project's own folder nothing is the project's
		var err error
		if lines, err = readOwners(dir + OwnersSuffix); err != nil {
			return err
		}
	}
	return packWith(w, dir, lines)
}

// checkOwners refuses lines that gave nothing to anything.
func checkOwners(lines []*ownerLine, dir string) error {
	for _, l := range lines {
		if !l.used {
			return fmt.Errorf("%s: /%s is not in %s, or git ignores it", l.at, l.pattern, filepath.Base(dir))
		}
	}
	return nil
}

// ownersDirty tells whether a folder's owners file differs from the commit
// that its repository is at.
func ownersDirty(dir string) (bool, error) {
	name := dir + OwnersSuffix
	content, err := os.ReadFile(name)
	gone := errors.Is(err, fs.ErrNotExist)
	if err != nil && !gone {
		return false, err
	}
	commit, prefix := headOf(filepath.Dir(name))
	if commit == nil {
		return false, nil
	}
	f, err := commit.File(path.Join(append(prefix, filepath.Base(name))...))
	if err != nil {
		return !gone, nil // it is not in the commit
	}
	return gone || f.Hash != plumbing.ComputeHash(plumbing.BlobObject, content), nil
}
