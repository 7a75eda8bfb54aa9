package lock

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// head is the least of a manifest; what follows it begins in line 4.
const head = `version: 1
name: podvm
rpm: {repos: [{id: base, baseurl: "https://mirror.example/", gpgkey: [KEY]}]}
`

func TestParseManifest(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("testdata", "manifest.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	m, err := ParseManifest("caisson.yaml", b)
	if err != nil {
		t.Fatal(err)
	}
	yes, no, two := true, false, 2
	epoch := int64(1700000000)
	want := &Manifest{
		Version: 1, Name: "podvm", Network: "refuse", Arches: []string{"x86_64", "aarch64"}, Epoch: &epoch,
		RPM: ManifestRPM{
			From: "rpms.in.yaml", Set: SetTools, Vars: map[string]string{"releasever": "9"}, WeakDeps: &no, Best: &yes,
			Repos: []ManifestRepo{
				{ID: "baseos", BaseURL: StringList{"https://mirror.example/$releasever/BaseOS/$basearch/os/"}, GPGKey: []string{"keys/a"}, RepoGPGCheck: &yes, Priority: &two},
				{ID: "local", BaseURL: StringList{"file:///srv/repo"}, GPGCheck: &no},
				{ID: "merged", BaseURL: StringList{"https://mirror.example/merged"}, GPGCheck: &no},
			},
		},
		Sets: map[string]ManifestSet{
			SetTools:  {Packages: []string{"rpm", "bash"}},
			SetInitrd: {Packages: []string{"systemd"}, Modules: []string{"dm-verity"}},
			SetRoot:   {Packages: []string{"systemd", "@core"}, Exclude: []string{"dnf"}},
		},
		Inputs: ManifestInputs{
			Go:    []ManifestGo{{Name: "agent", Dir: "payload/agent", Toolchain: "go1.26.0"}},
			Cargo: []ManifestCargo{{Name: "guest", Dir: "payload/guest"}},
			Files: []ManifestFile{{Name: "blob", URL: "https://example.org/blob", SHA256: strings.Repeat("1", 64)}, {Name: "near", URL: "files/near"}},
		},
		Steps: []ManifestStep{
			{Go: &ManifestGoStep{Input: "agent", Package: "./cmd/agent", To: "/usr/bin/agent", LDFlags: "-s"}},
			{Cargo: &ManifestCargoStep{Input: "guest", Bin: "guest", To: "/usr/bin/guest", Features: []string{"a"}}},
			{Run: `install -D "$IN/blob" "$OUT/blob"`},
		},
		Image: ManifestImage{
			Overlay: []string{"rootfs"}, Services: ManifestServices{Enable: []string{"agent.service"}, Disable: []string{"getty@tty1.service"}},
			Kernel: ManifestKernel{Cmdline: "quiet"}, Root: ManifestRoot{Format: "erofs"}, Verity: ManifestVerity{Bind: "uki"}, Output: []string{"raw", "vhd", "netboot", "qcow2"},
		},
		Variants: map[string]ManifestVariant{"debug": {
			Sets:  map[string]ManifestSet{SetRoot: {Packages: []string{"strace"}}},
			Image: ManifestImage{Kernel: ManifestKernel{Cmdline: "+debug"}},
		}},
	}
	if !reflect.DeepEqual(m, want) {
		t.Errorf("got  %+v\nwant %+v", m, want)
	}
}

func TestParseManifestDefaults(t *testing.T) {
	m, err := ParseManifest("m", []byte(head+"sets:\nsteps:\n"))
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(m.Arches, []string{"x86_64"}) || m.Image.Root.Format != "erofs" || m.Image.bind() != "uki" ||
		!reflect.DeepEqual(m.Image.Output, []string{"qcow2"}) || m.RPM.Set != SetRoot || m.Sets == nil {
		t.Errorf("got %+v", m)
	}
}

// TestParseManifestErrors has a case for each error, whole: they are read by
// people.
func TestParseManifestErrors(t *testing.T) {
	repo := func(s string) string { return "version: 1\nname: podvm\nrpm:\n  repos:\n  - " + s + "\n" }
	for _, tt := range []struct{ text, want string }{
		// What is no manifest at all.
		{"", "m:1: the file is empty"},
		{"# only a comment\n", "m:1: the file is empty"},
		{"hello\n", `m:1: want keys with values, got "hello"`},
		{"- a\n", "m:1: want keys with values, got a list"},
		{"version: 1\nname: [\n", "m:2: did not find expected node content"},
		{"version: 1\n\tname: x\n", "m:2: found a tab character that violates indentation"},
		{"name: \x01\n", "m:1: control characters are not allowed"},
		{head + "---\nversion: 1\n", "m:4: a second document; the file is to have one"},
		{head + "---\n[\n", "m:5: did not find expected node content"},
		{strings.Repeat("#", maxManifest+1), "m: 1048577 bytes, more than the 1048576 that a manifest may have"},
		// Keys.
		{head + "stpes: []\n", `m:4: unknown key "stpes"; did you mean "steps"?`},
		{head + "image:\n  kernel:\n    cmd_line: x\n", `m:6: image.kernel: unknown key "cmd_line"; did you mean "cmdline"?`},
		{head + "sets: {root: {package: [a]}}\n", `m:4: sets.root: unknown key "package"; did you mean "packages"?`},
		{head + "steps:\n- shell: x\n", `m:5: steps[0]: unknown key "shell"; known here: go, cargo, run`},
		{head + "variants: {debug: {step: []}}\n", `m:4: variants.debug: unknown key "step"; known here: sets, image`},
		{head + "name: other\n", `m:4: key "name" is there twice, first in line 2`},
		{head + "sets:\n  root: {}\n  root: {}\n", `m:6: sets: key "root" is there twice, first in line 5`},
		{head + "? [a]\n: b\n", "m:4: a key that is no text"},
		// Types.
		{"version: one\n", `m:1: version: want a whole number, got "one"`},
		{"version: 1.5\n", `m:1: version: want a whole number, got "1.5"`},
		{head + "epoch: 99999999999999999999\n", `m:4: epoch: want a whole number, got "99999999999999999999"`},
		{head + "arches: x86_64\n", `m:4: arches: want a list, got "x86_64"`},
		{head + "arches: {x86_64: true}\n", "m:4: arches: want a list, got keys with values"},
		{head + "sets: [root]\n", "m:4: sets: want keys with values, got a list"},
		{head + "sets: {root: [a]}\n", "m:4: sets.root: want keys with values, got a list"},
		{head + "image: {overlay: [{a: b}]}\n", "m:4: image.overlay[0]: want text, got keys with values"},
		{head + "image: {kernel: {cmdline: [a]}}\n", "m:4: image.kernel.cmdline: want text, got a list"},
		{head + "image: {kernel: {cmdline: !!binary aGk=}}\n", `m:4: image.kernel.cmdline: want text, got "aGk="`},
		{"rpm: {best: maybe}\n", `m:1: rpm.best: want true or false, got "maybe"`},
		// Anchors.
		{"name: *nobody\n", "m:1: unknown anchor 'nobody' referenced"},
		{"name: &a [*a]\n", "m:1: name: want text, got a list"},
		{head + "sets: &a {root: *a}\n", `m:4: sets.root: unknown key "root"; known here: packages, exclude, modules, scriptlets`},
		{head + "sets:\n  root: {<<: x}\n", `m:5: sets.root: <<: want keys with values, got "x"`},
		{head + "image:\n  verity: {tree: inline}\n", `m:5: image.verity.tree: got "inline"; want partition or appended`},
		{head + "image:\n  output: [netboot]\n", "m:5: image.output[0]: netboot is taken from a disk: want qcow2, raw or vhd beside it"},
		{head + "network: allow\n", `m:4: network: got "allow"; want refuse or record`},
		// Values.
		{"name: x\n", "m:1: version: got 0; this Caisson reads version 1"},
		{"version: 2\n", "m:1: version: got 2; this Caisson reads version 1"},
		{"version: 1\n", "m:1: name: a name is needed"},
		{"version: 1\nname: Pod VM\n", `m:2: name: got "Pod VM"; want lower-case letters, digits, '.', '_' and '-'`},
		{"version: 1\nname: x\n", "m:1: rpm: no repos and no from; give at least one repository"},
		{head + "arches: [x86_64, riscv]\n", `m:4: arches[1]: "riscv" is not one of aarch64, ppc64le, s390x, x86_64`},
		{head + "arches:\n- x86_64\n- x86_64\n", `m:6: arches[1]: "x86_64" is there twice`},
		{head + "epoch: -1\n", "m:4: epoch: got -1; want seconds since 1970, at most 4294967295"},
		{head + "epoch: 4294967296\n", "m:4: epoch: got 4294967296; want seconds since 1970, at most 4294967295"},
		{repo("{baseurl: x}"), "m:5: rpm.repos[0].id: a repository needs one"},
		{repo("{id: a/b}"), `m:5: rpm.repos[0].id: got "a/b"; want letters, digits, '_', '.', ':', '+' and '-'`},
		{repo("{id: a}"), `m:5: rpm.repos[0].baseurl: "a" needs one, or a metalink, a mirrorlist or an iso`},
		{repo("{id: a, baseurl: x}"), `m:5: rpm.repos[0].gpgkey: "a" has none; give the key that its packages are signed by, or say gpgcheck: false`},
		{repo("{id: a, baseurl: x, gpgcheck: false, repo_gpgcheck: true}"), `m:5: rpm.repos[0].gpgkey: "a" has none; give the key that its metadata is signed by`},
		{repo("{id: a, baseurl: x, gpgkey: [k, '']}"), `m:5: rpm.repos[0].gpgkey: "a" has an empty one`},
		{repo("{id: a, baseurl: x, gpgcheck: false,\n     priority: 0}"), "m:6: rpm.repos[0].priority: got 0; want 1 to 32767, where a lower number wins"},
		{repo("{id: a, baseurl: x, gpgcheck: false}\n  - {id: a}"), `m:6: rpm.repos[1].id: two repositories are called "a"`},
		{"version: 1\nname: x\nrpm:\n  vars: {a-b: c}\n", "m:4: rpm.vars.a-b: want letters, digits and '_' in a variable's name"},
		{"version: 1\nname: x\nrpm:\n  vars: {basearch: c}\n", "m:4: rpm.vars.basearch: its value is the arch that is locked"},
		{"version: 1\nname: x\nrpm: {from: /etc/x}\n", `m:3: rpm.from: got "/etc/x"; want a path relative to the manifest`},
		{"version: 1\nname: x\nrpm: {from: x, set: main}\n", `m:3: rpm.set: "main" is not one of tools, initrd, root`},
		{head + "sets: {rootfs: {}}\n", "m:4: sets.rootfs: want one of tools, initrd, root, vm"},
		{head + "sets:\n  root:\n    packages: [a, ' ']\n", "m:6: sets.root.packages[1]: an empty name"},
		{head + "sets:\n  root:\n    exclude:\n    -\n", "m:7: sets.root.exclude: an empty item in the list"},
		{head + "sets: {root: {modules: [a]}}\n", "m:4: sets.root.modules: modules belong to the initrd"},
		{head + "sets: {initrd: {modules: [a.ko]}}\n", `m:4: sets.initrd.modules[0]: "a.ko" is not the name of a kernel module, such as dm-verity`},
		{head + "variants: {Debug: {}}\n", `m:4: variants.Debug: got "Debug"; want lower-case letters, digits, '.', '_' and '-'`},
		{head + "variants: {debug: {sets: {root: {}}}}\n", "m:4: variants.debug.sets.root: the manifest has no such set to add to"},
		{head + "sets: {root: {}}\nvariants: {debug: {sets: {root: {modules: [a]}}}}\n", "m:5: variants.debug.sets.root.modules: modules belong to the initrd"},
		{head + "inputs: {go: [{dir: a}]}\n", "m:4: inputs.go[0].name: a name is needed"},
		{head + "inputs: {go: [{name: a}]}\n", `m:4: inputs.go[0].dir: got ""; want a folder relative to the manifest`},
		{head + "inputs: {go: [{name: a, dir: /b}]}\n", `m:4: inputs.go[0].dir: got "/b"; want a folder relative to the manifest`},
		{head + "inputs: {go: [{name: a, dir: b, toolchain: 1.26}]}\n", `m:4: inputs.go[0].toolchain: got "1.26"; want a release of Go, such as go1.26.0`},
		{head + "inputs: {cargo: [{name: A}]}\n", `m:4: inputs.cargo[0].name: got "A"; want lower-case letters, digits, '.', '_' and '-'`},
		{head + "inputs: {cargo: [{name: a}]}\n", `m:4: inputs.cargo[0].dir: got ""; want a folder relative to the manifest`},
		{head + "inputs:\n  cargo: [{name: a, dir: b}]\n  files: [{name: a, url: x}]\n", `m:6: inputs.files[0].name: two inputs are called "a"`},
		{head + "inputs: {files: [{name: a}]}\n", `m:4: inputs.files[0].url: got ""; want an address, or a path relative to the manifest`},
		{head + "inputs: {files: [{name: a, url: /etc/passwd}]}\n", `m:4: inputs.files[0].url: got "/etc/passwd"; want an address, or a path relative to the manifest`},
		{head + "inputs: {files: [{name: a, url: 'https://x/y'}]}\n", `m:4: inputs.files[0].sha256: "a" needs the SHA-256 of what https://x/y holds`},
		{head + "inputs: {files: [{name: a, url: b, sha256: 12}]}\n", `m:4: inputs.files[0].sha256: digest "12": want 64 lower-case hex digits`},
		{head + "steps: [{}]\n", "m:4: steps[0]: want exactly one of go, cargo, run"},
		{head + "steps:\n- run: a\n- ''\n", "m:6: steps[1]: want keys with values, got \"\""},
		{head + "steps: [{go: {input: a}}]\n", `m:4: steps[0].go.input: inputs.go has no "a"`},
		{head + "steps: [{cargo: {input: a}}]\n", `m:4: steps[0].cargo.input: inputs.cargo has no "a"`},
		{head + "inputs: {cargo: [{name: a, dir: b}]}\nsteps: [{cargo: {input: a, to: usr/bin/a}}]\n", `m:5: steps[0].cargo.to: "usr/bin/a" is not the absolute path of a file`},
		{head + "inputs: {go: [{name: a, dir: b, toolchain: go1.26.0}]}\nsteps:\n- go: {input: a, to: /usr/../a}\n", `m:6: steps[0].go.to: "/usr/../a" is not the absolute path of a file`},
		{head + "inputs: {go: [{name: a, dir: b, toolchain: go1.26.0}]}\nsteps:\n- go: {input: a, to: /a, arch: arm64}\n", `m:6: steps[0].go.arch: "arm64" is not one of aarch64, ppc64le, s390x, x86_64`},
		{head + "inputs: {go: [{name: a, dir: b, toolchain: go1.26.0}]}\nsteps:\n- go: {input: a, to: /a, arch: aarch64, cgo: true}\n", `m:6: steps[0].go.cgo: the C compiler of the tools set is for the machine that builds: leave out arch, or cgo`},
		{head + "inputs: {go: [{name: a, dir: b, toolchain: go1.26.0}]}\nsteps:\n- go: {input: a, to: /a}\n  run: x\n", "m:6: steps[0]: want exactly one of go, cargo, run"},
		{head + "image: {root: {format: ext4}}\n", `m:4: image.root.format: got "ext4"; want erofs or squashfs`},
		{head + "image: {verity: {bind: none}}\n", `m:4: image.verity.bind: got "none"; want uki or addon`},
		{head + "image: {output: [raw, iso]}\n", `m:4: image.output[1]: got "iso"; want qcow2, raw, vhd, netboot, oci or tar`},
		{head + "image: {output: [raw, raw]}\n", `m:4: image.output[1]: "raw" is there twice`},
		{head + "image: {overlay: [/rootfs]}\n", `m:4: image.overlay[0]: got "/rootfs"; want a folder relative to the manifest`},
		{head + "image: {services: {enable: [agent]}}\n", `m:4: image.services.enable[0]: "agent" is not the name of a unit, such as agent.service`},
		{head + "image: {services: {disable: [../a.service]}}\n", `m:4: image.services.disable[0]: "../a.service" is not the name of a unit, such as agent.service`},
		{head + "image: {kernel: {cmdline: +quiet}}\n", "m:4: image.kernel.cmdline: a + in front belongs to a variant"},
		{head + "image:\n  kernel:\n    cmdline: \"a\\nb\"\n", `m:6: image.kernel.cmdline: "a\nb" has a line break or NUL`},
		{head + "variants:\n  debug:\n    image: {output: [x]}\n", `m:6: variants.debug.image.output[0]: got "x"; want qcow2, raw, vhd, netboot, oci or tar`},
	} {
		_, err := ParseManifest("m", []byte(tt.text))
		if err == nil || err.Error() != tt.want {
			t.Errorf("%s\ngot  %v\nwant %s", tt.text, err, tt.want)
		}
	}
}

// TestParseManifestBombs has manifests that would be large in memory.
func TestParseManifestBombs(t *testing.T) {
	bomb := "version: 1\na0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
	for i := 1; i < 10; i++ {
		p, n := string(rune('0'+i-1)), string(rune('0'+i))
		bomb += "a" + n + ": &a" + n + " [" + strings.TrimSuffix(strings.Repeat("*a"+p+", ", 10), ", ") + "]\n"
	}
	lists := strings.Replace(bomb, "a0: &a0", "image:\n  overlay: &a0", 1)
	merges := head + "sets:\n  root: &b0 {packages: [a]}\n"
	for i := range 60 {
		p, n := string(rune('A'+i)), string(rune('A'+i+1))
		if i == 0 {
			p = "b0"
		}
		merges += "  " + n + ": &" + n + " {<<: [*" + p + ", *" + p + "]}\n"
	}
	for _, tt := range []struct{ text, want string }{
		{bomb, `m:2: unknown key "a0"`},
		{lists, `m:4: unknown key "a1"`},
		{head + "image: {overlay: " + strings.Repeat("[", 5000) + strings.Repeat("]", 5000) + "}\n", "m:4: image.overlay[0]: want text, got a list"},
		{merges, ""},
		{strings.Repeat("a: {", 20000), "m:"},
	} {
		_, err := ParseManifest("m", []byte(tt.text))
		if err == nil || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("got %.200v, want %q", err, tt.want)
		}
	}
}

// TestParseManifestMerge checks that a merged mapping counts as its keys do.
func TestParseManifestMerge(t *testing.T) {
	m, err := ParseManifest("m", []byte(head+"sets:\n  initrd: &base {packages: [bash]}\n  tools: {<<: *base, exclude: [dnf]}\n  root: {<<: [*base]}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(m.Sets[SetTools], ManifestSet{Packages: []string{"bash"}, Exclude: []string{"dnf"}}) {
		t.Errorf("got %+v", m.Sets)
	}
}

func FuzzParseManifest(f *testing.F) {
	for _, name := range []string{"testdata/manifest.yaml", "../lockfiles/demo/caisson.yaml"} {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(head + "sets:\n  root: &b {packages: [bash]}\n  tools: {<<: *b}\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := ParseManifest("m", b); err == nil && (m.Version != 1 || m.Name == "") {
			t.Errorf("accepted %+v", m)
		} else if err != nil && !strings.HasPrefix(err.Error(), "m:") {
			t.Errorf("error without a place: %v", err)
		}
	})
}
