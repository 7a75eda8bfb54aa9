package lock

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/ProtonMail/go-crypto/openpgp"

	"caisson/lock/digest"
	"caisson/lock/gittree"
	"caisson/lock/tooltest"
)

// gitWorld is a world with a repository of git's.
type gitWorld struct {
	*world
	at      string // the repository
	fetched int
}

const gitURL = "https://git.example/Group/Project.git"

func newGitWorld(t *testing.T) *gitWorld {
	g := &gitWorld{world: newWorld(t), at: t.TempDir()}
	g.repo("base", "")
	runGit(t, g.at, "init", "-q", "-b", "main")
	g.commit("one")
	fetch := g.opts.Fetch
	g.opts.Fetch = func(ctx context.Context, w Want) (Blob, error) {
		if w.Kind == KindGit {
			return g.fetchGit(w)
		}
		return fetch(ctx, w)
	}
	return g
}

func (g *gitWorld) commit(text string, args ...string) string {
	g.t.Helper()
	writeFiles(g.t, g.at, map[string]string{"file": text})
	runGit(g.t, g.at, "add", ".")
	runGit(g.t, g.at, append([]string{"commit", "-q", "-m", text}, args...)...)
	return g.rev("HEAD")
}

func (g *gitWorld) rev(rev string) string {
	g.t.Helper()
	return strings.TrimSpace(runGit(g.t, g.at, "rev-parse", rev))
}

func (g *gitWorld) refuses(manifest, want string) {
	g.t.Helper()
	if _, err := g.resolve(manifest); err == nil || !strings.Contains(err.Error(), want) {
		g.t.Errorf("got %v, want %q", err, want)
	}
}

// fetchGit makes the file of the repository at a ref.
func (g *gitWorld) fetchGit(w Want) (Blob, error) {
	g.fetched++
	if w.URL != gitURL {
		return Blob{}, fmt.Errorf("asked for %s", w.URL)
	}
	name := filepath.Join(g.t.TempDir(), "blob")
	f, err := os.Create(name)
	if err != nil {
		return Blob{}, err
	}
	defer f.Close()
	src := &gittree.Source{ID: g.rev(w.Ref), Open: func(id string) (*gittree.Object, error) {
		cmd := exec.Command("git", "-C", g.at, "cat-file", "--batch")
		cmd.Stdin = strings.NewReader(id + "\n")
		out, err := cmd.Output()
		if err != nil {
			return nil, err
		}
		head, body, _ := bytes.Cut(out, []byte("\n"))
		fields := strings.Fields(string(head))
		n, err := strconv.Atoi(fields[len(fields)-1])
		if err != nil {
			return nil, err
		}
		return &gittree.Object{Type: fields[1], Size: int64(n), ReadCloser: io.NopCloser(bytes.NewReader(body[:n]))}, nil
	}}
	if err := gittree.Write(f, src); err != nil {
		return Blob{}, err
	}
	d, n, err := digestFile(name)
	if err == nil && !w.SHA256.IsZero() && w.SHA256 != d {
		err = fmt.Errorf("got %s, want %s", d, w.SHA256)
	}
	return Blob{Path: name, SHA256: d, Size: n}, err
}

const gitManifest = `version: 1
name: podvm
rpm: {repos: [{id: base, baseurl: REPOS/base/, gpgcheck: false}]}
sets: {root: {packages: []}}
inputs:
  git: [{name: proj, url: "` + gitURL + `", ref: REF EXTRA}]
`

func gitText(ref, extra string) string {
	return strings.NewReplacer("REF", strconv.Quote(ref), "EXTRA", extra).Replace(gitManifest)
}

func TestResolveGit(t *testing.T) {
	g := newGitWorld(t)
	runGit(t, g.at, "tag", "-a", "-m", "m", "v1.0")
	first := g.rev("HEAD")
	l := g.lock(gitText("v1.0", ""))
	in := l.Find(KindGit, "proj")
	if in == nil {
		t.Fatalf("no git input in %+v", l.Inputs)
	}
	want := Git{Ref: "v1.0", Commit: first, Tree: g.rev("HEAD^{tree}"), Tag: g.rev("v1.0")}
	if *in.Git != want || in.URL != gitURL || in.Size == 0 || !in.IsGitInput() ||
		in.PURL != "pkg:generic/Project@"+first+"?vcs_url=git%2Bhttps:%2F%2Fgit.example%2FGroup%2FProject.git%40"+first {
		t.Errorf("got %+v %+v, want %+v", in, in.Git, want)
	}

	// A branch stays where it was locked, until it is updated.
	main := gitText("main", "")
	g.opts.Old = g.lock(main)
	next := g.commit("two")
	fetched := g.fetched
	if l := g.lock(main); l.Find(KindGit, "proj").Git.Commit != first || g.fetched != fetched {
		t.Errorf("the commit moved by itself, or was fetched again: %+v", l.Find(KindGit, "proj").Git)
	}
	g.opts.Update = []string{"proj"}
	if l := g.lock(main); l.Find(KindGit, "proj").Git.Commit != next {
		t.Errorf("the commit did not move: %+v", l.Find(KindGit, "proj").Git)
	}
	g.opts.Update, g.opts.UpdateAll = nil, true
	if l := g.lock(main); l.Find(KindGit, "proj").Git.Commit != next {
		t.Errorf("the commit did not move: %+v", l.Find(KindGit, "proj").Git)
	}
	g.opts.UpdateAll = false
	if l := g.lock(gitText("HEAD", "")); l.Find(KindGit, "proj").Git.Commit != next {
		t.Errorf("another ref kept the old commit: %+v", l.Find(KindGit, "proj").Git)
	}
}

