package konflux

import (
	"reflect"
	"strings"
	"testing"
)

func TestReadPrefetchInput(t *testing.T) {
	no := false
	one := func(p ...PrefetchPackage) *PrefetchInput { return &PrefetchInput{Packages: p} }
	for _, tt := range []struct {
		text string
		want *PrefetchInput
	}{
		{"gomod", one(PrefetchPackage{Type: "gomod", Path: "."})},
		{"{\"type\":\t\"cargo\", \"path\": \"./a/\"}", one(PrefetchPackage{Type: "cargo", Path: "a"})},
		{`[{"type": "gomod"}, {"type": "gomod", "path": "."}, {"type": "rpm", "path": "ci"}]`,
			one(PrefetchPackage{Type: "gomod", Path: "."}, PrefetchPackage{Type: "rpm", Path: "ci"})},
		{"packages:\n- type: generic\n  lockfile: more/a.lock.yaml\nflags: [cgo-disable]\n",
			&PrefetchInput{[]PrefetchPackage{{Type: "generic", Path: ".", Lockfile: "more/a.lock.yaml"}}, []string{"cgo-disable"}}},
		{`{"packages": [{"type": "rpm", "include_summary_in_sbom": true, "binary": {"arch": " x86_64, s390x,x86_64"},
		   "options": {"ssl": {"client_cert": "c", "client_key": "k", "ca_bundle": "b", "ssl_verify": false},
		   "dnf": {"baseos": {"gpgcheck": 0, "excludepkgs": ["a", "b"]}, "main": {}}}}]}`,
			one(PrefetchPackage{
				Type: "rpm", Path: ".", IncludeSummary: true, SSLClientCert: "c", SSLClientKey: "k", SSLCACert: "b", SSLVerify: &no,
				DNF: map[string]map[string]string{"baseos": {"gpgcheck": "0", "excludepkgs": "a b"}, "main": {}}, BinaryArch: "x86_64,s390x",
			})},
		{`{"type": "rpm", "binary": {"arch": ":all:"}}`, one(PrefetchPackage{Type: "rpm", Path: "."})},
		{`{"type": "rpm", "binary": {"arch": "x86_64, :all:"}}`, one(PrefetchPackage{Type: "rpm", Path: "."})},
	} {
		got, err := ReadPrefetchInput("in", []byte(tt.text))
		if err != nil || !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s\ngot  %+v, %v\nwant %+v", tt.text, got, err, tt.want)
		}
	}
}

func TestReadPrefetchInputErrors(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"", "in:1: the file is empty"},
		{"[]", "in: no packages; want at least one"},
		{"{packages: []}", "in: no packages; want at least one"},
		{"gem", `in:1: type "gem" is none of cargo, generic, gomod, rpm`},
		{"[\n{type: gomod},\n{type: npm}]", `in:3: [1]: type "npm" is Hermeto's and not fetched by Caisson, which does cargo, generic, gomod, rpm`},
		{"{type: gomod, pth: x}", `in:1: unknown key "pth"; did you mean "path"?`},
		{"{type: gomod, path: /x}", `in:1: path "/x": want a folder below the project's`},
		{"{packages: [{type: gomod, path: a/../../b}]}", `in:1: packages[0]: path "a/../../b": want a folder below the project's`},
		{"[{type: rpm}, {type: rpm, include_summary_in_sbom: true}]", `in:1: [1]: rpm in "." is there twice, with other options`},
		{"{type: gomod, options: {}}", "in:1: include_summary_in_sbom, options and binary belong to rpm, not to gomod"},
		{"{type: rpm, lockfile: x}", "in:1: lockfile belongs to generic, not to rpm"},
		{"{type: rpm, binary: {arch: ', '}}", "in:1: binary.arch: it names no arch"},
		{"{type: rpm, options: {ssl: {client_cert: x}}}", "in:1: options.ssl: client_cert and client_key belong together"},
		{"{type: rpm, options: {dnf: {a: {b: {c: d}}}}}", `in:1: options.dnf.a: option "b": want a value, got keys with values`},
		{"{packages: [{type: gomod}], flags: [fast]}", `in: flag "fast" is none of cgo-disable, dev-package-managers, force-gomod-tidy, gomod-vendor, gomod-vendor-check`},
	} {
		if _, err := ReadPrefetchInput("in", []byte(tt.text)); err == nil || err.Error() != tt.want {
			t.Errorf("%s\ngot  %v\nwant %s", tt.text, err, tt.want)
		}
	}
}

