package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"caisson/attest"
	"caisson/attest/sign"
	"caisson/build"
	"caisson/lock"
	"caisson/lock/digest"
	"caisson/verify"
)

// trusts are what a verdict rests on beside the image itself, and who signs it.
type trusts struct {
	key               string
	signer            sign.Signer // of the key, where one is given
	rebuilders        int
	trust, statements []string
	noRebuild         bool
	policy            string
	labels            []string
}

func (o *trusts) trustFlags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&o.key, "key", "", "sign the verdict, a negative one too, by this key of the verifier's own")
	f.IntVar(&o.rebuilders, "rebuilders", 0, "how many others have to say that their rebuild was identical")
	f.StringArrayVar(&o.trust, "trust", nil, "the public key of a rebuilder who is believed; may be repeated")
	f.StringArrayVar(&o.statements, "statement", nil, "a bundle that a rebuilder signed, or a folder of them; may be repeated")
	f.BoolVar(&o.noRebuild, "no-rebuild", false, "do not rebuild here: let the rebuilders' statements stand for it")
	f.StringArrayVar(&o.labels, "label", nil, "a label of the OCI image as which the image is pushed, as attest is given it: the signed verdict is about that image too; may be repeated")
	f.StringVar(&o.policy, "policy", "", "hold the image against the rules of this file")
}

// check refuses command lines that contradict themselves, before any work.
func (o *trusts) check() error {
	switch {
	case o.rebuilders < 0:
		return usageError{fmt.Errorf("--rebuilders %d: want a number of signers", o.rebuilders)}
	case o.rebuilders > 0 && len(o.statements) == 0:
		return usageError{errors.New("--rebuilders wants their signed verdicts: --statement FILE")}
	case o.rebuilders > 0 && len(o.trust) == 0 && o.policy == "":
		return usageError{errors.New("--rebuilders wants to know whom to believe: --trust PUB")}
	case o.noRebuild && o.rebuilders == 0 && o.policy == "":
		return usageError{errors.New("--no-rebuild leaves nothing that the verdict could rest on: name --rebuilders, or a policy that requires them")}
	case o.noRebuild && o.key != "":
		return usageError{errors.New("--key signs what a rebuild here has shown, and --no-rebuild makes none: the signed verdict would count as one more rebuild")}
	}
	return nil
}

// opinions reads what rebuilders signed. own is the hint of this verifier's
// key, whose word is no other's.
func (o *trusts) opinions(keys []attest.Key, own string) ([]verify.Opinion, error) {
	files, err := bundleFiles(o.statements)
	if err != nil {
		return nil, err
	}
	var out []verify.Opinion
	for _, name := range files {
		b, err := readBundle(name)
		if err != nil {
			return nil, err
		}
		op := attest.Opinion(name, b, keys)
		if own != "" && op.Signer == own {
			op = verify.Opinion{File: name, Problem: "signed by this verifier itself"}
		}
		out = append(out, op)
	}
	return out, nil
}

// signVerdict signs the verdict of a verification that has just ended, about
// the image and, where it can be packed, about the OCI image that it is pushed
// as.
func (o *trusts) signVerdict(ctx context.Context, ui *ui, dir, image string, l *lock.Lock, r *verify.Report) error {
	if o.key == "" {
		return nil
	}
	tool, err := thisTool()
	if err != nil {
		return err
	}
	manifest, err := o.packed(ctx, image, l, r)
	if err != nil {
		return err
	}
	signed, err := attest.SignVerdict(ctx, dir, r, manifest, o.signer, tool)
	if err != nil {
		return err
	}
	for _, s := range signed {
		ui.stage("signed: %s", filepath.Join(dir, s.Bundle))
	}
	return nil
}

// packed is the digest of the OCI image of an image that was verified: computed
// from its bytes, and from what they measure. It is zero for what cannot be
// measured, of which there is a verdict all the same.
func (o *trusts) packed(ctx context.Context, image string, l *lock.Lock, r *verify.Report) (digest.Digest, error) {
	labels, err := parseLabels(o.labels)
	if err != nil {
		return digest.Digest{}, err
	}
	if r.IsArchive() {
		return r.Image.Manifest, nil
	}
	m, phases, err := verify.Measure(image)
	if err != nil {
		return digest.Digest{}, nil
	}
	measurements, err := m.MeasurementsJSON(phases)
	if err != nil {
		return digest.Digest{}, err
	}
	arch := machineArch()
	if len(l.Arches) == 1 {
		arch = l.Arches[0]
	}
	packed, err := attest.Pack(ctx, image, measurements, build.Image{Arch: arch, Epoch: l.Epoch, Lock: r.Lock}, labels)
	if err != nil {
		return digest.Digest{}, err
	}
	if packed.Disk != r.Image.SHA256 {
		return digest.Digest{}, fmt.Errorf("%s changes while it is read: got %s, want %s", image, packed.Disk, r.Image.SHA256)
	}
	return packed.Digest, nil
}
