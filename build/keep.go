package build

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"caisson/build/sandbox"
)

// stepFile is, in the working folder of a build that failed and was kept, the
// sandbox of the step that failed.
const stepFile = "step.json"

// ErrNoStep says that a folder is not one in which a build left a step.
var ErrNoStep = errors.New("no step of a build failed here")

// keptStep is step.json: what sandbox.Spec says of a command, with the paths in
// the working folder relative to it. What earlier steps recorded of owners is
// left out: a command does not see it.
type keptStep struct {
	Name          string          `json:"name"`
	Root          string          `json:"root"`
	RootWritable  bool            `json:"rootWritable,omitempty"`
	Mounts        []sandbox.Mount `json:"mounts"`
	ProcIn        []string        `json:"procIn,omitempty"`
	DevIn         []string        `json:"devIn,omitempty"`
	Args          []string        `json:"args"`
	Env           []string        `json:"env"`
	Dir           string          `json:"dir"`
	FakeOwnership bool            `json:"fakeOwnership,omitempty"`
	Shown         []keptShown     `json:"shown,omitempty"`
}

type keptShown struct {
	ID sandbox.FileID `json:"id"`
	As sandbox.Shown  `json:"as"`
}

// noteSpec remembers the sandbox of a step, should it fail.
func (b *builder) noteSpec(s sandbox.Spec) {
	s.Stdin, s.Stdout, s.Stderr, s.Files = nil, nil, nil, nil
	b.mu.Lock()
	defer b.mu.Unlock()
	b.specs[s.Name] = s
}

// keepStep writes down the step that an error is of, and returns its name; empty
// where it is of none.
func (b *builder) keepStep(err error) (string, error) {
	var step *StepError
	var network *NetworkError
	name := ""
	switch {
	case errors.As(err, &step):
		name = step.Step
	case errors.As(err, &network):
		name = network.Step
	}
	s, ok := b.specs[name]
	if !ok {
		return "", nil
	}
	k := keptStep{
		Name: s.Name, Root: b.relative(s.Root), RootWritable: s.RootWritable, ProcIn: s.ProcIn, DevIn: s.DevIn,
		Args: s.Args, Env: s.Env, Dir: s.Dir, FakeOwnership: s.FakeOwnership,
	}
	for _, m := range s.Mounts {
		m.Source = b.relative(m.Source)
		k.Mounts = append(k.Mounts, m)
	}
	for id, as := range s.Shown {
		k.Shown = append(k.Shown, keptShown{id, as})
	}
	return name, writeJSON(filepath.Join(b.work, stepFile), k)
}

// relative is a path relative to the working folder, if it is in it: the folder
// is given another name.
func (b *builder) relative(p string) string {
	if rel, ok := strings.CutPrefix(p, b.work+"/"); ok {
		return rel
	}
	return p
}

// KeptStep is the sandbox of the step that failed in a build whose working folder
// was kept (KeptError): the same root, mounts, environment and rules, and the
// command. Without a time limit, and with the folders as the step left them.
func KeptStep(dir string) (sandbox.Spec, error) {
	b, err := os.ReadFile(filepath.Join(dir, stepFile))
	if errors.Is(err, os.ErrNotExist) {
		return sandbox.Spec{}, fmt.Errorf("%s: %w", dir, ErrNoStep)
	}
	if err != nil {
		return sandbox.Spec{}, err
	}
	var k keptStep
	if err := json.Unmarshal(b, &k); err != nil {
		return sandbox.Spec{}, fmt.Errorf("reading %s: %w", filepath.Join(dir, stepFile), err)
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return sandbox.Spec{}, err
	}
	absolute := func(p string) string {
		if filepath.IsAbs(p) {
			return p
		}
		return filepath.Join(dir, p)
	}
	s := sandbox.Spec{
		Name: k.Name, Root: absolute(k.Root), RootWritable: k.RootWritable, ProcIn: k.ProcIn, DevIn: k.DevIn,
		Args: k.Args, Env: k.Env, Dir: k.Dir, FakeOwnership: k.FakeOwnership,
	}
	for _, m := range k.Mounts {
		m.Source = absolute(m.Source)
		s.Mounts = append(s.Mounts, m)
	}
	for _, e := range k.Shown {
		if s.Shown == nil {
			s.Shown = map[sandbox.FileID]sandbox.Shown{}
		}
		s.Shown[e.ID] = e.As
	}
	return s, nil
}
