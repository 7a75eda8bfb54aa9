package konflux

import (
	"cmp"
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"caisson/lock/internal/strictyaml"
)

// Artifacts is Hermeto's artifacts.lock.yaml: files by their addresses.
type Artifacts struct {
	Version   string // "1.0" or "2.0"
	Artifacts []Artifact
}

// Artifact is one file.
type Artifact struct {
	URL      string // of a Maven artifact too
	Checksum string // "algorithm:hex"
	// Filename is where the file is put, slash-separated, below the folder of
	// the generic files; never empty.
	Filename string
	// Auth is how to log in, nil where the file does not say (version 2.0).
	Auth  *ArtifactAuth
	Maven *MavenAttributes // nil for a file by URL
}

// ArtifactAuth has exactly one of Bearer and Basic. "$NAME" and "${NAME}" in
// values stand for environment variables, "$$" for a dollar sign.
type ArtifactAuth struct {
	Bearer *ArtifactBearer
	Basic  *ArtifactBasic
}

// ArtifactBearer is a header and all of its value, such as "Bearer $TOKEN".
type ArtifactBearer struct {
	Header string // "Authorization" unless the file says otherwise
	Value  string
}

// ArtifactBasic is a name and a password (RFC 7617).
type ArtifactBasic struct{ Username, Password string }

// MavenAttributes are the coordinates of a Maven artifact.
type MavenAttributes struct {
	RepositoryURL, GroupID, ArtifactID, Version, Classifier string
	Type                                                    string // "jar" unless the file says otherwise
}

// The keys of artifacts.lock.yaml
// (hermeto/core/package_managers/generic/models.py).
type (
	artifactsFile struct {
		Metadata struct {
			Version string `yaml:"version"`
		} `yaml:"metadata"`
		Artifacts []artifactEntry `yaml:"artifacts"`
	}
	artifactEntry struct {
		Type        string `yaml:"type"`
		DownloadURL string `yaml:"download_url"`
		Filename    string `yaml:"filename"`
		Checksum    string `yaml:"checksum"`
		Attributes  *struct {
			RepositoryURL string `yaml:"repository_url"`
			GroupID       string `yaml:"group_id"`
			ArtifactID    string `yaml:"artifact_id"`
			Version       string `yaml:"version"`
			Type          string `yaml:"type"`
			Classifier    string `yaml:"classifier"`
		} `yaml:"attributes"`
		Auth *struct {
			Bearer *struct {
				Header string `yaml:"header"`
				Value  string `yaml:"value"`
			} `yaml:"bearer"`
			Basic *struct {
				Username string `yaml:"username"`
				Password string `yaml:"password"`
			} `yaml:"basic"`
		} `yaml:"auth"`
	}
)

// checksumRE is Hermeto's CHECKSUM_FORMAT.
var checksumRE = regexp.MustCompile(`^[a-zA-Z0-9]+:[a-zA-Z0-9]+$`)