// The mirrors of a repository are asked when it is locked, and kept.
func TestGitMirrors(t *testing.T) {
	g := newGitWorld(t)
	const mirror = "https://mirror.example/project.git"
	var asked []string
	fetch := g.opts.Fetch
	g.opts.Fetch = func(ctx context.Context, w Want) (Blob, error) {
		if w.Kind == KindGit {
			asked = w.Mirrors
		}
		return fetch(ctx, w)
	}
	in := g.lock(gitText("main", ", mirrors: ['"+mirror+"']")).Find(KindGit, "proj")
	if len(asked) != 1 || asked[0] != mirror || len(in.Mirrors) != 1 || in.Mirrors[0] != mirror {
		t.Errorf("asked %q, kept %q", asked, in.Mirrors)
	}
	for _, bad := range []string{"mirror", "ftp://mirror.example/x", "https://me:hunter2@mirror.example/x"} {
		text := gitText("main", ", mirrors: ['"+bad+"']")
		if _, err := ParseManifest("m", []byte(text)); err == nil || !strings.Contains(err.Error(), "inputs.git[0].mirrors[0]") || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: got %v", bad, err)
		}
	}
}

func TestPinGit(t *testing.T) {
	g := newGitWorld(t)
	r := newResolver(Options{Manifest: &Manifest{}, Fetch: g.opts.Fetch})
	commit := g.rev("HEAD")
	in, err := r.pinGit(t.Context(), Want{Kind: KindGit, URL: gitURL, Ref: commit}, Use{Set: "cargo:guest", By: "guest"})
	if err != nil || in.Name != "Project@"+commit || in.Git.Commit != commit || in.IsGitInput() {
		t.Errorf("got %+v, %v", in, err)
	}
	r.Fetch = func(ctx context.Context, w Want) (Blob, error) {
		w.Ref = "HEAD"
		return g.fetchGit(w)
	}
	g.commit("two")
	if _, err := r.pinGit(t.Context(), Want{Kind: KindGit, URL: gitURL, Ref: commit}, Use{}); err == nil {
		t.Error("another commit than the pinned one was accepted")
	}
}

func TestGitPURL(t *testing.T) {
	for address, want := range map[string]string{
		"https://github.com/Kata-Containers/kata-containers.git": "pkg:github/kata-containers/kata-containers@abc",
		"ssh://git@github.com/a/b":                               "pkg:github/a/b@abc",
		"https://github.com/a/b/c":                               "pkg:generic/c@abc?vcs_url=git%2Bhttps:%2F%2Fgithub.com%2Fa%2Fb%2Fc%40abc",
		"https://bitbucket.org/A/b":                              "pkg:bitbucket/a/b@abc",
		"file:///srv/x.git":                                      "pkg:generic/x@abc?vcs_url=git%2Bfile:%2F%2F%2Fsrv%2Fx.git%40abc",
	} {
		if got := gitPURL(address, "abc"); got != want {
			t.Errorf("%s: got %s, want %s", address, got, want)
		}
	}
}

// openPGP has the world check OpenPGP signatures in earnest.
func (g *gitWorld) openPGP() {
	read := func(b []byte) (openpgp.EntityList, error) { return openpgp.ReadArmoredKeyRing(bytes.NewReader(b)) }
	g.opts.Fingerprints = func(b []byte) ([]string, error) {
		keys, err := read(b)
		if err != nil {
			return nil, err
		}
		return []string{strings.ToUpper(hex.EncodeToString(keys[0].PrimaryKey.Fingerprint))}, nil
	}
	g.opts.CheckSignature = func(keys [][]byte, signed, signature io.Reader) error {
		ring, err := read(keys[0])
		if err == nil {
			_, err = openpgp.CheckArmoredDetachedSignature(ring, signed, signature, nil)
		}
		return err
	}
}

