package lock

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
)

func TestRootFormat(t *testing.T) {
	for _, tt := range []struct {
		name, root, debug string
		want, wantDebug   Image // Root and Compression
	}{
		{name: "default", want: Image{Root: "erofs"}, wantDebug: Image{Root: "erofs"}},
		{
			name: "EROFS", root: "{compression: lz4hc, level: 9}", debug: "{level: 12}",
			want: Image{Root: "erofs", Compression: &Compression{"lz4hc", 9}}, wantDebug: Image{Root: "erofs", Compression: &Compression{"lz4hc", 12}},
		},
		{
			name: "another compression", root: "{compression: lz4hc, level: 9}", debug: "{compression: lz4}",
			want: Image{Root: "erofs", Compression: &Compression{"lz4hc", 9}}, wantDebug: Image{Root: "erofs", Compression: &Compression{"lz4", 0}},
		},
		{
			name: "squashfs has one", root: "{format: squashfs, level: 15}", debug: "{format: erofs}",
			want: Image{Root: "squashfs", Compression: &Compression{"zstd", 15}}, wantDebug: Image{Root: "erofs"},
		},
		{
			name: "a variant's", debug: "{format: squashfs, compression: xz}",
			want: Image{Root: "erofs"}, wantDebug: Image{Root: "squashfs", Compression: &Compression{"xz", 0}},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			text := head
			if tt.root != "" {
				text += "image: {root: " + tt.root + "}\n"
			}
			if tt.debug == "" {
				tt.debug = "{}"
			}
			m := parseSettings(t, text+"variants: {debug: {image: {root: "+tt.debug+"}}}\n")
			r := newResolver(Options{Manifest: m})
			r.lock = &Lock{Image: image(m.Image)}
			r.variants()
			for _, c := range []struct{ got, want Image }{{r.lock.Image, tt.want}, {r.lock.Variants[0].Image, tt.wantDebug}} {
				if c.got.Root != c.want.Root || !reflect.DeepEqual(c.got.Compression, c.want.Compression) {
					t.Errorf("got %s %+v, want %s %+v", c.got.Root, c.got.Compression, c.want.Root, c.want.Compression)
				}
			}
		})
	}
}

func TestRootErrors(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"image: {root: {compression: xz}}", `m:4: image.root.compression: got "xz"; of a root in erofs it is one of lz4, lz4hc, lzma, deflate, zstd`},
		{"image: {root: {format: squashfs, compression: none}}", `m:4: image.root.compression: got "none"; of a root in squashfs it is one of zstd, gzip, lz4, lzo, xz`},
		{"image: {root: {level: 3}}", "m:4: image.root.level: 3 of no compression: name one"},
		{"image: {root: {compression: lz4, level: 3}}", "m:4: image.root.level: lz4 has no level 3"},
		{"image: {root: {compression: lz4hc, level: -1}}", "m:4: image.root.level: lz4hc has no level -1"},
		{"image: {root: {compression: lz4hc, level: 13}}", "m:4: image.root.level: 13 is not one of lz4hc's, which go up to 12"},
		{"image: {root: {compression: lz4hc}}\nvariants: {debug: {image: {root: {level: 13}}}}", "m:5: variants.debug.image.root.level: 13 is not one of lz4hc's, which go up to 12"},
		{"variants: {debug: {image: {root: {level: 1}}}}", "m:4: variants.debug.image.root.level: 1 of no compression: name one"},
	} {
		if _, err := ParseManifest("m", []byte(head+tt.text+"\n")); err == nil || err.Error() != tt.want {
			t.Errorf("%s:\ngot  %v\nwant %s", tt.text, err, tt.want)
		}
	}
}

// A lock that was edited must not hand a program words that the manifest could
// not.
func TestParseLockRoot(t *testing.T) {
	for _, tt := range []struct{ old, new, want string }{
		{`"root": "erofs"`, `"root": "ext4"`, `root of the image: [format]: got "ext4"`},
		{`"root": "erofs"`, `"root": "squashfs"`, "root of the image: [compression]: a root in squashfs has one"},
		{`"root": "erofs",`, `"root": "erofs",
    "compression": {
      "algorithm": "lz4 -x"
    },`, `got "lz4 -x"; of a root in erofs`},
	} {
		b := format(t, sample())
		if !bytes.Contains(b, []byte(tt.old)) {
			t.Fatalf("no %s in\n%s", tt.old, b)
		}
		b = bytes.Replace(b, []byte(tt.old), []byte(tt.new), 1)
		if _, err := Parse("l", b); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want an error with %q", tt.new, err, tt.want)
		}
	}
}
