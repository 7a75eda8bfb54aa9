package start

import (
	"bytes"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"caisson/lock"
)

// renderer writes a manifest as YAML: of each struct the fields that are not
// empty, in their order, under the names of their yaml tags.
type renderer struct {
	// comments are put above the values at their paths, such as
	// "rpm.repos[0].gpgkey".
	comments map[string]string
}

func renderManifest(m *lock.Manifest, head string, comments map[string]string) ([]byte, error) {
	r := renderer{comments: comments}
	top := r.node(reflect.ValueOf(m).Elem(), "")
	var b bytes.Buffer
	b.WriteString(head)
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := e.Encode(top); err != nil {
		return nil, fmt.Errorf("writing the manifest: %w", err)
	}
	if err := e.Close(); err != nil {
		return nil, fmt.Errorf("writing the manifest: %w", err)
	}
	return b.Bytes(), nil
}

// node is a value as YAML; nil where it is empty. What a pointer points to is
// never empty.
func (r *renderer) node(v reflect.Value, path string) *yaml.Node {
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return nil
		}
		if n := r.node(v.Elem(), path); n != nil {
			return n
		}
		return scalar(v.Elem())
	case reflect.Struct:
		return r.mapping(v, path)
	case reflect.Map:
		return r.sortedMap(v, path)
	case reflect.Slice:
		return r.sequence(v, path)
	}
	if v.IsZero() {
		return nil
	}
	return scalar(v)
}

func scalar(v reflect.Value) *yaml.Node {
	var n yaml.Node
	if err := n.Encode(v.Interface()); err != nil {
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null", Value: "null"}
	}
	return &n
}

func (r *renderer) mapping(v reflect.Value, path string) *yaml.Node {
	out := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
	for i := range v.NumField() {
		key, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("yaml"), ",")
		r.add(out, key, v.Field(i), path)
	}
	if len(out.Content) == 0 {
		return nil
	}
	return out
}

// add adds a key, unless its value is empty.
func (r *renderer) add(out *yaml.Node, key string, v reflect.Value, path string) {
	if path != "" {
		path += "."
	}
	path += key
	n := r.node(v, path)
	if n == nil {
		return
	}
	k := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: key}
	var encoded yaml.Node
	if encoded.Encode(key) == nil {
		k = &encoded // quoted where it has to be
	}
	if c := r.comments[path]; c != "" {
		k.HeadComment = "# " + strings.ReplaceAll(c, "\n", "\n# ")
	}
	out.Content = append(out.Content, k, n)
}

func (r *renderer) sortedMap(v reflect.Value, path string) *yaml.Node {
	out := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
	keys := map[string]reflect.Value{}
	for _, k := range v.MapKeys() {
		keys[k.String()] = v.MapIndex(k)
	}
	for _, k := range slices.Sorted(maps.Keys(keys)) {
		r.add(out, k, keys[k], path)
	}
	if len(out.Content) == 0 {
		return nil
	}
	return out
}

func (r *renderer) sequence(v reflect.Value, path string) *yaml.Node {
	if v.Len() == 0 {
		return nil
	}
	out := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}
	for i := range v.Len() {
		at := path + "[" + strconv.Itoa(i) + "]"
		n := r.node(v.Index(i), at)
		if n == nil {
			n = scalar(v.Index(i))
		}
		if c := r.comments[at]; c != "" {
			n.HeadComment = "# " + strings.ReplaceAll(c, "\n", "\n# ")
		}
		out.Content = append(out.Content, n)
	}
	return out
}
