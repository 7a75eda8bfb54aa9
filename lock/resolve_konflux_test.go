package lock

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/adler32"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"caisson/lock/digest"
	"caisson/lock/konflux"
	"caisson/lock/rpmmd"
)

// rpmHeader is a package's header as rpm's database has it.
func rpmHeader(p pkg) []byte {
	be := binary.BigEndian
	var index, data []byte
	n := uint32(0)
	add := func(tag, typ, count uint32, value []byte) {
		for typ == 4 && len(data)%4 != 0 {
			data = append(data, 0)
		}
		for _, v := range []uint32{tag, typ, uint32(len(data)), count} {
			index = be.AppendUint32(index, v)
		}
		data = append(data, value...)
		n++
	}
	str := func(s string) []byte { return append([]byte(s), 0) }
	e := p.evrParts()
	add(1000, 6, 1, str(p.name))
	add(1001, 6, 1, str(e.Version))
	add(1002, 6, 1, str(e.Release))
	add(1003, 4, 1, be.AppendUint32(nil, uint32(e.Epoch)))
	add(1022, 6, 1, str(p.arch))
	deps := func(name, flags, version uint32, list []string) {
		var names, fl, vers []byte
		for _, d := range list {
			f := append(strings.Fields(d), "", "")
			names, vers = append(names, str(f[0])...), append(vers, str(f[2])...)
			fl = be.AppendUint32(fl, map[string]uint32{"": 0, "=": 8, ">=": 12, "<": 2}[f[1]])
		}
		if len(list) > 0 {
			add(name, 8, uint32(len(list)), names)
			add(flags, 4, uint32(len(list)), fl)
			add(version, 8, uint32(len(list)), vers)
		}
	}
	deps(1047, 1112, 1113, append([]string{p.name + " = " + e.String()}, p.provides...))
	deps(1049, 1048, 1050, p.requires)
	return bytes.Join([][]byte{be.AppendUint32(be.AppendUint32(nil, n), uint32(len(data))), index, data}, nil)
}

// rpmDB is a Packages.db with packages.
func rpmDB(pkgs ...pkg) []byte {
	le := binary.LittleEndian
	out := make([]byte, 4096)
	copy(out, "RpmP")
	le.PutUint32(out[12:], 1)
	for i := 32; i < 4096; i += 16 {
		copy(out[i:], "Slot")
	}
	for i, p := range pkgs {
		h := rpmHeader(p)
		blob := le.AppendUint32(le.AppendUint32(le.AppendUint32([]byte("BlbS"), uint32(i+1)), 1), uint32(len(h)))
		blob = append(blob, h...)
		for (len(blob)+12)%16 != 0 {
			blob = append(blob, 0)
		}
		blob = append(le.AppendUint32(le.AppendUint32(blob, adler32.Checksum(blob)), uint32(len(h))), "BlbE"...)
		slot := out[32+i*16:]
		le.PutUint32(slot[4:], uint32(i+1))
		le.PutUint32(slot[8:], uint32(len(out)/16))
		le.PutUint32(slot[12:], uint32(len(blob)/16))
		out = append(out, blob...)
	}
	return out
}

// blob puts a part of an image where it is fetched from.
func (w *world) blob(at string, b []byte) map[string]any {
	w.t.Helper()
	d := digest.Of(b)
	name := filepath.Join(w.t.TempDir(), "blob")
	if err := os.WriteFile(name, b, 0o600); err != nil {
		w.t.Fatal(err)
	}
	w.files[at+d.String()] = name
	return map[string]any{"digest": d.String(), "size": len(b)}
}

func (w *world) json(v any) []byte {
	w.t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		w.t.Fatal(err)
	}
	return b
}

// image puts an image into a registry: an index with an entry for each arch,
// with its database in the lower of two layers. It returns the index's digest.
func (w *world) image(ref string, labels map[string]string, dbs map[string][]byte) digest.Digest {
	w.t.Helper()
	return w.imageAt(ref, labels, "usr/lib/sysimage/rpm/Packages.db", dbs)
}

