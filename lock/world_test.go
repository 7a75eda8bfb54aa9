package lock

import (
	"bytes"
	"cmp"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"caisson/lock/digest"
	"caisson/lock/rpmmd"
)

// pkg is a package of a repository made for a test. Its file's digest is that
// of its location and salt.
type pkg struct {
	name, evr, arch              string // evr: "1-1", "2:1-1"
	requires, provides, weak     []string
	build                        int64
	base, location, salt, source string
	algorithm                    string // sha256 unless given
}

// world is a folder with a manifest, repositories and a module proxy.
type world struct {
	t     *testing.T
	dir   string            // the project's
	repos string            // file:// address of the repositories' folder
	files map[string]string // other addresses, and Go paths, to files
	mu    sync.Mutex
	// before is called before anything is fetched.
	before func(Want)
	images map[digest.Digest]string // file:// folders that stand for ISO images
	asked  []string                 // addresses that were fetched, sorted by their caller
	opts   Options
	sumdb  http.Handler
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, dir: t.TempDir(), repos: "file://" + t.TempDir() + "/", files: map[string]string{}}
	writeFiles(t, w.dir, map[string]string{"KEY": "key AA11\n", "KEY2": "key CC33 BB22\n"})
	w.opts = Options{Dir: w.dir, Fetch: w.fetch, Fingerprints: fingerprints, CheckSignature: checkSignature}
	return w
}

// fingerprints reads a test's key file: "key" and the fingerprints.
func fingerprints(key []byte) ([]string, error) {
	words := strings.Fields(string(key))
	if len(words) == 0 || words[0] != "key" {
		return nil, errors.New("no OpenPGP key")
	}
	return words[1:], nil
}

// checkSignature wants the key's file and what was signed in a signature.
func checkSignature(keys [][]byte, signed, signature io.Reader) error {
	text, err := io.ReadAll(signed)
	if err != nil {
		return err
	}
	sig, err := io.ReadAll(signature)
	if err != nil {
		return err
	}
	for _, k := range keys {
		if bytes.Equal(sig, append(slices.Clone(k), text...)) {
			return nil
		}
	}
	return errors.New("not signed by a trusted key")
}

// fetch is a lock.Fetch over files. It tries the mirrors in turn.
func (w *world) fetch(ctx context.Context, want Want) (b Blob, err error) {
	for i, at := range append([]string{want.URL}, want.Mirrors...) {
		one := want
		one.URL = at
		got, e := w.fetchOne(ctx, one)
		if e == nil {
			return got, nil
		}
		if i == 0 {
			err = e
		}
	}
	return b, err
}

func (w *world) fetchOne(ctx context.Context, want Want) (Blob, error) {
	if err := ctx.Err(); err != nil {
		return Blob{}, err
	}
	w.mu.Lock()
	w.asked = append(w.asked, want.URL)
	if w.before != nil {
		w.before(want)
	}
	w.mu.Unlock()
	if !want.ISO.IsZero() {
		want.URL = w.images[want.ISO] + want.URL
	}
	name, ok := strings.CutPrefix(want.URL, "file://")
	switch {
	case ok:
	case want.Kind == KindFile && !isURL(want.URL):
		name = filepath.Join(w.dir, want.URL)
	default:
		name = w.files[want.URL]
	}
	if want.Kind == KindSumDB && w.sumdb != nil {
		rec := httptest.NewRecorder()
		w.sumdb.ServeHTTP(rec, httptest.NewRequest("GET", want.URL, nil))
		if rec.Code != http.StatusOK {
			return Blob{}, fmt.Errorf("%s: %d %s", want.URL, rec.Code, rec.Body)
		}
		name = filepath.Join(w.t.TempDir(), "sumdb")
		if err := os.WriteFile(name, rec.Body.Bytes(), 0o644); err != nil {
			return Blob{}, err
		}
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return Blob{}, fmt.Errorf("%s: %w", want.URL, fs.ErrNotExist)
	}
	d := digest.Of(b)
	if !want.SHA256.IsZero() && want.SHA256 != d {
		return Blob{}, fmt.Errorf("%s: %w: got %s, want %s", want.URL, ErrMismatch, d, want.SHA256)
	}
	return Blob{Path: name, SHA256: d, Size: int64(len(b))}, nil
}

