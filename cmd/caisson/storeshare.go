package main

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"caisson/lock"
	"caisson/prefetch"
	"caisson/prefetch/share"
)

type storeShareOptions struct {
	sources
	from       string
	all        bool
	restricted []string
	project    string
}

func newStorePushCommand(ui *ui) *cobra.Command {
	var o storeShareOptions
	c := &cobra.Command{
		Use:   "push REGISTRY/REPO[:TAG]",
		Short: "Put what the lock needs into an OCI registry",
		Long: `Push puts the lock and the files of its inputs into an OCI registry, as an
artifact with a layer for each file. What the repository has is not sent again.
The tag is the lock's digest unless one is given.

Inputs that the lock has a client certificate, a password or a token for are left
out, and named: they may not be yours to pass on. --restricted sends those of a
repository, or one input, all the same: then push only to where all who may read
may have them. Whoever pulls fetches the rest from where the lock says.

Logins are those of docker and podman. Without TLS only a registry on this
machine is spoken to.`,
		Example: "  caisson store push quay.io/example/store",
		Args:    cobra.ExactArgs(1),
		RunE:    func(cmd *cobra.Command, args []string) error { return runStorePush(cmd.Context(), ui, &o, args[0]) },
	}
	o.flags(c)
	c.Flags().StringVar(&o.from, "from", "", "a repository of the same registry whose files need not be sent again")
	c.Flags().BoolVar(&o.all, "all", false, "look for every file, even if the tag names the same already")
	c.Flags().StringArrayVar(&o.restricted, "restricted", nil, "also send what was fetched with a login: a repository's id, an input's name, or \"all\"; can be repeated")
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
tag is the lock's digest unless one is given.

What the lock has a login for, and push has left out, is fetched from where the
lock says, as prefetch does.`,
		Example: "  caisson store pull quay.io/example/store",
		Args:    cobra.ExactArgs(1),
		RunE:    func(cmd *cobra.Command, args []string) error { return runStorePull(cmd.Context(), ui, &o, args[0]) },
	}
	o.flags(c)
	c.Flags().StringVar(&o.project, "project", "", "the manifest's folder, for the files that logins are in (default the lock's)")
	return c
}

// shareOptions are the library's.
func (o *storeShareOptions) shareOptions(ui *ui) (share.Options, error) {
	cfg, err := prefetch.EnvConfig(programVersion(), cmp.Or(o.project, filepath.Dir(o.lockFile)))
	if err != nil {
		return share.Options{}, err
	}
	return share.Options{
		Config: cfg, From: o.from, All: o.all, Restricted: o.restricted,
		Progress: ui.transferring,
	}, nil
}

func runStorePush(ctx context.Context, ui *ui, o *storeShareOptions, ref string) error {
	l, text, err := o.readLock()
	if err != nil {
		return err
	}
	store, err := o.layered()
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
	for _, line := range leftOut(p.LeftOut) {
		ui.stage("%s", line)
	}
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
	if p.OwnPlace > 0 {
		ui.stage("of those, %s from where the lock says, with a login", count(p.OwnPlace, "file"))
	}
	ui.next(append([]string{"build", "--out", "out"}, o.args()...)...)
	return nil
}

// leftOut says what was not pushed: a line for each repository and each input
// that has none.
func leftOut(inputs []*lock.Input) []string {
	if len(inputs) == 0 {
		return nil
	}
	number := make(map[string]int)
	var names []string
	for _, in := range inputs {
		name := in.Kind + " " + in.Name
		if in.Repo != "" {
			name = "repository " + in.Repo
		}
		if number[name]++; number[name] == 1 {
			names = append(names, name)
		}
	}
	lines := []string{count(len(inputs), "file") + " left out, fetched with a login (--restricted NAME sends them):"}
	for _, name := range names {
		line := "  " + name
		if strings.HasPrefix(name, "repository ") {
			line += ": " + count(number[name], "file")
		}
		lines = append(lines, line)
	}
	return lines
}

// shareError says what to do where a registry did not do as it was asked.
func shareError(err error, ref string) error {
	var e *share.Error
	host, _, _ := strings.Cut(ref, "/")
	switch {
	case errors.As(err, new(*share.RefError)), errors.As(err, new(*share.NameError)):
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