const artifacts = `---
metadata:
  version: "2.0"
artifacts:
  - download_url: https://example.org/dir/tool.tar.gz?x=1#y
    checksum: sha256:0123
  - download_url: https://example.org/other
    filename: sub/other.bin
    checksum: md5:4567
    auth:
      bearer: {value: Bearer $TOKEN}
  - type: maven
    attributes: {repository_url: https://repo.example.org/maven2, group_id: org.example.x, artifact_id: a, version: 1.0, type: test-jar, classifier: tests}
    checksum: sha256:89ab
    auth:
      basic: {username: u, password: $PW}
  - {type: maven, filename: x.jar, attributes: {repository_url: https://repo.example.org/, group_id: g, artifact_id: a, version: "2"}, checksum: "sha1:cd"}
`

func TestReadArtifacts(t *testing.T) {
	got, err := ReadArtifacts("artifacts.lock.yaml", []byte(artifacts))
	want := &Artifacts{Version: "2.0", Artifacts: []Artifact{
		{URL: "https://example.org/dir/tool.tar.gz?x=1#y", Checksum: "sha256:0123", Filename: "tool.tar.gz"},
		{
			URL: "https://example.org/other", Checksum: "md5:4567", Filename: "sub/other.bin",
			Auth: &ArtifactAuth{Bearer: &ArtifactBearer{Header: "Authorization", Value: "Bearer $TOKEN"}},
		},
		{
			URL:      "https://repo.example.org/maven2/org/example/x/a/1.0/a-1.0-tests.jar",
			Checksum: "sha256:89ab", Filename: "a-1.0-tests.jar", Auth: &ArtifactAuth{Basic: &ArtifactBasic{"u", "$PW"}},
			Maven: &MavenAttributes{"https://repo.example.org/maven2", "org.example.x", "a", "1.0", "tests", "test-jar"},
		},
		{
			URL: "https://repo.example.org/g/a/2/a-2.jar", Checksum: "sha1:cd", Filename: "x.jar",
			Maven: &MavenAttributes{"https://repo.example.org/", "g", "a", "2", "", "jar"},
		},
	}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v, %v\nwant %+v", got, err, want)
	}
}

func TestReadArtifactsErrors(t *testing.T) {
	file := func(s string) string { return "metadata: {version: '1.0'}\nartifacts:\n- {" + s + "}\n" }
	for _, tt := range []struct{ text, want string }{
		{"artifacts: []\n", `in:1: metadata.version: got ""; want "1.0" or "2.0"`},
		{"metadata: {version: '3.0'}\n", `in:1: metadata.version: got "3.0"; want "1.0" or "2.0"`},
		{file("download_url: https://x/y, checksum: abc"), `in:3: artifacts[0]: checksum "abc": want algorithm:hash`},
		{file("download_url: x/y, checksum: 'a:b'"), `in:3: artifacts[0]: download_url "x/y": want an address such as https://host/file`},
		{file("download_url: https://x, checksum: 'a:b'"), `in:3: artifacts[0]: filename ".": want a path below the folder of the files`},
		{file("download_url: https://x/y, filename: ../z, checksum: 'a:b'"), `in:3: artifacts[0]: filename "../z": want a path below the folder of the files`},
		{file("download_url: https://x/y, checksum: 'a:b', auth: {bearer: {value: x}}"), "in:3: artifacts[0]: auth: version 1.0 of the file has none; say version 2.0"},
		{file("download_url: https://x/y, checksum: 'a:b', auth: {}"), "in:3: artifacts[0]: auth: want exactly one of bearer and basic"},
		{file("download_url: https://x/y, checksum: 'a:b'}\n- {download_url: https://x/y, checksum: 'a:b', filename: z"), `in:4: artifacts[1]: "https://x/y" is there twice`},
		{file("download_url: https://x/y, checksum: 'a:b'}\n- {download_url: https://z/y, checksum: 'a:b'"), `in:4: artifacts[1]: two files would be called "y"`},
		{file("type: npm, checksum: 'a:b'"), `in:3: artifacts[0]: type "npm": want maven with attributes and no download_url, or neither`},
		{file("type: maven, checksum: 'a:b', attributes: {repository_url: https://x, group_id: g, version: v}"), "in:3: artifacts[0]: attributes: no artifact_id"},
	} {
		if _, err := ReadArtifacts("in", []byte(tt.text)); err == nil || err.Error() != tt.want {
			t.Errorf("%s\ngot  %v\nwant %s", tt.text, err, tt.want)
		}
	}
}

func FuzzReadArtifacts(f *testing.F) {
	f.Add([]byte(artifacts))
	f.Add([]byte(`{"packages": [{"type": "rpm", "options": {"dnf": {"a": {"b": 1}}}}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if got, err := ReadArtifacts("in", b); err == nil {
			for _, a := range got.Artifacts {
				if !isURL(a.URL) || a.Filename == "" || strings.HasPrefix(a.Filename, "..") {
					t.Errorf("got %+v", a)
				}
			}
		}
		if got, err := ReadPrefetchInput("in", b); err == nil && len(got.Packages) == 0 {
			t.Error("no packages and no error")
		}
	})
}
