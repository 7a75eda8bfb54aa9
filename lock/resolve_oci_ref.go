package lock

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"

	"caisson/lock/digest"
)

var (
	// ociRepoRE is a repository's name and ociTagRE a tag (distribution-spec
	// 1.1, "Pulling manifests").
	ociRepoRE = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)
	ociTagRE  = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)
	ociHostRE = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?(\.[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?)*$`)
)

// maxOCIName is how long the names of a registry and of a repository may be.
const maxOCIName = 255

// What an OCIAddress is of.
const (
	OCIManifests = "manifests"
	OCIBlobs     = "blobs"
	OCIReferrers = "referrers"
)

// OCIAddress is where a part of an image lies in a registry. Its text is
// "oci://HOST/REPOSITORY/KIND/ID", as the paths of distribution-spec 1.1 have
// it.
type OCIAddress struct {
	Host       string // a name or an IP address, and a port where one was given
	Repository string
	Kind       string // OCIManifests, OCIBlobs or OCIReferrers
	// ID is a digest, or the tag of a manifest.
	ID string
}

// String is the address as ParseOCIAddress reads it.
func (a OCIAddress) String() string {
	return "oci://" + a.Host + "/" + a.Repository + "/" + a.Kind + "/" + a.ID
}

// Digest is that of what lies there; false where the address ends in a tag or
// is of referrers.
func (a OCIAddress) Digest() (digest.Digest, bool) {
	d, err := digest.Parse(a.ID)
	return d, err == nil && a.Kind != OCIReferrers
}

// ParseOCIAddress reads the address of a part of an image.
func ParseOCIAddress(s string) (OCIAddress, error) {
	rest, ok := strings.CutPrefix(s, "oci://")
	parts := strings.Split(rest, "/")
	if !ok || len(parts) < 4 {
		return OCIAddress{}, fmt.Errorf("%q is not oci://HOST/REPOSITORY/manifests/DIGEST or .../blobs/DIGEST", s)
	}
	n := len(parts)
	a := OCIAddress{Host: parts[0], Repository: strings.Join(parts[1:n-2], "/"), Kind: parts[n-2], ID: parts[n-1]}
	if err := checkOCIName(a.Host, a.Repository); err != nil {
		return OCIAddress{}, fmt.Errorf("%q: %w", s, err)
	}
	_, err := digest.Parse(a.ID)
	switch a.Kind {
	case OCIManifests:
		if err != nil && ociTagRE.MatchString(a.ID) {
			err = nil
		}
	case OCIBlobs, OCIReferrers:
	default:
		return OCIAddress{}, fmt.Errorf("%q is of %q; want manifests, blobs or referrers", s, a.Kind)
	}
	if err != nil {
		return OCIAddress{}, fmt.Errorf("%q ends in %q; want sha256: and 64 hex digits", s, a.ID)
	}
	return a, nil
}

func checkOCIName(host, repo string) error {
	name, port := host, ""
	if i := strings.LastIndexByte(host, ':'); i > strings.LastIndexByte(host, ']') {
		name, port = host[:i], host[i+1:]
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return fmt.Errorf("%q is not a port", port)
		}
	}
	ip, bracket := strings.CutPrefix(name, "[")
	if bracket {
		a, err := netip.ParseAddr(strings.TrimSuffix(ip, "]"))
		if err != nil || !a.Is6() || a.Zone() != "" || !strings.HasSuffix(ip, "]") {
			return fmt.Errorf("%q is not an IP address", name)
		}
	} else if len(name) > maxOCIName || !ociHostRE.MatchString(name) {
		return fmt.Errorf("%q is not the name of a registry", name)
	}
	if len(repo) > maxOCIName || !ociRepoRE.MatchString(repo) {
		return fmt.Errorf("%q is not the name of a repository: want lower-case letters and digits, with '.', '_', '-' and '/' between them", repo)
	}
	return nil
}

// imageRef is an image as a manifest names it.
type imageRef struct {
	host, repo string
	tag        string        // empty where there is only a digest
	digest     digest.Digest // zero where there is only a tag
}

// parseImageRef reads REGISTRY/REPOSITORY:TAG, ...@sha256:HEX, or both. The
// registry must be named, as no default is the same everywhere, and so must
// the tag.
func parseImageRef(s string) (imageRef, error) {
	var r imageRef
	name, sum, hasDigest := strings.Cut(s, "@")
	if hasDigest {
		var err error
		if r.digest, err = parseOCIDigest(sum); err != nil {
			return imageRef{}, fmt.Errorf("%q: %w", s, err)
		}
	}
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		name, r.tag = name[:i], name[i+1:]
		if !ociTagRE.MatchString(r.tag) {
			return imageRef{}, fmt.Errorf("%q: %q is not a tag", s, r.tag)
		}
	}
	var ok bool
	if r.host, r.repo, ok = strings.Cut(name, "/"); !ok || r.host != "localhost" && !strings.ContainsAny(r.host, ".:") {
		return imageRef{}, fmt.Errorf("%q names no registry; want such as quay.io/org/image:tag", s)
	}
	if err := checkOCIName(r.host, r.repo); err != nil {
		return imageRef{}, fmt.Errorf("%q: %w", s, err)
	}
	if r.tag == "" && !hasDigest {
		return imageRef{}, fmt.Errorf("%q has neither a tag nor a digest", s)
	}
	return r, nil
}

func (r imageRef) at(kind, id string) string {
	return OCIAddress{Host: r.host, Repository: r.repo, Kind: kind, ID: id}.String()
}

// errNotSHA256 says that something is named by another hash.
var errNotSHA256 = errors.New(`want "sha256:" and 64 lower-case hex digits; Caisson pins by SHA-256 only`)

func parseOCIDigest(s string) (digest.Digest, error) {
	d, err := digest.Parse(s)
	if err != nil {
		return d, fmt.Errorf("digest %q: %w", s[:min(len(s), 200)], errNotSHA256)
	}
	return d, nil
}
