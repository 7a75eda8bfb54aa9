package lock

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"caisson/lock/digest"
)

func TestResolveErrors(t *testing.T) {
	const root = "sets: {root: {packages: [data]}}\n"
	data := pkg{name: "data", evr: "1-1", arch: "noarch"}
	base := func(w *world) string {
		return filepath.Join(strings.TrimPrefix(w.repos, "file://"), "base", "repodata")
	}
	edit := func(w *world, name, old, text string) {
		at := filepath.Join(base(w), name)
		b, err := os.ReadFile(at)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, bytes.Replace(b, []byte(old), []byte(text), 1), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	signed := strings.Replace(oneRepo, "gpgkey", "repo_gpgcheck: true, gpgkey", 1)
	for name, tt := range map[string]struct {
		change   func(w *world)
		manifest string
		want     string
	}{
		"no such package":    {nil, oneRepo + "sets: {root: {packages: [none]}}\n", "set root (x86_64): no solution: nothing matches \"none\""},
		"no repository":      {nil, strings.Replace(oneRepo, "/base", "/none", 1) + root, `repository "base" (x86_64): REPOS/none/repodata/repomd.xml: file does not exist`},
		"no key file":        {nil, strings.Replace(oneRepo, "[KEY]", "[none/KEY]", 1) + root, `repository "base" (x86_64): gpgkey: open DIR/none/KEY: no such file or directory`},
		"no key at address":  {nil, strings.Replace(oneRepo, "[KEY]", "['https://x.example/KEY']", 1) + root, `repository "base" (x86_64): gpgkey: https://x.example/KEY: file does not exist`},
		"no key in file":     {func(w *world) { writeFiles(t, w.dir, map[string]string{"KEY": "what"}) }, oneRepo + root, `repository "base" (x86_64): gpgkey: KEY: no OpenPGP key`},
		"empty key":          {func(w *world) { writeFiles(t, w.dir, map[string]string{"KEY": "key"}) }, oneRepo + root, `repository "base" (x86_64): gpgkey: KEY: it has no key`},
		"large key":          {func(w *world) { writeFiles(t, w.dir, map[string]string{"KEY": strings.Repeat("k", maxKey+1)}) }, oneRepo + root, `repository "base" (x86_64): gpgkey: KEY: more than the 1048576 bytes that a key file may have`},
		"signature":          {nil, signed + root, ""},
		"no signature":       {func(w *world) { os.Remove(filepath.Join(base(w), "repomd.xml.asc")) }, signed + root, `repository "base" (x86_64): repo_gpgcheck is on and REPOS/base/repodata/repomd.xml.asc does not exist`},
		"bad signature":      {func(w *world) { edit(w, "repomd.xml", "<repomd", "<repomd ") }, signed + root, `repository "base" (x86_64): REPOS/base/repodata/repomd.xml.asc: not signed by a trusted key`},
		"other key":          {nil, strings.Replace(signed, "[KEY]", "[KEY2]", 1) + root, `repository "base" (x86_64): REPOS/base/repodata/repomd.xml.asc: not signed by a trusted key`},
		"another primary":    {func(w *world) { edit(w, "primary.xml", "data", "DATA") }, oneRepo + root, "another"},
		"sha1 primary":       {func(w *world) { edit(w, "repomd.xml", `type="sha256">`+strings.Repeat("x", 0), `type="sha">`) }, oneRepo + root, "digits"},
		"primary by sha512":  {func(w *world) { sha512Repomd(t, filepath.Join(base(w), "repomd.xml")) }, oneRepo + root, "sha512"},
		"no primary":         {func(w *world) { edit(w, "repomd.xml", `"primary"`, `"other"`) }, oneRepo + root, `repository "base" (x86_64): repomd.xml names no primary`},
		"sha1 package":       {func(w *world) { p := data; p.algorithm = "sha"; w.repo("base", "", p) }, oneRepo + root, `set root (x86_64): data-1-1.noarch in repository "base": it is pinned by sha; want sha256`},
		"no value":           {nil, strings.Replace(oneRepo, "/base", "/$releasever", 1) + root, `repository "base" (x86_64): REPOS/$releasever: variable $releasever has no value; give it one in rpm.vars`},
		"no value in a key":  {nil, strings.Replace(oneRepo, "[KEY]", "[KEY-$x]", 1) + root, `repository "base" (x86_64): gpgkey: KEY-$x: variable $x has no value; give it one in rpm.vars`},
		"odd variable":       {nil, strings.Replace(oneRepo, "/base", "/${a:-b}", 1) + root, `repository "base" (x86_64): REPOS/${a:-b}: want variables as $name or ${name}`},
		"no address":         {nil, strings.Replace(oneRepo, "REPOS/base", "mirror/base", 1) + root, `repository "base" (x86_64): baseurl "mirror/base": want an address such as https://host/path/`},
		"password":           {nil, strings.Replace(oneRepo, "REPOS/base", "https://me:secret@x.example/", 1) + root, `repository "base" (x86_64): baseurl "https://me:xxxxx@x.example/": a name and password do not belong into a lock; put them into .netrc`},
		"query":              {nil, strings.Replace(oneRepo, "REPOS/base", "https://x.example/?a=b", 1) + root, `repository "base" (x86_64): baseurl "https://x.example/?a=b": want an address without ? and #`},
		"no local file":      {nil, oneRepo + "inputs: {files: [{name: a, url: b}]}\n", "inputs.files: a: open DIR/b: no such file or directory"},
		"another local file": {nil, oneRepo + "inputs: {files: [{name: a, url: KEY, sha256: " + strings.Repeat("1", 64) + "}]}\n", "inputs.files: a: KEY has " + digest.Of([]byte("key AA11\n")).String() + ", want sha256:" + strings.Repeat("1", 64)},
		"no overlay":         {nil, oneRepo + "image: {overlay: [none]}\n", "image.overlay: stat DIR/none: no such file or directory"},
		"no variant overlay": {nil, oneRepo + "variants: {v: {image: {overlay: [none]}}}\n", "variants.v.image.overlay: stat DIR/none: no such file or directory"},
		"overlay is a file":  {nil, oneRepo + "image: {overlay: [KEY]}\n", "image.overlay: DIR/KEY is not a folder"},
		"from: no file":      {nil, "version: 1\nname: podvm\nrpm: {from: in.yaml}\n", "open DIR/in.yaml: no such file or directory"},
		"no Go source":       {nil, oneRepo + "inputs: {go: [{name: a, dir: b, toolchain: go1.26.0}]}\n", "inputs.go: a: reading go.mod: open go.mod: no such file or directory"},
		"no Cargo source":    {nil, oneRepo + "inputs: {cargo: [{name: a, dir: b}]}\n", "inputs.cargo: a: reading Cargo.lock: open Cargo.lock: no such file or directory; run `cargo generate-lockfile`"},
	} {
		w := newWorld(t)
		w.repo("base", "key AA11\n", data)
		if tt.change != nil {
			tt.change(w)
		}
		switch tt.want {
		case "":
			if l := w.lock(tt.manifest); !l.Repos[0].RepoGPGCheck {
				t.Errorf("%s: got %+v", name, l.Repos)
			}
		case "another", "digits", "sha512":
			_, err := w.resolve(tt.manifest)
			if err == nil || !strings.Contains(err.Error(), map[string]string{
				"another": "primary.xml is not the file that repomd.xml (sha256:", "digits": "digits, want 40 for sha", "sha512": "not the file that is wanted: got sha512:",
			}[tt.want]) {
				t.Errorf("%s: got %v", name, err)
			}
		default:
			t.Run(name, func(t *testing.T) { w.t = t; w.fails(tt.manifest, tt.want) })
		}
	}
}

// sha512Repomd makes a repomd.xml that pins by SHA-512 only.
func sha512Repomd(t *testing.T, name string) {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	i := strings.Index(text, `"sha256">`) + len(`"sha256">`)
	text = text[:i] + text[i:i+64] + text[i:i+64] + text[i+64:]
	if err := os.WriteFile(name, []byte(strings.Replace(text, `"sha256">`, `"sha512">`, 1)), 0o644); err != nil {
		t.Fatal(err)
	}
}
