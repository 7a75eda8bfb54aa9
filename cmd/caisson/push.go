package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"caisson/attest"
	"caisson/attest/oci"
	"caisson/prefetch"
)

type pushOptions struct {
	out, layout, results, from, key string
	labels                          []string
	endpoint, region                string // of S3
	uplosi, set                     []string
	version                         string // for uplosi
}

func newPushCommand(ui *ui) *cobra.Command {
	var o pushOptions
	c := &cobra.Command{
		Use:   "push [REGISTRY/REPO[:TAG]|s3://BUCKET/PREFIX] --out DIR",
		Short: "Put the image and its statements into a registry, a folder or a bucket",
		Long: `Push packs the disk of an output folder as an OCI image, which has it as
image/podvm.qcow2 and the measurements as image/measurements.json and in its
annotations, and puts it into a registry; a container image goes as it is. What attest has signed is attached to
it, where cosign and Conforma look. The tag is written last. What the registry has is not
sent again; an upload that was cut goes on. It prints the reference with the digest, which was
known before: the same image always has the same.

The place is the one that attest was given as --image, unless one is named here.
Logins are those of docker and podman, and registries.conf counts. Without TLS
only a registry on this machine is spoken to.

With --layout it writes the same into a folder, an OCI image layout that
skopeo and podman read, and asks no registry. --results leaves what a Konflux task has to give.

Into a bucket go the files as they are in the folder: disks, what a network boot
needs, descriptions and statements, image.json last. Credentials are found as the
AWS CLI finds them; --endpoint names another store than Amazon's.

With --uplosi it sends nothing, and prints a configuration by which uplosi makes
cloud images of the disk.`,
		Example: `  caisson push quay.io/example/podvm:1.0 --out out
  caisson push --layout images --out out && skopeo copy oci:images:latest containers-storage:podvm
  caisson push s3://images/podvm/1.0 --out out
  caisson push --uplosi aws --set aws.region=eu-central-1 --set aws.bucket=images --out out > uplosi.conf`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runPush(cmd.Context(), ui, &o, strings.Join(args, ""))
		},
	}
	c.Flags().StringVar(&o.out, "out", "", "the output folder")
	c.Flags().StringVar(&o.layout, "layout", "", "write an OCI image layout into this folder instead")
	c.Flags().StringVar(&o.results, "results", "", "write the results of a Konflux task into this folder, a file each")
	c.Flags().StringVar(&o.from, "from", "", "a repository of the same registry whose blobs need not be sent again")
	c.Flags().StringVar(&o.key, "key", "", "check the statements by this public key first")
	c.Flags().StringArrayVar(&o.labels, "label", nil, "a label of the image, NAME=VALUE, where attest was not given it; may be repeated")
	c.Flags().StringVar(&o.endpoint, "endpoint", "", "the address of an S3 store that is not Amazon's")
	c.Flags().StringVar(&o.region, "region", "", "the bucket's region (default as the AWS CLI finds it)")
	c.Flags().StringSliceVar(&o.uplosi, "uplosi", nil, "print uplosi's configuration for aws, azure, gcp; several are separated by commas")
	c.Flags().StringArrayVar(&o.set, "set", nil, "a setting for it, PROVIDER.KEY=VALUE; may be repeated")
	c.Flags().StringVar(&o.version, "image-version", "0.0.0", "the image's version there, MAJOR.MINOR.PATCH")
	require(c, "out")
	return c
}

func runPush(ctx context.Context, ui *ui, o *pushOptions, ref string) error {
	if err := wantBuild(o.out); err != nil {
		return err
	}
	labels, err := parseLabels(o.labels)
	if err != nil {
		return err
	}
	if o.key != "" {
		if _, err := checkStatements(ctx, o.out, o.key); err != nil {
			return err
		}
	}
	began := time.Now()
	p, err := attest.ReadPackage(ctx, o.out, labels)
	if err != nil {
		return err
	}
	if err := wantPlace(p, o, ref); err != nil {
		return err
	}
	if len(o.uplosi) > 0 {
		conf, err := uplosiConfig(p, o.uplosi, o.version, o.set)
		if err == nil {
			ui.print("%s", strings.TrimSuffix(conf, "\n"))
		}
		return err
	}
	sayLeftOut(ui, p, o.out)
	if o.layout != "" {
		return pushLayout(ctx, ui, o, p, ref)
	}
	if strings.HasPrefix(ref, "s3://") {
		return pushS3(ctx, ui, o, p, ref)
	}
	if ref = cmp.Or(ref, p.Reference); ref == "" {
		return usageError{errors.New("push wants REGISTRY/REPO[:TAG], or an image that was attested with --image")}
	}
	cfg, err := prefetch.EnvConfig(programVersion(), o.out)
	if err != nil {
		return err
	}
	opts := oci.Options{Config: cfg, From: o.from}
	var end func()
	opts.Progress, end = ui.transfer("send")
	done, err := oci.Push(ctx, ref, p.Image, p.Attached, opts)
	end()
	if err != nil {
		return registryError(err, ref)
	}
	ui.stage("%s sent (%s), %d were there, %s attached, %s", count(done.Sent, "blob"), size(done.Bytes), done.Blobs-done.Sent,
		count(len(p.Statements), "statement"), took(began))
	if o.results != "" {
		if err := writeResults(o.results, o.out, ref, p); err != nil {
			return err
		}
	}
	at := done.Repository + "@" + done.Digest.String()
	ui.print("%s", at)
	if len(p.Statements) > 0 {
		ui.next("attest", "--check", at, "--key", "cosign.pub")
	}
	return nil
}

