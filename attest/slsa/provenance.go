package slsa

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"caisson/attest/internal/use"
	"caisson/build"
	"caisson/lock"
	"caisson/lock/digest"
)

// BuildType says how the parameters of a provenance are to be read: as the
// package comment has it.
const BuildType = "https://caisson.dev/build/v1"

// Build is what a provenance tells of.
type Build struct {
	Speaker
	Lock       *lock.Lock
	LockDigest digest.Digest
	Image      build.Image
	Evidence   build.Evidence
	Invocation Invocation
	// SigningKey gives the fingerprint of the key that signed a package; it is
	// asked of those that the lock wants signed and that serve this image.
	SigningKey func(*lock.Input) (string, error)
	// Byproducts are what the build left beside the image.
	Byproducts []Resource
}

// External are the external parameters of the build type.
type External struct {
	Lock    digest.Digest `json:"lock"`
	Name    string        `json:"name"`
	Variant string        `json:"variant,omitempty"`
	Arch    string        `json:"arch"`
}

type provenance struct {
	BuildDefinition struct {
		BuildType            string     `json:"buildType"`
		ExternalParameters   External   `json:"externalParameters"`
		InternalParameters   internal   `json:"internalParameters"`
		ResolvedDependencies []Resource `json:"resolvedDependencies"`
	} `json:"buildDefinition"`
	RunDetails struct {
		Builder struct {
			ID                  string            `json:"id"`
			Version             map[string]string `json:"version"`
			BuilderDependencies []Resource        `json:"builderDependencies"`
		} `json:"builder"`
		Metadata struct {
			InvocationID string `json:"invocationId,omitempty"`
			StartedOn    string `json:"startedOn,omitempty"`
			FinishedOn   string `json:"finishedOn,omitempty"`
		} `json:"metadata"`
		Byproducts []Resource `json:"byproducts,omitempty"`
	} `json:"runDetails"`
}

// internal are the internal parameters of the build type.
type internal struct {
	Epoch    int64    `json:"epoch"`
	Revision int      `json:"revision"`
	Evidence evidence `json:"evidence"`
}

// evidence sums up evidence.json.
type evidence struct {
	Steps int `json:"steps"`
	// NetworkAttempts counts what was refused, CanariesThrough the sandbox's own
	// attempts to get out that were not.
	NetworkAttempts uint64 `json:"networkAttempts"`
	CanariesTried   int    `json:"canariesTried"`
	CanariesThrough int    `json:"canariesThrough"`
	// InputsUnchanged says that the inputs were after the last step what they were
	// before the first.
	InputsUnchanged bool `json:"inputsUnchanged"`
	UnusedInputs    int  `json:"unusedInputs"`
	// ReusedSteps did not run: their results are an earlier build's.
	ReusedSteps []string `json:"reusedSteps,omitempty"`
	Kernels     []string `json:"kernels,omitempty"`
}

// Provenance is the statement of what an image was made from and how.
func Provenance(image Image, b Build) ([]byte, error) {
	if err := b.Speaker.check(); err != nil {
		return nil, fmt.Errorf("provenance: %w", err)
	}
	var p provenance
	def := &p.BuildDefinition
	def.BuildType = BuildType
	def.ExternalParameters = External{b.LockDigest, b.Lock.Name, b.Image.Variant, b.Image.Arch}
	def.InternalParameters = internal{b.Lock.Epoch, b.Lock.Revision, summary(&b.Evidence)}
	def.ResolvedDependencies = []Resource{{Name: "caisson.lock", Digest: sha256Of(b.LockDigest), MediaType: "application/json"}}
	for i := range b.Lock.Inputs {
		r, err := b.dependency(&b.Lock.Inputs[i])
		if err != nil {
			return nil, err
		}
		def.ResolvedDependencies = append(def.ResolvedDependencies, r)
	}
	run := &p.RunDetails
	run.Builder.ID = b.Role.ID()
	run.Builder.Version = b.versions()
	run.Builder.BuilderDependencies = b.dependencies()
	run.Metadata.InvocationID = b.Invocation.ID
	run.Metadata.StartedOn = timestamp(b.Invocation.Started)
	run.Metadata.FinishedOn = timestamp(b.Invocation.Finished)
	run.Byproducts = b.Byproducts
	return marshal(image, TypeProvenance, p)
}

// dependency describes one input of the lock, and by whom it is signed.
func (b *Build) dependency(in *lock.Input) (Resource, error) {
	r := dependency(b.Lock, in, b.Image.Arch, b.Image.Variant)
	if in.RPM == nil || !in.RPM.Signed || use.Of(b.Lock, in, b.Image.Arch, b.Image.Variant)&(use.Image|use.Tool) == 0 {
		return r, nil
	}
	key, err := b.SigningKey(in)
	if err != nil {
		return r, fmt.Errorf("provenance: who signed %s: %w", in.Name, err)
	}
	r.Annotations["signingKey"] = key
	return r, nil
}

// RPMKeys counts by which keys the packages in the
// image of a provenance are signed: by the last 16 digits of the fingerprint, in
// lower case, or "unsigned" for those of which the lock does not want it.
func RPMKeys(b []byte) (map[string]int, error) {
	st, err := Parse(b, TypeProvenance)
	if err != nil {
		return nil, err
	}
	var p provenance
	if err := json.Unmarshal(st.Predicate, &p); err != nil {
		return nil, fmt.Errorf("reading a provenance: %w", err)
	}
	keys := map[string]int{"unsigned": 0}
	for _, r := range p.BuildDefinition.ResolvedDependencies {
		uses, _ := r.Annotations["use"].([]any)
		if !strings.HasPrefix(r.Name, lock.KindRPM+"/") || !slices.Contains(uses, any("image")) {
			continue
		}
		key := strings.ToLower(note(r, "signingKey"))
		if key == "" {
			key = "unsigned"
		}
		keys[key[max(len(key)-16, 0):]]++
	}
	return keys, nil
}

