package main

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"os"
	"path"
	"regexp"
	"strings"
	"time"

	"caisson/cmd/debrepo/rpmwrite"
)

// convert reads a .deb into an RPM package whose contents lie in spill.
func convert(ctx context.Context, deb string, spill *os.File) (*rpmwrite.Package, error) {
	d, err := readControl(ctx, deb)
	if err != nil {
		return nil, err
	}
	p, err := identity(d.fields)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", deb, err)
	}
	if err := dependencies(p, d.fields); err != nil {
		return nil, fmt.Errorf("%s: %w", deb, err)
	}
	t := tree{name: p.Name, conffiles: d.conffiles, spill: spill, byPath: map[string]int{}}
	if err := debTar(ctx, "--fsys-tarfile", deb, t.add); err != nil {
		return nil, err
	}
	if err := t.finish(p); err != nil {
		return nil, fmt.Errorf("%s: %w", deb, err)
	}
	p.Requires = append(p.Requires, rpmwrite.Dep{Name: "setup", Sense: rpmwrite.Pre})
	if err := addScripts(p, d.postinst); err != nil {
		return nil, fmt.Errorf("%s: %w", deb, err)
	}
	return p, nil
}

var arches = map[string]string{"all": "noarch", "amd64": "x86_64", "arm64": "aarch64"}

// identity is what the control fields say of the package itself.
func identity(c control) (*rpmwrite.Package, error) {
	v, err := parseVersion(c["Version"])
	if err != nil {
		return nil, err
	}
	arch, ok := arches[c["Architecture"]]
	if !ok {
		return nil, fmt.Errorf("architecture %q has no name in rpm that is known here", c["Architecture"])
	}
	// "Source: NAME (VERSION)", both only where they are not the package's own.
	source, sourceVersion, different := strings.Cut(c["Source"], "(")
	source = strings.TrimSpace(source)
	if source == "" {
		source = c["Package"]
	}
	sv := v
	if different {
		if sv, err = parseVersion(strings.TrimRight(sourceVersion, ") ")); err != nil {
			return nil, fmt.Errorf("source: %w", err)
		}
	}
	summary, description := describe(c["Description"])
	return &rpmwrite.Package{
		Name: c["Package"], Epoch: v.epoch, Version: v.version, Release: v.release, Arch: arch,
		Summary: summary, Description: description,
		License: "see /usr/share/doc/" + c["Package"] + "/copyright",
		Group:   "Debian/" + c["Section"],
		Vendor:  "Debian", URL: c["Homepage"],
		SourceRPM: fmt.Sprintf("%s-%s-%s.src.rpm", source, sv.version, sv.release),
		BuildHost: "debian",
	}, nil
}

// describe splits a Description field: a line of summary, and lines indented by a space, "." for an empty one (Policy 5.6.13).
func describe(field string) (summary, description string) {
	summary, rest, _ := strings.Cut(field, "\n")
	var lines []string
	for line := range strings.Lines(rest) {
		line = strings.TrimSuffix(strings.TrimPrefix(line, " "), "\n")
		if line == "." {
			line = ""
		}
		lines = append(lines, line)
	}
	if len(lines) == 0 {
		return summary, summary
	}
	return summary, strings.Join(lines, "\n")
}

// tree collects the files of a data archive.
type tree struct {
	name      string
	conffiles map[string]bool
	spill     *os.File // contents, one after the other
	offset    int64
	files     []rpmwrite.File
	byPath    map[string]int // in files
	newest    time.Time
	copyright []byte // the beginning of the copyright file
}

// leftOut is a unit that runs ldconfig, which no package here has: Debian's loader finds libraries without its cache.
const leftOut = "ldconfig.service"

// maxCopyright is how much of a copyright file is looked at.
const maxCopyright = 1 << 20

func (t *tree) add(h *tar.Header, r io.Reader) error {
	if h.ModTime.After(t.newest) {
		t.newest = h.ModTime
	}
	f := rpmwrite.File{
		Path: rpmPath(h.Name), Mode: uint32(h.Mode & 0o7777), MTime: h.ModTime.Truncate(time.Second),
		Owner: ownerName(h.Uname, h.Uid), Group: ownerName(h.Gname, h.Gid),
	}
	if f.Path == "/" || path.Base(f.Path) == leftOut {
		return nil
	}
	switch h.Typeflag {
	case tar.TypeDir:
		if filesystemHas(f.Path) {
			return nil
		}
		f.Mode |= rpmwrite.TypeDir
	case tar.TypeSymlink:
		f.Mode = rpmwrite.TypeLink | 0o777
		f.Target = h.Linkname
	case tar.TypeLink:
		return t.addHardLink(f, rpmPath(h.Linkname))
	case tar.TypeReg:
		f.Mode |= rpmwrite.TypeRegular
		if err := t.addContent(&f, h.Size, r); err != nil {
			return err
		}
	default:
		return fmt.Errorf("a %q entry: neither file, directory nor link", h.Typeflag)
	}
	if f.Mode&rpmwrite.TypeMask != rpmwrite.TypeDir {
		f.Flags = t.flags(f.Path)
	}
	if o, ok := overrides[f.Path]; ok {
		f.Mode, f.Owner, f.Group = f.Mode&^0o7777|o.mode, o.owner, o.group
	}
	return t.put(f)
}