// gpgKey makes a key in a new home of gpg, and exports it.
func (g *gitWorld) gpgKey(file, name string) (home string) {
	g.t.Helper()
	home = g.t.TempDir()
	for _, args := range [][]string{
		{"--quick-generate-key", "--passphrase", "", name + " <" + name + "@example.org>", "ed25519", "sign", "never"},
		{"--armor", "--output", filepath.Join(g.dir, file), "--export", name},
	} {
		cmd := exec.Command(tooltest.Find(g.t, "gpg"), append([]string{"--batch", "--quiet", "--homedir", home}, args...)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			g.t.Fatalf("gpg %v: %v\n%s", args, err, out)
		}
	}
	g.t.Cleanup(func() { _ = exec.Command("gpgconf", "--homedir", home, "--kill", "all").Run() })
	return home
}

func TestVerifyGitOpenPGP(t *testing.T) {
	g := newGitWorld(t)
	g.openPGP()
	home := g.gpgKey("ann.asc", "ann")
	g.gpgKey("bob.asc", "bob")
	t.Setenv("GNUPGHOME", home)
	g.commit("signed\n\nwith a body\n gpgsig not a header\n", "-S", "--gpg-sign=ann")
	runGit(t, g.at, "tag", "-s", "-u", "ann", "-m", "a release", "v1.0")
	runGit(t, g.at, "tag", "light")
	l := g.lock(gitText("light", ", verify: {key: ann.asc}"))
	v := l.Find(KindGit, "proj").Verified
	if v == nil || v.What != "commit" || len(v.Key) != 40 {
		t.Errorf("got %+v", v)
	}
	if len(l.Sources) != 1 || l.Sources[0].Name != "ann.asc" {
		t.Errorf("the key is not among the sources: %+v", l.Sources)
	}
	if v := g.lock(gitText("v1.0", ", verify: {key: ann.asc}")).Find(KindGit, "proj").Verified; v == nil || v.What != "tag" {
		t.Errorf("got %+v", v)
	}
	g.refuses(gitText("v1.0", ", verify: {key: bob.asc}"), "inputs.git: proj: verifying")
	g.refuses(gitText("light", ", verify: {key: bob.asc}"), "the commit: ")

	// What was kept is verified too.
	g.opts.Old = g.lock(gitText("v1.0", ""))
	g.refuses(gitText("v1.0", ", verify: {key: bob.asc}"), "the tag: ")
	g.opts.Old = nil

	// A signed tag under another's name.
	runGit(t, g.at, "update-ref", "refs/tags/v2.0", "v1.0")
	g.refuses(gitText("v2.0", ", verify: {key: ann.asc}"), `the signed tag calls itself "v1.0", and "v2.0" was asked for`)

	// An unsigned tag of a signed commit, and an unsigned commit.
	runGit(t, g.at, "tag", "-a", "-m", "m", "unsigned")
	if v := g.lock(gitText("unsigned", ", verify: {key: ann.asc}")).Find(KindGit, "proj").Verified; v == nil || v.What != "commit" {
		t.Errorf("got %+v", v)
	}
	g.commit("plain")
	g.refuses(gitText("main", ", verify: {key: ann.asc}"), "neither the commit nor a tag is signed")
	g.refuses(gitText("main", ", verify: {key: none.asc}"), "none.asc")

	// A signature of another commit.
	raw := runGit(t, g.at, "cat-file", "commit", "light")
	forged := strings.Replace(raw, "tree "+g.rev("light^{tree}"), "tree "+g.rev("main^{tree}"), 1)
	writeFiles(t, g.at, map[string]string{".git/forged": forged})
	runGit(t, g.at, "branch", "forged", strings.TrimSpace(runGit(t, g.at, "hash-object", "-t", "commit", "-w", ".git/forged")))
	g.refuses(gitText("forged", ", verify: {key: ann.asc}"), "the commit: ")
}

