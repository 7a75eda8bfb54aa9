package hermeto

import (
	"context"
	"fmt"

	"caisson/lock"
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
