package spdx

import (
	"net/netip"
	"net/url"
	"path"
	"strings"

	"github.com/package-url/packageurl-go"
	"github.com/spdx/tools-golang/spdx/v2/common"
	"github.com/spdx/tools-golang/spdx/v2/v2_3"

	"caisson/attest/internal/use"
	"caisson/lock"
)

// cratesIO is where crates.io has the files that its index names.
const cratesIO = "https://crates.io/api/v1/crates/"

// location is where an input came from, where that is known to the lock, and a
// place for others too: not an address of this machine.
func (w *writer) location(in *lock.Input) (string, bool) {
	switch {
	case in.Tree != nil, in.Go != nil:
		return "", false // a module proxy's, which is everybody's own choice
	case in.Kind == lock.KindCrate:
		if registryName(in.Registry) != "crates.io" {
			return "", false
		}
		return cratesIO + in.URL + "/download", true
	case in.OCI != nil:
		return "", false // no URL: it is in the package URL
	}
	u, ok := w.Lock.RepoURL(in)
	if host := hostOf(u); !ok || host == "" { // in an ISO image
		return "", false
	}
	return u, true
}

// supplier is who an input came from: its server's host. RPMs name their vendor
// instead.
func (w *writer) supplier(in *lock.Input) *common.Supplier {
	host := ""
	switch {
	case in.Tree != nil, in.Kind == lock.KindKey:
		return w.local()
	case in.Go != nil:
		host, _, _ = strings.Cut(in.Go.Module, "/")
	case in.Kind == lock.KindCrate:
		host = registryName(in.Registry)
	case in.OCI != nil:
		host = hostOf(in.URL)
	default:
		if u, ok := w.Lock.RepoURL(in); ok {
			host = hostOf(u)
		}
	}
	if host == "" {
		return w.local()
	}
	return organization(host)
}

// hostOf is the host of an address; empty where it has none, or is this machine.
func hostOf(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	host := u.Hostname()
	if ip, err := netip.ParseAddr(host); host == "localhost" || err == nil && ip.IsLoopback() {
		return ""
	}
	return host
}

func organization(name string) *common.Supplier {
	return &common.Supplier{SupplierType: "Organization", Supplier: oneLine(name)}
}

// purl is an input's package URL: the lock's, with what else is known. What
// the lock has none for is a generic one, and so is a go.mod alone, which is not
// the module.
func (w *writer) purl(in *lock.Input) (string, error) {
	text := in.PURL
	if text == "" || in.Go != nil && strings.HasSuffix(in.Name, ".mod") {
		q := packageurl.QualifiersFromMap(map[string]string{"checksum": in.SHA256.String()})
		text = packageurl.NewPackageURL(packageurl.TypeGeneric, "", path.Base(in.Name), "", q, "").ToString()
	}
	more := map[string]string{}
	if u, ok := w.location(in); ok && (in.RPM != nil || in.Kind == lock.KindFile) {
		more["download_url"] = u
	}
	if in.RPM != nil && w.use(in)&use.Image != 0 && w.System.ID != "" {
		more["distro"] = strings.TrimSuffix(w.System.ID+"-"+w.System.VersionID, "-")
	}
	if len(more) == 0 {
		return text, nil
	}
	p, err := packageurl.FromString(text)
	if err != nil {
		return "", err
	}
	q := p.Qualifiers.Map()
	for k, v := range more {
		q[k] = v
	}
	p.Qualifiers = packageurl.QualifiersFromMap(q)
	return p.ToString(), nil
}

// cpe is a reference to a CPE name, in either of its forms.
func cpe(name string) *v2_3.PackageExternalReference {
	r := &v2_3.PackageExternalReference{Category: common.CategorySecurity, RefType: common.TypeSecurityCPE22Type, Locator: name}
	if strings.HasPrefix(name, "cpe:2.3:") {
		r.RefType = common.TypeSecurityCPE23Type
	}
	return r
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
