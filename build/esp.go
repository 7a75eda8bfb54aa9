package build

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"unicode/utf16"

	"golang.org/x/sys/unix"

	"caisson/build/esp"
	"caisson/build/rootfs"
	"caisson/lock"
)

// loaderConf are systemd-boot's settings: one kernel is started, at once and
// with its own command line. Without a seed that the loader would write back,
// the ESP stays as it is.
const loaderConf = "timeout 0\neditor no\nauto-entries no\nauto-firmware no\nrandom-seed-mode off\n"

// firstReadOnlySeed is the first version of systemd's EFI programs that leave
// random numbers alone where their seed on the ESP is read-only. Else the stub
// would keep a secret in the machine's variables and the ESP, and add it to the
// initrd: what is measured would be another on each machine.
const firstReadOnlySeed = 262

// espFile is a file of the ESP. What depends on the root hash is made last:
// until then, it is planned.
type espFile struct {
	esp.File
	how  func() (origin, error)
	make func() (*io.SectionReader, error)
}

// assembled is how a file of ours came to be: of these inputs, and a stub.
func assembled(stub *bootFile, inputs ...string) func() (origin, error) {
	return func() (origin, error) {
		all := slices.Clone(inputs)
		if stub != nil {
			how, err := stub.how()
			if err != nil {
				return origin{}, err
			}
			all = append(all, how.inputs...)
		}
		slices.Sort(all)
		return origin{account: Generated, inputs: slices.Compact(all), by: "assembly"}, nil
	}
}

// boots is the way from the firmware to the kernel that the lock asks for.
func (d *disk) boots() lock.Boot {
	if d.image.Boot == nil {
		return lock.Boot{}
	}
	return *d.image.Boot
}

// planESP plans the ESP: its files, and their sizes.
func (d *disk) planESP(root *installed) error {
	files, at, err := d.loaderFiles(root)
	if err != nil {
		return err
	}
	d.ukiPath = at
	var image espFile
	if d.boots().UKI == lock.UKIVendor {
		image, err = d.vendorUKI(root)
	} else {
		image, err = d.ownUKI(root)
	}
	if err != nil {
		return err
	}
	files = append(files, image)
	if d.stubVersion >= firstReadOnlySeed {
		seed := esp.Bytes("loader/random-seed", nil)
		seed.ReadOnly = true
		files = append(files, espFile{File: seed, how: assembled(nil)})
	}
	if d.image.Verity == lock.VerityAddon {
		addon, err := d.addon(root)
		if err != nil {
			return err
		}
		files = append(files, addon)
	}
	d.espFiles = files
	return nil
}

// plain are the files without their accounts.
func (d *disk) plain() []esp.File {
	var out []esp.File
	for _, f := range d.espFiles {
		out = append(out, f.File)
	}
	return out
}

// fillESP makes what depends on the root hash.
func (d *disk) fillESP() error {
	for i := range d.espFiles {
		f := &d.espFiles[i]
		if f.make == nil {
			continue
		}
		content, err := f.make()
		if err != nil {
			return fmt.Errorf("writing %s: %w", f.Path, err)
		}
		if content.Size() != f.Content.Size() {
			return fmt.Errorf("writing %s: %d bytes, and %d were planned", f.Path, content.Size(), f.Content.Size())
		}
		f.Content = content
	}
	return d.signESP()
}

// signESP signs the programs where that is asked for, and notes who signed them.
func (d *disk) signESP() error {
	sign := d.Sign
	if sign == nil {
		sign = esp.Attach(nil)
	}
	files, signed, err := esp.Sign(d.plain(), sign)
	if err != nil {
		return fmt.Errorf("signing the ESP's programs: %w", err)
	}
	for i := range files {
		d.espFiles[i].File = files[i]
	}
	for _, s := range signed {
		i := slices.IndexFunc(d.espFiles, func(f espFile) bool { return f.Path == s.Path })
		if how := d.espFiles[i].how; s.Added {
			d.espFiles[i].how = func() (origin, error) {
				o, err := how()
				return signedOrigin(o), err
			}
		}
	}
	d.signed = SignedPrograms(signed)
	return nil
}

// signedOrigin is the account of a program with a signature added.
func signedOrigin(how origin) origin {
	if how.account == Vendor {
		how.account, how.by = Changed, "signature"
	}
	return how
}

