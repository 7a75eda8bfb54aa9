package verify

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"caisson/build"
	"caisson/build/sandbox"
	"caisson/lock"
)

// isolated are the namespaces that every step must have had of its own.
var isolated = []string{"cgroup", "ipc", "mnt", "net", "pid", "user", "uts"}

// checkEvidence looks at what a build recorded of its sandbox, and returns it
// where it can be read.
func (v *verification) checkEvidence(name, dir string) *build.Evidence {
	var ev build.Evidence
	err := readJSON(filepath.Join(dir, evidenceFile), &ev)
	switch {
	case errors.Is(err, os.ErrNotExist):
		v.check(name, NotAsked, "there is no %s; what proves that nothing else was needed is the rebuild", evidenceFile)
		return nil
	case err != nil:
		v.check(name, Failed, "%v", err)
		return nil
	}
	if err := v.judgeEvidence(&ev); err != nil {
		v.check(name, Failed, "%v", err)
		return &ev
	}
	besides := ""
	if n := attempts(&ev); n > 0 {
		besides = fmt.Sprintf("; %d attempts to reach a network were refused and recorded, which the lock allows", n)
	}
	if len(ev.Reused) > 0 {
		besides += fmt.Sprintf("; an earlier build's results were taken for %s", strings.Join(ev.Reused, ", "))
	}
	v.check(name, Passed, "%d steps, each without a network and with the locked inputs only%s", len(ev.Steps), besides)
	return &ev
}

// attempts is how often the steps tried to reach a network.
func attempts(ev *build.Evidence) (n uint64) {
	for i := range ev.Steps {
		for _, a := range ev.Steps[i].NetworkAttempts() {
			n += a.Count
		}
	}
	return n
}

func (v *verification) judgeEvidence(ev *build.Evidence) error {
	if ev.Lock != v.report.Lock {
		return fmt.Errorf("it is of a build from another lock, %s", ev.Lock)
	}
	want := build.InputsDigest(build.Inputs(v.Lock, v.Arch, v.Variant)).String()
	if ev.Inputs.Before != want || ev.Inputs.After != want {
		return fmt.Errorf("the inputs were %s before and %s after; the lock's are %s", ev.Inputs.Before, ev.Inputs.After, want)
	}
	if len(ev.Steps) == 0 && v.runsAnything() {
		return errors.New("no step was recorded")
	}
	if err := v.judgeSkipped(ev.Skipped); err != nil {
		return err
	}
	for i := range ev.Steps {
		if a := ev.Steps[i].NetworkAttempts(); len(a) > 0 && !v.Lock.RecordNetwork {
			return fmt.Errorf("step %q: %s tried to reach %s", ev.Steps[i].Step, a[0].Exe, a[0].Destination)
		}
		if err := judgeStep(&ev.Steps[i]); err != nil {
			return fmt.Errorf("step %q: %w", ev.Steps[i].Step, err)
		}
	}
	return nil
}

// judgeSkipped compares the scriptlets that were not run with those of the lock's
// packages, as the store has them. Where nothing is rebuilt there is no store: then
// it is only looked at that they are of sets whose scriptlets the lock leaves out.
func (v *verification) judgeSkipped(got []build.SkippedScript) error {
	if v.Store == nil {
		for _, s := range got {
			name := v.Lock.SetFor(s.Set, v.Variant)
			if !slices.ContainsFunc(v.Lock.Sets, func(set lock.Set) bool { return set.Name == name && set.Scriptlets == lock.ScriptletsSkip }) {
				return fmt.Errorf("it lists %s of %s as not run, and the lock runs the scriptlets of the %s", s.Kind, s.Package, s.Set)
			}
		}
		return nil
	}
	want, err := build.Skipped(v.Lock, v.Store, v.Arch, v.Variant)
	if err != nil {
		return fmt.Errorf("reading which scriptlets the lock leaves out: %w", err)
	}
	for i := range max(len(got), len(want)) {
		switch {
		case i >= len(want) || i < len(got) && !reflect.DeepEqual(got[i], want[i]) && !containsScript(want, &got[i]):
			return fmt.Errorf("it lists %s of %s in the %s as not run, which the lock's packages do not have", got[i].Kind, got[i].Package, got[i].Set)
		case i >= len(got) || !reflect.DeepEqual(got[i], want[i]):
			return fmt.Errorf("it does not list %s of %s in the %s, which was not run, or not in its place", want[i].Kind, want[i].Package, want[i].Set)
		}
	}
	return nil
}

func containsScript(all []build.SkippedScript, s *build.SkippedScript) bool {
	return slices.ContainsFunc(all, func(o build.SkippedScript) bool { return reflect.DeepEqual(o, *s) })
}

func judgeStep(s *sandbox.Evidence) error {
	for _, n := range isolated {
		if !slices.Contains(s.Namespaces, n) {
			return fmt.Errorf("it had no %s namespace of its own", n)
		}
	}
	for _, i := range s.Interfaces {
		if i.Name != "lo" {
			return fmt.Errorf("it saw the interface %s, with %d bytes received and %d sent", i.Name, i.RxBytes, i.TxBytes)
		}
	}
	if !s.Confinement.Seccomp || !s.Confinement.NoNewPrivs {
		return errors.New("no filter of system calls was in force")
	}
	if len(s.Canaries) == 0 {
		return errors.New("no canary was sent out")
	}
	for _, c := range s.Canaries {
		if c.Errno == "" {
			return fmt.Errorf("the canary %s got out to %s", c.Name, c.Destination)
		}
	}
	return nil
}
