package prefetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"path"
	"regexp"
	"strings"

	"golang.org/x/mod/module"
	"golang.org/x/net/html"

	"caisson/prefetch/gitfetch"
)

// maxGoGet is how much of a page is read for go-import tags, in bytes.
const maxGoGet = 1 << 20

// repoRoot is where the code of module paths is that begin with path.
type repoRoot struct {
	path   string
	vcs    string // git, or mod for a module proxy
	repo   string // its address
	subdir string // where the modules are in it
}

// The hosts that need not be asked, as cmd/go knows them, and the form that
// says by itself where the repository ends.
var (
	knownHost = regexp.MustCompile(`^((?:github\.com|bitbucket\.org)/[\w.\-]+/[\w.\-]+)(?:/[\w.\-]+)*$`)
	openStack = regexp.MustCompile(`^(git\.openstack\.org/[\w.\-]+/[\w.\-]+)(?:\.git)?(?:/[\w.\-]+)*$`)
	withVCS   = regexp.MustCompile(`^((?:[a-z0-9.\-]+\.)+[a-z0-9.\-]+(?::[0-9]+)?(?:/~?[\w.\-]+)+?\.(bzr|fossil|git|hg|svn))(?:/~?[\w.\-]+)*$`)
)

// repoRoot finds a module's repository: by its path, else by the go-import
// tags of the page at https://PATH?go-get=1 (go.dev/ref/mod, "Finding a
// repository for a module path").
func (f *Fetcher) repoRoot(ctx context.Context, mod string) (repoRoot, error) {
	if err := module.CheckPath(mod); err != nil {
		return repoRoot{}, err
	}
	for _, host := range []*regexp.Regexp{knownHost, openStack} {
		if m := host.FindStringSubmatch(mod); m != nil {
			if vcs := path.Ext(m[1]); vcs == ".git" || vcs == ".hg" {
				return repoRoot{}, fmt.Errorf("the repository's path %q ends in %s", m[1], vcs)
			}
			return repoRoot{path: m[1], vcs: "git", repo: "https://" + m[1]}, nil
		}
	}
	if m := withVCS.FindStringSubmatch(mod); m != nil {
		if m[2] != "git" {
			return repoRoot{}, fmt.Errorf("it is in a %s repository, and only git is supported", m[2])
		}
		return repoRoot{path: m[1], vcs: "git", repo: "https://" + strings.TrimSuffix(m[1], ".git")}, nil
	}
	root, err := f.goImport(ctx, mod, mod)
	if err != nil {
		return repoRoot{}, err
	}
	if root.path != mod { // the prefix has to say so itself
		again, err := f.goImport(ctx, root.path, mod)
		if err != nil {
			return repoRoot{}, err
		}
		if again != root {
			return repoRoot{}, fmt.Errorf("%s and %s do not name the same repository", mod, root.path)
		}
	}
	return root, checkRoot(root)
}

// checkRoot refuses what a page may not say.
func checkRoot(root repoRoot) error {
	if root.vcs != "git" && root.vcs != "mod" {
		return fmt.Errorf("it is in a %.20q repository, and only git is supported", root.vcs)
	}
	u, err := url.Parse(root.repo)
	if err != nil || u.Scheme != "https" && u.Scheme != "ssh" {
		return errors.New("its page names a repository by an address that is neither https nor ssh")
	}
	if IsLocal(u.Hostname()) {
		return errors.New("its page names a repository on this machine")
	}
	if s := root.subdir; s != "" && (path.Clean(s) != s || path.IsAbs(s) || s == ".." || strings.HasPrefix(s, "../")) {
		return fmt.Errorf("its page names the folder %.80q, which is not in the repository", s)
	}
	return nil
}

// goImport asks the page of a path which repository mod is in.
func (f *Fetcher) goImport(ctx context.Context, at, mod string) (repoRoot, error) {
	u, err := url.Parse("https://" + at + "?go-get=1")
	if err != nil {
		return repoRoot{}, err
	}
	var all []repoRoot
	err = f.retry(ctx, u, func() (err error) {
		all, err = f.goImports(ctx, u)
		return err
	})
	if err != nil {
		return repoRoot{}, fmt.Errorf("asking https://%s for its repository: %w", at, err)
	}
	return matchRoot(all, mod)
}

