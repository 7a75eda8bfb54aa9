package main

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestServe(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{"a.txt": "0123456789", ".key": "secret"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var log bytes.Buffer
	s := httptest.NewServer(handler(dir, &log))
	defer s.Close()
	get := func(path, ranges string) (int, string) {
		t.Helper()
		rq, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if ranges != "" {
			rq.Header.Set("Range", ranges)
		}
		rs, err := s.Client().Do(rq)
		if err != nil {
			t.Fatal(err)
		}
		defer rs.Body.Close()
		b, err := io.ReadAll(rs.Body)
		if err != nil {
			t.Fatal(err)
		}
		return rs.StatusCode, string(b)
	}
	for _, c := range []struct {
		path, ranges string
		status       int
		body         string
	}{
		{"/a.txt", "", 200, "0123456789"},
		{"/a.txt", "bytes=3-5", 206, "345"},
		{"/a.txt", "bytes=100-", 416, ""},
		{"/.key", "", 404, ""},
		{"/", "", 404, ""},
		{"/none", "", 404, ""},
	} {
		status, body := get(c.path, c.ranges)
		if status != c.status || (c.body != "" && body != c.body) || strings.Contains(body, "secret") {
			t.Errorf("%s %s: got %d %q, want %d %q", c.path, c.ranges, status, body, c.status, c.body)
		}
	}
	s.Close()
	if !strings.Contains(log.String(), "GET /a.txt 206 3\n") {
		t.Errorf("the log lacks the range request: %s", log.String())
	}
}

func TestKey(t *testing.T) {
	dir := t.TempDir()
	k, err := openKey(dir)
	if err != nil {
		t.Fatal(err)
	}
	again, err := openKey(dir)
	if err != nil {
		t.Fatal(err)
	}
	if k.fingerprint() != again.fingerprint() {
		t.Error("the second run has another key")
	}
	st, err := os.Stat(filepath.Join(dir, ".key"))
	if err != nil {
		t.Fatal(err)
	}
	if st.Mode().Perm() != 0o600 {
		t.Errorf("mode of the private key: got %#o, want 0600", st.Mode().Perm())
	}
	a, err := k.sign(strings.NewReader("x"), sampleTime)
	if err != nil {
		t.Fatal(err)
	}
	b, err := again.sign(strings.NewReader("x"), sampleTime)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a, b) {
		t.Error("two signatures of the same differ")
	}
	if err := os.WriteFile(filepath.Join(dir, ".key"), []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openKey(dir); err == nil || !strings.Contains(err.Error(), ".key") {
		t.Errorf("damaged key: got %v, want an error that names the file", err)
	}
}
