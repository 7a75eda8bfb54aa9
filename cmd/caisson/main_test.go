package main

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"caisson/build/sandbox"
	"caisson/verify/vary"
)

func TestMain(m *testing.M) {
	sandbox.Init()
	vary.Init()
	testscript.Main(m, map[string]func(){"caisson": main, "hermeto": main, "cachi2": main})
}

// TestScript runs the scripts of testdata/script, each in a folder of its own
// with the real program.
//
// Besides testscript's own commands there are:
//
//	exits CODE caisson ARG...   run, with the file named by stdin before as standard input
//	nostdout                    the last exits printed nothing on standard output
//	mkrepo DIR SPEC [MODULES]   make a repository, as repo_test.go says
//	revoke PRIVATE REASON FILE  revoke a repository's key, as repo_test.go says
//	serve DIR VAR               serve a folder by HTTP; VAR becomes its address
//	edit FILE OLD NEW           replace a text that has to be there
//	flip FILE                   invert a bit in the middle of a file
//	stored LOCK STORE NAME VAR  VAR becomes an input's path in the store
//	mkinputs SERVED SRC URL     make a project and what it needs, as hermeto_test.go says
//	servetls DIR VAR CERTS      serve a folder by TLS to who has a client certificate, as hermetoserver_test.go says
//	servelogin DIR VAR LOGIN... serve a folder to who sends a header, as hermetoserver_test.go says
//	conforma SBOM RULEDATA      apply Conforma's rules for prefetched packages, as hermetoconforma_test.go says
//	mktiny DIR                  make a repository of which an image can be built in seconds, as tiny_test.go says
//	blamed REPORT FILE NAME...  the variations that a report blames for a file, in order, or "random"
//	mkboot IMAGE                make a disk with two EFI programs, key.pem and cert.pem, as signboot_test.go says
//	mkmeasured                  make an image, firmware and event logs, as measure_test.go says
//	examples PAGE               run the commands that a page of the help shows, as topics_test.go says
//	gate FILE                   write the five lines for CI as a script
//	registry VAR                start a registry, as tektonserver_test.go says
//	refuse VAR [STATUS CODE]    start a registry that refuses everybody, or all that is sent to it
//	registrytls HOST VAR CA USER PASSWORD   put TLS and a login before a registry, as tektonserver_test.go says
//	servesecrets VAR DIR TOKEN USER PASSWORD   serve files to who has secrets, as tektonserver_test.go says
//	task KIND CODE NAME=VALUE.. run a Tekton Task's steps in containers, as tekton_test.go says
//	pipeline CODE NAME=VALUE..  run the Tasks of the Pipeline, as tektonpipeline_test.go says
//	labels REF NAME=VALUE...    want labels of an image in a registry
//	inpod DIR FILE caisson ARG..   run a command as one of these steps, as tekton_test.go says
//	readenv VAR FILE            VAR becomes what a file has
//	subst FILE NAME...          put the values of variables into a file that has them as $NAME
//	pod CODE ARG...             run caisson in a container without user namespaces, as e2e_vm_test.go says
//	interrupt WHAT ARG...       run caisson and interrupt it, as e2e_vm_test.go says
func TestScript(t *testing.T) { testscript.Run(t, scripts("testdata/script")) }

// scripts are those of a folder, with the commands and conditions of TestScript.
func scripts(dir string) testscript.Params {
	return testscript.Params{
		Dir: dir,
		Setup: func(e *testscript.Env) error {
			e.Setenv("HOME", e.WorkDir+"/home")
			e.Setenv("XDG_CACHE_HOME", e.WorkDir+"/cache")
			e.Setenv("GOENV", "off")
			return expandWork(e.WorkDir)
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"exits": cmdExits, "nostdout": cmdNoStdout, "mkrepo": cmdMakeRepo, "serve": cmdServe, "mkmeasured": cmdMakeMeasured, "edit": cmdEdit, "flip": cmdFlip,
			"stored": cmdStored, "mkboot": cmdMakeBoot, "mkinputs": cmdMakeInputs, "subst": cmdSubst,
			"mktiny": cmdMakeTiny, "examples": cmdExamples, "gate": cmdGate, "revoke": cmdRevoke, "blamed": cmdBlamed, "servetls": cmdServeTLS, "servelogin": cmdServeLogin, "conforma": cmdConforma,
			"registry": cmdRegistry, "refuse": cmdRefuse, "task": cmdTask, "readenv": cmdReadEnv,
			"registrytls": cmdRegistryTLS, "servesecrets": cmdServeSecrets, "inpod": cmdInPod, "labels": cmdLabels, "pipeline": cmdPipeline,
			"pod": cmdPod, "interrupt": cmdInterrupt,
		},
		Condition: func(cond string) (bool, error) {
			if cond == "root" {
				return os.Geteuid() == 0, nil
			}
			if cond == "rpmbuild" {
				return canMakeTiny(), nil
			}
			if cond == "tasks" {
				return canRunTasks(), nil
			}
			return false, errors.New("unknown condition")
		},
	}
}

// expandWork puts the script's folder into its manifests, where they say
// $WORK.
func expandWork(dir string) error {
	return filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(p) != ".yaml" {
			return err
		}
		b, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		return os.WriteFile(p, []byte(strings.ReplaceAll(string(b), "$WORK", dir)), 0o644)
	})
}

// cmdExits runs a program and compares its exit code.
func cmdExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM ARG...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		got = exit.ExitCode()
	case err != nil:
		ts.Fatalf("%v", err)
	}
	if got != want {
		ts.Fatalf("%s: exit code %d, want %d", strings.Join(args[1:], " "), got, want)
	}
	if out := ts.ReadFile("stderr"); strings.Contains(out, "panic") || strings.Contains(out, "goroutine ") {
		ts.Fatalf("it panicked")
	}
}

func cmdNoStdout(ts *testscript.TestScript, _ bool, _ []string) {
	if out := ts.ReadFile("stdout"); out != "" {
		ts.Fatalf("printed on standard output: %q", out)
	}
}

func cmdEdit(ts *testscript.TestScript, _ bool, args []string) {
	name := ts.MkAbs(args[0])
	b := ts.ReadFile(name)
	if !strings.Contains(b, args[1]) {
		ts.Fatalf("%s has no %q", args[0], args[1])
	}
	ts.Check(os.WriteFile(name, []byte(strings.ReplaceAll(b, args[1], args[2])), 0o644))
}

func cmdFlip(ts *testscript.TestScript, _ bool, args []string) {
	name := ts.MkAbs(args[0])
	b := []byte(ts.ReadFile(name))
	b[len(b)/2] ^= 0x10
	ts.Check(os.Remove(name))
	ts.Check(os.WriteFile(name, b, 0o644))
}

// cmdStored finds the file of the first input whose name begins so.
func cmdStored(ts *testscript.TestScript, _ bool, args []string) {
	s := sources{lockFile: ts.MkAbs(args[0])}
	l, _, err := s.readLock()
	ts.Check(err)
	for _, in := range l.Inputs {
		if strings.HasPrefix(in.Name, args[2]) {
			h := in.SHA256.Hex()
			ts.Setenv(args[3], filepath.Join(ts.MkAbs(args[1]), "sha256", h[:2], h))
			return
		}
	}
	ts.Fatalf("%s has no input %s", args[0], args[2])
}