// imageAt is image with a database at a place.
func (w *world) imageAt(ref string, labels map[string]string, place string, dbs map[string][]byte) digest.Digest {
	w.t.Helper()
	name, tag, _ := strings.Cut(ref, ":")
	host, repo, _ := strings.Cut(name, "/")
	base := "oci://" + host + "/" + repo
	layer := func(name string, b []byte) map[string]any {
		var buf bytes.Buffer
		tw := tar.NewWriter(&buf)
		if err := tw.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(b))}); err != nil {
			w.t.Fatal(err)
		}
		if _, err := tw.Write(b); err != nil {
			w.t.Fatal(err)
		}
		if err := tw.Close(); err != nil {
			w.t.Fatal(err)
		}
		d := w.blob(base+"/blobs/", buf.Bytes())
		d["mediaType"] = "application/vnd.oci.image.layer.v1.tar"
		return d
	}
	var entries []any
	for _, arch := range []string{"aarch64", "x86_64"} {
		db, ok := dbs[arch]
		if !ok {
			continue
		}
		config := w.blob(base+"/blobs/", w.json(map[string]any{"architecture": goArch[arch], "os": "linux", "config": map[string]any{"Labels": labels}}))
		config["mediaType"] = typeOCIConfig
		m := w.blob(base+"/manifests/", w.json(map[string]any{
			"schemaVersion": 2, "mediaType": typeOCIManifest, "config": config,
			"layers": []any{layer(place, db), layer("etc/x", []byte(arch))},
		}))
		m["mediaType"], m["platform"] = typeOCIManifest, map[string]string{"os": "linux", "architecture": goArch[arch]}
		entries = append(entries, m)
	}
	index := w.json(map[string]any{"schemaVersion": 2, "mediaType": typeOCIIndex, "manifests": entries})
	w.blob(base+"/manifests/", index)
	w.files[base+"/manifests/"+tag] = w.files[base+"/manifests/"+digest.Of(index).String()]
	return digest.Of(index)
}

// konflux locks a rpms.in.yaml, whose REPOS stands for the repositories'
// address, twice, and gives what comes out as an rpms.lock.yaml.
func (w *world) konflux(in string, k KonfluxOptions) (*Lock, *konflux.Lock, error) {
	w.t.Helper()
	writeFiles(w.t, w.dir, map[string]string{"ci/rpms.in.yaml": strings.ReplaceAll(in, "REPOS/", w.repos)})
	k.File, k.Name = "ci/rpms.in.yaml", "cli"
	l, err := ResolveKonflux(context.Background(), w.opts, k)
	if err != nil {
		return nil, nil, err
	}
	again, err := ResolveKonflux(context.Background(), w.opts, k)
	if err != nil || !bytes.Equal(format(w.t, l), format(w.t, again)) {
		w.t.Fatalf("another lock the second time: %v", err)
	}
	if parsed, err := Parse("caisson.lock", format(w.t, l)); err != nil {
		w.t.Fatalf("the lock is not accepted: %v\n%s", err, format(w.t, l))
	} else if err := Check(parsed, l.Manifest, w.dir); err != nil {
		w.t.Errorf("the fresh lock does not answer: %v", err)
	}
	out, err := ToKonflux(l, "")
	if err != nil {
		w.t.Fatal(err)
	}
	text := konflux.FormatLock(out)
	if back, err := konflux.ParseLock("rpms.lock.yaml", text); err != nil || !bytes.Equal(konflux.FormatLock(back), text) {
		w.t.Errorf("%v in\n%s", err, text)
	}
	return l, out, nil
}

// konfluxNames are the packages of an arch: "name-evr@repository", source packages
// with a "+" in front.
func konfluxNames(k *konflux.Lock, arch string) string {
	var out []string
	for _, a := range k.Arches {
		if a.Arch != arch {
			continue
		}
		for _, f := range a.Packages {
			out = append(out, f.Name+"-"+f.EVR+"@"+f.RepoID)
		}
		for _, f := range a.Source {
			out = append(out, "+"+f.Name+"-"+f.EVR)
		}
	}
	return strings.Join(sorted(out), " ")
}

const konfluxRepos = "contentOrigin: {repos: [{repoid: main, baseurl: REPOS/main}]}\n"

// mainRepo has what the cases below ask for.
func mainRepo(w *world) {
	w.repo("main", "",
		pkg{name: "app", evr: "1-1", arch: "noarch", requires: []string{"lib >= 2"}, weak: []string{"nice"}}, pkg{name: "nice", evr: "1-1", arch: "noarch"},
		pkg{name: "lib", evr: "2-1", arch: "x86_64"}, pkg{name: "lib", evr: "3-1", arch: "x86_64"}, pkg{name: "lib", evr: "2-1", arch: "aarch64"},
		pkg{name: "kernel-core", evr: "5-1", arch: "noarch"}, pkg{name: "kernel-devel", evr: "5-1", arch: "noarch"}, pkg{name: "kernel-devel", evr: "6-1", arch: "noarch"},
		pkg{name: "module", evr: "1-1", arch: "noarch", requires: []string{"kmod-outside"}}, pkg{name: "clash", evr: "1-1", arch: "noarch", requires: []string{"lib < 3"}},
		pkg{name: "app", evr: "1-1", arch: "src", requires: []string{"gcc", "make >= 4"}}, pkg{name: "gcc", evr: "1-1", arch: "noarch"}, pkg{name: "make", evr: "4-1", arch: "noarch"},
		pkg{name: "from-run", evr: "1-1", arch: "noarch"}, pkg{name: "x86-only", evr: "1-1", arch: "x86_64"},
	)
}

