package lock

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"

	"caisson/lock/digest"
)

// maxLock is the largest lock read, in bytes.
const maxLock = 256 << 20

// Format is the lock's only text form. A list that is nil is written as an
// empty one.
func Format(l *Lock) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(l.withLists()); err != nil {
		return nil, fmt.Errorf("writing the lock: %w", err)
	}
	return b.Bytes(), nil
}

// withLists is the lock with empty lists for those that are nil, so that
// nothing has two text forms.
func (l *Lock) withLists() *Lock {
	out := *l
	out.Arches = list(l.Arches)
	out.Repos = list(l.Repos)
	out.Inputs = list(l.Inputs)
	out.Image.Output = list(l.Image.Output)
	out.Sets = slices.Clone(list(l.Sets))
	for i := range out.Sets {
		out.Sets[i].Packages = list(out.Sets[i].Packages)
	}
	out.Variants = slices.Clone(l.Variants)
	for i := range out.Variants {
		out.Variants[i].Image.Output = list(out.Variants[i].Image.Output)
	}
	return &out
}

func list[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

// Parse reads a lock. name is how errors call the file. A lock that is not
// as Format would print it, that is of another version, or whose parts do
// not fit together, is an error: a *RevisionError where a later Caisson made it,
// and this one may only be too old to understand it.
func Parse(name string, b []byte) (*Lock, error) {
	if len(b) > maxLock {
		return nil, fmt.Errorf("%s: %d bytes, more than the %d that a lock may have", name, len(b), maxLock)
	}
	if len(bytes.TrimSpace(b)) == 0 {
		return nil, fmt.Errorf("%s:1: the file is empty", name)
	}
	// The version first: a later one may have fields that this one has not.
	var head struct {
		Version  int `json:"version"`
		Revision int `json:"revision"`
	}
	if err := json.Unmarshal(b, &head); err != nil {
		return nil, jsonError(name, b, err)
	}
	if head.Version != Version {
		return nil, fmt.Errorf("%s: a lock of version %d; this Caisson reads version %d", name, head.Version, Version)
	}
	l, err := parse(name, b)
	if err != nil && head.Revision > Revision {
		err = &RevisionError{head.Revision, err}
	}
	return l, err
}

func parse(name string, b []byte) (*Lock, error) {
	var l Lock
	if err := json.Unmarshal(b, &l); err != nil {
		return nil, jsonError(name, b, err)
	}
	canon, err := Format(&l)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(canon, b) {
		return nil, notCanonical(name, canon, b)
	}
	if err := l.check(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return &l, nil
}

// Digest is the digest of the lock's text form.
func (l *Lock) Digest() (digest.Digest, error) {
	b, err := Format(l)
	if err != nil {
		return digest.Digest{}, err
	}
	return digest.Of(b), nil
}

// jsonError gives an error of encoding/json the line that it is about.
func jsonError(name string, b []byte, err error) error {
	var syn *json.SyntaxError
	var typ *json.UnmarshalTypeError
	off := int64(len(b))
	switch {
	case errors.As(err, &syn):
		off = syn.Offset
	case errors.As(err, &typ):
		off = typ.Offset
		err = fmt.Errorf("want %s, got %s", jsonType(typ.Type), typ.Value)
		if typ.Field != "" {
			err = fmt.Errorf("%s: %w", typ.Field, err)
		}
	case errors.Is(err, io.ErrUnexpectedEOF):
	default:
		return fmt.Errorf("%s: %w", name, err) // what a field's own UnmarshalText says
	}
	off = max(0, min(off, int64(len(b))))
	return fmt.Errorf("%s:%d: %w", name, 1+bytes.Count(b[:off], []byte("\n")), err)
}

func jsonType(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Struct, reflect.Pointer:
		return "an object"
	case reflect.Slice:
		return "an array"
	case reflect.Bool:
		return "true or false"
	case reflect.String, reflect.Array: // a digest is an array of bytes
		return "a string"
	}
	return "a whole number"
}

// notCanonical says where a lock is not as Format prints it, and how.
func notCanonical(name string, want, got []byte) error {
	line := 1
	for i := range min(len(want), len(got)) {
		if want[i] != got[i] {
			break
		}
		if want[i] == '\n' {
			line++
		}
	}
	hint := ""
	dec := json.NewDecoder(bytes.NewReader(got))
	dec.DisallowUnknownFields()
	if err := dec.Decode(new(Lock)); err != nil {
		hint = strings.TrimPrefix(err.Error(), "json: ") + ": "
	}
	return fmt.Errorf("%s:%d: %snot as a lock is written: was it edited by hand? `caisson lock` writes it anew", name, line, hint)
}

// sortInputs puts the inputs and their uses in the order of the format.
func (l *Lock) sortInputs() {
	for i := range l.Inputs {
		slices.SortFunc(l.Inputs[i].For, compareUses)
		l.Inputs[i].For = slices.Compact(l.Inputs[i].For)
	}
	slices.SortFunc(l.Inputs, compareInputs)
}

func compareInputs(a, b Input) int {
	return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name))
}

func compareUses(a, b Use) int {
	return cmp.Or(cmp.Compare(a.Arch, b.Arch), cmp.Compare(a.Set, b.Set), cmp.Compare(a.By, b.By), cmp.Compare(a.Dep, b.Dep))
}

func compareRepos(a, b Repo) int {
	return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Arch, b.Arch))
}
