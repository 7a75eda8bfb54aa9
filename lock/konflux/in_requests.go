package konflux

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"

	"go.yaml.in/yaml/v3"

	"caisson/lock/internal/strictyaml"
)

// ArchRequests is what is asked for on an arch.
type ArchRequests struct {
	Requests
	// Hide are names or globs of packages that must not be chosen: a
	// treefile's exclude-packages.
	Hide []string
}

// Requests is all that the file asks for on an arch: its own lists, those of
// a treefile or a container.yaml, and what a Containerfile's stage asks for,
// less excludePackages.
func (in *In) Requests(arch string) (*ArchRequests, error) {
	out := &ArchRequests{}
	if in.FromContainerfile != nil {
		stage, err := in.r.stage(in.FromContainerfile)
		if err != nil {
			return nil, err
		}
		folder := path.Dir(path.Join(in.base, in.FromContainerfile.File))
		req, err := stage.Requests(arch, func(name string) ([]byte, error) {
			return in.r.readRegular(path.Join(folder, name))
		})
		if err != nil {
			return nil, fmt.Errorf("packagesFromContainerfile (%s): %w", arch, err)
		}
		out.Requests = *req
	}
	for _, l := range []struct {
		from []Package
		to   *[]string
	}{
		{in.Packages, &out.Install}, {in.Reinstall, &out.Reinstall}, {in.Upgrade, &out.Upgrade}, {in.ModuleEnable, &out.ModuleEnable}, {in.ModuleDisable, &out.ModuleDisable},
	} {
		for _, p := range l.from {
			if p.on(arch) {
				*l.to = append(*l.to, p.Name)
			}
		}
	}
	if in.tree != nil {
		in.tree.requests(arch, out)
	}
	if in.Context.Flatpak {
		if err := in.flatpak(arch, out); err != nil {
			return nil, err
		}
	}
	for _, l := range []*[]string{&out.Install, &out.Reinstall, &out.Upgrade} {
		*l = slices.DeleteFunc(*l, func(name string) bool { return slices.Contains(in.Exclude, name) })
	}
	out.AllowErasing = out.AllowErasing || in.AllowErasing
	out.sort()
	slices.Sort(out.Hide)
	out.Hide = slices.Compact(out.Hide)
	return out, nil
}

// readRegular reads a file; a folder is none.
func (r *reader) readRegular(name string) ([]byte, error) {
	if !fs.ValidPath(name) && name != "." && path.IsAbs(name) {
		return nil, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
	}
	return r.read(name)
}

// BaseImage is the image that counts as installed: that of the context, or
// the base of its Containerfile's stage. Empty for none: a bare context, or a
// stage that begins from scratch.
func (in *In) BaseImage() (string, error) {
	c := in.Context
	switch {
	case c.Bare || c.LocalSystem || c.Treefile != "":
		return "", nil
	case c.Image != "":
		return c.Image, nil
	case c.Containerfile == nil:
		for _, name := range []string{"Containerfile", "Dockerfile"} {
			if _, err := in.r.read(path.Join(in.base, name)); err == nil {
				c.Containerfile = &ContainerfileRef{File: name}
				break
			} else if !errors.Is(err, fs.ErrNotExist) {
				return "", err
			}
		}
	}
	if c.Containerfile == nil {
		return "", errors.New("context: the file does not say what is installed already, and there is no Containerfile beside it: give it one of bare, containerfile, image, localSystem, rpmOstreeTreefile")
	}
	stage, err := in.r.stage(c.Containerfile)
	if err != nil {
		return "", fmt.Errorf("context: %w", err)
	}
	base, err := stage.Image()
	if err != nil {
		return "", fmt.Errorf("context: %w", err)
	}
	if base == scratch {
		base = ""
	}
	return base, nil
}

// flatpak adds the packages of the container.yaml beside the file.
func (in *In) flatpak(arch string, out *ArchRequests) error {
	name := path.Join(in.base, "container.yaml")
	b, err := in.r.read(name)
	if err != nil {
		return fmt.Errorf("context.flatpak: %w", err)
	}
	var f struct {
		Flatpak struct {
			Packages []yaml.Node `yaml:"packages"`
		} `yaml:"flatpak"`
	}
	if err := lenient(name, b, &f); err != nil {
		return fmt.Errorf("context.flatpak: %w", err)
	}
	for i := range f.Flatpak.Packages {
		n := target(&f.Flatpak.Packages[i])
		if n.Kind == yaml.ScalarNode && n.Value != "" {
			out.Install = append(out.Install, n.Value)
			continue
		}
		var p struct {
			Name      string `yaml:"name"`
			Platforms struct {
				Only yaml.Node `yaml:"only"`
				Not  yaml.Node `yaml:"not"`
			} `yaml:"platforms"`
		}
		if err := n.Decode(&p); err != nil || p.Name == "" {
			return fmt.Errorf("context.flatpak: %s:%d: want a name, or name and platforms", name, n.Line)
		}
		if (Package{Only: words(&p.Platforms.Only), Not: words(&p.Platforms.Not)}).on(arch) {
			out.Install = append(out.Install, p.Name)
		}
	}
	return nil
}

// lenient reads YAML of which only some keys count. Its size and depth are
// bounded all the same.
func lenient(name string, b []byte, v any) error {
	var all map[string]any
	if _, err := strictyaml.Decode(name, b, &all); err != nil {
		return err
	}
	if err := yaml.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}
