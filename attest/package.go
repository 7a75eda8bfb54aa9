package attest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"caisson/attest/oci"
	"caisson/attest/sign"
	"caisson/attest/slsa"
	"caisson/build"
	"caisson/lock/digest"
	"caisson/prefetch"
	"caisson/verify"
)

// packageName is the file that says as which OCI image the disk is pushed.
const packageName = "oci.json"

// Publication is what is chosen of the OCI image as which a disk is pushed:
// statements are about it, so it is chosen before they are signed.
type Publication struct {
	// Reference is where it goes, REGISTRY/REPO[:TAG]; empty where that is not
	// known yet.
	Reference string `json:"reference,omitempty"`
	// Labels are those of the image's config.
	Labels map[string]string `json:"labels,omitempty"`
}

// packageJSON is oci.json.
type packageJSON struct {
	Publication
	Manifest digest.Digest `json:"manifest"`
}

// repository is the reference without its tag.
func (p Publication) repository() (string, error) {
	if p.Reference == "" {
		return "", nil
	}
	r, err := prefetch.ParseRef(p.Reference, "latest")
	if err != nil {
		return "", err
	}
	if strings.Contains(p.Reference, "@") {
		return "", &prefetch.RefError{Ref: p.Reference, Err: errors.New("the digest is not known before the image is packed: leave it out")}
	}
	return strings.TrimSuffix(p.Reference, ":"+r.Identifier()), nil
}

// Pack makes the OCI image of a disk's file.
func Pack(ctx context.Context, disk string, measurements []byte, im build.Image, labels map[string]string) (*oci.Image, error) {
	return oci.Pack(ctx, oci.Contents{Disk: disk, Name: "podvm" + filepath.Ext(disk), Measurements: measurements,
		Arch: im.Arch, Epoch: im.Epoch, Lock: im.Lock, Labels: labels})
}

// errLabels refuses labels for what is packed already.
var errLabels = errors.New("the labels of a container image are those of its configuration: image.container.labels of the manifest")

// packArchive is the container image in a folder's archive, and nil for a root
// in a tar archive. Either is read to its end.
func packArchive(ctx context.Context, dir string, file build.Output, im build.Image, labels map[string]string) (*oci.Image, error) {
	if len(labels) > 0 {
		return nil, errLabels
	}
	name := filepath.Join(dir, file.Name)
	d, err := verify.OpenImage(name)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	if !d.IsArchive() || (d.OCI == nil) != (im.Manifest == nil) {
		return nil, refuse(ErrFolder, "%s is not the archive that image.json describes", file.Name)
	}
	if _, err := d.CheckContents(); err != nil {
		return nil, refuse(ErrFolder, "%s: %w", file.Name, err)
	}
	if d.OCI == nil {
		return nil, nil
	}
	packed, err := oci.FromArchive(ctx, name, d.OCI)
	if err != nil {
		return nil, err
	}
	if packed.Digest != *im.Manifest {
		return nil, refuse(ErrFolder, "%s has the manifest %s, image.json says %s", file.Name, packed.Digest, im.Manifest)
	}
	if packed.Disk != file.SHA256 {
		return nil, refuse(ErrFolder, "%s changes while it is read: got %s, want %s", file.Name, packed.Disk, file.SHA256)
	}
	return packed, nil
}

// pack makes the OCI image of a folder's disk.
func pack(ctx context.Context, dir string, disk build.Output, measurements []byte, im build.Image, labels map[string]string) (*oci.Image, error) {
	if im.IsArchive() {
		return packArchive(ctx, dir, disk, im, labels)
	}
	packed, err := Pack(ctx, filepath.Join(dir, disk.Name), measurements, im, labels)
	if err != nil {
		return nil, err
	}
	if packed.Disk != disk.SHA256 {
		return nil, refuse(ErrFolder, "%s changes while it is read: got %s, want %s", disk.Name, packed.Disk, disk.SHA256)
	}
	return packed, nil
}

