package cargo

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"
)

// Git is a git repository at a commit, from which packages come.
type Git struct {
	URL string // without the reference
	// Kind says what the manifest asks for: "branch", "tag" or "rev", and then
	// Ref which; both are empty for the default branch.
	Kind, Ref string
	Commit    string // 40 or 64 hex digits
	By        string // as Crate.By
}

var commitID = regexp.MustCompile(`^([0-9a-f]{40}|[0-9a-f]{64})$`)

// refName has what may be in a branch, a tag or a revision: git refuses more
// (git-check-ref-format), and these must not be taken for an option.
var refName = regexp.MustCompile(`^[^\x00-\x20\x7f~^:?*\[\\-][^\x00-\x20\x7f:?*\[\\]*$`)

// parseGit reads a git source: "git+URL?branch=NAME#COMMIT". The reference is
// URL-encoded since version 4 of Cargo.lock, and written as it is before.
func parseGit(source string, version int) (Git, error) {
	rest, commit, ok := strings.Cut(strings.TrimPrefix(source, "git+"), "#")
	if !ok || !commitID.MatchString(commit) {
		return Git{}, fmt.Errorf("source %q: want a commit of 40 or 64 hex digits behind \"#\"", source)
	}
	u, err := url.Parse(rest)
	if err != nil || u.Scheme == "" {
		return Git{}, fmt.Errorf("source %q: not an address", source)
	}
	if u.User != nil {
		if _, secret := u.User.Password(); secret {
			return Git{}, errors.New("a source with a password in its address; use a credential helper")
		}
	}
	g := Git{Commit: commit}
	for pair := range strings.SplitSeq(u.RawQuery, "&") {
		key, value, _ := strings.Cut(pair, "=")
		switch key {
		case "ref":
			key = "branch"
		case "branch", "tag", "rev":
		default:
			continue
		}
		if version >= 4 {
			value, err = url.QueryUnescape(value)
		}
		if err != nil || !refName.MatchString(value) || strings.Contains(value, "..") {
			return Git{}, fmt.Errorf("source %q: %s: not a name of git", source, key)
		}
		g.Kind, g.Ref = key, value
	}
	u.RawQuery, u.ForceQuery = "", false
	g.URL = u.String()
	return g, nil
}

// Refs are the names under which a mirror of the repository must have the
// commit, for cargo to find it there: see gittree.Repository.
func (g Git) Refs() []string {
	switch {
	case g.Kind == "branch":
		return []string{"refs/heads/" + g.Ref}
	case g.Kind == "tag":
		return []string{"refs/tags/" + g.Ref}
	case g.Kind == "rev" && strings.HasPrefix(g.Ref, "refs/"):
		return []string{g.Ref}
	}
	return []string{"refs/heads/locked"} // HEAD is what is asked for, or any branch
}

func compareGit(a, b Git) int {
	return cmp.Or(cmp.Compare(a.URL, b.URL), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Ref, b.Ref), cmp.Compare(a.Commit, b.Commit))
}