// goImports reads the go-import tags of a page. A page that says that it is
// not there may have them all the same.
func (f *Fetcher) goImports(ctx context.Context, u *url.URL) ([]repoRoot, error) {
	o, _, err := f.gitOptions(nil, u)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, f.cfg.IdleTimeout) // for a page
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", "caisson/"+f.cfg.Version)
	resp, err := o.HTTP.Do(req)
	if err != nil {
		var passes temporary
		if err = sendError(ctx, err); errors.As(err, &passes) {
			err = &gitfetch.TemporaryError{Err: err}
		}
		return nil, err
	}
	defer resp.Body.Close()
	all := parseGoImports(io.LimitReader(resp.Body, maxGoGet))
	switch s := resp.StatusCode; {
	case len(all) > 0:
		return all, nil
	case s == http.StatusNotFound || s == http.StatusGone:
		return nil, fmt.Errorf("the server answers %s: %w", resp.Status, fs.ErrNotExist)
	case s == http.StatusTooManyRequests || s >= http.StatusInternalServerError:
		return nil, &gitfetch.TemporaryError{Err: fmt.Errorf("the server answers %s", resp.Status)}
	case s != http.StatusOK:
		return nil, fmt.Errorf("the server answers %s", resp.Status)
	}
	return nil, fmt.Errorf("its page has no go-import tag: %w", fs.ErrNotExist)
}

// parseGoImports reads the go-import tags in the head of a page. Module
// proxies come first, and what they serve is taken from no repository.
func parseGoImports(r io.Reader) []repoRoot {
	var proxies, repos []repoRoot
	served := make(map[string]bool)
	z := html.NewTokenizer(r)
	z.SetMaxBuf(64 << 10)
	for {
		switch z.Next() {
		case html.ErrorToken:
			return append(proxies, withoutServed(repos, served)...)
		case html.StartTagToken, html.SelfClosingTagToken:
			t := z.Token()
			if t.Data == "body" {
				return append(proxies, withoutServed(repos, served)...)
			}
			root, ok := goImportTag(t)
			switch {
			case !ok:
			case root.vcs == "mod":
				served[root.path] = true
				proxies = append(proxies, root)
			default:
				repos = append(repos, root)
			}
		case html.EndTagToken:
			if z.Token().Data == "head" {
				return append(proxies, withoutServed(repos, served)...)
			}
		}
	}
}

func withoutServed(repos []repoRoot, served map[string]bool) []repoRoot {
	var out []repoRoot
	for _, r := range repos {
		if !served[r.path] {
			out = append(out, r)
		}
	}
	return out
}

// goImportTag reads <meta name="go-import" content="PATH VCS REPO [FOLDER]">.
func goImportTag(t html.Token) (repoRoot, bool) {
	var name, content string
	for _, a := range t.Attr {
		switch a.Key {
		case "name":
			name = a.Val
		case "content":
			content = a.Val
		}
	}
	f := strings.Fields(content)
	if t.Data != "meta" || name != "go-import" || len(f) != 3 && len(f) != 4 {
		return repoRoot{}, false
	}
	return repoRoot{path: f[0], vcs: f[1], repo: f[2], subdir: strings.Join(f[3:], "")}, true
}

// matchRoot is the one root that a module's path begins with; a proxy goes
// before repositories.
func matchRoot(all []repoRoot, mod string) (repoRoot, error) {
	var found []repoRoot
	for _, r := range all {
		if mod == r.path || strings.HasPrefix(mod, r.path+"/") {
			found = append(found, r)
		}
	}
	switch {
	case len(found) == 0:
		return repoRoot{}, fmt.Errorf("no go-import tag is for %s: %w", mod, fs.ErrNotExist)
	case len(found) > 1 && (found[0].vcs != "mod" || found[1].vcs == "mod"):
		return repoRoot{}, fmt.Errorf("several go-import tags are for %s", mod)
	}
	return found[0], nil
}
