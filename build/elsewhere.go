package build

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"caisson/build/esp"
	"caisson/build/imagefile"
)

// Elsewhere is Build where the work is done by somebody else: in a virtual machine, by
// another process. It calls do with the working folder, which leaves in results what
// Build leaves in Options.Out, unsigned, and returns the description of it. What is
// there has to be as described. Then it is signed, where Options say so, and gets its
// final names. Nothing is kept of work that failed.
func Elsewhere(ctx context.Context, o Options, do func(ctx context.Context, work, results string) (*Image, error)) (img *Image, err error) {
	b, err := newBuilder(o)
	if err != nil {
		return nil, err
	}
	w, err := newWorkDir(b.Out)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.remove()) }()
	b.work = filepath.Join(w.path, "results")
	if err := makeDir(b.work); err != nil {
		return nil, err
	}
	if img, err = do(ctx, w.path, b.work); err != nil {
		return nil, err
	}
	if err := b.checkResults(img); err != nil {
		return nil, err
	}
	if o.Sign != nil {
		if img, err = b.signResults(ctx, img, filepath.Join(w.path, "signed")); err != nil {
			return nil, err
		}
	}
	return img, b.giveNames(ctx, img)
}

// checkResults compares the files of the working folder with their description, which
// has to be of this lock.
func (b *builder) checkResults(img *Image) error {
	if img.Lock != b.lockDigest || img.Variant != b.Variant || img.Arch != b.Arch || img.Name != b.Lock.Name {
		return fmt.Errorf("what was built is %s of lock %s, want %s of %s", img.Name, img.Lock, b.Lock.Name, b.lockDigest)
	}
	if len(img.Files) == 0 {
		return errors.New("what was built has no files")
	}
	for _, want := range img.Files {
		if want.Name != filepath.Base(want.Name) {
			return fmt.Errorf("what was built has a file %q", want.Name)
		}
		got, err := describe(filepath.Join(b.work, want.Name))
		if err != nil {
			return err
		}
		if got != want {
			return fmt.Errorf("%s, as it was built, has %d bytes, %s; want %d bytes, %s", want.Name, got.Size, got.SHA256, want.Size, want.SHA256)
		}
	}
	return nil
}

// signResults signs the image's EFI programs, and has b.work be the folder of what is
// signed.
func (b *builder) signResults(ctx context.Context, img *Image, to string) (*Image, error) {
	if err := makeDir(to); err != nil {
		return nil, err
	}
	name := filepath.Join(b.work, img.Files[0].Name)
	disk, err := imagefile.Open(name)
	if err != nil {
		return nil, err
	}
	defer disk.Close()
	scratch, err := os.CreateTemp(filepath.Dir(to), "sign-")
	if err != nil {
		return nil, err
	}
	defer scratch.Close()
	signed, err := SignDisk(disk, disk.Size(), b.Sign, scratch)
	if errors.Is(err, esp.ErrOther) {
		return nil, fmt.Errorf("signing: %w", err)
	}
	if err != nil {
		return nil, err
	}
	if img, err = signed.WriteFolder(ctx, img, name, to); err != nil {
		return nil, err
	}
	b.work = to
	return img, nil
}

// giveNames gives the results of the working folder their final names. What is said of
// an earlier image is removed before it is replaced, so that whenever this is
// interrupted no image.json is beside files of another build.
func (b *builder) giveNames(ctx context.Context, img *Image) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := b.removeDescriptions(img); err != nil {
		return err
	}
	for _, f := range img.Files {
		if err := os.Rename(filepath.Join(b.work, f.Name), filepath.Join(b.Out, f.Name)); err != nil {
			return err
		}
	}
	return nil
}

// Leaves tells whether a build may leave a file of that name.
func (o *Options) Leaves(name string) bool {
	names := []string{"files.json", "evidence.json", "build.log"}
	im, _ := o.Lock.ImageFor(o.Variant)
	for _, output := range im.Output {
		names = append(names, OutputFiles(ImageName(o.Lock, o.Arch, o.Variant), output)...)
	}
	return slices.Contains(names, name)
}

// NoteVM adds a virtual machine to the evidence that is in a folder of results, and to
// the description of the image the file as it is then.
func NoteVM(results string, img *Image, machine *VM) error {
	const name = "evidence.json"
	i := slices.IndexFunc(img.Files, func(f Output) bool { return f.Name == name })
	if i < 0 {
		return errors.New("what was built has no " + name)
	}
	at := filepath.Join(results, name)
	was, err := describe(at)
	if err != nil {
		return err
	}
	if was != img.Files[i] {
		return fmt.Errorf("%s, as it was built, is %s; want %s", name, was.SHA256, img.Files[i].SHA256)
	}
	b, err := os.ReadFile(at)
	if err != nil {
		return err
	}
	var ev Evidence
	if err := json.Unmarshal(b, &ev); err != nil {
		return fmt.Errorf("reading %s: %w", name, err)
	}
	ev.VM = machine
	if err := os.Remove(at); err != nil {
		return err
	}
	if err := writeJSON(at, &ev); err != nil {
		return err
	}
	img.Files[i], err = describe(at)
	return err
}
