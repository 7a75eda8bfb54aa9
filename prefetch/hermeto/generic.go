package hermeto

import (
	"context"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"path/filepath"
	"strings"

	"caisson/lock"
	"caisson/lock/digest"
	"caisson/lock/konflux"
)

// generic is the lock of an artifacts.lock.yaml.
func (p *Plan) generic(ctx context.Context, pkg konflux.PrefetchPackage) (*lock.Lock, error) {
	name := lockfile(pkg)
	if !filepath.IsAbs(name) && !filepath.IsLocal(name) {
		return nil, fmt.Errorf("lockfile %q: want one in the package's folder, or an absolute path", name)
	}
	b, source, err := p.read(pkg, name)
	if err != nil {
		return nil, err
	}
	all, err := konflux.ReadArtifacts(source.Name, b)
	if err != nil {
		return nil, err
	}
	l := &lock.Lock{Sources: []lock.Source{source}}
	for _, a := range all.Artifacts {
		in, err := p.artifact(ctx, a)
		if err != nil {
			return nil, fmt.Errorf("%s: %s: %w", source.Name, a.Filename, err)
		}
		in.For = []lock.Use{{By: source.Name}}
		if old, ok := p.artifacts[a.Filename]; ok && old.URL != a.URL {
			return nil, fmt.Errorf("%s: two files would be called %q", source.Name, a.Filename)
		}
		p.artifacts[a.Filename] = a
		l.Inputs = append(l.Inputs, in)
	}
	return l, nil
}

// artifact pins one file.
func (p *Plan) artifact(ctx context.Context, a konflux.Artifact) (lock.Input, error) {
	in := lock.Input{Kind: lock.KindFile, Name: a.Filename, URL: a.URL, PURL: artifactPURL(a)}
	var err error
	if in.Auth, err = lock.ArtifactAuth(a.Auth); err != nil {
		return in, fmt.Errorf("auth: %w", err)
	}
	in.SHA256, in.Size, err = p.pin(ctx, lock.Want{Kind: lock.KindFile, URL: a.URL, Auth: in.Auth}, a.Checksum)
	return in, err
}

// pin is the SHA-256 of a file, and its size where that is known: the checksum
// itself, or that of the file which has it.
func (p *Plan) pin(ctx context.Context, want lock.Want, checksum string) (digest.Digest, int64, error) {
	var none digest.Digest
	algorithm, sum, _ := strings.Cut(strings.ToLower(checksum), ":")
	var h hash.Hash
	switch algorithm {
	case "sha256":
		d, err := digest.ParseHex(sum)
		return d, 0, err
	case "sha384":
		h = sha512.New384()
	case "sha512":
		h = sha512.New()
	default:
		return none, 0, fmt.Errorf("checksum %q: want sha256, sha384 or sha512; others prove too little, or are not known here", checksum)
	}
	// What had that checksum earlier is not asked for again.
	key := "checksum-1\x00" + algorithm + "\x00" + sum
	if d, ok := p.req.Store.Lookup(key); ok {
		if size, err := p.hash(h, d); err == nil && hex.EncodeToString(h.Sum(nil)) == sum {
			return d, size, nil
		}
		h.Reset()
	}
	blob, err := p.req.Fetch(ctx, want)
	if err != nil {
		return none, 0, err
	}
	size, err := p.hash(h, blob.SHA256)
	if err != nil {
		return none, 0, err
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != sum {
		return none, 0, fmt.Errorf("got %s:%s, want %s", algorithm, got, checksum)
	}
	return blob.SHA256, size, p.req.Store.Remember(key, blob.SHA256)
}

// hash puts a file of the store, which is verified meanwhile, into h.
func (p *Plan) hash(h hash.Hash, d digest.Digest) (size int64, err error) {
	f, err := p.req.Store.Open(d)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return io.Copy(h, f)
}
