package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"caisson/build"
	"caisson/build/esp"
	"caisson/build/image/authenticode"
	"caisson/verify"
)

type signBootOptions struct {
	bootKey
	out, extract         string
	programs, signatures []string
	digests, asJSON      bool
}

func newSignBootCommand(ui *ui) *cobra.Command {
	var o signBootOptions
	c := &cobra.Command{
		Use:   "sign-boot IMAGE -o OUT --key FILE --cert FILE",
		Short: "Sign an image's EFI programs for Secure Boot, and change nothing else",
		Long: `Sign-boot adds Secure Boot signatures to the EFI programs of an image that
Caisson built: those that have none yet, or those that --program names. It writes
the same image with the signatures: to a file, or with all that describes it to a
folder, as a build with --secure-boot-key leaves one. The signature has no time in
it, so that the same key gives the same image. Signing again changes nothing.

Keys are RSA, which is what firmware and shim verify, in PEM and not encrypted:
files, or env://NAME. A key that is elsewhere, in an HSM, signs in two steps:
--extract writes the programs, for sbsign --detached, pesign or osslsigncode, and
for each a file .tosign, of which a plain RSA signature (PKCS #1 v1.5, SHA-256) is
enough; --signature takes what came of it: PKCS #7, a signed program, or with
--cert the plain signature.`,
		Example: `  caisson sign-boot out/podvm.qcow2 -o signed/ --key db.key --cert db.pem
  caisson sign-boot out/podvm.qcow2 --digests
  caisson sign-boot out/podvm.qcow2 --extract tosign/
  openssl dgst -sha256 -sign db.key -out sig tosign/EFI/BOOT/BOOTX64.EFI.tosign
  caisson sign-boot out/podvm.qcow2 -o signed/ --cert db.pem --signature EFI/BOOT/BOOTX64.EFI=sig`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return runSignBoot(cmd.Context(), ui, &o, args[0]) },
	}
	f := c.Flags()
	f.StringVarP(&o.out, "output", "o", "", "the signed image, or a folder for it (one that exists, or a name that ends in /)")
	f.StringVar(&o.key, "key", "", "the key: a file or env://NAME")
	f.StringVar(&o.cert, "cert", "", "its certificate, and those that lead to one that machines know")
	f.StringArrayVar(&o.programs, "program", nil, "sign this program, also where it has a signature; may be repeated")
	f.StringArrayVar(&o.signatures, "signature", nil, "PROGRAM=FILE: a signature made elsewhere; may be repeated")
	f.BoolVar(&o.digests, "digests", false, "print the programs' Authenticode digests (SHA-256), and sign nothing")
	f.StringVar(&o.extract, "extract", "", "write the programs, and what is to be signed, into this folder, and sign nothing")
	f.BoolVar(&o.asJSON, "json", false, "print the digests as JSON")
	return c
}

func (o *signBootOptions) check() error {
	looks := o.digests || o.extract != ""
	signs := o.key != "" || len(o.signatures) > 0
	switch {
	case looks && (signs || o.out != "" || o.cert != "" || len(o.programs) > 0):
		return errors.New("--digests and --extract sign nothing: leave the other flags out")
	case o.digests && o.extract != "":
		return errors.New("want --digests or --extract")
	case o.asJSON && !o.digests:
		return errors.New("--json belongs to --digests")
	case looks:
		return nil
	case o.key != "" && len(o.signatures) > 0:
		return errors.New("want --key or --signature")
	case !signs:
		return errors.New("want --key with --cert, or --signature; --digests and --extract say what there is to sign")
	case len(o.programs) > 0 && o.key == "":
		return errors.New("--program belongs to --key: a --signature names its program")
	case o.out == "":
		return errors.New("want --output: the image itself is not changed")
	}
	return nil
}

func runSignBoot(ctx context.Context, ui *ui, o *signBootOptions, image string) error {
	if err := o.check(); err != nil {
		return usageError{err}
	}
	if err := wantFile(image); err != nil {
		return err
	}
	disk, err := verify.OpenDisk(image)
	if err != nil {
		return err
	}
	defer disk.Close()
	_, files, _, err := build.ReadESP(disk, disk.Size)
	if err != nil {
		return fmt.Errorf("%s: %w", image, err)
	}
	programs := slices.DeleteFunc(files, func(f esp.File) bool { return f.Program == 0 })
	switch {
	case o.digests:
		return printDigests(ui, programs, o.asJSON)
	case o.extract != "":
		return extractPrograms(ui, programs, o.extract)
	}
	sign, err := o.signer(programs)
	if err != nil {
		return err
	}
	return o.sign(ctx, ui, image, disk, sign)
}

