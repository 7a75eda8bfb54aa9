package lock

import (
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"

	"github.com/package-url/packageurl-go"

	"caisson/lock/cargo"
	"caisson/lock/digest"
)

// cargoPayloads pins the crates of the Rust sources: Cargo.lock has their
// SHA-256.
func (r *resolver) cargoPayloads(context.Context) error {
	for _, c := range r.m.Inputs.Cargo {
		if err := r.cargoPayload(c); err != nil {
			return fmt.Errorf("inputs.cargo: %s: %w", c.Name, err)
		}
	}
	return nil
}

func (r *resolver) cargoPayload(c ManifestCargo) error {
	c.Dir = path.Clean(c.Dir)
	crates, err := cargo.Read(os.DirFS(filepath.Join(r.Dir, c.Dir)))
	if err != nil {
		return err
	}
	set := "cargo:" + c.Name
	r.lock.Payloads = append(r.lock.Payloads, Payload{Kind: "cargo", Name: c.Name, Source: c.Dir})
	if err := r.tree(c.Dir, Use{Set: set, By: "inputs.cargo " + c.Name}); err != nil {
		return err
	}
	for _, k := range crates {
		sum, err := digest.ParseHex(k.Checksum)
		if err != nil {
			return fmt.Errorf("reading Cargo.lock: %s: %w", k.File(), err)
		}
		q := packageurl.QualifiersFromMap(map[string]string{"checksum": sum.String()})
		in := Input{
			Kind: KindCrate, Name: k.File(), URL: k.Name + "/" + k.Version, Registry: k.Source, SHA256: sum,
			PURL: packageurl.NewPackageURL(packageurl.TypeCargo, "", k.Name, k.Version, q, "").ToString(),
			For:  []Use{{Set: set, By: c.Dir, Dep: "Cargo.lock"}},
		}
		if err := r.add(in); err != nil {
			return err
		}
	}
	return nil
}
