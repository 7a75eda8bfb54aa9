package share

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"caisson/lock"
	"caisson/lock/digest"
	"caisson/prefetch"
	"caisson/prefetch/cas"
)

// restrictedWorld is a lock of which some files were fetched with a login,
// by their names, and a store that has all. fetched counts what the server
// gives to those who have its token.
func restrictedWorld(t *testing.T) (l *lock.Lock, text []byte, s *cas.Store, fetched *[]string) {
	t.Helper()
	contents := map[string]string{}
	fetched = new([]string)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer letmein" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		*fetched = append(*fetched, r.URL.Path)
		io.WriteString(w, contents[r.URL.Path])
	}))
	t.Cleanup(srv.Close)
	token := &lock.Auth{Bearer: &lock.AuthBearer{Token: "$TOKEN"}}
	repo := func(id string, a *lock.Auth) lock.Repo {
		return lock.Repo{ID: id, Arch: "x86_64", BaseURL: srv.URL + "/" + id + "/", Auth: a}
	}
	iso := repo("dvd", nil)
	iso.BaseURL, iso.ISO = "iso:dvd.iso/BaseOS/", "dvd.iso"
	l = &lock.Lock{Name: "test", Repos: []lock.Repo{
		repo("behind-ca", &lock.Auth{TLS: &lock.AuthTLS{CA: "certs/ca.pem"}, Proxy: "http://proxy.example:3128"}), iso, repo("entitled", token),
	}}
	l.Repos[0].BaseURL = "https://example.org/"
	add := func(in lock.Input) {
		content := "the bytes of " + in.Name
		d, n, err := s.Put(strings.NewReader(content), digest.Digest{})
		if err != nil {
			t.Fatal(err)
		}
		in.SHA256, in.Size = d, n
		path := "/" + in.URL
		if in.Repo != "" {
			path = "/" + in.Repo + path
		}
		contents[path] = content
		if in.Kind == lock.KindFile {
			in.URL = srv.URL + path
		}
		l.Inputs = append(l.Inputs, in)
	}
	s = newStore(t)
	add(lock.Input{Kind: lock.KindFile, Name: "dvd.iso", URL: "dvd.iso", Auth: token})
	add(lock.Input{Kind: lock.KindFile, Name: "open", URL: "open"})
	add(lock.Input{Kind: lock.KindFile, Name: "secret", URL: "secret", Auth: token})
	for _, id := range []string{"behind-ca", "dvd", "entitled"} {
		add(lock.Input{Kind: lock.KindRepodata, Name: id + "-x86_64/repomd.xml", URL: "repodata/repomd.xml", Repo: id})
	}
	text, err := lock.Format(l)
	if err != nil {
		t.Fatal(err)
	}
	return l, text, s, fetched
}

func names(inputs []Left) string {
	var out []string
	for _, in := range inputs {
		out = append(out, in.Name)
	}
	return strings.Join(out, " ")
}

// What was fetched with a login is sent only where it is asked for by name.
func TestPushRestricted(t *testing.T) {
	l, text, s, _ := restrictedWorld(t)
	for _, c := range []struct {
		restricted []string
		left       string
		fault      string
	}{
		{nil, "dvd.iso secret dvd-x86_64/repomd.xml entitled-x86_64/repomd.xml", ""},
		{[]string{"entitled"}, "dvd.iso secret dvd-x86_64/repomd.xml", ""},
		{[]string{"secret", "dvd"}, "dvd.iso entitled-x86_64/repomd.xml", ""},
		{[]string{"dvd.iso"}, "secret dvd-x86_64/repomd.xml entitled-x86_64/repomd.xml", ""},
		{[]string{RestrictedAll}, "", ""},
		{[]string{"secrets"}, "", `called "secrets"`},
		{[]string{"open"}, "", `called "open"`},
		{[]string{""}, "", `called ""`},
	} {
		srv, host := newServer(t)
		o := options()
		o.Restricted = c.restricted
		p, err := Push(context.Background(), host+"/aa", l, text, s, o)
		if c.fault != "" {
			if !errors.As(err, new(*NameError)) || !strings.Contains(err.Error(), c.fault) || srv.counted("POST") != 0 {
				t.Errorf("%q: got %v", c.restricted, err)
			}
			continue
		}
		sent := 1 + len(l.Inputs) - len(p.LeftOut) // the lock besides
		if len(p.LeftOut) > 0 {
			sent++ // the list of them
		}
		if err != nil || names(p.LeftOut) != c.left || p.Sent != p.Files || p.Files != sent {
			t.Errorf("%q: got %+v, left out %q, want %q; %v", c.restricted, p, names(p.LeftOut), c.left, err)
		}
		for _, in := range l.Inputs {
			resp, err := http.Get("http://" + host + "/v2/aa/blobs/" + in.SHA256.String())
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if left := slices.Contains(strings.Fields(c.left), in.Name); (resp.StatusCode == http.StatusOK) == left {
				t.Errorf("%q: %s: the registry answers %s", c.restricted, in.Name, resp.Status)
			}
		}
	}
}

