package prefetch

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/docker/cli/cli/config"
	"github.com/docker/cli/cli/config/configfile"
	"github.com/docker/cli/cli/config/types"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
)

// registryLogins are the logins at registries that files have, or helpers that
// the files name (containers-auth.json(5), docker's config.json). The first
// file that has one for a registry counts; in it that for the repository does,
// then those for the folders above it, then the registry's.
type registryLogins struct {
	files []string
	mu    sync.Mutex // helpers may ask
}

// registryLoginsFromEnv finds the files as podman does, where it keeps logins
// and where docker does: REGISTRY_AUTH_FILE alone, where it is set. A
// DOCKER_CONFIG that is set counts before podman's.
func registryLoginsFromEnv(home string) *registryLogins {
	if f := os.Getenv("REGISTRY_AUTH_FILE"); f != "" {
		return &registryLogins{files: []string{f}}
	}
	var files []string
	docker := os.Getenv("DOCKER_CONFIG")
	if docker != "" {
		files = append(files, filepath.Join(docker, "config.json"))
	}
	if run := os.Getenv("XDG_RUNTIME_DIR"); run != "" {
		files = append(files, filepath.Join(run, "containers", "auth.json"))
	} else {
		files = append(files, fmt.Sprintf("/run/containers/%d/auth.json", os.Getuid()))
	}
	user := os.Getenv("XDG_CONFIG_HOME")
	if user == "" && home != "" {
		user = filepath.Join(home, ".config")
	}
	if user != "" {
		files = append(files, filepath.Join(user, "containers", "auth.json"))
	}
	if home != "" && docker == "" {
		files = append(files, filepath.Join(home, ".docker", "config.json"))
	}
	return &registryLogins{files: files}
}

// Resolve is authn.Keychain's.
func (r *registryLogins) Resolve(target authn.Resource) (authn.Authenticator, error) {
	return r.ResolveContext(context.Background(), target)
}

// ResolveContext is authn.ContextKeychain's.
func (r *registryLogins) ResolveContext(ctx context.Context, target authn.Resource) (authn.Authenticator, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, file := range r.files {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		found, err := loginIn(file, target)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		if found != (types.AuthConfig{}) {
			return authn.FromConfig(authn.AuthConfig{Username: found.Username, Password: found.Password, Auth: found.Auth,
				IdentityToken: found.IdentityToken, RegistryToken: found.RegistryToken}), nil
		}
	}
	return authn.Anonymous, nil
}

// loginIn is the login that a file has; nothing where it has none.
func loginIn(file string, target authn.Resource) (types.AuthConfig, error) {
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return types.AuthConfig{}, nil
	}
	if err != nil {
		return types.AuthConfig{}, errors.Unwrap(err)
	}
	defer f.Close()
	cf, err := config.LoadFromReader(f)
	if err != nil {
		return types.AuthConfig{}, errors.New("it is no file of logins") // the error may have what is in it
	}
	for key := target.String(); strings.Contains(key, "/"); key = key[:strings.LastIndexByte(key, '/')] {
		if a := bare(cf.AuthConfigs[key]); a != (types.AuthConfig{}) {
			return a, nil
		}
	}
	return registryLogin(cf, target.RegistryStr())
}

// registryLogin is a registry's login, which a helper may have.
func registryLogin(cf *configfile.ConfigFile, registry string) (types.AuthConfig, error) {
	keys := []string{registry}
	if registry == name.DefaultRegistry {
		keys = []string{authn.DefaultAuthKey, "docker.io"}
	}
	for _, key := range keys {
		a, err := cf.GetAuthConfig(key)
		if err != nil {
			return a, err
		}
		if a = bare(a); a != (types.AuthConfig{}) {
			return a, nil
		}
	}
	return types.AuthConfig{}, nil
}

// bare is a login without what is filled in where there is none.
func bare(a types.AuthConfig) types.AuthConfig {
	a.ServerAddress = ""
	return a
}
