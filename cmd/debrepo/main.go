// Debrepo makes an RPM distribution out of the machine's Debian mirror, and serves it: something real to lock, build and boot
// where no RPM distribution is at hand.
//
// The machine's own apt chooses and downloads the packages, of the machine's release or of another that the mirror has;
// each becomes one RPM with the same files, under the same name. What Debian's
// maintainer scripts do that matters to an image is done by scriptlets and file triggers; nothing else of them is kept.
// The same .debs and the same key give the same bytes. It needs apt, dpkg-deb and createrepo_c, and no privileges.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := newCommand().ExecuteContext(ctx)
	interrupted := ctx.Err() != nil
	stop()
	os.Exit(exitCode(err, interrupted))
}

// exitCode says err to the user and maps it to the process's exit status.
func exitCode(err error, interrupted bool) int {
	var usage usageError
	switch {
	case interrupted:
		fmt.Fprintln(os.Stderr, "debrepo: interrupted")
		return 130
	case err == nil:
		return 0
	case errors.As(err, &usage):
		fmt.Fprintln(os.Stderr, "debrepo:", err)
		return 2
	}
	fmt.Fprintln(os.Stderr, "debrepo:", err)
	return 1
}

// usageError is a wrong command line.
type usageError struct{ error }

func newCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "debrepo",
		Short:         "Make an RPM repository out of a Debian mirror",
		SilenceErrors: true, SilenceUsage: true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("unknown command %q: want make or serve", args[0])}
			}
			return nil
		},
		RunE: func(c *cobra.Command, _ []string) error {
			return errors.Join(c.Help(), usageError{errors.New("want a command: make or serve")})
		},
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(newMakeCommand(), newServeCommand())
	return root
}

func newMakeCommand() *cobra.Command {
	var out, cache, suite string
	c := &cobra.Command{
		Use:   "make --out DIR [--suite NAME] [--cache DIR] [PACKAGE...]",
		Short: "Make or refresh the repository in DIR of the packages (Debian's names) and what they need; without names, of the demo's, and of a suite those of the PodVM too",
		RunE: func(c *cobra.Command, packages []string) error {
			if out == "" {
				return usageError{errors.New("make: --out is missing: where shall the repository be?")}
			}
			if suite != "" && !suiteName.MatchString(suite) {
				return usageError{fmt.Errorf("make: --suite %q: want the name of a Debian release, such as trixie", suite)}
			}
			if len(packages) == 0 {
				packages = defaultPackages
				if suite != "" {
					packages = slices.Concat(defaultPackages, podvmPackages)
				}
			}
			if cache == "" {
				base, err := os.UserCacheDir()
				if err != nil {
					return fmt.Errorf("make: %w: give --cache", err)
				}
				cache = filepath.Join(base, "caisson-debrepo")
			}
			dir, err := filepath.Abs(out)
			if err != nil {
				return err
			}
			if cache, err = filepath.Abs(cache); err != nil {
				return err
			}
			if suite != "" {
				cache = filepath.Join(cache, "suites", suite)
			}
			return makeRepository(c.Context(), dir, cache, suite, packages, c.ErrOrStderr())
		},
	}
	c.Flags().StringVar(&out, "out", "", "folder of the repository")
	c.Flags().StringVar(&suite, "suite", "", "release of Debian, such as trixie, from the machine's mirror (default: what the machine's own sources have)")
	c.Flags().StringVar(&cache, "cache", "", "folder of apt's lists and downloads (default: caisson-debrepo in the user's cache folder)")
	return c
}

func newServeCommand() *cobra.Command {
	var dir, listen string
	var verbose bool
	c := &cobra.Command{
		Use:   "serve --dir DIR [--listen ADDRESS]",
		Short: "Serve the repository in DIR over HTTP",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 || dir == "" {
				return usageError{errors.New("serve: want --dir DIR and no arguments")}
			}
			return nil
		},
		RunE: func(c *cobra.Command, _ []string) error {
			return serve(c.Context(), dir, listen, verbose, c.ErrOrStderr())
		},
	}
	c.Flags().StringVar(&dir, "dir", "", "folder of the repository")
	c.Flags().StringVar(&listen, "listen", "127.0.0.1:8642", "address and port")
	c.Flags().BoolVar(&verbose, "verbose", false, "log every request to stderr")
	return c
}