// put adds a file; a path that merging /usr made twice is an error unless it is a directory, or a symbolic link to itself.
func (t *tree) put(f rpmwrite.File) error {
	i, twice := t.byPath[f.Path]
	if !twice {
		t.byPath[f.Path] = len(t.files)
		t.files = append(t.files, f)
		return nil
	}
	old := t.files[i]
	pointsHere := func(l rpmwrite.File) bool {
		target := l.Target
		if !path.IsAbs(target) {
			target = path.Join(path.Dir(l.Path), target)
		}
		return l.Mode&rpmwrite.TypeMask == rpmwrite.TypeLink && rpmPath(target) == l.Path
	}
	switch {
	case pointsHere(f), f.Mode&old.Mode&rpmwrite.TypeMask == rpmwrite.TypeDir:
		return nil
	case pointsHere(old):
		t.files[i] = f
		return nil
	}
	return fmt.Errorf("%s is twice in the package once /usr is merged", f.Path)
}

func (t *tree) addContent(f *rpmwrite.File, size int64, r io.Reader) error {
	if f.Path == "/usr/share/doc/"+t.name+"/copyright" {
		var err error
		if t.copyright, err = io.ReadAll(io.LimitReader(r, maxCopyright)); err != nil {
			return err
		}
		r = io.MultiReader(strings.NewReader(string(t.copyright)), r)
	}
	n, err := io.Copy(t.spill, r)
	if err != nil {
		return fmt.Errorf("keeping the content: %w", err)
	}
	if n != size {
		return fmt.Errorf("got %d bytes, want %d", n, size)
	}
	from := t.offset
	f.Size = size
	f.Open = func() (io.Reader, error) { return io.NewSectionReader(t.spill, from, size), nil }
	t.offset += size
	return nil
}

// addHardLink adds another name of an entry that came before.
func (t *tree) addHardLink(f rpmwrite.File, first string) error {
	i, ok := t.byPath[first]
	if !ok {
		return fmt.Errorf("hard link to %s, which did not come before", first)
	}
	t.files[i].HardLink = first
	same := t.files[i]
	same.Path, same.Flags = f.Path, t.flags(f.Path)
	return t.put(same)
}

// finish gives the collected files to p, with what they tell: build time and licence.
func (t *tree) finish(p *rpmwrite.Package) error {
	p.Files, p.BuildTime = t.files, t.newest.UTC().Truncate(time.Second)
	if p.BuildTime.Unix() <= 0 {
		return fmt.Errorf("the data archive has no modification times")
	}
	if l := licences(string(t.copyright)); l != "" {
		p.License = l
	}
	return nil
}

func (t *tree) flags(p string) rpmwrite.FileFlags {
	switch {
	case t.conffiles[p]:
		return rpmwrite.Config | rpmwrite.NoReplace
	case strings.HasPrefix(p, "/usr/share/doc/") && path.Base(p) == "copyright":
		return rpmwrite.License
	case strings.HasPrefix(p, "/usr/share/doc/"), strings.HasPrefix(p, "/usr/share/man/"), strings.HasPrefix(p, "/usr/share/info/"):
		return rpmwrite.Doc
	}
	return 0
}

func ownerName(name string, id int) string {
	if name == "" && id == 0 {
		return "root"
	}
	return name
}

var kernelFile = regexp.MustCompile(`^/boot/(vmlinuz|System\.map|config)-([^/]+)$`)

// rpmPath is where a path of a data archive goes: below /usr where the top folder is merged, and the kernel to its modules,
// so that nothing is in /boot.
func rpmPath(name string) string {
	p := path.Clean("/" + name)
	top, rest, _ := strings.Cut(p[1:], "/")
	switch top {
	case "bin", "sbin", "lib", "lib32", "lib64", "libx32":
		if rest != "" {
			return "/usr/" + top + "/" + rest
		}
	}
	if m := kernelFile.FindStringSubmatch(p); m != nil {
		return "/usr/lib/modules/" + m[2] + "/" + m[1]
	}
	return p
}

// licences are the short names in a machine-readable copyright file (the "License:" lines), sorted, joined by AND; empty where it is not machine-readable.
func licences(copyright string) string {
	if !strings.Contains(copyright, "\nFiles:") {
		return ""
	}
	seen := map[string]bool{}
	for line := range strings.Lines(copyright) {
		name, ok := strings.CutPrefix(line, "License:")
		name = strings.Join(strings.Fields(strings.ReplaceAll(name, ",", " ")), " ")
		if ok && name != "" {
			if strings.Contains(name, " ") {
				name = "(" + name + ")"
			}
			seen[name] = true
		}
	}
	return strings.Join(sortedKeys(seen), " AND ")
}