// A file that is two inputs is left out where one of them came with a login,
// the store need not have it, and a lock of nothing else is not pushed.
func TestPushRestrictedShared(t *testing.T) {
	l, text, s, _ := restrictedWorld(t)
	two := *l
	two.Inputs = append(slices.Clone(l.Inputs), lock.Input{Kind: lock.KindFile, Name: "zz", URL: "https://example.org/zz", SHA256: l.Inputs[2].SHA256, Size: l.Inputs[2].Size})
	empty := newStore(t)
	for _, i := range []int{1, 3} {
		if _, _, err := empty.Put(strings.NewReader("the bytes of "+l.Inputs[i].Name), l.Inputs[i].SHA256); err != nil {
			t.Fatal(err)
		}
	}
	_, host := newServer(t)
	p, err := Push(context.Background(), host+"/aa", &two, text, empty, options())
	if err != nil || p.Sent != 4 || len(p.LeftOut) != 4 {
		t.Errorf("got %+v, %v", p, err)
	}
	two.Inputs = slices.Clone(l.Inputs[2:3])
	if _, err := Push(context.Background(), host+"/aa", &two, text, s, options()); err == nil || !strings.Contains(err.Error(), "with a login") {
		t.Errorf("nothing to send: %v", err)
	}
}

// What the registry was not given comes from its own place, with the reader's
// login, and what it should have is not looked for elsewhere.
func TestPullRestricted(t *testing.T) {
	l, text, s, fetched := restrictedWorld(t)
	// What lies in the image would be looked for in its bytes, which are none.
	l.Inputs = slices.DeleteFunc(l.Inputs, func(in lock.Input) bool { return in.Repo == "dvd" })
	srv, host := newServer(t)
	push(t, host+"/aa", l, text, s, options())
	o := options()
	o.Config.Env = func(name string) string { return map[string]string{"TOKEN": "letmein"}[name] }
	to := newStore(t)
	p, err := Pull(context.Background(), host+"/aa", l, text, to, o)
	if err != nil || p.Fetched != len(l.Inputs) || p.OwnPlace != 3 {
		t.Fatalf("got %+v, %v", p, err)
	}
	slices.Sort(*fetched)
	if got := strings.Join(*fetched, " "); got != "/dvd.iso /entitled/repodata/repomd.xml /secret" {
		t.Errorf("from their own place came %q", got)
	}
	same(t, l, to)

	*fetched = nil
	srv.set(nil)
	if p, err := Pull(context.Background(), host+"/aa", l, text, to, o); err != nil || p.Present != len(l.Inputs) || len(*fetched)+srv.counted("GET") != 0 {
		t.Errorf("again: %+v, %v", p, err)
	}

	// The registry that was given them is enough.
	all := options()
	all.Restricted = []string{RestrictedAll}
	push(t, host+"/all", l, text, s, all)
	if p, err := Pull(context.Background(), host+"/all", l, text, newStore(t), options()); err != nil || p.OwnPlace != 0 || len(*fetched) != 0 {
		t.Errorf("from the registry: %+v, %v", p, err)
	}

	// Without the login it is known which are wanting, and the rest is there.
	to = newStore(t)
	_, err = Pull(context.Background(), host+"/aa", l, text, to, options())
	if err == nil || !strings.Contains(err.Error(), "file secret") || strings.Contains(err.Error(), "letmein") {
		t.Errorf("without the login: %v", err)
	}
	if missing := prefetch.Missing(l, to); len(missing) != 3 {
		t.Errorf("without the login %d are missing", len(missing))
	}
}

// What came into the store by a login of the site is restricted as well: its
// list tells the puller, who has no mark, and what is sent all the same takes
// its mark along.
func TestPushMarked(t *testing.T) {
	l, text, s := world(t)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "one") }))
	defer srv.Close()
	for i := range l.Inputs {
		if strings.HasPrefix(l.Inputs[i].Name, "one") {
			l.Inputs[i].URL = srv.URL
		}
	}
	one := l.Inputs[2].SHA256
	if err := prefetch.RememberLogin(s, one, ".netrc"); err != nil {
		t.Fatal(err)
	}
	_, host := newServer(t)
	p := push(t, host+"/aa", l, text, s, options())
	if len(p.LeftOut) != 1 || p.LeftOut[0].Name != "one" || p.LeftOut[0].By != ".netrc" {
		t.Fatalf("left out: %+v", p.LeftOut)
	}
	to := newStore(t)
	if p, err := Pull(context.Background(), host+"/aa", l, text, to, options()); err != nil || p.OwnPlace != 1 || prefetch.LoginOf(to, one) != "" {
		t.Errorf("got %+v, %v, %q", p, err, prefetch.LoginOf(to, one))
	}
	same(t, l, to)

	o := options()
	o.Restricted = []string{"one"}
	if p := push(t, host+"/bb", l, text, s, o); len(p.LeftOut) != 0 {
		t.Errorf("left out: %+v", p.LeftOut)
	}
	to = newStore(t)
	if p, err := Pull(context.Background(), host+"/bb", l, text, to, options()); err != nil || p.OwnPlace != 0 || prefetch.LoginOf(to, one) != ".netrc" {
		t.Errorf("got %+v, %v, %q", p, err, prefetch.LoginOf(to, one))
	}
	if p := push(t, host+"/cc", l, text, to, options()); len(p.LeftOut) != 1 {
		t.Errorf("passed on unawares: %+v", p)
	}

	// An image that came by a login restricts what lies in it.
	dvd, dvdText, ds, _ := restrictedWorld(t)
	for i := range dvd.Inputs {
		if dvd.Inputs[i].Auth = nil; dvd.Inputs[i].Name == "dvd.iso" {
			if err := prefetch.RememberLogin(ds, dvd.Inputs[i].SHA256, "an SSH key"); err != nil {
				t.Fatal(err)
			}
		}
	}
	dvd.Repos[2].Auth = nil
	if p := push(t, host+"/dvd", dvd, dvdText, ds, options()); names(p.LeftOut) != "dvd.iso dvd-x86_64/repomd.xml" {
		t.Errorf("left out: %s", names(p.LeftOut))
	}
}
