package hermeto

import (
	"context"
	"fmt"
	"strings"

	"caisson/lock"
	"caisson/prefetch/rpmsig"
)

// Tags of an RPM's main header (rpm's rpmtag.h).
const (
	tagSummary         = 1004
	tagVendor          = 1011
	tagModularityLabel = 5096
)

// bom is the SBOM of what was fetched, and of the sources it was fetched for.
func (p *Plan) bom(ctx context.Context) (*BOM, error) {
	all := map[string][]Component{}
	for i := range p.Lock.Inputs {
		in := &p.Lock.Inputs[i]
		var c Component
		var backend string
		switch in.Kind {
		case lock.KindCrate:
			backend, c = "cargo", p.crate(in)
		case lock.KindRPM:
			var err error
			if c, err = p.rpm(in); err != nil {
				return nil, fmt.Errorf("%s: %w", in.Name, err)
			}
			backend = "rpm"
		case lock.KindFile:
			backend, c = "generic", p.file(in)
		default: // what Go needs, and git repositories, are told of below
			continue
		}
		c.Hashes = append(c.Hashes, Hash{Algorithm: "SHA-256", Content: in.SHA256.Hex()})
		all[backend] = append(all[backend], c)
	}
	modules, err := p.goComponents(ctx)
	if err != nil {
		return nil, err
	}
	packages, err := p.cargoComponents()
	if err != nil {
		return nil, err
	}
	all["gomod"], all["cargo"] = modules, append(all["cargo"], packages...)
	return newBOM(all, p.req.Epoch), nil
}

// file is the component of a file of artifacts.lock.yaml.
func (p *Plan) file(in *lock.Input) Component {
	c := Component{
		Name: base(in.Name), Type: "file", PURL: in.PURL,
		References: []ExternalReference{{URL: webURL(in.URL), Type: "distribution"}},
	}
	if m := p.artifacts[in.Name].Maven; m != nil {
		c.Name, c.Version, c.Type = m.ArtifactID, m.Version, "library"
	}
	return c
}

// rpm reads from a package's header what the lock does not have.
func (p *Plan) rpm(in *lock.Input) (Component, error) {
	f, err := p.req.Store.Open(in.SHA256)
	if err != nil {
		return Component{}, err
	}
	defer f.Close()
	h, err := rpmsig.Open(f, f.Size())
	if err != nil {
		return Component{}, err
	}
	var texts [3]string
	for i, tag := range []uint32{tagVendor, tagModularityLabel, tagSummary} {
		s, err := h.Strings(tag)
		if err != nil {
			return Component{}, err
		}
		if len(s) > 0 {
			texts[i] = s[0]
		}
	}
	vendor, module, summary := texts[0], texts[1], texts[2]
	arch := h.Arch
	if arch == "nosrc" {
		arch = "src"
	}
	q := map[string]string{"arch": arch, "repository_id": in.Repo, "checksum": in.SHA256.String()}
	epoch, err := h.Numbers(1003) // RPMTAG_EPOCH: one that is 0 is told from none
	if err != nil {
		return Component{}, err
	}
	if len(epoch) > 0 {
		q["epoch"] = fmt.Sprint(epoch[0])
	}
	if in.Repo == "" {
		q["download_url"] = in.URL
	}
	c := Component{Name: h.Name, Version: h.Version, PURL: purl("rpm", rpmNamespace(vendor), h.Name, h.Version+"-"+h.Release, q, "")}
	if module != "" {
		c.Properties = append(c.Properties, Property{propModularity, module})
	}
	if p.summaries[in.Name] {
		c.Properties = append(c.Properties, Property{propSummary, summary})
	}
	return c, nil
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
