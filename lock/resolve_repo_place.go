package lock

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"

	"caisson/lock/digest"
	"caisson/lock/rpmmd"
)

const (
	// dnf's defaults.
	defaultPriority = 99
	defaultCost     = 1000
	// maxMirrors is how many mirrors of a repository are kept in a lock.
	maxMirrors = 8
	// isoScheme begins the BaseURL of a repository in a file input.
	isoScheme = "iso:"
)

// place is where a repository is for an arch.
type place struct {
	repo Repo // all but its repomd.xml and keys
	// image is the file input that the repository is in, if it is in one.
	image digest.Digest
	// metalink is the address of the repository's metalink, if it has one, and
	// accepted are the repomd.xml that a mirror may have by it.
	metalink string
	accepted []rpmmd.MetalinkVersion
}

// want asks for a file of the repository.
func (p *place) want(rel string) Want {
	w := Want{Kind: KindRepodata, URL: p.repo.BaseURL + rel, Auth: p.repo.Auth, ISO: p.image}
	if p.repo.ISO != "" {
		w.URL = strings.TrimPrefix(w.URL, isoScheme+p.repo.ISO+"/")
	}
	for _, m := range p.repo.Mirrors {
		w.Mirrors = append(w.Mirrors, m+rel)
	}
	return w
}

// place finds out where a repository is.
func (r *resolver) place(ctx context.Context, m *ManifestRepo, arch string) (*place, error) {
	id, err := r.substitute(m.ID, arch)
	if err == nil && !repoID.MatchString(id) {
		err = fmt.Errorf("%q is not an id that a repository may have", id)
	}
	if err != nil {
		return nil, fmt.Errorf("id: %w", err)
	}
	p := &place{repo: Repo{
		ID: id, Arch: arch, Order: slices.IndexFunc(r.m.RPM.Repos, func(o ManifestRepo) bool { return o.ID == m.ID }),
		Auth: m.auth(), Priority: defaultPriority, ExcludePkgs: sorted(m.ExcludePkgs), IncludePkgs: sorted(m.IncludePkgs),
		ModuleHotfixes: m.ModuleHotfixes, GPGCheck: on(m.GPGCheck), RepoGPGCheck: m.RepoGPGCheck != nil && *m.RepoGPGCheck,
	}}
	if m.Priority != nil {
		p.repo.Priority = *m.Priority
	}
	if m.Cost != nil {
		p.repo.Cost = *m.Cost
	}
	switch {
	case m.ISO != "":
		return p, r.inImage(ctx, p, m.ISO)
	case m.Metalink != "":
		var err error
		if p.metalink, err = r.listAddress("metalink", m.Metalink, arch); err != nil {
			return nil, err
		}
		link, err := r.fetchMetalink(ctx, p)
		if err != nil {
			return nil, err
		}
		p.accepted = link.Versions
		r.takeMirrors(&p.repo, link.Mirrors)
		return p, nil
	case m.Mirrorlist != "":
		return p, r.fetchMirrorlist(ctx, p, m.Mirrorlist)
	}
	for i, b := range m.BaseURL {
		b, err := r.expand(b, arch)
		switch {
		case err != nil:
			return nil, err
		case i == 0:
			p.repo.BaseURL = b
		case b != p.repo.BaseURL && !slices.Contains(p.repo.Mirrors, b):
			p.repo.Mirrors = append(p.repo.Mirrors, b)
		}
	}
	return p, nil
}

// takeMirrors takes the first of some mirrors as a repository's address, and
// some others besides. What the lock there was has of them stays: another
// order, or a mirror more, changes nothing.
func (r *resolver) takeMirrors(repo *Repo, found []string) {
	most := maxMirrors
	var order []string
	if r.Old != nil && !r.UpdateAll {
		i := slices.IndexFunc(r.Old.Repos, func(o Repo) bool { return o.ID == repo.ID && o.Arch == repo.Arch })
		if i >= 0 && slices.Contains(found, r.Old.Repos[i].BaseURL) {
			old := r.Old.Repos[i]
			order = append(order, old.BaseURL)
			for _, m := range old.Mirrors {
				if slices.Contains(found, m) {
					order = append(order, m)
				}
			}
			if n := len(old.Mirrors); n > 0 {
				most = n
			}
		}
	}
	for _, m := range found {
		if len(order) > most {
			break
		}
		if !slices.Contains(order, m) {
			order = append(order, m)
		}
	}
	repo.BaseURL, repo.Mirrors = order[0], slices.Clip(order[1:])
}

