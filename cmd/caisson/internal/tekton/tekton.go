// Package tekton prints the Tekton Tasks and the Pipeline in which Caisson runs
// on Kubernetes (tekton.dev/v1).
//
// # What is printed
//
//	task         all of it, in one Task: check of the lock, prefetch, build,
//	             verification, signatures, push
//	check-task   check of parameters, Secrets, registry, source and lock, in a
//	             minute: with the verifier's key, which no later Task tells of in time
//	build-task   check of the lock, prefetch, build, the builder's signatures
//	verify-task  a rebuild of its own, and a verdict by the verifier's own key
//	push-task    image, statements and verdict, into a registry
//	pipeline     the last four, one after the other: nothing is pushed to the
//	             image's tag that has not been verified
//
// Between them lie trusted artifacts as Konflux has them: a blob in the
// repository of the image, named by its digest (ParseArtifact, Pack, Unpack).
//
// # Promise
//
// Nothing in it is fetched from elsewhere at run time but the one image, named by
// digest, that has caisson in its PATH, and /bin/sh; no other program is called.
// Parameters reach scripts as environment variables only (in whose values Tekton and
// Kubernetes put something for $(NAME) where they know the name, no secret), and secrets as files of
// the steps that need them. Steps run as an ordinary user without
// capabilities on a read-only root. Only those that fetch or send, which say
// "with the network", have one: the others put Caisson into a network namespace
// in which there is nothing, so that a signing key lies where nothing gets out.
// Where namespaces are refused, a filter keeps them from making sockets.
//
// # Chains
//
// Tekton Chains signs what IMAGE_URL and IMAGE_DIGEST name, and notes as inputs
// what CHAINS-GIT_URL, CHAINS-GIT_COMMIT and LOCK_ARTIFACT_INPUTS name
// (slsa-provenance.md, "Type Hinting"). SBOM and disk are no *ARTIFACT_OUTPUTS: what
// Chains signs of these it attaches to a manifest of that digest, which they do not
// have; the image's manifest names the disk, and the SBOM is attached to it. Every result that a Pipeline hands on is
// always written: Tekton fails a run for one that is not.
//
// # Limits
//
// Namespaces are made by user namespaces, so the seccomp profile of the steps
// without the network has to allow them: the runtime's own default does not. With
// Options.Isolation "vm" no namespace is wanted, the profile is the runtime's own, and
// the Task may run under the Pod Security Standard "restricted"; signing keys then lie
// in steps that a filter alone keeps from the network.
package tekton

import (
	"bytes"
	"cmp"
	"embed"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"text/template"

	"github.com/google/go-containerregistry/pkg/name"
)

//go:embed templates
var templates embed.FS

// Options are what is printed depends on.
type Options struct {
	// Image is Caisson's container image, REGISTRY/REPO[:TAG]@sha256:HEX.
	Image string
	// Seccomp is the profile, a file below the node's folder for them, of the
	// steps without the network. Without one these steps have no profile.
	Seccomp string
	// Isolation is the default of the parameter of that name, one of Isolations;
	// empty for the first. With "vm" the steps keep the runtime's own profile.
	Isolation string
	// Bundle is where the Pipeline finds its Tasks, a Tekton bundle named by
	// digest. Without one it has them in itself.
	Bundle string
}

// task is a kind of Task, and what its template sees.
type task struct {
	kind, Name, Description string
	Key                     string // the default name of the Secret with its signing key; empty for none
	HandsOver               string // the result that names what it hands on; empty for none
	steps                   []string
	Image, Seccomp, Bundle  string
	Isolation, Resources    string
}

// Params are the parameters that are environment variables of every step.
func (t task) Params() []string {
	var out []string
	for _, p := range []struct {
		name string
		has  bool
	}{
		{"SOURCE_ARTIFACT", t.Has("use-source")}, {"CONTEXT", t.Has("use-source")}, {"BUILD_ARTIFACT", t.Has("use-build")}, {"VERDICT_ARTIFACT", t.Has("use-verdict")},
		{"OUTPUT_IMAGE", true}, {"LABELS", t.Key != ""}, {"HERMETIC", t.Has("check-lock")}, {"ISOLATION", t.Has("check-lock")}, {"STORE_IMAGE", t.Has("check-lock")},
		{"VARIANT", t.Builds()}, {"CHAINS-GIT_URL", t.Has("check-lock")}, {"CHAINS-GIT_COMMIT", t.Has("check-lock")}, {"SIGNING_KEY_SECRET", t.Key != ""},
	} {
		if p.has {
			out = append(out, p.name)
		}
	}
	return out
}

// Builds tells whether the Task builds the image, or checks whether that can be done.
func (t task) Builds() bool { return t.Has("check-lock") && (t.Has("build") || !t.Has("verify")) }

// Has tells whether the Task has a step.
func (t task) Has(step string) bool { return slices.Contains(t.steps, step) }