// TestResolveKonflux has a case for each key that changes what comes out.
func TestResolveKonflux(t *testing.T) {
	w := newWorld(t)
	mainRepo(w)
	writeFiles(t, w.dir, map[string]string{
		"ci/Containerfile": "FROM example.org/base:1 AS a\nRUN dnf install -y from-run && if [ $(arch) = x86_64 ]; then dnf install x86-only; fi\nFROM a\nRUN dnf upgrade lib; dnf builddep app\n",
		"ci/root":          "FROM x\nRUN dnf --installroot=/m install app\n", "ci/spec": "FROM x\nRUN dnf builddep a.spec\n", "ci/rpm": "FROM x\nRUN dnf install https://x/y.rpm\n",
		"ci/tree.yaml": "packages: [app]\nexclude-packages: [nice]\nreleasever: main\n",
	})
	db := func(pkgs ...pkg) []byte { return rpmDB(pkgs...) }
	lib2 := pkg{name: "lib", evr: "2-1", arch: "x86_64"}
	kernel := pkg{name: "kernel-core", evr: "5-1", arch: "noarch"}
	release := pkg{name: "rel", evr: "7-1", arch: "noarch", provides: []string{"system-release = main"}}
	top := w.image("example.org/base:1", map[string]string{"where": "main"}, map[string][]byte{
		"x86_64": db(lib2, kernel, release), "aarch64": db(pkg{name: "lib", evr: "2-1", arch: "aarch64"}),
	})
	w.image("example.org/multi:latest", nil, map[string][]byte{"x86_64": db(kernel, pkg{name: "kernel-x", evr: "6-1", arch: "noarch"})})
	for _, tt := range []struct {
		name, in string
		k        KonfluxOptions
		want     string // on x86_64
	}{
		{"bare, weak dependencies by default", "packages: [app]\narches: [x86_64]\nnoSources: true\ncontext: {bare: true}\n", KonfluxOptions{}, "app-1-1@main lib-3-1@main nice-1-1@main"},
		{"no weak dependencies", "packages: [app]\narches: [x86_64]\nnoSources: true\ninstallWeakDeps: false\ncontext: {bare: true}\n", KonfluxOptions{}, "app-1-1@main lib-3-1@main"},
		{"arches", "packages: [app]\narches: [x86_64]\nnoSources: true\ncontext: {bare: true}\n", KonfluxOptions{Arches: []string{"aarch64"}}, ""},
		{"sources that there are", "packages: [app]\ninstallWeakDeps: false\narches: [x86_64]\ncontext: {bare: true}\n", KonfluxOptions{MissingSources: true}, "+app-1-1 app-1-1@main lib-3-1@main"},
		{"an image has the library", "packages: [app]\ninstallWeakDeps: false\narches: [x86_64]\nnoSources: true\ncontext: {image: 'example.org/base:1'}\n", KonfluxOptions{}, "app-1-1@main"},
		{"the caller's context", "packages: [app]\ninstallWeakDeps: false\narches: [x86_64]\nnoSources: true\ncontext: {bare: true}\n", KonfluxOptions{Context: &konflux.Context{Image: "example.org/base:1"}}, "app-1-1@main"},
		{"installed already", "packages: [kernel-core]\narches: [x86_64]\nnoSources: true\ncontext: {image: 'example.org/base:1'}\n", KonfluxOptions{}, ""},
		{"upgraded", "packages: []\nupgradePackages: [lib]\narches: [x86_64]\nnoSources: true\ncontext: {image: 'example.org/base:1'}\n", KonfluxOptions{}, "lib-3-1@main"},
		{"reinstalled, where it is installed", "packages: []\nreinstallPackages: [kernel-core, gcc]\narches: [x86_64]\nnoSources: true\ncontext: {image: 'example.org/base:1'}\n", KonfluxOptions{}, "kernel-core-5-1@main"},
		{"as in the context", "packages: [kernel-devel]\nmatchContextVersions: ['kernel-*', 'none*']\narches: [x86_64]\nnoSources: true\ncontext: {image: 'example.org/base:1'}\n", KonfluxOptions{}, "kernel-devel-5-1@main"},
		{"assumed", "packages: [module]\nassumeProvides: [kmod-outside]\narches: [x86_64]\nnoSources: true\ncontext: {bare: true}\n", KonfluxOptions{}, "module-1-1@main"},
		{"excluded", "packages: [app, nice, gcc]\nexcludePackages: [app, nice]\narches: [x86_64]\nnoSources: true\ncontext: {bare: true}\n", KonfluxOptions{}, "gcc-1-1@main"},
		{"only and not", "packages: [{name: gcc, arches: {not: x86_64}}, {name: make, arches: {only: [x86_64]}}]\narches: [x86_64, aarch64]\nnoSources: true\ncontext: {bare: true}\n", KonfluxOptions{}, "make-4-1@main"},
		{"a Containerfile, its stages, upgrade, builddep", "packages: [gcc]\npackagesFromContainerfile: Containerfile\narches: [x86_64]\nnoSources: true\ncontext: {containerfile: Containerfile}\n", KonfluxOptions{},
			"from-run-1-1@main gcc-1-1@main lib-3-1@main make-4-1@main x86-only-1-1@main"},
		{"a Containerfile found beside, implicit packages not", "packages: [gcc]\narches: [x86_64]\nnoSources: true\n", KonfluxOptions{}, "gcc-1-1@main"},
		{"a treefile", "arches: [x86_64]\nnoSources: true\ncontext: {rpmOstreeTreefile: tree.yaml}\n", KonfluxOptions{}, "app-1-1@main lib-3-1@main"},
		{"variables", "packages: ['{p}']\nvariables: [{inline: {p: app}}, {inline: {p: gcc}}]\narches: [x86_64]\nnoSources: true\ncontext: {bare: true}\n", KonfluxOptions{}, "gcc-1-1@main"},
	} {
		l, k, err := w.konflux(tt.in+konfluxRepos, tt.k)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if got := konfluxNames(k, "x86_64"); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.name, got, tt.want)
		}
		if strings.Contains(tt.in, "example.org/base") != (len(l.Sources) > 0 && l.Sources[len(l.Sources)-1] == Source{"image:example.org/base:1", top}) && tt.k.Context == nil && !strings.Contains(tt.in, "arches: [x86_64]\nnoSources: true\n") {
			t.Errorf("%s: sources %+v", tt.name, l.Sources)
		}
		if len(l.Unchecked()) != len(l.Repos) {
			t.Errorf("%s: a repository without a key is checked", tt.name)
		}
	}
	for _, tt := range []struct{ in, want string }{
		{"packages: [app]\ncontext: {bare: true}\n", "ci/rpms.in.yaml: arches: for which arch is it to be locked?"},
		{"packages: [app]\narches: [x86_64]\ncontext: {bare: true}\n", "rpm.sources: no repository has 2 of the source packages"},
		{"packages: [none]\narches: [x86_64]\nnoSources: true\ncontext: {bare: true}\n", "none"},
		{"packages: [clash]\narches: [x86_64]\nnoSources: true\nupgradePackages: [lib]\ncontext: {image: 'example.org/base:1'}\n", "set root (x86_64): "},
		{"packages: [a]\nmatchContextVersions: [a]\narches: [x86_64]\ncontext: {bare: true}\n", "matchContextVersions: it needs an image as context"},
		{"packages: [a]\nmatchContextVersions: ['kernel-*']\narches: [x86_64]\ncontext: {image: example.org/multi}\n", `matchContextVersions: "kernel-*" is like kernel-core-5-1 and kernel-x-6-1: of which version?`},
		{"packages: [a]\narches: [x86_64]\ncontext: {image: 'example.org/absent:1'}\n", "ci/rpms.in.yaml: image example.org/absent:1: oci://example.org/absent/manifests/1: file does not exist"},
		{"packages: [a]\narches: [x86_64]\ncontext: {image: fedora}\n", `"fedora:latest" names no registry`},
		{"packages: [a]\narches: [s390x]\ncontext: {image: 'example.org/base:1'}\n", "it has no image for s390x (linux/s390x); it has linux/amd64, linux/arm64"},
		{"packages: [a]\narches: [x86_64]\ncontext: {localSystem: true}\n", `context.localSystem: this machine is ""; only that arch can be locked for it`},
		{"packagesFromContainerfile: root\narches: [x86_64]\ncontext: {image: 'example.org/base:1'}\n", "x86_64: ci/root:2: --installroot begins with an empty root, and the context is not empty: use context: {bare: true}"},
		{"packagesFromContainerfile: spec\narches: [x86_64]\ncontext: {bare: true}\n", `x86_64: builddep "a.spec": what a file needs to be built is not looked up`},
		{"packagesFromContainerfile: rpm\narches: [x86_64]\ncontext: {bare: true}\n", `x86_64: "https://x/y.rpm" is a file and in no repository`},
	} {
		if _, _, err := w.konflux(tt.in+konfluxRepos, KonfluxOptions{}); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s\ngot  %v\nwant %s", tt.in, err, tt.want)
		}
	}
}