func TestVerifyGitSSH(t *testing.T) {
	g := newGitWorld(t)
	for _, k := range []struct{ name, typ string }{{"ann", "ed25519"}, {"bob", "ecdsa"}, {"rsa", "rsa"}} {
		cmd := exec.Command(tooltest.Find(t, "ssh-keygen"), "-q", "-t", k.typ, "-N", "", "-C", k.name, "-f", filepath.Join(g.dir, k.name))
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("ssh-keygen: %v\n%s", err, out)
		}
	}
	pub := func(name string) string {
		b, err := os.ReadFile(filepath.Join(g.dir, name+".pub"))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	runGit(t, g.at, "config", "gpg.format", "ssh")
	for _, name := range []string{"bob", "rsa", "ann"} {
		runGit(t, g.at, "config", "user.signingkey", filepath.Join(g.dir, name))
		g.commit("by "+name, "-S")
		runGit(t, g.at, "tag", "-s", "-m", "a release", name)
		v := g.lock(gitText(name, ", verify: {key: "+name+".pub}")).Find(KindGit, "proj").Verified
		want := strings.Fields(runCommand(t, "ssh-keygen", "-lf", filepath.Join(g.dir, name+".pub")))[1]
		if v == nil || v.What != "tag" || v.Key != want {
			t.Errorf("%s: got %+v, want the key %s", name, v, want)
		}
	}
	for file, c := range map[string]struct{ text, want string }{
		"all":       {"# keys\n" + pub("bob") + "\n" + pub("ann"), ""},
		"allowed":   {"ann@example.org,b@c namespaces=\"git,file\" " + pub("ann"), ""},
		"anybody":   {"* " + pub("ann"), ""},
		"in time":   {"a valid-after=\"20000101\",valid-before=\"99990101Z\" " + pub("ann"), ""},
		"other":     {pub("bob"), "it is not trusted"},
		"namespace": {"a namespaces=\"file\" " + pub("ann"), "it is trusted for file, not for git"},
		"too late":  {"a valid-before=\"20010101\" " + pub("ann"), "not trusted at the time of the signature"},
		"authority": {"a cert-authority " + pub("ann"), "cert-authority is not supported"},
		"private":   {"-----BEGIN OPENSSH PRIVATE KEY-----\nx\n", "line 1"},
		"pgp":       {"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n", ""},
		"empty":     {"", "no SSH public key"},
	} {
		writeFiles(t, g.dir, map[string]string{"keys/" + strings.ReplaceAll(file, " ", "-"): c.text})
		manifest := gitText("ann", ", verify: {key: keys/"+strings.ReplaceAll(file, " ", "-")+"}")
		if c.want != "" || file == "pgp" {
			g.refuses(manifest, c.want)
		} else {
			g.lock(manifest)
		}
	}
}

func runCommand(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(tooltest.Find(t, name), args...).Output()
	if err != nil {
		t.Fatalf("%s %v: %v", name, args, err)
	}
	return string(out)
}

func TestManifestGit(t *testing.T) {
	w := newWorld(t)
	for extra, want := range map[string]string{
		`url: project, ref: v1`:                                            "want an address",
		`url: "git@host:x/y", ref: v1`:                                     "want an address",
		`url: "https://u:hunter2@h/x", ref: v1`:                            "a login does not belong",
		`url: "ssh://u:hunter2@h/x", ref: v1`:                              "a password does not belong",
		`url: "ftp://h/x", ref: v1`:                                        `"ftp" is not supported`,
		`url: "https://h/x", ref: "a b"`:                                   "is no tag",
		`url: "https://h/x", ref: "-x"`:                                    "is no tag",
		`url: "https://h/x", ref: "v1\n"`:                                  "is no tag",
		`url: "https://h/x", verify: {identity: a@b, issuer: "https://i"}`: "not supported for git",
		`url: "https://h/x", verify: {}`:                                   "want the path of a public key",
		`url: "https://h/x", verify: {key: /k}`:                            "want the path of a public key",
		`url: "https://h/x", verify: {key: k, attestation: x}`:             "attestations are of images",
		`url: "https://h/x", auth: {basic: {username: a}}`:                 "auth",
		`url: "https://h/x", nope: 1`:                                      "nope",
	} {
		_, err := w.resolve(strings.Replace(gitManifest, `url: "`+gitURL+`", ref: REF EXTRA`, extra, 1))
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: got %v, want %q", extra, err, want)
		}
	}
}

func TestCheckGitInput(t *testing.T) {
	id := strings.Repeat("a", 40)
	good := func() *Input {
		return &Input{Kind: KindGit, Name: "x", URL: gitURL, SHA256: digest.Of(nil), Git: &Git{Commit: id, Tree: id}}
	}
	if err := good().check(false); err != nil {
		t.Error(err)
	}
	for what, change := range map[string]func(*Input){
		"no git": func(in *Input) { in.Git = nil }, "short": func(in *Input) { in.Git.Commit = id[:39] }, "tree": func(in *Input) { in.Git.Tree = "" },
		"tag": func(in *Input) { in.Git.Tag = "v1" }, "path": func(in *Input) { in.URL = "x" }, "a file": func(in *Input) { in.Kind = KindFile },
	} {
		in := good()
		change(in)
		if in.check(false) == nil {
			t.Errorf("%s: was accepted", what)
		}
	}
}
