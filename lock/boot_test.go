package lock

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
)

// resolvedImages are the image and its one variant as a lock has them.
func resolvedImages(t *testing.T, text string) (image1, variant Image) {
	t.Helper()
	m := parseSettings(t, head+text)
	r := newResolver(Options{Manifest: m})
	r.lock = &Lock{Image: image(r.m.Image)}
	r.variants()
	if len(r.lock.Variants) > 0 {
		variant = r.lock.Variants[0].Image
	}
	return r.lock.Image, variant
}

func TestBoot(t *testing.T) {
	im, v := resolvedImages(t, `image:
  boot:
    loader: shim
    uki: vendor
    files: {uki: "/usr/lib/modules/*/vmlinuz-virt.efi", shim: /boot/efi/EFI/redhat/shimx64.efi}
variants:
  direct:
    image:
      verity: {bind: addon}
      boot: {fallback: false, files: {shim: /usr/lib/shim/shimx64.efi.signed}}
`)
	want := Boot{Loader: LoaderShim, UKI: UKIVendor, Files: BootFiles{UKI: "/usr/lib/modules/*/vmlinuz-virt.efi", Shim: "/boot/efi/EFI/redhat/shimx64.efi"}}
	if im.Boot == nil || *im.Boot != want || im.Verity != VerityAddon {
		t.Errorf("got  %+v, %s\nwant %+v", im.Boot, im.Verity, want)
	}
	want.NoFallback, want.Files.Shim = true, "/usr/lib/shim/shimx64.efi.signed"
	if v.Boot == nil || *v.Boot != want || v.Verity != VerityAddon {
		t.Errorf("got  %+v, %s\nwant %+v", v.Boot, v.Verity, want)
	}
	im, v = resolvedImages(t, "image: {boot: {loader: uki, uki: own, fallback: }}\nvariants: {sd: {image: {boot: {loader: systemd-boot}, verity: {bind: addon}}}}\n")
	if im.Boot != nil || im.Verity != VerityUKI {
		t.Errorf("what is so anyway leaves a trace: %+v, %s", im.Boot, im.Verity)
	}
	if v.Boot == nil || *v.Boot != (Boot{Loader: LoaderSystemdBoot}) || v.Verity != VerityAddon {
		t.Errorf("got %+v, %s", v.Boot, v.Verity)
	}
	if _, v = resolvedImages(t, "image: {boot: {loader: shim}}\nvariants: {plain: {image: {boot: {loader: uki}}}}\n"); v.Boot != nil {
		t.Errorf("got %+v", v.Boot)
	}
	im, v = resolvedImages(t, "image: {boot: {loader: shim}}\nvariants: {vendor: {image: {boot: {uki: vendor}}}}\n")
	if im.Verity != VerityUKI || v.Verity != VerityAddon || v.Boot.Loader != LoaderShim {
		t.Errorf("got %s, then %s with %+v", im.Verity, v.Verity, v.Boot)
	}
}

