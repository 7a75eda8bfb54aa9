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
		for _, isolation := range tekton.Isolations() {
			t.Run(kind+" "+isolation, func(t *testing.T) {
				text := printed(t, kind, tekton.Options{Image: image, Isolation: isolation})
				if n := strings.Count(text, "\n"); n >= 300 {
					t.Errorf("%d lines", n)
				}
				task := readTask(t, text)
				checkSpec(t, &task.Spec)
				wrong := notRestricted(t, &task.Spec)
				if kind == "push-task" || isolation == "vm" {
					if len(wrong) > 0 {
						t.Errorf("not restricted: %q", wrong)
					}
				} else if len(wrong) == 0 || slices.ContainsFunc(wrong, func(s string) bool { return !strings.HasSuffix(s, "seccompProfile") }) {
					t.Errorf("not restricted, want for its seccomp profile alone: %q", wrong)
				}
			})
		}
	}
	text := printed(t, "task", tekton.Options{Image: image, Seccomp: "profiles/caisson.json"})
	if wrong := notRestricted(t, &readTask(t, text).Spec); len(wrong) > 0 {
		t.Errorf("with a profile of the node: %q", wrong)
	}
}

// notRestricted is what of a Task the Pod Security Standard "restricted" refuses,
// rule by rule as its page has them (kubernetes.io, "Pod Security Standards"; those
// of "baseline" are in it). What belongs to a pod alone a Task cannot say.
func notRestricted(t *testing.T, spec *v1.TaskSpec) []string {
	t.Helper()
	var wrong []string
	refuse := func(bad bool, what string) {
		if bad {
			wrong = append(wrong, what)
		}
	}
	for _, v := range spec.Volumes {
		s := v.VolumeSource
		s.ConfigMap, s.CSI, s.DownwardAPI, s.EmptyDir, s.Ephemeral, s.PersistentVolumeClaim, s.Projected, s.Secret = nil, nil, nil, nil, nil, nil, nil, nil
		refuse(s != corev1.VolumeSource{}, v.Name+": volume type")
	}
	if len(spec.Sidecars) > 0 {
		t.Error("a sidecar is not looked at")
	}
	steps, err := v1.MergeStepsWithStepTemplate(spec.StepTemplate, spec.Steps)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range steps {
		c := s.SecurityContext
		if c == nil {
			c = &corev1.SecurityContext{}
		}
		yes := func(b *bool) bool { return b != nil && *b }
		refuse(yes(c.Privileged), s.Name+": privileged")
		refuse(c.AllowPrivilegeEscalation == nil || *c.AllowPrivilegeEscalation, s.Name+": allowPrivilegeEscalation")
		refuse(!yes(c.RunAsNonRoot), s.Name+": runAsNonRoot")
		refuse(c.RunAsUser != nil && *c.RunAsUser == 0, s.Name+": runAsUser")
		refuse(c.Capabilities == nil || !slices.Contains(c.Capabilities.Drop, "ALL"), s.Name+": capabilities.drop")
		refuse(c.Capabilities != nil && slices.ContainsFunc(c.Capabilities.Add, func(a corev1.Capability) bool { return a != "NET_BIND_SERVICE" }), s.Name+": capabilities.add")
		refuse(c.ProcMount != nil && *c.ProcMount != corev1.DefaultProcMount, s.Name+": procMount")
		refuse(c.SELinuxOptions != nil && (c.SELinuxOptions.User != "" || c.SELinuxOptions.Role != "" ||
			!slices.Contains([]string{"", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}, c.SELinuxOptions.Type)), s.Name+": seLinuxOptions")
		refuse(c.AppArmorProfile != nil && c.AppArmorProfile.Type == corev1.AppArmorProfileTypeUnconfined, s.Name+": appArmorProfile")
		refuse(c.WindowsOptions != nil, s.Name+": windowsOptions")
		refuse(c.SeccompProfile == nil || c.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault && c.SeccompProfile.Type != corev1.SeccompProfileTypeLocalhost,
			s.Name+": seccompProfile")
	}
	return wrong
}

