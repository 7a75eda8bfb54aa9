package tekton_test

import (
	"strings"
	"testing"

	"caisson/cmd/caisson/internal/tekton"
)

// TestCheckParams has one parameter wrong at a time, among good ones.
func TestCheckParams(t *testing.T) {
	digest, commit := "@sha256:"+strings.Repeat("1", 64), strings.Repeat("a", 40)
	good := map[string]string{
		"SOURCE_ARTIFACT": "oci:quay.io/team/src" + digest, "CONTEXT": "image", "OUTPUT_IMAGE": "quay.io/team/podvm:1", "LABELS": "a=1,b=two words,c=",
		"HERMETIC": "true", "CAISSON_ISOLATION": "auto", "STORE_IMAGE": "", "CHAINS_GIT_URL": "https://git.example.org/team/image", "CHAINS_GIT_COMMIT": commit,
	}
	check := func(param, value string) string {
		var out []string
		for _, err := range tekton.CheckParams(func(name string) (string, bool) {
			if name == tekton.EnvName(param) {
				return value, true
			}
			v, ok := good[name]
			return v, ok
		}) {
			out = append(out, err.Error())
		}
		return strings.Join(out, "\n")
	}
	for _, tt := range []struct {
		param string
		good  []string
		bad   map[string]string // and what is said of it
	}{
		{"SOURCE_ARTIFACT", []string{"oci:quay.io/team/src:1" + digest}, map[string]string{
			"": "that an earlier task made", "quay.io/team/src" + digest: "want oci:", "oci:quay.io/team/src:1": "a tag can be moved",
			"oci:quay.io/team/src" + digest + "=/tmp": "want REGISTRY", "--help": "want oci:", "oci:--help": "want REGISTRY",
		}},
		{"BUILD_ARTIFACT", []string{"oci:quay.io/team/podvm" + digest}, map[string]string{"": "that an earlier task made"}},
		{"VERDICT_ARTIFACT", []string{"oci:quay.io/team/podvm" + digest}, map[string]string{"": "that an earlier task made"}},
		{"CONTEXT", []string{".", "a/b", "-x", "$(id)", "a b"}, map[string]string{"": "inside the source", "..": "inside the source", "a/../../b": "inside the source", "/etc": "inside the source", "a\nb": "inside the source"}},
		{"OUTPUT_IMAGE", []string{"quay.io/team/podvm", "localhost:5000/podvm:1"}, map[string]string{
			"": "want REGISTRY/REPO:TAG", "podvm": "names no registry", "quay.io/team/podvm" + digest: "the digest is a result", "s3://bucket/x": "want REGISTRY/REPO:TAG",
			"quay.io/team/podvm:$(id)": "want REGISTRY/REPO:TAG", "--out": "want REGISTRY/REPO:TAG", "quay.io/team/podvm:1\n": "want REGISTRY/REPO:TAG",
			"quay.io/team/podvm:" + strings.Repeat("1", 121): "may have 120 characters",
		}},
		{"STORE_IMAGE", []string{"", "quay.io/team/store", "quay.io/team/store:1"}, map[string]string{"--store=/": "want REGISTRY/REPO", "store": "names no registry"}},
		{"LABELS", []string{"", "a=1", "a=1,", "a=b=c", "a=$(id)`id`;*"}, map[string]string{
			"a": "want NAME=VALUE", "a=1,,b=2": "want NAME=VALUE", "=1": "want NAME=VALUE", "a=1,a=2": "a is given twice", ",": "want NAME=VALUE", "--key,x": "want NAME=VALUE",
		}},
		{"HERMETIC", nil, map[string]string{"false": "leave it true", "": "leave it true", "TRUE": "leave it true"}},
		{"ISOLATION", []string{"namespaces", "vm"}, map[string]string{"": "want one of", "none": "want one of"}},
		{"CHAINS-GIT_URL", []string{"git@git.example.org:team/image.git", "ssh://git@git.example.org/team/image", "file:///srv/git"}, map[string]string{
			"": "give both", "image": "the address of a git repository", "--upload-pack=x": "the address of a git repository", "https://me:secret@git.example.org/x": "it has a password", "https://a b/": "the address of a git repository",
		}},
		{"CHAINS-GIT_COMMIT", []string{strings.Repeat("0", 64)}, map[string]string{"": "give both", "main": "a commit's whole id", strings.Repeat("A", 40): "a commit's whole id", commit[:39]: "a commit's whole id", "$(id)": "a commit's whole id"}},
	} {
		for _, value := range tt.good {
			if got := check(tt.param, value); got != "" {
				t.Errorf("%s=%q: got %q", tt.param, value, got)
			}
		}
		for value, want := range tt.bad {
			if got := check(tt.param, value); !strings.Contains(got, want) || !strings.Contains(got, tt.param) || strings.Contains(got, "\n") {
				t.Errorf("%s=%q: got %q, want %q", tt.param, value, got, want)
			}
		}
	}
}
