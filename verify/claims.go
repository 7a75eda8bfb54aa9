package verify

import (
	"fmt"
	"slices"
	"strings"

	"caisson/build"
	"caisson/build/sandbox"
)

// maxClaims is how many differences of two evidences are named.
const maxClaims = 5

// claimedUsual refuses an image whose steps were run with other surroundings than
// every build gives them.
func (v *verification) claimedUsual() {
	if v.claimed == nil {
		return
	}
	for i := range v.claimed.Steps {
		if s := &v.claimed.Steps[i]; s.Around != nil && !s.Around.Fixed() {
			v.check("evidence as usual", Failed, "step %q was run with other surroundings than a build gives its steps: %s is that of a rebuild which looks for fragile steps", s.Step, evidenceFile)
			return
		}
	}
}

// compareEvidence compares what the builder recorded with what the verifier's
// own rebuild did, step by step. Compared is what follows from the lock: which
// steps there were, and of each its command, folder, environment, host name,
// namespaces, inputs and end. What depends on the machine is not: mounts, the
// kernel, how often a call was repeated.
func (v *verification) compareEvidence() {
	const name = "evidence as rebuilt"
	switch {
	case v.claimed == nil:
		v.check(name, NotAsked, "there is no sound %s beside the image to compare with", evidenceFile)
		return
	case v.seen == nil:
		v.check(name, NotChecked, "the rebuild left no %s that can be read", evidenceFile)
		return
	}
	wrong := claims(v.claimed, v.seen)
	if len(wrong) == 0 {
		v.check(name, Passed, "%d steps, each with the command, environment and inputs that the rebuild had", len(v.seen.Steps))
		return
	}
	more := ""
	if n := len(wrong) - maxClaims; n > 0 {
		more = fmt.Sprintf("; and %d more", n)
	}
	v.check(name, Failed, "%s claims what the rebuild did not see: %s%s", evidenceFile, strings.Join(wrong[:min(len(wrong), maxClaims)], "; "), more)
}

// claims says in what the evidence of a builder differs from that of a rebuild.
func claims(builder, rebuild *build.Evidence) []string {
	var out []string
	theirs, twice := byStep(builder.Steps)
	for _, s := range twice {
		out = append(out, fmt.Sprintf("step %q is there twice", s))
	}
	ours, _ := byStep(rebuild.Steps)
	for i := range rebuild.Steps {
		s := &rebuild.Steps[i]
		their, ok := theirs[s.Step]
		if !ok {
			out = append(out, fmt.Sprintf("step %q is missing", s.Step))
			continue
		}
		out = append(out, stepClaims(their, s)...)
	}
	for i := range builder.Steps {
		if s := builder.Steps[i].Step; ours[s] == nil {
			out = append(out, fmt.Sprintf("there was no step %q", s))
		}
	}
	if builder.Inputs != rebuild.Inputs {
		out = append(out, fmt.Sprintf("the inputs were %s and %s, not %s and %s", rebuild.Inputs.Before, rebuild.Inputs.After, builder.Inputs.Before, builder.Inputs.After))
	}
	// What nobody opened is left out: who else uses the store at the time opens
	// files there too.
	return claimList(out, "", "unused inputs", builder.Unused, rebuild.Unused)
}

func byStep(steps []sandbox.Evidence) (byName map[string]*sandbox.Evidence, twice []string) {
	byName = map[string]*sandbox.Evidence{}
	for i := range steps {
		if byName[steps[i].Step] != nil {
			twice = append(twice, steps[i].Step)
		}
		byName[steps[i].Step] = &steps[i]
	}
	return byName, twice
}

// stepClaims compares one step.
func stepClaims(their, our *sandbox.Evidence) []string {
	var out []string
	in := fmt.Sprintf("step %q: ", our.Step)
	out = claimList(out, in, "command", their.Command, our.Command)
	out = claimList(out, in, "environment", unvaried(our, their.Environment), unvaried(our, our.Environment))
	out = claimList(out, in, "namespaces", their.Namespaces, our.Namespaces)
	for _, c := range [...]struct{ what, their, our string }{
		{"folder", their.Dir, our.Dir},
		{"host name", usualHost(our, their.Hostname), usualHost(our, our.Hostname)},
		{"end", ended(their), ended(our)},
		{"inputs", stepInputs(their), stepInputs(our)},
	} {
		if c.their != c.our {
			out = append(out, fmt.Sprintf("%s%s %q, the rebuild had %q", in, c.what, c.their, c.our))
		}
	}
	if len(their.NetworkAttempts()) == 0 && len(our.NetworkAttempts()) > 0 {
		out = append(out, fmt.Sprintf("%sno network attempt, and the rebuild saw %s try %s", in, our.NetworkAttempts()[0].Exe, our.NetworkAttempts()[0].Destination))
	}
	return out
}

// claimList adds where two lists begin to differ.
func claimList(out []string, in, what string, their, our []string) []string {
	if slices.Equal(their, our) {
		return out
	}
	for i := range max(len(their), len(our)) {
		a, b := element(their, i), element(our, i)
		if a != b {
			return append(out, fmt.Sprintf("%s%s: %s, the rebuild had %s", in, what, a, b))
		}
	}
	return out
}

func element(list []string, i int) string {
	if i >= len(list) {
		return "nothing more"
	}
	return fmt.Sprintf("%.200q", list[i])
}

// unvaried are the variables of an environment that the rebuild did not vary.
func unvaried(our *sandbox.Evidence, env []string) []string {
	if our.Around == nil {
		return env
	}
	return slices.DeleteFunc(slices.Clone(env), func(kv string) bool {
		key, _, _ := strings.Cut(kv, "=")
		return slices.ContainsFunc(our.Around.Env, func(v string) bool { return strings.HasPrefix(v, key+"=") })
	})
}

// usualHost is a host name, or nothing where the rebuild varied it.
func usualHost(our *sandbox.Evidence, name string) string {
	if our.Around != nil && our.Around.Hostname != "" {
		return ""
	}
	return name
}

func ended(e *sandbox.Evidence) string {
	if e.Signal != "" {
		return e.Signal
	}
	return fmt.Sprintf("exit code %d", e.ExitCode)
}

func stepInputs(e *sandbox.Evidence) string {
	if e.Inputs == nil {
		return "not recorded"
	}
	return e.Inputs.Before + " and " + e.Inputs.After
}