// ReadArtifacts reads an artifacts.lock.yaml, version 1.0 or 2.0. name is how
// errors call the file.
func ReadArtifacts(name string, b []byte) (*Artifacts, error) {
	if len(b) > maxFile {
		return nil, fmt.Errorf("%s: more than the %d bytes that are read", name, maxFile)
	}
	var f artifactsFile
	doc, err := strictyaml.Decode(name, b, &f)
	if err != nil {
		return nil, err
	}
	out := &Artifacts{Version: f.Metadata.Version}
	if out.Version != "1.0" && out.Version != "2.0" {
		return nil, doc.Errorf([]any{"metadata", "version"}, `got %q; want "1.0" or "2.0"`, out.Version)
	}
	var errs []error
	urls, names := map[string]bool{}, map[string]bool{}
	for i := range f.Artifacts {
		a, err := f.Artifacts[i].check()
		switch {
		case err != nil:
		case a.Auth != nil && out.Version == "1.0":
			err = errors.New("auth: version 1.0 of the file has none; say version 2.0")
		case urls[a.URL]:
			err = fmt.Errorf("%q is there twice", a.URL)
		case names[a.Filename]:
			err = fmt.Errorf("two files would be called %q", a.Filename)
		}
		if err != nil {
			errs = append(errs, doc.Errorf([]any{"artifacts", i}, "%w", err))
		}
		urls[a.URL], names[a.Filename] = true, true
		out.Artifacts = append(out.Artifacts, a)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return out, nil
}

func (e *artifactEntry) check() (Artifact, error) {
	a := Artifact{URL: e.DownloadURL, Checksum: e.Checksum, Filename: e.Filename}
	if !checksumRE.MatchString(e.Checksum) {
		return a, fmt.Errorf("checksum %q: want algorithm:hash", e.Checksum)
	}
	switch {
	case e.Type == "" && e.Attributes == nil:
		if !isURL(a.URL) {
			return a, fmt.Errorf("download_url %q: want an address such as https://host/file", a.URL)
		}
	case e.Type != "maven" || e.Attributes == nil || e.DownloadURL != "":
		return a, fmt.Errorf("type %q: want maven with attributes and no download_url, or neither", e.Type)
	default:
		if err := e.maven(&a); err != nil {
			return a, err
		}
	}
	if a.Filename == "" {
		rest, _, _ := strings.Cut(a.URL, "#")
		rest, _, _ = strings.Cut(rest, "?")
		_, rest, _ = strings.Cut(rest, "://")
		if _, p, ok := strings.Cut(rest, "/"); ok {
			a.Filename = path.Base("/" + p)
		}
	}
	a.Filename = path.Clean(a.Filename)
	if a.Filename == "." || path.IsAbs(a.Filename) || slices.Contains(strings.Split(a.Filename, "/"), "..") {
		return a, fmt.Errorf("filename %q: want a path below the folder of the files", a.Filename)
	}
	return a, e.auth(&a)
}

// maven makes the address of a Maven artifact, as Hermeto makes it.
func (e *artifactEntry) maven(a *Artifact) error {
	at := e.Attributes
	m := MavenAttributes{
		RepositoryURL: at.RepositoryURL, GroupID: at.GroupID, ArtifactID: at.ArtifactID, Version: at.Version,
		Classifier: at.Classifier, Type: cmp.Or(at.Type, "jar"),
	}
	for _, k := range []struct{ key, value string }{
		{"repository_url", m.RepositoryURL}, {"group_id", m.GroupID}, {"artifact_id", m.ArtifactID}, {"version", m.Version},
	} {
		if k.value == "" {
			return fmt.Errorf("attributes: no %s", k.key)
		}
	}
	if !isURL(m.RepositoryURL) {
		return fmt.Errorf("repository_url %q: want an address such as https://host/path", m.RepositoryURL)
	}
	ext := m.Type
	switch m.Type {
	case "maven-plugin", "ejb", "ejb-client", "javadoc", "javadoc-source", "test-jar":
		ext = "jar"
	}
	file := m.ArtifactID + "-" + m.Version
	if m.Classifier != "" {
		file += "-" + m.Classifier
	}
	file += "." + ext
	a.URL = strings.TrimSuffix(m.RepositoryURL, "/") + "/" + strings.ReplaceAll(m.GroupID, ".", "/") + "/" + m.ArtifactID + "/" + m.Version + "/" + file
	if a.Filename == "" {
		a.Filename = file
	}
	a.Maven = &m
	return nil
}

func (e *artifactEntry) auth(a *Artifact) error {
	if e.Auth == nil {
		return nil
	}
	if (e.Auth.Bearer == nil) == (e.Auth.Basic == nil) {
		return errors.New("auth: want exactly one of bearer and basic")
	}
	a.Auth = &ArtifactAuth{}
	if b := e.Auth.Bearer; b != nil {
		if b.Value == "" {
			return errors.New("auth.bearer: no value")
		}
		a.Auth.Bearer = &ArtifactBearer{Header: cmp.Or(b.Header, "Authorization"), Value: b.Value}
		return nil
	}
	if e.Auth.Basic.Username == "" || e.Auth.Basic.Password == "" {
		return errors.New("auth.basic: want username and password")
	}
	a.Auth.Basic = &ArtifactBasic{Username: e.Auth.Basic.Username, Password: e.Auth.Basic.Password}
	return nil
}

// isURL tells whether s is an absolute address of the web.
func isURL(s string) bool {
	for _, scheme := range []string{"https://", "http://"} {
		if rest, ok := strings.CutPrefix(s, scheme); ok && rest != "" && rest[0] != '/' {
			return true
		}
	}
	return false
}