// pack learns as which OCI image the disk is pushed, and returns oci.json; nil for
// what is none.
func (f *folder) pack(ctx context.Context, p Publication) ([]byte, error) {
	repository, err := p.repository()
	if err != nil {
		return nil, err
	}
	packed, err := pack(ctx, f.dir, f.disk, f.raw, f.image.Image, p.Labels)
	if err != nil {
		return nil, err
	}
	if packed == nil {
		if p.Reference != "" {
			return nil, &prefetch.RefError{Ref: p.Reference, Err: fmt.Errorf("%s is a root in a tar archive, which no registry takes: add oci to image.output", f.disk.Name)}
		}
		return nil, nil
	}
	f.manifest, f.repository = packed.Digest, repository
	b, err := json.MarshalIndent(packageJSON{p, packed.Digest}, "", "  ")
	return append(b, '\n'), err
}

// known is the digest that the image is known by: its OCI image's, or else its
// file's.
func (f *folder) known() digest.Digest {
	if f.manifest.IsZero() {
		return f.disk.SHA256
	}
	return f.manifest
}

// readPackage reads oci.json; nil where there is none.
func readPackage(dir string) (*packageJSON, error) {
	p := new(packageJSON)
	_, err := readJSON(filepath.Join(dir, packageName), p)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return p, err
}

// Package is an output folder as it is pushed.
type Package struct {
	// Image is nil for a root in a tar archive, which no registry takes.
	Image *oci.Image
	// Attached are the statements' bundles, and the bare SPDX document.
	Attached []oci.Attachment
	// Reference is what the statements were signed for; empty for nothing.
	Reference string
	// SBOM is the digest of the bare SPDX document; zero where there is none.
	SBOM digest.Digest
	// Disk is the image's file, Description what image.json says of it.
	Disk        build.Output
	Description build.Image
	// Statements are the names of those in Attached, LeftOut those that are
	// about the file alone, and not about the OCI image.
	Statements, LeftOut []string

	listed []build.Output // by image.json
}

// ReadPackage reads what of an output folder is pushed. Labels that are not nil
// replace those that the statements were signed with. Everything has to belong
// together: what the disk's bytes are, what image.json says, and what each
// statement is about; else it is a *RefusedError. Whether the signatures are
// good is VerifyDir's.
func ReadPackage(ctx context.Context, dir string, labels map[string]string) (*Package, error) {
	var im imageJSON
	if _, err := readJSON(filepath.Join(dir, "image.json"), &im); err != nil {
		return nil, err
	}
	if len(im.Files) == 0 {
		return nil, refuse(ErrFolder, "image.json lists no file")
	}
	measurements, err := im.measurements(dir)
	if err != nil {
		return nil, err
	}
	attested, err := readPackage(dir)
	if err != nil {
		return nil, err
	}
	p := &Package{Disk: im.Files[0], Description: im.Image, listed: im.Files}
	if attested != nil {
		p.Reference = attested.Reference
		if labels == nil {
			labels = attested.Labels
		}
	}
	if p.Disk.Name != filepath.Base(p.Disk.Name) || !filepath.IsLocal(p.Disk.Name) {
		return nil, refuse(ErrFolder, "it names the file %q, which is not in it", p.Disk.Name)
	}
	if p.Image, err = pack(ctx, dir, p.Disk, measurements, im.Image, labels); err != nil {
		return nil, err
	}
	if attested != nil && p.Image == nil {
		return nil, refuse(ErrFolder, "it has %s, and %s is no OCI image", packageName, p.Disk.Name)
	}
	if attested != nil && attested.Manifest != p.Image.Digest {
		return nil, refuse(ErrFolder, "the statements are about the OCI image %s, and this is %s: attest again, with the labels that are wanted", attested.Manifest, p.Image.Digest)
	}
	if err := p.attach(dir); err != nil {
		return nil, err
	}
	return p, nil
}

// measurements is measurements.json; an archive has none.
func (im *imageJSON) measurements(dir string) ([]byte, error) {
	if im.IsArchive() {
		return nil, nil
	}
	return readLimited(filepath.Join(dir, "measurements.json"), maxJSON)
}

