package konflux

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"caisson/lock/rpmmd"
)

// Lock is an rpms.lock.yaml: the packages of each arch, by address.
type Lock struct {
	Arches []LockArch
}

// LockArch is what is locked for one arch.
type LockArch struct {
	Arch                             string
	Packages, Source, ModuleMetadata []LockFile
}

// LockFile is one file: a package, a source package, or the modules file of
// a repository. All but URL may be missing; RepoID not of a modules file.
type LockFile struct {
	URL      string
	RepoID   string
	Size     int64  // bytes; 0 where the file does not say
	Checksum string // "algorithm:hex"
	// Name, EVR ("[epoch:]version-release") and SourceRPM (a file name) are
	// rpm-lockfile-prototype's; Hermeto does not read them.
	Name, EVR, SourceRPM string
}

// Limits of what ParseLock reads.
const (
	maxLockFile   = 64 << 20
	maxLockValues = 8 << 20
	maxLockDepth  = 64
)

// ParseLock reads an rpms.lock.yaml. It takes all that Hermeto takes
// (hermeto/core/package_managers/rpm/redhat.py): version 1 and vendor redhat,
// in every arch a name, in every entry an address, and for a modules file the
// id of its repository. Keys that it does not know are passed over. name is
// how errors call the file.
func ParseLock(name string, b []byte) (*Lock, error) {
	if len(b) > maxLockFile {
		return nil, fmt.Errorf("%s: more than the %d bytes that are read", name, maxLockFile)
	}
	dec := yaml.NewDecoder(bytes.NewReader(b))
	var root yaml.Node
	if err := dec.Decode(&root); errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s:1: the file is empty", name)
	} else if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: a second document; the file is to have one", name)
	}
	p := lockParser{name: name, left: maxLockValues}
	l := p.lock(root.Content[0])
	if p.err != nil {
		return nil, p.err
	}
	return l, nil
}

// lockParser reads nodes; the first error stays.
type lockParser struct {
	name string
	left int // values that may still come, aliases followed
	err  error
}

func (p *lockParser) fail(n *yaml.Node, format string, args ...any) {
	if p.err == nil {
		p.err = fmt.Errorf("%s:%d: %w", p.name, n.Line, fmt.Errorf(format, args...))
	}
}

// keys are the values of a mapping by key; the last of several counts, and
// merged ones where there is no other.
func (p *lockParser) keys(n *yaml.Node, depth int) map[string]*yaml.Node {
	n = target(n)
	if n.Kind != yaml.MappingNode {
		p.fail(n, "want keys with values, got %s", kindOf(n))
		return nil
	}
	out, merged := map[string]*yaml.Node{}, map[string]*yaml.Node{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if p.left--; p.left < 0 || depth > maxLockDepth {
			p.fail(n, "too many or too deeply nested values")
			return nil
		}
		k, v := n.Content[i], target(n.Content[i+1])
		if k.Tag != "!!merge" {
			out[k.Value] = v
			continue
		}
		from := []*yaml.Node{v}
		if v.Kind == yaml.SequenceNode {
			from = v.Content
		}
		for _, f := range from {
			for mk, mv := range p.keys(f, depth+1) {
				if merged[mk] == nil {
					merged[mk] = mv
				}
			}
		}
	}
	for k, v := range merged {
		if out[k] == nil {
			out[k] = v
		}
	}
	return out
}

// list are the items of a list that may be missing.
func (p *lockParser) list(m map[string]*yaml.Node, key string) []*yaml.Node {
	n := m[key]
	if n == nil {
		return nil
	}
	if n.Kind != yaml.SequenceNode {
		p.fail(n, "%s: want a list, got %s", key, kindOf(n))
		return nil
	}
	if p.left -= len(n.Content); p.left < 0 {
		p.fail(n, "too many values")
		return nil
	}
	return n.Content
}

