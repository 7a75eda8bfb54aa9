package tekton_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "github.com/tektoncd/pipeline/pkg/apis/pipeline/v1"

	"caisson/cmd/caisson/internal/tekton"
)

// recorder stands for caisson: it writes down its arguments, each ended by a NUL,
// and leaves the files by which the scripts go on. It ends with 1 where the store is
// pulled, as one that lacks something does.
const recorder = `#!/bin/sh
printf '%s\0' caisson "$@" END >>"$RECORD"
case "$1 $2 $*" in
"store pull "*) exit 1 ;;
"tekton offline "*" verify "*) [ ! -d verdict ] || : >verdict/report.json ;;
esac
`

// ran is what a script called, and what else it printed.
type ran struct {
	calls  [][]string
	stderr string
}

// runScript runs a step's script by a shell where there is nothing but it and a
// caisson that records, with parameters and the folders that earlier steps made.
func runScript(t *testing.T, shell string, s *v1.Step, params map[string]string) ran {
	t.Helper()
	dir := t.TempDir()
	work, bin := filepath.Join(dir, "work"), filepath.Join(dir, "bin")
	for _, d := range []string{filepath.Join(work, "out"), filepath.Join(work, "verdict"), filepath.Join(dir, "results"), bin} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	script := strings.NewReplacer("/secrets/", dir+"/", "/tekton/results", dir+"/results").Replace(s.Script)
	for name, text := range map[string]string{"bin/caisson": recorder, "script": script, "work/out/a.qcow2": "", "work/verdict.code": "0\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	c := exec.Command(shell, filepath.Join(dir, "script"))
	if filepath.Base(shell) == "busybox" {
		c.Args = []string{shell, "sh", filepath.Join(dir, "script")}
	}
	c.Dir, c.Env = work, []string{"PATH=" + bin, "RECORD=" + filepath.Join(dir, "record")}
	for name, value := range params {
		c.Env = append(c.Env, tekton.EnvName(name)+"="+value)
	}
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", s.Name, err, out)
	}
	b, err := os.ReadFile(filepath.Join(dir, "record"))
	if err != nil {
		t.Fatal(err)
	}
	r := ran{stderr: string(out)}
	for call := range strings.SplitSeq(strings.TrimSuffix(string(b), "END\x00"), "END\x00") {
		r.calls = append(r.calls, strings.Split(strings.TrimSuffix(strings.ReplaceAll(call, dir, ""), "\x00"), "\x00"))
	}
	entries, err := os.ReadDir(work)
	if err != nil || len(entries) > 3 { // out, verdict, verdict.code
		t.Errorf("%s left files: %v %v", s.Name, entries, err)
	}
	return r
}

// TestScripts has the parameters of every step be what a shell or a command line
// would take for something else. Whatever they are, they come where a harmless word
// comes, whole; and where an option could be, they come after "--". There is nothing
// in the PATH but caisson.
func TestScripts(t *testing.T) {
	const word = "WORD"
	hostile := []string{
		"$(echo INJECTED >&2)`echo INJECTED >&2`${HOME}$HOME", "; echo INJECTED >&2; \"; echo INJECTED >&2; \"'; echo INJECTED >&2; '", "x && echo INJECTED >&2 | cat <script >file",
		"*", "out/*", "a b\tc", "a\nb", "\n", "-n", "--help", "--", "~", "#", "!", "\\n", "\xe9\xff",
	}
	var shells []string
	for _, name := range []string{"sh", "bash", "busybox"} {
		if path, err := exec.LookPath(name); err == nil {
			shells = append(shells, path)
		}
	}
	seen := map[string]bool{}
	for _, kind := range taskKinds() {
		spec := readTask(t, printed(t, kind, tekton.Options{Image: image})).Spec
		steps, err := v1.MergeStepsWithStepTemplate(spec.StepTemplate, spec.Steps)
		if err != nil {
			t.Fatal(err)
		}
		for i := range steps {
			s := &steps[i]
			if seen[s.Script] {
				continue
			}
			seen[s.Script] = true
			t.Run(kind+" "+s.Name, func(t *testing.T) {
				t.Parallel()
				with := func(shell, value string) ran {
					params := map[string]string{}
					for _, p := range spec.Params {
						params[p.Name] = value
					}
					return runScript(t, shell, s, params)
				}
				plain := with(shells[0], word)
				optionsEnd(t, plain, word)
				for n, shell := range shells {
					for _, h := range hostile[:len(hostile)>>(2*min(n, 1))] {
						got, want := with(shell, h), make([][]string, len(plain.calls))
						for j, call := range plain.calls {
							for _, arg := range call {
								want[j] = append(want[j], strings.ReplaceAll(arg, word, h))
							}
						}
						if !slices.EqualFunc(got.calls, want, slices.Equal) {
							t.Errorf("%q by %s:\ngot  %q\nwant %q", h, shell, got.calls, want)
						}
						if got.stderr != strings.ReplaceAll(plain.stderr, word, h) && !strings.Contains(h, "\\") { // echo reads these
							t.Errorf("%q by %s printed %q", h, shell, got.stderr)
						}
					}
				}
			})
		}
	}
}

// optionsEnd wants "--" before an argument that begins with a parameter; that before
// another command does not count.
func optionsEnd(t *testing.T, r ran, word string) {
	t.Helper()
	for _, call := range r.calls {
		if len(call) > 4 && call[2] == "offline" {
			call = call[4:]
		}
		end := slices.Index(call, "--")
		for i, arg := range call {
			if strings.HasPrefix(arg, word) && (end < 0 || end > i) {
				t.Errorf("%q may be an option", call)
			}
		}
	}
}
