// Command caisson locks, prefetches, builds, verifies and attests images of
// confidential virtual machines. See README.md.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"caisson/build"
	"caisson/build/sandbox"
	"caisson/build/vm"
	"caisson/verify/vary"
)

func main() {
	sandbox.Init() // becomes a sandbox's process 1 where it was started as one
	vm.Init()      // becomes the init of a virtual machine likewise
	vary.Init()    // takes on the conditions of a rebuild where it was started so
	os.Exit(run(programArgs(os.Args)))
}

// run is the whole program, with its exit code.
func run(args []string) int {
	signals := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // as under nohup
		signals = append(signals, syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(context.Background(), signals...)
	defer stop()
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the program at once
	log.SetOutput(io.Discard)    // net/http logs there what servers send unasked
	ui := newUI(os.Stdout, os.Stderr)
	root := newRootCommand(ui)
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	ui.done()
	if err == nil && ui.broken != nil {
		err = fmt.Errorf("writing the result: %w", ui.broken)
	}
	if err == nil {
		return exitOK
	}
	if ctx.Err() != nil {
		ui.fail("interrupted", afterInterrupt(cmd, err))
		return exitInterrupted
	}
	if !ui.started {
		err = usageError{err}
	}
	code, hint := classify(err)
	if code == exitUsage && hint == "" {
		hint = fmt.Sprintf("see `%s --help`", cmd.CommandPath())
	}
	if !errors.As(err, new(*quietError)) {
		ui.fail(text(err), hint)
	}
	return code
}

// afterInterrupt says what is left of a command's work.
func afterInterrupt(c *cobra.Command, err error) string {
	var kept *build.KeptError
	if errors.As(err, &kept) {
		return "the working folder was kept: " + kept.Dir
	}
	switch c.Name() {
	case "lock", "prefetch", "run":
		return "what was fetched is kept: run it again to go on"
	case "build":
		return "nothing of the image is kept"
	}
	return ""
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
	root.PersistentFlags().StringVar(&ui.colourFlag, "color", "auto", "colours on the terminal: auto, always or never")
	cobra.EnableCommandSorting = false // the stages come in their order
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
		newInspectCommand(ui), newExplainCommand(ui), newDiffCommand(ui), newMeasureCommand(ui), newBootCommand(ui), newPushCommand(ui),
		newConvertCommand(ui), newSealCommand(ui), newResolveCommand(ui), newStoreCommand(ui),
	} {
		c.GroupID = "look"
		root.AddCommand(c)
	}
	root.AddCommand(
		newInitCommand(ui), newDoctorCommand(ui), newHermetoCommand(ui), newTektonCommand(ui), newSignBootCommand(ui), newKeygenCommand(ui),
		newVersionCommand(ui), newManCommand(ui), newSandboxCommand(ui),
	)
	root.AddCommand(newTopics(ui)...)
	root.SetUsageTemplate(topicsTemplate(root.UsageTemplate()))
	root.SetHelpCommand(newHelpCommand(root))
	root.InitDefaultCompletionCmd()
	prepare(ui, root)
	return root
}

// newHelpCommand is cobra's help, but what there is no help for is an error.
func newHelpCommand(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND|TOPIC]",
		Short: "Help about any command, and the pages below",
		RunE: func(_ *cobra.Command, args []string) error {
			c, rest, err := root.Find(args)
			if err == nil && len(rest) > 0 {
				err = fmt.Errorf("unknown command %q for %q", rest[0], c.CommandPath())
			}
			if err != nil {
				return usageError{err}
			}
			c.InitDefaultHelpFlag()
			return c.Help()
		},
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			c, rest, err := root.Find(args)
			if err != nil || len(rest) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			var all []string
			for _, sub := range c.Commands() {
				if !sub.Hidden {
					all = append(all, sub.Name()+"\t"+sub.Short)
				}
			}
			return all, cobra.ShellCompDirectiveNoFileComp
		},
	}
}

// prepare gives all commands what they have in common: an error where a
// command below them is not known, and a note of the moment in which their
// own work begins. What goes wrong before is the command line's fault.
func prepare(ui *ui, c *cobra.Command) {
	switch work := c.RunE; {
	case work != nil:
		c.RunE = func(cmd *cobra.Command, args []string) error {
			if err := ui.setColour(); err != nil {
				return err
			}
			ui.started = true
			return work(cmd, args)
		}
	case c.HasSubCommands() && c.HasParent():
		c.Args = cobra.ArbitraryArgs
		c.RunE = func(cmd *cobra.Command, args []string) error {
			want := "want one of " + names(cmd)
			if len(args) == 0 {
				return errors.New(want)
			}
			return fmt.Errorf("unknown command %q for %q: %s", args[0], cmd.CommandPath(), want)
		}
	}
	for _, sub := range c.Commands() {
		prepare(ui, sub)
	}
}

// names lists the commands below one.
func names(c *cobra.Command) string {
	var out []string
	for _, sub := range c.Commands() {
		out = append(out, sub.Name())
	}
	return strings.Join(out, ", ")
}
