package facts

import (
	"archive/tar"
	"archive/zip"
	"bufio"
	"cmp"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/BurntSushi/toml"
	"github.com/google/licensecheck"

	"caisson/attest/spdx"
	"caisson/lock/license"
)

// minPercent is how much of a licence file has to be of known licences, for
// these to be its licences: as pkg.go.dev has it.
const minPercent = 75

// ofModule reads the licence of a Go module from its zip.
func ofModule(r io.ReaderAt, size int64, prefix string) (spdx.Facts, error) {
	z, err := zip.NewReader(r, size)
	if err != nil {
		return spdx.Facts{}, fmt.Errorf("reading the module's zip: %w", err)
	}
	var files []*zip.File
	for _, f := range z.File {
		if name, ok := strings.CutPrefix(f.Name, prefix); ok && isLicenseFile(name) {
			files = append(files, f)
		}
	}
	slices.SortFunc(files, func(a, b *zip.File) int { return strings.Compare(a.Name, b.Name) })
	var names, texts []string
	for _, f := range files {
		text, err := zipText(f)
		if err != nil {
			return spdx.Facts{}, err
		}
		names, texts = append(names, path.Base(f.Name)), append(texts, text)
	}
	return spdx.Facts{Text: classify(names, texts)}, nil
}

func zipText(f *zip.File) (string, error) {
	in, err := f.Open()
	if err != nil {
		return "", fmt.Errorf("reading %s: %w", f.Name, err)
	}
	defer in.Close()
	return readText(f.Name, in)
}

// isLicenseFile tells whether a file at the top of a module is its licence.
func isLicenseFile(name string) bool {
	base, ext := strings.ToUpper(name), ""
	if i := strings.LastIndexByte(base, '.'); i > 0 {
		base, ext = base[:i], base[i:]
	}
	switch base {
	case "LICENSE", "LICENCE", "COPYING", "UNLICENSE":
		return ext == "" || ext == ".TXT" || ext == ".MD"
	}
	return ext == "" && (strings.HasPrefix(base, "LICENSE-") || strings.HasPrefix(base, "LICENCE-"))
}

// common are the licences that texts are compared with: those that nearly all
// Go modules have. To know all that licensecheck has takes it a second and 90 MB; a
// module of another licence has its text quoted.
var common = [...]string{
	"0BSD", "AGPL-3.0", "AGPL-3.0-only", "AGPL-3.0-or-later", "Apache-2.0", "BSD-1-Clause", "BSD-2-Clause", "BSD-2-Clause-Patent",
	"BSD-3-Clause", "BSD-3-Clause-Clear", "BSD-4-Clause", "BSL-1.0", "BlueOak-1.0.0", "CC-BY-4.0", "CC-BY-SA-4.0", "CC0-1.0", "CDDL-1.0",
	"EPL-1.0", "EPL-2.0", "EUPL-1.2", "GPL-2.0", "GPL-2.0-only", "GPL-2.0-or-later", "GPL-3.0", "GPL-3.0-only", "GPL-3.0-or-later", "ISC",
	"LGPL-2.1", "LGPL-2.1-only", "LGPL-2.1-or-later", "LGPL-3.0", "LGPL-3.0-only", "LGPL-3.0-or-later", "MIT", "MIT-0", "MPL-2.0",
	"NCSA", "OFL-1.1", "OpenSSL", "PostgreSQL", "Unicode-DFS-2016", "Unlicense", "WTFPL", "Zlib",
}

// scanner compares texts with the common licences. It is made once, of
// constants: licensecheck's patterns, which it compiles.
var scanner = sync.OnceValue(func() *licensecheck.Scanner {
	var patterns []licensecheck.License
	for _, l := range licensecheck.BuiltinLicenses() {
		if l.LRE != "" && slices.Contains(common[:], l.ID) {
			patterns = append(patterns, l)
		}
	}
	s, err := licensecheck.NewScanner(patterns)
	if err != nil {
		panic(err) // a pattern of that module that it does not compile itself
	}
	return s
})

// classify compares the texts with the known licences. Several files may be a
// choice, or hold together: only one file says which licence it is.
func classify(names, texts []string) *spdx.LicenseText {
	if len(texts) == 0 {
		return nil
	}
	all := strings.Join(texts, "\n")
	cov := scanner().Scan([]byte(all))
	out := &spdx.LicenseText{File: strings.Join(names, " and "), Percent: cov.Percent, Text: all}
	var ids []string
	for _, m := range cov.Match {
		if !m.IsURL && !slices.Contains(ids, m.ID) {
			ids = append(ids, m.ID)
		}
	}
	if len(ids) == 0 || cov.Percent < minPercent || len(texts) > 1 && len(ids) > 1 {
		return out
	}
	if e := license.Parse(strings.Join(ids, " AND ")); len(e.Refs) == 0 {
		out.License = e.SPDX
	}
	return out
}

// manifest is what of a crate's Cargo.toml counts here.
type manifest struct {
	Package struct {
		Description string `toml:"description"`
		Homepage    string `toml:"homepage"`
		Repository  string `toml:"repository"`
		License     string `toml:"license"`
		LicenseFile string `toml:"license-file"`
	} `toml:"package"`
}

// ofCrate reads the manifest of a crate, NAME-VERSION/Cargo.toml in it.
func ofCrate(r io.Reader, folder string) (spdx.Facts, error) {
	zr, err := gzip.NewReader(bufio.NewReader(r))
	if err != nil {
		return spdx.Facts{}, fmt.Errorf("reading the crate: %w", err)
	}
	texts := map[string]string{}
	for tr := tar.NewReader(zr); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return spdx.Facts{}, fmt.Errorf("reading the crate: %w", err)
		}
		name, ok := strings.CutPrefix(path.Clean(h.Name), folder+"/")
		if !ok || h.Typeflag != tar.TypeReg || name != "Cargo.toml" && !isLicenseFile(name) {
			continue
		}
		if texts[name], err = readText(h.Name, tr); err != nil {
			return spdx.Facts{}, err
		}
	}
	var m manifest
	if err := toml.Unmarshal([]byte(texts["Cargo.toml"]), &m); err != nil {
		return spdx.Facts{}, fmt.Errorf("reading %s/Cargo.toml: %w", folder, err)
	}
	f := spdx.Facts{
		Summary: m.Package.Description,
		URL:     cmp.Or(m.Package.Homepage, m.Package.Repository),
		License: strings.ReplaceAll(m.Package.License, "/", " OR "), // the older form of a choice
	}
	if text := texts[path.Clean(m.Package.LicenseFile)]; f.License == "" && text != "" {
		f.Text = classify([]string{m.Package.LicenseFile}, []string{text})
	}
	return f, nil
}
