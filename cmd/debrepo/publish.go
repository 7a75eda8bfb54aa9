package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// publish makes the metadata of the packages, signs it, puts it in place, and removes packages that are no longer in it.
func (r *repository) publish(ctx context.Context, old, now state) error {
	files := map[string]bool{}
	newest := time.Time{}
	for _, b := range now.Packages {
		files[b.File] = true
		if b.Built.After(newest) {
			newest = b.Built
		}
	}
	list := strings.Join(sortedKeys(files), "\n")
	now.Published = now.digest()
	repodata := filepath.Join(r.dir, "repodata")
	if _, err := os.Stat(filepath.Join(repodata, "repomd.xml.asc")); err != nil || old.Published != now.Published {
		fmt.Fprintf(r.progress, "debrepo: writing metadata of %d packages\n", len(files))
		fresh, err := r.metadata(ctx, "Packages/"+strings.ReplaceAll(list, "\n", "\nPackages/")+"\n", newest)
		if err != nil {
			return err
		}
		if err := os.Rename(repodata, filepath.Join(r.tmp, "old-repodata")); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if err := os.Rename(fresh, repodata); err != nil {
			return err
		}
	}
	if err := r.prune(files); err != nil {
		return err
	}
	fmt.Fprintf(r.progress, "debrepo: %s has %d packages, signed by %s\n", r.dir, len(files), r.key.fingerprint())
	return r.writeState(now)
}

// digest identifies the set of packages: what they were made from, by what.
func (s state) digest() string {
	var b strings.Builder
	fmt.Fprintln(&b, s.Converter, s.Key)
	for _, from := range sortedKeys(s.Packages) {
		fmt.Fprintln(&b, from, s.Packages[from].File, s.Packages[from].Size)
	}
	sum := sha256.Sum256([]byte(b.String()))
	return hex.EncodeToString(sum[:])
}

// metadata runs createrepo_c over the listed packages and signs the result, as of the newest build time.
func (r *repository) metadata(ctx context.Context, list string, at time.Time) (string, error) {
	names, out := filepath.Join(r.tmp, "packages"), filepath.Join(r.tmp, "metadata")
	if err := writeFile(names, []byte(list), 0o644); err != nil {
		return "", err
	}
	if err := os.Mkdir(out, 0o755); err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, "createrepo_c", "--quiet", "--no-database", "--checksum=sha256",
		"--revision="+strconv.FormatInt(at.Unix(), 10), "--set-timestamp-to-revision", "--pkglist="+names, "--outputdir="+out, r.dir)
	if b, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("createrepo_c: %w: %s", err, bytes.TrimSpace(b))
	}
	repodata := filepath.Join(out, "repodata")
	b, err := os.ReadFile(filepath.Join(repodata, "repomd.xml"))
	if err != nil {
		return "", err
	}
	sig, err := r.key.signArmored(bytes.NewReader(b), at)
	if err != nil {
		return "", fmt.Errorf("signing repomd.xml: %w", err)
	}
	return repodata, writeFile(filepath.Join(repodata, "repomd.xml.asc"), sig, 0o644)
}

func (r *repository) prune(keep map[string]bool) error {
	entries, err := os.ReadDir(filepath.Join(r.dir, "Packages"))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !keep[e.Name()] {
			if err := os.Remove(filepath.Join(r.dir, "Packages", e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}
