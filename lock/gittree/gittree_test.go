package gittree

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

// withSubmodules is a repository with a submodule in a submodule and a place
// that .gitmodules does not name.
func withSubmodules(t *testing.T, format string) string {
	t.Helper()
	inner := newRepo(t, format, map[string]string{"inner": "i"})
	sub := newRepo(t, format, map[string]string{"sub*": "s"})
	git(t, sub, "-c", "protocol.file.allow=always", "submodule", "add", "-q", inner, "third%/party")
	git(t, sub, "commit", "-q", "-m", "with inner")
	dir := newRepo(t, format, awkward())
	git(t, dir, "-c", "protocol.file.allow=always", "submodule", "add", "-q", sub, "ext/sub")
	git(t, dir, "-c", "protocol.file.allow=always", "submodule", "update", "-q", "--init", "--recursive")
	git(t, dir, "update-index", "--add", "--cacheinfo", "160000,"+git(t, inner, "rev-parse", "HEAD")+",nameless")
	git(t, dir, "commit", "-q", "-m", "with sub")
	git(t, dir, "tag", "-a", "-m", "a tag", "v1.0")
	git(t, dir, "tag", "-a", "-m", "a tag of a tag", "v1.0-again", "v1.0")
	return dir
}

func TestCheckFindsWhatGitSays(t *testing.T) {
	for _, format := range []string{"sha1", "sha256"} {
		t.Run(format, func(t *testing.T) {
			dir := withSubmodules(t, format)
			b := write(t, source(t, dir, "v1.0-again"))
			for name, r := range map[string]io.Reader{"whole": bytes.NewReader(b), "halves": iotest.HalfReader(bytes.NewReader(b)), "data with EOF": iotest.DataErrReader(bytes.NewReader(b))} {
				info, err := Check(r)
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				want := Info{Commit: git(t, dir, "rev-parse", "HEAD"), Tree: git(t, dir, "rev-parse", "HEAD^{tree}"), Tag: git(t, dir, "rev-parse", "v1.0-again")}
				if info.Commit != want.Commit || info.Tree != want.Tree || info.Tag != want.Tag || info.TagName != "v1.0-again" {
					t.Errorf("%s: got %+v, want %+v", name, info, want)
				}
				if !info.Committed.Equal(time.Unix(1700000001, 0)) {
					t.Errorf("%s: committed at %s", name, info.Committed)
				}
				if len(info.Links) != 2 || len(info.Submodules) != 1 || info.Submodules[0].Path != "ext/sub" || info.Submodules[0].URL == "" {
					t.Fatalf("%s: got links %+v, submodules %+v", name, info.Links, info.Submodules)
				}
				sub := info.Submodules[0].Info
				if len(sub.Submodules) != 1 || sub.Submodules[0].Path != "third%/party" {
					t.Errorf("%s: got the submodule's %+v", name, sub.Submodules)
				}
			}
		})
	}
}

func TestCommitAloneHasNoTag(t *testing.T) {
	dir := newRepo(t, "sha1", map[string]string{"f": "x"})
	git(t, dir, "tag", "-a", "-m", "m", "v1")
	a, b := write(t, source(t, dir, "HEAD")), write(t, source(t, dir, "v1"))
	if bytes.Equal(a, b) {
		t.Error("the tag object is not in the file")
	}
	if c := write(t, source(t, dir, "HEAD")); !bytes.Equal(a, c) {
		t.Error("the same commit gave other bytes")
	}
	info, err := Check(bytes.NewReader(a))
	if err != nil || info.Tag != "" || info.Files != 1 || info.Bytes != 1 {
		t.Errorf("got %+v, %v", info, err)
	}
}

// TestOldModes has what git has long ceased to write: mode 100664, and an
// empty tree inside a tree.
func TestOldModes(t *testing.T) {
	dir := newRepo(t, "sha1", map[string]string{"f": "x"})
	blob := git(t, dir, "rev-parse", "HEAD:f")
	empty := strings.TrimSpace(gitInput(t, dir, "", "mktree"))
	tree := strings.TrimSpace(gitInput(t, dir, "100664 blob "+blob+"\tgroup\n040000 tree "+empty+"\tnothing\n", "mktree"))
	commit := git(t, dir, "commit-tree", "-m", "m", tree)
	b := write(t, source(t, dir, commit))
	info, err := Check(bytes.NewReader(b))
	if err != nil || info.Commit != commit || info.Tree != tree {
		t.Fatalf("got %+v, %v; want commit %s, tree %s", info, err, commit, tree)
	}
	out := t.TempDir()
	if _, err := Extract(out, bytes.NewReader(b)); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(filepath.Join(out, "nothing")); err != nil || !st.IsDir() {
		t.Errorf("nothing is not there: %v", err)
	}
	if st, err := os.Stat(filepath.Join(out, "group")); err != nil || st.Mode() != 0o644 {
		t.Errorf("group: %v, %v", st.Mode(), err)
	}
}

