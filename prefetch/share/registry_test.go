package share

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"caisson/lock/digest"
)

// tool finds a program, or skips the test.
func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("CAISSON_TOOLS") == "required" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	return path
}

// Debian's docker-registry takes what is pushed, keeps it over its own garbage
// collection, and gives it back.
func TestDockerRegistry(t *testing.T) {
	registry := tool(t, "docker-registry")
	dir := t.TempDir()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	host := l.Addr().String()
	l.Close()
	config := filepath.Join(dir, "config.yml")
	text := fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: %q}\n", filepath.Join(dir, "data"), host)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	start := func() *exec.Cmd {
		c := exec.Command(registry, "serve", config)
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Process.Kill(); c.Wait() })
		for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
			if resp, err := http.Get("http://" + host + "/v2/"); err == nil {
				resp.Body.Close()
				return c
			}
		}
		t.Fatal("the registry does not start")
		return nil
	}
	c := start()
	lk, lockText, s := world(t)
	for _, limit := range []int{0, 1000} {
		o := options()
		o.MaxManifest = limit
		ref := fmt.Sprintf("%s/team/store:%d", host, limit)
		p := push(t, ref, lk, lockText, s, o)
		if again := push(t, ref, lk, lockText, s, o); again.Digest != p.Digest || again.Sent != 0 {
			t.Errorf("again: %+v", again)
		}
		t.Logf("%+v", p)
	}
	o := options()
	o.From = host + "/team/store"
	if p := push(t, host+"/team/other", lk, lockText, s, o); p.Sent != 0 {
		t.Errorf("mounted from another repository, %d were sent", p.Sent)
	}
	c.Process.Kill()
	c.Wait()
	if out, err := exec.Command(registry, "garbage-collect", config).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	start()
	for _, ref := range []string{"/team/store:0", "/team/store:1000", "/team/other:lock-" + digest.Of(lockText).Hex()} {
		to := newStore(t)
		if _, err := Pull(context.Background(), host+ref, lk, lockText, to, options()); err != nil {
			t.Errorf("%s: %v", ref, err)
			continue
		}
		same(t, lk, to)
	}
}
