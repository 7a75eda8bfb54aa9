// Package strictyaml reads the YAML that people write, into structs with yaml
// tags, and says where it is wrong.
//
// One document a file; no key that the struct does not have, none twice; no
// value of another type than its field's; at most maxNodes values once aliases
// are followed, nested at most maxDepth deep. A key that is left empty has
// its type's zero; an item of a list must not be empty. Every error begins with FILE:LINE.
package strictyaml

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

const (
	maxNodes = 100_000
	maxDepth = 50
)

// Doc is a document that was read, to tell where in it something is.
type Doc struct {
	name string
	root *yaml.Node
}

// Decode reads b into the struct that v points to. name is how errors call
// the file. later lists keys that are known and not supported yet, such as
// "inputs.git", "repos[].iso" or "variants.*.image".
func Decode(name string, b []byte, v any, later ...string) (*Doc, error) {
	var root yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(b))
	if err := dec.Decode(&root); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("%s:1: the file is empty", name)
		}
		return nil, syntaxError(name, err)
	}
	c := checker{name: name, later: later, left: maxNodes}
	if err := c.check(&root, reflect.TypeOf(v).Elem(), place{}, 0); err != nil {
		return nil, err
	}
	if err := root.Decode(v); err != nil {
		return nil, syntaxError(name, err)
	}
	var second yaml.Node
	if err := dec.Decode(&second); err == nil {
		return nil, fmt.Errorf("%s:%d: a second document; the file is to have one", name, second.Line)
	} else if !errors.Is(err, io.EOF) {
		return nil, syntaxError(name, err)
	}
	return &Doc{name: name, root: &root}, nil
}

// Errorf is an error about the value at a path of keys and indexes. It names
// the file, the line and the path. Where the value is not there, the line is
// that of what would hold it.
func (d *Doc) Errorf(path []any, format string, args ...any) error {
	return fmt.Errorf("%s: %s: %w", d.At(path), pathText(path), fmt.Errorf(format, args...))
}

// At is the file and the line of the value at a path.
func (d *Doc) At(path []any) string { return fmt.Sprintf("%s:%d", d.name, d.line(path)) }

func pathText(path []any) string {
	var b strings.Builder
	for i, p := range path {
		switch p := p.(type) {
		case int:
			fmt.Fprintf(&b, "[%d]", p)
		default:
			if i > 0 {
				b.WriteByte('.')
			}
			fmt.Fprint(&b, p)
		}
	}
	return b.String()
}

func (d *Doc) line(path []any) int {
	n := d.root.Content[0]
	line := n.Line
	for _, p := range path {
		for n.Kind == yaml.AliasNode {
			n = n.Alias
		}
		var next *yaml.Node
		switch p := p.(type) {
		case int:
			if n.Kind == yaml.SequenceNode && p < len(n.Content) {
				next = n.Content[p]
				line = next.Line
			}
		case string:
			for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
				if n.Content[i].Value == p {
					next = n.Content[i+1]
					line = n.Content[i].Line
				}
			}
		}
		if next == nil {
			return line
		}
		n = next
	}
	return line
}

// checker compares nodes with the types they are to be decoded into.
type checker struct {
	name  string
	later []string
	left  int // nodes that may still come
}

func (c *checker) errorf(n *yaml.Node, format string, args ...any) error {
	return fmt.Errorf("%s:%d: %w", c.name, n.Line, fmt.Errorf(format, args...))
}

var (
	nodeType        = reflect.TypeFor[yaml.Node]()
	unmarshalerType = reflect.TypeFor[yaml.Unmarshaler]()
)

// place is where a value is: as people see it, and as in Decode's later.
type place struct{ text, pattern string }

func (p place) item(i int) place {
	return place{p.text + "[" + strconv.Itoa(i) + "]", p.pattern + "[]"}
}

// key is the place of a key's value. Of a map, any key is "*" in a pattern.
func (p place) key(name string, ofMap bool) place {
	text, pattern := name, name
	if ofMap {
		pattern = "*"
	}
	if p.text != "" {
		text, pattern = p.text+"."+text, p.pattern+"."+pattern
	}
	return place{text, pattern}
}

// colon begins an error about the place.
func (p place) colon() string {
	if p.text == "" {
		return ""
	}
	return p.text + ": "
}

// check compares the value at a place.
func (c *checker) check(n *yaml.Node, t reflect.Type, at place, depth int) error {
	if c.left--; c.left < 0 || depth > maxDepth {
		return c.errorf(n, "too many or too deeply nested values")
	}
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch n.Kind {
	case yaml.DocumentNode:
		return c.check(n.Content[0], t, at, depth+1)
	case yaml.AliasNode:
		return c.check(n.Alias, t, at, depth+1)
	case yaml.MappingNode:
		return c.mapping(n, t, at, depth)
	case yaml.SequenceNode:
		return c.sequence(n, t, at, depth)
	}
	if n.Tag == "!!null" || t == nodeType || t.Kind() == reflect.Interface {
		return nil
	}
	switch t.Kind() {
	case reflect.Struct, reflect.Map, reflect.Slice:
		if reflect.PointerTo(t).Implements(unmarshalerType) {
			break // it may be written in another form
		}
		return c.errorf(n, "%swant %s, got %q", at.colon(), typeName(t), n.Value)
	}
	// The library would cut 1.5 down to 1.
	bad := n.Tag == "!!binary" || n.Tag == "!!float" && t.Kind() != reflect.String
	if bad || n.Decode(reflect.New(t).Interface()) != nil {
		return c.errorf(n, "%swant %s, got %q", at.colon(), typeName(t), n.Value)
	}
	return nil
}

