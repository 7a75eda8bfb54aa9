// Package rpmmd reads the metadata of an RPM repository: repomd.xml, which
// names the other files and their digests, primary.xml (the packages),
// filelists.xml (the paths that primary leaves out), comps.xml (groups and
// environments), modules.yaml (module streams) and updateinfo.xml (advisories);
// and what says where a repository lies: metalinks and lists of mirrors.
//
// Limits first. It reads the dialect that createrepo, createrepo_c and Pulp
// write, with its own scanner, because encoding/xml is too slow for sixty
// megabytes: UTF-8 only, the five predefined entities and character
// references only, elements nested at most 64 deep, one tag or one text of at
// most 1 MiB. A document type with an internal subset is refused, so no
// entity is ever expanded. Namespace prefixes are taken as createrepo writes
// them ("rpm:entry"), not resolved. No zchunk. Signatures, digests and the network are
// the caller's.
//
// All readers take plain or compressed bytes (gzip, zstd, xz, bzip2, told by
// their magic), and stop with an error at a limit of decompressed bytes. An
// error names the kind of file, the line and the byte offset in the
// decompressed text.
package rpmmd

import (
	"fmt"
	"net/url"
	"strings"
)

// Limits of decompressed bytes. Fedora's primary.xml, the largest in common
// use, has about 250 MB.
const (
	MaxRepomd    = 16 << 20
	MaxPrimary   = 1 << 30
	MaxFilelists = 4 << 30
	MaxComps     = 64 << 20
	MaxModules   = 128 << 20
)

// Checksum is a digest as the metadata states it.
type Checksum struct {
	Algorithm string // "sha256", "sha512"; "sha" means SHA-1
	Hex       string // lower case
}

// hexLengths are the digests that metadata may name, with the length of their
// hexadecimal form.
var hexLengths = map[string]int{"md5": 32, "sha": 40, "sha1": 40, "sha224": 56, "sha256": 64, "sha384": 96, "sha512": 128}

// check refuses an algorithm that nobody knows and a digest of the wrong length.
func (c Checksum) check() error {
	want, ok := hexLengths[c.Algorithm]
	if !ok {
		return fmt.Errorf("unknown checksum type %q", c.Algorithm)
	}
	if len(c.Hex) != want {
		return fmt.Errorf("checksum %q has %d digits, want %d for %s", c.Hex, len(c.Hex), want, c.Algorithm)
	}
	for i := 0; i < len(c.Hex); i++ {
		if d := c.Hex[i]; (d < '0' || d > '9') && (d < 'a' || d > 'f') {
			return fmt.Errorf("checksum %q is not lower-case hexadecimal", c.Hex)
		}
	}
	return nil
}

// checkHref refuses a location that is not a path below the repository:
// empty, absolute, with a scheme or host, or with a ".." element, also where
// it is percent-encoded.
func checkHref(href string) error {
	plain, err := url.PathUnescape(href)
	if err != nil {
		plain = href // a stray percent sign is part of the name
	}
	for _, h := range []string{href, plain} {
		switch {
		case h == "":
			return fmt.Errorf("location is empty")
		case h[0] == '/' || strings.ContainsRune(h, '\\'):
			return fmt.Errorf("location %q is not a relative path", href)
		}
		first, _, _ := strings.Cut(h, "/")
		if strings.Contains(first, ":") {
			return fmt.Errorf("location %q has a scheme", href)
		}
		for part := range strings.SplitSeq(h, "/") {
			if part == ".." {
				return fmt.Errorf("location %q leaves the repository", href)
			}
		}
	}
	return nil
}
