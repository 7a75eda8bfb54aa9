package lock

import (
	"bytes"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// bareHead is the least of a manifest for an archive; what follows it begins in
// line 3.
const bareHead = "version: 1\nname: box\n"

// containerManifest asks for a container image, and for variants of it.
const containerManifest = bareHead + `image:
  output: [tar, oci]
  overlay: [rootfs]
  hostname: box
  container:
    entrypoint: [/usr/bin/caisson]
    cmd: [--help]
    env: {HOME: /work, N: 1}
    user: "65532:65532"
    workdir: /work
    labels: {org.opencontainers.image.source: https://example.com}
variants:
  debug: {image: {container: {cmd: [], env: {HOME: /root, DEBUG: "1"}, user: root, labels: {a: b}}}}
  plain: {image: {output: [tar]}}
`

// TestContainer merges variants.
func TestContainer(t *testing.T) {
	m := parseSettings(t, containerManifest)
	r := newResolver(Options{Manifest: m})
	r.lock = &Lock{Image: image(m.Image)}
	r.variants()
	r.setEpoch()
	want := Image{
		Overlay: []string{"rootfs"}, Output: []string{"tar", "oci"}, Settings: &Settings{Hostname: "box"}, Container: &Container{
			Entrypoint: []string{"/usr/bin/caisson"}, Cmd: []string{"--help"}, Env: map[string]string{"HOME": "/work", "N": "1"}, User: "65532:65532",
			Workdir: "/work", Labels: map[string]string{"org.opencontainers.image.source": "https://example.com"},
		},
	}
	if !reflect.DeepEqual(r.lock.Image, want) || !r.lock.IsArchive() || r.lock.Epoch != EpochWithout {
		t.Errorf("got %+v", r.lock)
	}
	debug := want
	debug.Container = &Container{
		Entrypoint: []string{"/usr/bin/caisson"}, Cmd: []string{}, Env: map[string]string{"HOME": "/root", "DEBUG": "1", "N": "1"}, User: "root",
		Workdir: "/work", Labels: map[string]string{"org.opencontainers.image.source": "https://example.com", "a": "b"},
	}
	plain := want
	plain.Output, plain.Container = []string{"tar"}, nil
	if got, want := r.lock.Variants, []Variant{{"debug", debug}, {"plain", plain}}; !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if im, _ := resolvedImages(t, "image: {output: [oci]}\n"); im.Container != nil {
		t.Errorf("got %+v", im)
	}
}

// TestArchiveErrors has manifests that ask for what an archive, or a disk, has
// not got.
func TestArchiveErrors(t *testing.T) {
	const noMachine = "an image whose output is an archive (oci, tar) has no machine that boots it: leave this out"
	for _, tt := range []struct{ text, want string }{
		{"image: {output: [oci, qcow2]}", "m:3: image.output[1]: oci and qcow2 are not of one image: a disk has a kernel and a root hash, and an archive (oci, tar) has neither; make two manifests"},
		{"image: {output: [raw, tar]}", "m:3: image.output[1]: raw and tar are not of one image: a disk has a kernel and a root hash, and an archive (oci, tar) has neither; make two manifests"},
		{"image:\n  output: [oci]\n  kernel: {cmdline: quiet}", "m:5: image.kernel: " + noMachine},
		{"image:\n  output: [oci]\n  root: {format: erofs}", "m:5: image.root: " + noMachine},
		{"image:\n  output: [oci]\n  verity: {bind: uki}", "m:5: image.verity: " + noMachine},
		{"image:\n  output: [oci]\n  boot: {loader: uki}", "m:5: image.boot: " + noMachine},
		{"image:\n  output: [oci]\n  disk: {size: 1GiB}", "m:5: image.disk: " + noMachine},
		{"image:\n  output: [oci]\n  scratch: {mount: /var/x}", "m:5: image.scratch: " + noMachine},
		{"image:\n  output: [tar]\n  sysctl: {net.ipv4.ip_forward: 1}", "m:5: image.sysctl: " + noMachine},
		{"image:\n  output: [tar]\n  modprobe: {deny: [a]}", "m:5: image.modprobe: " + noMachine},
		{"image: {output: [oci]}\nvariants:\n  debug: {image: {kernel: {cmdline: +debug}}}", "m:5: variants.debug.image.kernel: " + noMachine},
		{"image: {output: [oci]}\nsets: {initrd: {}}", "m:4: sets.initrd: an image whose output is an archive (oci, tar) has no machine that boots it: leave this set out"},
		{"image: {output: [oci]}\nvariants: {debug: {image: {output: [raw]}}}", "m:4: variants.debug.image.output: got raw, and the image's is oci: a disk and an archive (oci, tar) are not variants of each other; make two manifests"},
		{"image: {output: [tar], container: {user: root}}", "m:3: image.container: this is the configuration of an OCI image, which output does not ask for: want output: [oci]"},
		{"image: {output: [oci], container: {user: root}}\nvariants: {debug: {image: {output: [tar], container: {cmd: [a]}}}}", "m:4: variants.debug.image.container: this is the configuration of an OCI image, which output does not ask for: want output: [oci]"},
		{"image: {output: [oci], container: {ports: [80]}}", `m:3: image.container: unknown key "ports"`},
		{"image: {output: [oci], container: {entrypoint: ['']}}", "m:3: image.container.entrypoint[0]: got an empty one; want a program"},
		{"image: {output: [oci], container: {cmd: [\"a\\0\"]}}", `m:3: image.container.cmd[0]: "a\x00" has a NUL`},
		{"image: {output: [oci], container: {env: {A=B: c}}}", "m:3: image.container.env.A=B: want the name of a variable, such as HOME"},
		{"image: {output: [oci], container: {user: 'a b'}}", `m:3: image.container.user: got "a b"; want a user or user:group, each a name or a number, such as 65532:65532`},
		{"image: {output: [oci], container: {user: '1:'}}", `m:3: image.container.user: got "1:"; want a user or user:group, each a name or a number, such as 65532:65532`},
		{"image: {output: [oci], container: {user: '4294967295'}}", `m:3: image.container.user: "4294967295" is not an id: want at most 4294967294`},
		{"image: {output: [oci], container: {workdir: work}}", `m:3: image.container.workdir: "work" is not an absolute path`},
		{"image: {output: [oci], container: {labels: {'a b': c}}}", "m:3: image.container.labels.a b: want a label's name of letters, digits and ._/-, such as org.opencontainers.image.source"},
		{"image: {output: [oci]}\nsets: {root: {packages: [bash]}}", "m:1: rpm: no repos and no from; give at least one repository"},
		{"image: {output: [oci]}\nrpm: {repos: [{id: a, baseurl: 'https://x/', gpgkey: [K]}]}\nsets: {root: {packages: [bash]}}", "m:5: sets: there is no tools set, and its rpm installs the packages of the root: want tools: {packages: [rpm, bash, …]}"},
		{"image: {output: [oci]}\nsteps:\n- run: echo", "m:5: steps[0].run: there is no tools set, whose bash runs it: want sets: {tools: {packages: [bash, …]}}"},
		{"image: {output: [oci]}\ninputs: {cargo: [{name: a, dir: b}]}\nsteps:\n- cargo: {input: a, to: /a}", "m:6: steps[0].cargo: there is no tools set, whose cargo compiles it: want sets: {tools: {packages: [cargo, gcc, …]}}"},
		{"image: {output: [oci]}\ninputs: {go: [{name: a, dir: b, toolchain: go1.26.0}]}\nsteps:\n- go: {input: a, to: /a, cgo: true}", "m:6: steps[0].go.cgo: there is no tools set, whose gcc it needs: want sets: {tools: {packages: [gcc, …]}}"},
	} {
		if _, err := ParseManifest("m", []byte(bareHead+tt.text+"\n")); err == nil || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%s:\ngot  %v\nwant %s", tt.text, err, tt.want)
		}
	}
}

