package konflux

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"caisson/lock/digest"
)

// folder writes files into a new folder.
func folder(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, s := range files {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(s), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const repoFile = `# made by subscription-manager
[main]
gpgcheck = 0

[ubi-9-baseos-rpms]
name = Red Hat Universal Base Image 9 (RPMs) - BaseOS
baseurl = https://cdn-ubi.redhat.com/content/public/ubi/dist/ubi9/$releasever/$basearch/baseos/os
	https://mirror.example/baseos
enabled = 1
gpgkey = file:///etc/pki/rpm-gpg/RPM-GPG-KEY-redhat-release,
  keys/second
  # a remark

  https://example.org/third
gpgcheck = 1
sslverify = 1
sslclientcert = /etc/pki/entitlement/1.pem

[ubi-9-debug]
enabled = 0
metalink = https://example.org/metalink
; the same
[ubi-9-source]
enabled=No
[ubi-9-appstream-rpms]
baseurl=https://example.org/appstream
gpgcheck=False
repo_gpgcheck=on
priority=10
cost=1000
module_hotfixes=0
gpgkey=/etc/pki/key
`

// fakeNet answers for the network.
func fakeNet() Network {
	return Network{
		URL: func(u string) ([]byte, error) {
			if u == "https://example.org/9.repo" {
				return []byte("[fetched]\nbaseurl=https://example.org/f\ngpgkey=key\n"), nil
			}
			return nil, fmt.Errorf("%s: %w", u, fs.ErrNotExist)
		},
		Git: func(u, ref, file string) ([]byte, error) {
			return []byte(fmt.Sprintf("[git]\nbaseurl=https://example.org/%s\n", ref)), nil
		},
		Labels: func(image string) (map[string]string, digest.Digest, error) {
			if image == "broken" {
				return nil, digest.Digest{}, errors.New("no such image")
			}
			return map[string]string{"compose-id": "C-" + image, "v": "9"}, digest.Of([]byte(image)), nil
		},
	}
}

func TestReadIn(t *testing.T) {
	in := `---
packages:
  - bash
  - &g {name: grub2-efi-x64, arches: {only: x86_64}}
  - {name: librtas, arches: {not: [x86_64, aarch64]}}
  - {name: dracut, arches: {}}
  - shim
  - "@core"
  - "kernel-{kv}"
  - "rich (a if b){unknown}"
excludePackages: [shim]
reinstallPackages: [r, *g]
upgradePackages: [u, shim]
moduleEnable: ["nodejs:{mod}", {name: "ruby:3", arches: {only: s390x}}]
moduleDisable: [perl]
assumeProvides: ["cap-{mod}"]
matchContextVersions: ["kernel-*"]
arches: [x86_64, s390x]
installWeakDeps: false
noSources: true
allowerasing: true
zchunk: false
variables:
  - file: versions.conf
  - inline: {mod: "18", over: one}
  - image: "img-{mod}"
  - containerfile: {file: Containerfile, stageNum: 1}
  - inline: {over: two}
context: {image: "example.org/base:{over}", flatpak: true}
packagesFromContainerfile: Containerfile
contentOrigin:
  repofiles:
    - ubi.repo
    - location: more/*.repo
    - https://example.org/9.repo
    - {giturl: "https://$USER:$TOKEN@example.org/x.git", gitref: "{v}", file: a.repo}
  repos:
    - {repoid: inline, baseurl: "https://example.org/{compose-id}/${arch}/", varsFromImage: other, gpgcheck: false, priority: 5, name: x}
    - {repoid: "for-$basearch", baseurl: "https://example.org/a  https://example.org/b", gpgkey: [keys/a, keys/b], module_hotfixes: true, cost: 5,
       excludepkgs: "a b*", exclude: c, includepkgs: [d], sslclientcert: $SSL_CLIENT_CERT, sslclientkey: certs/k, sslcacert: /ca, username: u, password: $PW, proxy: _none_}
    - {repoid: link, metalink: "https://example.org/m"}
    - {repoid: list, mirrorlist: "https://example.org/l", timeout: 5, sslverify: false}
    - {repoid: off, enabled: 0}
`
	files := map[string]string{
		"ci/rpms.in.yaml": in, "ci/ubi.repo": repoFile, "ci/more/2.repo": "[two]\nBaseURL=https://example.org/2\ngpgkey=key\n", "ci/more/1.repo": "\n",
		"ci/versions.conf": "# remark\nkv = '5.14'\nnothing\nover=zero\n", "ci/Containerfile": "FROM first\nFROM base\nRUN dnf install from-containerfile bash && dnf upgrade cu\n",
		"ci/container.yaml": "flatpak:\n  id: x\n  packages:\n  - fp\n  - {name: only, platforms: {only: s390x}}\n",
	}
	got, err := ReadIn(folder(t, files), "ci/rpms.in.yaml", fakeNet())
	if err != nil {
		t.Fatal(err)
	}
	yes, no, five, ten, thousand := true, false, 5, 10, 1000
	one := func(s ...string) []Package {
		var out []Package
		for _, n := range s {
			out = append(out, Package{Name: n})
		}
		return out
	}
	grub := Package{Name: "grub2-efi-x64", Only: []string{"x86_64"}}
	file := func(name string) File { return File{name, digest.Of([]byte(files[name]))} }
	fetched, err := fakeNet().URL("https://example.org/9.repo")
	if err != nil {
		t.Fatal(err)
	}
	want := &In{
		Arches: []string{"x86_64", "s390x"}, Exclude: []string{"shim"}, WeakDeps: &no, NoSources: true, AllowErasing: true,
		AssumeProvides: []string{"cap-18"}, MatchVersions: []string{"kernel-*"},
		Packages: []Package{
			{Name: "bash"}, grub, {Name: "librtas", Not: []string{"x86_64", "aarch64"}},
			{Name: "dracut"}, {Name: "shim"}, {Name: "@core"}, {Name: "kernel-5.14"}, {Name: "rich (a if b){unknown}"},
		},
		Reinstall: append(one("r"), grub), Upgrade: one("u", "shim"), ModuleEnable: append(one("nodejs:18"), Package{Name: "ruby:3", Only: []string{"s390x"}}), ModuleDisable: one("perl"),
		Context: Context{Image: "example.org/base:two", Flatpak: true}, FromContainerfile: &ContainerfileRef{File: "Containerfile"},
		Repos: []Repo{
			{ID: "inline", BaseURL: []string{"https://example.org/C-other/${arch}/"}, GPGCheck: &no, Priority: &five, At: "ci/rpms.in.yaml:38"},
			{
				ID: "for-$basearch", BaseURL: []string{"https://example.org/a", "https://example.org/b"}, GPGKey: []string{"ci/keys/a", "ci/keys/b"}, ModuleHotfixes: true, Cost: &five,
				Exclude: []string{"a", "b*", "c"}, Include: []string{"d"}, SSLClientCert: "$SSL_CLIENT_CERT", SSLClientKey: "ci/certs/k", SSLCACert: "/ca",
				Username: "u", Password: "$PW", Proxy: "_none_", At: "ci/rpms.in.yaml:39",
			},
			{ID: "link", Metalink: "https://example.org/m", At: "ci/rpms.in.yaml:41"},
			{ID: "list", Mirrorlist: "https://example.org/l", At: "ci/rpms.in.yaml:42"},
			{
				ID:       "ubi-9-baseos-rpms",
				BaseURL:  []string{"https://cdn-ubi.redhat.com/content/public/ubi/dist/ubi9/$releasever/$basearch/baseos/os", "https://mirror.example/baseos"},
				GPGKey:   []string{"file:///etc/pki/rpm-gpg/RPM-GPG-KEY-redhat-release", "ci/keys/second", "https://example.org/third"},
				GPGCheck: &yes, SSLClientCert: "/etc/pki/entitlement/1.pem", At: "ci/ubi.repo:5",
			},
			{
				ID: "ubi-9-appstream-rpms", BaseURL: []string{"https://example.org/appstream"}, GPGKey: []string{"file:///etc/pki/key"},
				GPGCheck: &no, RepoGPGCheck: &yes, Priority: &ten, Cost: &thousand, At: "ci/ubi.repo:25",
			},
			{ID: "two", BaseURL: []string{"https://example.org/2"}, GPGKey: []string{"ci/more/key"}, At: "ci/more/2.repo:1"},
			{ID: "fetched", BaseURL: []string{"https://example.org/f"}, GPGKey: []string{"https://example.org/key"}, At: "https://example.org/9.repo:1"},
			{ID: "git", BaseURL: []string{"https://example.org/9"}, At: "https://$USER:$TOKEN@example.org/x.git/a.repo:1"},
		},
		Files: []File{
			file("ci/rpms.in.yaml"), file("ci/versions.conf"), {"image:img-18", digest.Of([]byte("img-18"))}, file("ci/Containerfile"), {"image:first", digest.Of([]byte("first"))},
			{"image:other", digest.Of([]byte("other"))}, file("ci/ubi.repo"), file("ci/more/1.repo"), file("ci/more/2.repo"), {"https://example.org/9.repo", digest.Of(fetched)},
			{"https://$USER:$TOKEN@example.org/x.git/a.repo@9", digest.Of([]byte("[git]\nbaseurl=https://example.org/9\n"))},
		},
	}
	got.r, got.base = nil, ""
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	got, err = ReadIn(folder(t, files), "ci/rpms.in.yaml", fakeNet())
	if err != nil {
		t.Fatal(err)
	}
	for arch, want := range map[string]ArchRequests{
		"x86_64": {Requests: Requests{
			Install:   []string{"@core", "bash", "dracut", "fp", "from-containerfile", "grub2-efi-x64", "kernel-5.14", "rich (a if b){unknown}"},
			Reinstall: []string{"grub2-efi-x64", "r"}, Upgrade: []string{"cu", "u"}, ModuleEnable: []string{"nodejs:18"}, ModuleDisable: []string{"perl"}, AllowErasing: true,
		}},
		"s390x": {Requests: Requests{
			Install:   []string{"@core", "bash", "dracut", "fp", "from-containerfile", "kernel-5.14", "librtas", "only", "rich (a if b){unknown}"},
			Reinstall: []string{"r"}, Upgrade: []string{"cu", "u"}, ModuleEnable: []string{"nodejs:18", "ruby:3"}, ModuleDisable: []string{"perl"}, AllowErasing: true,
		}},
	} {
		if r, err := got.Requests(arch); err != nil || !reflect.DeepEqual(*r, want) {
			t.Errorf("%s: got  %+v, %v\nwant %+v", arch, r, err, want)
		}
	}
}

func TestContext(t *testing.T) {
	files := map[string]string{"Dockerfile": "FROM default\n", "sub/C": "FROM one AS a\nFROM two\nFROM a\n", "s": "FROM scratch\n", "args": "T=9\n", "a": "ARG T\nFROM x:$T\n"}
	for _, tt := range []struct{ text, want, err string }{
		{"{}", "default", ""},
		{"{context: {bare: true}}", "", ""},
		{"{context: {localSystem: true}}", "", ""},
		{"{context: {image: x}}", "x", ""},
		{"{context: {containerfile: sub/C}}", "one", ""},
		{"{context: {containerfile: {file: sub/C, stageNum: 2}}}", "two", ""},
		{"{context: {containerfile: s}}", "", ""},
		{"{context: {containerfile: {file: a, argFile: args}}}", "x:9", ""},
		{"{context: {containerfile: a}}", "", `context: a:2: FROM: "x:$T": variable T has no value; give it one in an argFile`},
	} {
		files["in"] = tt.text
		in, err := ReadIn(folder(t, files), "in", Network{})
		if err != nil {
			t.Error(err)
			continue
		}
		got, err := in.BaseImage()
		if got != tt.want || (err == nil) != (tt.err == "") || err != nil && err.Error() != tt.err {
			t.Errorf("%s: got %q, %v", tt.text, got, err)
		}
	}
	in, err := ReadIn(folder(t, map[string]string{"in": "{}"}), "in", Network{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := in.BaseImage(); err == nil || !strings.HasPrefix(err.Error(), "context: the file does not say what is installed already") {
		t.Errorf("got %v", err)
	}
	// The deprecated way: a Containerfile as context, and no packages.
	in, err = ReadIn(folder(t, map[string]string{"in": "{context: {containerfile: C}}", "C": "FROM x\nRUN dnf install a\n"}), "in", Network{})
	if err != nil {
		t.Fatal(err)
	}
	if r, err := in.Requests("x86_64"); err != nil || !reflect.DeepEqual(r.Install, []string{"a"}) {
		t.Errorf("got %+v, %v", r, err)
	}
}

func TestTreefile(t *testing.T) {
	files := map[string]string{
		"in": "context: {rpmOstreeTreefile: tree/main.yaml}\npackages: [more]\ncontentOrigin: {repos: [{repoid: base, baseurl: b}, {repoid: unused, baseurl: u}, {repoid: app, baseurl: a}]}\n",
		"tree/main.yaml": `releasever: 9
repos: [base]
variables: {edition: server}
include: [common.yaml]
arch-include: {s390x: z.yaml}
conditional-include:
  - {if: basearch != "s390x", include: not-z.yaml}
  - {if: ["releasever >= 9", edition == "server"], include: [new.yaml]}
  - {if: releasever < 9, include: old.yaml}
packages: ["a b", c]
packages-x86_64: [x]
packages-aarch64: [arm]
repo-packages: [{repo: app, packages: [from-app]}]
exclude-packages: [python2]
modules: {enable: ["nodejs:18"], install: ["ruby:3"]}
automatic-version-prefix: 1
recommends: false
`,
		"tree/common.yaml": "packages: [common]\nrecommends: true\nrelease: x\n", "tree/z.yaml": "packages: [z]\nexclude-packages: [zz]\n",
		"tree/not-z.yaml": "packages: [not-z]\n", "tree/new.yaml": "{\"packages\": [\"new\"]}", "tree/old.yaml": "packages: [old]\n",
	}
	in, err := ReadIn(folder(t, files), "in", Network{})
	if err != nil {
		t.Fatal(err)
	}
	if len(in.Repos) != 2 || in.Repos[0].ID != "base" || in.Repos[1].ID != "app" || in.ReleaseVer != "9" || in.WeakDeps == nil || *in.WeakDeps || len(in.Files) != 7 {
		t.Errorf("got %+v", in)
	}
	for arch, want := range map[string]ArchRequests{
		"x86_64": {Requests{Install: []string{"@ruby:3", "a", "b", "c", "common", "from-app", "more", "new", "not-z", "x"}, ModuleEnable: []string{"nodejs:18"}}, []string{"python2"}},
		"s390x":  {Requests{Install: []string{"@ruby:3", "a", "b", "c", "common", "from-app", "more", "new", "z"}, ModuleEnable: []string{"nodejs:18"}}, []string{"python2", "zz"}},
	} {
		if r, err := in.Requests(arch); err != nil || !reflect.DeepEqual(*r, want) {
			t.Errorf("%s: got %+v, %v", arch, r, err)
		}
	}
	for _, tt := range []struct{ tree, want string }{
		{"include: main.yaml", "in:1: context.rpmOstreeTreefile: tree/main.yaml: more than 200 treefiles, or one that includes itself"},
		{"repos: [none]", `tree/main.yaml: it uses the repository "none", which contentOrigin does not have`},
		{"conditional-include: [{if: edition == 1, include: x}]", `in:1: context.rpmOstreeTreefile: tree/main.yaml: conditional-include: "edition == 1": there is no variable edition`},
		{"conditional-include: [{if: basearch < 1, include: x}]", `in:1: context.rpmOstreeTreefile: tree/main.yaml: conditional-include: "basearch < 1": want whole numbers, got "x86_64" and "1"`},
		{"conditional-include: [{if: what, include: x}]", `in:1: context.rpmOstreeTreefile: tree/main.yaml: conditional-include: "what": want VARIABLE OPERATOR VALUE`},
	} {
		files["tree/main.yaml"] = tt.tree
		if _, err := ReadIn(folder(t, files), "in", Network{}); err == nil || err.Error() != tt.want {
			t.Errorf("got  %v\nwant %s", err, tt.want)
		}
	}
}

func TestReadInErrors(t *testing.T) {
	repos := func(s string) string { return "contentOrigin:\n  repos:\n  - " + s + "\n" }
	for _, tt := range []struct{ text, want string }{
		{"", "in:1: the file is empty"},
		{"packges: []\n", `in:1: unknown key "packges"; did you mean "packages"?`},
		{"packages: bash\n", `in:1: packages: want a list, got "bash"`},
		{"packages:\n- {arches: {only: x86_64}}\n", "in:2: packages[0]: a package without a name"},
		{"packages:\n- ' '\n", "in:2: packages[0]: a package without a name"},
		{"packages:\n- {name: a, arch: b}\n", `in:2: packages[0]: unknown key "arch"; did you mean "arches"?`},
		{"packages:\n- [a]\n", "in:2: packages[0]: want a name, or name and arches"},
		{"packages:\n- {name: a, arches: {only: b, not: c}}\n", "in:2: packages[0]: arches: want only or not, got both"},
		{"excludePackages: ['']\n", "in:1: excludePackages[0]: an empty one"},
		{"matchContextVersions: ['[']\n", `in:1: matchContextVersions[0]: "[" is no glob`},
		{"contentOrigin: {composes: [{id: 1}]}\n", "in:1: contentOrigin.composes: a compose is looked up at a server of Red Hat's own (CTS); name its repositories under contentOrigin.repos"},
		{"context: {image: x, bare: true}\n", "in:1: context: want one of image, bare"},
		{"context: {localSystem: true, flatpak: true}\n", "in:1: context: flatpak does not go with localSystem"},
		{"context: {containerfile: {stageNum: 1}}\n", `in:1: context.containerfile: got ""; want the path of a Containerfile, relative to this file`},
		{"context: {containerfile: {file: a, stage: 1}}\n", `in:1: context.containerfile: unknown key "stage"; known here: file, stageNum, stageName, imagePattern, argFile`},
		{"packagesFromContainerfile: /x\n", `in:1: packagesFromContainerfile: got "/x"; want the path of a Containerfile, relative to this file`},
		{"variables: [{file: a, image: b}]\n", "in:1: variables[0]: want one of file, containerfile, image, inline"},
		{"variables: [{file: none}]\n", "in:1: variables[0]: open DIR/none: no such file or directory"},
		{"variables: [{image: broken}]\n", "in:1: variables[0]: labels of broken: no such image"},
		{repos("{baseurl: x}"), "in:3: contentOrigin.repos[0]: a repository without repoid"},
		{repos("{repoid: a}"), `in:3: contentOrigin.repos[0]: repository "a" has no baseurl, metalink or mirrorlist`},
		{repos("{repoid: a, baseurl: 'x/{nolabel}'}"), `in:3: contentOrigin.repos[0]: "x/{nolabel}": there is no variable or label nolabel`},
		{repos("{repoid: a, baseurl: x, gpgcheck: perhaps}"), `in:3: contentOrigin.repos[0]: repository "a": gpgcheck: "perhaps" is neither yes nor no`},
		{repos("{repoid: a, baseurl: x, repo_gpgcheck: 2}"), `in:3: contentOrigin.repos[0]: repository "a": repo_gpgcheck: "2" is neither yes nor no`},
		{repos("{repoid: a, baseurl: x, priority: high}"), `in:3: contentOrigin.repos[0]: repository "a": priority: "high" is not a whole number`},
		{repos("{repoid: a, baseurl: x, excludepkg: b}"), `in:3: contentOrigin.repos[0]: repository "a": unknown option "excludepkg"; did you mean "excludepkgs"?`},
		{repos("{repoid: a, baseurl: x, gadgets: b}"), `in:3: contentOrigin.repos[0]: repository "a": unknown option "gadgets"; without it another choice might be made`},
		{repos("{repoid: a, baseurl: x, enablegroups: 0}"), `in:3: contentOrigin.repos[0]: repository "a": option enablegroups cannot be switched off`},
		{repos("{repoid: a, baseurl: x, username: u, password: hush}"), `in:3: contentOrigin.repos[0]: repository "a": password: a password does not belong into a file; say "$NAME", an environment variable`},
		{repos("{repoid: a, baseurl: x, proxy_password: hush}"), `in:3: contentOrigin.repos[0]: repository "a": option proxy_password: put the login into proxy as a variable, $NAME, or leave it to the environment`},
		{repos("{repoid: a, baseurl: {x: y}}"), `in:3: contentOrigin.repos[0]: option "baseurl": want a value, got keys with values`},
		{"contentOrigin:\n  repofiles: [none.repo]\n", "in:2: contentOrigin.repofiles[0]: open DIR/none.repo: no such file or directory"},
		{"contentOrigin:\n  repofiles: ['none*.repo']\n", `in:2: contentOrigin.repofiles[0]: no file is like "none*.repo"`},
		{"contentOrigin:\n  repofiles: [/etc/x.repo]\n", `in:2: contentOrigin.repofiles[0]: got "/etc/x.repo"; want a path beside this file, or an address of the web: an absolute path is another file on every machine`},
		{"contentOrigin:\n  repofiles: ['https://x/y.repo']\n", `in:2: contentOrigin.repofiles[0]: https://x/y.repo: file does not exist`},
		{"contentOrigin:\n  repofiles: [{giturl: x}]\n", "in:2: contentOrigin.repofiles[0]: want location, or giturl, gitref and file"},
		{"contentOrigin:\n  repofiles: [{loc: x}]\n", `in:2: contentOrigin.repofiles[0]: unknown key "loc", or no text; known here: location, giturl, gitref, file, varsFromImage, varsFromContainerfile`},
		{"contentOrigin:\n  repofiles: [bad.repo]\n", `in:2: contentOrigin.repofiles[0]: bad.repo:2: "what" is neither [section] nor KEY=VALUE`},
	} {
		dir := folder(t, map[string]string{"in": tt.text, "bad.repo": "[a]\nwhat\n"})
		for range 3 { // always the same
			_, err := ReadIn(dir, "in", fakeNet())
			if err == nil || strings.ReplaceAll(err.Error(), dir, "DIR") != tt.want {
				t.Errorf("%s\ngot  %v\nwant %s", tt.text, err, tt.want)
			}
		}
	}
	for _, text := range []string{
		"variables: [{image: x}]\n", "contentOrigin: {repofiles: ['https://x/y']}\n", "contentOrigin: {repofiles: [{giturl: x, gitref: y, file: z}]}\n",
	} {
		if _, err := ReadIn(folder(t, map[string]string{"in": text}), "in", Network{}); !errors.Is(err, errNoNetwork) {
			t.Errorf("%s: got %v", text, err)
		}
	}
	if _, err := ReadIn(t.TempDir(), "in", Network{}); err == nil || !strings.HasSuffix(err.Error(), "/in: no such file or directory") {
		t.Errorf("got %v", err)
	}
	dir := folder(t, map[string]string{"in": strings.Repeat("#", maxFile+1)})
	if _, err := ReadIn(dir, "in", Network{}); err == nil || err.Error() != "in: more than the 1048576 bytes that are read" {
		t.Errorf("got %v", err)
	}
}

func TestParseRepofileErrors(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"a=b\n", `x.repo:1: "a=b" before the first [section]`},
		{"\n[a\n", `x.repo:2: "[a" is not a [section]`},
		{"[]\n", `x.repo:1: "[]" is not a [section]`},
		{"[a]\nbaseurl=x\n=y\n", `x.repo:3: "=y" is neither [section] nor KEY=VALUE`},
		{"[a]\nenabled=maybe\n", `x.repo:1: enabled: "maybe" is neither yes nor no`},
		{"[a]\nname=x\n[b]\n", `x.repo:1: repository "a" has no baseurl, metalink or mirrorlist`},
		{"[a]\nbaseurl=" + strings.Repeat("x", 70000) + "\n", "x.repo: bufio.Scanner: token too long"},
	} {
		r := &reader{in: &In{}}
		if err := r.parseRepofile("x.repo", []byte(tt.text)); err == nil || err.Error() != tt.want {
			t.Errorf("%.60q\ngot  %v\nwant %s", tt.text, err, tt.want)
		}
	}
}

const real = "../../../shared/data/konflux"

// TestReal reads files that are in use. Their .repo files are not public.
func TestReal(t *testing.T) {
	if _, err := os.Stat(real); err != nil {
		t.Skip(err)
	}
	for name, tt := range map[string]struct {
		packages int
		errors   []string
	}{
		"RedHatInsights+vmaas":           {19, []string{".hermetic_builds/redhat.repo"}},
		"confidential-devhub+coco-tools": {16, []string{"ubi.repo", "redhat.repo"}},
		"conforma+cli":                   {3, []string{"ubi.repo"}},
	} {
		b, err := os.ReadFile(filepath.Join(real, name+".rpms.in.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		files := map[string]string{"rpms.in.yaml": string(b)}
		dir := folder(t, files)
		_, err = ReadIn(dir, "rpms.in.yaml", Network{})
		for _, want := range tt.errors {
			if err == nil || !strings.Contains(err.Error(), filepath.Join(dir, want)+": no such file or directory") {
				t.Errorf("%s: got %v, want %s in it", name, err, want)
			}
		}
		for i, f := range tt.errors {
			files[f] = strings.ReplaceAll("[N]\nbaseurl=https://example.org/N\ngpgkey=file:///etc/pki/key\n", "N", string(rune('a'+i)))
		}
		in, err := ReadIn(folder(t, files), "rpms.in.yaml", Network{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		req, err := in.Requests("x86_64")
		if err != nil || len(req.Install) != tt.packages || len(in.Repos) != len(tt.errors) {
			t.Errorf("%s: got %+v, %v, %d repositories", name, req, err, len(in.Repos))
		}
	}
}

func FuzzReadIn(f *testing.F) {
	f.Add([]byte("packages: [a, {name: b, arches: {only: x}}]\ncontentOrigin: {repofiles: [x.repo]}\n"), []byte(repoFile))
	if all, err := filepath.Glob(filepath.Join(real, "*.in.yaml")); err == nil {
		for _, name := range all {
			b, err := os.ReadFile(name)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(b, []byte("[a]\nbaseurl=b\n"))
		}
	}
	f.Fuzz(func(t *testing.T, in, repo []byte) {
		dir := folder(t, map[string]string{"in": string(in), "ubi.repo": string(repo)})
		got, err := ReadIn(dir, "in", fakeNet())
		if err == nil && got != nil {
			if _, err := got.Requests("x86_64"); err == nil {
				_, _ = got.BaseImage()
			}
		}
		r := &reader{in: &In{}}
		if err := r.parseRepofile("ubi.repo", repo); err == nil {
			for _, repo := range r.in.Repos {
				if repo.ID == "" || len(repo.BaseURL) == 0 && repo.Metalink == "" && repo.Mirrorlist == "" {
					t.Errorf("got %+v", repo)
				}
			}
		}
	})
}