// repo writes a repository. Keys sign its repomd.xml.
func (w *world) repo(name string, keys string, pkgs ...pkg) {
	w.t.Helper()
	var primary, lists strings.Builder
	fmt.Fprintf(&primary, `<metadata xmlns="http://linux.duke.edu/metadata/common" xmlns:rpm="http://linux.duke.edu/metadata/rpm" packages="%d">`, len(pkgs))
	fmt.Fprintf(&lists, `<filelists xmlns="http://linux.duke.edu/metadata/filelists" packages="%d">`, len(pkgs))
	for _, p := range pkgs {
		writePackage(&primary, p)
		fmt.Fprintf(&lists, `<package pkgid="%s" name="%s" arch="%s"><version epoch="0" ver="1" rel="1"/><file>/opt/%s</file></package>`, p.sum().Hex(), p.name, p.arch, p.name)
	}
	primary.WriteString("</metadata>\n")
	lists.WriteString("</filelists>\n")
	dir := filepath.Join(strings.TrimPrefix(w.repos, "file://"), name)
	var repomd strings.Builder
	repomd.WriteString("<repomd xmlns=\"http://linux.duke.edu/metadata/repo\">\n")
	for _, f := range []struct{ typ, text string }{{"primary", primary.String()}, {"filelists", lists.String()}} {
		writeFiles(w.t, dir, map[string]string{"repodata/" + f.typ + ".xml": f.text})
		fmt.Fprintf(&repomd, "<data type=\"%s\"><checksum type=\"sha256\">%s</checksum><location href=\"repodata/%s.xml\"/><size>%d</size></data>\n",
			f.typ, digest.Of([]byte(f.text)).Hex(), f.typ, len(f.text))
	}
	repomd.WriteString("</repomd>\n")
	writeFiles(w.t, dir, map[string]string{"repodata/repomd.xml": repomd.String()})
	if keys != "" {
		writeFiles(w.t, dir, map[string]string{"repodata/repomd.xml.asc": keys + repomd.String()})
	}
}

func (p pkg) evrParts() rpmmd.EVR {
	e, err := rpmmd.ParseEVR(p.evr)
	if err != nil {
		panic(err)
	}
	return e
}

func (p pkg) href() string {
	e := p.evrParts()
	return cmp.Or(p.location, fmt.Sprintf("Packages/%s-%s-%s.%s.rpm", p.name, e.Version, e.Release, p.arch))
}

func (p pkg) sum() digest.Digest { return digest.Of([]byte(p.href() + p.salt)) }

func writePackage(b *strings.Builder, p pkg) {
	e := p.evrParts()
	hex, algorithm := p.sum().Hex(), cmp.Or(p.algorithm, "sha256")
	if algorithm == "sha" {
		hex = hex[:40]
	}
	esc := func(s string) string {
		var out strings.Builder
		xml.EscapeText(&out, []byte(s))
		return out.String()
	}
	base := ""
	if p.base != "" {
		base = ` xml:base="` + esc(p.base) + `"`
	}
	fmt.Fprintf(b, `<package type="rpm"><name>%s</name><arch>%s</arch><version epoch="%d" ver="%s" rel="%s"/><checksum type="%s" pkgid="YES">%s</checksum>`,
		p.name, p.arch, e.Epoch, e.Version, e.Release, algorithm, hex)
	fmt.Fprintf(b, `<time file="1" build="%d"/><size package="%d" installed="9" archive="9"/><location%s href="%s"/><format><rpm:sourcerpm>%s</rpm:sourcerpm>`,
		p.build, 1000+len(p.name), base, esc(p.href()), cmp.Or(p.source, p.name+"-"+e.Version+"-"+e.Release+".src.rpm"))
	relation := func(tag string, deps []string) {
		fmt.Fprintf(b, "<rpm:%s>", tag)
		for _, d := range deps {
			f := strings.Fields(d)
			if len(f) == 3 {
				v, err := rpmmd.ParseEVR(f[2])
				if err != nil {
					panic(err)
				}
				flags := map[string]string{"=": "EQ", ">=": "GE", "<": "LT"}[f[1]]
				rel := ""
				if v.Release != "" {
					rel = ` rel="` + v.Release + `"`
				}
				fmt.Fprintf(b, `<rpm:entry name="%s" flags="%s" epoch="%d" ver="%s"%s/>`, esc(f[0]), flags, v.Epoch, v.Version, rel)
				continue
			}
			fmt.Fprintf(b, `<rpm:entry name="%s"/>`, esc(d))
		}
		fmt.Fprintf(b, "</rpm:%s>", tag)
	}
	relation("provides", append([]string{p.name + " = " + e.String()}, p.provides...))
	relation("requires", p.requires)
	relation("recommends", p.weak)
	b.WriteString("</format></package>\n")
}

