package strictyaml

import (
	"reflect"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

type inner struct {
	Name string `yaml:"name"`
	N    *int64 `yaml:"n"`
}

type outer struct {
	List []inner          `yaml:"list"`
	Map  map[string]inner `yaml:"map"`
	Any  map[string]any   `yaml:"any"`
	Node yaml.Node        `yaml:"node"`
	Ptr  *inner           `yaml:"ptr"`
	On   *bool            `yaml:"on"`
}

func TestDecode(t *testing.T) {
	var v outer
	doc, err := Decode("f", []byte(`# a remark
list:
- {name: 1.10, n: 0x10}
- &x {name: b}
map:
  a: *x
  b: {<<: [*x, {name: c}], n: 3}
any: {k: [1, {l: m}], e: }
node: [a, {b: c}]
ptr:
on: yes
`), &v)
	if err != nil {
		t.Fatal(err)
	}
	n16, n3, on := int64(16), int64(3), true
	want := outer{
		List: []inner{{"1.10", &n16}, {"b", nil}}, Map: map[string]inner{"a": {"b", nil}, "b": {"b", &n3}},
		Any: map[string]any{"k": []any{1, map[string]any{"l": "m"}}, "e": nil}, Node: v.Node, On: &on,
	}
	if !reflect.DeepEqual(v, want) || v.Node.Kind != yaml.SequenceNode {
		t.Errorf("got  %+v\nwant %+v", v, want)
	}
	for _, tt := range []struct {
		path []any
		want string
	}{
		{nil, "f:2"},
		{[]any{"list"}, "f:2"},
		{[]any{"list", 0, "n"}, "f:3"},
		{[]any{"list", 1}, "f:4"},
		{[]any{"list", 1, "n"}, "f:4"}, // not there: what would hold it
		{[]any{"list", 7}, "f:2"},
		{[]any{"map", "a", "name"}, "f:4"}, // where the anchor is
		{[]any{"map", "b", "n"}, "f:7"},
		{[]any{"list", "name"}, "f:2"},
		{[]any{"none", "x"}, "f:2"},
	} {
		if got := doc.At(tt.path); got != tt.want {
			t.Errorf("%v: got %s, want %s", tt.path, got, tt.want)
		}
	}
	if got, want := doc.Errorf([]any{"list", 1, "n"}, "want %d", 5).Error(), "f:4: list[1].n: want 5"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestDecodeErrors(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"lst: []\n", `f:1: unknown key "lst"; did you mean "list"?`},
		{"list:\n- {namw: x}\n", `f:2: list[0]: unknown key "namw"; did you mean "name"?`},
		{"map: {a: {n: 1.0}}\n", `f:1: map.a.n: want a whole number, got "1.0"`},
		{"map: {a: {n: 99999999999999999999}}\n", `f:1: map.a.n: want a whole number, got "99999999999999999999"`},
		{"ptr: []\n", "f:1: ptr: want keys with values, got a list"},
		{"list:\n- name: x\n-\n", "f:3: list: an empty item in the list"},
		{"map:\n  a: {future: 1}\n", "f:2: map.a.future is not supported yet"},
		{"list: [{future: 1}]\n", `f:1: list[0]: unknown key "future"; known here: name, n`},
		{"any: {a: {b: 1, b: 2}}\n", `f:1: any.a: key "b" is there twice, first in line 1`},
		{"any: {a: &a {b: *a}}\n", "f:1: too many or too deeply nested values"},
		{"map: {a: {<<: [[{}]]}}\n", "f:1: map.a: <<: want keys with values, got a list"},
		{strings.Repeat("long", 200) + ": 1\n", "f:1: unknown key"},
	} {
		_, err := Decode("f", []byte(tt.text), new(outer), "map.*.future")
		if err == nil || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%.60q\ngot  %v\nwant %s", tt.text, err, tt.want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte("list: [{name: a, n: 1}]\nmap: {a: &x {name: b}, b: {<<: *x}}\nany: {k: [*x]}\n"))
	f.Add([]byte("a: &a [*a]\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := Decode("f", b, new(outer)); err != nil && !strings.HasPrefix(err.Error(), "f:") {
			t.Errorf("an error without a place: %v", err)
		}
	})
}