// TestResolveKonfluxArches has repositories that are called by the arch, a
// release that comes from the image, and a package for all arches in both.
func TestResolveKonfluxArches(t *testing.T) {
	w := newWorld(t)
	for _, arch := range []string{"x86_64", "aarch64"} {
		w.repo("9/"+arch, "", pkg{name: "data", evr: "1-1", arch: "noarch"}, pkg{name: "app", evr: "1-1", arch: arch, requires: []string{"data"}})
	}
	release := pkg{name: "rel", evr: "9-1", arch: "noarch", provides: []string{"system-release"}}
	w.image("example.org/base:1", nil, map[string][]byte{"x86_64": rpmDB(release), "aarch64": rpmDB(release)})
	in := "packages: [app]\nnoSources: true\narches: [x86_64, aarch64]\ncontext: {image: 'example.org/base:1'}\ncontentOrigin: {repofiles: [a.repo]}\n"
	writeFiles(t, w.dir, map[string]string{"ci/a.repo": "[for-$basearch-rpms]\nbaseurl=" + w.repos + "$releasever/$basearch\ngpgkey=file:///etc/pki/absent\ngpgcheck=1\n"})
	l, k, err := w.konflux(in, KonfluxOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for i, arch := range []string{"aarch64", "x86_64"} {
		if got, want := konfluxNames(k, arch), "app-1-1@for-"+arch+"-rpms data-1-1@for-"+arch+"-rpms"; got != want {
			t.Errorf("%s: got %s, want %s", arch, got, want)
		}
		for _, f := range k.Arches[i].Packages {
			if !strings.HasPrefix(f.URL, w.repos+"9/"+arch+"/Packages/") {
				t.Errorf("%s: %s is at %s", arch, f.Name, f.URL)
			}
		}
	}
	if in := l.Find(KindRPM, "data-1-1.noarch@for-x86_64-rpms"); in == nil || l.Find(KindRPM, "data-1-1.noarch").Repo != "for-aarch64-rpms" {
		t.Errorf("got %+v", l.Inputs)
	}
	// Kept by a lock there was, also under its second name.
	for _, arch := range []string{"x86_64", "aarch64"} {
		w.repo("9/"+arch, "", pkg{name: "data", evr: "1-1", arch: "noarch"}, pkg{name: "data", evr: "2-1", arch: "noarch"}, pkg{name: "app", evr: "1-1", arch: arch, requires: []string{"data"}})
	}
	w.opts.Old = l
	if _, k, err := w.konflux(in, KonfluxOptions{}); err != nil || !strings.Contains(konfluxNames(k, "x86_64"), "data-1-1@") {
		t.Errorf("got %s, %v", konfluxNames(k, "x86_64"), err)
	}
	w.opts.Old = nil
	if _, _, err := w.konflux(strings.Replace(in, "image: 'example.org/base:1'", "bare: true", 1), KonfluxOptions{}); err == nil || !strings.Contains(err.Error(), "variable $releasever has no value") {
		t.Errorf("got %v", err)
	}
	if _, _, err := w.konflux(strings.Replace(in, "image: 'example.org/base:1'", "bare: true", 1), KonfluxOptions{Vars: map[string]string{"releasever": "9"}}); err != nil {
		t.Error(err)
	}
}

// TestResolveKonfluxFetched takes .repo files and labels from elsewhere.
func TestResolveKonfluxFetched(t *testing.T) {
	w := newWorld(t)
	mainRepo(w)
	w.image("example.org/base:1", map[string]string{"where": "main"}, map[string][]byte{"x86_64": rpmDB()})
	name := filepath.Join(t.TempDir(), "x.repo")
	if err := os.WriteFile(name, []byte("[fetched]\nbaseurl="+w.repos+"main\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.files["https://example.org/main.repo"] = name
	l, k, err := w.konflux("packages: [gcc]\nnoSources: true\narches: [x86_64]\ncontext: {bare: true}\ncontentOrigin: {repofiles: [{location: 'https://example.org/{where}.repo', varsFromImage: 'example.org/base:1'}]}\n", KonfluxOptions{})
	if err != nil || konfluxNames(k, "x86_64") != "gcc-1-1@fetched" {
		t.Fatalf("got %s, %v", konfluxNames(k, "x86_64"), err)
	}
	var sources []string
	for _, s := range l.Sources {
		sources = append(sources, s.Name)
	}
	if !reflect.DeepEqual(sources, []string{"https://example.org/main.repo", "image:example.org/base:1"}) {
		t.Errorf("got %v", sources)
	}
}

func TestGitLogin(t *testing.T) {
	for _, tt := range []struct {
		in, out string
		auth    *Auth
	}{
		{"https://h/x.git", "https://h/x.git", nil},
		{"git@h:x.git", "git@h:x.git", nil},
		{"ssh://git@h/x", "ssh://git@h/x", nil},
		{"https://$USER:$TOKEN@h/x@y", "https://h/x@y", &Auth{Basic: &AuthBasic{"$USER", "$TOKEN"}}},
		{"https://u:${TOKEN}@h:1/x", "https://h:1/x", &Auth{Basic: &AuthBasic{"u", "${TOKEN}"}}},
	} {
		out, auth, err := gitLogin(tt.in)
		if err != nil || out != tt.out || !reflect.DeepEqual(auth, tt.auth) {
			t.Errorf("%s: got %s, %+v, %v", tt.in, out, auth, err)
		}
	}
	if _, _, err := gitLogin("https://u:hush@h/x"); err == nil || strings.Contains(err.Error(), "hush") {
		t.Errorf("got %v", err)
	}
}

// TestInputsFrom takes inputs from a prefetch-input.
func TestInputsFrom(t *testing.T) {
	w := newWorld(t)
	sum := digest.Of([]byte("tool")).Hex()
	writeFiles(t, w.dir, map[string]string{
		"hermeto.json": `{"packages": [{"type": "gomod"}, {"type": "gomod", "path": "b"}, {"type": "cargo", "path": "rust/Guest"}, {"type": "generic"}, {"type": "rpm", "path": "ci"}]}`,
		"go.mod":       "module x\ngo 1.26\n", "b/go.mod": "module y\ngo 1.25.1\ntoolchain go1.26.0\n", "ci/rpms.in.yaml": "",
		"artifacts.lock.yaml": "metadata: {version: '2.0'}\nartifacts:\n- {download_url: 'https://x/Tool_1.tgz', checksum: 'sha256:" + sum + "', auth: {bearer: {value: Bearer $T}}}\n",
	})
	o := w.opts
	o.Manifest = &Manifest{Inputs: ManifestInputs{From: "hermeto.json", Go: []ManifestGo{{Name: "b", Dir: "b", Toolchain: "go1.24.0"}}}}
	r := newResolver(o)
	r.lock = &Lock{}
	if err := r.expandInputs(); err != nil {
		t.Fatal(err)
	}
	want := ManifestInputs{
		From: "hermeto.json", Go: []ManifestGo{{Name: "b", Dir: "b", Toolchain: "go1.24.0"}, {Name: "go", Dir: ".", Toolchain: "go1.26.0"}},
		Cargo: []ManifestCargo{{Name: "guest", Dir: "rust/Guest"}},
		Files: []ManifestFile{{Name: "tool_1.tgz", URL: "https://x/Tool_1.tgz", SHA256: sum, Auth: &Auth{Bearer: &AuthBearer{Token: "$T"}}}},
	}
	if !reflect.DeepEqual(r.m.Inputs, want) || r.m.RPM.From != "ci/rpms.in.yaml" || len(r.lock.Sources) != 3 {
		t.Errorf("got  %+v, %+v, %+v\nwant %+v", r.m.Inputs, r.m.RPM, r.lock.Sources, want)
	}
	for _, tt := range []struct{ file, text, want string }{
		{"hermeto.json", `[{"type": "npm"}]`, `type "npm" is Hermeto's and not fetched by Caisson, which does cargo, generic, gomod, rpm`},
		{"hermeto.json", `[{"type": "rpm", "path": "none"}]`, "inputs.from: hermeto.json: rpm in none: there is no rpms.in.yaml; say where packages are from by rpm.repos"},
		{"artifacts.lock.yaml", "metadata: {version: '1.0'}\nartifacts: [{download_url: 'https://x/y', checksum: 'md5:1'}]\n", `https://x/y: checksum "md5:1": want sha256`},
		{"artifacts.lock.yaml", "metadata: {version: '2.0'}\nartifacts: [{download_url: 'https://x/y', checksum: 'sha256:" + sum + "', auth: {basic: {username: u, password: hush}}}]\n", "auth: password: want $NAME, an environment variable"},
		{"go.mod", "module x\n", "its go.mod names no version of Go"},
	} {
		fresh := newResolver(o)
		fresh.lock = &Lock{}
		old, err := os.ReadFile(filepath.Join(w.dir, tt.file))
		if err != nil {
			t.Fatal(err)
		}
		writeFiles(t, w.dir, map[string]string{tt.file: tt.text})
		if err := fresh.expandInputs(); err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "hush") {
			t.Errorf("got  %v\nwant %s", err, tt.want)
		}
		writeFiles(t, w.dir, map[string]string{tt.file: string(old)})
	}
}

func TestArtifactAuth(t *testing.T) {
	bearer := func(header, value string) konflux.ArtifactAuth {
		return konflux.ArtifactAuth{Bearer: &konflux.ArtifactBearer{Header: header, Value: value}}
	}
	basic := func(user, password string) konflux.ArtifactAuth {
		return konflux.ArtifactAuth{Basic: &konflux.ArtifactBasic{Username: user, Password: password}}
	}
	for _, tt := range []struct {
		in   konflux.ArtifactAuth
		want Auth
		err  string
	}{
		{basic("me", "${PASS}"), Auth{Basic: &AuthBasic{Username: "me", Password: "${PASS}"}}, ""},
		{basic("$ME-at-$REALM", "$PASS"), Auth{Basic: &AuthBasic{Username: "$ME-at-$REALM", Password: "$PASS"}}, ""},
		{basic("me", "$A-$B"), Auth{Basic: &AuthBasic{Username: "me", Password: "$A-$B"}}, ""},
		{bearer("Authorization", "Bearer $T"), Auth{Bearer: &AuthBearer{Token: "$T"}}, ""},
		{bearer("authorization", "Bearer ${small}"), Auth{Bearer: &AuthBearer{Token: "${small}"}}, ""},
		{bearer("Authorization", "token $T"), Auth{Bearer: &AuthBearer{Token: "token $T", Raw: true}}, ""},
		{bearer("Authorization", "$T"), Auth{Bearer: &AuthBearer{Token: "$T", Raw: true}}, ""},
		{bearer("PRIVATE-TOKEN", "$T"), Auth{Bearer: &AuthBearer{Token: "$T", Header: "PRIVATE-TOKEN"}}, ""},
		{bearer("X-Key", "key=$K"), Auth{Bearer: &AuthBearer{Token: "key=$K", Header: "X-Key"}}, ""},
		{basic("me", "hunter2"), Auth{}, "password"},
		{basic("me", "/hunter2"), Auth{}, "password"},
		{basic("me:$B", "$P"), Auth{}, "username: it has a colon"},
		{bearer("Authorization", "hunter2"), Auth{}, "want $NAME"},
		{bearer("Authorization", "Bearer hunter2/"), Auth{}, "want $NAME"},
		{bearer("X Y", "$T"), Auth{}, "header: want"},
	} {
		got, err := ArtifactAuth(&tt.in)
		switch {
		case tt.err == "" && (err != nil || !reflect.DeepEqual(*got, tt.want)):
			t.Errorf("%+v %+v: got %+v, %v", tt.in.Basic, tt.in.Bearer, got, err)
		case tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err) || strings.Contains(err.Error(), "hunter2")):
			t.Errorf("%+v %+v: got %v, want %q", tt.in.Basic, tt.in.Bearer, err, tt.err)
		}
	}
	if got, err := ArtifactAuth(nil); got != nil || err != nil {
		t.Errorf("none: got %+v, %v", got, err)
	}
}