// attach reads the statements.
func (p *Package) attach(dir string) error {
	entries, err := os.ReadDir(filepath.Join(dir, statementsDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), bundleEnding)
		if !ok || strings.HasPrefix(name, ".") {
			continue
		}
		b, err := readLimited(filepath.Join(dir, statementsDir, e.Name()), sign.MaxBundle)
		if err != nil {
			return err
		}
		c, err := claimOf(b)
		if err != nil {
			return fmt.Errorf("%s: %w", e.Name(), err)
		}
		about, err := slsa.ImageOf(c.Subject)
		switch {
		case err != nil:
			return refuse(ErrFolder, "%s: %w", e.Name(), err)
		case about.File.Digest["sha256"] != p.Disk.SHA256.Hex():
			return refuse(ErrFolder, "%s is about sha256:%s, and %s is %s", e.Name(), about.File.Digest["sha256"], p.Disk.Name, p.Disk.SHA256)
		case about.Manifest.IsZero():
			p.LeftOut = append(p.LeftOut, name)
			continue
		case p.Image == nil:
			return refuse(ErrFolder, "%s is about the OCI image %s, and %s is none", e.Name(), about.Manifest, p.Disk.Name)
		case about.Manifest != p.Image.Digest:
			return refuse(ErrFolder, "%s is about the OCI image %s, and this is %s: were other labels given?", e.Name(), about.Manifest, p.Image.Digest)
		}
		p.Attached = append(p.Attached, oci.Attachment{Type: oci.BundleType, Content: b, PredicateType: c.PredicateType})
		p.Statements = append(p.Statements, name)
	}
	bare, err := readLimited(filepath.Join(dir, sbomName), maxJSON)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	p.SBOM = digest.Of(bare)
	p.Attached = append(p.Attached, oci.Attachment{Type: oci.SPDXType, Content: bare})
	return nil
}

// claimOf is what a bundle says; nothing of it is verified.
func claimOf(bundle []byte) (*slsa.Claim, error) {
	payload, _, err := sign.ReadStatement(bundle)
	if err != nil {
		return nil, err
	}
	return slsa.ReadClaim(payload)
}

// checkManifests checks that the manifests of which statements are follow from
// the folder's bytes.
func checkManifests(ctx context.Context, dir string, disk build.Output, im build.Image, manifests []digest.Digest) error {
	if len(manifests) == 0 {
		return nil
	}
	p, err := readPackage(dir)
	if err != nil {
		return err
	}
	if p == nil {
		return refuse(ErrFolder, "it has no %s, and a statement is about the OCI image %s", packageName, manifests[0])
	}
	measurements, err := (&imageJSON{Image: im}).measurements(dir)
	if err != nil {
		return err
	}
	packed, err := pack(ctx, dir, disk, measurements, im, p.Labels)
	if err != nil {
		return err
	}
	if packed == nil {
		return refuse(ErrFolder, "a statement is about the OCI image %s, and %s is none", manifests[0], disk.Name)
	}
	for _, m := range manifests {
		if m != packed.Digest {
			return refuse(ErrFolder, "a statement is about the OCI image %s, and from the folder follows %s", m, packed.Digest)
		}
	}
	return nil
}

// named gives an SPDX document the name by which Conforma's
// sbom_spdx.matches_image knows that it is the image's: the reference with the
// manifest's digest.
func named(reference, name string, manifest digest.Digest) string {
	if reference != "" {
		name = reference
	}
	return name + "@" + manifest.String()
}

// readLimited reads a file of at most limit bytes.
func readLimited(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%s: more than %d bytes", name, limit)
	}
	return b, err
}

// Files are all files of an output folder that are published where there are
// no manifests, by their names with slashes: what image.json lists, the
// descriptions beside it and the statements; image.json is the last. Each is as
// image.json says, else the folder is refused.
func (p *Package) Files(ctx context.Context, dir string) ([]build.Output, error) {
	var files []build.Output
	for _, want := range p.listed {
		got, err := sumFile(ctx, dir, want.Name)
		if err != nil {
			return nil, err
		}
		if got != want {
			return nil, refuse(ErrFolder, "%s has %d bytes and is %s, image.json says %d bytes and %s", want.Name, got.Size, got.SHA256, want.Size, want.SHA256)
		}
		files = append(files, got)
	}
	names := []string{"measurements.json", "report.json", "report.html", packageName, sbomName}
	for _, n := range append(slices.Clone(p.Statements), p.LeftOut...) {
		names = append(names, statementName(n), bundleName(n))
	}
	for _, name := range append(names, "image.json") {
		if slices.ContainsFunc(files, func(f build.Output) bool { return f.Name == name }) {
			continue
		}
		in, err := os.Open(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		sum, size, err := digest.Reader(reader{ctx, in})
		in.Close()
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", name, err)
		}
		files = append(files, build.Output{Name: filepath.ToSlash(name), Size: size, SHA256: sum})
	}
	return files, nil
}
