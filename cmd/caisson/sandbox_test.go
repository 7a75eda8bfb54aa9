package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// keptFolder is what a build leaves whose first step failed: a root that shows
// this machine's programs, and the step's sandbox.
func keptFolder(t *testing.T) string {
	t.Helper()
	if out, err := exec.Command("unshare", "-rn", "true").CombinedOutput(); err != nil {
		if os.Getenv("CAISSON_TOOLS") == "required" {
			t.Fatalf("no user namespaces: %v, %s", err, out)
		}
		t.Skipf("no user namespaces: %v, %s", err, out)
	}
	dir := filepath.Join(t.TempDir(), "failed-1")
	for _, d := range []string{"tools/usr", "tools/proc", "tools/dev", "tools/tmp", "tools/out", "step-1-out"} {
		must(t, os.MkdirAll(filepath.Join(dir, d), 0o755))
	}
	for _, l := range []string{"bin", "sbin", "lib", "lib64"} {
		if _, err := os.Stat("/usr/" + l); err == nil {
			must(t, os.Symlink("usr/"+l, filepath.Join(dir, "tools", l)))
		}
	}
	must(t, os.WriteFile(filepath.Join(dir, "step-1-out/half"), []byte("half\n"), 0o644))
	must(t, os.WriteFile(filepath.Join(dir, "step.json"), []byte(`{"name": "step 1: run", "root": "tools", "mounts": [
		{"Source": "/usr", "Target": "/usr"}, {"Source": "step-1-out", "Target": "/out", "Writable": true}],
		"args": ["bash", "-c", "exit 9"], "env": ["OUT=/out"], "dir": "/tmp"}`), 0o644))
	return dir
}

// A command in the sandbox has its input and output, and its exit code.
func TestSandboxCommand(t *testing.T) {
	dir := keptFolder(t)
	run := func(in string, args ...string) (code int, stdout, stderr string) {
		var out, errs bytes.Buffer
		c := program(t, filepath.Dir(dir), append([]string{"sandbox", "failed-1"}, args...)...)
		c.Stdin, c.Stdout, c.Stderr = strings.NewReader(in), &out, &errs
		_ = c.Run() // the exit code is what counts
		return c.ProcessState.ExitCode(), out.String(), errs.String()
	}
	code, stdout, stderr := run("", "--", "bash", "-c", "cat $OUT/half; (echo > /dev/tcp/192.0.2.7/80) 2> /dev/null; exit 7")
	if code != 7 || stdout != "half\n" {
		t.Errorf("exit code %d, %q", code, stdout)
	}
	for _, want := range []string{"the sandbox of step 1: run, as it was left; its command:\n  bash -c 'exit 9'\n", "refused: /usr/bin/bash tried to reach the network (connect 192.0.2.7:80)"} {
		if !strings.Contains(stderr, want) {
			t.Errorf("it said %q, want %q", stderr, want)
		}
	}
	if code, stdout, _ = run("cat $OUT/half; id -u\n"); code != 0 || stdout != "half\n0\n" {
		t.Errorf("a shell that reads a script: exit code %d, %q", code, stdout)
	}
	if code, _, stderr = run("", "--", "nothing-of-this-name"); code != exitError || !strings.Contains(stderr, `starting "nothing-of-this-name"`) {
		t.Errorf("exit code %d, %q", code, stderr)
	}
	must(t, os.Remove(filepath.Join(dir, "step.json")))
	if code, _, stderr = run(""); code != exitError || !strings.Contains(stderr, "failed-1: no step of a build failed here\nhint: name the folder that `caisson build --keep`") {
		t.Errorf("exit code %d, %q", code, stderr)
	}
}

// On a terminal there is a shell with job control on a terminal of its own, whose
// size is that of the person's.
func TestSandboxShell(t *testing.T) {
	dir := keptFolder(t)
	ctrl, tty, err := openPTY()
	if err != nil {
		t.Skipf("no terminals here: %v", err)
	}
	defer ctrl.Close()
	c := program(t, dir, "sandbox", ".")
	c.Stdin, c.Stdout = tty, tty
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Pdeathsig: syscall.SIGKILL}
	y := startOn(t, 80, 24, c, ctrl, tty)
	must(t, y.resize(91, 33))
	y.shows("its command:")
	y.shows("#")
	say := func(line, answer string) {
		t.Helper()
		fmt.Fprintln(ctrl, line)
		y.shows(answer)
	}
	say("stty size; echo left-$((40+2))", "33 91")
	say("[ -t 0 ] && cat $OUT/half", "half")
	must(t, y.resize(50, 20))
	say("sleep 0.2; stty size", "20 50")
	say("sleep 1000", "sleep 1000")
	fmt.Fprint(ctrl, "\x03") // to what runs in the shell, and not to the shell or to us
	say("echo status-$?", "status-130")
	say("jobs; echo no-$((1+1))-jobs", "no-2-jobs")
	fmt.Fprintln(ctrl, "exit 6")
	c.Wait()
	if code := c.ProcessState.ExitCode(); code != 6 {
		t.Errorf("exit code %d, want the shell's 6; it showed\n%s", code, strings.Join(y.lines(), "\n"))
	}
}