// TestParseLockArchive edits locks: one must not ask for what the manifest could
// not.
func TestParseLockArchive(t *testing.T) {
	l := sample()
	l.Image = Image{Output: []string{OutputOCI}, Container: &Container{User: "65532:65532"}}
	l.Variants = slices.Clone(l.Variants)
	for i := range l.Variants {
		l.Variants[i].Image = l.Image
	}
	good := format(t, l)
	if got, err := Parse("l", good); err != nil || !reflect.DeepEqual(got, l) {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, tt := range []struct{ old, new, want string }{
		{`"cmdline": ""`, `"cmdline": "quiet"`, "the image is an archive (oci, tar), and has settings of a disk"},
		{`"root": ""`, `"root": "erofs"`, "the image is an archive (oci, tar), and has settings of a disk"},
		{`"user": "65532:65532"`, `"user": "a b"`, `image: [container user]: got "a b"`},
		{`"oci"`, `"tar"`, "container of the image: the output is no OCI image"},
		{"{\n      \"user\": \"65532:65532\"\n    }", "{}", "container of the image: nothing"},
	} {
		if _, err := Parse("l", bytes.Replace(good, []byte(tt.old), []byte(tt.new), 1)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want an error with %q", tt.new, err, tt.want)
		}
	}
	if len(l.Variants) > 0 {
		l.Variants[0].Image = Image{Output: []string{OutputRaw}, Root: RootEROFS, Verity: VerityUKI}
		if _, err := Parse("l", format(t, l)); err == nil || !strings.Contains(err.Error(), "are not variants of each other") {
			t.Errorf("got %v", err)
		}
	}
}
