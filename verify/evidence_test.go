package verify

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"caisson/build"
	"caisson/build/rootfs/rpmtest"
	"caisson/build/sandbox"
	"caisson/lock"
	"caisson/lock/digest"
	"caisson/prefetch/cas"
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
		{"a step of an earlier build", false, func(ev *build.Evidence) { ev.Reused = []string{"one"} }, Passed, "an earlier build's results were taken for one"},
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

// TestSkippedScripts has evidence that lists other scriptlets as not run than the
// lock's packages have.
func TestSkippedScripts(t *testing.T) {
	store, err := cas.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	l := &lock.Lock{Name: "x", Arches: []string{"x86_64"}, Sets: []lock.Set{{Name: lock.SetRoot, Scriptlets: lock.ScriptletsSkip}, {Name: lock.SetInitrd}}}
	for _, name := range []string{"one", "two"} {
		rpm := rpmtest.Package{Name: name, Tags: []rpmtest.Tag{rpmtest.Text(1024, "true"), rpmtest.Text(1086, "/bin/sh"), rpmtest.Text(1152, "x"), rpmtest.Text(1154, "<lua>")}}
		sum, _, err := store.Put(bytes.NewReader(rpm.Bytes()), [32]byte{})
		if err != nil {
			t.Fatal(err)
		}
		l.Inputs = append(l.Inputs, lock.Input{
			Kind: lock.KindRPM, Name: name + "-1-1.x86_64", SHA256: sum, RPM: &lock.RPM{Name: name},
			For: []lock.Use{{Arch: "x86_64", Set: lock.SetRoot}, {Arch: "x86_64", Set: lock.SetInitrd}},
		})
	}
	sound, err := build.Skipped(l, store, "x86_64", "")
	if err != nil || len(sound) != 4 {
		t.Fatalf("got %+v, %v, want four", sound, err)
	}
	more := build.SkippedScript{Set: lock.SetRoot, Package: "one-1-1.x86_64", Kind: "pre", Program: "/bin/sh"}
	initrd := sound[0]
	initrd.Set = lock.SetInitrd
	other := sound[3]
	other.Program = "/bin/sh"
	for _, tt := range []struct {
		name    string
		skipped []build.SkippedScript
		want    string
		blind   bool // found without a store, too
	}{
		{"as it is", sound, "", false},
		{"one less", sound[1:], "does not list post of one-1-1.x86_64", false},
		{"the last one less", sound[:3], "does not list posttrans of two-1-1.x86_64", false},
		{"none", nil, "does not list post of one-1-1.x86_64", false},
		{"one more", append(slices.Clone(sound), more), "lists pre of one-1-1.x86_64 in the root", false},
		{"one more in front", append([]build.SkippedScript{more}, sound...), "lists pre of one-1-1.x86_64 in the root", false},
		{"one twice", append(slices.Clone(sound), sound[3]), "lists posttrans of two-1-1.x86_64 in the root", false},
		{"another program", append(slices.Clone(sound[:3]), other), "lists posttrans of two-1-1.x86_64", false},
		{"of a set that runs them", append([]build.SkippedScript{initrd}, sound...), "of the initrd", true},
	} {
		v := &verification{Options: Options{Lock: l, Store: store, Arch: "x86_64"}}
		err := v.judgeSkipped(tt.skipped)
		if tt.blind {
			v.Store = nil
			err = v.judgeSkipped(tt.skipped)
		}
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: got %v, want an error with %q", tt.name, err, tt.want)
		}
	}
}