// documented wants a description of every parameter and result.
func documented(t *testing.T, params v1.ParamSpecs, results []v1.PipelineResult) {
	t.Helper()
	for _, p := range params {
		if p.Description == "" || p.Type == "" {
			t.Errorf("parameter %s is not described", p.Name)
		}
	}
	for _, r := range results {
		if r.Description == "" {
			t.Errorf("result %s is not described", r.Name)
		}
	}
}

// checkSpec holds what is promised of every Task against it.
func checkSpec(t *testing.T, spec *v1.TaskSpec) {
	t.Helper()
	documented(t, spec.Params, nil)
	for _, r := range spec.Results {
		if r.Description == "" {
			t.Errorf("result %s is not described", r.Name)
		}
	}
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
		if param, ok := strings.CutPrefix(e.Value, "$(params."); ok && tekton.EnvName(strings.TrimSuffix(param, ")")) != e.Name {
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
	withKey := slices.ContainsFunc(s.VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == "key" })
	if want := withKey || slices.Contains([]string{"check-lock", "build", "verify", "attest"}, s.Name); offline != want {
		t.Errorf("without the network: %v, want %v", offline, want)
	}
	if c.SeccompProfile.Type == corev1.SeccompProfileTypeUnconfined && !offline {
		t.Error("a step with the network has no seccomp profile")
	}
	for _, m := range s.VolumeMounts {
		secret := m.Name == "key" || m.Name == "entitlement" || m.Name == "redhat" || m.Name == "prefetch"
		mayHave := m.ReadOnly && (m.Name == "key" && offline || m.Name != "key" && (s.Name == "check-lock" || s.Name == "prefetch"))
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
	for _, want := range []string{"OUTPUT_IMAGE", "SOURCE_ARTIFACT", "ACTIVATION_KEY", "ENTITLEMENT_SECRET", "caTrustConfigMapName", "caTrustConfigMapKey", "REDHAT_OFFLINE_TOKEN_SECRET", "LABELS", "HERMETIC", "CHAINS-GIT_URL", "CHAINS-GIT_COMMIT"} {
		if _, ok := params[want]; !ok {
			t.Errorf("no parameter %s", want)
		}
	}
	if params["HERMETIC"] != "true" {
		t.Errorf("HERMETIC is %q", params["HERMETIC"])
	}
	want := []string{"IMAGE_URL", "IMAGE_DIGEST", "IMAGE_REFERENCE", "IMAGE_REF", "SBOM_BLOB_URL", "RPMS_DATA", "CHAINS-GIT_URL", "CHAINS-GIT_COMMIT", "LOCK_ARTIFACT_INPUTS", "TEST_OUTPUT"}
	if !slices.Equal(results, want) {
		t.Errorf("results %q, want %q", results, want)
	}
	for _, p := range readPipeline(t, printed(t, "pipeline", tekton.Options{Image: image})).Spec.Results {
		want = slices.DeleteFunc(want, func(s string) bool { return s == p.Name })
	}
	if len(want) > 0 {
		t.Errorf("the Pipeline has no results %q", want)
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
	documented(t, p.Spec.Params, p.Spec.Results)
	if first := p.Spec.Tasks[0]; first.Name != "check" || !slices.Equal(p.Spec.Tasks[1].RunAfter, []string{"check"}) {
		t.Errorf("the first Task is %s, and %s waits for %q", first.Name, p.Spec.Tasks[1].Name, p.Spec.Tasks[1].RunAfter)
	}
	if secrets["build"] == "" || secrets["build"] == secrets["verify"] || secrets["check"] != secrets["verify"] || len(secrets) != 3 {
		t.Errorf("keys: %v", secrets)
	}
	if len(p.Spec.Workspaces) > 0 {
		t.Error("a volume is shared")
	}

	const bundle = "quay.io/example/tasks@sha256:2222222222222222222222222222222222222222222222222222222222222222"
	p = readPipeline(t, printed(t, "pipeline", tekton.Options{Image: image, Bundle: bundle}))
	for i, kind := range []string{"check-task", "build-task", "verify-task", "push-task"} {
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
		{"isolation", "task", tekton.Options{Image: image, Isolation: "none"}, "want one of auto, namespaces, vm"},
		{"isolation and a profile", "task", tekton.Options{Image: image, Isolation: "vm", Seccomp: "a.json"}, "a seccomp profile is for namespaces"},
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
