package prefetch

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"

	"caisson/lock"
)

// maxRegistriesConf is the size in bytes above which a file is refused.
const maxRegistriesConf = 1 << 20

// registriesConf is what the site says of where images are, in the form of
// containers-registries.conf(5), version 2: as podman and skopeo read it, an
// image's longest prefix counts, its mirrors are asked in order and its
// location after them. Names without a registry are none of ours, so the rest
// of the file is not read. "insecure" lets a registry speak without TLS, for
// what is named by its digest, and never with a login; a certificate has to be
// sound all the same.
type registriesConf struct {
	Registry []registryEntry `toml:"registry"`
	V1       map[string]any  `toml:"registries"` // of version 1
}

// registryEntry is one [[registry]].
type registryEntry struct {
	Prefix       string           `toml:"prefix"`
	Location     string           `toml:"location"`
	Insecure     bool             `toml:"insecure"`
	Blocked      bool             `toml:"blocked"`
	ByDigestOnly bool             `toml:"mirror-by-digest-only"`
	Mirrors      []registryMirror `toml:"mirror"`
}

// registryMirror is one [[registry.mirror]].
type registryMirror struct {
	Location string `toml:"location"`
	Insecure bool   `toml:"insecure"`
	Pull     string `toml:"pull-from-mirror"`
}

// registriesFromEnv finds the files as podman does: CONTAINERS_REGISTRIES_CONF,
// else the user's, else the system's; with the drop-ins beside them, those of
// the system only where the user has no file of his own.
func registriesFromEnv(home string) ([]string, error) {
	const system = "/etc/containers/registries.conf"
	user := filepath.Join(home, ".config", "containers", "registries.conf")
	main, dirs := os.Getenv("CONTAINERS_REGISTRIES_CONF"), []string{system + ".d", user + ".d"}
	if main == "" {
		main = system
		if _, err := os.Stat(user); home != "" && err == nil {
			main, dirs = user, dirs[1:]
		}
		if _, err := os.Stat(main); errors.Is(err, fs.ErrNotExist) {
			main = ""
		}
	}
	var out []string
	if main != "" {
		out = append(out, main)
	}
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir) // sorted
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("reading where registries are: %w", err)
		}
		for _, e := range entries {
			if strings.HasSuffix(e.Name(), ".conf") {
				out = append(out, filepath.Join(dir, e.Name()))
			}
		}
	}
	return out, nil
}

// readRegistries reads the files: of entries with one prefix the last counts.
func readRegistries(files []string) (*registriesConf, error) {
	all := new(registriesConf)
	for _, name := range files {
		one, err := readRegistriesFile(name)
		if err != nil {
			return nil, fmt.Errorf("reading where registries are: %s: %w", name, err)
		}
		for _, e := range one.Registry {
			all.Registry = append(slices.DeleteFunc(all.Registry, func(o registryEntry) bool { return o.Prefix == e.Prefix }), e)
		}
	}
	return all, nil
}

func readRegistriesFile(name string) (*registriesConf, error) {
	fi, err := os.Stat(name)
	if err != nil {
		return nil, errors.Unwrap(err)
	}
	if fi.Size() > maxRegistriesConf {
		return nil, fmt.Errorf("%d bytes, want at most %d", fi.Size(), maxRegistriesConf)
	}
	c := new(registriesConf)
	if _, err := toml.DecodeFile(name, c); err != nil {
		return nil, err
	}
	if len(c.V1) > 0 {
		return nil, errors.New("it is of version 1, which is not read: want [[registry]]")
	}
	for i := range c.Registry {
		if err := c.Registry[i].check(); err != nil {
			return nil, fmt.Errorf("registry %q: %w", cmp.Or(c.Registry[i].Prefix, c.Registry[i].Location), err)
		}
	}
	return c, nil
}