func TestContextVersions(t *testing.T) {
	p := func(name, evr string) rpmmd.Package {
		e, err := rpmmd.ParseEVR(evr)
		if err != nil {
			t.Fatal(err)
		}
		return rpmmd.Package{Name: name, EVR: e, Arch: "noarch"}
	}
	got, err := contextVersions([]string{"k*", "z"}, []rpmmd.Package{p("k", "2:10-1"), p("k", "2:9-1"), p("k2", "2:10-1"), p("other", "1-1")})
	if err != nil || fmt.Sprint(got) != "map[k*:2:10-1]" {
		t.Errorf("got %v, %v", got, err)
	}
}

// TestResolveKonfluxSystem has this machine as the context.
func TestResolveKonfluxSystem(t *testing.T) {
	w := newWorld(t)
	mainRepo(w)
	root := writeFiles(t, t.TempDir(), map[string]string{"var/lib/rpm/Packages.db": string(rpmDB(pkg{name: "lib", evr: "2-1", arch: "x86_64"}))})
	in := "packages: [app]\ninstallWeakDeps: false\narches: [x86_64]\nnoSources: true\ncontext: {localSystem: true}\n" + konfluxRepos
	_, k, err := w.konflux(in, KonfluxOptions{System: root, SystemArch: "x86_64"})
	if err != nil || konfluxNames(k, "x86_64") != "app-1-1@main" {
		t.Errorf("got %s, %v", konfluxNames(k, "x86_64"), err)
	}
	if _, _, err := w.konflux(in, KonfluxOptions{System: t.TempDir(), SystemArch: "x86_64"}); err == nil || !strings.Contains(err.Error(), "no rpm database in") {
		t.Errorf("got %v", err)
	}
}

