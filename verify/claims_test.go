package verify

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"caisson/build"
	"caisson/build/sandbox"
	"caisson/verify/vary"
)

func noBuild(context.Context, *vary.Conditions, string) error { return nil }

// TestClaims forges what a builder recorded in one way each.
func TestClaims(t *testing.T) {
	sound := func() *build.Evidence {
		step := func(name string) sandbox.Evidence {
			return sandbox.Evidence{
				Step: name, Command: []string{"/usr/bin/rpm", "-i", "/inputs/" + name}, Dir: "/", Environment: []string{"LANG=C"},
				Hostname: "caisson", Namespaces: []string{"net"}, Volatile: sandbox.Volatile{Kernel: "6.1", Seconds: 3},
			}
		}
		return &build.Evidence{Inputs: sandbox.Inputs{Before: "x", After: "x"}, Steps: []sandbox.Evidence{step("compile"), step("install")}, Unused: []string{"file/a"}, Unread: &[]string{"file/b"}}
	}
	for _, tt := range []struct {
		name   string
		forge  func(ev *build.Evidence)
		status Status
		detail string
	}{
		{"nothing", func(*build.Evidence) {}, Passed, "2 steps"},
		{"what is volatile", func(ev *build.Evidence) { ev.Steps[0].Volatile.Kernel = "6.12" }, Passed, ""},
		{"a missing step", func(ev *build.Evidence) { ev.Steps = ev.Steps[1:] }, Failed, `step "compile" is missing`},
		{"one more step", func(ev *build.Evidence) {
			ev.Steps = append(ev.Steps, sandbox.Evidence{Step: "scan"})
		}, Failed, `there was no step "scan"`},
		{"a step twice", func(ev *build.Evidence) { ev.Steps = append(ev.Steps, ev.Steps[0]) }, Failed, `step "compile" is there twice`},
		{"a command", func(ev *build.Evidence) { ev.Steps[1].Command[1] = "-U" }, Failed, `step "install": command: "-U", the rebuild had "-i"`},
		{"a shorter command", func(ev *build.Evidence) { ev.Steps[1].Command = ev.Steps[1].Command[:2] }, Failed, `nothing more`},
		{"an environment", func(ev *build.Evidence) { ev.Steps[0].Environment = nil }, Failed, `environment: nothing more, the rebuild had "LANG=C"`},
		{"a folder", func(ev *build.Evidence) { ev.Steps[0].Dir = "/root" }, Failed, `folder "/root"`},
		{"an end", func(ev *build.Evidence) { ev.Steps[0].ExitCode = 1 }, Failed, `end "exit code 1"`},
		{"a namespace", func(ev *build.Evidence) { ev.Steps[0].Namespaces = []string{"net", "pid"} }, Failed, "namespaces"},
		{"inputs of a step", func(ev *build.Evidence) { ev.Steps[0].Inputs = &sandbox.Inputs{Before: "a", After: "a"} }, Failed, "not recorded"},
		{"inputs", func(ev *build.Evidence) { ev.Inputs.After = "y" }, Failed, "the inputs were x and x"},
		{"what was not used", func(ev *build.Evidence) { ev.Unused = nil }, Failed, "unused inputs"},
		{"what was not read", func(ev *build.Evidence) { ev.Unread = &[]string{} }, Passed, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b, err := json.Marshal(sound())
			if err != nil {
				t.Fatal(err)
			}
			forged := new(build.Evidence)
			if err := json.Unmarshal(b, forged); err != nil {
				t.Fatal(err)
			}
			tt.forge(forged)
			v := &verification{report: &Report{}, claimed: forged, seen: sound()}
			v.compareEvidence()
			if c := v.report.Checks[0]; c.Status != tt.status || !strings.Contains(c.Detail, tt.detail) {
				t.Errorf("got %+v, want %s with %q", c, tt.status, tt.detail)
			}
		})
	}
	// What the rebuild varied for its steps on purpose is nobody's false claim; a builder
	// who did so is refused.
	varied := sound()
	varied.Steps[0].Around = &sandbox.Surroundings{Hostname: "elsewhere", Env: []string{"LANG=tr_TR.UTF-8"}}
	varied.Steps[0].Hostname, varied.Steps[0].Environment = "elsewhere", []string{"LANG=tr_TR.UTF-8"}
	if got := claims(sound(), varied); len(got) != 0 {
		t.Errorf("varied by the rebuild: got %v", got)
	}
	by := &verification{report: &Report{}, claimed: varied}
	if by.claimedUsual(); len(by.report.Checks) != 1 || by.report.Checks[0].Status != Failed {
		t.Errorf("varied by the builder: got %+v", by.report.Checks)
	}
	tried := sound()
	tried.Steps[0].Attempts = []sandbox.Attempt{{Program: sandbox.Program{Exe: "/usr/bin/curl"}, Destination: "192.0.2.1:443"}}
	if got := claims(sound(), tried); len(got) != 1 || !strings.Contains(got[0], "/usr/bin/curl") {
		t.Errorf("an attempt that the builder hides: got %v", got)
	}
	v := &verification{report: &Report{}, seen: sound()}
	v.compareEvidence()
	v.claimed, v.seen = sound(), nil
	v.compareEvidence()
	if c := v.report.Checks; c[0].Status != NotAsked || c[1].Status != NotChecked {
		t.Errorf("got %+v, want not asked for and not checked", c)
	}
}
