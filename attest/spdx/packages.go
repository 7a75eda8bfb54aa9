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
		PackageSPDXIdentifier:   elementID("Package-"+in.Kind, in.Kind+"/"+in.Name, in.Name),
		PackageSupplier:         &common.Supplier{Supplier: none},
		PackageDownloadLocation: none,
		PackageChecksums:        sha256Sum(in.SHA256),
		PackageLicenseConcluded: none,
		PackageLicenseDeclared:  none,
		PackageCopyrightText:    none,
		PrimaryPackagePurpose:   purpose(in.Kind),
		PackageComment:          "For this image: " + strings.Join(w.use(in).Names(), ", ") + ".",
	}
	if u, ok := w.Lock.RepoURL(in); ok {
		p.PackageDownloadLocation = u
	}
	if in.Tree == nil {
		p.PackageFileName = path.Base(in.URL)
	}
	if in.PURL != "" {
		p.PackageExternalReferences = []*v2_3.PackageExternalReference{
			{Category: common.CategoryPackageManager, RefType: common.TypePackageManagerPURL, Locator: in.PURL},
		}
	}
	switch {
	case in.RPM != nil:
		return p, w.describeRPM(p, in)
	case in.Go != nil:
		p.PackageName, p.PackageVersion = in.Go.Module, in.Go.Version
		p.PackageSourceInfo = "go.sum: " + in.Go.H1
		host, _, _ := strings.Cut(in.Go.Module, "/")
		p.PackageSupplier = organization(host)
	case in.Kind == lock.KindCrate:
		p.PackageName, p.PackageVersion = crate(in.Name)
		p.PackageFileName = in.Name
		p.PackageSourceInfo = "registry: " + in.Registry
		if name := registryName(in.Registry); name != "" {
			p.PackageSupplier = organization(name)
		}
	case in.Git != nil:
		p.PackageVersion = in.Git.Commit
		p.PackageDownloadLocation = "git+" + in.URL + "@" + in.Git.Commit // section 7.7
		p.PackageSourceInfo = "git tree " + in.Git.Tree + " of " + cmp.Or(in.Git.Ref, "HEAD")
	case in.OCI != nil:
		p.PackageSourceInfo = in.OCI.Role + " of the image " + in.OCI.Ref + ", of type " + in.OCI.MediaType
		if in.OCI.Role == lock.RoleIndex || in.OCI.Role == lock.RoleManifest {
			p.PackageVersion, p.PrimaryPackagePurpose = in.SHA256.String(), "CONTAINER"
		}
	case in.Tree != nil:
		p.PackageSourceInfo = treeInfo(in)
		p.PackageVersion = in.Tree.Commit
	case in.Fingerprint != "":
		p.PackageVersion = in.Fingerprint
	}
	if in.Verified != nil {
		p.PackageSourceInfo = strings.TrimPrefix(p.PackageSourceInfo+"; "+in.Verified.What+" signed by "+in.Verified.By(), "; ")
	}
	return p, nil
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

	h, err := w.Header(in)
	if err != nil {
		return err
	}
	if h.Vendor != "" {
		p.PackageSupplier = organization(h.Vendor)
		p.PackageOriginator = &common.Originator{OriginatorType: "Organization", Originator: oneLine(h.Vendor)}
	}
	if h.Packager != "" {
		p.PackageOriginator = &common.Originator{OriginatorType: "Organization", Originator: oneLine(h.Packager)}
	}
	if h.License != "" {
		p.PackageLicenseComments = "The package's header says: " + oneLine(h.License)
	}
	if u, err := url.Parse(h.URL); err == nil && u.Host != "" {
		p.PackageHomePage = u.String()
	}
	p.PackageSummary = oneLine(h.Summary)
	return nil
}

// registryName is the host that a registry's crates come from, by its source
// as Cargo.lock has it. The index of crates.io is on other hosts than its
// crates.
func registryName(source string) string {
	_, address, _ := strings.Cut(source, "+")
	u, err := url.Parse(address)
	switch {
	case err != nil:
		return ""
	case u.Host == "index.crates.io", u.Host == "github.com" && u.Path == "/rust-lang/crates.io-index":
		return "crates.io"
	}
	return u.Host
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

func organization(name string) *common.Supplier {
	return &common.Supplier{SupplierType: "Organization", Supplier: oneLine(name)}
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