// fetchMetalink reads the metalink of a repository.
func (r *resolver) fetchMetalink(ctx context.Context, p *place) (*rpmmd.Metalink, error) {
	link, err := fetchParsed(ctx, r.Fetch, Want{Kind: KindRepodata, URL: p.metalink, Auth: p.repo.Auth, Max: rpmmd.MaxMetalink}, rpmmd.ParseMetalink)
	if err != nil {
		return nil, err
	}
	if len(link.Mirrors) == 0 {
		return nil, fmt.Errorf("%s: it names no mirror by https or http", p.metalink)
	}
	return link, nil
}

// fetchMirrorlist takes a repository's mirrors from a list. Who gives the list
// by https gives no mirror that anybody on the way could change, unless
// repomd.xml is signed.
func (r *resolver) fetchMirrorlist(ctx context.Context, p *place, text string) error {
	at, err := r.listAddress("mirrorlist", text, p.repo.Arch)
	if err != nil {
		return err
	}
	lines, err := fetchParsed(ctx, r.Fetch, Want{Kind: KindRepodata, URL: at, Auth: p.repo.Auth, Max: rpmmd.MaxMetalink}, rpmmd.ParseMirrorlist)
	if err != nil {
		return err
	}
	schemes := []string{"https://"}
	if !strings.HasPrefix(at, "https://") || p.repo.RepoGPGCheck {
		schemes = append(schemes, "http://")
	}
	if strings.HasPrefix(at, "file://") {
		schemes = append(schemes, "file://")
	}
	var found []string
	for _, line := range lines {
		if !slices.ContainsFunc(schemes, func(s string) bool { return strings.HasPrefix(line, s) }) {
			continue
		}
		if line, err = r.expand(line, p.repo.Arch); err != nil {
			return fmt.Errorf("%s: %w", at, err)
		}
		found = append(found, line)
	}
	if len(found) == 0 {
		return fmt.Errorf("%s: none of its %d mirrors is at %s", at, len(lines), strings.Join(schemes, " or "))
	}
	r.takeMirrors(&p.repo, found)
	return nil
}

// fetchParsed fetches a file and reads it.
func fetchParsed[T any](ctx context.Context, fetch Fetch, w Want, parse func(io.Reader) (T, error)) (out T, err error) {
	blob, err := fetch(ctx, w)
	if err != nil {
		return out, err
	}
	f, err := os.Open(blob.Path)
	if err != nil {
		return out, err
	}
	defer f.Close()
	if out, err = parse(f); err != nil {
		err = fmt.Errorf("%s: %w", w.URL, err)
	}
	return out, err
}

// inImage finds a repository in a file input, which files has pinned. It
// brings the file in: what it holds is read out of it.
func (r *resolver) inImage(ctx context.Context, p *place, text string) error {
	text, err := r.substitute(text, p.repo.Arch)
	if err != nil {
		return err
	}
	name, folder, _ := strings.Cut(text, "/")
	in, ok := r.inputs[KindFile+"/"+name]
	if !ok {
		return fmt.Errorf("iso %q: inputs.files has no %q", text, name)
	}
	if folder = strings.Trim(folder, "/"); folder != "" {
		if path.Clean(folder) != folder || strings.HasPrefix(folder, "../") || folder == ".." {
			return fmt.Errorf("iso %q: want NAME or NAME/FOLDER, where FOLDER is below the image's root", text)
		}
		folder += "/"
	}
	blob, err := r.Fetch(ctx, Want{Kind: KindFile, URL: in.URL, SHA256: in.SHA256, Size: in.Size, Mirrors: in.Mirrors, Auth: in.Auth})
	if err != nil {
		return err
	}
	p.repo.ISO, p.repo.BaseURL, p.image = name, isoScheme+name+"/"+folder, blob.SHA256
	return nil
}

