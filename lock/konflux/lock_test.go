package konflux

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"caisson/lock/rpmmd"
)

// TestLockReal is a fixpoint of files that are in use.
func TestLockReal(t *testing.T) {
	all, err := filepath.Glob(filepath.Join(real, "*.lock.yaml"))
	if err != nil || len(all) == 0 {
		t.Skip("no files in use beside the checkout", err)
	}
	for _, name := range all {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		l, err := ParseLock("rpms.lock.yaml", b)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if i := bytes.Index(b, []byte("---\n")); !bytes.Equal(FormatLock(l), b[i:]) {
			t.Errorf("%s: not written as it was", name)
		}
	}
}

// python runs a script with the PyYAML that the distribution's python3 has.
func python(t *testing.T, script string, stdin []byte) []byte {
	t.Helper()
	const exe = "/usr/bin/python3"
	if err := exec.Command(exe, "-c", "import yaml").Run(); err != nil {
		if os.Getenv("CAISSON_TOOLS") == "required" {
			t.Fatal("no python3 with yaml: ", err)
		}
		t.Skip("no python3 with yaml: ", err)
	}
	cmd := exec.Command(exe, "-c", script)
	cmd.Stdin, cmd.Stderr = bytes.NewReader(stdin), os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// randomLock has texts that are hard to quote.
func randomLock(rnd *rand.Rand) *Lock {
	words := []string{
		"a", "no", "1", "1.5", "0x1f", "~", "null", "2024-01-02", "1:30", "- ", "-", "?", ": ", ":", " #", "#", "'", `"`, "\\", "\n", "\n\n", " ", "  ", "\t", "é", "€", "😀",
		"\x7f", "\u2028", "\u0085", "\ufeff", "---", "...", "<<", "=", "@", "%", "[", "]", "{", "}", ",", "&", "*", "!", "|", ">", "long-word-of-some-length", ".inf", "1_0", "1e5", "1.e+5", "+1", "12:30:45", "0o17", "017", "yes",
	}
	text := func() string {
		var b strings.Builder
		for range 1 + rnd.IntN(rnd.IntN(60)+1) {
			b.WriteString(words[rnd.IntN(len(words))])
		}
		return b.String()
	}
	files := func() []LockFile {
		var out []LockFile
		for range rnd.IntN(4) {
			out = append(out, LockFile{text(), text(), 1 + rnd.Int64N(1e10), text(), text(), text(), text()})
		}
		return out
	}
	l := &Lock{}
	for range 1 + rnd.IntN(3) {
		l.Arches = append(l.Arches, LockArch{text(), files(), files(), files()})
	}
	return l
}

// TestFormatLockPython compares with what the prototype itself would write.
func TestFormatLockPython(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	var locks []*Lock
	for range 300 {
		locks = append(locks, randomLock(rnd))
	}
	in, err := json.Marshal(locks)
	if err != nil {
		t.Fatal(err)
	}
	out := python(t, `
import json, sys, yaml
def f(e): return (e["URL"], e["RepoID"], e["Size"], e["Checksum"], e["Name"], e["EVR"], e["SourceRPM"])
def d(t): return dict(zip(("url", "repoid", "size", "checksum", "name", "evr", "sourcerpm"), t))
out = []
for l in json.load(sys.stdin):
    data = {"lockfileVersion": 1, "lockfileVendor": "redhat", "arches": []}
    for a in sorted(l["Arches"], key=lambda a: a["Arch"]):
        data["arches"].append({"arch": a["Arch"],
            "packages": [d(t) for t in sorted(f(e) for e in a["Packages"] or [])],
            "source": [d(t) for t in sorted(f(e) for e in a["Source"] or [])],
            "module_metadata": [d(f(e)) for e in sorted(a["ModuleMetadata"] or [], key=lambda e: e["URL"])]})
    out.append(yaml.dump(data, sort_keys=False, explicit_start=True))
json.dump(out, sys.stdout)
`, in)
	var want []string
	if err := json.Unmarshal(out, &want); err != nil {
		t.Fatal(err)
	}
	bad := 0
	for i, l := range locks {
		if got := string(FormatLock(l)); got != want[i] {
			if bad++; bad < 4 {
				t.Errorf("got\n%s\nwant\n%s", got, want[i])
			}
			continue
		}
		again, err := ParseLock("x", []byte(want[i]))
		if err != nil {
			t.Errorf("%v in\n%s", err, want[i])
		} else if !bytes.Equal(FormatLock(again), []byte(want[i])) {
			t.Errorf("another text after reading:\n%s\n%s", want[i], FormatLock(again))
		}
	}
	if bad > 0 {
		t.Errorf("%d of %d differ", bad, len(locks))
	}
}

// TestHermetoRules has what is written checked by the rules of Hermeto's model
// (hermeto/core/package_managers/rpm/redhat.py), over what its YAML reader
// reads.
func TestHermetoRules(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	for range 20 {
		python(t, `
import sys, yaml
data = yaml.safe_load(sys.stdin.buffer)
def text(v): assert isinstance(v, str), v
assert data["lockfileVersion"] == 1 and type(data["lockfileVersion"]) is int
assert data["lockfileVendor"] == "redhat"
for arch in data["arches"]:
    text(arch["arch"])
    for key in ("packages", "source", "module_metadata"):
        assert isinstance(arch[key], list)
        for e in arch[key]:
            text(e["url"])
            if key == "module_metadata": text(e["repoid"])
            for k in ("repoid", "checksum"):
                if e.get(k) is not None: text(e[k])
            if e.get("size") is not None: assert type(e["size"]) is int
`, FormatLock(randomLock(rnd)))
	}
}

func TestParseLock(t *testing.T) {
	// All of this Hermeto accepts too.
	const text = `lockfileVersion: "1"
lockfileVendor: redhat
other: {deep: [1]}
arches:
- arch: x86_64
  packages:
  - &a {url: https://x/a-1-2.noarch.rpm, new: key}
  - {<<: *a, size: 12, repoid: null, checksum: ~}
  - *a
- arch: aarch64
  module_metadata: [{url: https://x/m, repoid: r, size: 3.0}]
`
	got, err := ParseLock("x", []byte(text))
	f := LockFile{URL: "https://x/a-1-2.noarch.rpm"}
	sized := f
	sized.Size = 12
	want := &Lock{[]LockArch{
		{Arch: "x86_64", Packages: []LockFile{f, sized, f}},
		{Arch: "aarch64", ModuleMetadata: []LockFile{{URL: "https://x/m", RepoID: "r", Size: 3}}},
	}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v, %v\nwant %+v", got, err, want)
	}
	head := "lockfileVersion: 1\nlockfileVendor: redhat\narches:\n"
	for _, tt := range []struct{ text, want string }{
		{"", "x:1: the file is empty"},
		{"[]", "x:1: want keys with values, got a list"},
		{"a: b", "x:1: no lockfileVersion: it is no rpms.lock.yaml"},
		{"lockfileVersion: 2\nlockfileVendor: redhat\narches: []", "x:1: lockfileVersion: got 2, want 1"},
		{"lockfileVersion: one\n", `x:1: lockfileVersion: want a whole number, got "one"`},
		{"lockfileVersion: 1\nlockfileVendor: fedora\narches: []", `x:2: lockfileVendor: got "fedora", want "redhat"`},
		{"lockfileVersion: 1\nlockfileVendor: redhat\n", "x:1: no arches"},
		{head + "- {}\n", "x:4: arches: one without arch"},
		{head + "- {arch: a, packages: {}}\n", "x:4: packages: want a list, got keys with values"},
		{head + "- arch: a\n  packages:\n  - {size: 1}\n", "x:6: packages: an entry without url"},
		{head + "- arch: a\n  packages:\n  - {url: x, size: big}\n", `x:6: size: want a whole number, got "big"`},
		{head + "- arch: a\n  packages:\n  - {url: [x]}\n", "x:6: url: want a text, got a list"},
		{head + "- arch: a\n  module_metadata:\n  - {url: x}\n", "x:6: module_metadata: an entry without repoid"},
		{head + "---\nb", "x: a second document; the file is to have one"},
	} {
		if _, err := ParseLock("x", []byte(tt.text)); err == nil || err.Error() != tt.want {
			t.Errorf("%s\ngot  %v\nwant %s", tt.text, err, tt.want)
		}
	}
}

func TestNEVRA(t *testing.T) {
	for _, tt := range []struct {
		in         LockFile
		name, arch string
		evr        rpmmd.EVR
		err        bool
	}{
		{LockFile{URL: "https://x/o-s-1.2-3.el9.x86_64.rpm"}, "o-s", "x86_64", rpmmd.EVR{Version: "1.2", Release: "3.el9"}, false},
		{LockFile{URL: "https://x/a-1-2.src.rpm?k=v#f", Name: "a", EVR: "3:1-2"}, "a", "src", rpmmd.EVR{Epoch: 3, Version: "1", Release: "2"}, false},
		{LockFile{URL: "https://x/0123.noarch.rpm", Name: "a", EVR: "1-2"}, "a", "noarch", rpmmd.EVR{Version: "1", Release: "2"}, false},
		{in: LockFile{URL: "https://x/0123.noarch.rpm"}, err: true},
		{in: LockFile{URL: "https://x/a-1-2.x86_64"}, err: true},
		{in: LockFile{URL: "https://x/a-1-2.x86_64.rpm", EVR: "1"}, err: true},
		{in: LockFile{URL: "https://x/-1-2.x86_64.rpm"}, err: true},
		{in: LockFile{URL: ""}, err: true},
	} {
		name, evr, arch, err := tt.in.NEVRA()
		if (err != nil) != tt.err || err == nil && (name != tt.name || evr != tt.evr || arch != tt.arch) {
			t.Errorf("%+v: got %s %s %s %v", tt.in, name, evr, arch, err)
		}
	}
}

func FuzzParseLock(f *testing.F) {
	f.Add([]byte("lockfileVersion: 1\nlockfileVendor: redhat\narches: [{arch: a, packages: [{url: b, evr: 'x: y'}]}]\n"))
	if all, err := filepath.Glob(filepath.Join(real, "conforma*.lock.yaml")); err == nil {
		for _, name := range all {
			b, err := os.ReadFile(name)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := ParseLock("x", b)
		if err != nil {
			return
		}
		once := FormatLock(l)
		again, err := ParseLock("x", once)
		if err != nil {
			t.Fatalf("%v in\n%s", err, once)
		}
		if !bytes.Equal(FormatLock(again), once) {
			t.Errorf("got\n%s\nwant\n%s", FormatLock(again), once)
		}
	})
}
