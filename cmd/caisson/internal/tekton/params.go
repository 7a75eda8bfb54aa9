package tekton

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"

	"caisson/prefetch"
)

// Isolations are the values of ISOLATION, the first the default.
func Isolations() []string { return []string{"auto", "namespaces", isolationVM} }

// EnvName is the environment variable by which a parameter reaches a script: a
// shell does not hand on one with a dash in its name.
func EnvName(param string) string {
	if param == "ISOLATION" {
		return "CAISSON_ISOLATION"
	}
	return strings.ReplaceAll(param, "-", "_")
}

// maxTag is how long a tag may be (distribution-spec, "Pulling manifests").
const maxTag = 128

// longestSuffix is the longest of those that are added to the image's tag.
const longestSuffix = ".verdict"

var (
	commitRE = regexp.MustCompile(`^([0-9a-f]{40}|[0-9a-f]{64})$`)
	// scpRE is git's other form of an address, USER@HOST:PATH.
	scpRE = regexp.MustCompile(`^[A-Za-z0-9._-]+@[A-Za-z0-9.-]+:[^\s:]+$`)
)

// CheckParams says of each parameter that a Task was given what is wrong with
// it, as far as it can be told without a network or the source. get is the
// environment; a parameter that the Task does not have is not in it.
func CheckParams(get func(string) (string, bool)) []error {
	var wrong []error
	for _, p := range []struct {
		name  string
		check func(string) error
	}{
		{"SOURCE_ARTIFACT", checkArtifact}, {"BUILD_ARTIFACT", checkArtifact}, {"VERDICT_ARTIFACT", checkArtifact},
		{"CONTEXT", checkContext}, {"OUTPUT_IMAGE", checkImage}, {"STORE_IMAGE", checkStore}, {"LABELS", checkLabels},
		{"HERMETIC", checkHermetic}, {"ISOLATION", checkIsolation}, {"CHAINS-GIT_URL", checkGitURL}, {"CHAINS-GIT_COMMIT", checkCommit},
	} {
		value, given := get(EnvName(p.name))
		if !given {
			continue
		}
		if err := p.check(value); err != nil {
			wrong = append(wrong, fmt.Errorf("%s is %q: %w", p.name, value, err))
		}
	}
	at, _ := get(EnvName("CHAINS-GIT_URL"))
	commit, _ := get(EnvName("CHAINS-GIT_COMMIT"))
	if (at == "") != (commit == "") {
		wrong = append(wrong, errors.New("CHAINS-GIT_URL and CHAINS-GIT_COMMIT: give both, the results url and commit of the clone, or neither"))
	}
	return wrong
}

func checkArtifact(s string) error {
	if s == "" {
		return errors.New("want the trusted artifact that an earlier task made, oci:REPO@sha256:HEX")
	}
	ref, ok := strings.CutPrefix(s, "oci:")
	if !ok {
		return errors.New("want oci:REPO@sha256:HEX")
	}
	return pinned(ref)
}

func checkContext(s string) error {
	if s == "" || !filepath.IsLocal(s) || strings.ContainsFunc(s, isControl) {
		return errors.New("want a folder inside the source, . for its top")
	}
	return nil
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }

func checkImage(s string) error {
	r, err := parseRef(s, "REGISTRY/REPO:TAG")
	if err != nil {
		return err
	}
	if _, ok := r.(name.Tag); !ok {
		return errors.New("want REGISTRY/REPO:TAG: the digest is a result")
	}
	if n := maxTag - len(longestSuffix); len(r.Identifier()) > n {
		return fmt.Errorf("its tag may have %d characters: %s is added for what goes from task to task", n, longestSuffix)
	}
	return nil
}

// parseRef reads a reference; the error says what is wanted.
func parseRef(s, want string) (name.Reference, error) {
	if strings.ContainsFunc(s, isControl) || strings.Contains(s, "://") {
		return nil, errors.New("want " + want)
	}
	r, err := prefetch.ParseRef(s, "latest")
	if err != nil {
		return nil, fmt.Errorf("want %s: %w", want, errors.Unwrap(err))
	}
	return r, nil
}

func checkStore(s string) error {
	if s == "" {
		return nil
	}
	_, err := parseRef(s, "REGISTRY/REPO, or nothing")
	return err
}

func checkLabels(s string) error {
	if s == "" {
		return nil
	}
	seen := map[string]bool{}
	for label := range strings.SplitSeq(strings.TrimSuffix(s, ","), ",") {
		key, _, ok := strings.Cut(label, "=")
		key = strings.TrimSpace(key)
		switch {
		case !ok || key == "":
			return fmt.Errorf("%q: want NAME=VALUE, separated by commas", label)
		case seen[key]:
			return fmt.Errorf("%s is given twice", key)
		}
		seen[key] = true
	}
	return nil
}

func checkHermetic(s string) error {
	if s != "true" {
		return errors.New("every build is hermetic, and says so: leave it true")
	}
	return nil
}

func checkIsolation(s string) error {
	if !slices.Contains(Isolations(), s) {
		return fmt.Errorf("want one of %s", strings.Join(Isolations(), ", "))
	}
	return nil
}

func checkGitURL(s string) error {
	if s == "" || scpRE.MatchString(s) {
		return nil
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme == "" || u.Host == "" && u.Scheme != "file" || strings.ContainsAny(s, " \t\r\n") {
		return errors.New("want the address of a git repository")
	}
	if _, secret := u.User.Password(); secret {
		return errors.New("it has a password, and what Chains signs is published: give the address without")
	}
	return nil
}

func checkCommit(s string) error {
	if s != "" && !commitRE.MatchString(s) {
		return errors.New("want a commit's whole id, 40 or 64 hexadecimal digits, and no branch or tag: the result commit of the clone")
	}
	return nil
}
