package tekton_test

import (
	"context"
	"regexp"
	"slices"
	"strings"
	"testing"

	v1 "github.com/tektoncd/pipeline/pkg/apis/pipeline/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"caisson/cmd/caisson/internal/tekton"
)

const image = "quay.io/example/caisson@sha256:1111111111111111111111111111111111111111111111111111111111111111"

func printed(t *testing.T, kind string, o tekton.Options) string {
	t.Helper()
	var out strings.Builder
	if err := tekton.Print(&out, kind, o); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// readTask reads a Task as Tekton does: strictly, with its defaults and its
// checks.
func readTask(t *testing.T, text string) *v1.Task {
	t.Helper()
	var task v1.Task
	if err := yaml.UnmarshalStrict([]byte(text), &task); err != nil {
		t.Fatal(err)
	}
	task.SetDefaults(context.Background())
	if err := task.Validate(context.Background()); err != nil {
		t.Fatal(err)
	}
	return &task
}

func readPipeline(t *testing.T, text string) *v1.Pipeline {
	t.Helper()
	var p v1.Pipeline
	if err := yaml.UnmarshalStrict([]byte(text), &p); err != nil {
		t.Fatal(err)
	}
	p.SetDefaults(context.Background())
	if err := p.Validate(context.Background()); err != nil {
		t.Fatal(err)
	}
	return &p
}

func taskKinds() []string {
	return slices.DeleteFunc(tekton.Kinds(), func(k string) bool { return k == "pipeline" })
}

func TestTasks(t *testing.T) {
	for _, kind := range taskKinds() {
		t.Run(kind, func(t *testing.T) {
			text := printed(t, kind, tekton.Options{Image: image})
			if n := strings.Count(text, "\n"); n >= 300 {
				t.Errorf("%d lines", n)
			}
			task := readTask(t, text)
			checkSpec(t, &task.Spec)
		})
	}
}

// checkSpec holds what is promised of every Task against it.
func checkSpec(t *testing.T, spec *v1.TaskSpec) {
	t.Helper()
	steps, err := v1.MergeStepsWithStepTemplate(spec.StepTemplate, spec.Steps)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range steps {
		t.Run(s.Name, func(t *testing.T) {
			if s.Image != image {
				t.Errorf("image %q", s.Image)
			}
			checkScript(t, &s)
			checkRights(t, &s)
		})
	}
	for _, v := range spec.Volumes {
		if v.HostPath != nil || v.PersistentVolumeClaim != nil {
			t.Errorf("volume %s is of the node, or shared", v.Name)
		}
	}
}

var referenceRE = regexp.MustCompile(`\$\(`)

// checkScript proves that nothing of the outside is put into a script or a
// command: parameters are environment variables, and are quoted.
func checkScript(t *testing.T, s *v1.Step) {
	t.Helper()
	if len(s.Command)+len(s.Args) > 0 || !strings.HasPrefix(s.Script, "#!/bin/sh\nset -eu\n") {
		t.Errorf("want a script of /bin/sh, got %q %q %q", s.Command, s.Args, s.Script)
	}
	if referenceRE.MatchString(s.Script) || referenceRE.MatchString(s.Image) || referenceRE.MatchString(s.WorkingDir) {
		t.Errorf("something is substituted in the script:\n%s", s.Script)
	}
	for _, word := range []string{"eval", "curl", "wget", "http", "`"} {
		if strings.Contains(s.Script, word) {
			t.Errorf("the script has %q", word)
		}
	}
	for _, e := range s.Env {
		if e.ValueFrom != nil {
			t.Errorf("%s is not a plain value: a Secret is mounted as files", e.Name)
		}
		if param, ok := strings.CutPrefix(e.Value, "$(params."); ok && strings.TrimSuffix(param, ")") != e.Name {
			t.Errorf("%s is %s", e.Name, e.Value)
		}
	}
	// Without what is quoted, what assigns and $LABELS, which is split with set -f.
	unquoted := regexp.MustCompile(`"[^"]*"|in \$LABELS|\$\{VARIANT:\+[^}]*\}`).ReplaceAllString(s.Script, "")
	if strings.Contains(unquoted, "$") && strings.Contains(strings.ReplaceAll(unquoted, "code=$?", ""), "$") {
		t.Errorf("a variable is not quoted:\n%s", unquoted)
	}
}

func checkRights(t *testing.T, s *v1.Step) {
	t.Helper()
	c := s.SecurityContext
	if c == nil || !*c.RunAsNonRoot || *c.RunAsUser == 0 || *c.Privileged || *c.AllowPrivilegeEscalation || !*c.ReadOnlyRootFilesystem {
		t.Fatalf("rights: %+v", c)
	}
	if len(c.Capabilities.Add) > 0 || !slices.Equal(c.Capabilities.Drop, []corev1.Capability{"ALL"}) {
		t.Errorf("capabilities: %+v", c.Capabilities)
	}
	offline := strings.Contains(s.Script, "caisson tekton offline -- caisson")
	if want := slices.Contains([]string{"check-lock", "build", "verify", "attest"}, s.Name); offline != want {
		t.Errorf("without the network: %v, want %v", offline, want)
	}
	profile := corev1.SeccompProfileTypeRuntimeDefault
	if offline {
		profile = corev1.SeccompProfileTypeUnconfined
	}
	if c.SeccompProfile.Type != profile {
		t.Errorf("seccomp profile %s, want %s", c.SeccompProfile.Type, profile)
	}
	for _, m := range s.VolumeMounts {
		secret := m.Name == "key" || m.Name == "entitlement" || m.Name == "redhat" || m.Name == "prefetch"
		mayHave := map[string]bool{"key": s.Name == "attest" || s.Name == "verify"}[m.Name] || m.Name != "key" && s.Name == "prefetch"
		if secret && !mayHave {
			t.Errorf("the Secret %s is mounted", m.Name)
		}
	}
}

// TestNames wants what Konflux, Conforma and Chains look for, and what the
// Task that is replaced has.
func TestNames(t *testing.T) {
	task := readTask(t, printed(t, "task", tekton.Options{Image: image}))
	params, results := map[string]string{}, []string{}
	for _, p := range task.Spec.Params {
		value := ""
		if p.Default != nil {
			value = p.Default.StringVal
		}
		params[p.Name] = value
	}
	for _, r := range task.Spec.Results {
		results = append(results, r.Name)
	}
	for _, want := range []string{"OUTPUT_IMAGE", "SOURCE_ARTIFACT", "ACTIVATION_KEY", "REDHAT_OFFLINE_TOKEN_SECRET", "LABELS", "HERMETIC", "CHAINS-GIT_URL", "CHAINS-GIT_COMMIT"} {
		if _, ok := params[want]; !ok {
			t.Errorf("no parameter %s", want)
		}
	}
	if params["HERMETIC"] != "true" {
		t.Errorf("HERMETIC is %q", params["HERMETIC"])
	}
	if want := []string{"IMAGE_URL", "IMAGE_DIGEST", "IMAGE_REFERENCE", "SBOM_BLOB_URL", "RPMS_DATA", "TEST_OUTPUT"}; !slices.Equal(results, want) {
		t.Errorf("results %q, want %q", results, want)
	}
}

func TestPipeline(t *testing.T) {
	p := readPipeline(t, printed(t, "pipeline", tekton.Options{Image: image}))
	secrets := map[string]string{}
	for _, task := range p.Spec.Tasks {
		t.Run(task.Name, func(t *testing.T) {
			checkSpec(t, &task.TaskSpec.TaskSpec)
			given := map[string]bool{}
			for _, param := range task.Params {
				given[param.Name] = true
				if param.Name == "SIGNING_KEY_SECRET" {
					secrets[task.Name] = param.Value.StringVal
				}
			}
			for _, param := range task.TaskSpec.Params {
				if param.Default == nil && !given[param.Name] {
					t.Errorf("%s is not given", param.Name)
				}
				delete(given, param.Name)
			}
			if len(given) > 0 {
				t.Errorf("the Task does not know %v", given)
			}
		})
	}
	if secrets["build"] == "" || secrets["build"] == secrets["verify"] || len(secrets) != 2 {
		t.Errorf("keys: %v", secrets)
	}
	if len(p.Spec.Workspaces) > 0 {
		t.Error("a volume is shared")
	}

	const bundle = "quay.io/example/tasks@sha256:2222222222222222222222222222222222222222222222222222222222222222"
	p = readPipeline(t, printed(t, "pipeline", tekton.Options{Image: image, Bundle: bundle}))
	for i, kind := range []string{"build-task", "verify-task", "push-task"} {
		ref := p.Spec.Tasks[i].TaskRef
		if ref == nil || ref.Resolver != "bundles" {
			t.Fatalf("%s: %+v", kind, ref)
		}
		values := map[string]string{}
		for _, param := range ref.Params {
			values[param.Name] = param.Value.StringVal
		}
		name := readTask(t, printed(t, kind, tekton.Options{Image: image})).Name
		if values["bundle"] != bundle || values["name"] != name {
			t.Errorf("%s: %v, want its name %s", kind, values, name)
		}
	}
}

func TestSeccomp(t *testing.T) {
	task := readTask(t, printed(t, "build-task", tekton.Options{Image: image, Seccomp: "profiles/caisson.json"}))
	for _, s := range task.Spec.Steps {
		if s.Name == "build" && *s.SecurityContext.SeccompProfile.LocalhostProfile != "profiles/caisson.json" {
			t.Errorf("got %+v", s.SecurityContext.SeccompProfile)
		}
	}
}

func TestPrintBad(t *testing.T) {
	for _, c := range []struct {
		name, kind string
		o          tekton.Options
		want       string
	}{
		{"kind", "other", tekton.Options{Image: image}, "want one of task, "},
		{"tag", "task", tekton.Options{Image: "quay.io/example/caisson:1.0"}, "a tag can be moved"},
		{"nothing", "task", tekton.Options{}, "want REGISTRY/REPO@sha256:HEX"},
		{"short digest", "task", tekton.Options{Image: "quay.io/example/caisson@sha256:11"}, "want REGISTRY/REPO@sha256:HEX"},
		{"YAML", "task", tekton.Options{Image: "quay.io/a\nprivileged: true@sha256:" + strings.Repeat("1", 64)}, "want REGISTRY/REPO@sha256:HEX"},
		{"bundle's tag", "pipeline", tekton.Options{Image: image, Bundle: "quay.io/example/tasks:1"}, "a tag can be moved"},
		{"bundle of a Task", "task", tekton.Options{Image: image, Bundle: image}, "for the pipeline"},
		{"profile", "task", tekton.Options{Image: image, Seccomp: "../x}"}, "seccomp profile"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := tekton.Print(&strings.Builder{}, c.kind, c.o)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}
