package verify

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"caisson/build"
	"caisson/build/sandbox"
	"caisson/lock"
	"caisson/lock/digest"
)

// TestEvidence changes sound evidence in one way each.
func TestEvidence(t *testing.T) {
	l := &lock.Lock{Name: "x", Arches: []string{"x86_64"}}
	inputs := build.InputsDigest(build.Inputs(l, "x86_64", "")).String()
	sound := func() *build.Evidence {
		return &build.Evidence{
			Lock: digest.Of([]byte("lock")), Inputs: sandbox.Inputs{Before: inputs, After: inputs},
			Steps: []sandbox.Evidence{{
				Step: "one", Namespaces: slices.Clone(isolated), Interfaces: []sandbox.Interface{{Name: "lo"}},
				Confinement: sandbox.Confinement{Seccomp: true, NoNewPrivs: true},
				Canaries:    []sandbox.Canary{{Name: "tcp", Destination: "192.0.2.1:80", Errno: "ENETUNREACH"}},
			}},
		}
	}
	attempt := func(ev *build.Evidence) {
		ev.Steps[0].Attempts = []sandbox.Attempt{{Program: sandbox.Program{Exe: "/usr/bin/curl"}, Destination: "192.0.2.7:443", Count: 3}}
	}
	for _, tt := range []struct {
		name   string
		record bool
		change func(ev *build.Evidence)
		want   Status
		detail string
	}{
		{"sound", false, func(*build.Evidence) {}, Passed, "1 steps, each without a network and with the locked inputs only"},
		{"an attempt", false, attempt, Failed, `step "one": /usr/bin/curl tried to reach 192.0.2.7:443`},
		{"an attempt that is allowed", true, attempt, Passed, "3 attempts to reach a network were refused and recorded, which the lock allows"},
		{"another lock", false, func(ev *build.Evidence) { ev.Lock = digest.Of(nil) }, Failed, "another lock"},
		{"a changed input", false, func(ev *build.Evidence) { ev.Inputs.After = "x" }, Failed, "the inputs were"},
		{"no step", false, func(ev *build.Evidence) { ev.Steps = nil }, Failed, "no step"},
		{"an interface", true, func(ev *build.Evidence) {
			ev.Steps[0].Interfaces = append(ev.Steps[0].Interfaces, sandbox.Interface{Name: "eth0", RxBytes: 12, TxBytes: 34})
		}, Failed, "eth0, with 12 bytes received and 34 sent"},
		{"a shared namespace", true, func(ev *build.Evidence) { ev.Steps[0].Namespaces = []string{"mnt"} }, Failed, "no cgroup namespace"},
		{"no filter", true, func(ev *build.Evidence) { ev.Steps[0].Confinement.Seccomp = false }, Failed, "no filter"},
		{"no canary", true, func(ev *build.Evidence) { ev.Steps[0].Canaries = nil }, Failed, "no canary"},
		{"a canary that got out", true, func(ev *build.Evidence) { ev.Steps[0].Canaries[0].Errno = "" }, Failed, "canary tcp got out to 192.0.2.1:80"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ev := sound()
			tt.change(ev)
			b, err := json.Marshal(ev)
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, evidenceFile), b, 0o644); err != nil {
				t.Fatal(err)
			}
			with := *l
			with.RecordNetwork = tt.record
			v := &verification{Options: Options{Lock: &with, Arch: "x86_64"}, report: &Report{Lock: digest.Of([]byte("lock"))}}
			v.checkEvidence("evidence", dir)
			if c := v.report.Checks[0]; c.Status != tt.want || !strings.Contains(c.Detail, tt.detail) {
				t.Errorf("got %+v, want %s with %q", c, tt.want, tt.detail)
			}
		})
	}
}
