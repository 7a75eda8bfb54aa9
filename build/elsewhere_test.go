package build

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"caisson/lock/digest"
)

// What was built elsewhere is taken where it is as described, and of this lock; else
// what was there before stays, and nothing is left of it.
func TestElsewhere(t *testing.T) {
	l := testLock()
	sum, err := l.Digest()
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{"small.qcow2": "image", "evidence.json": `{"version":1}`, "build.log": "log"}
	for _, tt := range []struct {
		name string
		do   func(t *testing.T, results string, img *Image) error
		want string
	}{
		{name: "good"},
		{"other bytes", func(t *testing.T, results string, _ *Image) error {
			return os.WriteFile(filepath.Join(results, "small.qcow2"), []byte("omage"), 0o600)
		}, "small.qcow2, as it was built, has 5 bytes"},
		{"missing", func(_ *testing.T, results string, _ *Image) error {
			return os.Remove(filepath.Join(results, "build.log"))
		}, "build.log: no such file"},
		{"other lock", func(_ *testing.T, _ string, img *Image) error {
			img.Lock = digest.Of([]byte("other"))
			return nil
		}, "what was built is small of lock sha256:"},
		{"climbing", func(_ *testing.T, _ string, img *Image) error {
			img.Files[0].Name = "../" + img.Files[0].Name
			return nil
		}, `what was built has a file "../`},
		{"none", func(_ *testing.T, _ string, img *Image) error {
			img.Files = nil
			return nil
		}, "what was built has no files"},
		{"failed", func(*testing.T, string, *Image) error { return errors.New("it broke") }, "it broke"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out := t.TempDir()
			for _, name := range []string{"image.json", "small.qcow2"} {
				if err := os.WriteFile(filepath.Join(out, name), []byte("before"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			o := Options{Lock: l, Arch: "x86_64", Out: out}
			_, err := Elsewhere(context.Background(), o, func(_ context.Context, _, results string) (*Image, error) {
				img := &Image{Name: l.Name, Arch: o.Arch, Lock: sum}
				for name, text := range files {
					at := filepath.Join(results, name)
					if err := os.WriteFile(at, []byte(text), 0o600); err != nil {
						return nil, err
					}
					f, err := describe(at)
					if err != nil {
						return nil, err
					}
					img.Files = append(img.Files, f)
				}
				if err := NoteVM(results, img, &VM{Accelerator: "tcg"}); err != nil {
					return nil, err
				}
				if tt.do == nil {
					return img, nil
				}
				return img, tt.do(t, results, img)
			})
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Fatalf("got %v, want %q", err, tt.want)
			}
			left, err := os.ReadDir(out)
			if err != nil {
				t.Fatal(err)
			}
			image, err := os.ReadFile(filepath.Join(out, "small.qcow2"))
			if err != nil {
				t.Fatal(err)
			}
			if tt.want != "" {
				if len(left) != 2 || string(image) != "before" {
					t.Errorf("there are %v, and the image is %q", left, image)
				}
				return
			}
			if len(left) != len(files) || string(image) != "image" { // image.json was of another image
				t.Errorf("there are %v, and the image is %q", left, image)
			}
			b, err := os.ReadFile(filepath.Join(out, "evidence.json"))
			if err != nil {
				t.Fatal(err)
			}
			var ev Evidence
			if err := json.Unmarshal(b, &ev); err != nil || ev.VM == nil || ev.VM.Accelerator != "tcg" || ev.VM.NetworkCards != 0 {
				t.Errorf("%s, %v", b, err)
			}
		})
	}
}

// What a build may leave is what it may be asked for.
func TestLeaves(t *testing.T) {
	o := &Options{Lock: testLock(), Arch: "x86_64"}
	for name, want := range map[string]bool{
		"small.qcow2": true, "small.vhd": true, "evidence.json": true, "files.json": true, "build.log": true,
		"image.json": false, "other.qcow2": false, "report.json": false, "": false,
	} {
		if o.Leaves(name) != want {
			t.Errorf("%q: %v", name, !want)
		}
	}
}