// resolve locks a manifest, whose REPOS stands for the repositories' address.
// The lock must be a fixpoint.
func (w *world) resolve(manifest string) (*Lock, error) {
	w.t.Helper()
	text := []byte(strings.ReplaceAll(manifest, "REPOS/", w.repos))
	m, err := ParseManifest("caisson.yaml", text)
	if err != nil {
		return nil, err
	}
	o := w.opts
	o.Manifest, o.Digest = m, digest.Of(text)
	l, err := Resolve(context.Background(), o)
	if err != nil {
		return nil, err
	}
	again, err := Resolve(context.Background(), o)
	if err != nil {
		w.t.Fatalf("the second time: %v", err)
	}
	b := format(w.t, l)
	if !bytes.Equal(b, format(w.t, again)) {
		w.t.Errorf("locking twice gives two locks:\n%s\n%s", b, format(w.t, again))
	}
	parsed, err := Parse("caisson.lock", b)
	if err != nil {
		w.t.Fatalf("the lock is not accepted: %v\n%s", err, b)
	}
	if err := Check(parsed, o.Digest, w.dir); err != nil {
		w.t.Errorf("the fresh lock does not answer: %v", err)
	}
	return parsed, nil
}

// lock is resolve, without an error.
func (w *world) lock(manifest string) *Lock {
	w.t.Helper()
	l, err := w.resolve(manifest)
	if err != nil {
		w.t.Fatal(err)
	}
	return l
}

// fails is resolve with an error, in which REPOS and DIR stand for folders.
func (w *world) fails(manifest, want string) {
	w.t.Helper()
	_, err := w.resolve(manifest)
	if err == nil {
		w.t.Errorf("no error, want %s", want)
		return
	}
	got := strings.ReplaceAll(strings.ReplaceAll(err.Error(), w.repos, "REPOS/"), w.dir, "DIR")
	if got != want {
		w.t.Errorf("got  %s\nwant %s", got, want)
	}
}

// chosen is the packages of a set: NEVRA@REPO.
func chosen(l *Lock, arch, set string) string {
	var out []string
	for _, in := range l.Of(arch, set) {
		if in.Kind == KindRPM {
			out = append(out, in.Name+"@"+in.Repo)
		}
	}
	return strings.Join(out, " ")
}

// why is the uses of an input: "ARCH SET BY DEP" each.
func why(l *Lock, kind, name string) string {
	in := l.Find(kind, name)
	if in == nil {
		return "not there"
	}
	var out []string
	for _, u := range in.For {
		out = append(out, strings.Join(strings.Fields(u.Arch+" "+u.Set+" "+u.By+" "+u.Dep), " "))
	}
	return strings.Join(out, "; ")
}

// many are n packages with some dependencies each.
func many(n int) []pkg {
	out := make([]pkg, n)
	for i := range out {
		out[i] = pkg{name: "p" + strconv.Itoa(i), evr: "1-1", arch: "x86_64", build: int64(i)}
		if i > 0 {
			out[i].requires = []string{"p" + strconv.Itoa(i/2), "p" + strconv.Itoa(i-1) + " >= 1"}
		}
	}
	return out
}
