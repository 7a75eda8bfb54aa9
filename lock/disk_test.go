package lock

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

// diskImages are the image and the first variant of a manifest.
func diskImages(t *testing.T, text string) (im, variant Image) {
	t.Helper()
	m, err := ParseManifest("m", []byte(head+text))
	if err != nil {
		t.Fatal(err)
	}
	r := newResolver(Options{Manifest: m})
	r.lock = &Lock{Image: image(m.Image)}
	r.variants()
	return r.lock.Image, r.lock.Variants[0].Image
}

func TestDisk(t *testing.T) {
	im, v := diskImages(t, `image:
  disk: {size: 10GiB, esp: 34816KiB, root: 4096MiB}
  scratch: {mount: /var/lib/containers, size: 2GiB, format: xfs, encrypt: no}
variants: {debug: {image: {disk: {size: 12GiB}, scratch: {format: ext4}}}}
`)
	if want := (&Disk{10 << 30, 34 << 20, 4 << 30}); !reflect.DeepEqual(im.Disk, want) {
		t.Errorf("got %+v, want %+v", im.Disk, want)
	}
	if want := (&Disk{12 << 30, 34 << 20, 4 << 30}); !reflect.DeepEqual(v.Disk, want) {
		t.Errorf("variant: got %+v, want %+v", v.Disk, want)
	}
	if want := (&Scratch{"/var/lib/containers", 2 << 30, "xfs", "no"}); !reflect.DeepEqual(im.Scratch, want) {
		t.Errorf("got %+v, want %+v", im.Scratch, want)
	}
	if want := (&Scratch{"/var/lib/containers", 2 << 30, "ext4", "no"}); !reflect.DeepEqual(v.Scratch, want) {
		t.Errorf("variant: got %+v, want %+v", v.Scratch, want)
	}
	im, v = diskImages(t, "image: {disk: {esp: 512MiB}}\nvariants: {debug: {image: {scratch: {mount: /scratch}}}}\n")
	if want := (&Disk{ESP: 512 << 20}); im.Scratch != nil || !reflect.DeepEqual(im.Disk, want) || !reflect.DeepEqual(v.Disk, want) {
		t.Errorf("got %+v, %+v and %+v", im.Disk, im.Scratch, v.Disk)
	}
	if want := (&Scratch{"/scratch", 512 << 20, "ext4", "key"}); !reflect.DeepEqual(v.Scratch, want) {
		t.Errorf("got %+v, want %+v", v.Scratch, want)
	}
}

// TestNoDisk has locks as they were before there were sizes.
func TestNoDisk(t *testing.T) {
	im, v := diskImages(t, "image: {disk: {}, scratch: {}}\nvariants: {debug: {image: {disk: {}}}}\n")
	b, err := json.Marshal([]Image{im, v})
	if err != nil || bytes.Contains(b, []byte("disk")) || bytes.Contains(b, []byte("scratch")) {
		t.Errorf("got %s, %v", b, err)
	}
}

