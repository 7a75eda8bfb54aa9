package oci

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"caisson/lock/tooltest"
	"caisson/prefetch"
)

// TestProbe has a registry take a probe, and refuse one at each request.
func TestProbe(t *testing.T) {
	docker, _ := tooltest.Registry(t)
	p, host := newProxy(t, docker)
	cfg := quick().Config
	for range 2 { // the registry has the blob by then
		if err := Probe(t.Context(), host+"/team/podvm:1", cfg); err != nil {
			t.Fatal(err)
		}
	}
	if hasTag(t, docker, "1") {
		t.Error("there is a tag")
	}
	if got := p.set(nil, nil)["POST blobs/uploads"]; got != 2 {
		t.Errorf("%d uploads were begun, want 2", got)
	}
	for _, tt := range []struct {
		method string
		status int
	}{{"POST", 401}, {"POST", 403}, {"POST", 404}, {"PATCH", 413}, {"PUT", 412}} {
		sent := false
		p.set(func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method != tt.method || !strings.Contains(r.URL.Path, "/uploads/") {
				return false
			}
			sent = true
			io.Copy(io.Discard, r.Body)
			w.WriteHeader(tt.status)
			return true
		}, nil)
		err := Probe(t.Context(), host+"/team/podvm:1", cfg)
		var e *prefetch.RegistryError
		if !sent || !errors.As(err, &e) || e.Status != tt.status {
			t.Errorf("%s %d: got %v", tt.method, tt.status, err)
		}
	}
	if err := Probe(t.Context(), "podvm", cfg); !errors.As(err, new(*prefetch.RefError)) {
		t.Errorf("no registry: %v", err)
	}
}