func TestBootErrors(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"image: {boot: {laoder: shim}}", `m:4: image.boot: unknown key "laoder"; did you mean "loader"?`},
		{"image: {boot: {loader: grub}}", `m:4: image.boot.loader: got "grub"; want uki, systemd-boot or shim`},
		{"image: {boot: {uki: signed}}", `m:4: image.boot.uki: got "signed"; want own or vendor`},
		{"image:\n  boot:\n    loader: shim\n    files:\n      shim: shimx64.efi", `m:8: image.boot.files.shim: "shimx64.efi" is not an absolute path or a pattern of one, such as /usr/lib/modules/*/vmlinuz-virt.efi`},
		{"image: {boot: {uki: vendor, files: {uki: '/a['}}}", `m:4: image.boot.files.uki: "/a[" is not an absolute path or a pattern of one, such as /usr/lib/modules/*/vmlinuz-virt.efi`},
		{"image: {boot: {files: {uki: /a/../b}}}", `m:4: image.boot.files.uki: "/a/../b" is not an absolute path or a pattern of one, such as /usr/lib/modules/*/vmlinuz-virt.efi`},
		{"image: {boot: {fallback: true}}", "m:4: image.boot.fallback: it is of no use without loader: shim"},
		{"image: {boot: {files: {shim: /a}}}", "m:4: image.boot.files.shim: it is of no use without loader: shim"},
		{"image: {boot: {loader: shim, fallback: false, files: {fallback: /a}}}", "m:4: image.boot.files.fallback: it is of no use without loader: shim with its fallback"},
		{"image: {boot: {loader: shim, files: {loader: /a}}}", "m:4: image.boot.files.loader: it is of no use without loader: systemd-boot"},
		{"image: {boot: {files: {uki: /a}}}", "m:4: image.boot.files.uki: it is of no use without uki: vendor"},
		{"image: {boot: {uki: vendor, files: {stub: /a}}}", "m:4: image.boot.files.stub: it is of no use without uki: own"},
		{"image: {boot: {files: {addon: /a}}}", "m:4: image.boot.files.addon: it is of no use without verity: {bind: addon}"},
		{"image: {boot: {uki: vendor}, verity: {bind: uki}}", "m:4: image.verity.bind: got uki; a vendor's UKI has a command line of its own, so the root hash has to be in an addon"},
		{"image: {verity: {bind: uki}}\nvariants:\n  v: {image: {boot: {uki: vendor}}}", "m:6: variants.v.image.verity.bind: got uki; a vendor's UKI has a command line of its own, so the root hash has to be in an addon"},
		{"variants:\n  v: {image: {boot: {loader: lilo}}}", `m:5: variants.v.image.boot.loader: got "lilo"; want uki, systemd-boot or shim`},
		{"sets: {initrd: {packages: [systemd]}}\nimage: {boot: {uki: vendor}}", "m:4: sets.initrd: a vendor's UKI has an initrd of its own: leave this set out"},
	} {
		if _, err := ParseManifest("m", []byte(head+tt.text+"\n")); err == nil || err.Error() != tt.want {
			t.Errorf("%s:\ngot  %v\nwant %s", tt.text, err, tt.want)
		}
	}
	for _, good := range []string{
		"sets: {initrd: {packages: [systemd]}}\nimage: {boot: {uki: vendor}}\nvariants: {own: {image: {boot: {uki: own}}}}",
		"sets: {initrd: {packages: [systemd]}}\nvariants: {v: {image: {boot: {uki: vendor}}}}",
		"image: {boot: {loader: shim, files: {shim: /a}}}\nvariants: {v: {image: {boot: {loader: uki}}}}",
	} {
		if _, err := ParseManifest("m", []byte(head+good+"\n")); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	if _, err := ParseManifest("m", []byte(strings.Replace(head, "podvm", "auto-podvm", 1)+"image: {boot: {loader: systemd-boot}}\n")); err == nil ||
		err.Error() != `m:2: name: systemd-boot passes over kernel images whose names begin with "auto-"` {
		t.Errorf("got %v", err)
	}
}

// TestParseLockBoot edits locks: what the manifest could not say the lock may
// not say either.
func TestParseLockBoot(t *testing.T) {
	l := sample()
	l.Image.Boot, l.Image.Verity = &Boot{Loader: LoaderShim, UKI: UKIVendor, Files: BootFiles{Shim: "/shim"}}, VerityAddon
	good := format(t, l)
	if got, err := Parse("l", good); err != nil || !reflect.DeepEqual(got, l) {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, tt := range []struct{ old, new, want string }{
		{`"loader": "shim"`, `"loader": "uki"`, `boot loader "uki" is not known to this Caisson`},
		{`"uki": "vendor"`, `"uki": "own"`, `uki "own" is not known to this Caisson`},
		{`"shim": "/shim"`, `"shim": "../shim"`, `image: [boot files shim]: "../shim" is not an absolute path`},
		{`"verity": "addon"`, `"verity": "uki"`, "a vendor's UKI with the root hash in the uki"},
		{`"verity": "addon"`, `"verity": "none"`, `verity "none" is not known to this Caisson`},
	} {
		if _, err := Parse("l", bytes.Replace(good, []byte(tt.old), []byte(tt.new), 1)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want an error with %q", tt.new, err, tt.want)
		}
	}
	l.Image.Boot = &Boot{}
	if _, err := Parse("l", format(t, l)); err == nil || !strings.Contains(err.Error(), "want the key to be left out") {
		t.Errorf("got %v", err)
	}
}
