package konflux

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"caisson/lock/internal/strictyaml"
)

// PrefetchInput is what Hermeto is asked to fetch (its fetch-deps argument,
// which Konflux calls prefetch-input).
type PrefetchInput struct {
	Packages []PrefetchPackage
	// Flags are "cgo-disable" and others that Hermeto accepts and passes over.
	Flags []string
}

// PrefetchPackage is one entry: a folder and the kind of what it asks for.
type PrefetchPackage struct {
	Type string // gomod, cargo, rpm or generic
	Path string // slash-separated, cleaned, below the project's folder
	// IncludeSummary is rpm's include_summary_in_sbom.
	IncludeSummary bool
	// SSLClientCert, SSLClientKey and SSLCACert are paths of PEM files, of
	// rpm's options.ssl; SSLVerify is nil where it does not say.
	SSLClientCert, SSLClientKey, SSLCACert string
	SSLVerify                              *bool
	// DNF has the options for each repository id, of rpm's options.dnf.
	DNF map[string]map[string]string
	// BinaryArch is rpm's binary.arch: names joined by commas; empty for all.
	BinaryArch string
	// Lockfile is generic's, relative to Path or absolute; empty for
	// artifacts.lock.yaml.
	Lockfile string
}

// prefetchTypes are the types that Caisson fetches, prefetchOthers those that
// only Hermeto does.
var (
	prefetchTypes  = []string{"cargo", "generic", "gomod", "rpm"}
	prefetchOthers = []string{"bundler", "npm", "pip", "pnpm", "x-maven", "yarn"}
	prefetchFlags  = []string{"cgo-disable", "dev-package-managers", "force-gomod-tidy", "gomod-vendor", "gomod-vendor-check"}
)

// The keys of an input (hermeto/core/models/input.py).
type (
	prefetchFile struct {
		Packages []prefetchEntry `yaml:"packages"`
		Flags    []string        `yaml:"flags"`
	}
	prefetchEntry struct {
		Type           string          `yaml:"type"`
		Path           *string         `yaml:"path"`
		IncludeSummary bool            `yaml:"include_summary_in_sbom"`
		Options        *prefetchOption `yaml:"options"`
		Binary         *prefetchBinary `yaml:"binary"`
		Lockfile       string          `yaml:"lockfile"`
	}
	prefetchOption struct {
		DNF map[string]map[string]any `yaml:"dnf"`
		SSL struct {
			ClientCert string `yaml:"client_cert"`
			ClientKey  string `yaml:"client_key"`
			CABundle   string `yaml:"ca_bundle"`
			Verify     *bool  `yaml:"ssl_verify"`
		} `yaml:"ssl"`
	}
	prefetchBinary struct {
		Arch *string `yaml:"arch"`
	}
)