// check completes an entry, and refuses what podman refuses.
func (e *registryEntry) check() error {
	e.Location, e.Prefix = strings.TrimRight(e.Location, "/"), strings.TrimRight(e.Prefix, "/")
	wild := strings.HasPrefix(e.Prefix, "*.")
	if e.Prefix = cmp.Or(e.Prefix, e.Location); e.Location == "" && !wild {
		return errors.New("it has no location")
	}
	if strings.Contains(e.Location, "://") {
		return fmt.Errorf("its location %q has a scheme", safeURL(e.Location))
	}
	if wild && strings.ContainsAny(e.Prefix, "/:@") {
		return errors.New("a prefix with a wildcard is *.HOST")
	}
	for i := range e.Mirrors {
		m := &e.Mirrors[i]
		switch m.Location = strings.TrimRight(m.Location, "/"); {
		case m.Location == "":
			return errors.New("a mirror has no location")
		case strings.Contains(m.Location, "://"):
			return fmt.Errorf("the location %q of a mirror has a scheme", safeURL(m.Location))
		case m.Pull != "" && e.ByDigestOnly:
			return errors.New("it has both mirror-by-digest-only and pull-from-mirror")
		}
		switch m.Pull {
		case "", "all", "digest-only", "tag-only":
		default:
			return fmt.Errorf("pull-from-mirror is %q; want all, digest-only or tag-only", m.Pull)
		}
	}
	return nil
}

// matches is how much of an image's name the entry is for; 0 for nothing.
func (e *registryEntry) matches(ref string) int {
	n := len(e.Prefix)
	if host, wild := strings.CutPrefix(e.Prefix, "*"); wild {
		registry, _, _ := strings.Cut(ref, "/")
		name, _, _ := strings.Cut(registry, ":")
		if !strings.HasSuffix(name, host) || len(name) == len(host) {
			return 0
		}
		n = len(name)
	} else if !strings.HasPrefix(ref, e.Prefix) {
		return 0
	}
	if len(ref) > n && !strings.ContainsRune("/:@", rune(ref[n])) {
		return 0
	}
	return n
}

// imagePlace is where a part of an image may be.
type imagePlace struct {
	host, repository string
	insecure         bool
}

// blockedError says that the site forbids a registry.
type blockedError struct{ prefix string }

func (e *blockedError) Error() string {
	return fmt.Sprintf("the site's registries.conf blocks %s", e.prefix)
}

// attached is the tag under which something is kept that belongs to an image
// of a digest.
var attached = regexp.MustCompile(`^sha256-[0-9a-f]{64}(\.[a-z]+)?$`)

// places are where a part of an image is to be had, in the order in which they
// are to be asked.
func (c *registriesConf) places(a lock.OCIAddress) ([]imagePlace, error) {
	own := []imagePlace{{host: a.Host, repository: a.Repository}}
	byTag := a.Kind == lock.OCIManifests && !strings.Contains(a.ID, ":")
	name := a.Host + "/" + a.Repository
	ref := name + "@" + a.ID
	if byTag {
		ref = name + ":" + a.ID
	}
	var best *registryEntry
	longest := 0
	for i := range c.Registry {
		if n := c.Registry[i].matches(ref); n > longest {
			best, longest = &c.Registry[i], n
		}
	}
	switch {
	case best == nil:
		return own, nil
	case best.Blocked:
		return nil, &blockedError{best.Prefix}
	case longest > len(name):
		return nil, fmt.Errorf("the site's registries.conf has the prefix %q, which names a tag or a digest: that is not supported", best.Prefix)
	}
	tagged := byTag && !attached.MatchString(a.ID)
	var out []imagePlace
	for _, m := range best.Mirrors {
		if tagged && (best.ByDigestOnly || m.Pull == "digest-only") || !tagged && m.Pull == "tag-only" {
			continue
		}
		p, err := newImagePlace(m.Location+name[longest:], m.Insecure)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	last, err := newImagePlace(cmp.Or(best.Location, name[:longest])+name[longest:], best.Insecure)
	return append(out, last), err
}

// newImagePlace reads where an image is.
func newImagePlace(name string, insecure bool) (imagePlace, error) {
	host, repository, ok := strings.Cut(name, "/")
	if !ok {
		return imagePlace{}, fmt.Errorf("the site's registries.conf leads to %q, which is no repository", name)
	}
	return imagePlace{host, repository, insecure}, nil
}