// TestResolveKonfluxModules: the modules file is named where, and only where,
// a package of a module was chosen from its repository.
func TestResolveKonfluxModules(t *testing.T) {
	w := newWorld(t)
	w.repo("main", "", pkg{name: "plain", evr: "1-1", arch: "x86_64"}, pkg{name: "tool", evr: "2-1", arch: "x86_64"}, pkg{name: "tool", evr: "1-1", arch: "x86_64"})
	const modules = `---
document: modulemd
version: 2
data:
  name: tools
  stream: "1"
  version: 1
  context: c0ffee00
  arch: x86_64
  summary: s
  description: d
  license: {module: [MIT]}
  artifacts: {rpms: ["tool-0:1-1.x86_64"]}
...
`
	dir := filepath.Join(strings.TrimPrefix(w.repos, "file://"), "main/repodata")
	md, err := os.ReadFile(filepath.Join(dir, "repomd.xml"))
	if err != nil {
		t.Fatal(err)
	}
	data := "<data type=\"modules\"><checksum type=\"sha256\">" + digest.Of([]byte(modules)).Hex() + "</checksum><location href=\"repodata/modules.yaml\"/></data></repomd>"
	writeFiles(t, dir, map[string]string{"modules.yaml": modules, "repomd.xml": strings.Replace(string(md), "</repomd>", data, 1)})
	const head = "arches: [x86_64]\nnoSources: true\ncontext: {bare: true}\n" + konfluxRepos
	_, k, err := w.konflux("packages: [tool, plain]\nmoduleEnable: ['tools:1']\n"+head, KonfluxOptions{})
	if err != nil || konfluxNames(k, "x86_64") != "plain-1-1@main tool-1-1@main" {
		t.Fatalf("got %s, %v", konfluxNames(k, "x86_64"), err)
	}
	want := []konflux.LockFile{{URL: w.repos + "main/repodata/modules.yaml", RepoID: "main", Size: int64(len(modules)), Checksum: digest.Of([]byte(modules)).String()}}
	if got := k.Arches[0].ModuleMetadata; !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	_, k, err = w.konflux("packages: [plain]\nmoduleEnable: [{name: 'tools:1', arches: {only: s390x}}]\n"+head, KonfluxOptions{})
	if err != nil || len(k.Arches[0].ModuleMetadata) != 0 {
		t.Errorf("got %+v, %v", k, err)
	}
	_, k, err = w.konflux("packages: [tool]\nmoduleEnable: [{name: 'tools:1', arches: {only: x86_64}}]\narches: [x86_64, aarch64]\nexcludePackages: []\n"+strings.Replace(head, "arches: [x86_64]\n", "", 1), KonfluxOptions{Arches: []string{"x86_64"}})
	if err != nil || konfluxNames(k, "x86_64") != "tool-1-1@main" {
		t.Errorf("got %s, %v", konfluxNames(k, "x86_64"), err)
	}
}

