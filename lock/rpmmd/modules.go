package rpmmd

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxModuleDocument bounds one document of modules.yaml, in bytes. The largest
// that distributions publish have about 200 kB.
const maxModuleDocument = 1 << 20

// Modules is modules.yaml: the module streams of a repository and what is the
// default among them.
type Modules struct {
	Streams  []ModuleStream
	Defaults []ModuleDefaults
}

// ModuleStream is one build of a stream of a module (modulemd version 1 or 2).
type ModuleStream struct {
	Name, Stream, Context, Arch string // Arch is empty where the document has none
	Version                     uint64
	StaticContext               bool // Context is chosen by people and says with what the build goes
	Requires                    []ModuleRequirement
	Profiles                    []ModuleProfile // sorted by name
	Artifacts                   []string        // NEVRAs with an epoch, source packages included
	Demodularized               []string        // names of packages that the module gave up
}

// ID returns "name:stream:version:context".
func (m *ModuleStream) ID() string {
	return m.Name + ":" + m.Stream + ":" + strconv.FormatUint(m.Version, 10) + ":" + m.Context
}

// ModuleRequirement is a module that must be active for another to be, in one
// of some streams. None means any; "-stream" means any but that one. All
// requirements hold, those of several blocks too, as libdnf has it.
type ModuleRequirement struct {
	Module  string
	Streams []string
}

// ModuleProfile is a named list of packages of a stream.
type ModuleProfile struct {
	Name string
	RPMs []string
}

// ModuleDefaults is the default stream of a module and the default profiles
// of its streams (modulemd-defaults version 1).
type ModuleDefaults struct {
	Module   string
	Stream   string              // empty: no stream is a default
	Profiles map[string][]string // by stream
	Modified uint64              // the higher one wins between two repositories
}

