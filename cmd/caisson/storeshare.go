package main

import (
	"context"
	"errors"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"caisson/prefetch"
	"caisson/prefetch/share"
)

type storeShareOptions struct {
	sources
	from string
	all  bool
}

func newStorePushCommand(ui *ui) *cobra.Command {
	var o storeShareOptions
	c := &cobra.Command{
		Use:   "push REGISTRY/REPO[:TAG]",
		Short: "Put what the lock needs into an OCI registry",
		Long: `Push puts the lock and the files of its inputs into an OCI registry, as an
artifact with a layer for each file. What the repository has is not sent again.
The tag is the lock's digest unless one is given.

All inputs of the lock are pushed, also those that were fetched with a client
certificate or a token: push only to where all who may read may have them.

Logins are those of docker and podman. Without TLS only a registry on this
machine is spoken to.`,
		Example: "  caisson store push quay.io/example/store",
		Args:    cobra.ExactArgs(1),
		RunE:    func(cmd *cobra.Command, args []string) error { return runStorePush(cmd.Context(), ui, &o, args[0]) },
	}
	o.flags(c)
	c.Flags().StringVar(&o.from, "from", "", "a repository of the same registry whose files need not be sent again")
	c.Flags().BoolVar(&o.all, "all", false, "look for every file, even if the tag names the same already")
	return c
}

func newStorePullCommand(ui *ui) *cobra.Command {
	var o storeShareOptions
	c := &cobra.Command{
		Use:   "pull REGISTRY/REPO[:TAG]",
		Short: "Fill the store from an OCI registry",
		Long: `Pull brings into the store what is missing of the lock's inputs and was pushed to
the registry, and proves it as prefetch does: digests, the h1 of Go modules and
the signatures of packages. It can be interrupted at any time and run again. The
tag is the lock's digest unless one is given.`,
		Example: "  caisson store pull quay.io/example/store",
		Args:    cobra.ExactArgs(1),
		RunE:    func(cmd *cobra.Command, args []string) error { return runStorePull(cmd.Context(), ui, &o, args[0]) },
	}
	o.flags(c)
	return c
}

// shareOptions are the library's.
func (o *storeShareOptions) shareOptions(ui *ui) (share.Options, error) {
	cfg, err := prefetch.EnvConfig(programVersion(), filepath.Dir(o.lockFile))
	if err != nil {
		return share.Options{}, err
	}
	cfg.Dir = "" // the project is not looked at
	return share.Options{
		Config: cfg, From: o.from, All: o.all,
		Progress: func(e prefetch.Event) {
			if e.Repaired != "" {
				ui.stage("%s was damaged in the store and has been replaced", e.Repaired)
			}
			ui.progress(e.Done, e.Total, e.Bytes, e.TotalBytes, strings.Join(e.Active, " "))
		},
	}, nil
}

func runStorePush(ctx context.Context, ui *ui, o *storeShareOptions, ref string) error {
	l, text, err := o.readLock()
	if err != nil {
		return err
	}
	store, err := (&storeSources{sources: o.sources}).layered()
	if err != nil {
		return err
	}
	opts, err := o.shareOptions(ui)
	if err != nil {
		return err
	}
	began := time.Now()
	p, err := share.Push(ctx, ref, l, text, store, opts)
	if err != nil {
		return shareError(err, ref)
	}
	ui.stage("%s sent (%s), %d were there, %s", count(p.Sent, "file"), size(p.Bytes), p.Files-p.Sent, took(began))
	ui.print("%s@%s", p.Ref, p.Digest)
	ui.next(append([]string{"store", "pull", ref}, o.args()...)...)
	return nil
}

func runStorePull(ctx context.Context, ui *ui, o *storeShareOptions, ref string) error {
	l, text, err := o.readLock()
	if err != nil {
		return err
	}
	store, err := withLower(o.makeStore())
	if err != nil {
		return err
	}
	opts, err := o.shareOptions(ui)
	if err != nil {
		return err
	}
	began := time.Now()
	p, err := share.Pull(ctx, ref, l, text, store, opts)
	if err != nil {
		return shareError(err, ref)
	}
	ui.stage("%s fetched (%s), %d were there, %s, %s", count(p.Fetched, "input"), size(p.Bytes), p.Present, count(int(p.Requests), "request"), took(began))
	ui.next(append([]string{"build", "--out", "out"}, o.args()...)...)
	return nil
}

// shareError says what to do where a registry did not do as it was asked.
func shareError(err error, ref string) error {
	var e *share.Error
	host, _, _ := strings.Cut(ref, "/")
	switch {
	case errors.As(err, new(*share.RefError)):
		return usageError{err}
	case errors.As(err, new(*prefetch.SignatureError)):
		return err
	case errors.As(err, &e) && (e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden):
		return &codeError{err, exitError, "log in with `docker login " + host + "` or `podman login " + host + "`"}
	case errors.As(err, &e) && e.Status == http.StatusNotFound:
		return &codeError{err, exitMissing, "`caisson store push` puts it there; the tag is the lock's digest unless one is given"}
	case notAsLocked(err):
		return &codeError{err, exitMissing, "the registry has other bytes than were pushed: `caisson prefetch` takes them from where the lock says"}
	}
	return err
}
