package konflux

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// inVariable is one source of variables: exactly one of its keys.
type inVariable struct {
	File          string            `yaml:"file"`
	Containerfile yaml.Node         `yaml:"containerfile"`
	Image         string            `yaml:"image"`
	Inline        map[string]string `yaml:"inline"`
}

// variables adds those of one source; later ones are stronger.
func (r *reader) variables(v *inVariable) error {
	n := 0
	for _, given := range []bool{v.File != "", !v.Containerfile.IsZero(), v.Image != "", v.Inline != nil} {
		if given {
			n++
		}
	}
	if n != 1 {
		return errors.New("want one of file, containerfile, image, inline")
	}
	switch {
	case v.File != "":
		vars, err := r.argFile(v.File)
		maps.Copy(r.vars, vars)
		return err
	case v.Inline != nil:
		maps.Copy(r.vars, v.Inline)
		return nil
	}
	labels, err := r.labels(v.Image, &v.Containerfile)
	maps.Copy(r.vars, labels)
	return err
}

// argFile reads KEY=VALUE lines. A value may be in quotes; what is no such
// line is passed over, as the prototype and podman do.
func (r *reader) argFile(name string) (map[string]string, error) {
	if path.IsAbs(name) {
		return nil, fmt.Errorf("got %q; want a path relative to this file", name)
	}
	b, err := r.read(path.Join(r.in.base, name))
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for line := range strings.Lines(string(b)) {
		k, v, ok := strings.Cut(strings.TrimSpace(line), "=")
		if k = strings.TrimSpace(k); !ok || k == "" || k[0] == '#' {
			continue
		}
		v = strings.TrimSpace(v)
		if len(v) >= 2 && (v[0] == '"' || v[0] == '\'') && v[len(v)-1] == v[0] {
			v = v[1 : len(v)-1]
		}
		out[k] = v
	}
	return out, nil
}

// labels are those of an image, and of the base image of a stage, which are
// stronger.
func (r *reader) labels(image string, containerfile *yaml.Node) (map[string]string, error) {
	out := map[string]string{}
	add := func(image string) error {
		if strings.EqualFold(image, scratch) {
			return nil
		}
		if r.net.Labels == nil {
			return fmt.Errorf("labels of %s: %w", image, errNoNetwork)
		}
		labels, d, err := r.net.Labels(image)
		if err != nil {
			return fmt.Errorf("labels of %s: %w", image, err)
		}
		r.note("image:"+image, d)
		maps.Copy(out, labels)
		return nil
	}
	if image != "" {
		if err := add(r.substitute(image)); err != nil {
			return nil, err
		}
	}
	ref, err := r.containerfileRef(containerfile)
	if err != nil || ref == nil {
		return out, err
	}
	stage, err := r.stage(ref)
	if err != nil {
		return nil, err
	}
	base, err := stage.Image()
	if err != nil {
		return nil, err
	}
	return out, add(base)
}

// scratch is the image that has nothing.
const scratch = "scratch"

// stage reads a Containerfile and finds a stage in it.
func (r *reader) stage(ref *ContainerfileRef) (*Stage, error) {
	var args map[string]string
	if ref.ArgFile != "" {
		var err error
		if args, err = r.argFile(ref.ArgFile); err != nil {
			return nil, err
		}
	}
	name := path.Join(r.in.base, ref.File)
	b, err := r.read(name)
	if err != nil {
		return nil, err
	}
	c, err := ParseContainerfile(name, b, args)
	if err != nil {
		return nil, err
	}
	return c.Select(*ref)
}

var labelRE = regexp.MustCompile(`\{[^{}]+\}`)

// substitute puts variables in the place of {NAME}; what has no value stays.
func (r *reader) substitute(s string) string {
	out, _ := substitute(s, r.vars)
	return out
}

func substitute(s string, vars map[string]string) (out string, missing []string) {
	out = labelRE.ReplaceAllStringFunc(s, func(p string) string {
		v, ok := vars[p[1:len(p)-1]]
		if !ok {
			missing = append(missing, p)
			return p
		}
		return v
	})
	return out, missing
}

// address puts variables into an address, in which nothing else has braces
// but dnf's own ${NAME}.
func address(s string, vars map[string]string) (string, error) {
	out, missing := substitute(s, vars)
	missing = slices.DeleteFunc(missing, func(p string) bool { return strings.Contains(s, "$"+p) })
	if len(missing) > 0 {
		return "", fmt.Errorf("%q: there is no variable or label %s", s, missing[0][1:len(missing[0])-1])
	}
	return out, nil
}
