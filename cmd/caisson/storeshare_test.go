package main

import (
	"bytes"
	"context"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"

	"caisson/lock"
	"caisson/lock/digest"
	"caisson/prefetch/cas"
)

// Push names what it leaves out, and pull fetches that with the login that is
// in the project's folder.
func TestStoreRestricted(t *testing.T) {
	reg := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer reg.Close()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer letmein" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		io.WriteString(w, r.URL.Path)
	}))
	defer srv.Close()
	dir := t.TempDir()
	store, err := cas.Open(filepath.Join(dir, "st"))
	must(t, err)
	token := &lock.Auth{Bearer: &lock.AuthBearer{Token: "./token"}}
	must(t, os.WriteFile(filepath.Join(dir, "token"), []byte("letmein\n"), 0o600))
	l := &lock.Lock{Version: lock.Version, Revision: lock.Revision, Name: "test", Manifest: digest.Of(nil), Arches: []string{"x86_64"},
		Repos: []lock.Repo{{ID: "entitled", Arch: "x86_64", BaseURL: srv.URL + "/", Repomd: digest.Of([]byte("/repomd.xml")), Auth: token}},
		Inputs: []lock.Input{
			{Kind: lock.KindFile, Name: "open", URL: srv.URL + "/open"},
			{Kind: lock.KindFile, Name: "secret", URL: srv.URL + "/secret", Auth: token},
			{Kind: lock.KindRepodata, Name: "entitled-x86_64/primary", URL: "primary", Repo: "entitled"},
			{Kind: lock.KindRepodata, Name: "entitled-x86_64/repomd.xml", URL: "repomd.xml", Repo: "entitled"},
		}}
	for i, path := range []string{"/open", "/secret", "/primary", "/repomd.xml"} {
		in := &l.Inputs[i]
		in.SHA256, in.Size, err = store.Put(strings.NewReader(path), digest.Digest{})
		must(t, err)
	}
	text, err := lock.Format(l)
	must(t, err)
	lockFile := filepath.Join(dir, "caisson.lock")
	must(t, os.WriteFile(lockFile, text, 0o644))
	ref := strings.TrimPrefix(reg.URL, "http://") + "/team/store"
	run := func(args ...string) (code int, said string) {
		var out, errs bytes.Buffer
		u := &ui{out: &out, err: &errs}
		c := newStoreCommand(u)
		c.SetArgs(append(args, ref, "--lock", lockFile))
		c.SilenceErrors, c.SilenceUsage = true, true
		if err := c.ExecuteContext(context.Background()); err != nil {
			code, _ = classify(err)
			errs.WriteString(err.Error())
		}
		return code, errs.String()
	}
	for _, c := range []struct {
		args []string
		code int
		want []string
	}{
		{[]string{"push", "--store", store.Dir()}, exitOK, []string{
			"3 files sent (", "3 files left out, fetched with a login (--restricted NAME sends them):\n", "    file secret: by the lock's login\n", "    repository entitled: 2 files, by the lock's login\n"}},
		{[]string{"pull", "--store", filepath.Join(dir, "st2")}, exitOK, []string{"4 inputs fetched", "of those, 3 files from where the lock says"}},
		{[]string{"pull", "--store", filepath.Join(dir, "st3"), "--project", t.TempDir()}, exitError, []string{"file secret", "the token is to be read from a file that is not there"}},
		{[]string{"push", "--store", store.Dir(), "--restricted", "nothere"}, exitUsage, []string{`"nothere"`}},
		{[]string{"push", "--store", store.Dir(), "--restricted", "entitled", "--restricted", "secret"}, exitOK, []string{"3 files sent"}},
		{[]string{"pull", "--store", filepath.Join(dir, "st4"), "--project", t.TempDir()}, exitOK, []string{"4 inputs fetched"}},
	} {
		code, said := run(c.args...)
		if code != c.code {
			t.Errorf("%q: exit code %d, want %d", c.args, code, c.code)
		}
		for _, w := range c.want {
			if !strings.Contains(said, w) {
				t.Errorf("%q said\n%s\nwhich has no %q", c.args, said, w)
			}
		}
		if strings.Contains(said, "letmein") {
			t.Errorf("%q said the secret", c.args)
		}
	}
}