func tasks() []task {
	return []task{
		{kind: "task", Name: "caisson", Key: "caisson-builder",
			Description: "Builds a confidential-VM image from its lock, verifies it by a rebuild, signs and pushes it.",
			steps:       []string{"use-source", "check-lock", "prefetch", "build", "verify", "attest", "push"}},
		{kind: "check-task", Name: "caisson-check", Key: "caisson-verifier",
			Description: "Checks the parameters, Secrets, source and lock of a build, before it is begun.",
			steps:       []string{"use-source", "check-lock"}},
		{kind: "build-task", Name: "caisson-build", Key: "caisson-builder", HandsOver: "BUILD_ARTIFACT",
			Description: "Builds a confidential-VM image from its lock, and signs its SBOM and provenance.",
			steps:       []string{"use-source", "check-lock", "prefetch", "build", "attest"}},
		{kind: "verify-task", Name: "caisson-verify", Key: "caisson-verifier", HandsOver: "VERDICT_ARTIFACT",
			Description: "Verifies a confidential-VM image by a rebuild, and signs the verdict, a bad one too.",
			steps:       []string{"use-source", "use-build", "check-lock", "prefetch", "verify"}},
		{kind: "push-task", Name: "caisson-push",
			Description: "Pushes a confidential-VM image with the builder's and the verifier's statements.",
			steps:       []string{"use-build", "use-verdict", "push"}},
	}
}

// isolationVM is the one of Isolations that wants no namespaces.
const isolationVM = "vm"

// pipelineKind is the kind that is no Task.
const pipelineKind = "pipeline"

// Kinds are what there is to print.
func Kinds() []string {
	var out []string
	for _, t := range tasks() {
		out = append(out, t.kind)
	}
	return append(out, pipelineKind)
}

// Print writes what a kind is, as YAML.
func Print(w io.Writer, kind string, o Options) error {
	if err := o.check(kind); err != nil {
		return err
	}
	p := printer{o, template.New("")}
	p.all.Funcs(template.FuncMap{"task": p.task, "spec": p.spec, "indent": indent, "env": EnvName})
	if _, err := p.all.ParseFS(templates, "templates/*"); err != nil {
		return err
	}
	var out bytes.Buffer
	name := "task.yaml.tmpl"
	if kind == pipelineKind {
		name = "pipeline.yaml.tmpl"
	}
	if err := p.all.ExecuteTemplate(&out, name, kind); err != nil {
		return err
	}
	_, err := w.Write(out.Bytes())
	return err
}

var profileRE = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*$`)

func (o Options) check(kind string) error {
	if !slices.Contains(Kinds(), kind) {
		return fmt.Errorf("%q: want one of %s", kind, strings.Join(Kinds(), ", "))
	}
	if err := pinned(o.Image); err != nil {
		return fmt.Errorf("the image %q: %w", o.Image, err)
	}
	if o.Bundle != "" {
		if kind != pipelineKind {
			return fmt.Errorf("a bundle of Tasks is for the pipeline, not for %s", kind)
		}
		if err := pinned(o.Bundle); err != nil {
			return fmt.Errorf("the bundle %q: %w", o.Bundle, err)
		}
	}
	if o.Isolation != "" && !slices.Contains(Isolations(), o.Isolation) {
		return fmt.Errorf("the isolation %q: want one of %s", o.Isolation, strings.Join(Isolations(), ", "))
	}
	if o.Isolation == isolationVM && o.Seccomp != "" {
		return errors.New("a seccomp profile is for namespaces: with the isolation vm the runtime's own is enough")
	}
	if o.Seccomp != "" && !profileRE.MatchString(o.Seccomp) {
		return fmt.Errorf("the seccomp profile %q: want the path of a file below the node's folder of profiles", o.Seccomp)
	}
	return nil
}

// pinned refuses a reference without a digest.
func pinned(ref string) error {
	_, err := name.NewDigest(ref, name.StrictValidation)
	if err == nil {
		return nil
	}
	if _, err := name.ParseReference(ref); err == nil && !strings.Contains(ref, "@") {
		return errors.New("a tag can be moved: want REGISTRY/REPO@sha256:HEX")
	}
	if ref == "" || strings.ContainsFunc(ref, isControl) {
		return errors.New("want REGISTRY/REPO@sha256:HEX")
	}
	return fmt.Errorf("want REGISTRY/REPO@sha256:HEX: %w", err)
}

// printer fills the templates in.
type printer struct {
	o   Options
	all *template.Template
}

// task is the Task of a kind.
func (p printer) task(kind string) task {
	all := tasks()
	t := all[slices.IndexFunc(all, func(t task) bool { return t.kind == kind })]
	t.Image, t.Bundle, t.Seccomp = p.o.Image, p.o.Bundle, "{type: Unconfined}"
	t.Isolation, t.Resources = cmp.Or(p.o.Isolation, Isolations()[0]), "{requests: {cpu: \"1\", memory: 2Gi}, limits: {memory: 4Gi}}"
	if t.Isolation == isolationVM {
		t.Seccomp, t.Resources = "{type: RuntimeDefault}", "{requests: {cpu: \"1\", memory: 4Gi}, limits: {memory: 8Gi}}"
	}
	if p.o.Seccomp != "" {
		t.Seccomp = "{type: Localhost, localhostProfile: " + p.o.Seccomp + "}"
	}
	return t
}

func (p printer) spec(t task) (string, error) {
	var out strings.Builder
	err := p.all.ExecuteTemplate(&out, "spec.yaml.tmpl", t)
	return out.String(), err
}

// indent moves lines to the right.
func indent(by int, s string) string {
	var out strings.Builder
	for line := range strings.Lines(s) {
		if strings.TrimSpace(line) != "" {
			out.WriteString(strings.Repeat(" ", by))
		}
		out.WriteString(line)
	}
	return strings.TrimSuffix(out.String(), "\n")
}