// signer is by the key, or adds what was signed elsewhere.
func (o *signBootOptions) signer(programs []esp.File) (esp.Signer, error) {
	for _, p := range o.programs {
		if _, err := programAt(programs, p); err != nil {
			return nil, err
		}
	}
	if len(o.signatures) > 0 {
		return o.attach(programs)
	}
	key, err := o.load()
	if err != nil {
		return nil, err
	}
	return esp.ByKey(key, o.programs), nil
}

// programAt is the program of that path; case is ignored, as firmware does.
func programAt(programs []esp.File, name string) (esp.File, error) {
	var all []string
	for _, p := range programs {
		if strings.EqualFold(p.Path, strings.TrimPrefix(name, "/")) {
			return p, nil
		}
		all = append(all, p.Path)
	}
	return esp.File{}, fmt.Errorf("the image has no EFI program %q: it has %s", name, strings.Join(all, ", "))
}

// sign writes the signed image.
func (o *signBootOptions) sign(ctx context.Context, ui *ui, image string, disk *verify.Disk, sign esp.Signer) error {
	folder := strings.HasSuffix(o.out, "/")
	if st, err := os.Stat(o.out); err == nil && st.IsDir() {
		folder = true
	}
	dir := filepath.Dir(o.out)
	if folder {
		dir = o.out
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	same, err := sameFolder(dir, filepath.Dir(image))
	switch {
	case err != nil:
		return err
	case same && (folder || filepath.Base(o.out) == filepath.Base(image)):
		return usageError{fmt.Errorf("%s would take the place of the image that is signed: want another output", o.out)}
	}
	scratch, err := os.CreateTemp(dir, ".sign-")
	if err != nil {
		return err
	}
	defer os.Remove(scratch.Name())
	defer scratch.Close()
	signed, err := build.SignDisk(disk, disk.Size, sign, scratch)
	switch {
	case errors.Is(err, esp.ErrOther):
		return &codeError{fmt.Errorf("%s: %w", image, err), exitError, "another tool has changed it: --extract writes its programs, to be signed and put back with that tool"}
	case err != nil:
		return fmt.Errorf("%s: %w", image, err)
	}
	if err := o.tell(ui, signed.Programs); err != nil {
		return err
	}
	if folder {
		return writeSignedFolder(ctx, ui, signed, image, dir)
	}
	if err := signed.WriteFile(ctx, o.out, disk.Format); err != nil {
		return err
	}
	ui.print("%s", o.out)
	return nil
}

// tell says what came of each program. That there was nothing to sign is an
// error where nothing of it is by the key.
func (o *signBootOptions) tell(ui *ui, programs []esp.Signed) error {
	by := func(s *authenticode.Signature) string { return s.Signer.Subject.String() }
	ours := false
	for _, p := range programs {
		var names []string
		for _, s := range p.By {
			names = append(names, by(s))
		}
		switch {
		case p.Added:
			padded := ""
			if p.Padded {
				padded = "; padded to a multiple of 8 bytes, so that its hash is another, and PCR 4"
			}
			ui.stage("%s: signed by %s%s", p.Path, names[len(names)-1], padded)
		case len(names) > 0:
			ui.stage("%s: as it was, signed by %s", p.Path, strings.Join(names, " and "))
		default:
			ui.stage("%s: as it was", p.Path)
		}
		ours = ours || p.Added
	}
	if ours || o.key == "" {
		return nil
	}
	certs, err := o.certificates()
	if err != nil {
		return err
	}
	for _, p := range programs {
		if slices.ContainsFunc(p.By, func(s *authenticode.Signature) bool { return s.Signer.Equal(certs[0]) }) {
			return nil // it is signed already
		}
	}
	return &codeError{errors.New("every EFI program is signed already, and none by this key"), exitError, "--program names one that is to have one more signature"}
}

func sameFolder(a, b string) (bool, error) {
	x, err := os.Stat(a)
	if err != nil {
		return false, err
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y), err
}
