package lock

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"caisson/lock/digest"
	"caisson/lock/rpmmd"
	"caisson/lock/tooltest"
)

// TestResolveOnce has a repository that is the same for two arches, and one
// that is not.
func TestResolveOnce(t *testing.T) {
	w := newWorld(t)
	w.repo("all", "", base()...)
	w.repo("own/x86_64", "", pkg{name: "own", evr: "1-1", arch: "x86_64"})
	w.repo("own/aarch64", "", pkg{name: "own", evr: "1-1", arch: "aarch64"})
	text := strings.ReplaceAll(`version: 1
name: podvm
arches: [x86_64, aarch64]
rpm: {repos: [{id: all, baseurl: "REPOS/all", gpgcheck: false}, {id: own, baseurl: "REPOS/own/$basearch", gpgcheck: false}]}
sets: {root: {packages: [app, own]}, tools: {packages: [tool, /opt/tool]}}
`, "REPOS/", w.repos)
	m, err := ParseManifest("m", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	w.opts.Manifest, w.opts.Digest = m, digest.Of([]byte(text))
	l, err := Resolve(context.Background(), w.opts)
	if err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	for i, u := range w.asked {
		u = strings.TrimPrefix(u, w.repos)
		count[u]++
		if i < 3 && !strings.HasSuffix(u, "repomd.xml") {
			t.Errorf("%s is fetched before every repomd.xml is there", u)
		}
	}
	want := map[string]int{ // repomd.xml once more in the end
		"all/repodata/repomd.xml": 2, "all/repodata/primary.xml": 1, "all/repodata/filelists.xml": 1,
		"own/x86_64/repodata/repomd.xml": 2, "own/x86_64/repodata/primary.xml": 1, "own/x86_64/repodata/filelists.xml": 1,
		"own/aarch64/repodata/repomd.xml": 2, "own/aarch64/repodata/primary.xml": 1, "own/aarch64/repodata/filelists.xml": 1,
	}
	if !reflect.DeepEqual(count, want) {
		t.Errorf("fetched %v", count)
	}
	if len(l.Repos) != 4 || l.Find(KindRepodata, "all-aarch64/primary") == nil || l.Find(KindRepodata, "all-x86_64/filelists") == nil || l.Repos[0].Order != 0 || l.Repos[2].Order != 1 {
		t.Errorf("got %+v", l.Repos)
	}
	// Nothing asks for a path that primary lacks: no filelists.
	w.asked = nil
	w.lock(strings.Replace(strings.Replace(text, "app, own", "libapp", 1), ", /opt/tool", "", 1))
	for _, u := range w.asked {
		if strings.Contains(u, "filelists") {
			t.Errorf("fetched %s", u)
		}
	}
}

// TestResolveMoving has a repository that changes while it is read.
func TestResolveMoving(t *testing.T) {
	for _, tt := range []struct {
		name, file string // when a file of that name is asked for
		nth        int    // for the nth time, and so on
		times      int    // the repository changes that often
		want       string // version, or error
	}{
		{"primary of the next one", "primary.xml", 1, 1, "1-1"},
		{"twice", "primary.xml", 1, 2, "2-1"},
		{"always", "primary.xml", 1, 9, `primary.xml is not the file that repomd.xml (sha256:`},
		{"after it was read", "repomd.xml", 2, 1, "1-1"},
		{"always after it was read", "repomd.xml", 2, 99, `it changed while it was read: repomd.xml was sha256:`},
		{"filelists", "filelists.xml", 1, 1, "1-1"},
	} {
		w := newWorld(t)
		version := 0
		write := func() {
			w.repo("base", "", pkg{name: "data", evr: fmt.Sprintf("%d-1", version), arch: "noarch", salt: fmt.Sprint(version)}, pkg{name: "x", evr: fmt.Sprintf("%d-1", version), arch: "noarch"})
		}
		write()
		n := 0
		w.before = func(want Want) {
			if !strings.HasSuffix(want.URL, tt.file) {
				return
			}
			if n++; n >= tt.nth && version < tt.times {
				version++
				write()
			}
		}
		text := strings.ReplaceAll(atRepo(`baseurl: "REPOS/base"`), "REPOS/", w.repos)
		text = strings.Replace(text, "[data]", "[data, /opt/data]", 1)
		m, err := ParseManifest("m", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		w.opts.Manifest, w.opts.Digest = m, digest.Of([]byte(text))
		l, err := Resolve(context.Background(), w.opts)
		if err != nil {
			if msg := err.Error(); !strings.Contains(msg, tt.want) || !strings.Contains(msg, "(tried 3 times); wait until the repository stands still") || !strings.HasPrefix(msg, `repository "base" (x86_64): `) {
				t.Errorf("%s: got %v", tt.name, err)
			}
			continue
		}
		if got := chosen(l, "x86_64", "root"); got != "data-"+tt.want+".noarch@base" {
			t.Errorf("%s: got %s, want %s", tt.name, got, tt.want)
		}
		if d, _, err := digestFile(filepath.Join(w.folder("base"), "repodata/repomd.xml")); err != nil || l.Repos[0].Repomd != d || len(slicesOfRPM(l)) != 1 {
			t.Errorf("%s: the lock is of two snapshots: %+v", tt.name, l.Repos)
		}
	}
}

func TestResolveMovingMetalink(t *testing.T) {
	w := newWorld(t)
	w.repo("base", "", onePackage)
	w.serve("https://a.example/", "base")
	sum, _, err := digestFile(filepath.Join(w.folder("base"), "repodata/repomd.xml"))
	if err != nil {
		t.Fatal(err)
	}
	other := digest.Of([]byte("other"))
	const at = "https://link.example/"
	n := 0
	w.before = func(want Want) {
		if want.URL == at {
			if n++; n%2 == 1 {
				w.text(at, link([]string{"https://a.example/"}, sum))
			} else {
				w.text(at, link([]string{"https://a.example/"}, other))
			}
		}
	}
	w.fails(atRepo(`metalink: "`+at+`"`), `repository "base" (x86_64): it changed while it was read: repomd.xml was `+sum.String()+", and its metalink wants "+other.String()+
		" now (tried 3 times); wait until the repository stands still, or lock from another mirror or from a snapshot of it")
}

// TestResolveSHA512 has metadata that is pinned by SHA-512, at mirrors of
// which the first is stale.
func TestResolveMetadataSHA512(t *testing.T) {
	createrepo := tooltest.Find(t, "createrepo_c")
	w := newWorld(t)
	w.repo("stale", "", pkg{name: "other", evr: "1-1", arch: "noarch"})
	for _, algorithm := range []string{"sha512", "sha384", "sha1", "md5"} {
		dir := w.folder(algorithm)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		args := []string{"-q", "--simple-md-filenames", "--repomd-checksum=" + algorithm, dir}
		if out, err := exec.Command(createrepo, args...).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		m := strings.Replace(atRepo(`baseurl: ["REPOS/stale-`+algorithm+`", "REPOS/`+algorithm+`"]`), "packages: [data]", "packages: []", 1)
		if err := os.CopyFS(w.folder("stale-"+algorithm), os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(w.folder("stale-"+algorithm), "repodata/primary.xml.gz"), []byte("stale"), 0o644); err != nil {
			t.Fatal(err)
		}
		if algorithm == "sha1" || algorithm == "md5" {
			_, err := w.resolve(m)
			if err == nil || !strings.Contains(err.Error(), "which can be forged; want sha256, sha384 or sha512") {
				t.Errorf("%s: got %v", algorithm, err)
			}
			continue
		}
		l := w.lock(m)
		if d, _, err := digestFile(filepath.Join(dir, "repodata/primary.xml.gz")); err != nil || l.Find(KindRepodata, "base-x86_64/primary").SHA256 != d {
			t.Errorf("%s: got %+v", algorithm, l.Find(KindRepodata, "base-x86_64/primary"))
		}
	}
}

// TestResolveCompressed reads what createrepo_c compresses, and zchunk beside
// it, which is passed by.
func TestResolveCompressed(t *testing.T) {
	createrepo := tooltest.Find(t, "createrepo_c")
	w := newWorld(t)
	for _, how := range []string{"gz", "xz", "bz2", "zstd", "zck"} {
		dir := w.folder(how)
		args := []string{"-q", "--general-compress-type=" + how, dir}
		switch how {
		case "zck":
			args[1] = "--zck"
		case "zstd":
			args[1] = "--general-compress-type=gz"
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command(createrepo, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", how, err, out)
		}
		if how == "zstd" { // createrepo_c of Debian 12 cannot
			zstdRepo(t, dir)
		}
		l := w.lock(strings.Replace(atRepo(`baseurl: "REPOS/`+how+`"`), "packages: [data]", "packages: []", 1))
		in := l.Find(KindRepodata, "base-x86_64/primary")
		if want := map[string]string{"gz": ".gz", "xz": ".xz", "bz2": ".bz2", "zstd": ".zst", "zck": ".gz"}[how]; !strings.HasSuffix(in.URL, want) {
			t.Errorf("%s: got %s", how, in.URL)
		}
	}
}

// zstdRepo compresses the primary.xml of a repository anew.
func zstdRepo(t *testing.T, dir string) {
	t.Helper()
	f, err := os.Open(filepath.Join(dir, "repodata/repomd.xml"))
	if err != nil {
		t.Fatal(err)
	}
	md, err := rpmmd.ParseRepomd(f)
	f.Close()
	if err != nil {
		t.Fatal(err)
	}
	was := md.Find("primary")
	at := filepath.Join(dir, "repodata/primary.xml.zst")
	sh := exec.Command("sh", "-c", `zcat "$1" | zstd -q -o "$2"`, "sh", filepath.Join(dir, was.Location), at)
	tooltest.Find(t, "zstd")
	if out, err := sh.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	sum, _, err := digestFile(at)
	if err != nil {
		t.Fatal(err)
	}
	text := "<repomd><data type=\"primary\"><checksum type=\"sha256\">" + sum.Hex() + "</checksum><location href=\"repodata/primary.xml.zst\"/></data></repomd>"
	writeFiles(t, dir, map[string]string{"repodata/repomd.xml": text})
}

// TestResolveHostile has repositories that nobody should believe.
func TestResolveHostile(t *testing.T) {
	w := newWorld(t)
	w.repo("base", "", onePackage)
	w.serve("https://a.example/", "base")
	primary := filepath.Join(w.folder("base"), "repodata/primary.xml")
	whole, err := os.ReadFile(primary)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, old, new, want string }{
		{"leaves the repository", `href="Packages`, `href="../Packages`, `location "../Packages/data-1-1.noarch.rpm" leaves the repository`},
		{"absolute", `href="Packages`, `href="/Packages`, "is not a relative path"},
		{"encoded", `href="Packages`, `href="%2e%2e/Packages`, "leaves the repository"},
		{"entities", "<metadata", "<!DOCTYPE a [<!ENTITY b 'c'>]><metadata", "internal subset is refused"},
		{"long attribute", `href="Packages`, `href="` + strings.Repeat("a", 2<<20), "longer than 1048576 bytes"},
		{"downgrade", "<location ", `<location xml:base="http://b.example/" `, "the repository is at https, and its packages would come by http"},
		{"password", "<location ", `<location xml:base="https://me:secret@b.example/" `, `xml:base "https://me:xxxxx@b.example/": want an address such as`},
		{"query", "<location ", `<location xml:base="https://b.example/?a=b" `, "want an address such as"},
		{"truncated", string(whole[len(whole)/2:]), "", "unexpected EOF"},
	} {
		text := strings.Replace(string(whole), tt.old, tt.new, 1)
		writeFiles(t, w.folder("base"), map[string]string{
			"repodata/primary.xml": text,
			"repodata/repomd.xml":  "<repomd><data type=\"primary\"><checksum type=\"sha256\">" + digest.Of([]byte(text)).Hex() + "</checksum><location href=\"repodata/primary.xml\"/></data></repomd>",
		})
		_, err := w.resolve(atRepo(`baseurl: "https://a.example/"`))
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %s", tt.name, err, tt.want)
		}
	}
}
