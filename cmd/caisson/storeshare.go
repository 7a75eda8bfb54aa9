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
	"caisson/prefetch/cas"
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
out, and named: they may not be yours to pass on. So are those that came into the
store by a login of yours: of .netrc, cargo, git, SSH, a registry or an address.
--restricted sends those of a repository, or one input, all the same: then push
only to where all who may read may have them. Whoever pulls fetches the rest from
where the lock says.

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

What push has left out, because it was fetched with a login, is fetched from
where the lock says, as prefetch does.`,
		Example: "  caisson store pull quay.io/example/store",
		Args:    cobra.ExactArgs(1),
		RunE:    func(cmd *cobra.Command, args []string) error { return runStorePull(cmd.Context(), ui, &o, args[0]) },
	}
	o.flags(c)
	c.Flags().StringVar(&o.project, "project", "", "the manifest's folder, for the files that logins are in (default the lock's)")
	return c
}

// sharing is what push and pull begin with.
type sharing struct {
	lock  *lock.Lock
	text  []byte
	store *cas.Store
	share.Options
	began time.Time
}

// begin reads the lock and opens the store.
func (o *storeShareOptions) begin(open func() (*cas.Store, error)) (sharing, error) {
	s := sharing{began: time.Now()}
	var err error
	if s.lock, s.text, err = o.readLock(); err != nil {
		return s, err
	}
	if s.store, err = open(); err != nil {
		return s, err
	}
	cfg, err := prefetch.EnvConfig(programVersion(), cmp.Or(o.project, filepath.Dir(o.lockFile)))
	s.Options = share.Options{Config: cfg, From: o.from, All: o.all, Restricted: o.restricted}
	return s, err
}

func runStorePush(ctx context.Context, ui *ui, o *storeShareOptions, ref string) error {
	s, err := o.begin(o.layered)
	if err != nil {
		return err
	}
	var end func()
	s.Progress, end = ui.transfer("send")
	p, err := share.Push(ctx, ref, s.lock, s.text, s.store, s.Options)
	end()
	if err != nil {
		return shareError(err, ref)
	}
	ui.stage("%s sent (%s), %d were there, %s", count(p.Sent, "file"), size(p.Bytes), p.Files-p.Sent, took(s.began))
	for _, line := range leftOut(p.LeftOut) {
		ui.stage("%s", line)
	}
	ui.print("%s@%s", p.Ref, p.Digest)
	ui.next(append([]string{"store", "pull", ref}, o.args()...)...)
	return nil
}

func runStorePull(ctx context.Context, ui *ui, o *storeShareOptions, ref string) error {
	s, err := o.begin(func() (*cas.Store, error) { return withLower(o.makeStore()) })
	if err != nil {
		return err
	}
	var end func()
	s.Progress, end = ui.transfer("fetch")
	p, err := share.Pull(ctx, ref, s.lock, s.text, s.store, s.Options)
	end()
	if err != nil {
		return shareError(err, ref)
	}
	ui.stage("%s fetched (%s), %d were there, %s, %s", count(p.Fetched, "input"), size(p.Bytes), p.Present, count(int(p.Requests), "request"), took(s.began))
	if p.OwnPlace > 0 {
		ui.stage("of those, %s from where the lock says, with a login", count(p.OwnPlace, "file"))
	}
	ui.next(append([]string{"build", "--out", "out"}, o.args()...)...)
	return nil
}

// leftOut says what was not pushed, and by what it was logged in for: a line
// for each repository and each input that has none.
func leftOut(inputs []share.Left) []string {
	if len(inputs) == 0 {
		return nil
	}
	number := make(map[string]int)
	var first []share.Left
	name := func(in share.Left) string {
		if in.Repo != "" {
			return "repository " + in.Repo
		}
		return in.Kind + " " + in.Name
	}
	for _, in := range inputs {
		if number[name(in)]++; number[name(in)] == 1 {
			first = append(first, in)
		}
	}
	lines := []string{count(len(inputs), "file") + " left out, fetched with a login (--restricted NAME sends them):"}
	for _, in := range first {
		line := "  " + name(in) + ": "
		if in.Repo != "" {
			line += count(number[name(in)], "file") + ", "
		}
		lines = append(lines, line+"by "+in.By)
	}
	return lines
}

// shareError says what to do where a registry did not do as it was asked.
func shareError(err error, ref string) error {
	var e *prefetch.RegistryError
	host, _, _ := strings.Cut(ref, "/")
	switch {
	case errors.As(err, new(*prefetch.RefError)), errors.As(err, new(*share.NameError)):
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
