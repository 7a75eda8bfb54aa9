package main

import (
	"bytes"
	"context"
	"crypto/rsa"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"caisson/build"
	"caisson/build/esp"
	"caisson/build/image/authenticode"
	"caisson/build/image/uki"
	"caisson/verify"
)

// readProgram reads an EFI program and what signatures of it are over.
func readProgram(f esp.File) (*uki.Program, [32]byte, error) {
	p, err := uki.Split(f.Content, f.Content.Size())
	if err != nil {
		return nil, [32]byte{}, fmt.Errorf("%s: %w", f.Path, err)
	}
	hash, err := esp.Hash(p)
	if err != nil {
		return nil, hash, fmt.Errorf("%s: %w", f.Path, err)
	}
	return p, hash, nil
}

// programDigest is a program in the result of --digests.
type programDigest struct {
	Path   string         `json:"path"`
	SHA256 string         `json:"sha256"` // Authenticode
	By     []build.Signer `json:"by,omitempty"`
}

func printDigests(ui *ui, programs []esp.File, asJSON bool) error {
	_, signed, err := esp.Sign(programs, esp.Attach(nil))
	if err != nil {
		return err
	}
	all := []programDigest{}
	for _, f := range programs {
		_, hash, err := readProgram(f)
		if err != nil {
			return err
		}
		d := programDigest{Path: f.Path, SHA256: hex.EncodeToString(hash[:])}
		for _, s := range build.SignedPrograms(signed) {
			if s.Path == "/"+f.Path {
				d.By = s.By
			}
		}
		all = append(all, d)
	}
	if asJSON {
		return ui.json(all)
	}
	for _, d := range all {
		ui.print("%s  %s", d.SHA256, d.Path)
	}
	return nil
}

// extractPrograms writes the programs, and beside each what a signature of it
// signs.
func extractPrograms(ui *ui, programs []esp.File, dir string) error {
	for _, f := range programs {
		p, hash, err := readProgram(f)
		if err != nil {
			return err
		}
		attributes, err := authenticode.Attributes(hash)
		if err != nil {
			return err
		}
		name := filepath.Join(dir, filepath.FromSlash(f.Path))
		if !filepath.IsLocal(filepath.FromSlash(f.Path)) {
			return fmt.Errorf("the ESP has a file %q", f.Path)
		}
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		content, err := p.With(p.Signatures) // with the padding that is signed
		if err != nil {
			return err
		}
		b, err := io.ReadAll(content)
		if err != nil {
			return err
		}
		if err := writeFile(name, b); err != nil {
			return err
		}
		if err := writeFile(name+".tosign", attributes); err != nil {
			return err
		}
		ui.print("%s", name)
	}
	return nil
}

// attach reads the signatures that were made elsewhere.
func (o *signBootOptions) attach(programs []esp.File) (esp.Signer, error) {
	var certs authenticode.Certificates
	if o.cert != "" {
		var err error
		if certs, err = o.certificates(); err != nil {
			return nil, err
		}
	}
	made := map[string][]byte{}
	for _, s := range o.signatures {
		name, file, ok := strings.Cut(s, "=")
		if !ok || name == "" || file == "" {
			return nil, usageError{fmt.Errorf("--signature %s: want PROGRAM=FILE", s)}
		}
		f, err := programAt(programs, name)
		if err != nil {
			return nil, err
		}
		if made[f.Path] != nil {
			return nil, usageError{fmt.Errorf("--signature %s: it is the second of this program", s)}
		}
		if made[f.Path], err = readSignature(f, file, certs); err != nil {
			return nil, &codeError{fmt.Errorf("%s: %w", file, err), exitRefused, ""}
		}
	}
	return esp.Attach(made), nil
}

// readSignature reads a signature of a program: PKCS #7 in DER or PEM, the
// program with that signature, or a plain RSA signature by the certificate's
// key. Where there is a certificate, it has to be by that.
func readSignature(f esp.File, file string, certs authenticode.Certificates) ([]byte, error) {
	p, hash, err := readProgram(f)
	if err != nil {
		return nil, err
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, cause(err)
	}
	var der []byte
	switch {
	case bytes.HasPrefix(b, []byte("MZ")):
		der, err = newSignature(p, b)
	case bytes.HasPrefix(b, []byte("-----BEGIN")):
		block, _ := pem.Decode(b)
		if block == nil {
			return nil, errors.New("it is not PEM")
		}
		der = block.Bytes
	case isPlain(b, certs):
		return authenticode.Assemble(hash, certs, b)
	default:
		der = b
	}
	if err != nil {
		return nil, err
	}
	s, err := authenticode.Open(der, hash[:])
	if err != nil {
		return nil, err
	}
	if certs != nil && !s.Signer.Equal(certs[0]) {
		return nil, fmt.Errorf("it is by the certificate of %q, not by that of %q", s.Signer.Subject, certs[0].Subject)
	}
	return der, nil
}

// isPlain tells whether a file has as many bytes as an RSA signature by the
// certificate's key.
func isPlain(b []byte, certs authenticode.Certificates) bool {
	if certs == nil {
		return false
	}
	key, ok := certs[0].PublicKey.(*rsa.PublicKey)
	return ok && len(b) == key.Size()
}

// newSignature is the one signature that a signed copy of a program has more.
func newSignature(p *uki.Program, b []byte) ([]byte, error) {
	q, err := uki.Split(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return nil, err
	}
	same, err := esp.SameBytes(p.Unsigned(), q.Unsigned())
	if err != nil {
		return nil, err
	}
	if !same {
		return nil, errors.New("it is another program")
	}
	var more [][]byte
	for _, der := range q.Signatures {
		if !slices.ContainsFunc(p.Signatures, func(s []byte) bool { return bytes.Equal(s, der) }) {
			more = append(more, der)
		}
	}
	if len(more) != 1 {
		return nil, fmt.Errorf("it has %d signatures more than the image's, want one", len(more))
	}
	return more[0], nil
}

// writeSignedFolder writes all that a build with the key would have left: the
// disk in all its formats, and what describes it.
func writeSignedFolder(ctx context.Context, ui *ui, disk *build.SignedDisk, image, to string) error {
	from := filepath.Dir(image)
	d, err := verify.ReadDescription(from)
	if err != nil {
		return &codeError{fmt.Errorf("there is no description of the image: %w", cause(err)), exitError, "sign the image in the folder that build left, or name a file for --output"}
	}
	img, err := disk.WriteFolder(ctx, &d.Image, image, to)
	if err != nil {
		return err
	}
	if _, err := verify.Describe(to, img); err != nil {
		return err
	}
	ui.print("%s", filepath.Join(to, img.Files[0].Name))
	return nil
}
