package lock

import (
	"fmt"
	"slices"
	"strings"
)

// The formats of the root file system.
const (
	RootEROFS    = "erofs"
	RootSquashfs = "squashfs"
)

// Compression is how the root is compressed: by mkfs.erofs or mksquashfs of
// the tools set.
type Compression struct {
	// Algorithm is the program's name for it.
	Algorithm string `json:"algorithm"`
	// Level is the program's; its default where 0.
	Level int `json:"level,omitempty"`
}

// algorithm is one that a format's program has, with the highest of its levels;
// 0 where it has none.
type algorithm struct {
	name  string
	level int
}

// algorithms are those of a format. The first is the default of a format that
// cannot be without.
func algorithms(format string) []algorithm {
	if format == RootSquashfs {
		return []algorithm{{"zstd", 22}, {"gzip", 9}, {"lz4", 0}, {"lzo", 9}, {"xz", 0}}
	}
	return []algorithm{{"lz4", 0}, {"lz4hc", 12}, {"lzma", 109}, {"deflate", 9}, {"zstd", 22}}
}

// checkRoot checks a root's format and compression; "" is the default format.
func checkRoot(format string, c *Compression) *settingError {
	switch {
	case format == "":
		format = RootEROFS
	case format != RootEROFS && format != RootSquashfs:
		return settingf(at("format"), "got %q; want %s or %s", format, RootEROFS, RootSquashfs)
	}
	if c == nil {
		return nil
	}
	all := algorithms(format)
	i := slices.IndexFunc(all, func(a algorithm) bool { return a.name == c.Algorithm })
	if i < 0 {
		var names []string
		for _, a := range all {
			names = append(names, a.name)
		}
		return settingf(at("compression"), "got %q; of a root in %s it is one of %s", c.Algorithm, format, strings.Join(names, ", "))
	}
	switch highest := all[i].level; {
	case c.Level < 0 || c.Level > 0 && highest == 0:
		return settingf(at("level"), "%s has no level %d", c.Algorithm, c.Level)
	case c.Level > highest:
		return settingf(at("level"), "%d is not one of %s's, which go up to %d", c.Level, c.Algorithm, highest)
	}
	return nil
}

// compression is what the manifest says of it, with a format that has one by
// itself; nil for none.
func (r ManifestRoot) compression() *Compression {
	switch {
	case r.Compression != "":
		return &Compression{r.Compression, r.Level}
	case r.Format == RootSquashfs:
		return &Compression{algorithms(RootSquashfs)[0].name, r.Level}
	}
	return nil
}

// merge is r with what a variant says of it: a format comes with its own
// compression.
func (r ManifestRoot) merge(v ManifestRoot) ManifestRoot {
	if v.Format != "" {
		return v
	}
	if v.Compression != "" {
		r.Compression, r.Level = v.Compression, v.Level
	} else if v.Level != 0 {
		r.Level = v.Level
	}
	return r
}

// check checks the root that the image has in the end.
func (r ManifestRoot) check() *settingError {
	c := r.compression()
	if c == nil && r.Level != 0 {
		return settingf(at("level"), "%d of no compression: name one", r.Level)
	}
	return checkRoot(r.Format, c)
}

// checkRoot checks what the lock carries of the root: the build hands it to
// programs.
func (i *Image) checkRoot() error {
	e := checkRoot(i.Root, i.Compression)
	if i.Root == RootSquashfs && i.Compression == nil {
		e = settingf(at("compression"), "a root in %s has one", RootSquashfs)
	}
	if e != nil {
		return fmt.Errorf("root of the image: %w", e)
	}
	return nil
}
