package lock

import (
	"fmt"
	"reflect"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxYAMLNodes bounds what anchors and aliases may grow to, and maxYAMLDepth
// how deep a document may be.
const (
	maxYAMLNodes = 100_000
	maxYAMLDepth = 50
)

// checkKeys refuses keys that v, a pointer to a struct with yaml tags, does
// not have. The error names the file, the line and the nearest known key.
func checkKeys(name string, doc *yaml.Node, v any) error {
	c := keyChecker{name: name, left: maxYAMLNodes}
	return c.check(doc, reflect.TypeOf(v), 0)
}

type keyChecker struct {
	name string
	left int
}

func (c *keyChecker) check(n *yaml.Node, t reflect.Type, depth int) error {
	c.left--
	if c.left < 0 || depth > maxYAMLDepth {
		return fmt.Errorf("%s:%d: too many or too deeply nested values", c.name, n.Line)
	}
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch n.Kind {
	case yaml.DocumentNode:
		return c.check(n.Content[0], t, depth+1)
	case yaml.AliasNode:
		return c.check(n.Alias, t, depth+1)
	case yaml.MappingNode:
		return c.mapping(n, t, depth)
	case yaml.SequenceNode:
		if t.Kind() != reflect.Slice {
			return nil // Decode says what is wrong
		}
		for _, item := range n.Content {
			if err := c.check(item, t.Elem(), depth+1); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *keyChecker) mapping(n *yaml.Node, t reflect.Type, depth int) error {
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, val := n.Content[i], n.Content[i+1]
		switch t.Kind() {
		case reflect.Struct:
			f, known := fieldByTag(t, key.Value)
			if f == nil {
				return c.unknown(key, known)
			}
			if err := c.check(val, f, depth+1); err != nil {
				return err
			}
		case reflect.Map:
			if err := c.check(val, t.Elem(), depth+1); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *keyChecker) unknown(key *yaml.Node, known []string) error {
	if near := nearest(key.Value, known); near != "" {
		return fmt.Errorf("%s:%d: unknown key %q; did you mean %q?", c.name, key.Line, key.Value, near)
	}
	return fmt.Errorf("%s:%d: unknown key %q; known here: %s", c.name, key.Line, key.Value, strings.Join(known, ", "))
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

// nearest is the known word at the least edit distance from s, if it is near
// enough to be a slip of the hand.
func nearest(s string, known []string) string {
	best, at := "", len(s)/3+2
	for _, k := range known {
		if d := distance(strings.ToLower(s), strings.ToLower(k)); d < at {
			best, at = k, d
		}
	}
	return best
}

// distance is Levenshtein's.
func distance(a, b string) int {
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

var (
	yamlLine = regexp.MustCompile(`line (\d+): `)
	yamlType = regexp.MustCompile(` into [\w.\[\]*]+`)
)

// yamlError turns the library's "yaml: line 3: …" into FILE:3: …
func yamlError(name string, err error) error {
	msg := strings.TrimPrefix(err.Error(), "yaml: ")
	msg = strings.TrimPrefix(msg, "unmarshal errors:\n  ")
	if m := yamlLine.FindStringSubmatchIndex(msg); m != nil {
		line := msg[m[2]:m[3]]
		msg = msg[:m[0]] + msg[m[1]:]
		name += ":" + line
	}
	msg = yamlType.ReplaceAllString(msg, "")
	return fmt.Errorf("%s: %s", name, strings.ReplaceAll(msg, "\n  ", "; "))
}
