// Package tooltest finds the programs that tests compare with.
//
// A program that is absent skips the test and says so, unless CAISSON_TOOLS is
// "required", as it is in CI: there it fails the test.
package tooltest

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// Find returns the path of a program.
func Find(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if errors.Is(err, exec.ErrNotFound) {
		path, err = exec.LookPath("/usr/sbin/" + name) // not in everybody's PATH
	}
	if err != nil {
		Missing(t, name+" is not installed")
	}
	return path
}

// Missing ends a test for want of something.
func Missing(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("CAISSON_TOOLS") == "required" {
		t.Fatalf("%s, and CAISSON_TOOLS is required", what)
	}
	t.Skip(what)
}

// Registry runs Debian's docker-registry on this machine until the test ends: it
// knows nothing of referrers. It returns its host and the folder in which it keeps
// everything.
func Registry(t testing.TB) (host, dir string) {
	t.Helper()
	program := Find(t, "docker-registry")
	dir = t.TempDir()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	host = l.Addr().String()
	l.Close()
	config := filepath.Join(dir, "config.yml")
	data := filepath.Join(dir, "data")
	text := fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: %q}\n", data, host)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c := exec.Command(program, "serve", config)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Process.Kill(); _ = c.Wait() })
	for range 400 {
		if resp, err := http.Get("http://" + host + "/v2/"); err == nil {
			resp.Body.Close()
			return host, data
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatal("the registry does not start")
	return "", ""
}
