package lock

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"caisson/lock/digest"
)

// serve has a repository at another address too.
func (w *world) serve(base, name string) {
	w.t.Helper()
	dir := w.folder(name)
	err := filepath.WalkDir(dir, func(at string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			w.files[base+strings.TrimPrefix(at, dir+"/")] = at
		}
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

// folder is where a repository lies.
func (w *world) folder(name string) string {
	return filepath.Join(strings.TrimPrefix(w.repos, "file://"), name)
}

// text has a file at an address.
func (w *world) text(at, content string) {
	w.t.Helper()
	name := filepath.Join(w.t.TempDir(), "file")
	writeFiles(w.t, filepath.Dir(name), map[string]string{"file": content})
	w.files[at] = name
}

// atRepo is a manifest with one repository, at what keys says.
func atRepo(keys string) string {
	return "version: 1\nname: podvm\nrpm: {vars: {releasever: '9.4'}, repos: [{id: base, gpgcheck: false, " + keys + "}]}\nsets: {root: {packages: [data]}}\n"
}

var onePackage = pkg{name: "data", evr: "1-1", arch: "noarch"}

func TestResolveAddresses(t *testing.T) {
	w := newWorld(t)
	w.repo("base", "", onePackage)
	w.serve("https://a.example/9/4/x86_64/", "base")
	w.text("https://list.example/?repo=9.4&arch=x86_64", "# list\nhttps://dead.example/$releasever_major\nhttp://b.example/\nnonsense\nhttps://a.example/9/${releasever_minor}/$basearch\n")
	w.text("http://list.example/", "http://dead.example/\nhttps://a.example/9/4/x86_64/\n")
	for _, tt := range []struct {
		keys, base string
		mirrors    []string
	}{
		{`baseurl: "https://a.example/$releasever_major/$releasever_minor/$arch"`, "https://a.example/9/4/x86_64/", nil},
		{`baseurl: ["https://dead.example/x", "https://a.example/9/4/$basearch/", "https://dead.example/x/"]`, "https://dead.example/x/", []string{"https://a.example/9/4/x86_64/"}},
		{`mirrorlist: "https://list.example/?repo=$releasever&arch=$basearch"`, "https://dead.example/9/", []string{"https://a.example/9/4/x86_64/"}},
		{`mirrorlist: "http://list.example/"`, "http://dead.example/", []string{"https://a.example/9/4/x86_64/"}},
	} {
		l := w.lock(atRepo(tt.keys))
		if r := l.Repos[0]; r.BaseURL != tt.base || !slices.Equal(r.Mirrors, tt.mirrors) || chosen(l, "x86_64", "root") != "data-1-1.noarch@base" {
			t.Errorf("%s: got %+v", tt.keys, r)
		}
	}
	w.text("https://list.example/http", "http://b.example/\nftp://b.example/\n")
	w.text("https://list.example/html", "<html>\n")
	w.text("https://list.example/odd", "https://b.example/$odd\n")
	w.text("https://list.example/password", "https://me:secret@b.example/\n")
	for _, tt := range []struct{ keys, want string }{
		{`mirrorlist: "https://list.example/http"`, `https://list.example/http: none of its 2 mirrors is at https://`},
		{`mirrorlist: "https://list.example/html"`, `https://list.example/html: mirrorlist: no address in it; it says "<html>"`},
		{`mirrorlist: "https://list.example/odd"`, `https://list.example/odd: https://b.example/$odd: variable $odd has no value; give it one in rpm.vars`},
		{`mirrorlist: "https://list.example/password"`, `https://list.example/password: baseurl "https://me:xxxxx@b.example/": a name and password do not belong into a lock; put them into .netrc`},
		{`mirrorlist: "https://none.example/"`, `https://none.example/: file does not exist`},
		{`metalink: "https://me:secret@x.example/"`, `metalink "https://me:xxxxx@x.example/": a name and password do not belong into a lock; put them into .netrc`},
		{`metalink: "https://list.example/http"`, `https://list.example/http: metalink: line 1 (byte 0): text outside of the document element`},
		{`iso: none.iso/BaseOS`, `iso "none.iso/BaseOS": inputs.files has no "none.iso"`},
	} {
		w.fails(atRepo(tt.keys), `repository "base" (x86_64): `+tt.want)
	}
}

// TestBaseArch compares with dnf's own table.
func TestBaseArch(t *testing.T) {
	const python = "/usr/bin/python3"
	if exec.Command(python, "-c", "import dnf.rpm").Run() != nil {
		if os.Getenv("CAISSON_TOOLS") == "required" {
			t.Fatal("no dnf.rpm")
		}
		t.Skip("dnf's library is not installed")
	}
	r := &resolver{m: &Manifest{}}
	for _, arch := range []string{"i686", "i586", "i486", "x86_64", "aarch64", "ppc64le", "s390x", "riscv64", "armv6hl", "armv7hl", "armv7hnl"} {
		out, err := exec.Command(python, "-c", "import dnf.rpm,sys; print(dnf.rpm.basearch(sys.argv[1]))", arch).Output()
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := r.variable("basearch", arch); got != strings.TrimSpace(string(out)) {
			t.Errorf("%s: got %s, want %s", arch, got, out)
		}
	}
}

// link is a metalink for the repomd.xml of some digests.
func link(mirrors []string, sums ...digest.Digest) string {
	one := func(d digest.Digest) string {
		return "<verification><hash type=\"sha256\">" + d.Hex() + "</hash></verification>"
	}
	s := `<metalink version="3.0"><files><file name="repomd.xml">` + one(sums[0]) + "<mm0:alternates>"
	for _, d := range sums[1:] {
		s += "<mm0:alternate>" + one(d) + "</mm0:alternate>"
	}
	s += "</mm0:alternates><resources>"
	for i, m := range mirrors {
		s += fmt.Sprintf("<url preference=\"%d\">%srepodata/repomd.xml</url>", 100-i, m)
	}
	return s + "</resources></file></files></metalink>"
}

func TestResolveMetalink(t *testing.T) {
	w := newWorld(t)
	w.repo("base", "", onePackage)
	w.repo("older", "", pkg{name: "data", evr: "0-1", arch: "noarch"})
	w.serve("https://a.example/", "older")
	w.serve("https://b.example/", "base")
	w.serve("https://c.example/", "base")
	sum := func(name string) digest.Digest {
		d, _, err := digestFile(filepath.Join(w.folder(name), "repodata/repomd.xml"))
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	const at = "https://link.example/?repo=9"
	manifest := atRepo(`metalink: "` + at + `"`)
	mirrors := []string{"https://a.example/", "https://b.example/", "https://c.example/"}

	w.text(at, link(mirrors, sum("base")))
	l := w.lock(manifest)
	if r := l.Repos[0]; r.BaseURL != mirrors[0] || !slices.Equal(r.Mirrors, mirrors[1:]) || r.Repomd != sum("base") {
		t.Errorf("a stale mirror: got %+v", r)
	}
	if got := chosen(l, "x86_64", "root"); got != "data-1-1.noarch@base" {
		t.Errorf("got %s", got)
	}
	// What the lock has stays, in whatever order the mirrors come.
	first := format(t, l)
	w.opts.Old = l
	w.text(at, link([]string{"https://d.example/", "https://c.example/", "https://b.example/", "https://a.example/"}, sum("base")))
	if got := format(t, w.lock(manifest)); string(got) != string(first) {
		t.Errorf("another order of mirrors is another lock:\n%s\n%s", got, first)
	}
	w.text(at, link([]string{"https://d.example/", "https://c.example/", "https://a.example/"}, sum("base")))
	if r := w.lock(manifest).Repos[0]; r.BaseURL != mirrors[0] || !slices.Equal(r.Mirrors, []string{"https://c.example/", "https://d.example/"}) {
		t.Errorf("a mirror is gone: got %+v", r)
	}
	w.opts.UpdateAll = true
	if r := w.lock(manifest).Repos[0]; r.BaseURL != "https://d.example/" {
		t.Errorf("everything is chosen anew: got %+v", r)
	}
	w.opts.UpdateAll, w.opts.Old = false, nil

	// An alternate is accepted, another file is not.
	w.text(at, link(mirrors[:1], sum("base"), sum("older")))
	if l := w.lock(manifest); l.Repos[0].Repomd != sum("older") || chosen(l, "x86_64", "root") != "data-0-1.noarch@base" {
		t.Errorf("an alternate: got %+v", l.Repos[0])
	}
	w.text(at, link(mirrors[:1], sum("base")))
	w.fails(manifest, `repository "base" (x86_64): no mirror has the repomd.xml that https://link.example/?repo=9 names: https://a.example/repodata/repomd.xml: not the file that is wanted: got `+
		sum("older").String()+", want "+sum("base").String()+" (tried 3 times); wait until the repository stands still, or lock from another mirror or from a snapshot of it")
	w.text(at, strings.Replace(link(mirrors, sum("base")), `"sha256">`, `"sha512">`+sum("base").Hex(), 1))
	w.fails(manifest, `repository "base" (x86_64): no mirror has the repomd.xml that https://link.example/?repo=9 names: https://link.example/?repo=9: it has no SHA-256 of repomd.xml`)
	w.text(at, link(nil, sum("base")))
	w.fails(manifest, `repository "base" (x86_64): https://link.example/?repo=9: it names no mirror by https or http`)

	// Many mirrors are not all kept.
	var many []string
	for i := range 30 {
		many = append(many, fmt.Sprintf("https://m%d.example/", i))
		w.serve(many[i], "base")
	}
	w.text(at, link(many, sum("base")))
	if r := w.lock(manifest).Repos[0]; len(r.Mirrors) != maxMirrors || r.BaseURL != many[0] || r.Mirrors[7] != many[8] {
		t.Errorf("got %+v", r)
	}
}

// TestResolveISO has two repositories in one image.
func TestResolveISO(t *testing.T) {
	w := newWorld(t)
	w.repo("BaseOS", "", onePackage)
	w.repo("root", "", pkg{name: "more", evr: "1-1", arch: "noarch"})
	image := digest.Of([]byte("an image"))
	writeFiles(t, w.dir, map[string]string{"rhel.iso": "an image", "x86_64.iso": "an image"})
	m := `version: 1
name: podvm
rpm:
  repos:
  - {id: base, iso: rhel.iso/BaseOS/, gpgcheck: false}
  - {id: top, iso: $basearch.iso, gpgcheck: false}
inputs: {files: [{name: rhel.iso, url: rhel.iso, sha256: ` + image.Hex() + `}, {name: x86_64.iso, url: x86_64.iso}]}
sets: {root: {packages: [data, more]}}
`
	w.images = map[digest.Digest]string{image: w.repos}
	writeFiles(t, w.folder("."), map[string]string{}) // the image's root has a repository too
	if err := os.Rename(filepath.Join(w.folder("root"), "repodata"), filepath.Join(w.folder("."), "repodata")); err != nil {
		t.Fatal(err)
	}
	l := w.lock(m)
	if got := chosen(l, "x86_64", "root"); got != "data-1-1.noarch@base more-1-1.noarch@top" {
		t.Errorf("got %s", got)
	}
	if r := l.Repos; r[0].BaseURL != "iso:rhel.iso/BaseOS/" || r[0].ISO != "rhel.iso" || r[1].BaseURL != "iso:x86_64.iso/" || l.Find(KindFile, "rhel.iso").SHA256 != image {
		t.Errorf("got %+v", r)
	}
	if !slices.Contains(w.asked, "BaseOS/repodata/repomd.xml") || !slices.Contains(w.asked, "repodata/repomd.xml") || !slices.Contains(w.asked, "rhel.iso") {
		t.Errorf("asked for %q", w.asked)
	}
	for _, in := range slicesOfRPM(l) {
		if !strings.HasPrefix(in.URL, "Packages/") {
			t.Errorf("got %s", in.URL)
		}
	}
}

func TestResolveRepoKeys(t *testing.T) {
	w := newWorld(t)
	w.repo("a", "", onePackage)
	w.serve("https://a.example/", "a")
	w.serve("https://b.example/", "a")
	w.text("https://a.example/KEY", "key AA11\n")
	w.text("https://keys.example/KEY2", "key BB22\n")
	var wants []Want
	w.before = func(want Want) { wants = append(wants, want) }
	l := w.lock(`version: 1
name: podvm
rpm:
  obsoletes: false
  moduleEnable: [b:2, a]
  moduleDisable: [c]
  installonlypkgs: [kernel, data]
  sameEVR: true
  sources: "no"
  repos:
  - id: a
    baseurl: ["https://a.example/", "https://b.example/"]
    gpgkey: ["https://a.example/KEY", "https://keys.example/KEY2"]
    sslclientcert: $SSL_CLIENT_CERT
    sslclientkey: /etc/pki/key.pem
    username: me
    password: $PASSWORD
    proxy: http://proxy.example:3128
    priority: 7
    cost: 500
    excludepkgs: [b*, a]
    includepkgs: [data, c]
    module_hotfixes: true
`)
	auth := &Auth{TLS: &AuthTLS{Cert: "$SSL_CLIENT_CERT", Key: "/etc/pki/key.pem"}, Basic: &AuthBasic{Username: "me", Password: "$PASSWORD"}, Proxy: "http://proxy.example:3128"}
	want := Repo{
		ID: "a", Arch: "x86_64", BaseURL: "https://a.example/", Mirrors: []string{"https://b.example/"}, Auth: auth, Repomd: l.Repos[0].Repomd,
		Priority: 7, Cost: 500, ExcludePkgs: []string{"a", "b*"}, IncludePkgs: []string{"c", "data"}, ModuleHotfixes: true, GPGCheck: true, Keys: []string{"AA11", "BB22"},
	}
	if !reflect.DeepEqual(l.Repos[0], want) {
		t.Errorf("got  %+v\nwant %+v", l.Repos[0], want)
	}
	if o := (RPMOptions{WeakDeps: true, Best: true, KeepObsoleted: true, ModuleEnable: []string{"a", "b:2"}, ModuleDisable: []string{"c"}, InstallOnly: []string{"data", "kernel"}, SameEVR: true}); !reflect.DeepEqual(l.RPM, o) {
		t.Errorf("got %+v", l.RPM)
	}
	for _, w := range wants {
		own := strings.HasPrefix(w.URL, "https://a.example/")
		if own != reflect.DeepEqual(w.Auth, auth) || w.Kind == KindRepodata && !slices.Equal(w.Mirrors, []string{strings.Replace(w.URL, "a.", "b.", 1)}) || w.Kind == KindKey && w.Max != maxKey {
			t.Errorf("wanted %+v", w)
		}
	}
	if k := l.Find(KindKey, "https://keys.example/KEY2"); k.Auth != nil {
		t.Error("another host is told the password")
	}
	if k := l.Find(KindKey, "https://a.example/KEY"); !reflect.DeepEqual(k.Auth, auth) {
		t.Errorf("got %+v", k)
	}
	repo, err := LoadRepos(context.Background(), Options{Manifest: &Manifest{RPM: ManifestRPM{Repos: []ManifestRepo{{
		ID: "a", BaseURL: StringList{"https://a.example/"}, ExcludePkgs: []string{"x"}, IncludePkgs: []string{"y"}, ModuleHotfixes: true, GPGCheck: new(bool),
	}}}}, Fetch: w.fetch}, "x86_64")
	if err != nil || !slices.Equal(repo[0].ExcludePkgs, []string{"x"}) || !slices.Equal(repo[0].IncludePkgs, []string{"y"}) || !repo[0].ModuleHotfixes {
		t.Errorf("got %+v, %v", repo, err)
	}
	if u := l.Unchecked(); u != nil {
		t.Errorf("got %+v", u)
	}
	if u := w.lock(atRepo(`baseurl: "https://a.example/"`)).Unchecked(); len(u) != 1 || u[0].ID != "base" {
		t.Errorf("got %+v", u)
	}
}

func TestRepoKeysRefused(t *testing.T) {
	for _, tt := range []struct{ keys, want string }{
		{"sslclientkey: a", `sslclientkey: "base" has a key and no sslclientcert`},
		{"username: me", `username: "base" has a user name and no password`},
		{"password: $P", `password: "base" has a password and no user name`},
		{"username: me, password: hunter2", "password: a password does not belong into a manifest: want \"$NAME\", an environment variable, or the path of a file that it is in, such as ./password"},
		{"username: me, password: $P-4", "password: a password does not belong"},
		{"username: me, password: ./secret", ""},
		{"username: me, password: '${P}'", ""},
		{"proxy: 'http://me:secret@p.example:1'", `proxy: got "http://me:xxxxx@p.example:1"; a name and password do not belong into a manifest`},
		{"proxy: 'ftp://p.example'", `proxy: got "ftp://p.example"; want a proxy by http, https or socks5`},
		{"proxy: p.example", "proxy: want an address such as http://host:3128, or _none_"},
		{"proxy: _none_", ""},
		{"cost: 0", "cost: got 0; want 1 to 2147483647"},
		{"excludepkgs: ['']", "excludepkgs: got an empty one"},
		{"includepkgs: ['']", "includepkgs: got an empty one"},
	} {
		_, err := ParseManifest("m", []byte(atRepo("baseurl: 'https://a.example/', "+tt.keys)))
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "secret")) {
			t.Errorf("%s: got %v, want %s", tt.keys, err, tt.want)
		}
	}
	for _, tt := range []struct{ from, to, want string }{
		{"baseurl: x", "baseurl: ['']", "baseurl: got an empty one"},
		{"baseurl: x", "metalink: x", `metalink: got "x"; want an address`},
		{"baseurl: x", "mirrorlist: x", `mirrorlist: got "x"; want an address`},
		{"baseurl: x", "iso: a/../b", `iso: got "a/../b"; want NAME or NAME/FOLDER`},
		{"baseurl: x", "iso: 'https://a'", `iso: got "https://a"; want NAME`},
		{"baseurl: x", "iso: a, sslclientcert: b", `iso: "base" is in a file: say how to log in for that one, in inputs.files`},
		{"rpm: {", "rpm: {sources: all, ", `sources: got "all"; want one of no, yes, available`},
		{"rpm: {", "rpm: {moduleEnable: ['a:b:c'], ", `got "a:b:c"; want name:stream`},
		{"rpm: {", "rpm: {moduleDisable: ['a:b'], ", `got "a:b"; want the name of a module`},
		{"rpm: {", "rpm: {installonlypkgs: [''], ", `got an empty one`},
	} {
		_, err := ParseManifest("m", []byte(strings.Replace(atRepo("baseurl: x"), tt.from, tt.to, 1)))
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %s", tt.to, err, tt.want)
		}
	}
}
