package build

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"caisson/build/sandbox"
	"caisson/lock"
)

// keep builds what fails, and returns the folder that was kept and the step.
func keep(t *testing.T, d *distro) *KeptError {
	t.Helper()
	o := d.options(t.TempDir())
	o.Keep = true
	_, err := Build(context.Background(), o)
	var kept *KeptError
	if !errors.As(err, &kept) {
		t.Fatalf("got %v, want a folder to be kept", err)
	}
	return kept
}

// inKept runs a script in the sandbox of the step that failed.
func inKept(t *testing.T, dir, script string) (out string, r *sandbox.Result) {
	t.Helper()
	s, err := KeptStep(dir)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	s.Args, s.Stdout, s.Stderr = []string{"bash", "-c", script}, &b, &b
	if r, err = sandbox.Run(context.Background(), s); err != nil {
		t.Fatal(err)
	}
	return b.String(), r
}

// What a failed step was run in can be entered again, and is the same: root,
// mounts, environment, rules, and what the step left.
func testKept(t *testing.T, d *distro) {
	t.Parallel()
	kept := keep(t, d.with(func(d *distro) {
		d.lock.Steps = []lock.Step{{Run: `printf half > $OUT/done; echo about to fail; exit 9`}}
	}))
	if kept.Step != "step 1: run" || !strings.HasPrefix(filepath.Base(kept.Dir), keptPrefix) {
		t.Fatalf("got %+v", kept)
	}
	s, err := KeptStep(kept.Dir)
	if err != nil {
		t.Fatal(err)
	}
	again, err := sandbox.Run(context.Background(), s)
	if err != nil || again.ExitCode != 9 {
		t.Errorf("the step's own command: got %+v, %v, want exit code 9", again, err)
	}
	out, r := inKept(t, kept.Dir, `cat /out/done; echo; ls /in; echo $OUT $SOURCE_DATE_EPOCH $HOSTNAME; pwd; : > /usr/bin/rpm; (echo > /dev/tcp/192.0.2.1/80); echo shell > /out/more`)
	for _, want := range []string{"half\n", "/out 1700000000 caisson\n", "/tmp\n", "Read-only file system", "Network is unreachable"} {
		if !strings.Contains(out, want) {
			t.Errorf("it printed %q, want %q in it", out, want)
		}
	}
	if len(r.Evidence.NetworkAttempts()) != 1 {
		t.Errorf("attempts: %+v", r.Evidence.NetworkAttempts())
	}
	if b, err := os.ReadFile(filepath.Join(kept.Dir, "step-1-out/more")); err != nil || string(b) != "shell\n" {
		t.Errorf("what the shell left: %q, %v", b, err)
	}
	if !slices.EqualFunc(r.Evidence.Mounts, again.Evidence.Mounts, func(a, b sandbox.MountPoint) bool { return reflect.DeepEqual(a, b) }) ||
		!slices.Equal(r.Evidence.Environment, again.Evidence.Environment) {
		t.Errorf("the shell's sandbox is another one")
	}
}

// An installation that fails, by rpm's exit code or by what it says, leaves the
// root as it is then, and the packages.
func testKeptInstallation(t *testing.T, d *distro) {
	for name, files := range map[string]string{
		"exit code": "%pre\nexit 7\n%files\n", "message": "%post -p <lua>\nerror(\"no good\")\n%files\n", "network": "%post\n(echo > /dev/tcp/192.0.2.1/80) 2>/dev/null || true\n%files\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			kept := keep(t, d.with(func(d *distro) { d.add(t, lock.SetRoot, "bad", "", files) }))
			if kept.Step != "install root" {
				t.Fatalf("got %+v", kept)
			}
			out, _ := inKept(t, kept.Dir, `install -d -o 12 -g 34 /sysroot/x && echo owned; cd /rpms; echo bad*; n=0; while read -r _; do n=$((n+1)); done < <(rpm --root /sysroot --dbpath /usr/lib/sysimage/rpm -qa); echo $n`)
			lines := strings.Fields(out)
			if len(lines) != 3 || lines[0] != "owned" || lines[1] != "bad-1-1.x86_64.rpm" || lines[2] == "0" {
				t.Errorf("it printed %q", out)
			}
		})
	}
}

// What fails otherwise than by a step leaves no sandbox to enter.
func testKeptNoStep(t *testing.T, d *distro) {
	t.Parallel()
	kept := keep(t, d.with(func(d *distro) { d.lock.Steps = []lock.Step{{Run: `mkfifo "$OUT/pipe"`}} }))
	if kept.Step != "" {
		t.Errorf("got %+v", kept)
	}
	if _, err := KeptStep(kept.Dir); !errors.Is(err, ErrNoStep) {
		t.Errorf("got %v", err)
	}
	if err := os.WriteFile(filepath.Join(kept.Dir, stepFile), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := KeptStep(kept.Dir); err == nil || !strings.Contains(err.Error(), stepFile) {
		t.Errorf("a damaged one: got %v", err)
	}
}

// All that a step is given is written down: a field that is forgotten in one of
// the two places is found here.
func TestKeptStepIsWhole(t *testing.T) {
	b := &builder{work: t.TempDir(), specs: map[string]sandbox.Spec{}}
	want := sandbox.Spec{
		Name: "make erofs", Root: filepath.Join(b.work, "tools"), RootWritable: true,
		Mounts: []sandbox.Mount{{Source: filepath.Join(b.work, "x"), Target: "/x", Writable: true}, {Source: "/store", Target: givenMount}},
		ProcIn: []string{"/sysroot"}, DevIn: []string{"/sysroot"}, Args: []string{"a", "b"}, Env: []string{"A=b"}, Dir: "/x", FakeOwnership: true,
		Shown: map[sandbox.FileID]sandbox.Shown{{Dev: 1, Ino: 1 << 60}: {Mode: 0o100644, UID: 3, Xattrs: map[string][]byte{"user.x": {0, 255}}}},
	}
	given := want
	given.Stdout, given.Files = &bytes.Buffer{}, map[sandbox.FileID]sandbox.Recorded{{Dev: 1}: {}}
	b.noteSpec(given)
	if name, err := b.keepStep(&StepError{Step: "another"}); name != "" || err != nil {
		t.Errorf("got %q, %v", name, err)
	}
	if name, err := b.keepStep(&KeptError{Err: &NetworkError{Step: "make erofs"}}); name != "make erofs" || err != nil {
		t.Errorf("got %q, %v", name, err)
	}
	moved := b.work + ".kept"
	if err := os.Rename(b.work, moved); err != nil {
		t.Fatal(err)
	}
	want.Root, want.Mounts[0].Source = filepath.Join(moved, "tools"), filepath.Join(moved, "x")
	got, err := KeptStep(moved)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v\nwant %+v", got, err, want)
	}
	text, err := os.ReadFile(filepath.Join(moved, stepFile))
	if err != nil || !json.Valid(text) || bytes.Contains(text, []byte(b.work+"/")) {
		t.Errorf("%v: %s", err, text)
	}
}