func typeName(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Struct, reflect.Map:
		return "keys with values"
	case reflect.Slice:
		return "a list"
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "text"
	}
	return "a whole number"
}

func (c *checker) sequence(n *yaml.Node, t reflect.Type, at place, depth int) error {
	switch {
	case t == nodeType || t.Kind() == reflect.Interface:
	case t.Kind() == reflect.Slice:
		t = t.Elem()
	default:
		return c.errorf(n, "%swant %s, got a list", at.colon(), typeName(t))
	}
	for i, item := range n.Content {
		if item.Kind == yaml.ScalarNode && item.Tag == "!!null" {
			return c.errorf(item, "%san empty item in the list", at.colon())
		}
		if err := c.check(item, t, at.item(i), depth+1); err != nil {
			return err
		}
	}
	return nil
}

func (c *checker) mapping(n *yaml.Node, t reflect.Type, at place, depth int) error {
	switch {
	case t == nodeType, t.Kind() == reflect.Interface, t.Kind() == reflect.Struct, t.Kind() == reflect.Map:
	default:
		return c.errorf(n, "%swant %s, got keys with values", at.colon(), typeName(t))
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, val := n.Content[i], n.Content[i+1]
		if key.Kind != yaml.ScalarNode {
			return c.errorf(key, "%sa key that is no text", at.colon())
		}
		if line, ok := seen[key.Value]; ok {
			return c.errorf(key, "%skey %q is there twice, first in line %d", at.colon(), key.Value, line)
		}
		seen[key.Value] = key.Line
		var err error
		if key.Tag == "!!merge" {
			err = c.merge(val, t, at, depth)
		} else {
			err = c.entry(key, val, t, at, depth)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// merge checks the value of a "<<" key: a mapping, or several.
func (c *checker) merge(val *yaml.Node, t reflect.Type, at place, depth int) error {
	from := val
	for from.Kind == yaml.AliasNode {
		from = from.Alias
	}
	switch from.Kind {
	case yaml.MappingNode:
		return c.check(val, t, at, depth+1)
	case yaml.SequenceNode:
		for _, item := range from.Content {
			if item.Kind == yaml.SequenceNode {
				return c.errorf(item, "%s<<: want keys with values, got a list", at.colon())
			}
			if err := c.merge(item, t, at, depth+1); err != nil {
				return err
			}
		}
		return nil
	}
	return c.errorf(val, "%s<<: want keys with values, got %q", at.colon(), val.Value)
}

func (c *checker) entry(key, val *yaml.Node, t reflect.Type, at place, depth int) error {
	in := at.key(key.Value, t.Kind() == reflect.Map)
	switch {
	case t.Kind() == reflect.Map:
		return c.check(val, t.Elem(), in, depth+1)
	case t == nodeType || t.Kind() == reflect.Interface:
		return c.check(val, t, in, depth+1)
	}
	f, known := fieldByTag(t, key.Value)
	if f != nil {
		return c.check(val, f, in, depth+1)
	}
	if slices.Contains(c.later, in.pattern) {
		return c.errorf(key, "%s is not supported yet", in.text)
	}
	if near := Nearest(key.Value, known); near != "" {
		return c.errorf(key, "%sunknown key %q; did you mean %q?", at.colon(), key.Value, near)
	}
	return c.errorf(key, "%sunknown key %q; known here: %s", at.colon(), key.Value, strings.Join(known, ", "))
}

// fieldByTag is the type of the field with that yaml tag, or nil and the tags
// there are.
func fieldByTag(t reflect.Type, key string) (reflect.Type, []string) {
	var known []string
	for i := range t.NumField() {
		tag, _, _ := strings.Cut(t.Field(i).Tag.Get("yaml"), ",")
		if tag == key {
			return t.Field(i).Type, nil
		}
		known = append(known, tag)
	}
	return nil, known
}

// Nearest is the known word at the least edit distance from s, if it is near
// enough to be a slip of the hand.
func Nearest(s string, known []string) string {
	best, at := "", len(s)/3+2
	for _, k := range known {
		if d := distance(strings.ToLower(s), strings.ToLower(k)); d < at && d < len(k) {
			best, at = k, d
		}
	}
	return best
}

// distance is Levenshtein's. A word too long to be a slip is infinitely far.
func distance(a, b string) int {
	if len(a) > 2*len(b)+2 {
		return len(a)
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		prev := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := prev
			if a[i-1] != b[j-1] {
				cost++
			}
			prev = row[j]
			row[j] = min(row[j]+1, row[j-1]+1, cost)
		}
	}
	return row[len(b)]
}

var syntaxLine = regexp.MustCompile(`^(unmarshal errors:\n  )?line (\d+): `)

// syntaxError turns the library's "yaml: line 3: …" into FILE:3: …
func syntaxError(name string, err error) error {
	msg := strings.TrimPrefix(err.Error(), "yaml: ")
	line := 1
	if m := syntaxLine.FindStringSubmatch(msg); m != nil {
		if n, err := strconv.Atoi(m[2]); err == nil {
			line = n
		}
		msg = msg[len(m[0]):]
	}
	return fmt.Errorf("%s:%d: %s", name, line, strings.ReplaceAll(msg, "\n  ", "; "))
}
