// Package share keeps what a lock needs in an OCI registry, and fills a store
// from there.
//
// # Format
//
// The lock is the config of an OCI image manifest (image-spec 1.1), and each
// distinct file of its inputs a layer, uncompressed, so that the layer's
// digest is the input's SHA-256:
//
//	artifactType   application/vnd.caisson.store.v1
//	config         application/vnd.caisson.lock.v1+json: the lock itself
//	layers         application/vnd.caisson.input.v1, in the order of the lock's inputs;
//	               annotations: org.opencontainers.image.title, the name of the first
//	               input that is that file, dev.caisson.kind, its kind, and, where it is
//	               restricted, dev.caisson.login, by what it was logged in for.
//	               Where files are left out, a last one,
//	               application/vnd.caisson.left-out.v1+json: a JSON array of their digests
//
// Where the manifest would exceed a limit (2 MiB; registries refuse them from
// 4 MiB on) the layers are spread, in order, over several such manifests under
// an index of the same artifactType. There is no time, no name of a machine
// and no map in it: the same lock, limit and choice of what is restricted give
// the same digest. The tag that is not given is "lock-" and the lock's digest in
// hex.
//
// # Promise
//
// Push sends nothing that the repository has, and nothing at all where the tag
// already names the manifest; files that another repository of the registry
// has can be mounted. A file that is damaged in the store is not sent as what
// it should be. Pull is prefetch.Fill from another place: it fetches what the
// store lacks, believes the registry in nothing but where to find a file, and
// proves each file, signatures included, before it has its name; it goes on
// where an earlier run was ended.
//
// What the lock has a login for, a client certificate, a password or a token of
// the input or of its repository, may not be the reader's to pass on; nor may
// what came into the store by a login of the site: of .netrc, of an address, of
// cargo, of git or SSH, of another registry (see prefetch.LoginOf). So are the
// packages in an ISO image that came so. Push leaves these files out unless they
// are asked for by name, and Pull takes them from where the lock says, with the
// reader's own login. What was sent all the same is marked, so that whoever
// pulls it does not pass it on unawares either. The login at the registry that
// the store is shared by does not restrict anything.
//
// # Limits
//
// What an earlier push has sent stays there. Logins at the registry are those of docker
// and podman, credential helpers included. Without TLS only a registry on this machine is spoken to.
// An upload that stalls is ended by the context only.
package share

import (
	"cmp"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"

	"caisson/lock"
	"caisson/lock/digest"
	"caisson/prefetch"
)

// Options are Push's and Pull's. The zero value will do.
type Options struct {
	// Config is where proxies, certificates and limits come from.
	Config prefetch.Config
	// Keychain has the logins; nil for Config's, and those of docker and podman.
	Keychain authn.Keychain
	// From is another repository of the same registry, whose files need not be
	// sent again; Push's alone, and empty for none.
	From string
	// All looks for each file even where the tag names the manifest already:
	// it mends a registry that has lost some. Push's alone.
	All bool
	// Restricted is what of the lock's restricted files is sent all the same:
	// ids of repositories, names of inputs, or RestrictedAll. Push's alone.
	Restricted []string
	// MaxManifest is the largest manifest in bytes that Push makes; 2 MiB.
	MaxManifest int
	Progress    prefetch.Progress
}

// begin reads what Push and Pull are asked for: the place that a reference
// names for a lock, and what is not given.
func begin(ref string, text []byte, o Options) (name.Reference, Options, error) {
	if o.Keychain == nil {
		o.Keychain = o.Config.Keychain
	}
	if o.Keychain == nil {
		o.Keychain = authn.DefaultKeychain
	}
	if o.MaxManifest <= 0 {
		o.MaxManifest = 2 << 20
	}
	r, err := prefetch.ParseRef(ref, "lock-"+digest.Of(text).Hex())
	return r, o, err
}

// files are the lock's inputs, one for each distinct file.
func files(l *lock.Lock) []*lock.Input {
	var out []*lock.Input
	seen := make(map[digest.Digest]bool)
	for i := range l.Inputs {
		if in := &l.Inputs[i]; !seen[in.SHA256] {
			seen[in.SHA256] = true
			out = append(out, in)
		}
	}
	return out
}

// backoff is the time before the first retry.
func (o Options) backoff() time.Duration { return cmp.Or(o.Config.Backoff, 500*time.Millisecond) }
