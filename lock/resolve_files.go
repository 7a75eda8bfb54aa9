package lock

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"caisson/lock/digest"
)

// files pins the file inputs.
func (r *resolver) files(ctx context.Context) error {
	for _, f := range r.m.Inputs.Files {
		in := Input{Kind: KindFile, Name: f.Name, URL: f.URL, For: []Use{{By: "inputs.files " + f.Name}}}
		if f.SHA256 != "" {
			d, err := parseSHA256(f.SHA256)
			if err != nil {
				return fmt.Errorf("inputs.files: %s: %w", f.Name, err)
			}
			in.SHA256 = d
		}
		if !isURL(f.URL) {
			d, n, err := digestFile(filepath.Join(r.Dir, f.URL))
			if err != nil {
				return fmt.Errorf("inputs.files: %s: %w", f.Name, err)
			}
			if !in.SHA256.IsZero() && in.SHA256 != d {
				return fmt.Errorf("inputs.files: %s: %s has %s, want %s", f.Name, f.URL, d, in.SHA256)
			}
			in.SHA256, in.Size = d, n
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		in.PURL = "pkg:generic/" + f.Name + "?checksum=" + in.SHA256.String()
		if err := r.add(in); err != nil {
			return err
		}
	}
	return nil
}

func digestFile(name string) (digest.Digest, int64, error) {
	f, err := os.Open(name)
	if err != nil {
		return digest.Digest{}, 0, err
	}
	defer f.Close()
	return digest.Reader(f)
}
