package build

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf16"

	"golang.org/x/sys/unix"

	"caisson/build/image/esp"
	"caisson/build/image/gpt"
	"caisson/build/image/uki"
	"caisson/build/rootfs"
	"caisson/lock"
)

// addonName is the file name of the addon with the root hash.
const addonName = "verity.addon.efi"

// maxKernel bounds a kernel that is unpacked, in bytes.
const maxKernel = 1 << 30

// loaderConf are systemd-boot's settings: one kernel is started, at once and
// with its own command line. Without a seed that the loader would write back,
// the ESP stays as it is.
const loaderConf = "timeout 0\neditor no\nauto-entries no\nauto-firmware no\nrandom-seed-mode off\n"

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

// vendorUKI is the kernel image that a package brings.
func (d *disk) vendorUKI(root *installed) (espFile, error) {
	f, err := d.bootFile(root, fileUKI, d.boots().Files.UKI)
	if err != nil {
		return espFile{}, err
	}
	program, err := esp.Program(d.ukiPath, f.content)
	if err != nil {
		return espFile{}, err
	}
	im, err := uki.Read(f.content, f.content.Size())
	if err != nil {
		return espFile{}, fmt.Errorf("/%s: %w", f.path, err)
	}
	text := map[string]string{}
	for _, name := range []string{".cmdline", ".uname"} {
		s, err := im.Section(name)
		if err != nil {
			return espFile{}, fmt.Errorf("/%s: %w", f.path, err)
		}
		if s != nil && s.VirtualSize < maxSectionText {
			b, err := io.ReadAll(s.Open())
			if err != nil {
				return espFile{}, fmt.Errorf("/%s: section %s: %w", f.path, name, err)
			}
			text[name] = strings.TrimSpace(strings.TrimRight(string(b), "\x00"))
		}
	}
	d.vendorCmdline, d.version = text[".cmdline"], text[".uname"]
	if ok, _ := path.Match("usr/lib/modules/*/*", f.path); ok {
		d.version = path.Base(path.Dir(f.path))
	}
	return espFile{File: program, how: f.how}, nil
}

// maxSectionText bounds a section of text of a vendor's UKI.
const maxSectionText = 64 << 10

// ownUKI is the kernel image that is made of the root's kernel, the initrd and
// the stub.
func (d *disk) ownUKI(root *installed) (espFile, error) {
	stub, err := d.bootFile(root, fileStub, d.boots().Files.Stub)
	if err != nil {
		return espFile{}, err
	}
	sections, kernel, err := d.ukiSections(root, stub)
	if err != nil {
		return espFile{}, err
	}
	size, err := uki.Size(stub.content, stub.content.Size(), sections())
	if err != nil {
		return espFile{}, err
	}
	var initrd []string
	for _, in := range d.of(lock.SetInitrd) {
		initrd = append(initrd, ref(in))
	}
	return espFile{
		File: esp.Planned(d.ukiPath, size), how: assembled(stub, append(initrd, kernel...)...),
		make: func() (*io.SectionReader, error) {
			f, err := os.Create(filepath.Join(d.work, "uki.efi"))
			if err != nil {
				return nil, err
			}
			d.opened = append(d.opened, f)
			if _, err := uki.Write(f, stub.content, stub.content.Size(), sections()); err != nil {
				return nil, err
			}
			return whole(f)
		},
	}, nil
}

// ukiSections are the sections of our UKI, as the root hash is at the time, and
// the inputs that the kernel is of.
func (d *disk) ukiSections(root *installed, stub *bootFile) (sections func() []uki.Section, inputs []string, err error) {
	release, err := root.tree.ReadFile("etc/os-release")
	if err != nil {
		return nil, nil, err
	}
	initrd, err := os.Stat(d.initrd)
	if err != nil {
		return nil, nil, err
	}
	name := path.Join("usr/lib/modules", d.version, "vmlinuz")
	packed, _, err := d.rootFile(root, name)
	if err != nil {
		return nil, nil, err
	}
	kernel, err := d.unpackKernel(packed)
	if err != nil {
		return nil, nil, fmt.Errorf("/%s: %w", name, err)
	}
	traits, err := uki.ReadKernel(kernel, kernel.Size())
	if err != nil {
		return nil, nil, fmt.Errorf("/%s: firmware cannot start it: %w", name, err)
	}
	sbat, err := uki.SBAT(stub.content, stub.content.Size(), traits)
	if err != nil {
		return nil, nil, fmt.Errorf("/%s: %w", stub.path, err)
	}
	linux := uki.Section{Name: ".linux", Size: kernel.Size(), NoNX: !traits.NX, Open: func() (io.ReadCloser, error) {
		return io.NopCloser(io.NewSectionReader(kernel, 0, kernel.Size())), nil
	}}
	return func() []uki.Section {
		return []uki.Section{
			uki.TextSection(".osrel", string(release)),
			uki.TextSection(".cmdline", d.ukiCmdline()),
			uki.TextSection(".uname", d.version),
			uki.TextSection(".sbat", sbat),
			{Name: ".initrd", Size: initrd.Size(), Open: func() (io.ReadCloser, error) { return os.Open(d.initrd) }},
			linux,
		}
	}, root.inputs(name), nil
}

