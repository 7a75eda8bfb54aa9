package lock

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"caisson/lock/digest"
	"caisson/lock/konflux"
)

// roundTrip converts a Konflux lock to ours and back, and writes and reads
// both on the way.
func roundTrip(t *testing.T, k *konflux.Lock) (*Lock, *konflux.Lock) {
	t.Helper()
	l, err := FromKonflux("podvm", k, digest.Of([]byte("x")))
	if err != nil {
		t.Fatal(err)
	}
	text, err := Format(l)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Parse("caisson.lock", text)
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	if more, err := Format(again); err != nil || !bytes.Equal(more, text) {
		t.Fatalf("not a fixpoint: %v", err)
	}
	back, err := ToKonflux(again, "")
	if err != nil {
		t.Fatal(err)
	}
	return again, back
}

func TestConvertReal(t *testing.T) {
	all, err := filepath.Glob("../../shared/data/konflux/*.lock.yaml")
	if err != nil || len(all) == 0 {
		t.Skip("no files in use beside the checkout", err)
	}
	for _, name := range all {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		k, err := konflux.ParseLock(name, b)
		if err != nil {
			t.Fatal(err)
		}
		l, back := roundTrip(t, k)
		if got := konflux.FormatLock(back); !bytes.Equal(got, b[bytes.Index(b, []byte("---\n")):]) {
			t.Errorf("%s: something was lost", name)
		}
		rpms := 0
		for i := range l.Inputs {
			in := &l.Inputs[i]
			if isURL(in.URL) {
				t.Errorf("%s: %s has the address %s", name, in.Name, in.URL)
			}
			if u, ok := l.RepoURL(in); !ok || !strings.HasPrefix(u, "https://cdn") {
				t.Errorf("%s: %s is at %q", name, in.Name, u)
			}
			if in.RPM != nil {
				rpms++
				if in.RPM.Signed {
					t.Errorf("%s: %s is signed, and nobody said by whom", name, in.Name)
				}
			}
		}
		if l.Imported != "rpms.lock.yaml" || rpms == 0 || rpms < bytes.Count(b, []byte("- url:"))/5 {
			t.Errorf("%s: got %d packages", name, rpms)
		}
	}
}

