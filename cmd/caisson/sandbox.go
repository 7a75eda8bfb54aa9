package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"caisson/build"
	"caisson/build/sandbox"
)

func newSandboxCommand(ui *ui) *cobra.Command {
	return &cobra.Command{
		Use:   "sandbox FOLDER [-- COMMAND [ARG...]]",
		Short: "Open a shell in the sandbox of a build's step that failed",
		Long: `Sandbox runs a shell, or a command, where a step of a build failed: with the same
root, mounts, environment and rules, no network, and the folders as the step left
them. FOLDER is what ` + "`caisson build --keep`" + ` has left; remove it afterwards.

Its exit code is the command's.`,
		Example: "  caisson sandbox out/failed-1234567\n  caisson sandbox out/failed-1234567 -- ls -l /out",
		Args:    cobra.MinimumNArgs(1),
		Hidden:  true, // who needs it is told of it
		RunE: func(cmd *cobra.Command, args []string) error {
			return runSandbox(cmd.Context(), ui, args[0], args[1:])
		},
	}
}

func runSandbox(ctx context.Context, ui *ui, dir string, command []string) error {
	s, err := build.KeptStep(dir)
	if errors.Is(err, build.ErrNoStep) {
		return &codeError{err, exitError, "name the folder that `caisson build --keep` says it has kept"}
	}
	if err != nil {
		return err
	}
	ui.line(fmt.Sprintf("the sandbox of %s, as it was left; its command:\n  %s", s.Name, quote(s.Args)))
	if s.Args = command; len(command) == 0 {
		s.Args = []string{"sh", "-c", anyShell}
	}
	var r *sandbox.Result
	run := func(tty *os.File) (err error) {
		s.Terminal = tty
		r, err = sandbox.Run(ctx, s)
		return err
	}
	if term.IsTerminal(0) && term.IsTerminal(1) {
		s.Env = append(s.Env, "TERM="+os.Getenv("TERM"))
		err = onOwnTerminal(os.Stdin, os.Stdout, run)
	} else {
		s.Stdin, s.Stdout, s.Stderr = os.Stdin, ui.out, ui.err
		err = run(nil)
	}
	if err != nil {
		return err
	}
	for _, a := range r.Evidence.NetworkAttempts() {
		ui.line(fmt.Sprintf("refused: %s tried to reach the network (%s %s)", a.Exe, a.Call, a.Destination))
	}
	if r.ExitCode != 0 {
		return &quietError{r.ExitCode}
	}
	return nil
}

// anyShell starts the best shell that there is.
const anyShell = "command -v bash >/dev/null && exec bash; exec sh"
