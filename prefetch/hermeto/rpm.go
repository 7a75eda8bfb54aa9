package hermeto

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"caisson/lock"
	"caisson/lock/digest"
	"caisson/lock/konflux"
	"caisson/prefetch/rpmsig"
)

// rpms is the lock of an rpms.lock.yaml.
func (p *Plan) rpms(ctx context.Context, pkg konflux.PrefetchPackage) (*lock.Lock, error) {
	b, source, err := p.read(pkg, "rpms.lock.yaml")
	if err != nil {
		return nil, err
	}
	k, err := konflux.ParseLock(source.Name, b)
	if err != nil {
		return nil, err
	}
	if pkg.BinaryArch != "" {
		want := strings.Split(pkg.BinaryArch, ",")
		var have []string
		for _, a := range k.Arches {
			have = append(have, a.Arch)
		}
		for _, a := range want {
			if !slices.Contains(have, a) {
				return nil, fmt.Errorf("binary.arch: %s has no %s, only %s", source.Name, a, strings.Join(have, ", "))
			}
		}
		k.Arches = slices.DeleteFunc(k.Arches, func(a konflux.LockArch) bool { return !slices.Contains(want, a.Arch) })
	}
	tls, err := sslAuth(pkg)
	if err != nil {
		return nil, err
	}
	for _, a := range k.Arches {
		for _, list := range [][]konflux.LockFile{a.Packages, a.Source, a.ModuleMetadata} {
			if err := p.pinRPMs(ctx, source.Name, list, tls); err != nil {
				return nil, err
			}
		}
		if err := p.nameRPMs(ctx, [][]konflux.LockFile{a.Packages, a.Source}, tls); err != nil {
			return nil, fmt.Errorf("%s: %w", source.Name, err)
		}
	}
	l, err := lock.FromKonflux("prefetch", k, source.SHA256)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", source.Name, err)
	}
	l.Sources = append(l.Sources, source)
	for i := range l.Repos {
		l.Repos[i].Auth = tls
	}
	for i := range l.Inputs {
		if l.Inputs[i].Repo == "" {
			l.Inputs[i].Auth = tls
		}
	}
	if err := p.trust(l); err != nil {
		return nil, err
	}
	for i := range l.Inputs {
		if pkg.IncludeSummary {
			p.summaries[l.Inputs[i].Name] = true
		}
	}
	return l, nil
}

// pinRPMs gives all files a SHA-256: those that are pinned by a longer checksum
// are fetched for it.
func (p *Plan) pinRPMs(ctx context.Context, name string, files []konflux.LockFile, tls *lock.Auth) error {
	for i := range files {
		f := &files[i]
		switch algorithm, _, _ := strings.Cut(strings.ToLower(f.Checksum), ":"); algorithm {
		case "sha256":
		case "sha384", "sha512":
			d, size, err := p.pin(ctx, lock.Want{Kind: lock.KindFile, URL: f.URL, Size: f.Size, Auth: tls}, f.Checksum)
			if err != nil {
				return fmt.Errorf("%s: %s: %w", name, f.URL, err)
			}
			if f.Size > 0 && f.Size != size {
				return fmt.Errorf("%s: %s: got %d bytes, want %d", name, f.URL, size, f.Size)
			}
			f.Checksum, f.Size = d.String(), size
		default:
			return &UnpinnedError{File: name, URL: f.URL, Checksum: f.Checksum}
		}
	}
	return nil
}

// fetchLimit is how many packages are fetched at a time for their names.
const fetchLimit = 16

// nameRPMs reads from their headers what packages are called that the file does
// not say: the names of their own files have no epochs.
func (p *Plan) nameRPMs(ctx context.Context, lists [][]konflux.LockFile, tls *lock.Auth) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(fetchLimit)
	for _, files := range lists {
		for i := range files {
			f := &files[i]
			if f.Name != "" && f.EVR != "" {
				continue
			}
			g.Go(func() error {
				d, _, err := p.pin(ctx, lock.Want{}, f.Checksum)
				if err != nil {
					return fmt.Errorf("%s: %w", f.URL, err)
				}
				if _, err = p.req.Fetch(ctx, lock.Want{Kind: lock.KindFile, URL: f.URL, Size: f.Size, SHA256: d, Auth: tls}); err != nil {
					return err
				}
				err = p.withHeader(d, func(h *rpmsig.Package) error {
					f.Name, f.EVR = h.Name, fmt.Sprintf("%d:%s-%s", h.Epoch, h.Version, h.Release)
					return nil
				})
				if err != nil {
					return fmt.Errorf("%s: %w", f.URL, err)
				}
				return nil
			})
		}
	}
	return g.Wait()
}

// withHeader reads a package's header.
func (p *Plan) withHeader(d digest.Digest, f func(h *rpmsig.Package) error) error {
	file, err := p.req.Store.Open(d)
	if err != nil {
		return err
	}
	defer file.Close()
	h, err := rpmsig.Open(file, file.Size())
	if err != nil {
		return err
	}
	return f(h)
}