// loaderFiles are the files before the UKI, and the path at which that one is
// looked for.
func (d *disk) loaderFiles(root *installed) (files []espFile, uki string, err error) {
	boot, m := d.boots(), d.machine
	program := func(at, kind, given string) error {
		f, err := d.bootFile(root, kind, given)
		if err != nil {
			return err
		}
		p, err := esp.Program(at, f.content)
		files = append(files, espFile{File: p, how: f.how})
		return err
	}
	switch boot.Loader {
	case lock.LoaderSystemdBoot:
		files = append(files, espFile{File: esp.Bytes("loader/loader.conf", []byte(loaderConf)), how: assembled(nil)})
		return files, "EFI/Linux/" + d.imageName() + ".efi", program(m.loader(), fileLoader, boot.Files.Loader)
	case lock.LoaderShim:
		if err := program(m.loader(), fileShim, boot.Files.Shim); err != nil {
			return nil, "", err
		}
		if boot.NoFallback {
			return files, "EFI/BOOT/grub" + m.efi + ".efi", nil
		}
		if err := program("EFI/BOOT/fb"+m.efi+".efi", fileFallback, boot.Files.Fallback); err != nil {
			return nil, "", err
		}
		more, uki, err := d.fallbackFiles(root, files[0])
		return append(files, more...), uki, err
	}
	return nil, m.loader(), nil
}

// fallbackFiles are what shim's fallback makes a boot option of: shim again, in
// a folder of the distribution's, and a file that says what it is to start.
func (d *disk) fallbackFiles(root *installed, shim espFile) (files []espFile, uki string, err error) {
	folder, err := distribution(root.tree)
	if err != nil {
		return nil, "", err
	}
	uki = "EFI/Linux/" + d.imageName() + ".efi"
	name := "shim" + d.machine.efi + ".efi"
	csv := fmt.Sprintf("%s,%s,\\%s ,UKI bootentry\n", name, d.imageName(), strings.ReplaceAll(uki, "/", `\`))
	again := shim
	again.Path = path.Join("EFI", folder, name)
	option := esp.Bytes(path.Join("EFI", folder, "BOOT"+strings.ToUpper(d.machine.efi)+".CSV"), utf16Text(csv))
	return []espFile{again, {File: option, how: assembled(nil)}}, uki, nil
}

// utf16Text is a text as EFI reads it: UTF-16, little-endian, with a byte order
// mark.
func utf16Text(s string) []byte {
	b := []byte{0xff, 0xfe}
	for _, u := range utf16.Encode([]rune(s)) {
		b = binary.LittleEndian.AppendUint16(b, u)
	}
	return b
}

// distribution is ID of os-release(5), as a folder of the ESP may be called.
func distribution(root *rootfs.Tree) (string, error) {
	release, err := root.ReadFile("etc/os-release")
	if err != nil {
		return "", err
	}
	id := "linux" // as the manual page has it
	for line := range strings.Lines(string(release)) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "ID="); ok {
			id = strings.Trim(v, `"'`)
		}
	}
	if strings.EqualFold(id, "BOOT") || strings.EqualFold(id, "Linux") && id != "linux" || id == "" || strings.Trim(id, "abcdefghijklmnopqrstuvwxyz0123456789._-") != "" {
		return "", fmt.Errorf("/etc/os-release: ID %q cannot be the name of the distribution's folder on the ESP", id)
	}
	if id == "linux" {
		id = "caisson" // EFI/Linux is where kernels are
	}
	return id, nil
}

// writeESP writes the ESP.
func (d *disk) writeESP() error {
	if err := d.fillESP(); err != nil {
		return err
	}
	id := derive("esp", fmt.Sprintf("%x", d.root))
	o := esp.Options{Serial: binary.LittleEndian.Uint32(id[:]), Time: d.Lock.Epoch}
	if err := esp.Write(io.NewOffsetWriter(d.f, d.esp.start), d.esp.size, d.plain(), o); err != nil {
		return fmt.Errorf("writing the ESP: %w", err)
	}
	return nil
}

// sumESP notes the sizes and digests of the files of the ESP, by path.
func (d *disk) sumESP() error {
	slices.SortFunc(d.espFiles, func(a, b espFile) int { return strings.Compare(a.Path, b.Path) })
	for _, f := range d.espFiles {
		a := File{Part: "esp", Path: "/" + f.Path, Mode: unix.S_IFREG | 0o644}
		if err := a.read(f.Content); err != nil {
			return err
		}
		d.sums = append(d.sums, a)
	}
	return nil
}

// accountESP accounts for the files of the ESP, by path.
func (d *disk) accountESP() ([]File, error) {
	out := slices.Clone(d.sums)
	for i, f := range d.espFiles {
		how, err := f.how()
		if err != nil {
			return nil, fmt.Errorf("%s of the ESP: %w", f.Path, err)
		}
		out[i].Account, out[i].Inputs, out[i].By = how.account, how.inputs, how.by
	}
	return out, nil
}

// closeAll closes what was opened to be written to the ESP.
func (d *disk) closeAll() error {
	var errs []error
	for _, f := range d.opened {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}
