package solve

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"caisson/lock/rpmmd"
)

// pathState is what is known of the paths that primary.xml leaves out.
type pathState struct {
	loaded bool            // the filelists were read for every path in a dependency
	extra  map[string][]id // paths and globs of requests: the packages that have a match
}

// inPrimary reports whether createrepo puts a path into primary.xml. For a
// glob it looks at what comes before the first wildcard.
func inPrimary(path string) bool {
	if i := strings.IndexAny(path, "*?["); i >= 0 {
		path = path[:i]
	}
	return strings.HasPrefix(path, "/etc/") || strings.Contains(path, "bin/") || path == "/usr/lib/sendmail"
}

// indexPaths finds the packages of primary.xml that have a path of some
// dependency.
func (p *Pool) indexPaths() {
	p.byPath = map[int32][]id{}
	odd := p.oddPaths()
	for i := int(firstID); i < len(p.pkgs); i++ {
		for _, path := range p.pkgs[i].Files {
			if n, ok := p.names[path]; ok {
				p.addPath(n, id(i))
			}
			for _, n := range odd[path] {
				p.addPath(n, id(i))
			}
		}
	}
}

// oddPaths returns the names of dependencies that are paths with doubled
// slashes, by the path that they mean.
func (p *Pool) oddPaths() map[string][]int32 {
	var odd map[string][]int32
	for n, text := range p.nameText {
		if !strings.HasPrefix(text, "/") || !strings.Contains(text, "//") || strings.HasSuffix(text, "/") {
			continue
		}
		if odd == nil {
			odd = map[string][]int32{}
		}
		clean := path.Clean(text)
		odd[clean] = append(odd[clean], int32(n))
	}
	return odd
}

func (p *Pool) addPath(name int32, q id) {
	if list := p.byPath[name]; !slices.Contains(list, q) {
		p.byPath[name] = append(list, q)
	}
}

// needsFilelists reports whether primary.xml cannot answer who has the path
// that a dependency names.
func (p *Pool) needsFilelists(n depID) bool {
	d := p.deps[n]
	if d.op != opName {
		return d.op != opNever && (p.needsFilelists(d.left) || p.needsFilelists(d.right))
	}
	name := p.nameText[d.name]
	if p.paths.loaded || !strings.HasPrefix(name, "/") {
		return false
	}
	return !inPrimary(name) || len(p.providers(n)) == 0
}

// pathsOf loads the filelists if one of some dependencies needs them, and
// reports whether it did.
func (p *Pool) pathsOf(lists ...[]depID) (bool, error) {
	for _, list := range lists {
		for _, d := range list {
			if p.needsFilelists(d) {
				return true, p.loadFilelists()
			}
		}
	}
	return false, nil
}

// readFilelists calls visit with every path of every package in the filelists
// of all repositories.
func (p *Pool) readFilelists(visit func(q id, path []byte)) error {
	for r := range p.repos {
		repo := &p.repos[r]
		if repo.Filelists == nil {
			continue
		}
		byDigest := map[string]id{}
		for i := int(firstID); i < len(p.pkgs); i++ {
			if int(p.pkgs[i].repo) == r {
				byDigest[p.pkgs[i].Checksum.Hex] = id(i)
			}
		}
		f, err := repo.Filelists()
		if err != nil {
			return fmt.Errorf("repository %s: opening filelists: %w", repo.ID, err)
		}
		err = rpmmd.ParseFilelists(f, func(pkgID string, path []byte) error {
			if q, ok := byDigest[pkgID]; ok {
				visit(q, path)
			}
			return nil
		})
		f.Close()
		if err != nil {
			return fmt.Errorf("repository %s: %w", repo.ID, err)
		}
	}
	return nil
}

// loadFilelists finds the packages that have a path of some dependency, and
// forgets what was worked out without them.
func (p *Pool) loadFilelists() error {
	p.indexPaths() // again: there may be more names by now
	odd := p.oddPaths()
	err := p.readFilelists(func(q id, path []byte) {
		if n, ok := p.names[string(path)]; ok {
			p.addPath(n, q)
		}
		for _, n := range odd[string(path)] {
			p.addPath(n, q)
		}
	})
	if err != nil {
		return err
	}
	for _, list := range p.byPath {
		slices.Sort(list)
	}
	p.paths.loaded = true
	p.stored = 0
	clear(p.found)
	for i := range p.pkgs {
		p.pkgs[i].rules = nil
	}
	return nil
}

// havePath returns the packages that have a path, or a path that matches a
// glob, ascending.
func (p *Pool) havePath(pattern string) ([]id, error) {
	if list, ok := p.paths.extra[pattern]; ok {
		return list, nil
	}
	var list []id
	add := func(q id, path string) {
		if matchGlob(pattern, path) {
			list = append(list, q)
		}
	}
	for i := int(firstID); i < len(p.pkgs); i++ {
		for _, path := range p.pkgs[i].Files {
			add(id(i), path)
		}
	}
	if !inPrimary(pattern) || len(list) == 0 {
		if err := p.readFilelists(func(q id, path []byte) { add(q, string(path)) }); err != nil {
			return nil, err
		}
	}
	slices.Sort(list)
	list = slices.Compact(list)
	if p.paths.extra == nil {
		p.paths.extra = map[string][]id{}
	}
	p.paths.extra[pattern] = list
	return list, nil
}
