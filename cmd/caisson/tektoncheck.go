package main

import (
	"cmp"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"caisson/attest/oci"
	"caisson/attest/sign"
	"caisson/cmd/caisson/internal/tekton"
	"caisson/lock"
	"caisson/lock/digest"
	"caisson/prefetch"
)

func newTektonCheckCommand(ui *ui) *cobra.Command {
	c := &cobra.Command{
		Use:   "check",
		Short: "Tell what a Task lacks, before it does anything",
		Long: `Check says what is wrong with the parameters and Secrets of a Task, each by its
name and all at once, before anything is fetched or built. Parameters are
environment variables of their names, with _ for -.`,
	}
	c.AddCommand(newCheckParamsCommand(ui), newCheckRegistryCommand(ui), newCheckSourceCommand(ui))
	return c
}

type checkParamsOptions struct{ key, ca string }

func newCheckParamsCommand(ui *ui) *cobra.Command {
	var o checkParamsOptions
	c := &cobra.Command{
		Use:   "params",
		Short: "Check the parameters and the signing key",
		Long: `Params checks the parameters that are in the environment, opens the signing key
with its password, and reads the authorities that are to be trusted. Exit code 2
says that a parameter is wrong, 1 that a Secret or a ConfigMap is.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runCheckParams(c.Context(), ui, &o) },
	}
	c.Flags().StringVar(&o.key, "key", "", "the folder in which the Secret with the signing key is")
	c.Flags().StringVar(&o.ca, "ca", "", "the file of the ConfigMap with certificates of authorities; it may be absent")
	return c
}

func runCheckParams(ctx context.Context, ui *ui, o *checkParamsOptions) error {
	wrong := tekton.CheckParams(os.LookupEnv)
	code := exitError
	if len(wrong) > 0 {
		code = exitUsage
	}
	if o.key != "" {
		wrong = append(wrong, checkSigningKey(ctx, o.key))
	}
	if o.ca != "" {
		wrong = append(wrong, checkAuthorities(o.ca))
	}
	if err := errors.Join(wrong...); err != nil {
		return &codeError{err, code, "these are parameters of the TaskRun or PipelineRun, and Secrets and ConfigMaps of its namespace"}
	}
	ui.stage("the parameters can be used")
	return nil
}

// checkSigningKey opens the key that a Secret has.
func checkSigningKey(ctx context.Context, dir string) error {
	secret := cmp.Or(os.Getenv("SIGNING_KEY_SECRET"), dir)
	file := filepath.Join(dir, "cosign.key")
	if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("SIGNING_KEY_SECRET: there is no Secret %q with a file cosign.key: make a key with `caisson keygen`, and the Secret with "+
			"`kubectl create secret generic %s --from-file=cosign.key --from-file=cosign.password`", secret, secret)
	}
	_, err := loadSigner(ctx, file)
	switch {
	case err == nil || ctx.Err() != nil:
		return ctx.Err()
	case os.Getenv(sign.PasswordVariable) == "":
		return fmt.Errorf("SIGNING_KEY_SECRET: the key of the Secret %q cannot be opened, and there is no password for it: put it into the Secret as cosign.password: %w", secret, err)
	}
	return fmt.Errorf("SIGNING_KEY_SECRET: the key of the Secret %q cannot be opened by its cosign.password: %w", secret, err)
}

// checkAuthorities reads the certificates that a ConfigMap has.
func checkAuthorities(file string) error {
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && !x509.NewCertPool().AppendCertsFromPEM(b) {
		err = errors.New("it has no certificate in PEM form")
	}
	if err != nil {
		return fmt.Errorf("caTrustConfigMapName: the key of caTrustConfigMapKey of that ConfigMap: %w", err)
	}
	return nil
}

func newCheckRegistryCommand(ui *ui) *cobra.Command {
	return &cobra.Command{
		Use:   "registry NAME...",
		Short: "Check that the repositories of parameters may be pushed to",
		Long: `Registry takes the names of parameters, and sends a blob of two bytes to the
repository of each that is not empty. No tag is set.`,
		Example: "  OUTPUT_IMAGE=quay.io/example/podvm:1.0 caisson tekton check registry OUTPUT_IMAGE",
		Args:    cobra.MinimumNArgs(1),
		RunE:    func(c *cobra.Command, args []string) error { return runCheckRegistry(c.Context(), ui, args) },
	}
}

func runCheckRegistry(ctx context.Context, ui *ui, params []string) error {
	cfg, err := prefetch.EnvConfig(programVersion(), "")
	if err != nil {
		return err
	}
	for _, p := range params {
		ref := os.Getenv(p)
		if ref == "" {
			continue
		}
		if err := oci.Probe(ctx, ref, cfg); err != nil {
			return probeError(err, p, ref)
		}
		ui.stage("%s may be pushed to", ref)
	}
	return nil
}

// probeError names the parameter, and says what to do in a cluster.
func probeError(err error, param, ref string) error {
	var e *prefetch.RegistryError
	if errors.As(err, new(*prefetch.RefError)) {
		return usageError{fmt.Errorf("%s: %w", param, err)}
	}
	host, _, _ := strings.Cut(ref, "/")
	told := fmt.Errorf("%s cannot be pushed to: %w", param, err)
	switch {
	case !errors.As(err, &e):
		return told
	case e.Status == http.StatusUnauthorized, e.Status == http.StatusForbidden:
		return &codeError{told, exitError, "the run's service account needs a Secret of type kubernetes.io/dockerconfigjson for " + host +
			", of somebody who may push there; where it says quota, make room first"}
	case e.Status == 0 && !errors.As(err, new(net.Error)):
		return &codeError{told, exitError, "logins are those of the Secrets of the run's service account, which Tekton puts into ~/.docker/config.json"}
	case e.Status == 0:
		return &codeError{told, exitError, "check the host's name in " + param + "; an authority of your own goes into the ConfigMap of caTrustConfigMapName"}
	}
	_, hint := classify(registryError(err, ref))
	return &codeError{told, exitError, hint}
}

type checkSourceOptions struct{ source, results string }

func newCheckSourceCommand(ui *ui) *cobra.Command {
	var o checkSourceOptions
	c := &cobra.Command{
		Use:   "source FOLDER",
		Short: "Check that a source is what was locked, and the commit that it is said to be",
		Long: `Source checks what ` + "`caisson lock --check`" + ` does, in the folder CONTEXT of the source;
that this program can build that lock and VARIANT on this machine; that the
source is the commit CHAINS-GIT_COMMIT of CHAINS-GIT_URL, where these are not
empty; and that what the lock's logins name is there and can be used. Exit code 6
says that the source is another one.`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			o.source = args[0]
			return runCheckSource(ui, &o)
		},
	}
	c.Flags().StringVar(&o.results, "results", "", "write Chains' type hints into this folder: CHAINS-GIT_URL, CHAINS-GIT_COMMIT, LOCK_ARTIFACT_INPUTS")
	return c
}

func runCheckSource(ui *ui, o *checkSourceOptions) error {
	dir := filepath.Join(o.source, os.Getenv("CONTEXT"))
	lo := lockOptions{manifest: filepath.Join(dir, "caisson.yaml"), check: true}
	m, err := readManifest(lo.manifest)
	if err != nil {
		return inContext(err)
	}
	lo.names(m)
	l, text, err := lo.readLock()
	if err != nil {
		return inContext(err)
	}
	if err := checkLock(ui, &lo, m.digest); err != nil {
		return err
	}
	if err := buildable(l, lo.lockFile, os.Getenv("VARIANT")); err != nil {
		return err
	}
	at, commit := os.Getenv(tekton.EnvName("CHAINS-GIT_URL")), os.Getenv(tekton.EnvName("CHAINS-GIT_COMMIT"))
	if commit != "" {
		if err := lock.CheckCommit(l, dir, at, commit, "caisson.yaml", lockName); err != nil {
			return &codeError{fmt.Errorf("SOURCE_ARTIFACT is not what CHAINS-GIT_URL and CHAINS-GIT_COMMIT say:\n%w", err), exitLock,
				"take all three from the results of the same clone, which has to keep the folder .git"}
		}
		ui.stage("the source is commit %s", commit)
	}
	if err := checkLogins(l, dir); err != nil {
		return err
	}
	if o.results == "" {
		return nil
	}
	// The artifact is what Chains can name; its own digest is in the uri.
	hint, err := json.Marshal(map[string]string{"uri": os.Getenv("SOURCE_ARTIFACT") + "#" + path.Join(filepath.ToSlash(os.Getenv("CONTEXT")), lockName),
		"digest": digest.Of(text).String()})
	if err != nil {
		return err
	}
	return writeTektonResults(o.results, map[string]string{"CHAINS-GIT_URL": at, "CHAINS-GIT_COMMIT": commit, "LOCK_ARTIFACT_INPUTS": string(hint)})
}

// inContext says which parameters name what is not there.
func inContext(err error) error {
	code, hint := classify(err)
	if errors.Is(err, fs.ErrNotExist) || code != exitUsage {
		hint = "CONTEXT is the folder of caisson.yaml and caisson.lock in the source that SOURCE_ARTIFACT is"
	}
	return &codeError{err, code, hint}
}

// checkLogins tells what of the lock's logins is not there, by where it is for.
func checkLogins(l *lock.Lock, dir string) error {
	cfg, err := prefetch.EnvConfig(programVersion(), dir)
	if err != nil {
		return err
	}
	wrong := map[string]bool{}
	check := func(what string, a *lock.Auth) {
		if err := prefetch.CheckLogin(cfg, a); err != nil {
			wrong[fmt.Sprintf("%s: %v", what, err)] = true
		}
	}
	for _, r := range l.Repos {
		check("repository "+r.ID, r.Auth)
	}
	for _, in := range l.Inputs {
		check(in.Name, in.Auth)
	}
	if len(wrong) == 0 {
		return nil
	}
	lines := make([]string, 0, len(wrong))
	for line := range wrong {
		lines = append(lines, line)
	}
	slices.Sort(lines)
	return &codeError{fmt.Errorf("a login of the lock cannot be used:\n%s", strings.Join(lines, "\n")), exitMissing,
		"the Secrets are those of ENTITLEMENT_SECRET and ACTIVATION_KEY (/etc/pki/entitlement), REDHAT_OFFLINE_TOKEN_SECRET (/secrets/redhat/offline-token) and PREFETCH_SECRET (/secrets/prefetch)"}
}
