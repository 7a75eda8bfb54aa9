// Command caisson locks, prefetches, builds, verifies and attests images of
// confidential virtual machines. See README.md.
package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"caisson/attest"
	"caisson/build"
	"caisson/build/sandbox"
	"caisson/lock/solve"
	"caisson/prefetch"
	"caisson/prefetch/cas"
	"caisson/verify/boot"
	"caisson/verify/vary"
)

// Exit codes, fixed for scripts and CI.
const (
	exitOK          = 0
	exitError       = 1
	exitUsage       = 2
	exitDifferent   = 3 // not reproducible, or measured otherwise than predicted
	exitMissing     = 4 // an input is missing from the store, or damaged
	exitRefused     = 5 // a signature or a policy says no
	exitLock        = 6 // the lock does not answer the manifest
	exitNotVerified = 7 // something that the verdict rests on could not be checked
	exitInterrupted = 130
)

func main() {
	sandbox.Init() // becomes a sandbox's process 1 where it was started as one
	vary.Init()    // takes on the conditions of a rebuild where it was started so
	os.Exit(run(os.Args[1:]))
}

// run is the whole program, with its exit code.
func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ui := newUI(os.Stdout, os.Stderr)
	root := newRootCommand(ui)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	ui.done()
	if err == nil {
		return exitOK
	}
	if !ui.started {
		err = usageError{err}
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		ui.fail(errors.New("interrupted"), "what was finished is kept; run it again to go on")
		return exitInterrupted
	}
	code, hint := classify(err)
	if !errors.As(err, new(*quietError)) {
		ui.fail(err, hint)
	}
	return code
}

// usageError is a wrong command line.
type usageError struct{ error }

// codeError is an error with an exit code and a hint of its own.
type codeError struct {
	error
	code int
	hint string
}

func (e *codeError) Unwrap() error { return e.error }

// quietError has been told already: only its exit code matters.
type quietError struct{ code int }

func (e *quietError) Error() string { return "" }

// classify is the one place where an error becomes an exit code and a hint of
// what to do about it.
func classify(err error) (code int, hint string) {
	var (
		quiet   *quietError
		coded   *codeError
		missing *cas.MissingError
		damaged *cas.DamagedError
		sig     *prefetch.SignatureError
		tree    *prefetch.TreeChangedError
		network *build.NetworkError
		kept    *build.KeptError
		problem *solve.Problem
		noBoot  *boot.MissingError
	)
	switch {
	case errors.As(err, &quiet):
		return quiet.code, ""
	case errors.As(err, &coded):
		return coded.code, coded.hint
	case errors.As(err, new(usageError)):
		return exitUsage, "see `caisson help`"
	case errors.As(err, &damaged):
		return exitMissing, "remove the damaged file, or run `caisson prefetch`, which replaces it"
	case errors.As(err, &missing):
		return exitMissing, "run `caisson prefetch` with this lock and store"
	case errors.As(err, &sig):
		return exitRefused, "the package is not signed as its repository's gpgkey says; do not switch gpgcheck off to get round it"
	case errors.As(err, &network):
		return exitRefused, "the step's inputs have to be in the lock; evidence.json says who tried what"
	case errors.As(err, &tree):
		return exitLock, "run `caisson lock` to pin the folder as it is now"
	case errors.Is(err, attest.ErrLock):
		return exitLock, "give the lock that the image was built from, or build again"
	case errors.Is(err, attest.ErrFolder):
		return exitError, "build and verify again, then attest"
	case errors.As(err, &kept):
		return exitError, "the working folder was kept: " + kept.Dir
	case errors.As(err, &problem):
		return exitError, "" // it explains itself
	case errors.As(err, &noBoot):
		return exitNotVerified, "install " + noBoot.Package
	case errors.Is(err, fs.ErrPermission):
		return exitError, "check who owns the file or folder"
	}
	return exitError, ""
}

func newRootCommand(ui *ui) *cobra.Command {
	root := &cobra.Command{
		Use:   "caisson",
		Short: "Lock, prefetch, build, verify and attest confidential-VM images",
		Long: `Caisson locks every input of a confidential-VM image, prefetches the inputs,
builds the dm-verity image with no network and no privileges, verifies it by
rebuilding it under other conditions, and attests the result.

  caisson.yaml --lock--> caisson.lock --prefetch--> store --build--> image --verify--> report --attest--> statements

Exit codes: 0 done, 1 error, 2 wrong usage, 3 not reproducible or measured
otherwise than predicted, 4 an input is missing or damaged, 5 a signature or a
policy says no, 6 the lock does not answer the manifest, 7 not verified,
130 interrupted.`,
		SilenceErrors:     true,
		SilenceUsage:      true,
		DisableAutoGenTag: true,
		Version:           programVersion(),
	}
	root.SetOut(ui.out)
	root.SetErr(ui.err)
	root.PersistentFlags().BoolVarP(&ui.quiet, "quiet", "q", false, "print nothing but results and errors")
	root.AddGroup(
		&cobra.Group{ID: "stages", Title: "The five stages:"},
		&cobra.Group{ID: "look", Title: "To look closer:"},
	)
	for _, c := range []*cobra.Command{
		newLockCommand(ui), newPrefetchCommand(ui), newBuildCommand(ui), newVerifyCommand(ui), newAttestCommand(ui), newRunCommand(ui),
	} {
		c.GroupID = "stages"
		root.AddCommand(c)
	}
	for _, c := range []*cobra.Command{
		newInspectCommand(ui), newExplainCommand(ui), newMeasureCommand(ui), newBootCommand(ui), newResolveCommand(ui), newStoreCommand(ui),
	} {
		c.GroupID = "look"
		root.AddCommand(c)
	}
	root.AddCommand(newKeygenCommand(ui), newVersionCommand(ui), newManCommand(ui))
	noteStart(ui, root)
	return root
}

// noteStart takes note of the moment in which a command's own work begins:
// what goes wrong before is the command line's fault.
func noteStart(ui *ui, c *cobra.Command) {
	if work := c.RunE; work != nil {
		c.RunE = func(cmd *cobra.Command, args []string) error {
			ui.started = true
			return work(cmd, args)
		}
	}
	for _, sub := range c.Commands() {
		noteStart(ui, sub)
	}
}
