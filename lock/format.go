package lock

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"caisson/lock/digest"
)

// maxLock is the largest lock read, in bytes.
const maxLock = 256 << 20

// Format is the lock's only text form.
func Format(l *Lock) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(l); err != nil {
		return nil, fmt.Errorf("writing the lock: %w", err)
	}
	return b.Bytes(), nil
}

// Parse reads a lock. name is how errors call the file. A lock that is not
// as Format would print it, that is of another version, or whose parts do
// not fit together, is an error.
func Parse(name string, b []byte) (*Lock, error) {
	if len(b) > maxLock {
		return nil, fmt.Errorf("%s: %d bytes, more than the %d that a lock may have", name, len(b), maxLock)
	}
	var l Lock
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&l); err != nil {
		return nil, jsonError(name, b, dec.InputOffset(), err)
	}
	if l.Version != Version {
		return nil, fmt.Errorf("%s: a lock of version %d; this Caisson reads version %d", name, l.Version, Version)
	}
	if err := l.check(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	canon, err := Format(&l)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(canon, b) {
		return nil, fmt.Errorf("%s:%d: not in canonical form: was it edited by hand? `caisson lock` writes it anew", name, firstDiffLine(canon, b))
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

// sortInputs puts the inputs and their uses in the order of the format.
func (l *Lock) sortInputs() {
	for i := range l.Inputs {
		slices.SortFunc(l.Inputs[i].For, func(a, b Use) int {
			return cmp.Or(cmp.Compare(a.Arch, b.Arch), cmp.Compare(a.Set, b.Set), cmp.Compare(a.By, b.By), cmp.Compare(a.Dep, b.Dep))
		})
		l.Inputs[i].For = slices.Compact(l.Inputs[i].For)
	}
	slices.SortFunc(l.Inputs, compareInputs)
}

func compareInputs(a, b Input) int {
	return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name))
}

// check is what a lock must satisfy beyond its syntax.
func (l *Lock) check() error {
	if !nameRE.MatchString(l.Name) {
		return fmt.Errorf("name %q: want lower-case letters, digits, '.', '_' and '-'", l.Name)
	}
	if !slices.IsSortedFunc(l.Inputs, compareInputs) {
		return errors.New("the inputs are not sorted by kind and name")
	}
	for i := range l.Inputs {
		in := &l.Inputs[i]
		if i > 0 && compareInputs(l.Inputs[i-1], *in) == 0 {
			return fmt.Errorf("input %s/%s is there twice", in.Kind, in.Name)
		}
		if err := in.check(); err != nil {
			return fmt.Errorf("input %s/%s: %w", in.Kind, in.Name, err)
		}
	}
	for _, p := range l.Payloads {
		if l.Find(KindTree, p.Source) == nil {
			return fmt.Errorf("payload %q: its source %q is not among the inputs", p.Name, p.Source)
		}
	}
	for _, im := range append([]Variant{{Image: l.Image}}, l.Variants...) {
		for _, o := range im.Image.Overlay {
			if l.Find(KindTree, o) == nil {
				return fmt.Errorf("overlay %q is not among the inputs", o)
			}
		}
	}
	return nil
}

func (in *Input) check() error {
	switch {
	case in.Name == "":
		return errors.New("no name")
	case in.SHA256.IsZero():
		return errors.New("no sha256")
	case in.Size < 0:
		return fmt.Errorf("size %d", in.Size)
	case (in.Kind == KindRPM) != (in.RPM != nil):
		return errors.New("rpm details belong to packages, and packages have them")
	case (in.Kind == KindGo || in.Kind == KindToolchain) != (in.Go != nil):
		return errors.New("go details belong to Go modules and toolchains, and these have them")
	}
	switch in.Kind {
	case KindRPM, KindRepodata, KindKey, KindGo, KindToolchain, KindCrate, KindFile, KindTree:
		return nil
	}
	return fmt.Errorf("kind %q is not known to this Caisson", in.Kind)
}

func jsonError(name string, b []byte, off int64, err error) error {
	var syn *json.SyntaxError
	if errors.As(err, &syn) {
		off = syn.Offset
	}
	off = min(off, int64(len(b)))
	return fmt.Errorf("%s:%d: %w", name, 1+bytes.Count(b[:off], []byte("\n")), err)
}

// firstDiffLine is the first line, counted from 1, in which got is not want.
func firstDiffLine(want, got []byte) int {
	line := 1
	for i := range min(len(want), len(got)) {
		if want[i] != got[i] {
			return line
		}
		if want[i] == '\n' {
			line++
		}
	}
	return line
}
