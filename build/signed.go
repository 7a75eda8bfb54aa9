package build

import (
	"fmt"
	"io"
	"slices"

	"caisson/build/image/esp"
	"caisson/build/rootfs"
	"caisson/lock/digest"
)

// SignedProgram is an EFI program that is signed for Secure Boot.
type SignedProgram struct {
	Path string `json:"path"` // on the ESP, absolute
	// By are the certificates of those who signed it.
	By []Signer `json:"by"`
}

// Signer is who signed an EFI program, by the certificate in the signature.
type Signer struct {
	Subject string        `json:"subject"`
	SHA256  digest.Digest `json:"sha256"` // of the certificate
}

// SignedPrograms are those of the programs that have a signature.
func SignedPrograms(all []esp.Signed) []SignedProgram {
	var out []SignedProgram
	for _, s := range all {
		p := SignedProgram{Path: "/" + s.Path}
		for _, by := range s.By {
			p.By = append(p.By, Signer{Subject: by.Signer.Subject.String(), SHA256: digest.Of(by.Signer.Raw)})
		}
		if len(p.By) > 0 {
			out = append(out, p)
		}
	}
	return out
}

// NoteSigned gives the accounts of the ESP's files what signing changed.
func NoteSigned(files []File, programs []esp.File, signed []esp.Signed) error {
	added := map[string]bool{}
	for _, s := range signed {
		added["/"+s.Path] = s.Added
	}
	for _, p := range programs {
		i := slices.IndexFunc(files, func(f File) bool { return f.Part == "esp" && f.Path == "/"+p.Path })
		if i < 0 {
			return fmt.Errorf("/%s of the ESP has no account", p.Path)
		}
		f := &files[i]
		if !added[f.Path] {
			continue
		}
		if err := f.read(p.Content); err != nil {
			return err
		}
		how := signedOrigin(origin{account: f.Account, inputs: f.Inputs, by: f.By})
		f.Account, f.By = how.account, how.by
	}
	return nil
}

// read fills in the size and the digests of a file's content.
func (f *File) read(content *io.SectionReader) error {
	var e rootfs.Entry
	if err := e.Read(io.NewSectionReader(content, 0, content.Size())); err != nil {
		return fmt.Errorf("reading %s: %w", f.Path, err)
	}
	f.Size, f.SHA256, f.SHA1 = e.Size, &e.SHA256, e.SHA1
	return nil
}
