package view

import (
	"cmp"
	"context"
	"fmt"
	"net/url"
	"path"
	"slices"
	"strings"

	"caisson/lock"
)

// NoRepo is the folder of packages that an imported lock gives no repository.
const NoRepo = "unaffiliated"

// repoArch is one repository as one arch sees it.
type repoArch struct {
	id, arch string
}

// RPM puts the packages of a lock below dir: dir/ARCH/REPO is a repository
// with repodata, for every arch and repository. A package has the base name of
// its address. Primary, filelists and other are made from the packages'
// headers, once, and then remembered in the store; the groups, modules and
// advisories that were locked are taken over as they are.
func (t *Tree) RPM(ctx context.Context, dir string, l *lock.Lock) error {
	repos := map[repoArch]*repository{}
	for i := range l.Inputs {
		in := &l.Inputs[i]
		if in.Kind != lock.KindRPM && in.Kind != lock.KindRepodata {
			continue
		}
		for _, arch := range inputArches(l, in) {
			at := repoArch{cmp.Or(in.Repo, NoRepo), arch}
			r := repos[at]
			if r == nil {
				r = &repository{tree: t, dir: path.Join(dir, arch, at.id), epoch: l.Epoch}
				repos[at] = r
			}
			if in.Kind == lock.KindRPM {
				r.packages = append(r.packages, in)
				continue
			}
			typ, _, _ := strings.Cut(strings.TrimPrefix(in.Name, in.Repo+"-"+arch+"/"), "#")
			if keepData[typ] && !slices.ContainsFunc(r.data, func(d repoData) bool { return d.typ == typ }) {
				r.data = append(r.data, repoData{typ: typ, input: in})
			}
		}
	}
	for at, r := range repos {
		if len(r.packages) == 0 {
			continue
		}
		if !filepathSafe(at.id) || !filepathSafe(at.arch) {
			return fmt.Errorf("laying out repository %q (%s): the name is no folder's", at.id, at.arch)
		}
		if err := r.write(ctx); err != nil {
			return fmt.Errorf("laying out repository %q (%s): %w", at.id, at.arch, err)
		}
	}
	return nil
}

// keepData are the types of metadata that are taken over.
var keepData = map[string]bool{"group": true, "group_gz": true, "modules": true, "updateinfo": true}

func filepathSafe(s string) bool {
	return s != "" && s != "." && s != ".." && s != "repos.d" && !strings.ContainsAny(s, "/\\\x00\n")
}

// inputArches are the arches that an input serves.
func inputArches(l *lock.Lock, in *lock.Input) []string {
	var out []string
	for _, u := range in.For {
		if u.Arch == "" {
			return l.Arches
		}
		out = append(out, u.Arch)
	}
	if len(out) == 0 {
		return l.Arches
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// RPMFile is the file name of a package: the last part of its address.
func RPMFile(in *lock.Input) (string, error) {
	name := in.URL
	if strings.Contains(name, "://") {
		u, err := url.Parse(name)
		if err != nil {
			return "", fmt.Errorf("%s: %w", in.Name, err)
		}
		name = u.Path
	}
	name = path.Base(name)
	if !strings.HasSuffix(name, ".rpm") {
		return "", fmt.Errorf("%s: its address %q does not end in the name of a package", in.Name, in.URL)
	}
	return name, nil
}

// RepoFiles puts dir/ARCH/repos.d/caisson.repo beside what RPM put below dir,
// for dnf: the repositories at their place, their keys, and whether packages
// have to be signed. at is where dir will be read.
func (t *Tree) RepoFiles(dir, at string, l *lock.Lock) error {
	files := map[string]*strings.Builder{}
	for _, r := range l.Repos {
		if _, ok := t.entries[path.Join(dir, r.Arch, r.ID, repomdName)]; !ok {
			continue
		}
		var keys []string
		for i := range l.Inputs {
			in := &l.Inputs[i]
			if in.Kind != lock.KindKey || !slices.ContainsFunc(in.Fingerprints(), func(f string) bool { return slices.Contains(r.Keys, f) }) {
				continue
			}
			name := path.Join("keys", in.SHA256.Hex()[:16]+".asc")
			if err := t.Link(path.Join(dir, name), in); err != nil {
				return err
			}
			keys = append(keys, FileURL(path.Join(at, name)))
		}
		b := files[r.Arch]
		if b == nil {
			b = &strings.Builder{}
			files[r.Arch] = b
		}
		fmt.Fprintf(b, "[%s]\nname=%s\nbaseurl=%s\nenabled=1\ngpgcheck=%d\nrepo_gpgcheck=0\npriority=%d\n",
			r.ID, r.ID, FileURL(path.Join(at, r.Arch, r.ID)+"/"), flag(r.GPGCheck), cmp.Or(r.Priority, 99))
		if r.ModuleHotfixes {
			b.WriteString("module_hotfixes=1\n")
		}
		if len(keys) > 0 {
			fmt.Fprintf(b, "gpgkey=%s\n", strings.Join(keys, " "))
		}
		b.WriteByte('\n')
	}
	for arch, b := range files {
		if err := t.File(path.Join(dir, arch, "repos.d/caisson.repo"), []byte(b.String())); err != nil {
			return err
		}
	}
	return nil
}

func flag(b bool) int {
	if b {
		return 1
	}
	return 0
}

// FileURL is the address of an absolute path.
func FileURL(p string) string { return (&url.URL{Scheme: "file", Path: p}).String() }
