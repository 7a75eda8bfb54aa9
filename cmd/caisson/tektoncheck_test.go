package main

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"caisson/cmd/caisson/internal/tekton"
)

// TestUseArtifact has a registry give out another artifact than was asked for: of
// the same size, a longer one, one that is cut off.
func TestUseArtifact(t *testing.T) {
	src := t.TempDir()
	must(t, os.WriteFile(filepath.Join(src, "caisson.yaml"), bytes.Repeat([]byte("version: 1\n"), 1000), 0o644))
	var good bytes.Buffer
	must(t, tekton.Pack(&good, src))
	must(t, os.WriteFile(filepath.Join(src, "caisson.yaml"), bytes.Repeat([]byte("version: 2\n"), 1000), 0o644))
	var other bytes.Buffer
	must(t, tekton.Pack(&other, src))
	var more bytes.Buffer // an archive after the archive's end, which tar does not read
	zw := gzip.NewWriter(&more)
	_, err := zw.Write([]byte("more"))
	must(t, err)
	must(t, zw.Close())
	digest := fmt.Sprintf("sha256:%x", sha256.Sum256(good.Bytes()))
	for name, tt := range map[string]struct {
		serve []byte
		want  string // empty: it is the one
	}{
		"the artifact": {good.Bytes(), ""}, "another": {other.Bytes(), digest}, "cut off": {good.Bytes()[:good.Len()-4], digest},
		"more after its end": {append(bytes.Clone(good.Bytes()), more.Bytes()...), digest},
	} {
		t.Run(name, func(t *testing.T) {
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if strings.Contains(r.URL.Path, "/blobs/") && r.Method == http.MethodGet {
					w.Write(tt.serve)
				}
			}))
			defer srv.Close()
			u := &ui{out: io.Discard, err: io.Discard, quiet: true}
			dir := filepath.Join(t.TempDir(), "source")
			err := useArtifact(t.Context(), u, "oci:"+strings.TrimPrefix(srv.URL, "http://")+"/team/src@"+digest+"="+dir)
			switch {
			case tt.want == "" && err != nil, tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}
