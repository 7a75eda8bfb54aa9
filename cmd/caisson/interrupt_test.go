package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"caisson/lock"
	"caisson/lock/digest"
)

// program is this test's executable as the real program.
func program(t testing.TB, dir string, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	c := exec.Command(self)
	c.Args = append([]string{"caisson"}, args...)
	c.Dir = dir
	c.Env = []string{"HOME=" + dir, "PATH=" + os.Getenv("PATH"), "TMPDIR=" + dir, "TERM=xterm", "GOENV=off"}
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return c
}

// stalling serves the beginning of everything and never the rest. It closes
// reached with the first request.
func stalling(t *testing.T) (address string, reached chan struct{}) {
	reached = make(chan struct{})
	var once sync.Once
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "1000000")
		fmt.Fprint(w, strings.Repeat("x", 100_000))
		w.(http.Flusher).Flush()
		once.Do(func() { close(reached) })
		<-r.Context().Done()
	}))
	t.Cleanup(srv.Close)
	return srv.URL, reached
}

// stallingProject is a folder with a manifest and a lock whose inputs never
// come.
func stallingProject(t *testing.T) (dir string, reached chan struct{}) {
	url, reached := stalling(t)
	dir = t.TempDir()
	manifest := `version: 1
name: test
rpm: {repos: [{id: slow, baseurl: "` + url + `/", gpgcheck: false}]}
sets: {tools: {packages: [a]}, initrd: {packages: [a]}, root: {packages: [a]}}
image: {kernel: {cmdline: quiet}}
`
	must(t, os.WriteFile(filepath.Join(dir, "caisson.yaml"), []byte(manifest), 0o644))
	l := &lock.Lock{Version: lock.Version, Revision: lock.Revision, Name: "test", Manifest: digest.Of([]byte(manifest)), Arches: []string{"x86_64"},
		Image: lock.Image{Root: "erofs", Verity: "uki"}}
	for i := range 3 {
		name := fmt.Sprintf("file%d", i)
		l.Inputs = append(l.Inputs, lock.Input{Kind: lock.KindFile, Name: name, URL: url + "/" + name, Size: 1_000_000, SHA256: digest.Of([]byte(name))})
	}
	b, err := lock.Format(l)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "given.lock"), b, 0o644))
	return dir, reached
}

// TestInterrupt sends a signal to stages that wait for a server: they end at
// once, by their exit code, and leave nothing behind.
func TestInterrupt(t *testing.T) {
	for _, tt := range []struct {
		name   string
		signal os.Signal
		args   []string
	}{
		{"lock", os.Interrupt, []string{"lock", "--store", "store"}},
		{"prefetch", os.Interrupt, []string{"prefetch", "--lock", "given.lock", "--store", "store"}},
		{"terminate", syscall.SIGTERM, []string{"prefetch", "--lock", "given.lock", "--store", "store"}},
		{"resolve", os.Interrupt, []string{"resolve", "--repo", "slow=URL", "--store", "store", "a"}},
		{"run", os.Interrupt, []string{"run", "--out", "out", "--store", "store"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir, reached := stallingProject(t)
			if tt.name == "resolve" {
				url, r := stalling(t)
				tt.args[2], reached = "slow="+url+"/", r
			}
			before := filesBelow(t, dir)
			c := program(t, dir, tt.args...)
			var stdout, stderr bytes.Buffer
			c.Stdout, c.Stderr = &stdout, &stderr
			must(t, c.Start())
			select {
			case <-reached:
			case <-time.After(20 * time.Second):
				t.Error("it never asked the server")
			}
			began := time.Now()
			must(t, c.Process.Signal(tt.signal))
			c.Wait()
			if d := time.Since(began); d > 2*time.Second {
				t.Errorf("it took %s to end", d)
			}
			if code := c.ProcessState.ExitCode(); code != exitInterrupted {
				t.Errorf("exit code %d, want %d", code, exitInterrupted)
			}
			if !strings.HasPrefix(lastLines(stderr.String(), 2), "caisson: interrupted\n") && tt.name != "resolve" {
				t.Errorf("it said %q", stderr.String())
			}
			if stdout.Len() > 0 {
				t.Errorf("it printed %q", stdout.String())
			}
			if after := filesBelow(t, dir); after != before {
				t.Errorf("it left files:\n%s\nbefore:\n%s", after, before)
			}
		})
	}
}

// TestInterruptAgain wants a second signal to end a program at once that does
// not heed the first: here, one that waits for its own standard input.
func TestInterruptAgain(t *testing.T) {
	dir := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(dir, "repo/repodata"), 0o755))
	const primary = `<metadata xmlns="http://linux.duke.edu/metadata/common" packages="0"></metadata>`
	must(t, os.WriteFile(filepath.Join(dir, "repo/repodata/primary.xml"), []byte(primary), 0o644))
	must(t, os.WriteFile(filepath.Join(dir, "repo/repodata/repomd.xml"), fmt.Appendf(nil,
		`<repomd xmlns="http://linux.duke.edu/metadata/repo"><data type="primary"><checksum type="sha256">%s</checksum><location href="repodata/primary.xml"/><size>%d</size></data></repomd>`,
		digest.Of([]byte(primary)).Hex(), len(primary)), 0o644))
	c := program(t, dir, "resolve", "--repo", "a=repo", "--each")
	in, err := c.StdinPipe()
	must(t, err)
	out, err := c.StdoutPipe()
	must(t, err)
	must(t, c.Start())
	fmt.Fprintln(in, "nothing")
	if _, err := out.Read(make([]byte, 1)); err != nil { // it answers, and waits for more
		t.Fatal(err)
	}
	must(t, c.Process.Signal(os.Interrupt))
	time.Sleep(200 * time.Millisecond)
	must(t, c.Process.Signal(os.Interrupt))
	done := make(chan error, 1)
	go func() { done <- c.Wait() }()
	select {
	case <-done:
		if ws := c.ProcessState.Sys().(syscall.WaitStatus); !ws.Signaled() && ws.ExitStatus() != exitInterrupted {
			t.Errorf("it ended by %v", c.ProcessState)
		}
	case <-time.After(5 * time.Second):
		t.Error("it goes on")
	}
}

func lastLines(s string, n int) string {
	lines := strings.SplitAfter(s, "\n")
	return strings.Join(lines[max(0, len(lines)-n-1):], "")
}

// filesBelow lists the files below a folder; empty folders do not count, nor
// does what the store keeps on purpose: leases, and transfers to go on with.
// What it has under a final name, or unfinished in tmp, does.
func filesBelow(t *testing.T, dir string) string {
	t.Helper()
	var all []string
	must(t, filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if rel, ok := strings.CutPrefix(p, filepath.Join(dir, "store")+"/"); ok {
			if top, _, _ := strings.Cut(rel, "/"); top == "lock" || top == "leases" || top == "partial" {
				return nil
			}
		}
		all = append(all, p)
		return nil
	}))
	return strings.Join(all, "\n")
}
