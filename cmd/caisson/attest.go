package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"caisson/attest"
	"caisson/attest/sign"
	"caisson/attest/slsa"
	"caisson/lock"
	"caisson/prefetch"
	"caisson/prefetch/cas"
	"caisson/verify"
)

type attestOptions struct {
	sources
	out, key string
	keys     []string // as given: one to sign by, or those to check by
	image    string
	labels   []string
	// Without a key: the token's file, the services, and the trusted root.
	token, fulcio, rekor, timestamp, root string
	identity, issuer                      string // whom to check by
	check                                 bool
	json                                  bool
}

func newAttestCommand(ui *ui) *cobra.Command {
	var o attestOptions
	c := &cobra.Command{
		Use:   "attest --out DIR --key cosign.key | attest --check BUNDLE|DIR|IMAGE... [--key cosign.pub]",
		Short: "Sign what build and verify left: SBOM, provenance, verdict, reference values",
		Long: `Attest computes again what it signs from image, lock and store, refuses where the
folder says otherwise, and writes the SBOM and the signed statements, whose
names it prints. The key's password is in COSIGN_PASSWORD. With --identity-token
there is no key, but a certificate for the identity, and an entry in a public log. A verdict that a verifier
signed itself (verify --key) is left as it is.

With --check it signs nothing: it shows who said what about which digest, of
bundles, of folders with statements, or of an image in a registry, and whether one of the public keys
signed it. Exit code 5 says that a signature is bad, 7 that one is by a key that was
not given. That a statement is signed does not make it true: verify does.`,
		Example: `  caisson attest --out out --key cosign.key
  caisson attest --check out --key cosign.pub --key verifier.pub
  caisson attest --check quay.io/example/podvm:1.0 --identity me@example.org --issuer https://accounts.example --trusted-root root.json`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.check {
				return runCheck(cmd.Context(), ui, &o, args)
			}
			if err := o.wantSigning(args); err != nil {
				return err
			}
			return runAttest(cmd.Context(), ui, &o)
		},
	}
	o.flags(c)
	c.Flags().StringVar(&o.out, "out", "", "the output folder of build and verify")
	c.Flags().StringArrayVar(&o.keys, "key", nil, "the signing key: a file, as `caisson keygen` or cosign makes it, env://NAME, hashivault://, awskms://, azurekms://, gcpkms://, pkcs11:; with --check a public key, may be repeated")
	c.Flags().StringVar(&o.image, "image", "", "where the image will be pushed, REGISTRY/REPO[:TAG]: the SBOM is named after it")
	c.Flags().StringArrayVar(&o.labels, "label", nil, "a label of the OCI image as which it is pushed, NAME=VALUE; may be repeated")
	c.Flags().BoolVar(&o.check, "check", false, "show what bundles say, and check their signatures")
	o.identityFlags(c)
	c.Flags().BoolVar(&o.json, "json", false, "with --check: print it as JSON")
	return c
}

// wantSigning checks the command line of an attest that signs.
func (o *attestOptions) wantSigning(args []string) error {
	switch {
	case len(args) > 0:
		return usageError{fmt.Errorf("attest takes no argument but with --check, got %q", args[0])}
	case o.out == "":
		return usageError{errors.New(`required flag(s) "out" not set`)}
	case len(o.keys) == 0 && o.token == "":
		return usageError{errors.New(`required flag(s) "key" not set`)}
	case len(o.keys) > 0 && o.token != "":
		return usageError{errors.New("--identity-token signs without a key: --key does not go with it")}
	case o.identity != "" || o.issuer != "":
		return usageError{errors.New("--identity and --issuer go with --check")}
	case len(o.keys) > 1:
		return usageError{fmt.Errorf("attest signs by one key, got %d", len(o.keys))}
	case o.json:
		return usageError{errors.New("--json goes with --check")}
	}
	o.key = strings.Join(o.keys, "")
	return nil
}

func runAttest(ctx context.Context, ui *ui, o *attestOptions) error {
	l, text, store, err := o.open()
	if err != nil {
		return err
	}
	if err := sameRevision(l, o.lockFile); err != nil {
		return err
	}
	s, err := attestImage(ctx, ui, l, text, store, o)
	if err != nil {
		return err
	}
	for _, st := range s.Signed {
		ui.print("%s", filepath.Join(o.out, st.Bundle))
	}
	if o.image != "" {
		ui.next("push", o.image, "--out", o.out)
		return nil
	}
	next := []string{"inspect", o.out, "--lock", o.lockFile}
	if pub := publicKey(o.key); pub != "" {
		next = append(next, "--key", pub)
	}
	ui.next(next...)
	return nil
}

