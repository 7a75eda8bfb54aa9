package spdx

import (
	"cmp"
	"net/url"
	"path"
	"strings"
	"time"

	"github.com/spdx/tools-golang/spdx/v2/common"
	"github.com/spdx/tools-golang/spdx/v2/v2_3"

	"caisson/lock"
	"caisson/lock/digest"
)

// inputPackage describes one input.
func (w *writer) inputPackage(in *lock.Input) (*v2_3.Package, error) {
	p := &v2_3.Package{
		PackageName:             in.Name,
		PackageSPDXIdentifier:   elementID("Package-"+in.Kind, ref(in), in.Name),
		PackageVersion:          in.SHA256.String(),
		PackageSupplier:         w.supplier(in),
		PackageDownloadLocation: none,
		PackageChecksums:        sha256Sum(in.SHA256),
		PackageLicenseConcluded: none,
		PackageLicenseDeclared:  none,
		PackageCopyrightText:    none,
		PrimaryPackagePurpose:   purpose(in.Kind),
		PackageComment:          "For this image: " + strings.Join(w.use(in).Names(), ", ") + ".",
	}
	if u, ok := w.location(in); ok {
		p.PackageDownloadLocation = u
	}
	if in.Tree == nil {
		p.PackageFileName = path.Base(in.URL)
	}
	purl, err := w.purl(in)
	if err != nil {
		return nil, err
	}
	p.PackageExternalReferences = []*v2_3.PackageExternalReference{
		{Category: common.CategoryPackageManager, RefType: common.TypePackageManagerPURL, Locator: purl},
	}
	if w.System.CPE != "" && w.System.Input == ref(in) {
		p.PackageExternalReferences = append(p.PackageExternalReferences, cpe(w.System.CPE))
	}
	if in.RPM != nil || in.Go != nil || in.Kind == lock.KindCrate || in.Kind == lock.KindFile {
		p.Annotations = []v2_3.Annotation{w.foundBy()}
	}
	if err := w.describe(p, in); err != nil {
		return nil, err
	}
	if in.Verified != nil {
		p.PackageSourceInfo = strings.TrimPrefix(p.PackageSourceInfo+"; "+in.Verified.What+" signed by "+in.Verified.By(), "; ")
	}
	return p, nil
}

// describe adds what inputs of a kind have.
func (w *writer) describe(p *v2_3.Package, in *lock.Input) error {
	switch {
	case in.RPM != nil:
		return w.describeRPM(p, in)
	case in.Go != nil:
		p.PackageVersion = in.Go.Version
		p.PackageSourceInfo = "go.sum: " + in.Go.H1
		if strings.HasSuffix(in.Name, ".mod") {
			p.PrimaryPackagePurpose = "FILE"
			p.PackageComment += " Only this file was read, to choose versions: nothing of the module is in the image."
			return nil
		}
		p.PackageName = in.Go.Module
		return w.describeFacts(p, in)
	case in.Kind == lock.KindCrate:
		p.PackageName, p.PackageVersion = crate(in.Name)
		p.PackageFileName = in.Name
		p.PackageSourceInfo = "registry: " + in.Registry
		return w.describeFacts(p, in)
	case in.Git != nil:
		p.PackageVersion = in.Git.Commit
		p.PackageDownloadLocation = "git+" + in.URL + "@" + in.Git.Commit // section 7.7
		p.PackageSourceInfo = "git tree " + in.Git.Tree + " of " + cmp.Or(in.Git.Ref, "HEAD")
	case in.OCI != nil:
		p.PackageSourceInfo = in.OCI.Role + " of the image " + in.OCI.Ref + ", of type " + in.OCI.MediaType
		if in.OCI.Role == lock.RoleIndex || in.OCI.Role == lock.RoleManifest {
			p.PrimaryPackagePurpose = "CONTAINER"
		}
		if in.OCI.Role == lock.RoleSBOM {
			return w.importSBOM(p, in)
		}
	case in.Tree != nil:
		p.PackageSourceInfo = treeInfo(in)
		p.PackageVersion = cmp.Or(in.Tree.Commit, p.PackageVersion)
	case in.Fingerprint != "":
		p.PackageVersion = in.Fingerprint
	}
	return nil
}

// describeFacts adds what a module or a crate says of itself.
func (w *writer) describeFacts(p *v2_3.Package, in *lock.Input) error {
	f, err := w.Facts(in)
	if err != nil {
		return err
	}
	w.setLicense(p, f)
	setHomePage(p, f.URL)
	p.PackageSummary = oneLine(f.Summary)
	return nil
}