// text is a text that may be missing or null.
func (p *lockParser) text(m map[string]*yaml.Node, key string) string {
	n := m[key]
	if n == nil || n.Kind == yaml.ScalarNode && n.Style&quoted == 0 && yamlType(n.Value) == typeNull {
		return ""
	}
	if n.Kind != yaml.ScalarNode {
		p.fail(n, "%s: want a text, got %s", key, kindOf(n))
		return ""
	}
	return n.Value
}

// quoted are the styles of a scalar that is a text whatever it says.
const quoted = yaml.SingleQuotedStyle | yaml.DoubleQuotedStyle | yaml.LiteralStyle | yaml.FoldedStyle

// number is a whole number as pydantic takes one: 1, 1.0, "1" or true.
func (p *lockParser) number(m map[string]*yaml.Node, key string) int64 {
	s := p.text(m, key)
	if s == "" {
		return 0
	}
	plain := strings.ReplaceAll(strings.TrimSpace(s), "_", "")
	if whole, frac, ok := strings.Cut(plain, "."); ok && strings.Trim(frac, "0") == "" {
		plain = whole
	}
	if strings.EqualFold(plain, "true") {
		plain = "1"
	}
	n, err := strconv.ParseInt(plain, 10, 64)
	if err != nil {
		p.fail(m[key], "%s: want a whole number, got %q", key, s)
	}
	return n
}

func (p *lockParser) lock(n *yaml.Node) *Lock {
	m := p.keys(n, 0)
	if m["lockfileVersion"] == nil {
		p.fail(n, "no lockfileVersion: it is no rpms.lock.yaml")
		return nil
	}
	if v := p.number(m, "lockfileVersion"); v != 1 {
		p.fail(m["lockfileVersion"], "lockfileVersion: got %d, want 1", v)
	}
	if v := p.text(m, "lockfileVendor"); v != "redhat" {
		at := cmp.Or(m["lockfileVendor"], n)
		p.fail(at, `lockfileVendor: got %q, want "redhat"`, v)
	}
	if m["arches"] == nil {
		p.fail(n, "no arches")
	}
	l := &Lock{}
	for _, a := range p.list(m, "arches") {
		m := p.keys(a, 0)
		arch := LockArch{
			Arch: p.text(m, "arch"), Packages: p.files(m, "packages"), Source: p.files(m, "source"), ModuleMetadata: p.files(m, "module_metadata"),
		}
		if arch.Arch == "" {
			p.fail(a, "arches: one without arch")
		}
		l.Arches = append(l.Arches, arch)
	}
	return l
}

func (p *lockParser) files(m map[string]*yaml.Node, key string) []LockFile {
	var out []LockFile
	for _, n := range p.list(m, key) {
		m := p.keys(n, 0)
		f := LockFile{
			URL: p.text(m, "url"), RepoID: p.text(m, "repoid"), Size: p.number(m, "size"), Checksum: p.text(m, "checksum"),
			Name: p.text(m, "name"), EVR: p.text(m, "evr"), SourceRPM: p.text(m, "sourcerpm"),
		}
		if f.URL == "" {
			p.fail(n, "%s: an entry without url", key)
		}
		if f.RepoID == "" && key == "module_metadata" {
			p.fail(n, "%s: an entry without repoid", key)
		}
		if p.err != nil {
			return nil
		}
		out = append(out, f)
	}
	return out
}

func kindOf(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "keys with values"
	case yaml.SequenceNode:
		return "a list"
	}
	return strconv.Quote(n.Value)
}