func TestDiskErrors(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"image: {disk: {sise: 1GiB}}", `m:4: image.disk: unknown key "sise"; did you mean "size"?`},
		{"image: {disk: {size: 10GB}}", `m:4: image.disk.size: "10GB" is not a size, such as 512MiB or 10GiB`},
		{"image: {disk: {size: 1073741824}}", `m:4: image.disk.size: "1073741824" is not a size, such as 512MiB or 10GiB`},
		{"image: {disk: {size: 0MiB}}", `m:4: image.disk.size: "0MiB" is not a size, such as 512MiB or 10GiB`},
		{"image: {disk: {root: 1025KiB}}", "m:4: image.disk.root: got 1025KiB; want a multiple of 1MiB"},
		{"image: {disk: {root: 16385GiB}}", "m:4: image.disk.root: got 16385GiB; want at most 16384GiB"},
		{"image: {disk: {root: 999999999999999999GiB}}", "m:4: image.disk.root: got 999999999999999999GiB; want at most 16384GiB"},
		{"image: {disk: {esp: 32MiB}}", "m:4: image.disk.esp: got 32MiB; want 33MiB to 2GiB"},
		{"variants: {debug: {image: {disk: {esp: 3GiB}}}}", "m:4: variants.debug.image.disk.esp: got 3GiB; want 33MiB to 2GiB"},
		{"image: {scratch: {size: 1GiB}}", `m:4: image.scratch.mount: "" is not an absolute path of letters, digits and ._@+-, such as /var/lib/containers`},
		{"image: {scratch: {mount: \"/var/a b\"}}", `m:4: image.scratch.mount: "/var/a b" is not an absolute path of letters, digits and ._@+-, such as /var/lib/containers`},
		{"image: {scratch: {mount: /}}", `m:4: image.scratch.mount: "/" is not an absolute path of letters, digits and ._@+-, such as /var/lib/containers`},
		{"image: {scratch: {mount: /run/x}}", "m:4: image.scratch.mount: /run/x belongs to the system: want a folder outside of /run, such as /var/lib/containers"},
		{"image: {scratch: {mount: /x, size: 100MiB}}", "m:4: image.scratch.size: got 100MiB; want 512MiB to 16384GiB, in multiples of 1MiB"},
		{"image: {scratch: {mount: /x, size: 1}}", `m:4: image.scratch.size: "1" is not a size, such as 512MiB or 10GiB`},
		{"image: {scratch: {mount: /x, format: btrfs}}", `m:4: image.scratch.format: got "btrfs"; want ext4 or xfs`},
		{"image: {scratch: {mount: /x, encrypt: yes}}", `m:4: image.scratch.encrypt: got "yes"; want key or no`},
		{"variants: {debug: {image: {scratch: {format: xfs}}}}", `m:4: variants.debug.image.scratch.mount: "" is not an absolute path of letters, digits and ._@+-, such as /var/lib/containers`},
	} {
		_, err := ParseManifest("m", []byte(head+tt.text+"\n"))
		if err == nil || err.Error() != tt.want {
			t.Errorf("%s:\ngot  %v\nwant %s", tt.text, err, tt.want)
		}
	}
}

// TestDiskOfLock has locks that were edited.
func TestDiskOfLock(t *testing.T) {
	good := Scratch{"/var/lib/containers", 1 << 30, ScratchExt4, EncryptKey}
	with := func(change func(s *Scratch)) Image {
		s := good
		change(&s)
		return Image{Scratch: &s}
	}
	for _, tt := range []struct {
		im   Image
		want string
	}{
		{Image{Disk: &Disk{Size: 1 << 30}, Scratch: &good}, ""},
		{Image{Disk: &Disk{}}, "no sizes"},
		{Image{Disk: &Disk{Size: -1 << 20}}, "got -1MiB"},
		{Image{Disk: &Disk{Root: 1<<20 + 1}}, "got 1048577 bytes; want a multiple of 1MiB"},
		{Image{Disk: &Disk{ESP: 1 << 40}}, "got 1024GiB; want 33MiB to 2GiB"},
		{with(func(s *Scratch) { s.Mount = "/a\n[Service]" }), "is not an absolute path"},
		{with(func(s *Scratch) { s.Format = "ext4 -x" }), "ext4 or xfs"},
		{with(func(s *Scratch) { s.Encrypt = "" }), "key or no"},
		{with(func(s *Scratch) { s.Size = 0 }), "got 0; want 512MiB"},
	} {
		l := &Lock{Image: tt.im}
		l.Image.Verity, l.Image.Root, l.Image.Output = VerityUKI, RootEROFS, []string{"qcow2"}
		switch err := l.checkSettings(); {
		case tt.want == "" && err != nil:
			t.Error(err)
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("got %v, want an error with %q", err, tt.want)
		}
	}
}