// wantPlace refuses what there is no place for.
func wantPlace(p *attest.Package, o *pushOptions, ref string) error {
	switch {
	case len(o.uplosi) > 0 && p.Description.IsArchive():
		return fmt.Errorf("--uplosi: %s is an archive, and uplosi makes cloud images of disks", p.Disk.Name)
	case p.Image == nil && (o.layout != "" || !strings.HasPrefix(ref, "s3://")):
		return fmt.Errorf("%s is a root in a tar archive, which no registry takes: add oci to image.output of the manifest, or push the files to s3://BUCKET/PREFIX", p.Disk.Name)
	}
	return nil
}

// sayLeftOut tells which statements do not go with an OCI image. With a root in a
// tar archive, which goes into a bucket, all do.
func sayLeftOut(ui *ui, p *attest.Package, out string) {
	if p.Image == nil {
		return
	}
	if len(p.Statements) == 0 {
		ui.stage("there are no statements in %s: the image goes without", out)
	}
	for _, name := range p.LeftOut {
		ui.stage("left out: %s: it is about the file, and not about the OCI image", name)
	}
}

// pushLayout writes a folder.
func pushLayout(ctx context.Context, ui *ui, o *pushOptions, p *attest.Package, ref string) error {
	if o.results != "" || o.from != "" {
		return usageError{errors.New("--layout asks no registry: --results and --from do not go with it")}
	}
	tag := "latest"
	if ref = cmp.Or(ref, p.Reference); ref != "" {
		r, err := prefetch.ParseRef(ref, "latest")
		if err != nil {
			return usageError{err}
		}
		tag = r.Identifier()
	}
	began := time.Now()
	if err := oci.WriteLayout(ctx, o.layout, tag, p.Image, p.Attached); err != nil {
		return err
	}
	ui.stage("%s and %s written, %s", p.Disk.Name, count(len(p.Statements), "statement"), took(began))
	ui.print("oci:%s:%s@%s", o.layout, tag, p.Image.Digest)
	return nil
}

// parseLabels reads NAME=VALUE; nil where nothing is given.
func parseLabels(given []string) (map[string]string, error) {
	var labels map[string]string
	for _, s := range given {
		name, value, ok := strings.Cut(s, "=")
		if name = strings.TrimSpace(name); !ok || name == "" {
			return nil, usageError{fmt.Errorf("--label %q: want NAME=VALUE", s)}
		}
		if _, twice := labels[name]; twice {
			return nil, usageError{fmt.Errorf("--label %s is given twice", name)}
		}
		if labels == nil {
			labels = map[string]string{}
		}
		labels[name] = value
	}
	return labels, nil
}

// registryError says what to do where a registry did not do as it was asked.
func registryError(err error, ref string) error {
	var e *prefetch.RegistryError
	if errors.As(err, new(*prefetch.RefError)) {
		return usageError{err}
	}
	if !errors.As(err, &e) {
		return err
	}
	host, _, _ := strings.Cut(ref, "/")
	hint := ""
	switch e.Status {
	case http.StatusUnauthorized, http.StatusForbidden:
		hint = "log in with `docker login " + host + "` or `podman login " + host + "`, as somebody who may do this there"
	case http.StatusRequestEntityTooLarge:
		hint = "the registry takes no blobs of this size: ask those who run it for a higher limit"
	case http.StatusTooManyRequests:
		hint = "the registry wants fewer requests: run it again later, it goes on from here"
	case http.StatusNotFound:
		hint = "the registry has no such repository, or does not make one by itself"
	default:
		if e.Status >= http.StatusInternalServerError || e.Status == 0 && !errors.Is(err, oci.ErrLies) {
			hint = "run it again: what has been sent is not sent twice"
		}
	}
	return &codeError{err, exitError, hint}
}
