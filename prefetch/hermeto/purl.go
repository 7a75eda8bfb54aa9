package hermeto

import (
	"fmt"
	"net/url"
	"slices"
	"strings"

	"caisson/lock/konflux"
)

// purl is a package URL as Python's packageurl writes it, for Hermeto's are
// written by that: names are not changed, a slash in them is not escaped.
func purl(typ, namespace, name, version string, qualifiers map[string]string, subpath string) string {
	var b strings.Builder
	b.WriteString("pkg:" + typ + "/")
	if namespace != "" {
		b.WriteString(quote(namespace) + "/")
	}
	b.WriteString(quote(name))
	if version != "" {
		b.WriteString("@" + quote(version))
	}
	var keys []string
	for k, v := range qualifiers {
		if v != "" {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	for i, k := range keys {
		b.WriteByte("?&"[min(i, 1)])
		b.WriteString(k + "=" + quote(qualifiers[k]))
	}
	if subpath != "" {
		b.WriteString("#" + quote(subpath))
	}
	return b.String()
}

// quote is Python's urllib.parse.quote, with the colon left as it is.
func quote(s string) string {
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("_.-~/:", c) >= 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// artifactPURL is that of a file of artifacts.lock.yaml.
func artifactPURL(a konflux.Artifact) string {
	if m := a.Maven; m != nil {
		return purl("maven", m.GroupID, m.ArtifactID, m.Version, map[string]string{
			"type": m.Type, "repository_url": webURL(m.RepositoryURL), "checksum": a.Checksum, "classifier": m.Classifier,
		}, "")
	}
	return purl("generic", "", base(a.Filename), "", map[string]string{"download_url": webURL(a.URL), "checksum": a.Checksum}, "")
}

// webURL is an address as the WHATWG's URL Standard writes it, which Hermeto
// does, without a name and a password.
func webURL(s string) string {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" {
		return s
	}
	u.User = nil
	u.Host = strings.ToLower(u.Host)
	u.Host = strings.TrimSuffix(u.Host, map[string]string{"http": ":80", "https": ":443"}[u.Scheme])
	u.RawQuery = strings.ReplaceAll(u.RawQuery, " ", "%20")
	if u.Path == "" {
		u.Path = "/"
	}
	if strings.Contains(u.Path, "/.") {
		u = u.ResolveReference(u)
	}
	return u.String()
}

// base is the last element of a slash-separated path.
func base(p string) string { return p[strings.LastIndexByte(p, '/')+1:] }
