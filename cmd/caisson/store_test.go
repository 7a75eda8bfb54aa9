package main

import (
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/rogpeppe/go-internal/testscript"
)

// TestStoreRegistry runs the scripts of testdata/registry beside two
// registries: $REGISTRY, and $LOCKED that wants a login.
func TestStoreRegistry(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/registry",
		Setup: func(e *testscript.Env) error {
			e.Setenv("HOME", e.WorkDir+"/home")
			e.Setenv("XDG_CACHE_HOME", e.WorkDir+"/cache")
			e.Setenv("GOENV", "off")
			open := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
			e.Defer(open.Close)
			locked := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("WWW-Authenticate", `Basic realm="registry"`)
				w.WriteHeader(http.StatusUnauthorized)
			}))
			e.Defer(locked.Close)
			e.Setenv("REGISTRY", strings.TrimPrefix(open.URL, "http://"))
			e.Setenv("LOCKED", strings.TrimPrefix(locked.URL, "http://"))
			return expandWork(e.WorkDir)
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"exits": cmdExits, "mkrepo": cmdMakeRepo, "stored": cmdStored,
		},
	})
}