// dependency describes one input of the lock.
func dependency(l *lock.Lock, in *lock.Input, arch, variant string) Resource {
	r := Resource{Name: in.Kind + "/" + in.Name, URI: in.PURL, Digest: sha256Of(in.SHA256)}
	if u, ok := l.RepoURL(in); ok {
		if r.URI == "" {
			r.URI = u
		} else {
			r.DownloadLocation = u
		}
	}
	notes := map[string]any{}
	note := func(key, value string) {
		if value != "" {
			notes[key] = value
		}
	}
	if names := use.Of(l, in, arch, variant).Names(); len(names) > 0 {
		notes["use"] = names
	}
	note("repository", in.Repo)
	note("registry", in.Registry)
	note("fingerprint", in.Fingerprint)
	if in.RPM != nil {
		note("sourceRPM", in.RPM.SourceRPM)
		note("module", in.RPM.Module)
		if keys := trustedKeys(l, in); in.RPM.Signed && len(keys) > 0 {
			notes["trustedKeys"] = keys
		}
	}
	if in.Go != nil {
		note("h1", in.Go.H1)
	}
	if in.Git != nil {
		note("ref", in.Git.Ref)
		note("tree", in.Git.Tree)
		note("tag", in.Git.Tag)
		r.Digest["gitCommit"] = in.Git.Commit
		if len(in.Git.Commit) == 40 { // Conforma knows commits by this name
			r.Digest["sha1"] = in.Git.Commit
		}
		r.URI, r.DownloadLocation = gitURI(in), in.URL
		note("purl", in.PURL)
	}
	if in.OCI != nil {
		note("image", in.OCI.Ref)
		note("role", in.OCI.Role)
		r.MediaType = in.OCI.MediaType
	}
	if in.Verified != nil {
		note("signed", in.Verified.What)
		note("signedBy", in.Verified.By())
	}
	if in.Tree != nil {
		note("path", in.URL)
		note("commit", in.Tree.Commit)
		if in.Tree.Dirty {
			notes["dirty"] = true
		}
	}
	if len(notes) > 0 {
		r.Annotations = notes
	}
	return r
}

// gitURI is a repository and what was asked of it, as pip and SLSA write it.
func gitURI(in *lock.Input) string {
	uri := "git+" + in.URL
	if in.Git.Ref != "" {
		uri += "@" + in.Git.Ref
	}
	return uri
}

// trustedKeys are the fingerprints one of which had to sign a package.
func trustedKeys(l *lock.Lock, in *lock.Input) []string {
	var keys []string
	for _, r := range l.Repos {
		if r.ID == in.Repo && (in.RPM.Arch == "noarch" || r.Arch == in.RPM.Arch) {
			keys = append(keys, r.Keys...)
		}
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

func summary(e *build.Evidence) evidence {
	sum := evidence{
		Steps:           len(e.Steps),
		InputsUnchanged: e.Inputs.Before != "" && e.Inputs.Before == e.Inputs.After,
		UnusedInputs:    len(e.Unused),
		ReusedSteps:     e.Reused,
	}
	for i := range e.Steps {
		step := &e.Steps[i]
		for _, a := range step.NetworkAttempts() {
			sum.NetworkAttempts += a.Count
		}
		sum.CanariesTried += len(step.Canaries)
		for _, c := range step.Canaries {
			if c.Errno == "" {
				sum.CanariesThrough++
			}
		}
		if k := step.Volatile.Kernel; k != "" {
			sum.Kernels = append(sum.Kernels, k)
		}
	}
	slices.Sort(sum.Kernels)
	sum.Kernels = slices.Compact(sum.Kernels)
	return sum
}

// ParseProvenance reads a provenance of this build type and returns its
// external parameters and byproducts. Another build type and parameters that
// are not known are errors: nobody can say what they mean.
func ParseProvenance(b []byte) (External, []Resource, error) {
	st, err := Parse(b, TypeProvenance)
	if err != nil {
		return External{}, nil, err
	}
	var p struct {
		BuildDefinition struct {
			BuildType          string          `json:"buildType"`
			ExternalParameters json.RawMessage `json:"externalParameters"`
		} `json:"buildDefinition"`
		RunDetails struct {
			Byproducts []Resource `json:"byproducts"`
		} `json:"runDetails"`
	}
	if err := json.Unmarshal(st.Predicate, &p); err != nil {
		return External{}, nil, fmt.Errorf("reading a provenance: %w", err)
	}
	if got := p.BuildDefinition.BuildType; got != BuildType {
		return External{}, nil, fmt.Errorf("provenance of build type %q, want %q", got, BuildType)
	}
	if len(p.BuildDefinition.ExternalParameters) == 0 {
		return External{}, nil, errors.New("provenance without external parameters")
	}
	var ext External
	if err := strict(p.BuildDefinition.ExternalParameters, &ext); err != nil {
		return External{}, nil, fmt.Errorf("external parameters of the provenance: %w", err)
	}
	if ext.Lock.IsZero() {
		return External{}, nil, errors.New("provenance that names no lock")
	}
	return ext, p.RunDetails.Byproducts, nil
}