func attestImage(ctx context.Context, ui *ui, l *lock.Lock, text []byte, store *cas.Store, o *attestOptions) (attest.Summary, error) {
	if err := wantBuild(o.out); err != nil {
		return attest.Summary{}, err
	}
	signer, err := o.signer(ctx)
	if err != nil {
		return attest.Summary{}, err
	}
	tool, err := thisTool()
	if err != nil {
		return attest.Summary{}, err
	}
	labels, err := parseLabels(o.labels)
	if err != nil {
		return attest.Summary{}, err
	}
	began := time.Now()
	s, err := attest.Attest(ctx, attest.Options{
		Publication: attest.Publication{Reference: o.image, Labels: labels},
		Dir:         o.out, Lock: l, LockBytes: text, Store: store, Signer: signer, Role: slsa.Builder, Tool: tool,
		Measure: func(_ context.Context, image string) (attest.Measured, error) {
			m, phases, err := verify.Measure(image)
			if err != nil {
				return attest.Measured{}, err
			}
			b, err := m.MeasurementsJSON(phases)
			return attest.Measured{RootHash: m.RootHash, PCRs: m.PCRs, Measurements: b}, err
		},
	})
	if err != nil {
		return s, registryError(err, o.image)
	}
	for _, left := range s.LeftOut {
		ui.stage("left out: %s: %s", left.Name, left.Reason)
	}
	ui.stage("%s about %s signed, %s", count(len(s.Signed), "statement"), s.Image.Name, took(began))
	return s, nil
}

// loadSigner opens a key: of a file, the environment, a token or a service.
func loadSigner(ctx context.Context, key string) (sign.Signer, error) {
	s, err := sign.Open(ctx, key, os.Getenv)
	switch {
	case err == nil:
		return s, nil
	case ctx.Err() != nil:
		return s, ctx.Err()
	case errors.Is(err, fs.ErrNotExist) && !sign.IsService(key):
		return s, &codeError{fmt.Errorf("%s: there is no key", key), exitError, "`caisson keygen` makes one"}
	case sign.IsService(key) && !strings.HasPrefix(key, "env://"):
		return s, &codeError{err, exitError, ""}
	}
	return s, &codeError{fmt.Errorf("%s: %w", key, err), exitError, "the key's password is read from " + sign.PasswordVariable}
}

// identityFlags are those by which somebody signs who has no key, or is
// believed.
func (o *attestOptions) identityFlags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&o.token, "identity-token", "", "sign without a key, as who this file's OpenID Connect token (audience sigstore) says: the signature and the identity are published")
	f.StringVar(&o.fulcio, "fulcio-url", sign.PublicFulcio, "the authority that issues the certificate for the identity")
	f.StringVar(&o.rekor, "rekor-url", sign.PublicRekor, "the log in which signatures are published")
	f.StringVar(&o.timestamp, "timestamp-url", "", "an RFC 3161 authority whose time stamp is added")
	f.StringVar(&o.root, "trusted-root", "", "a sigstore trusted root (`cosign trusted-root create`, trusted_root.json), to verify identities by, offline")
	f.StringVar(&o.identity, "identity", "", "with --check: whom the certificate has to be for")
	f.StringVar(&o.issuer, "issuer", "", "with --check: who has to say so")
}

// signer is who signs: a key, or an identity.
func (o *attestOptions) signer(ctx context.Context) (sign.Signer, error) {
	if o.token == "" {
		return loadSigner(ctx, o.key)
	}
	b, err := os.ReadFile(o.token)
	if err != nil {
		return sign.Signer{}, fmt.Errorf("reading the identity token: %w", err)
	}
	cfg, err := prefetch.EnvConfig(programVersion(), ".")
	if err != nil {
		return sign.Signer{}, err
	}
	return sign.OpenKeyless(ctx, sign.KeylessOptions{Token: string(b), Fulcio: o.fulcio, Rekor: o.rekor, Timestamp: o.timestamp, TrustedRoot: o.root, Config: cfg})
}

// wantBuild tells where no build is.
func wantBuild(dir string) error {
	if _, err := os.Stat(filepath.Join(dir, "image.json")); errors.Is(err, fs.ErrNotExist) {
		return &codeError{fmt.Errorf("%s: no finished build is here: there is no image.json", dir), exitError, "run `caisson build` with this --out first"}
	}
	return nil
}

// thisTool is this program, as statements name it.
func thisTool() (slsa.Tool, error) {
	v, err := readVersion()
	if err != nil {
		return slsa.Tool{}, err
	}
	t := slsa.Tool{Version: v.Version, Go: v.Go, Digest: v.SHA256}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, d := range info.Deps {
			if d.Replace != nil {
				d = d.Replace
			}
			t.Modules = append(t.Modules, slsa.Module{Path: d.Path, Version: d.Version, Sum: d.Sum})
		}
	}
	return t, nil
}

// checkStatements verifies every bundle of a folder offline.
func checkStatements(ctx context.Context, dir, public string) (attest.Checked, error) {
	b, err := os.ReadFile(public)
	if err != nil {
		return attest.Checked{}, fmt.Errorf("reading the public key: %w", err)
	}
	c, err := attest.VerifyDir(ctx, dir, b)
	if err != nil {
		return c, &codeError{fmt.Errorf("%s: %w", filepath.Join(dir, "statements"), err), exitRefused, ""}
	}
	return c, nil
}
