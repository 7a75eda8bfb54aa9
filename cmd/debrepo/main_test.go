package main

import (
	"errors"
	"io"
	"strings"
	"testing"
)

func TestCommandLine(t *testing.T) {
	for _, c := range []struct {
		args string
		exit int
	}{
		{"", 2},
		{"brew", 2},
		{"make", 2},
		{"make --colour", 2},
		{"make --out x --suite ../x", 2},
		{"serve", 2},
		{"serve --dir /nonexistent", 1},
		{"serve --dir / extra", 2},
		{"--help", 0},
	} {
		cmd := newCommand()
		cmd.SetArgs(strings.Fields(c.args))
		cmd.SetOut(io.Discard)
		cmd.SetErr(io.Discard)
		if got := exitCode(cmd.ExecuteContext(t.Context()), false); got != c.exit {
			t.Errorf("debrepo %s: got exit code %d, want %d", c.args, got, c.exit)
		}
	}
	if got := exitCode(errors.New("x"), true); got != 130 {
		t.Errorf("interrupted: got exit code %d, want 130", got)
	}
}
