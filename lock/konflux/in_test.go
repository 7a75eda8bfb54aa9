package konflux

import (
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

func TestReadIn(t *testing.T) {
	in := `---
packages:
  - bash
  - &g {name: grub2-efi-x64, arches: {only: x86_64}}
  - {name: librtas, arches: {not: [x86_64, aarch64]}}
  - {name: dracut, arches: {}}
  - shim
  - "@core"
excludePackages: [shim]
arches: [x86_64, s390x]
installWeakDeps: false
noSources: true
allowerasing: true
zchunk: false
context: {containerfile: {file: Containerfile, stageNum: 1}}
contentOrigin:
  repofiles:
    - ubi.repo
    - location: more/*.repo
  repos:
    - {repoid: inline, baseurl: "https://example.org/inline", gpgcheck: false, priority: 5, name: x}
    - {repoid: listed, baseurl: [https://example.org/a, https://example.org/b], gpgkey: [keys/a, keys/b], module_hotfixes: false}
    - {repoid: off, enabled: 0}
`
	dir := folder(t, map[string]string{
		"ci/rpms.in.yaml": in, "ci/ubi.repo": repoFile, "ci/more/2.repo": "[two]\nbaseurl=https://example.org/2\ngpgkey=key\n", "ci/more/1.repo": "\n",
	})
	got, err := ReadIn(dir, "ci/rpms.in.yaml")
	if err != nil {
		t.Fatal(err)
	}
	yes, no, five, ten := true, false, 5, 10
	want := &In{
		Arches: []string{"x86_64", "s390x"}, Exclude: []string{"shim"}, WeakDeps: &no,
		Packages: []Package{
			{Name: "bash"}, {Name: "grub2-efi-x64", Only: []string{"x86_64"}}, {Name: "librtas", Not: []string{"x86_64", "aarch64"}},
			{Name: "dracut"}, {Name: "shim"}, {Name: "@core"},
		},
		Repos: []Repo{
			{ID: "inline", BaseURL: "https://example.org/inline", GPGCheck: &no, Priority: &five, At: "ci/rpms.in.yaml:21"},
			{ID: "listed", BaseURL: "https://example.org/a", GPGKey: []string{"ci/keys/a", "ci/keys/b"}, At: "ci/rpms.in.yaml:22"},
			{
				ID: "ubi-9-baseos-rpms", BaseURL: "https://cdn-ubi.redhat.com/content/public/ubi/dist/ubi9/$releasever/$basearch/baseos/os",
				GPGKey:   []string{"file:///etc/pki/rpm-gpg/RPM-GPG-KEY-redhat-release", "ci/keys/second", "https://example.org/third"},
				GPGCheck: &yes, At: "ci/ubi.repo:5",
			},
			{
				ID: "ubi-9-appstream-rpms", BaseURL: "https://example.org/appstream", GPGKey: []string{"file:///etc/pki/key"},
				GPGCheck: &no, RepoGPGCheck: &yes, Priority: &ten, At: "ci/ubi.repo:25",
			},
			{ID: "two", BaseURL: "https://example.org/2", GPGKey: []string{"ci/more/key"}, At: "ci/more/2.repo:1"},
		},
		Files: []File{
			{"ci/rpms.in.yaml", digest.Of([]byte(in))}, {"ci/ubi.repo", digest.Of([]byte(repoFile))},
			{"ci/more/1.repo", digest.Of([]byte("\n"))}, {"ci/more/2.repo", digest.Of([]byte("[two]\nbaseurl=https://example.org/2\ngpgkey=key\n"))},
		},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	for arch, want := range map[string][]string{
		"x86_64": {"bash", "grub2-efi-x64", "dracut", "@core"}, "s390x": {"bash", "librtas", "dracut", "@core"}, "aarch64": {"bash", "dracut", "@core"},
	} {
		if p := got.PackagesFor(arch); !reflect.DeepEqual(p, want) {
			t.Errorf("%s: got %v, want %v", arch, p, want)
		}
	}
}

func TestReadInErrors(t *testing.T) {
	repos := func(s string) string { return "contentOrigin:\n  repos:\n  - " + s + "\n" }
	later := "not supported yet, and without it another choice would be made"
	for _, tt := range []struct{ text, want string }{
		{"", "in:1: the file is empty"},
		{"packges: []\n", `in:1: unknown key "packges"; did you mean "packages"?`},
		{"packages: bash\n", `in:1: packages: want a list, got "bash"`},
		{"packages:\n- {arches: {only: x86_64}}\n", "in:2: packages[0]: a package without a name"},
		{"packages:\n- ' '\n", "in:2: packages[0]: a package without a name"},
		{"packages:\n- {name: a, arch: b}\n", `in:2: packages[0]: unknown key "arch"; known here: name, arches`},
		{"packages:\n- [a]\n", "in:2: packages[0]: want a name, or name and arches"},
		{"packages:\n- {name: a, arches: {only: b, not: c}}\n", "in:2: packages[0]: arches: want only or not, got both"},
		{"contentOrigin: {composes: [{id: 1}]}\n", "in:1: contentOrigin.composes: " + later},
		{"moduleDisable: [a]\nmoduleEnable: [b]\nvariables: [{inline: {}}]\nmatchContextVersions: [x]\nassumeProvides: [x]\nupgradePackages: [x]\nreinstallPackages: [x]\npackagesFromContainerfile: x\n",
			"in:8: packagesFromContainerfile: " + later + "\nin:7: reinstallPackages: " + later + "\nin:6: upgradePackages: " + later + "\nin:2: moduleEnable: " + later +
				"\nin:1: moduleDisable: " + later + "\nin:5: assumeProvides: " + later + "\nin:4: matchContextVersions: " + later + "\nin:3: variables: " + later},
		{repos("{baseurl: x}"), "in:3: contentOrigin.repos[0]: a repository without repoid"},
		{repos("{repoid: a}"), `in:3: contentOrigin.repos[0]: repository "a" has no baseurl; metalink and mirrorlist are not supported yet`},
		{repos("{repoid: a, baseurl: x, gpgcheck: perhaps}"), `in:3: contentOrigin.repos[0]: repository "a": gpgcheck: "perhaps" is neither yes nor no`},
		{repos("{repoid: a, baseurl: x, repo_gpgcheck: 2}"), `in:3: contentOrigin.repos[0]: repository "a": repo_gpgcheck: "2" is neither yes nor no`},
		{repos("{repoid: a, baseurl: x, priority: high}"), `in:3: contentOrigin.repos[0]: repository "a": priority: "high" is not a whole number`},
		{repos("{repoid: a, baseurl: x, excludepkgs: b, cost: 5}"), `in:3: contentOrigin.repos[0]: repository "a": option cost is ` + later},
		{repos("{repoid: a, baseurl: x, module_hotfixes: true}"), `in:3: contentOrigin.repos[0]: repository "a": option module_hotfixes is ` + later},
		{repos("{repoid: a, baseurl: {x: y}}"), `in:3: contentOrigin.repos[0]: option "baseurl": want a value, got keys with values`},
		{"contentOrigin:\n  repofiles: [none.repo]\n", "in:2: contentOrigin.repofiles[0]: open DIR/none.repo: no such file or directory"},
		{"contentOrigin:\n  repofiles: ['none*.repo']\n", `in:2: contentOrigin.repofiles[0]: no file is like "none*.repo"`},
		{"contentOrigin:\n  repofiles: ['https://x/y.repo']\n", `in:2: contentOrigin.repofiles[0]: got "https://x/y.repo"; want a path beside this file: other places are not supported yet`},
		{"contentOrigin:\n  repofiles: [{giturl: x}]\n", "in:2: contentOrigin.repofiles[0]: giturl is not supported yet"},
		{"contentOrigin:\n  repofiles: [bad.repo]\n", `in:2: contentOrigin.repofiles[0]: bad.repo:2: "what" is neither [section] nor KEY=VALUE`},
	} {
		dir := folder(t, map[string]string{"in": tt.text, "bad.repo": "[a]\nwhat\n"})
		for range 3 { // always the same
			_, err := ReadIn(dir, "in")
			if err == nil || strings.ReplaceAll(err.Error(), dir, "DIR") != tt.want {
				t.Errorf("%s\ngot  %v\nwant %s", tt.text, err, tt.want)
			}
		}
	}
	if _, err := ReadIn(t.TempDir(), "in"); err == nil || !strings.HasSuffix(err.Error(), "/in: no such file or directory") {
		t.Errorf("got %v", err)
	}
	dir := folder(t, map[string]string{"in": strings.Repeat("#", maxFile+1)})
	if _, err := ReadIn(dir, "in"); err == nil || err.Error() != "in: more than the 1048576 bytes that are read" {
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
		{"[a]\nmirrorlist=x\n[b]\n", `x.repo:1: repository "a" has no baseurl; metalink and mirrorlist are not supported yet`},
		{"[a]\nbaseurl=" + strings.Repeat("x", 70000) + "\n", "x.repo: bufio.Scanner: token too long"},
	} {
		r := &reader{}
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
		dir := folder(t, map[string]string{"rpms.in.yaml": string(b)})
		_, err = ReadIn(dir, "rpms.in.yaml")
		for _, want := range tt.errors {
			if err == nil || !strings.Contains(err.Error(), filepath.Join(dir, want)+": no such file or directory") {
				t.Errorf("%s: got %v, want %s in it", name, err, want)
			}
		}
		// With them, and without what is not supported yet.
		text := string(b)
		if i := strings.Index(text, "moduleEnable:"); i >= 0 {
			if !strings.Contains(err.Error(), "moduleEnable: not supported yet") {
				t.Errorf("%s: got %v", name, err)
			}
			j := i + strings.Index(text[i:], "\n- ") + 1
			if j <= i {
				j = i + strings.Index(text[i:], "\n  - ") + 1
			}
			end := strings.Index(text[j:], "\n")
			if end < 0 {
				end = len(text[j:])
			}
			text = text[:i] + text[j+end:]
		}
		files := map[string]string{"rpms.in.yaml": text}
		for i, f := range tt.errors {
			files[f] = strings.ReplaceAll("[N]\nbaseurl=https://example.org/N\ngpgkey=file:///etc/pki/key\n", "N", string(rune('a'+i)))
		}
		in, err := ReadIn(folder(t, files), "rpms.in.yaml")
		if err != nil {
			t.Errorf("%s: %v\n%s", name, err, text)
			continue
		}
		if len(in.Packages) != tt.packages || len(in.Repos) != len(tt.errors) {
			t.Errorf("%s: got %d packages, %d repositories", name, len(in.Packages), len(in.Repos))
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
		got, err := ReadIn(dir, "in")
		if err == nil && got != nil {
			got.PackagesFor("x86_64")
		}
		r := &reader{}
		if err := r.parseRepofile("ubi.repo", repo); err == nil {
			for _, repo := range r.in.Repos {
				if repo.ID == "" || repo.BaseURL == "" {
					t.Errorf("got %+v", repo)
				}
			}
		}
	})
}
