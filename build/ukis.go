package build

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"caisson/build/esp"
	"caisson/build/image/gpt"
	"caisson/build/image/uki"
	"caisson/lock"
)

// addonName is the file name of the addon with the root hash.
const addonName = "verity.addon.efi"

// maxKernel bounds a kernel that is unpacked, in bytes.
const maxKernel = 1 << 30

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
	if stub, err := im.StubVersion(); err == nil {
		d.stubVersion, _ = majorVersion(stub)
		if err := d.checkVendorTree(stub); err != nil {
			return espFile{}, fmt.Errorf("/%s: %w", f.path, err)
		}
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
	im, err := uki.Read(stub.content, stub.content.Size())
	if err != nil {
		return espFile{}, fmt.Errorf("reading the stub: %w", err)
	}
	if version, err := im.StubVersion(); err == nil {
		d.stubVersion, _ = majorVersion(version)
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

// addonStub is the stub that the addon is made of: a package's, or our own.
func (d *disk) addonStub(root *installed) (*bootFile, error) {
	given := d.boots().Files.Addon
	stub, err := d.bootFile(root, fileAddon, given)
	if given != "" || !errors.As(err, new(*absentError)) {
		return stub, err
	}
	code, err := uki.AddonStub(d.machine.pe)
	if err != nil {
		return nil, err
	}
	return &bootFile{
		content: io.NewSectionReader(bytes.NewReader(code), 0, int64(len(code))), path: "(our own)",
		how: func() (origin, error) { return origin{}, nil },
	}, nil
}

// addon is the addon with the root hash.
func (d *disk) addon(root *installed) (espFile, error) {
	stub, err := d.addonStub(root)
	if err != nil {
		return espFile{}, err
	}
	code := make([]byte, min(stub.content.Size(), 1<<20+1)) // more is too much for an addon's stub
	if _, err := stub.content.ReadAt(code, 0); err != nil {
		return espFile{}, fmt.Errorf("reading /%s: %w", stub.path, err)
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