// unpackKernel is the kernel as firmware starts it: arm64's may be packed with
// gzip.
func (d *disk) unpackKernel(packed *io.SectionReader) (*io.SectionReader, error) {
	magic := make([]byte, 2)
	if _, err := packed.ReadAt(magic, 0); err != nil || !bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		return packed, nil // whatever it is, its reader says
	}
	z, err := gzip.NewReader(bufio.NewReader(io.NewSectionReader(packed, 0, packed.Size())))
	if err != nil {
		return nil, err
	}
	f, err := os.Create(filepath.Join(d.work, "kernel"))
	if err != nil {
		return nil, err
	}
	d.opened = append(d.opened, f)
	n, err := io.Copy(f, io.LimitReader(z, maxKernel+1))
	if err == nil && n > maxKernel {
		err = fmt.Errorf("unpacked, it has more than %d bytes", maxKernel)
	}
	if err != nil {
		return nil, err
	}
	return whole(f)
}

// addon is the addon with the root hash.
func (d *disk) addon(root *installed) (espFile, error) {
	stub, err := d.bootFile(root, fileAddon, d.boots().Files.Addon)
	if err != nil {
		return espFile{}, err
	}
	code, err := io.ReadAll(io.LimitReader(stub.content, 1<<20+1))
	if err != nil {
		return espFile{}, err
	}
	made := func() (*io.SectionReader, error) {
		b, err := uki.Addon(code, uki.AddonOptions{Cmdline: d.addonCmdline()})
		return io.NewSectionReader(bytes.NewReader(b), 0, int64(len(b))), err
	}
	planned, err := made()
	if err != nil {
		return espFile{}, fmt.Errorf("/%s: %w", stub.path, err)
	}
	return espFile{
		File: esp.Planned(path.Join(d.ukiPath+".extra.d", addonName), planned.Size()), how: assembled(stub), make: made,
	}, nil
}

// wanted is the manifest's command line and what the root needs.
func (d *disk) wanted() string {
	words, _ := d.splitCmdline()
	for _, w := range []string{"ro", "rootfstype=" + d.image.Root} {
		if !slices.Contains(words, w) {
			words = append(words, w)
		}
	}
	return strings.Join(words, " ")
}

// verityOptions begins the word that has the options of the root's dm-verity
// device (veritytab(5)); of several the last counts.
const verityOptions = "systemd.verity_root_options="

// splitCmdline are the manifest's words, and the options of the root's device
// among them where more have to be added to them.
func (d *disk) splitCmdline() (words []string, options string) {
	words = strings.Fields(d.image.Cmdline)
	if d.image.Tree != lock.TreeAppended {
		return words, ""
	}
	return slices.DeleteFunc(words, func(w string) bool {
		o, ok := strings.CutPrefix(w, verityOptions)
		if ok {
			options = o
		}
		return ok
	}), options
}

// rootHash is what the kernel's command line says of the root: its hash, by
// which systemd finds the partitions of data and hash tree, or where these are
// one, which it is and from where on the tree is in it. It has the same length
// whatever these are, by blanks at its end: zeros before a number would make it
// an octal one for some versions of systemd.
func (d *disk) rootHash() string {
	hash := fmt.Sprintf("roothash=%x", d.root)
	if d.image.Tree != lock.TreeAppended {
		return hash
	}
	_, options := d.splitCmdline()
	if options != "" {
		options += ","
	}
	part := "PARTUUID=" + gpt.FromBytes([16]byte(d.root[:16])).String()
	return fmt.Sprintf("%s systemd.verity_root_data=%s systemd.verity_root_hash=%s %s%shash-offset=%-13d", hash, part, part, verityOptions, options, d.data.size)
}

// ukiCmdline is the command line in our UKI.
func (d *disk) ukiCmdline() string {
	if d.image.Verity == lock.VerityAddon {
		return d.wanted()
	}
	return d.wanted() + " " + d.rootHash()
}

// addonCmdline is the command line in the addon.
func (d *disk) addonCmdline() string {
	if d.boots().UKI == lock.UKIVendor {
		return d.wanted() + " " + d.rootHash()
	}
	return d.rootHash()
}

// cmdline is the command line as the kernel gets it.
func (d *disk) cmdline() string {
	own := d.wanted() + " " + d.rootHash()
	if d.boots().UKI == lock.UKIVendor {
		own = d.vendorCmdline + " " + d.addonCmdline()
	}
	return strings.TrimSpace(own)
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
