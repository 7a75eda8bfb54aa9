package lock

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"caisson/lock/digest"
)

// files pins the file inputs: by the SHA-256 that the manifest has, or by that
// of a signed file of checksums.
func (r *resolver) files(ctx context.Context) error {
	for _, f := range r.m.Inputs.Files {
		in, err := r.file(ctx, f)
		if err == nil {
			err = ctx.Err()
		}
		if err == nil {
			err = r.add(in)
		}
		if err != nil {
			return fmt.Errorf("inputs.files: %s: %w", f.Name, err)
		}
	}
	return nil
}

func (r *resolver) file(ctx context.Context, f ManifestFile) (Input, error) {
	in := Input{Kind: KindFile, Name: f.Name, URL: f.URL, Mirrors: f.Mirrors, Auth: f.Auth, For: []Use{{By: "inputs.files " + f.Name}}}
	if f.SHA256 != "" {
		d, err := parseSHA256(f.SHA256)
		if err != nil {
			return in, err
		}
		in.SHA256 = d
	}
	if f.Sums != nil {
		if err := r.checksummed(ctx, f, &in); err != nil {
			return in, err
		}
	}
	if !isURL(f.URL) {
		d, n, err := digestFile(filepath.Join(r.Dir, f.URL))
		if err != nil {
			return in, err
		}
		if !in.SHA256.IsZero() && in.SHA256 != d {
			return in, fmt.Errorf("%s has %s, want %s", f.URL, d, in.SHA256)
		}
		in.SHA256, in.Size = d, n
	}
	if in.SHA256.IsZero() {
		return in, errors.New("it has neither a sha256 nor sums")
	}
	in.PURL = "pkg:generic/" + f.Name + "?checksum=" + in.SHA256.String()
	return in, nil
}

// checksummed gives a file the SHA-256 that the checksums have for it. What
// the lock there was has from the same checksums, by the same key, holds.
func (r *resolver) checksummed(ctx context.Context, f ManifestFile, in *Input) error {
	key, err := r.readSumsKey(f.Sums.Key)
	if err != nil {
		return err
	}
	in.Verified = &Verified{Key: key.fingerprint, What: "checksums", From: f.Sums.URL}
	old := r.old(KindFile, f.Name)
	if old != nil && old.URL == f.URL && old.Verified != nil && *old.Verified == *in.Verified && !slices.Contains(r.Update, f.Name) {
		in.SHA256, in.Size = old.SHA256, old.Size
		return nil
	}
	r.say("reading the checksums of %s", f.Name)
	sum, err := r.findChecksum(ctx, f, key)
	if err != nil {
		return err
	}
	if sum.sha512 == nil {
		in.SHA256 = sum.sha256
		return nil
	}
	return r.fetchSHA512(ctx, f, sum.sha512, in)
}

func digestFile(name string) (digest.Digest, int64, error) {
	f, err := os.Open(name)
	if err != nil {
		return digest.Digest{}, 0, err
	}
	defer f.Close()
	return digest.Reader(f)
}