// FormatLock writes an rpms.lock.yaml byte for byte as
// rpm-lockfile-prototype does (0.30, with PyYAML 6): arches by name, packages
// by address and then by their other keys, modules files by address. What is
// not known is left out.
func FormatLock(l *Lock) []byte {
	w := yamlWriter{}
	w.raw("---\nlockfileVersion: 1\nlockfileVendor: redhat\n")
	arches := slices.SortedStableFunc(slices.Values(l.Arches), func(a, b LockArch) int { return cmp.Compare(a.Arch, b.Arch) })
	if len(arches) == 0 {
		w.raw("arches: []\n")
		return w.b.Bytes()
	}
	w.raw("arches:\n")
	for _, a := range arches {
		w.raw("- arch: ")
		w.scalar(a.Arch, 4)
		w.raw("\n")
		w.files("packages", slices.SortedStableFunc(slices.Values(a.Packages), compareFiles))
		w.files("source", slices.SortedStableFunc(slices.Values(a.Source), compareFiles))
		w.files("module_metadata", slices.SortedStableFunc(slices.Values(a.ModuleMetadata), func(a, b LockFile) int { return cmp.Compare(a.URL, b.URL) }))
	}
	return w.b.Bytes()
}

func compareFiles(a, b LockFile) int {
	return cmp.Or(
		cmp.Compare(a.URL, b.URL), cmp.Compare(a.RepoID, b.RepoID), cmp.Compare(a.Size, b.Size), cmp.Compare(a.Checksum, b.Checksum),
		cmp.Compare(a.Name, b.Name), cmp.Compare(a.EVR, b.EVR), cmp.Compare(a.SourceRPM, b.SourceRPM),
	)
}

// files writes a list of one arch.
func (w *yamlWriter) files(key string, files []LockFile) {
	if len(files) == 0 {
		w.raw("  " + key + ": []\n")
		return
	}
	w.raw("  " + key + ":\n")
	for _, f := range files {
		w.raw("  - url: ")
		w.scalar(f.URL, 6)
		w.raw("\n")
		size := ""
		if f.Size != 0 {
			size = strconv.FormatInt(f.Size, 10)
		}
		for _, k := range [...]struct{ key, value string }{
			{"repoid", f.RepoID}, {"size", size}, {"checksum", f.Checksum}, {"name", f.Name}, {"evr", f.EVR}, {"sourcerpm", f.SourceRPM},
		} {
			if k.value == "" {
				continue
			}
			w.raw("    " + k.key + ": ")
			if k.key == "size" {
				w.raw(k.value)
			} else {
				w.scalar(k.value, 6)
			}
			w.raw("\n")
		}
	}
}

// NEVRA is a package's name, EVR and arch: the name and EVR as the file
// states them, the rest from the file name at the end of the address.
func (f *LockFile) NEVRA() (name string, evr rpmmd.EVR, arch string, err error) {
	rest, _, _ := strings.Cut(f.URL, "#")
	rest, _, _ = strings.Cut(rest, "?")
	file, ok := strings.CutSuffix(rest[strings.LastIndexByte(rest, '/')+1:], ".rpm")
	dot := strings.LastIndexByte(file, '.')
	if !ok || dot <= 0 || dot == len(file)-1 {
		return "", evr, "", fmt.Errorf("%s: its arch cannot be told: want a file called NAME-VERSION-RELEASE.ARCH.rpm", f.URL)
	}
	file, arch = file[:dot], file[dot+1:]
	name, text := f.Name, f.EVR
	if name == "" || text == "" {
		parts := strings.Split(file, "-")
		if len(parts) < 3 || slices.Contains(parts[len(parts)-2:], "") || parts[0] == "" {
			return "", evr, "", fmt.Errorf("%s: it has no name and evr, and its file is not called NAME-VERSION-RELEASE.ARCH.rpm", f.URL)
		}
		name = cmp.Or(name, strings.Join(parts[:len(parts)-2], "-"))
		text = cmp.Or(text, strings.Join(parts[len(parts)-2:], "-"))
	}
	if evr, err = rpmmd.ParseEVR(text); err != nil {
		return "", evr, "", fmt.Errorf("%s: evr: %w", f.URL, err)
	}
	if evr.Release == "" {
		return "", evr, "", fmt.Errorf("%s: evr %q has no release", f.URL, text)
	}
	return name, evr, arch, nil
}
