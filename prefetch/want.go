package prefetch

import (
	"cmp"
	"fmt"
	"net/url"
	"strings"

	"caisson/lock"
)

// wantOf says where an input of a lock is to be had, and how.
func wantOf(l *lock.Lock, in *lock.Input) (lock.Want, error) {
	w := lock.Want{Kind: in.Kind, URL: in.URL, Registry: in.Registry, SHA256: in.SHA256, Size: in.Size, Mirrors: in.Mirrors, Auth: in.Auth}
	switch {
	case in.Git != nil:
		w.Ref, w.Submodules = cmp.Or(in.Git.Tag, in.Git.Commit), in.Git.Submodules
	case in.OCI != nil:
		w.MediaTypes = []string{in.OCI.MediaType}
	}
	if in.Repo == "" {
		return w, nil
	}
	r := l.RepoOf(in)
	if strings.Contains(in.URL, "://") { // the repository's metadata may name another host
		if r != nil && w.Auth == nil && sameHost(in.URL, r.BaseURL) {
			w.Auth = r.Auth
		}
		return w, nil
	}
	if r == nil {
		return w, fmt.Errorf("the lock has no address for its repository %q", in.Repo)
	}
	if r.ISO != "" {
		image := l.Find(lock.KindFile, r.ISO)
		folder, ok := strings.CutPrefix(r.BaseURL, "iso:"+r.ISO+"/")
		if image == nil || !ok {
			return w, fmt.Errorf("the repository %q is in the ISO image %q, which is no file of the lock", r.ID, r.ISO)
		}
		w.ISO, w.URL = image.SHA256, folder+in.URL
		return w, nil
	}
	w.URL = r.BaseURL + in.URL
	if w.Auth == nil {
		w.Auth = r.Auth
	}
	for _, base := range r.Mirrors {
		w.Mirrors = append(w.Mirrors[:len(w.Mirrors):len(w.Mirrors)], base+in.URL)
	}
	return w, nil
}

// sameHost tells whether two addresses are of one server.
func sameHost(a, b string) bool {
	x, err := url.Parse(a)
	y, e := url.Parse(b)
	return err == nil && e == nil && sameServer(x, y)
}
