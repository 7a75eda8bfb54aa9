package main

import (
	"fmt"
	"strconv"
	"strings"

	"caisson/cmd/debrepo/rpmwrite"
)

// Versions and relations, from Debian's form (Debian Policy 5.6.12 and 7.1) to RPM's.
//
// A Debian version without a revision is the same as one with revision 0, so a native package gets release 0.
// An RPM relation without a release matches every release; where that would change the meaning (=, <= and >>), release 0 is spelled out.
// A "-" inside an upstream version becomes "^": as in Debian's order, 12-2021 is then between 12 and 12.2.
// What else RPM does not allow in a version becomes "_".

// version is a Debian version in RPM's parts.
type version struct {
	epoch            uint32
	version, release string
	noRevision       bool // the Debian version had none; release is "0"
}

func parseVersion(s string) (version, error) {
	var v version
	rest := s
	if e, after, ok := strings.Cut(s, ":"); ok {
		n, err := strconv.ParseUint(e, 10, 31)
		if err != nil {
			return v, fmt.Errorf("version %q: epoch %q is not a number", s, e)
		}
		v.epoch, rest = uint32(n), after
	}
	v.version, v.release, v.noRevision = rest, "0", true
	if i := strings.LastIndexByte(rest, '-'); i >= 0 {
		v.version, v.release, v.noRevision = rest[:i], rest[i+1:], false
	}
	v.version, v.release = rpmCharacters(v.version), rpmCharacters(v.release)
	if v.version == "" || v.release == "" {
		return v, fmt.Errorf("version %q has an empty part", s)
	}
	return v, nil
}

// rpmCharacters maps what RPM forbids in a version: all but letters, digits and "._+~^".
func rpmCharacters(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', strings.ContainsRune("._+~", r):
			return r
		case r == '-':
			return '^'
		}
		return '_'
	}, s)
}

// evr is EPOCH:VERSION-RELEASE, without an epoch of 0.
func (v version) evr() string { return v.withEpoch(v.version + "-" + v.release) }

func (v version) withEpoch(s string) string {
	if v.epoch == 0 {
		return s
	}
	return fmt.Sprintf("%d:%s", v.epoch, s)
}

// relation is one alternative of a Debian dependency.
type relation struct {
	name     string // without an architecture qualifier
	operator string // <<, <=, =, >=, >> or empty
	version  string
}

// parseRelations parses a relationship field: alternatives by ",".
func parseRelations(field string) ([][]relation, error) {
	var all [][]relation
	for group := range strings.SplitSeq(field, ",") {
		if strings.TrimSpace(group) == "" {
			continue
		}
		var alternatives []relation
		for text := range strings.SplitSeq(group, "|") {
			r, err := parseRelation(text)
			if err != nil {
				return nil, err
			}
			alternatives = append(alternatives, r)
		}
		all = append(all, alternatives)
	}
	return all, nil
}

func parseRelation(text string) (relation, error) {
	name, constraint, constrained := strings.Cut(strings.TrimSpace(text), "(")
	name, _, _ = strings.Cut(strings.TrimSpace(name), ":")
	r := relation{name: name}
	if r.name == "" || strings.ContainsAny(r.name, " <>[]()/") {
		return r, fmt.Errorf("relation %q: %q is not a package name", text, name)
	}
	if !constrained {
		return r, nil
	}
	inner, after, closed := strings.Cut(constraint, ")")
	if !closed || strings.TrimSpace(after) != "" {
		return r, fmt.Errorf("relation %q does not end in )", text)
	}
	inner = strings.TrimSpace(inner)
	i := strings.IndexFunc(inner, func(c rune) bool { return !strings.ContainsRune("<>=", c) })
	if i <= 0 {
		return r, fmt.Errorf("relation %q lacks an operator or a version", text)
	}
	r.operator, r.version = inner[:i], strings.TrimSpace(inner[i:])
	switch r.operator {
	case "<": // obsolete spellings (Policy 7.1)
		r.operator = "<="
	case ">":
		r.operator = ">="
	case "<<", "<=", "=", ">=", ">>":
	default:
		return r, fmt.Errorf("relation %q: unknown operator %q", text, r.operator)
	}
	return r, nil
}

var senses = map[string]rpmwrite.Sense{
	"<<": rpmwrite.Less,
	"<=": rpmwrite.Less | rpmwrite.Equal,
	"=":  rpmwrite.Equal,
	">=": rpmwrite.Greater | rpmwrite.Equal,
	">>": rpmwrite.Greater,
}

var operators = map[string]string{"<<": "<", "<=": "<=", "=": "=", ">=": ">=", ">>": ">"}

// evr is the version that the relation names, empty where it names none.
func (r relation) evr() (string, error) {
	if r.operator == "" {
		return "", nil
	}
	v, err := parseVersion(r.version)
	if err != nil {
		return "", fmt.Errorf("relation to %s: %w", r.name, err)
	}
	if v.noRevision && (r.operator == ">=" || r.operator == "<<") {
		return v.withEpoch(v.version), nil
	}
	return v.evr(), nil
}

func (r relation) dep() (rpmwrite.Dep, error) {
	evr, err := r.evr()
	return rpmwrite.Dep{Name: r.name, Sense: senses[r.operator], EVR: evr}, err
}

// text is the relation as a rich dependency has it.
func (r relation) text() (string, error) {
	evr, err := r.evr()
	if err != nil || evr == "" {
		return r.name, err
	}
	return r.name + " " + operators[r.operator] + " " + evr, nil
}

// anyOf is one dependency on any of the alternatives: a plain one, or "(a or b)".
func anyOf(alternatives []relation) (rpmwrite.Dep, error) {
	if len(alternatives) == 1 {
		return alternatives[0].dep()
	}
	texts := make([]string, len(alternatives))
	for i, r := range alternatives {
		t, err := r.text()
		if err != nil {
			return rpmwrite.Dep{}, err
		}
		texts[i] = t
	}
	return rpmwrite.Dep{Name: "(" + strings.Join(texts, " or ") + ")"}, nil
}