// TestConvertRandom has all that the format can say: the same package in
// several repositories and arches, repositories with and without a base that
// can be told, entries without repoid, size, name, evr or sourcerpm.
func TestConvertRandom(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	pick := func(s ...string) string { return s[rnd.IntN(len(s))] }
	entry := func(arch string) konflux.LockFile {
		name, evr := pick("a", "b-c", "d"), pick("1-2", "1.0~rc1-3.el9")
		f := konflux.LockFile{
			RepoID: pick("", "base", "base-"+arch, "app"), Size: rnd.Int64N(3), Checksum: digest.Of([]byte(pick("1", "2"))).String(),
			Name: name, EVR: pick("", "7:") + evr, SourceRPM: pick("", name+"-"+evr+".src.rpm"),
		}
		f.URL = pick("https://x/"+arch+"/os/Packages/", "https://x/os/repodata/../Packages/", "https://y/flat/", "https://x/"+arch+"/os/repodata/", "https://z/Packages/Packages/") +
			pick("", "p/", "../") + name + "-" + evr + "." + arch + ".rpm" + pick("", "?token=1", "#x", "#https://y")
		return f
	}
	for range 500 {
		k := &konflux.Lock{}
		for _, arch := range []string{"aarch64", "x86_64"} {
			a := konflux.LockArch{Arch: arch}
			for range rnd.IntN(6) {
				a.Packages = append(a.Packages, entry(pick("noarch", arch)))
			}
			for range rnd.IntN(3) {
				f := entry("src")
				f.SourceRPM = ""
				a.Source = append(a.Source, f)
			}
			for range rnd.IntN(3) {
				f := konflux.LockFile{URL: "https://x/" + pick("os/repodata/", "") + "m.yaml.gz", RepoID: pick("base", "app"), Checksum: digest.Of([]byte(pick("1", "2"))).String()}
				a.ModuleMetadata = append(a.ModuleMetadata, f)
			}
			k.Arches = append(k.Arches, a)
		}
		_, back := roundTrip(t, k)
		if got, want := sortedEntries(back), sortedEntries(k); !reflect.DeepEqual(got, want) {
			t.Fatalf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}

// sortedEntries are the different entries of a Konflux lock.
func sortedEntries(k *konflux.Lock) []string {
	var out []string
	for _, a := range k.Arches {
		for i, list := range [][]konflux.LockFile{a.Packages, a.Source, a.ModuleMetadata} {
			for _, f := range list {
				out = append(out, fmt.Sprintf("%s %d %+v", a.Arch, i, f))
			}
		}
	}
	return sorted(out)
}

func TestFromKonfluxErrors(t *testing.T) {
	sum := digest.Of(nil).String()
	for _, tt := range []struct {
		f    konflux.LockFile
		want string
	}{
		{konflux.LockFile{URL: "a-1-2.noarch.rpm"}, `x86_64: url "a-1-2.noarch.rpm": want an address such as https://host/file`},
		{konflux.LockFile{URL: "https://x/a-1-2.noarch.rpm"}, `x86_64: https://x/a-1-2.noarch.rpm: checksum "": a lock pins every file by its SHA-256, and this one would not be`},
		{konflux.LockFile{URL: "https://x/a-1-2.noarch.rpm", Checksum: "md5:1"}, `x86_64: https://x/a-1-2.noarch.rpm: checksum "md5:1": a lock pins every file by its SHA-256, and this one would not be`},
		{konflux.LockFile{URL: "https://x/a-1-2.noarch.rpm", Checksum: sum, Size: -1}, "x86_64: https://x/a-1-2.noarch.rpm: size -1"},
		{konflux.LockFile{URL: "https://x/a-1-2.src.rpm", Checksum: sum}, "x86_64: https://x/a-1-2.src.rpm: a package of src in the wrong list"},
		{konflux.LockFile{URL: "https://x/a", Checksum: sum}, "x86_64: https://x/a: its arch cannot be told: want a file called NAME-VERSION-RELEASE.ARCH.rpm"},
	} {
		k := &konflux.Lock{Arches: []konflux.LockArch{{Arch: "x86_64", Packages: []konflux.LockFile{tt.f}}}}
		if _, err := FromKonflux("podvm", k, digest.Of(nil)); err == nil || err.Error() != tt.want {
			t.Errorf("got  %v\nwant %s", err, tt.want)
		}
	}
}

// TestImportedCheck: what an imported lock may lack, others may not.
func TestImportedCheck(t *testing.T) {
	sum := digest.Of(nil).String()
	k := &konflux.Lock{Arches: []konflux.LockArch{{Arch: "x86_64", Packages: []konflux.LockFile{
		{URL: "https://x/a-1-2.noarch.rpm", Checksum: sum}, {URL: "https://x/os/Packages/b-1-2.noarch.rpm", RepoID: "r", Checksum: sum},
		{URL: "https://x/flat/c-1-2.noarch.rpm", RepoID: "flat", Checksum: sum},
	}}}}
	for _, tt := range []struct {
		change func(*Lock)
		want   string
	}{
		{func(l *Lock) {}, ""},
		{func(l *Lock) { l.Imported = "other" }, `imported "other": want "rpms.lock.yaml" or "prefetch-input", or nothing`},
		{func(l *Lock) { l.Imported = "" }, `repository "flat" (x86_64): baseurl "" does not end in a slash`},
		{func(l *Lock) { l.Imported, l.Repos[0].BaseURL = "", "https://x/" }, `repository "flat" (x86_64): no digest of its repomd.xml`},
		{func(l *Lock) { l.Inputs[2].URL = "c" }, `input rpm c-1-2.noarch: repository "flat" has no baseurl for x86_64`},
		{func(l *Lock) { l.Inputs[0].URL = "a" }, "input rpm a-1-2.noarch: no repository"},
	} {
		l, err := FromKonflux("podvm", k, digest.Of(nil))
		if err != nil {
			t.Fatal(err)
		}
		tt.change(l)
		if err := l.check(); err == nil && tt.want != "" || err != nil && err.Error() != tt.want {
			t.Errorf("got %v, want %s", err, tt.want)
		}
	}
}

func TestToKonflux(t *testing.T) {
	sum, other := digest.Of([]byte("1")), digest.Of([]byte("2"))
	rpm := func(name, arch, module string, uses ...Use) Input {
		return Input{
			Kind: KindRPM, Name: name + "-1-2." + arch, URL: "Packages/" + name + ".rpm", Repo: "r", Size: 5, SHA256: sum, For: uses,
			RPM: &RPM{Name: name, Epoch: 3, Version: "1", Release: "2", Arch: arch, Module: module},
		}
	}
	modules := func(repo string) Input {
		return Input{Kind: KindRepodata, Name: repo + "-x86_64/modules", URL: "repodata/m", Repo: repo, SHA256: other, For: []Use{{Arch: "x86_64", By: "repository " + repo}}}
	}
	both := rpm("both", "noarch", "", Use{Arch: "aarch64", Set: "root"}, Use{Arch: "x86_64", Set: "root"})
	both.RPM.SourceRPM = "src-1-2.src.rpm"
	l := &Lock{
		Arches: []string{"aarch64", "x86_64"}, Sets: []Set{{Name: "root"}, {Name: "tools"}},
		Repos: []Repo{
			{ID: "r", Arch: "aarch64", BaseURL: "https://x/a/"}, {ID: "r", Arch: "x86_64", BaseURL: "https://x/x/"}, {ID: "s", Arch: "x86_64", BaseURL: "https://s/"},
		},
		Inputs: []Input{
			both,
			rpm("module", "x86_64", "m:1:2:3", Use{Arch: "x86_64", Set: "tools"}),
			rpm("other", "src", "", Use{Arch: "x86_64", Set: SetSource}), rpm("src", "src", "", Use{Arch: "x86_64", Set: SetSource}), modules("r"), modules("s"),
			{Kind: KindFile, Name: "f", URL: "https://f", SHA256: sum},
		},
	}
	file := func(base, name string) konflux.LockFile {
		return konflux.LockFile{URL: base + "Packages/" + name + ".rpm", RepoID: "r", Size: 5, Checksum: sum.String(), Name: name, EVR: "3:1-2"}
	}
	source := func(f konflux.LockFile) konflux.LockFile { f.SourceRPM = "src-1-2.src.rpm"; return f }
	want := &konflux.Lock{Arches: []konflux.LockArch{
		{Arch: "aarch64", Packages: []konflux.LockFile{source(file("https://x/a/", "both"))}},
		{
			Arch: "x86_64", Packages: []konflux.LockFile{source(file("https://x/x/", "both")), file("https://x/x/", "module")},
			Source:         []konflux.LockFile{file("https://x/x/", "other"), file("https://x/x/", "src")},
			ModuleMetadata: []konflux.LockFile{{URL: "https://x/x/repodata/m", RepoID: "r", Checksum: other.String()}},
		},
	}}
	if got, err := ToKonflux(l, ""); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v, %v\nwant %+v", got, err, want)
	}
	want.Arches[1].Packages, want.Arches[1].Source, want.Arches[1].ModuleMetadata = want.Arches[1].Packages[:1], want.Arches[1].Source[1:], nil
	if got, err := ToKonflux(l, "root"); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v, %v\nwant %+v", got, err, want)
	}
	if _, err := ToKonflux(l, "initrd"); err == nil || err.Error() != `the lock has no set "initrd"; it has root, tools` {
		t.Errorf("got %v", err)
	}
	l.Repos[1].ISO, l.Repos[1].BaseURL = "cd", "iso:cd/"
	if _, err := ToKonflux(l, ""); err == nil || err.Error() != "x86_64: both-1-2.noarch is in iso:cd/, and an rpms.lock.yaml has addresses only" {
		t.Errorf("got %v", err)
	}
}
