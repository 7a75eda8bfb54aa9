package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"caisson/build"
	"caisson/prefetch/cas"
)

// Where run stops, its exit code is the stage's, and what it names goes on from
// there without doing again what is done.
func TestRunStopped(t *testing.T) {
	for _, tt := range []struct {
		stage, key string
		err        error
		code       int
		hint, said string
	}{
		{stage: "lock", err: errors.New("no"), code: exitError, hint: "run stopped at lock; when that is mended, go on with `caisson run --out out --boot --cpus 4`"},
		{stage: "prefetch", err: &cas.MissingError{}, code: exitMissing,
			hint: "run `caisson prefetch` with this lock and store\nhint: run stopped at prefetch; when that is mended, go on with `caisson run --out out --boot --cpus 4`"},
		{stage: "build", err: &build.StepError{Step: "step 1"}, code: exitError, hint: "run stopped at build; when that is mended, go on with `caisson run --out out --boot --cpus 4`"},
		{stage: "verify", err: errors.New("no"), code: exitError, hint: "run stopped at verify; when that is mended, go on with `caisson verify out/x.qcow2 --store st --boot --cpus 4`"},
		{stage: "verify", key: "k.key", err: errors.New("no"), code: exitError,
			hint: "run stopped at verify; when that is mended, go on with `caisson verify out/x.qcow2 --store st --boot --cpus 4`, then `caisson attest --out out --key k.key --store st`"},
		{stage: "attest", key: "k.key", err: errors.New("no"), code: exitError, hint: "run stopped at attest; when that is mended, go on with `caisson attest --out out --key k.key --store st`"},
		{stage: "verify", err: &quietError{exitDifferent}, code: exitDifferent, said: "stopped at verify\n"},
		{stage: "verify", key: "k.key", err: errors.Join(&quietError{exitNotVerified}, nil), code: exitNotVerified,
			said: "stopped at verify\n  nothing was signed; `caisson attest --out out --key k.key --store st` signs this verdict all the same\n"},
	} {
		var b bytes.Buffer
		r := &running{ui: &ui{err: &b, over: make(chan struct{})}, image: "out/x.qcow2", runOptions: &runOptions{
			sources: sources{lockFile: lockName, store: "st"}, out: "out", key: tt.key,
			given: []string{"--out", "out", "--boot", "--cpus", "4"}, givenToo: []string{"--boot", "--cpus", "4"},
		}}
		code, hint := classify(r.stopped(tt.stage, tt.err))
		if code != tt.code || hint != tt.hint || b.String() != tt.said {
			t.Errorf("%s, %v: exit code %d, hint %q, said %q\nwant %d, %q, %q", tt.stage, tt.err, code, hint, b.String(), tt.code, tt.hint, tt.said)
		}
	}
}

// The flags of a command line come back as they were given.
func TestGivenFlags(t *testing.T) {
	ui := &ui{err: &bytes.Buffer{}}
	c := newRunCommand(ui)
	args := []string{"--boot=false", "--cpus", "3", "--key", "a b", "--out", "o", "--timeout", "1m30s", "--wait-for", "x,y", "--wait-for", "z"}
	must(t, c.ParseFlags(args))
	if got := strings.Join(givenFlags(c, nil), "|"); got != strings.Join(args, "|") {
		t.Errorf("got %s", got)
	}
	if got, want := strings.Join(givenFlags(c, []string{"boot", "wait-for"}), "|"), "--boot=false|--wait-for|x,y|--wait-for|z"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
