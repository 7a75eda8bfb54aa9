package main

import (
	"encoding/json"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

// ruleData is what Conforma's rules are given (its rule_data).
type ruleData struct {
	KnownRepositories []string            `json:"known_rpm_repositories"`
	Sources           map[string][]string `json:"allowed_package_sources"`
	ProxyTypes        []string            `json:"proxy_enabled_purl_types"`
	Proxies           map[string][]string `json:"allowed_proxy_url_patterns"`
	Attributes        []string            `json:"disallowed_attributes"` // names
}

// prefetched is a package as the rules see it, of either format.
type prefetched struct {
	purl       string
	found      bool     // by Hermeto
	sources    []string // that allowed_package_sources is about
	proxies    []string
	attributes []string
}

// cmdConforma applies the conditions of Conforma's rules for prefetched
// packages (policy/release: sbom_cyclonedx, sbom_spdx, rpm_repos;
// policy/lib/sbom: sbom.rego, rpm.rego) to an SBOM. With "!" some rule has to
// deny it. What they deny is printed on standard output.
func cmdConforma(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: conforma SBOM RULEDATA")
	}
	var data ruleData
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[1])), &data))
	var denied []string
	deny := func(rule, format string, a ...any) { denied = append(denied, rule+": "+fmt.Sprintf(format, a...)) }
	all := readPrefetched(ts, []byte(ts.ReadFile(args[0])), deny)
	matches := func(patterns []string, s string) bool {
		return slices.ContainsFunc(patterns, func(p string) bool { return regexp.MustCompile(p).MatchString(s) })
	}
	for _, p := range all {
		typ, version, qualifiers := parsePURL(ts, p.purl)
		if !p.found {
			deny("found_by_hermeto", "%s", p.purl)
			continue
		}
		for _, s := range p.sources {
			if !matches(data.Sources[typ], s) {
				deny("allowed_package_sources", "%s from %s", p.purl, s)
			}
		}
		if typ == "rpm" && !slices.Contains(data.KnownRepositories, qualifiers.Get("repository_id")) {
			deny("rpm_repos.ids_known", "%s", p.purl)
		}
		for _, a := range p.attributes {
			if slices.Contains(data.Attributes, a) {
				deny("disallowed_package_attributes", "%s has %s", p.purl, a)
			}
		}
		// is_registry_dependency
		if !slices.Contains(data.ProxyTypes, typ) || qualifiers.Has("download_url") || qualifiers.Has("vcs_url") || typ == "golang" && version == "" {
			continue
		}
		if len(p.proxies) == 0 {
			deny("proxy_metadata_required", "%s", p.purl)
		}
		for _, u := range p.proxies {
			if !matches(data.Proxies[typ], u) {
				deny("allowed_proxy_urls", "%s by %s", p.purl, u)
			}
		}
	}
	_, err := fmt.Fprintln(ts.Stdout(), strings.Join(denied, "\n"))
	ts.Check(err)
	switch {
	case len(all) == 0:
		ts.Fatalf("the SBOM has no packages")
	case neg && len(denied) == 0:
		ts.Fatalf("nothing is denied")
	case !neg && len(denied) > 0:
		ts.Fatalf("denied")
	}
}

func readPrefetched(ts *testscript.TestScript, b []byte, deny func(rule, format string, a ...any)) []prefetched {
	type property struct {
		Name  string `json:"name"`
		Value string `json:"value"`
	}
	var doc struct {
		SpecVersion string `json:"specVersion"`
		Components  []struct {
			PURL       string     `json:"purl"`
			Properties []property `json:"properties"`
			References []struct {
				URL, Type, Comment string
			} `json:"externalReferences"`
		} `json:"components"`
		Annotations []struct{ Text string } `json:"annotations"`
		ID          string                  `json:"SPDXID"`
		Packages    []struct {
			ID          string `json:"SPDXID"`
			SourceInfo  string `json:"sourceInfo"`
			Annotations []struct {
				Annotator, Comment string
				Type               string `json:"annotationType"`
			} `json:"annotations"`
			References []struct {
				Type     string `json:"referenceType"`
				Category string `json:"referenceCategory"`
				Locator  string `json:"referenceLocator"`
			} `json:"externalRefs"`
		} `json:"packages"`
	}
	ts.Check(json.Unmarshal(b, &doc))
	var out []prefetched
	for _, c := range doc.Components {
		p := prefetched{purl: c.PURL}
		for _, prop := range c.Properties {
			p.found = p.found || prop == property{"hermeto:found_by", "hermeto"}
			p.attributes = append(p.attributes, prop.Name)
		}
		for _, r := range c.References {
			if r.Type != "distribution" {
				continue
			}
			p.sources = append(p.sources, r.URL)
			if r.Comment == "proxy URL" {
				p.proxies = append(p.proxies, r.URL)
			}
		}
		out = append(out, p)
	}
	if len(doc.Components) > 0 && !slices.Contains([]string{"1.4", "1.5", "1.6"}, doc.SpecVersion) {
		deny("cdx_supported_version", "%s", doc.SpecVersion)
	}
	for _, a := range doc.Annotations {
		if strings.HasPrefix(a.Text, "hermeto:backend:experimental:") {
			deny("experimental_hermeto_backend", "%s", a.Text)
		}
	}
	for _, c := range doc.Packages {
		if len(c.References) == 0 {
			continue // the root
		}
		p := prefetched{proxies: strings.FieldsFunc(c.SourceInfo, func(r rune) bool { return r == ';' })}
		for _, a := range c.Annotations {
			p.found = p.found || regexp.MustCompile(`.*hermeto.*`).MatchString(a.Annotator) && a.Type == "OTHER"
			var prop property
			if json.Unmarshal([]byte(a.Comment), &prop) == nil {
				p.attributes = append(p.attributes, prop.Name)
			}
			if a.Annotator == "Tool: hermeto:backend" && strings.HasPrefix(a.Comment, "hermeto:backend:experimental:") {
				deny("experimental_hermeto_backend", "%s", a.Comment)
			}
		}
		for _, r := range c.References {
			if r.Type != "purl" || r.Category != "PACKAGE-MANAGER" {
				continue
			}
			p.purl = r.Locator
			if _, _, q := parsePURL(ts, p.purl); q.Has("download_url") {
				p.sources = append(p.sources, q.Get("download_url"))
			}
		}
		out = append(out, p)
	}
	return out
}

// parsePURL is a package URL's type, version and qualifiers.
func parsePURL(ts *testscript.TestScript, s string) (typ, version string, qualifiers url.Values) {
	rest, ok := strings.CutPrefix(s, "pkg:")
	if !ok {
		ts.Fatalf("%q is no package URL", s)
	}
	rest, _, _ = strings.Cut(rest, "#")
	rest, query, _ := strings.Cut(rest, "?")
	typ, rest, _ = strings.Cut(rest, "/")
	_, version, _ = strings.Cut(rest, "@")
	qualifiers, err := url.ParseQuery(query)
	ts.Check(err)
	return typ, version, qualifiers
}
