package main

import (
	"context"
	"io"
	"os"

	"caisson/attest/sign"
	"caisson/lock"
	"caisson/lock/solve"
	"caisson/prefetch"
	"caisson/prefetch/cas"
	"caisson/prefetch/rpmsig"
)

// withNetwork gives lock.Options the means by which it reaches the network
// and reads keys, and runs f.
func withNetwork(ui *ui, o lock.Options, store *cas.Store, f func(lock.Options) error) error {
	cfg, err := prefetch.EnvConfig(programVersion(), o.Dir)
	if err != nil {
		return err
	}
	return withConfig(ui, cfg, o, store, f)
}

// withConfig is withNetwork with surroundings of one's own.
func withConfig(ui *ui, cfg prefetch.Config, o lock.Options, store *cas.Store, f func(lock.Options) error) error {
	client, err := prefetch.NewClient(cfg)
	if err != nil {
		return err
	}
	defer client.CloseIdle()
	fetcher := prefetch.NewFetcher(store, client, cfg)
	defer fetcher.Close()
	o.Fetch = fetcher.Fetch
	o.NoSumDB = cfg.GoNoSumDB
	o.Progress = func(s string) { ui.stage("%s", s) }
	o.Fingerprints = func(key []byte) ([]string, error) {
		k, err := rpmsig.ReadKeys(key)
		return k.Fingerprints(), err
	}
	o.CheckSignature = checkSignature
	o.SplitClearSigned = rpmsig.SplitClearSigned
	o.VerifyImage = func(ctx context.Context, v lock.ImageVerify) (lock.Verified, error) {
		return sign.VerifyImage(ctx, v, sign.ImageOptions{Config: cfg, TrustedRoot: os.Getenv("CAISSON_TRUSTED_ROOT")})
	}
	return f(o)
}

func checkSignature(keys [][]byte, signed, signature io.Reader) error {
	var all rpmsig.Keyring
	for _, b := range keys {
		k, err := rpmsig.ReadKeys(b)
		if err != nil {
			return err
		}
		all = all.With(k)
	}
	if _, err := all.CheckDetached(signed, signature); err != nil {
		return &codeError{err, exitRefused, "it has to be signed by the key that the manifest names for it"}
	}
	return nil
}

// loadMetadata reads the repositories of a manifest for one arch.
func loadMetadata(ctx context.Context, ui *ui, store *cas.Store, m *lock.Manifest, arch string) (repos []solve.Repo, err error) {
	err = withNetwork(ui, lock.Options{Manifest: m}, store, func(o lock.Options) error {
		o.Progress = nil
		var err error
		repos, err = lock.LoadRepos(ctx, o, arch)
		return err
	})
	return repos, fetchError(err)
}

// resolveLock resolves a manifest.
func resolveLock(ctx context.Context, ui *ui, o lock.Options, store *cas.Store) (l *lock.Lock, err error) {
	err = withNetwork(ui, o, store, func(o lock.Options) error {
		var err error
		l, err = lock.Resolve(ctx, o)
		return err
	})
	return l, fetchError(err)
}