var variable = regexp.MustCompile(`\$(\w+|\{\w+\})`)

// substitute puts variables' values into a text.
func (r *resolver) substitute(s, arch string) (string, error) {
	var missing error
	out := variable.ReplaceAllStringFunc(s, func(v string) string {
		val, ok := r.variable(strings.Trim(v, "${}"), arch)
		if !ok {
			missing = fmt.Errorf("%s: variable %s has no value; give it one in rpm.vars", s, v)
		}
		return val
	})
	if missing == nil && strings.Contains(out, "${") {
		missing = fmt.Errorf("%s: want variables as $name or ${name}", s)
	}
	return out, missing
}

// baseArches are the arches whose repositories are called otherwise, as dnf
// has it.
var baseArches = map[string]string{
	"i686": "i386", "i586": "i386", "i486": "i386", "x86_64_v2": "x86_64", "x86_64_v3": "x86_64", "x86_64_v4": "x86_64",
	"armv6hl": "armhfp", "armv7hl": "armhfp", "armv7hnl": "armhfp",
}

// variable is the value of a variable of dnf. What rpm.vars gives comes
// before the parts of the release.
func (r *resolver) variable(name, arch string) (string, bool) {
	switch name {
	case "arch":
		return arch, true
	case "basearch":
		if b, ok := baseArches[arch]; ok {
			return b, true
		}
		return arch, true
	}
	if v, ok := r.m.RPM.Vars[name]; ok {
		return v, true
	}
	release, ok := r.m.RPM.Vars["releasever"]
	if x := r.extra[arch]; !ok && x != nil && x.releasever != "" {
		release, ok = x.releasever, true
		if name == "releasever" {
			return release, true
		}
	}
	major, minor, _ := strings.Cut(release, ".")
	switch {
	case ok && name == "releasever_major":
		return major, true
	case ok && name == "releasever_minor":
		return minor, true
	}
	return "", false
}

// expand is a repository's address for an arch, with a final slash.
func (r *resolver) expand(s, arch string) (string, error) {
	out, err := r.substitute(s, arch)
	if err != nil {
		return "", err
	}
	u, err := checkAddress("baseurl", out)
	switch {
	case err != nil:
		return "", err
	case u.RawQuery != "" || u.Fragment != "":
		return "", fmt.Errorf("baseurl %q: want an address without ? and #", out)
	}
	return strings.TrimRight(out, "/") + "/", nil
}

// listAddress is the address of a metalink or a list of mirrors for an arch.
func (r *resolver) listAddress(key, s, arch string) (string, error) {
	out, err := r.substitute(s, arch)
	if err == nil {
		_, err = checkAddress(key, out)
	}
	return out, err
}

func checkAddress(key, s string) (*url.URL, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Scheme == "" || u.Host == "" && u.Scheme != "file":
		return nil, fmt.Errorf("%s %q: want an address such as https://host/path/", key, s)
	case u.User != nil:
		return nil, fmt.Errorf("%s %q: a name and password do not belong into a lock; put them into .netrc", key, u.Redacted())
	}
	return u, nil
}

// checkAddresses refuses what could not be a repository's address whatever
// the variables' values are.
func (r *ManifestRepo) checkAddresses() (key string, err error) {
	if slices.Contains(r.BaseURL, "") {
		return "baseurl", errors.New("got an empty one")
	}
	for _, f := range []struct{ key, text string }{{"metalink", r.Metalink}, {"mirrorlist", r.Mirrorlist}} {
		if f.text != "" && !isURL(f.text) {
			return f.key, fmt.Errorf("got %q; want an address such as https://host/path", f.text)
		}
	}
	name, folder, _ := strings.Cut(r.ISO, "/")
	if r.ISO != "" && (name == "" || strings.Contains(r.ISO, ":") || slices.Contains(strings.Split(folder, "/"), "..")) {
		return "iso", fmt.Errorf("got %q; want NAME or NAME/FOLDER, where NAME is one of inputs.files", r.ISO)
	}
	return "", nil
}
