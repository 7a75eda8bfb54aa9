package hermeto

import (
	"context"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"path/filepath"
	"regexp"
	"strings"

	"caisson/lock"
	"caisson/lock/digest"
	"caisson/lock/konflux"
)

// generic is the lock of an artifacts.lock.yaml.
func (p *Plan) generic(ctx context.Context, pkg konflux.PrefetchPackage) (*lock.Lock, error) {
	name := lockfile(pkg)
	if !filepath.IsAbs(name) && !filepath.IsLocal(name) {
		return nil, fmt.Errorf("lockfile %q: want one in the package's folder, or an absolute path", name)
	}
	b, source, err := p.read(pkg, name)
	if err != nil {
		return nil, err
	}
	all, err := konflux.ReadArtifacts(source.Name, b)
	if err != nil {
		return nil, err
	}
	l := &lock.Lock{Sources: []lock.Source{source}}
	for _, a := range all.Artifacts {
		in, err := p.artifact(ctx, a)
		if err != nil {
			return nil, fmt.Errorf("%s: %s: %w", source.Name, a.Filename, err)
		}
		in.For = []lock.Use{{By: source.Name}}
		if old, ok := p.artifacts[a.Filename]; ok && old.URL != a.URL {
			return nil, fmt.Errorf("%s: two files would be called %q", source.Name, a.Filename)
		}
		p.artifacts[a.Filename] = a
		l.Inputs = append(l.Inputs, in)
	}
	return l, nil
}

// artifact pins one file.
func (p *Plan) artifact(ctx context.Context, a konflux.Artifact) (lock.Input, error) {
	in := lock.Input{Kind: lock.KindFile, Name: a.Filename, URL: a.URL, PURL: artifactPURL(a)}
	var err error
	if in.Auth, err = auth(a.Auth); err != nil {
		return in, err
	}
	algorithm, sum, _ := strings.Cut(a.Checksum, ":")
	sum = strings.ToLower(sum)
	var h hash.Hash
	switch strings.ToLower(algorithm) {
	case "sha256":
		in.SHA256, err = digest.ParseHex(sum)
		return in, err
	case "sha384":
		h = sha512.New384()
	case "sha512":
		h = sha512.New()
	default:
		return in, fmt.Errorf("checksum %q: want sha256, sha384 or sha512; others prove too little, or are not known here", a.Checksum)
	}
	// What had that checksum earlier is not asked for again.
	key := "checksum-1\x00" + strings.ToLower(algorithm) + "\x00" + sum
	if d, ok := p.req.Store.Lookup(key); ok {
		if size, err := p.hash(h, d); err == nil && hex.EncodeToString(h.Sum(nil)) == sum {
			in.SHA256, in.Size = d, size
			return in, nil
		}
		h.Reset()
	}
	blob, err := p.req.Fetch(ctx, lock.Want{Kind: lock.KindFile, URL: a.URL, Auth: in.Auth})
	if err != nil {
		return in, err
	}
	if in.Size, err = p.hash(h, blob.SHA256); err != nil {
		return in, err
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != sum {
		return in, fmt.Errorf("got %s:%s, want %s", algorithm, got, a.Checksum)
	}
	in.SHA256 = blob.SHA256
	return in, p.req.Store.Remember(key, blob.SHA256)
}

// hash puts a file of the store, which is verified meanwhile, into h.
func (p *Plan) hash(h hash.Hash, d digest.Digest) (size int64, err error) {
	f, err := p.req.Store.Open(d)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return io.Copy(h, f)
}

// variableRE is one variable and nothing else, as Python's string.Template
// has it.
var variableRE = regexp.MustCompile(`^\$(?:([A-Za-z_]\w*)|\{([A-Za-z_]\w*)\})$`)

// secret is the variable that a value is, for a lock holds no secrets.
func secret(value string) (lock.Secret, bool) {
	m := variableRE.FindStringSubmatch(value)
	if m == nil {
		return "", false
	}
	return lock.Secret("$" + m[1] + m[2]), true
}

// auth is a login as a lock has it: "$NAME" for what is secret.
func auth(a *konflux.ArtifactAuth) (*lock.Auth, error) {
	switch {
	case a == nil:
		return nil, nil
	case a.Basic != nil:
		password, ok := secret(a.Basic.Password)
		if !ok {
			return nil, errors.New("auth.basic.password: want one variable, such as $PASSWORD, and nothing else")
		}
		user := a.Basic.Username
		if v, ok := secret(user); ok {
			user = string(v)
		} else if strings.Contains(user, "$") {
			return nil, errors.New("auth.basic.username: want one variable, such as $NAME, or a text without any")
		}
		return &lock.Auth{Basic: &lock.AuthBasic{Username: user, Password: password}}, nil
	}
	value, header := a.Bearer.Value, a.Bearer.Header
	if strings.EqualFold(header, "Authorization") {
		rest, ok := strings.CutPrefix(value, "Bearer ")
		if !ok {
			return nil, errors.New(`auth.bearer.value: want "Bearer $TOKEN" for the header Authorization`)
		}
		value, header = strings.TrimSpace(rest), ""
	}
	token, ok := secret(value)
	if !ok {
		return nil, errors.New("auth.bearer.value: want one variable, such as $TOKEN, for the token")
	}
	return &lock.Auth{Bearer: &lock.AuthBearer{Token: token, Header: header}}, nil
}