// TestExtractIsWhatGitChecksOut compares with a checkout that has no filters.
func TestExtractIsWhatGitChecksOut(t *testing.T) {
	dir := withSubmodules(t, "sha1")
	b := write(t, source(t, dir, "HEAD"))
	out := filepath.Join(t.TempDir(), "out")
	if _, err := Extract(out, bytes.NewReader(b)); err != nil {
		t.Fatal(err)
	}
	want := t.TempDir()
	for path, repo := range map[string]string{"": dir, "ext/sub": filepath.Join(dir, "ext/sub"), "ext/sub/third%/party": filepath.Join(dir, "ext/sub/third%/party")} {
		at := filepath.Join(want, path)
		if err := os.MkdirAll(at, 0o755); err != nil {
			t.Fatal(err)
		}
		git(t, repo, "-c", "core.attributesFile=/dev/null", "--work-tree="+at, "checkout", "-q", "-f", "HEAD", "--", ".")
		// .gitattributes asks for CRLF in *.txt: write those as they are in git.
		for _, name := range []string{"crlf.txt", "subst.txt"} {
			if path == "" {
				os.WriteFile(filepath.Join(at, name), []byte(gitInput(t, repo, "", "cat-file", "blob", "HEAD:"+name)), 0o644)
			}
		}
	}
	if got, want := listing(t, out), listing(t, want); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if _, err := Extract(out, bytes.NewReader(b)); err == nil {
		t.Error("a folder that is not empty was written to")
	}
}

