package view

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"caisson/lock/cargo"
	"caisson/lock/digest"
	"caisson/lock/gittree"
)

// GitRepo is a locked git repository: a file of package gittree.
type GitRepo struct {
	Git  cargo.Git
	Open func() (io.ReadCloser, error)
}

// GitRepositories lays out a git repository for each repo below dir, from which
// cargo takes its packages, and dir/git/config, by which the submodules of
// those are found beside them. target is where dir will lie when cargo reads
// it. A repository that is not at the commit its Git names is an error.
func GitRepositories(dir, target string, repos []GitRepo) error {
	var config bytes.Buffer
	// The files may belong to another user than the one who builds.
	config.WriteString("[safe]\n\tdirectory = *\n[protocol \"file\"]\n\tallow = always\n")
	moved := make(map[string]string)
	for _, r := range repos {
		info, err := gitRepository(filepath.Join(dir, repoName(r.Git)), r)
		if err != nil {
			return fmt.Errorf("laying out %s: %w", r.Git.URL, err)
		}
		if err := submodules(moved, path.Join(target, repoName(r.Git)), "", FileURL(path.Join(target, repoName(r.Git))), info); err != nil {
			return fmt.Errorf("laying out %s: %w", r.Git.URL, err)
		}
	}
	for _, from := range slices.Sorted(maps.Keys(moved)) {
		fmt.Fprintf(&config, "[url %s]\n\tinsteadOf = %s\n", gitString(moved[from]), gitString(from))
	}
	if err := os.MkdirAll(filepath.Join(dir, "git"), 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "git", "config"), config.Bytes(), 0o644)
}

func gitRepository(dir string, r GitRepo) (*gittree.Info, error) {
	f, err := r.Open()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	info, err := gittree.Repository(dir, f, r.Git.Refs())
	if err != nil {
		return nil, err
	}
	if info.Commit != r.Git.Commit {
		return nil, fmt.Errorf("it is at %s, want %s", info.Commit, r.Git.Commit)
	}
	return info, nil
}

// submodules notes where the submodules of a repository are: by the address
// that cargo asks for, which may be relative to the repository's own.
func submodules(moved map[string]string, dir, prefix, base string, info *gittree.Info) error {
	for _, s := range info.Submodules {
		full := path.Join(prefix, s.Path)
		at := FileURL(gittree.ModuleDir(dir, full))
		address := s.URL
		if strings.HasPrefix(address, "./") || strings.HasPrefix(address, "../") {
			u, err := url.Parse(strings.TrimSuffix(base, "/") + "/")
			if err != nil {
				return err
			}
			address = strings.TrimSuffix(u.JoinPath(address).String(), "/")
		}
		if old, ok := moved[address]; ok && old != at {
			return fmt.Errorf("the submodule %s is also another repository's, which is not supported", s.URL)
		}
		moved[address] = at
		if s.Info != nil {
			if err := submodules(moved, dir, full, address, s.Info); err != nil {
				return err
			}
		}
	}
	return nil
}

// repoName is the folder of a repository, and the name by which the
// configuration has it.
func repoName(g cargo.Git) string {
	return "git-" + digest.Of([]byte(g.URL + "\x00" + g.Kind + "\x00" + g.Ref + "\x00" + g.Commit)).Hex()[:16]
}

// gitString writes a value of git's configuration (git-config, "Values").
func gitString(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(s) + `"`
}

// CargoGitSources is the part of a cargo configuration that replaces git
// repositories by those that GitRepositories laid out below dir. Cargo takes
// nothing from them where it is to be offline: it must not be told so.
func CargoGitSources(dir string, repos []cargo.Git) []byte {
	var b bytes.Buffer
	for _, g := range repos {
		ref := ""
		if g.Kind != "" {
			ref = g.Kind + " = " + TOMLString(g.Ref) + "\n"
		}
		name := repoName(g)
		fmt.Fprintf(&b, "[source.%s]\ngit = %s\n%sreplace-with = \"caisson-%s\"\n\n", name, TOMLString(g.URL), ref, name)
		fmt.Fprintf(&b, "[source.caisson-%s]\ngit = %s\n%s\n", name, TOMLString(FileURL(path.Join(dir, name))), ref)
	}
	return b.Bytes()
}
