package lock

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"

	"caisson/lock/digest"
)

// maxSums is the largest file of checksums, and maxSumsSignature the largest
// signature of one, in bytes.
const (
	maxSums          = 16 << 20
	maxSumsSignature = 1 << 20
)

// checksum is what a file of checksums has for one file.
type checksum struct {
	sha256 digest.Digest
	sha512 []byte // nil where there is a SHA-256
}

// findChecksum fetches the checksums of a file, checks who signed them, and
// looks the file up.
func (r *resolver) findChecksum(ctx context.Context, f ManifestFile, key *sumsKey) (checksum, error) {
	text, err := r.fetchSmall(ctx, f, f.Sums.URL, maxSums)
	if err != nil {
		return checksum{}, err
	}
	var signature []byte
	if f.Sums.Signature != "" {
		if signature, err = r.fetchSmall(ctx, f, f.Sums.Signature, maxSumsSignature); err != nil {
			return checksum{}, err
		}
	}
	if text, err = r.checkSums(key, text, signature); err != nil {
		return checksum{}, fmt.Errorf("the signature of %s: %w", f.Sums.URL, err)
	}
	sum, err := parseSums(text, fileName(f.URL))
	if err != nil {
		return checksum{}, fmt.Errorf("%s: %w", f.Sums.URL, err)
	}
	return sum, nil
}

// checkSums checks the signature and returns what is signed: of a clear-signed
// message only that.
func (r *resolver) checkSums(key *sumsKey, text, signature []byte) ([]byte, error) {
	if key.public != nil {
		if signature == nil {
			return nil, errors.New("a public key of cosign's needs a signature beside the checksums")
		}
		return text, key.check(text, signature)
	}
	if signature == nil {
		if r.SplitClearSigned == nil {
			return nil, errors.New("it has to be clear-signed, and nothing here reads that")
		}
		var err error
		if text, signature, err = r.SplitClearSigned(text); err != nil {
			return nil, err
		}
	}
	return text, r.CheckSignature([][]byte{key.openPGP}, bytes.NewReader(text), bytes.NewReader(signature))
}

// fetchSmall reads a file that belongs to a file input. Its login is used
// where it lies on the same host.
func (r *resolver) fetchSmall(ctx context.Context, f ManifestFile, at string, limit int64) ([]byte, error) {
	name := filepath.Join(r.Dir, filepath.FromSlash(at))
	if isURL(at) {
		w := Want{Kind: KindFile, URL: at, Max: limit}
		if sameHost(at, f.URL) {
			w.Auth = f.Auth
		}
		blob, err := r.Fetch(ctx, w)
		if err != nil {
			return nil, err
		}
		name = blob.Path
	}
	b, err := readFileMax(name, limit)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", at, err)
	}
	return b, nil
}

func sameHost(a, b string) bool {
	x, err := url.Parse(a)
	if err != nil {
		return false
	}
	y, err := url.Parse(b)
	return err == nil && x.Scheme == y.Scheme && x.Host == y.Host
}

// fileName is the last element of an address's path.
func fileName(address string) string {
	if u, err := url.Parse(address); err == nil && isURL(address) {
		return path.Base(u.Path)
	}
	return path.Base(address)
}

// fetchSHA512 fetches a file that only a SHA-512 names, to learn its SHA-256.
func (r *resolver) fetchSHA512(ctx context.Context, f ManifestFile, want []byte, in *Input) error {
	name := filepath.Join(r.Dir, filepath.FromSlash(f.URL))
	if isURL(f.URL) {
		r.say("fetching %s, whose checksum is a SHA-512", f.Name)
		blob, err := r.Fetch(ctx, Want{Kind: KindFile, URL: f.URL, Mirrors: f.Mirrors, Auth: f.Auth})
		if err != nil {
			return err
		}
		name, in.SHA256, in.Size = blob.Path, blob.SHA256, blob.Size
	}
	file, err := os.Open(name)
	if err != nil {
		return err
	}
	defer file.Close()
	h := sha512.New()
	if _, err := io.Copy(h, file); err != nil {
		return err
	}
	if got := h.Sum(nil); !bytes.Equal(got, want) {
		return fmt.Errorf("%s: got sha512:%x, want sha512:%x", f.URL, got, want)
	}
	return nil
}

// bsdSumRE is a line of sha256sum --tag.
var bsdSumRE = regexp.MustCompile(`^([A-Za-z0-9-]+) ?\((.+)\) ?= ?([0-9A-Fa-f]+)$`)

// parseSums finds a file's checksum in what sha256sum or sha512sum wrote, in
// either of their forms: "HEX  NAME" or "HEX *NAME", and "SHA256 (NAME) =
// HEX". Other lines are comments. A SHA-256 goes before a SHA-512; two of the
// same kind that differ are an error.
func parseSums(text []byte, name string) (checksum, error) {
	var sums = map[string][]byte{} // by algorithm
	s := bufio.NewScanner(bytes.NewReader(text))
	s.Buffer(make([]byte, 64<<10), maxSums)
	for n := 1; s.Scan(); n++ {
		algorithm, hash, ok := parseSumLine(strings.TrimRight(s.Text(), "\r"), name)
		if !ok {
			continue
		}
		b, err := hex.DecodeString(hash)
		if err != nil {
			return checksum{}, fmt.Errorf("line %d: %q is not in hex", n, hash)
		}
		if other, ok := sums[algorithm]; ok && !bytes.Equal(other, b) {
			return checksum{}, fmt.Errorf("line %d: %s has two %s checksums, %x and %x", n, name, algorithm, other, b)
		}
		sums[algorithm] = b
	}
	if err := s.Err(); err != nil {
		return checksum{}, err
	}
	if b, ok := sums["SHA256"]; ok {
		return checksum{sha256: digest.Digest(b)}, nil
	}
	if b, ok := sums["SHA512"]; ok {
		return checksum{sha512: b}, nil
	}
	for algorithm := range sums {
		return checksum{}, fmt.Errorf("for %s it has only a checksum that proves nothing or is not known (%s); want SHA-256 or SHA-512", name, algorithm)
	}
	return checksum{}, fmt.Errorf("it has no checksum of %q", name)
}

// parseSumLine reads a line, if it is about that file.
func parseSumLine(line, name string) (algorithm, hash string, ok bool) {
	if m := bsdSumRE.FindStringSubmatch(line); m != nil {
		if strings.TrimPrefix(m[2], "./") != name {
			return "", "", false
		}
		algorithm, hash = strings.ReplaceAll(strings.ToUpper(m[1]), "-", ""), m[3]
		if want, known := map[string]int{"SHA256": 64, "SHA512": 128}[algorithm]; known && len(hash) != want {
			return "a damaged " + algorithm, "", true
		}
		return algorithm, hash, true
	}
	hash, rest, found := strings.Cut(line, " ")
	if !found || rest == "" || rest[0] != ' ' && rest[0] != '*' || strings.TrimPrefix(rest[1:], "./") != name {
		return "", "", false
	}
	switch len(hash) {
	case 64:
		return "SHA256", hash, true
	case 128:
		return "SHA512", hash, true
	}
	return fmt.Sprintf("%d digits", len(hash)), "", true
}