// listing is the files of a folder with their contents; folders that git does
// not know of are left out.
func listing(t *testing.T, dir string) string {
	t.Helper()
	var out strings.Builder
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		st, err := d.Info()
		if err != nil {
			return err
		}
		content, err := os.Readlink(p)
		if st.Mode().IsRegular() {
			var b []byte
			b, err = os.ReadFile(p)
			content = string(b)
		}
		if len(content) > 60 {
			content = content[:60]
		}
		out.WriteString(st.Mode().String() + " " + rel + " " + strings.ReplaceAll(content, "\n", "|") + "\n")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// TestDamage changes the file at every 37th byte: what is accepted all the
// same has another id.
func TestDamage(t *testing.T) {
	dir := withSubmodules(t, "sha1")
	git(t, dir, "rm", "-q", "big", "zeros")
	git(t, dir, "commit", "-q", "-m", "small")
	head := git(t, dir, "rev-parse", "HEAD")
	b := write(t, source(t, dir, "HEAD"))
	for at := 0; at < len(b); at += 37 {
		c := bytes.Clone(b)
		c[at] ^= 0x20
		if info, err := Check(bytes.NewReader(c)); err == nil && info.Commit == head {
			t.Fatalf("a change of byte %d was not seen", at)
		}
	}
	for _, n := range []int{0, 1, 511, 512, 1000, len(b) / 2, len(b) - 1024, len(b) - 1} {
		if _, err := Check(bytes.NewReader(b[:n])); err == nil {
			t.Errorf("the first %d bytes were accepted", n)
		}
	}
	if _, err := Check(bytes.NewReader(append(bytes.Clone(b), 0))); err == nil {
		t.Error("a byte more was accepted")
	}
	boom := errors.New("boom")
	if _, err := Check(io.MultiReader(bytes.NewReader(b[:3000]), iotest.ErrReader(boom))); !errors.Is(err, boom) {
		t.Errorf("got %v, want the reader's error", err)
	}
}

// hostile are trees that git itself refuses, as mktree lines or raw.
func TestHostileTrees(t *testing.T) {
	dir := newRepo(t, "sha1", map[string]string{"f": "x"})
	blob := git(t, dir, "rev-parse", "HEAD:f")
	sub := git(t, dir, "rev-parse", "HEAD^{tree}")
	raw := func(lines ...[3]string) string {
		var b bytes.Buffer
		for _, l := range lines {
			tree, err := treeObject([]entry{{l[0], l[1], l[2]}})
			if err != nil {
				t.Fatal(err)
			}
			b.Write(tree)
		}
		id := strings.TrimSpace(gitInput(t, dir, b.String(), "hash-object", "-w", "-t", "tree", "--stdin", "--literally"))
		return git(t, dir, "commit-tree", "-m", "m", id)
	}
	for name, commit := range map[string]string{
		"..":              raw([3]string{"40000", "..", sub}),
		".":               raw([3]string{"40000", ".", sub}),
		".git":            raw([3]string{"40000", ".git", sub}),
		".GIT":            raw([3]string{"100644", ".GIT", blob}),
		".git ":           raw([3]string{"40000", ".git .", sub}),
		".git stream":     raw([3]string{"40000", ".git::$INDEX_ALLOCATION", sub}),
		"git~1":           raw([3]string{"40000", "GIT~1", sub}),
		"HFS":             raw([3]string{"40000", ".g\u200cit", sub}),
		"backslash":       raw([3]string{"100644", `x\.git\config`, blob}),
		"slash":           raw([3]string{"100644", "a/b", blob}),
		"empty":           raw([3]string{"100644", "", blob}),
		"modules link":    raw([3]string{"120000", ".gitmodules", blob}),
		"modules link 2":  raw([3]string{"120000", "GITMOD~1", blob}),
		"order":           raw([3]string{"100644", "b", blob}, [3]string{"100644", "a", blob}),
		"twice":           raw([3]string{"100644", "a", blob}, [3]string{"100644", "a", blob}),
		"link and folder": raw([3]string{"120000", "a", blob}, [3]string{"100644", "a.b", blob}, [3]string{"40000", "a", sub}),
		"mode":            raw([3]string{"0100644", "a", blob}),
		"mode 2":          raw([3]string{"10644", "a", blob}),
		"long name":       raw([3]string{"100644", strings.Repeat("n", 256), blob}),
		"blob is a tree":  raw([3]string{"100644", "a", sub}),
		"tree is a blob":  raw([3]string{"40000", "a", blob}),
	} {
		if err := Write(io.Discard, source(t, dir, commit)); err == nil {
			t.Errorf("%s: was written", name)
		}
	}
}

// TestHostileArchives has entries that Write would not write, in an archive
// that is well-formed besides.
func TestHostileArchives(t *testing.T) {
	commit := "tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\nauthor A <a@b> 1 +0000\ncommitter A <a@b> 1 +0000\n\nm\n"
	archive := func(headers ...*tar.Header) []byte {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, h := range headers {
			h.Format = tar.FormatPAX
			body := ""
			if h.Name == "commit" {
				body = commit
			}
			if h.Typeflag == 0 {
				h.Typeflag = tar.TypeReg
			}
			h.Size = int64(len(body))
			if err := w.WriteHeader(h); err != nil {
				t.Fatal(err)
			}
			io.WriteString(w, body)
		}
		w.Close()
		return b.Bytes()
	}
	epoch := time.Unix(0, 0)
	c := &tar.Header{Name: "commit", Mode: 0o644, ModTime: epoch}
	if _, err := Check(bytes.NewReader(archive(c))); err != nil {
		t.Fatalf("the empty commit: %v", err)
	}
	for name, h := range map[string]*tar.Header{
		"dots":       {Name: "tree/../x", Mode: 0o644, ModTime: epoch},
		"absolute":   {Name: "/x", Mode: 0o644, ModTime: epoch},
		"device":     {Name: "tree/x", Typeflag: tar.TypeChar, ModTime: epoch},
		"hard link":  {Name: "tree/x", Typeflag: tar.TypeLink, Linkname: "commit", ModTime: epoch},
		"git folder": {Name: "tree/.git/config", Mode: 0o644, ModTime: epoch},
		"record":     {Name: "tree/x", Mode: 0o644, ModTime: epoch, PAXRecords: map[string]string{"X.y": "z"}},
		"gitlink":    {Name: "tree/x/", Typeflag: tar.TypeDir, Mode: 0o755, ModTime: epoch, PAXRecords: map[string]string{gitlinkRecord: "abc"}},
		"module":     {Name: "modules/x/commit", Mode: 0o644, ModTime: epoch},
		"tag":        {Name: "tag", Mode: 0o644, ModTime: epoch},
		"other":      {Name: "zzz", Mode: 0o644, ModTime: epoch},
		"dated":      {Name: "tree/x", Mode: 0o644, ModTime: time.Unix(5, 0)},
	} {
		b := archive(c, h)
		out := filepath.Join(t.TempDir(), "out")
		if _, err := Extract(out, bytes.NewReader(b)); err == nil {
			t.Errorf("%s: was accepted", name)
		}
		if _, err := Repository(filepath.Join(t.TempDir(), "r"), bytes.NewReader(b), nil); err == nil {
			t.Errorf("%s: a repository was made", name)
		}
	}
}

// TestCollisionsAreLookedFor: of known collisions none is a git object.
func TestCollisionsAreLookedFor(t *testing.T) {
	h := newHash(40, typeBlob, 0)
	if _, err := h.id(); err != nil {
		t.Fatal(err)
	}
	if h.cd == nil {
		t.Fatal("SHA-1 without detection of collisions")
	}
}

func FuzzCheck(f *testing.F) {
	if _, err := os.Stat("/usr/bin/git"); err == nil {
		dir := newRepo(f, "sha1", map[string]string{"a/b": "x", "run*": "y", "link": "->a", ".gitmodules": "[submodule \"s\"]\n\tpath = s\n\turl = ../s\n"})
		git(f, dir, "update-index", "--add", "--cacheinfo", "160000,"+git(f, dir, "rev-parse", "HEAD")+",s")
		git(f, dir, "commit", "-q", "-m", "s")
		git(f, dir, "tag", "-a", "-m", "m", "v1")
		s := source(f, dir, "v1")
		s.Module = nil
		f.Add(write(f, s))
		s.Module = func(m Submodule) (*Source, error) { return source(f, dir, m.Commit), nil }
		f.Add(write(f, s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		info, err := Check(bytes.NewReader(b))
		if err == nil && !IsID(info.Commit) {
			t.Errorf("no commit in %+v", info)
		}
		_, _ = parseModules(b)
		_, _ = parseTree(b, 40)
		payload, sig := Signed(b, false)
		if len(payload)+len(sig) > len(b) {
			t.Error("more came out than went in")
		}
	})
}