// ParseModules reads modules.yaml, compressed or not: a stream of YAML
// documents. Streams and defaults are taken over, other kinds of documents
// passed by: dnf does not apply modulemd-obsoletes either, unless it is told to.
func ParseModules(r io.Reader) (*Modules, error) {
	z, err := Decompress(r, MaxModules)
	if err != nil {
		return nil, fmt.Errorf("modules: %w", err)
	}
	defer z.Close()
	m := &Modules{}
	err = splitDocuments(z, func(line int, doc []byte) error {
		if err := m.document(doc); err != nil {
			return fmt.Errorf("document at line %d: %w", line, err)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("modules: %w", err)
	}
	return m, nil
}

// splitDocuments calls visit with each YAML document (YAML 1.2 section 9.1) and
// the line that it starts at. Directives are left out. doc is valid during the
// call.
func splitDocuments(r io.Reader, visit func(line int, doc []byte) error) error {
	in := bufio.NewScanner(r)
	in.Buffer(nil, maxModuleDocument)
	var doc []byte
	start := 1
	flush := func(next int) error {
		if len(bytes.TrimSpace(doc)) > 0 {
			if err := visit(start, doc); err != nil {
				return err
			}
		}
		doc, start = doc[:0], next
		return nil
	}
	for line := 1; in.Scan(); line++ {
		b := in.Bytes()
		marker := len(b) == 3 || len(b) > 3 && (b[3] == ' ' || b[3] == '\t' || b[3] == '\r')
		switch {
		case marker && (bytes.HasPrefix(b, []byte("---")) || bytes.HasPrefix(b, []byte("..."))):
			if err := flush(line); err != nil {
				return err
			}
			if b[0] == '-' {
				doc = append(append(doc, b[3:]...), '\n')
			}
			continue
		case len(doc) == 0 && bytes.HasPrefix(b, []byte("%")):
			continue
		}
		if len(doc)+len(b) >= maxModuleDocument {
			return fmt.Errorf("document at line %d: more than %d bytes", start, maxModuleDocument)
		}
		doc = append(append(doc, b...), '\n')
	}
	if errors.Is(in.Err(), bufio.ErrTooLong) {
		return fmt.Errorf("document at line %d: more than %d bytes", start, maxModuleDocument)
	}
	if err := in.Err(); err != nil {
		return err
	}
	return flush(0)
}

func (m *Modules) document(b []byte) error {
	var root yaml.Node
	if err := yaml.Unmarshal(b, &root); err != nil {
		return err
	}
	if len(root.Content) == 0 {
		return nil // a comment
	}
	y := &yamlReader{}
	doc := y.fields(root.Content[0])
	version := y.text(doc["version"])
	data := y.fields(doc["data"])
	kind := y.text(doc["document"])
	if y.err != nil {
		return y.err
	}
	switch kind {
	case "modulemd":
		if version != "1" && version != "2" {
			return fmt.Errorf("modulemd of version %q, want 1 or 2", version)
		}
		m.Streams = append(m.Streams, y.stream(data, version))
	case "modulemd-defaults":
		if version != "1" {
			return fmt.Errorf("modulemd-defaults of version %q, want 1", version)
		}
		m.Defaults = append(m.Defaults, y.defaults(data))
	case "":
		return errors.New("it does not say what document it is")
	}
	return y.err
}

// yamlReader takes values out of YAML nodes and keeps the first error. It
// follows no aliases. A node that is absent or null has no value.
type yamlReader struct{ err error }

func (y *yamlReader) fail(n *yaml.Node, format string, args ...any) {
	if y.err == nil {
		y.err = fmt.Errorf("line %d of it: %w", n.Line, fmt.Errorf(format, args...))
	}
}

// is reports whether a node has a value, which is an error if it is of another kind.
func (y *yamlReader) is(n *yaml.Node, kind yaml.Kind, want string) bool {
	switch {
	case n == nil || n.Kind == yaml.ScalarNode && n.Tag == "!!null" && kind != yaml.ScalarNode:
		return false
	case n.Kind != kind:
		y.fail(n, "want %s", want)
		return false
	}
	return true
}

func (y *yamlReader) text(n *yaml.Node) string {
	if !y.is(n, yaml.ScalarNode, "a text") || n.Tag == "!!null" {
		return ""
	}
	return n.Value
}

// word is a text without white space and control characters.
func (y *yamlReader) word(n *yaml.Node) string {
	w := y.text(n)
	if strings.ContainsFunc(w, func(c rune) bool { return c <= ' ' || c == 0x7f }) {
		y.fail(n, "%.80q is not a name", w)
	}
	return w
}

func (y *yamlReader) number(n *yaml.Node) uint64 {
	w := y.text(n)
	if w == "" {
		return 0
	}
	v, err := strconv.ParseUint(w, 10, 64)
	if err != nil {
		y.fail(n, "%.80q is not a number", w)
	}
	return v
}

func (y *yamlReader) words(n *yaml.Node) []string {
	if !y.is(n, yaml.SequenceNode, "a list") {
		return nil
	}
	list := make([]string, len(n.Content))
	for i, c := range n.Content {
		if list[i] = y.word(c); list[i] == "" {
			y.fail(c, "an empty name")
		}
	}
	return list
}

func (y *yamlReader) fields(n *yaml.Node) map[string]*yaml.Node {
	if !y.is(n, yaml.MappingNode, "a mapping") {
		return nil
	}
	fields := make(map[string]*yaml.Node, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := y.word(n.Content[i])
		if _, twice := fields[key]; twice || key == "" {
			y.fail(n.Content[i], "key %q is empty or there twice", key)
		}
		fields[key] = n.Content[i+1]
	}
	return fields
}

// rpms are the words under the key "rpms".
func (y *yamlReader) rpms(n *yaml.Node) []string { return y.words(y.fields(n)["rpms"]) }

func (y *yamlReader) stream(data map[string]*yaml.Node, version string) ModuleStream {
	s := ModuleStream{
		Name: y.word(data["name"]), Stream: y.word(data["stream"]), Context: y.word(data["context"]), Arch: y.word(data["arch"]),
		Version: y.number(data["version"]), StaticContext: strings.EqualFold(y.text(data["static_context"]), "true"),
		Artifacts: y.rpms(data["artifacts"]), Demodularized: y.rpms(data["demodularized"]),
	}
	if y.err == nil && (s.Name == "" || s.Stream == "") {
		y.err = fmt.Errorf("module %q, stream %q: want both names", s.Name, s.Stream)
	}
	profiles := y.fields(data["profiles"])
	for _, name := range slices.Sorted(maps.Keys(profiles)) {
		s.Profiles = append(s.Profiles, ModuleProfile{name, y.rpms(profiles[name])})
	}
	if version == "1" {
		s.Requires = y.requires(data["dependencies"], func(n *yaml.Node) []string { return []string{y.word(n)} })
	} else if n := data["dependencies"]; y.is(n, yaml.SequenceNode, "a list") {
		for _, block := range n.Content {
			s.Requires = append(s.Requires, y.requires(block, y.words)...)
		}
	}
	return s
}

// requires reads the run-time dependencies of one block.
func (y *yamlReader) requires(n *yaml.Node, streams func(*yaml.Node) []string) []ModuleRequirement {
	var out []ModuleRequirement
	requires := y.fields(y.fields(n)["requires"])
	for _, module := range slices.Sorted(maps.Keys(requires)) {
		out = append(out, ModuleRequirement{module, streams(requires[module])})
	}
	return out
}

func (y *yamlReader) defaults(data map[string]*yaml.Node) ModuleDefaults {
	d := ModuleDefaults{Module: y.word(data["module"]), Stream: y.word(data["stream"]), Modified: y.number(data["modified"]), Profiles: map[string][]string{}}
	for stream, n := range y.fields(data["profiles"]) {
		d.Profiles[stream] = y.words(n)
	}
	return d
}
