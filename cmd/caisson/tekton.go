package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"caisson/build/sandbox"
	"caisson/cmd/caisson/internal/tekton"
)

func newTektonCommand(ui *ui) *cobra.Command {
	c := &cobra.Command{
		Use:   "tekton",
		Short: "Print the Tekton Tasks and the Pipeline that run the stages on Kubernetes",
		Long: `Tekton prints a Task that does what the five stages and push do, or a Pipeline in
which a second Task with a key of its own verifies the image before it is pushed.
They run the container image that --image names by its digest, in which there
have to be caisson and /bin/sh, and fetch no other program or script. Parameters and
results have the names that Konflux, Conforma and Tekton Chains look for.

What is wrong with a parameter, a Secret, the registry or the source is told before
anything is fetched or built. Where CHAINS-GIT_URL and CHAINS-GIT_COMMIT are given,
a source that is not that commit is refused (exit code 6).

Steps have no privileges. Logins, entitlements and keys are Secrets,
mounted as files where they are needed: /etc/pki/entitlement, /secrets/redhat/offline-token
and /secrets/prefetch for what a manifest names, ~/.docker/config.json for
registries, as Tekton makes it of a service account's Secrets. The authorities that
servers are trusted by come from the ConfigMap of caTrustConfigMapName.

Only the steps that fetch or send have a network; the others make namespaces
without one, and the seccomp profile has to allow that: it is Unconfined there, or
the node's own that --seccomp names. With --isolation vm a build runs in a virtual
machine, which wants more memory and time, and no namespaces: every step has the
runtime's own profile, and the Task may run under the Pod Security Standard
restricted (where Tekton's feature flag set-security-context is on, which is for
the containers that Tekton adds).`,
		Example: `  caisson tekton task --image quay.io/example/caisson@sha256:… | kubectl apply -f -
  caisson tekton pipeline --image quay.io/example/caisson@sha256:… --bundle quay.io/example/tasks@sha256:…`,
	}
	for _, k := range []struct{ kind, short string }{
		{"task", "The Task that does all of it"},
		{"pipeline", "The Pipeline: check, build, verify in a Task of its own, push"},
		{"check-task", "The Pipeline's first Task, which tells in a minute what is wrong"},
		{"build-task", "The Pipeline's second Task"},
		{"verify-task", "The Pipeline's third Task, with the verifier's key"},
		{"push-task", "The Pipeline's last Task"},
	} {
		c.AddCommand(newTektonPrintCommand(ui, k.kind, k.short))
	}
	c.AddCommand(newTektonUseCommand(ui), newTektonCreateCommand(ui), newTektonOfflineCommand(ui), newTektonCheckCommand(ui), newTektonTestOutputCommand(ui))
	return c
}

func newTektonPrintCommand(ui *ui, kind, short string) *cobra.Command {
	var o tekton.Options
	c := &cobra.Command{
		Use:   kind + " --image REF@sha256:HEX",
		Short: short,
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			var out strings.Builder
			if err := tekton.Print(&out, kind, o); err != nil {
				return usageError{err}
			}
			return ui.result(func(w io.Writer) error {
				_, err := io.WriteString(w, out.String())
				return err
			})
		},
	}
	c.Flags().StringVar(&o.Image, "image", "", "Caisson's container image, by its digest")
	c.Flags().StringVar(&o.Seccomp, "seccomp", "", "a seccomp profile of the nodes for the steps without the network, instead of none")
	c.Flags().StringVar(&o.Isolation, "isolation", "", "the default of the parameter ISOLATION: "+strings.Join(tekton.Isolations(), ", "))
	if kind == "pipeline" {
		c.Flags().StringVar(&o.Bundle, "bundle", "", "the Tekton bundle that has the four Tasks, by its digest, instead of having them in the Pipeline")
	}
	require(c, "image")
	return c
}

func newTektonOfflineCommand(ui *ui) *cobra.Command {
	return &cobra.Command{
		Use:   "offline -- COMMAND [ARG...]",
		Short: "Run a command that reaches no network",
		Long: `Offline runs a command in a network namespace in which there is nothing. Where
namespaces are refused, and CAISSON_ISOLATION is not "namespaces", it runs it under
a seccomp filter by which no socket is made but UNIX ones.`,
		Example: "  caisson tekton offline -- caisson build --out out",
		Args:    cobra.MinimumNArgs(1),
		RunE:    func(c *cobra.Command, args []string) error { return runOffline(c.Context(), ui, args) },
	}
}

// runOffline runs a command as the same user in a user namespace that owns a
// network namespace with nothing in it, or under a filter.
func runOffline(ctx context.Context, ui *ui, args []string) error {
	c := exec.CommandContext(ctx, args[0], args[1:]...)
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	c.Cancel = func() error { return c.Process.Signal(syscall.SIGTERM) }
	c.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: os.Getuid(), HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: os.Getgid(), HostID: os.Getgid(), Size: 1}},
	}
	err := c.Start()
	switch {
	case err == nil:
		return ended(c.Wait())
	case !noNamespaces(err):
		return err
	case os.Getenv(isolationEnv) == isolateNamespaces:
		return &codeError{fmt.Errorf("running %s without the network: %w", args[0], err), exitError,
			"the step's securityContext.seccompProfile, and the node, have to allow user namespaces, or ISOLATION has to be auto or vm; `caisson doctor` says more"}
	}
	ui.stage("namespaces are refused here (%v): a filter keeps %s from the network instead", cause(err), filepath.Base(args[0]))
	name, err := exec.LookPath(args[0])
	if err != nil {
		return err
	}
	if err := sandbox.GoOffline(); err != nil {
		return err
	}
	return fmt.Errorf("running %s: %w", args[0], syscall.Exec(name, args, os.Environ()))
}

// noNamespaces tells whether a program could not be started because namespaces are
// refused. A program that may not be executed is another matter.
func noNamespaces(err error) bool {
	var path *fs.PathError
	return errors.As(err, &path) && path.Op == "fork/exec" && !errors.Is(err, syscall.EACCES) &&
		(errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOSYS) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EINVAL))
}

// ended is the error of a program that has ended, which has told it itself.
func ended(err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() > 0 {
		return &quietError{exit.ExitCode()}
	}
	return err
}

func newTektonTestOutputCommand(ui *ui) *cobra.Command {
	return &cobra.Command{
		Use:   "test-output DIR",
		Short: "Print the result TEST_OUTPUT of what verify found",
		Args:  cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			s, err := testedOutput(args[0])
			if err == nil && s == "" {
				err = fmt.Errorf("%s: there is no report of verify", filepath.Join(args[0], "report.json"))
			}
			if err == nil {
				ui.print("%s", s)
			}
			return err
		},
	}
}
