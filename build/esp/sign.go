package esp

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"

	"caisson/build/image/authenticode"
	"caisson/build/image/uki"
)

// Signer makes the signature to add to an EFI program whose signatures so far,
// and whose hash with the padding that goes before them, are those; nil where
// it is left as it is.
type Signer func(path string, hash [32]byte, signatures [][]byte) ([]byte, error)

// Signed is an EFI program, and what became of it.
type Signed struct {
	Path string
	// Added tells whether a signature was added, and Padded whether that took
	// padding, which its hash covers: what is measured of it is another then.
	Added, Padded bool
	// By are its signatures now, but for those of kinds that are not known.
	By []*authenticode.Signature
}

// ByKey signs programs by a key: those named, ignoring case, and where none is,
// those that have no signature yet. A program that the key has signed already
// is left as it is.
func ByKey(key *authenticode.Key, names []string) Signer {
	return func(path string, hash [32]byte, signatures [][]byte) ([]byte, error) {
		named := slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, path) })
		if !named && (len(names) > 0 || len(signatures) > 0) {
			return nil, nil
		}
		for _, der := range signatures {
			if s, err := authenticode.Open(der, hash[:]); err == nil && s.Signer.Equal(key.Certificates[0]) {
				return nil, nil
			}
		}
		return key.Sign(hash)
	}
}

// Attach adds signatures that were made elsewhere, by the paths of their
// programs.
func Attach(made map[string][]byte) Signer {
	return func(path string, _ [32]byte, signatures [][]byte) ([]byte, error) {
		der := made[path]
		if slices.ContainsFunc(signatures, func(s []byte) bool { return string(s) == string(der) }) {
			return nil, nil
		}
		return der, nil
	}
}

// Sign has the EFI programs among the files signed. What the signer adds must
// be a signature of the program.
func Sign(files []File, sign Signer) ([]File, []Signed, error) {
	var out []File
	var all []Signed
	for _, f := range files {
		if f.Program == 0 {
			out = append(out, f)
			continue
		}
		f, s, err := signOne(f, sign)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", f.Path, err)
		}
		out, all = append(out, f), append(all, s)
	}
	return out, all, nil
}

func signOne(f File, sign Signer) (File, Signed, error) {
	done := Signed{Path: f.Path}
	p, err := uki.Split(f.Content, f.Content.Size())
	if err != nil {
		return f, done, err
	}
	hash, err := Hash(p)
	if err != nil {
		return f, done, err
	}
	for _, der := range p.Signatures {
		if s, err := authenticode.Open(der, hash[:]); err == nil {
			done.By = append(done.By, s)
		}
	}
	der, err := sign(f.Path, hash, p.Signatures)
	if err != nil || der == nil {
		return f, done, err
	}
	s, err := authenticode.Open(der, hash[:])
	if err != nil {
		return f, done, err
	}
	done.Added, done.By = true, append(done.By, s)
	done.Padded = len(p.Signatures) == 0 && p.Size != f.Content.Size()
	f.Content, err = p.With(append(slices.Clip(p.Signatures), der))
	return f, done, err
}

// SignBytes is an EFI program with the signature that a signer adds.
func SignBytes(path string, program []byte, sign Signer) ([]byte, error) {
	f, err := Program(path, io.NewSectionReader(bytes.NewReader(program), 0, int64(len(program))))
	if err != nil {
		return nil, err
	}
	files, _, err := Sign([]File{f}, sign)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(files[0].Content)
}

// Hash is what signatures of a program are over: its Authenticode hash, with
// the padding that goes before signatures.
func Hash(p *uki.Program) ([32]byte, error) {
	r := p.Unsigned()
	return uki.Authenticode(r, r.Size())
}
