package start

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// source is a file to read.
type source struct {
	name string
	kind *kind
}

// kind is a kind of file that is read.
type kind struct {
	what string
	// name is how such files are called, content what is in one that is
	// called otherwise; nil where that tells nothing.
	name, content *regexp.Regexp
	read          func(d *draft, name string, b []byte) error
}

// kinds are all of them, in the order in which they are read: what comes first
// says more of an image, and counts where two say different things.
func kinds() []*kind {
	re := regexp.MustCompile
	return []*kind{
		{"rpms.in.yaml", re(`^rpms\.in\.ya?ml$`), re(`(?m)^contentOrigin:`), (*draft).rpmsIn},
		{"rpms.lock.yaml", re(`^rpms\.lock\.ya?ml$`), re(`(?m)^lockfileVersion:`), (*draft).rpmsLock},
		{"a prefetch-input", re(`^(.*[.-])?prefetch-input(\.json|\.ya?ml)?$`), re(`"type"\s*:\s*"(gomod|cargo|rpm|generic|pip|npm|yarn|bundler)"`), (*draft).prefetchInput},
		{"a kickstart", re(`\.(ks|kickstart)$`), re(`(?m)^%packages\b`), (*draft).kickstart},
		{"mkosi.conf", re(`^mkosi\.conf$`), re(`(?m)^\[(Distribution|Content|Output|Match)\]\s*$`), (*draft).mkosi},
		{"an .aib.yml", re(`\.aib\.ya?ml$`), re(`(?m)^content:`), (*draft).aib},
		{"image-build's config.yaml", nil, re(`(?m)^options:(.*\n)+?\s+['"]?(layer_type|pkg_manager)\b`), (*draft).imageBuild},
		{"a Containerfile", re(`^(Containerfile|Dockerfile)([.-].*)?$|\.(containerfile|dockerfile)$`), re(`(?mi)^FROM\s+\S`), (*draft).containerfile},
	}
}

// find looks at what is named: files, or folders in which there are such.
func find(names []string) ([]source, error) {
	var out []source
	for _, name := range names {
		st, err := os.Stat(name)
		if err != nil {
			return nil, err
		}
		var found []source
		if st.IsDir() {
			found, err = findIn(name)
		} else {
			found, err = recognise(name)
		}
		if err != nil {
			return nil, err
		}
		for _, s := range found {
			if !slices.ContainsFunc(out, func(o source) bool { return filepath.Clean(o.name) == filepath.Clean(s.name) }) {
				out = append(out, s)
			}
		}
	}
	all := kinds()
	rank := func(s source) int { return slices.IndexFunc(all, func(k *kind) bool { return k.what == s.kind.what }) }
	slices.SortStableFunc(out, func(a, b source) int { return rank(a) - rank(b) })
	return out, nil
}

// recognise tells what a file is: by its name, or else by what is in it.
func recognise(name string) ([]source, error) {
	base := filepath.Base(name)
	for _, k := range kinds() {
		if k.name != nil && k.name.MatchString(base) {
			return []source{{name, k}}, nil
		}
	}
	b, err := readFile(name)
	if err != nil {
		return nil, err
	}
	var all []string
	for _, k := range kinds() {
		if k.content.Match(b) {
			return []source{{name, k}}, nil
		}
		all = append(all, k.what)
	}
	return nil, fmt.Errorf("%s: neither its name nor what is in it says what it is; want %s", name, strings.Join(all, ", "))
}

// findIn finds in a folder what is called as it usually is. Of the YAML files
// that are called config.yaml it looks into them.
func findIn(dir string) ([]source, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var out []source
	for _, e := range entries {
		name := filepath.Join(dir, e.Name())
		if st, err := os.Stat(name); errors.Is(err, fs.ErrNotExist) || err == nil && !st.Mode().IsRegular() {
			continue
		}
		for _, k := range kinds() {
			switch {
			case k.name != nil && k.name.MatchString(e.Name()):
			case k.name == nil && (e.Name() == "config.yaml" || e.Name() == "config.yml"):
				b, err := readFile(name)
				if err != nil {
					return nil, err
				}
				if !k.content.Match(b) {
					continue
				}
			default:
				continue
			}
			out = append(out, source{name, k})
			break
		}
	}
	return out, nil
}
