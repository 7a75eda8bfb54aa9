package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/spf13/cobra"

	"caisson/cmd/caisson/internal/tekton"
	"caisson/prefetch"
)

func newTektonUseCommand(ui *ui) *cobra.Command {
	return &cobra.Command{
		Use:   "use oci:REPO@sha256:HEX=FOLDER...",
		Short: "Unpack trusted artifacts, as Konflux's use-trusted-artifact does",
		Long: `Use fetches blobs from a registry, checks their digests, and unpacks them into
folders. What is in a folder already is kept, and never replaced.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			for _, a := range args {
				if err := useArtifact(c.Context(), ui, a); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func useArtifact(ctx context.Context, ui *ui, arg string) error {
	blob, dir, err := tekton.ParseArtifact(arg)
	if err != nil {
		return usageError{err}
	}
	began := time.Now()
	opts, at, err := registryOptions(ctx, blob.Repository, false)
	if err != nil {
		return artifactError(err, blob.Name())
	}
	l, err := remote.Layer(at.Digest(blob.DigestStr()), opts...)
	if err != nil {
		return artifactError(err, blob.Name())
	}
	r, err := l.Compressed()
	if err != nil {
		return artifactError(err, blob.Name())
	}
	defer r.Close()
	if err := tekton.Unpack(dir, r); err != nil {
		return fmt.Errorf("unpacking the artifact %s into %s: %w", blob.Name(), dir, err)
	}
	ui.stage("%s unpacked into %s, %s", blob.Name(), dir, took(began))
	return nil
}

// registryOptions are how a repository is reached, and where it is.
func registryOptions(ctx context.Context, repo name.Repository, write bool) ([]remote.Option, name.Repository, error) {
	cfg, err := prefetch.EnvConfig(programVersion(), "")
	if err != nil {
		return nil, repo, err
	}
	at, t, err := prefetch.OpenRegistry(ctx, repo, cfg, write)
	return []remote.Option{remote.WithContext(ctx), remote.WithTransport(t)}, at, err
}

// artifactError is registryError for errors of go-containerregistry.
func artifactError(err error, ref string) error {
	var t *transport.Error
	status := 0
	if errors.As(err, &t) {
		status = t.StatusCode
	}
	return registryError(&prefetch.RegistryError{Ref: ref, Status: status, Err: err}, ref)
}

type createOptions struct{ store, suffix string }

func newTektonCreateCommand(ui *ui) *cobra.Command {
	var o createOptions
	c := &cobra.Command{
		Use:   "create --store REGISTRY/REPO[:TAG] RESULT=FOLDER...",
		Short: "Put folders into a registry as trusted artifacts, as Konflux's create-trusted-artifact does",
		Long: `Create puts each folder into the repository as a blob, and writes its name,
oci:REPO@sha256:HEX, into the file RESULT. The same content has the same name.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return runCreate(c.Context(), ui, &o, args) },
	}
	c.Flags().StringVar(&o.store, "store", "", "where they go")
	c.Flags().StringVar(&o.suffix, "suffix", "", "what is added to the tag, by which the registry keeps them")
	require(c, "store")
	return c
}

func runCreate(ctx context.Context, ui *ui, o *createOptions, args []string) error {
	ref, err := prefetch.ParseRef(o.store, "latest")
	if err != nil {
		return usageError{err}
	}
	base, ok := ref.(name.Tag)
	if !ok {
		return usageError{fmt.Errorf("--store %q: want REGISTRY/REPO[:TAG]", o.store)}
	}
	tag, err := name.NewTag(base.Name()+o.suffix, name.StrictValidation)
	if err != nil {
		return usageError{fmt.Errorf("--suffix %q: %w", o.suffix, err)}
	}
	tmp, err := os.MkdirTemp("", "caisson-artifact-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	im := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	results := map[string]string{}
	for i, a := range args {
		result, dir, ok := strings.Cut(a, "=")
		if !ok || result == "" || dir == "" {
			return usageError{fmt.Errorf("%q: want RESULT=FOLDER", a)}
		}
		l, err := packLayer(filepath.Join(tmp, fmt.Sprint(i)), dir)
		if err != nil {
			return fmt.Errorf("packing %s: %w", dir, err)
		}
		d, err := l.Digest()
		if err != nil {
			return err
		}
		results[result] = "oci:" + tag.Repository.Name() + "@" + d.String()
		if im, err = mutate.AppendLayers(im, l); err != nil {
			return err
		}
	}
	opts, at, err := registryOptions(ctx, tag.Repository, true)
	if err == nil {
		err = remote.Write(at.Tag(tag.TagStr()), im, opts...)
	}
	if err != nil {
		return artifactError(err, tag.Name())
	}
	for result, artifact := range results {
		if err := os.WriteFile(result, []byte(artifact), 0o644); err != nil {
			return fmt.Errorf("writing the result: %w", err)
		}
		ui.print("%s", artifact)
	}
	return nil
}

// packLayer packs a folder into a file.
func packLayer(file, dir string) (v1.Layer, error) {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(tekton.Pack(f, dir), f.Close()); err != nil {
		return nil, err
	}
	return tarball.LayerFromFile(file, tarball.WithMediaType(types.OCILayer))
}