// TestManifestInputsFrom: a manifest may leave its inputs and packages to a
// prefetch-input, and its steps name them.
func TestManifestInputsFrom(t *testing.T) {
	w := newWorld(t)
	mainRepo(w)
	writeFiles(t, w.dir, map[string]string{
		"hermeto.json": `[{"type": "cargo", "path": "guest"}, {"type": "rpm", "path": "ci"}]`, "guest/Cargo.toml": "[package]\nname = \"guest\"\n",
		"guest/Cargo.lock": "version = 4\n\n[[package]]\nname = \"guest\"\nversion = \"0.1.0\"\n",
		"ci/rpms.in.yaml":  "packages: [gcc]\ncontentOrigin: {repos: [{repoid: main, baseurl: '" + w.repos + "main', gpgcheck: 0}]}\n",
	})
	const m = "version: 1\nname: podvm\ninputs: {from: hermeto.json}\nsteps: [{cargo: {input: guest, bin: guest, to: /bin/guest}}]\n"
	l := w.lock(m)
	if got := chosen(l, "x86_64", "root"); got != "gcc-1-1.noarch@main" {
		t.Errorf("got %s", got)
	}
	if len(l.Payloads) != 1 || l.Payloads[0].Name != "guest" || len(l.Sources) != 2 {
		t.Errorf("got %+v, %+v", l.Payloads, l.Sources)
	}
	w.fails(strings.Replace(m, "input: guest", "input: other", 1), `step 0: there is no Cargo payload "other"`)
}