// ReadPrefetchInput reads a prefetch input: the name of a type, one package,
// a list of packages, or packages and flags; JSON, or the same as YAML. name
// is how errors call it. A package that Caisson cannot fetch is an error, for
// without it less would be fetched than was asked for.
func ReadPrefetchInput(name string, b []byte) (*PrefetchInput, error) {
	if len(b) > maxFile {
		return nil, fmt.Errorf("%s: more than the %d bytes that are read", name, maxFile)
	}
	if json.Valid(b) {
		b = bytes.ReplaceAll(b, []byte{'\t'}, []byte{' '}) // YAML has no tabs here, and no JSON text holds one
	}
	var f prefetchFile
	doc, err := decodePrefetch(name, b, &f)
	if err != nil {
		return nil, err
	}
	out := &PrefetchInput{}
	var errs []error
	for i := range f.Packages {
		p, err := f.Packages[i].check()
		if err != nil {
			errs = append(errs, doc.fail(i, err))
			continue
		}
		same := func(o PrefetchPackage) bool { return o.Type == p.Type && o.Path == p.Path }
		if j := slices.IndexFunc(out.Packages, same); j < 0 {
			out.Packages = append(out.Packages, p)
		} else if !reflect.DeepEqual(out.Packages[j], p) {
			errs = append(errs, doc.fail(i, fmt.Errorf("%s in %q is there twice, with other options", p.Type, p.Path)))
		}
	}
	if len(f.Packages) == 0 {
		errs = append(errs, fmt.Errorf("%s: no packages; want at least one", name))
	}
	for _, flag := range f.Flags {
		flag = strings.TrimSpace(flag)
		if !slices.Contains(prefetchFlags, flag) {
			errs = append(errs, fmt.Errorf("%s: flag %q is none of %s", name, flag, strings.Join(prefetchFlags, ", ")))
		}
		out.Flags = append(out.Flags, flag)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return out, nil
}

// prefetchDoc is an input in one of its four forms.
type prefetchDoc struct {
	*strictyaml.Doc
	path []any // of the package with index 0, or of the list
	list bool
}

func (d *prefetchDoc) fail(i int, err error) error {
	if d.list {
		return d.Errorf(append(slices.Clip(d.path), i), "%w", err)
	}
	return fmt.Errorf("%s: %w", d.At(d.path), err)
}

func decodePrefetch(name string, b []byte, f *prefetchFile) (*prefetchDoc, error) {
	var root yaml.Node
	if err := yaml.NewDecoder(bytes.NewReader(b)).Decode(&root); err != nil && !errors.Is(err, io.EOF) || root.Kind != yaml.DocumentNode {
		doc, err := strictyaml.Decode(name, b, f) // says what is wrong, and where
		return &prefetchDoc{Doc: doc, path: []any{"packages"}, list: true}, err
	}
	top := root.Content[0]
	switch top.Kind {
	case yaml.ScalarNode:
		f.Packages = []prefetchEntry{{Type: strings.TrimSpace(top.Value)}}
		doc, err := strictyaml.Decode(name, b, new(yaml.Node))
		return &prefetchDoc{Doc: doc}, err
	case yaml.SequenceNode:
		doc, err := strictyaml.Decode(name, b, &f.Packages)
		return &prefetchDoc{Doc: doc, list: true}, err
	}
	for i := 0; i+1 < len(top.Content); i += 2 {
		if top.Content[i].Value == "packages" {
			doc, err := strictyaml.Decode(name, b, f)
			return &prefetchDoc{Doc: doc, path: []any{"packages"}, list: true}, err
		}
	}
	f.Packages = make([]prefetchEntry, 1)
	doc, err := strictyaml.Decode(name, b, &f.Packages[0])
	return &prefetchDoc{Doc: doc}, err
}

func (e *prefetchEntry) check() (PrefetchPackage, error) {
	p := PrefetchPackage{Type: e.Type, Path: ".", IncludeSummary: e.IncludeSummary, Lockfile: e.Lockfile}
	if slices.Contains(prefetchOthers, e.Type) {
		return p, fmt.Errorf("type %q is Hermeto's and not fetched by Caisson, which does %s", e.Type, strings.Join(prefetchTypes, ", "))
	}
	if !slices.Contains(prefetchTypes, e.Type) {
		return p, fmt.Errorf("type %q is none of %s", e.Type, strings.Join(prefetchTypes, ", "))
	}
	if e.Path != nil {
		p.Path = path.Clean(*e.Path)
	}
	if path.IsAbs(p.Path) || slices.Contains(strings.Split(p.Path, "/"), "..") {
		return p, fmt.Errorf("path %q: want a folder below the project's", *e.Path)
	}
	if e.Type != "rpm" && (e.IncludeSummary || e.Options != nil || e.Binary != nil) {
		return p, fmt.Errorf("include_summary_in_sbom, options and binary belong to rpm, not to %s", e.Type)
	}
	if e.Type != "generic" && e.Lockfile != "" {
		return p, fmt.Errorf("lockfile belongs to generic, not to %s", e.Type)
	}
	if e.Binary != nil && e.Binary.Arch != nil {
		for a := range strings.SplitSeq(*e.Binary.Arch, ",") {
			if a = strings.TrimSpace(a); a != "" && !slices.Contains(strings.Split(p.BinaryArch, ","), a) {
				p.BinaryArch = strings.TrimPrefix(p.BinaryArch+","+a, ",")
			}
		}
		if p.BinaryArch == "" {
			return p, errors.New("binary.arch: it names no arch")
		}
		if slices.Contains(strings.Split(p.BinaryArch, ","), ":all:") {
			p.BinaryArch = ""
		}
	}
	return p, e.options(&p)
}

func (e *prefetchEntry) options(p *PrefetchPackage) error {
	if e.Options == nil {
		return nil
	}
	s := e.Options.SSL
	if (s.ClientCert == "") != (s.ClientKey == "") {
		return errors.New("options.ssl: client_cert and client_key belong together")
	}
	p.SSLClientCert, p.SSLClientKey, p.SSLCACert, p.SSLVerify = s.ClientCert, s.ClientKey, s.CABundle, s.Verify
	if len(e.Options.DNF) > 0 {
		p.DNF = map[string]map[string]string{}
	}
	for repo, o := range e.Options.DNF {
		options, err := stringify(o)
		if err != nil {
			return fmt.Errorf("options.dnf.%s: %w", repo, err)
		}
		p.DNF[repo] = options
	}
	return nil
}