// sslAuth is options.ssl as a login, nil for none.
func sslAuth(pkg konflux.PrefetchPackage) (*lock.Auth, error) {
	if pkg.SSLVerify != nil && !*pkg.SSLVerify {
		return nil, errors.New("options.ssl: ssl_verify false: whoever answers would be believed to be the server, and be logged in to; name the certificate of the server's authority as ca_bundle")
	}
	tls := lock.AuthTLS{Cert: pkg.SSLClientCert, Key: pkg.SSLClientKey, CA: pkg.SSLCACert}
	if tls == (lock.AuthTLS{}) {
		return nil, nil
	}
	for _, f := range []struct {
		key  string
		file *string
	}{{"client_cert", &tls.Cert}, {"client_key", &tls.Key}, {"ca_bundle", &tls.CA}} {
		if *f.file == "" {
			continue
		}
		fi, err := os.Stat(*f.file)
		if err == nil && !fi.Mode().IsRegular() {
			err = fmt.Errorf("%s is not a file", *f.file)
		}
		if err == nil {
			*f.file, err = filepath.Abs(*f.file) // as Hermeto has it: of the current folder
		}
		if err != nil {
			return nil, fmt.Errorf("options.ssl: %s: %w", f.key, err)
		}
	}
	return &lock.Auth{TLS: &tls}, nil
}

// trust makes the keys those that all packages have to be signed by.
func (p *Plan) trust(l *lock.Lock) error {
	if len(p.req.Keys) == 0 {
		return nil
	}
	var all []string
	for _, name := range p.req.Keys {
		b, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		ring, err := rpmsig.ReadKeys(b)
		if err != nil {
			return fmt.Errorf("reading the key %s: %w", name, err)
		}
		d, n, err := p.req.Store.Put(strings.NewReader(string(b)), digest.Of(b))
		if err != nil {
			return err
		}
		abs, err := filepath.Abs(name)
		if err != nil {
			return err
		}
		all = append(all, ring.Fingerprints()...)
		in := lock.Input{
			Kind: lock.KindKey, Name: d.Hex()[:16], URL: "file://" + filepath.ToSlash(abs), Size: n, SHA256: d,
			Fingerprint: strings.Join(ring.Fingerprints(), ","),
		}
		l.Inputs = append(l.Inputs, in)
	}
	slices.Sort(all)
	all = slices.Compact(all)
	for i := range l.Repos {
		l.Repos[i].GPGCheck, l.Repos[i].Keys = true, all
	}
	for i := range l.Inputs {
		in := &l.Inputs[i]
		if in.RPM == nil {
			continue
		}
		if in.Repo == "" {
			return fmt.Errorf("%s has no repoid, and so no keys by which its signature can be checked", in.Name)
		}
		in.RPM.Signed = true
	}
	return nil
}

// Tags of an RPM's main header (rpm's rpmtag.h).
const (
	tagEpoch           = 1003
	tagSummary         = 1004
	tagVendor          = 1011
	tagModularityLabel = 5096
)

// rpm is the component of a package: its header says what the lock does not.
func (p *Plan) rpm(in *lock.Input) (c Component, err error) {
	err = p.withHeader(in.SHA256, func(h *rpmsig.Package) error {
		var texts [3]string
		for i, tag := range []uint32{tagVendor, tagModularityLabel, tagSummary} {
			s, err := h.Strings(tag)
			if err != nil {
				return err
			}
			if len(s) > 0 {
				texts[i] = s[0]
			}
		}
		vendor, module, summary := texts[0], texts[1], texts[2]
		epoch, err := h.Numbers(tagEpoch) // one that is 0 is told from none
		if err != nil {
			return err
		}
		q := map[string]string{"arch": h.Arch, "repository_id": in.Repo, "checksum": in.SHA256.String()}
		if h.Arch == "nosrc" {
			q["arch"] = "src"
		}
		if len(epoch) > 0 {
			q["epoch"] = fmt.Sprint(epoch[0])
		}
		if in.Repo == "" {
			q["download_url"] = in.URL
		}
		c = Component{Name: h.Name, Version: h.Version, PURL: purl("rpm", rpmNamespace(vendor), h.Name, h.Version+"-"+h.Release, q, "")}
		if module != "" {
			c.Properties = append(c.Properties, Property{propModularity, module})
		}
		if p.summaries[in.Name] {
			c.Properties = append(c.Properties, Property{propSummary, summary})
		}
		return nil
	})
	return c, err
}

// rpmNamespace is what Hermeto makes of a package's vendor.
func rpmNamespace(vendor string) string {
	for _, known := range []struct{ vendor, namespace string }{{"Red Hat", "redhat"}, {"Fedora", "fedora"}, {"SUSE", "suse"}} {
		if strings.Contains(vendor, known.vendor) {
			return known.namespace
		}
	}
	return strings.ReplaceAll(strings.ToLower(vendor), " ", "_")
}
