package rootfs

import (
	"fmt"
	"slices"
	"strings"
)

// Script is a scriptlet or a trigger of a package that an installation runs.
// What runs only when something is erased is not among them.
type Script struct {
	// Kind is "pretrans", "pre", "post", "posttrans", "triggerprein",
	// "triggerin", "filetriggerin" or "transfiletriggerin".
	Kind string
	// Program is what runs it, with its arguments: "/bin/sh", "<lua>".
	Program string
	// Body is the script, empty where the program has none.
	Body string
	// On are the packages, or the beginnings of the paths of files, that set a
	// trigger off; sorted.
	On []string
}

// scriptlets are the tags of scripts and of their programs (rpm's rpmtag.h).
// There is one of each kind in a package; a program may have no script.
var scriptlets = []struct {
	kind            string
	script, program uint32
}{
	{"pretrans", 1151, 1153},
	{"pre", 1023, 1085},
	{"post", 1024, 1086},
	{"posttrans", 1152, 1154},
}

// triggers are the tags of a family of triggers. Scripts and programs are
// lists; names, flags and indexes are longer lists, side by side: what sets a
// trigger off, when, and the script's place in its list.
var triggers = []struct {
	script, program, name, flags, index uint32
	kind, before                        string // of those that go off after and before an installation
}{
	{1065, 1092, 1066, 1068, 1069, "triggerin", "triggerprein"},
	{5066, 5067, 5069, 5072, 5070, "filetriggerin", ""},
	{5076, 5077, 5079, 5082, 5080, "transfiletriggerin", ""},
}

// maxWords is how many words the program of a scriptlet may have, with its
// arguments.
const maxWords = 256

// Flags of a trigger (rpm's rpmds.h).
const (
	triggerIn    = 1 << 16 // RPMSENSE_TRIGGERIN
	triggerPreIn = 1 << 25 // RPMSENSE_TRIGGERPREIN
)

// readScripts reads what a package runs, in the order above.
func readScripts(h *header) ([]Script, error) {
	var out []Script
	for _, s := range scriptlets {
		if h.count(s.script) == 0 && h.count(s.program) == 0 {
			continue
		}
		if n := h.count(s.program); n > maxWords {
			return nil, fmt.Errorf("the header has a program of %d words for %s; at most %d are read", n, s.kind, maxWords)
		}
		words, err := h.strings(s.program)
		if err != nil {
			return nil, err
		}
		program := strings.Join(words, " ")
		if program == "" {
			program = "/bin/sh" // rpm's own, where a package names none
		}
		body, err := h.str(s.script)
		if err != nil {
			return nil, err
		}
		out = append(out, Script{Kind: s.kind, Program: strings.Clone(program), Body: body})
	}
	for i := range triggers {
		more, err := readTriggers(h, i)
		if err != nil {
			return nil, err
		}
		out = append(out, more...)
	}
	return out, nil
}

func readTriggers(h *header, family int) ([]Script, error) {
	t := &triggers[family]
	if n := max(h.count(t.name), h.count(t.program)); n > maxFiles {
		return nil, fmt.Errorf("the header has %d triggers; at most %d are read", n, maxFiles)
	}
	names, err := h.strings(t.name)
	if err != nil || len(names) == 0 {
		return nil, err
	}
	programs, err := h.strings(t.program)
	if err != nil {
		return nil, err
	}
	bodies, err := h.strings(t.script)
	if err != nil {
		return nil, err
	}
	flags, err := h.numbers(t.flags)
	if err != nil {
		return nil, err
	}
	index, err := h.numbers(t.index)
	if err != nil {
		return nil, err
	}
	if flags.n != len(names) || index.n != len(names) {
		return nil, fmt.Errorf("the header has %d names, %d flags and %d scripts of triggers", len(names), flags.n, index.n)
	}
	var out []Script
	at := map[string]int{} // by kind and place
	for i, name := range names {
		kind := ""
		switch f := flags.at(i); {
		case f&triggerIn != 0:
			kind = t.kind
		case f&triggerPreIn != 0:
			kind = t.before
		}
		if kind == "" {
			continue
		}
		n := index.at(i)
		key := fmt.Sprint(kind, n)
		j, ok := at[key]
		if !ok {
			s := Script{Kind: kind, Program: "/bin/sh"}
			if n < uint64(len(programs)) && programs[n] != "" {
				s.Program = strings.Clone(programs[n])
			}
			if n < uint64(len(bodies)) {
				s.Body = strings.Clone(bodies[n])
			}
			j, at[key] = len(out), len(out)
			out = append(out, s)
		}
		out[j].On = append(out[j].On, strings.Clone(name))
	}
	for i := range out {
		slices.Sort(out[i].On)
		out[i].On = slices.Compact(out[i].On)
	}
	return out, nil
}

// SetOff is the part of On that an installation of these packages sets off:
// their names, by which triggers go, and the paths that they bring. Versions
// are not compared, so that of a trigger that asks for some it may be too
// much. A scriptlet is always run.
func (s *Script) SetOff(names map[string]bool, files func(prefix string) bool) (on []string, ok bool) {
	if s.On == nil {
		return nil, true
	}
	for _, o := range s.On {
		if names[o] || strings.Contains(s.Kind, "file") && files(o) {
			on = append(on, o)
		}
	}
	return on, len(on) > 0
}