func setHomePage(p *v2_3.Package, address string) {
	if u, err := url.Parse(address); err == nil && u.Host != "" {
		p.PackageHomePage = u.String()
	}
}

// foundBy is the mark by which Conforma's rules for what a prefetcher brought
// know such a package.
func (w *writer) foundBy() v2_3.Annotation {
	return v2_3.Annotation{
		Annotator:         common.Annotator{AnnotatorType: "Tool", Annotator: "caisson:hermeto-compatible"},
		AnnotationDate:    epoch(w.Lock.Epoch),
		AnnotationType:    "OTHER",
		AnnotationComment: `{"name":"caisson:found_by","value":"caisson"}`,
	}
}

// describeRPM adds what lock and header say of a package.
func (w *writer) describeRPM(p *v2_3.Package, in *lock.Input) error {
	p.PackageName, p.PackageVersion = in.RPM.Name, in.RPM.EVR()
	if in.RPM.BuildTime > 0 {
		p.BuiltDate = time.Unix(in.RPM.BuildTime, 0).UTC().Format(time.RFC3339)
	}
	var info []string
	if in.RPM.SourceRPM != "" {
		info = append(info, "source RPM: "+in.RPM.SourceRPM)
	}
	if in.RPM.Module != "" {
		info = append(info, "module: "+in.RPM.Module)
	}
	if in.Repo != "" {
		info = append(info, "repository: "+in.Repo)
	}
	p.PackageSourceInfo = strings.Join(info, "; ")
	if in.RPM.Signed {
		s, err := w.Signer(in)
		if err != nil {
			return err
		}
		p.PackageComment += " Signed by OpenPGP key " + s.Fingerprint
		if s.UserID != "" {
			p.PackageComment += ", " + oneLine(s.UserID)
		}
		p.PackageComment += "."
	}

	f, err := w.Facts(in)
	if err != nil {
		return err
	}
	w.facts[ref(in)] = f
	if f.Vendor != "" {
		p.PackageSupplier = organization(f.Vendor)
	}
	if who := oneLine(cmp.Or(f.Packager, f.Vendor)); who != "" {
		p.PackageOriginator = &common.Originator{OriginatorType: "Organization", Originator: who}
	}
	w.setLicense(p, f)
	setHomePage(p, f.URL)
	p.PackageSummary = oneLine(f.Summary)
	return w.addSource(p, in)
}

// purpose is the primary purpose (section 7.24) of a kind of input.
func purpose(kind string) string {
	switch kind {
	case lock.KindRPM:
		return "INSTALL"
	case lock.KindGo, lock.KindCrate:
		return "LIBRARY"
	case lock.KindToolchain:
		return "APPLICATION"
	case lock.KindTree:
		return "SOURCE"
	}
	return "FILE"
}

func treeInfo(in *lock.Input) string {
	switch {
	case in.Tree.Commit == "":
		return "folder " + in.URL
	case in.Tree.Dirty:
		return "folder " + in.URL + ", altered since commit " + in.Tree.Commit
	}
	return "folder " + in.URL + " at commit " + in.Tree.Commit
}

// crate splits NAME-VERSION.crate: the version begins at the first hyphen
// that a digit follows and that a dot follows before the next one.
func crate(file string) (name, version string) {
	s := strings.TrimSuffix(file, ".crate")
	for i := 1; i+1 < len(s); i++ {
		if s[i] != '-' || s[i+1] < '0' || s[i+1] > '9' {
			continue
		}
		number, _, found := strings.Cut(s[i+1:], ".")
		if found && strings.Trim(number, "0123456789") == "" {
			return s[:i], s[i+1:]
		}
	}
	return s, ""
}

// oneLine makes a field of a header fit for one line.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

func sha256Sum(d digest.Digest) []common.Checksum {
	return []common.Checksum{{Algorithm: common.SHA256, Value: d.Hex()}}
}

// elementID makes an SPDX identifier: letters, digits, dots and hyphens
// (section 7.2). Where name has others, a part of the digest of key, which
// is unique, keeps it apart.
func elementID(prefix, key, name string) common.ElementID {
	clean := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '.', r == '-':
			return r
		}
		return '-'
	}, name)
	id := prefix + "-" + clean
	if clean != name {
		id += "-" + digest.Of([]byte(key)).Hex()[:12]
	}
	return common.ElementID(id)
}
