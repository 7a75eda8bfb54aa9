package view

import (
	"encoding/json"
	"fmt"
	"path"
	"strings"

	"caisson/lock"
	"caisson/lock/gomod"
)

// Go puts the modules and toolchains of a lock below dir: dir is a module
// cache (GOMODCACHE) that nothing has been unpacked in, and
// dir/cache/download is a module proxy (GOPROXY=file://…, go.dev/ref/mod
// section "Serving modules directly from a proxy").
//
// A proxy's .info of each version with files says the version and no time, for
// `go get MODULE@VERSION` and the like; a build does not ask for it. There are
// no lists of versions. There is no .ziphash either: go would believe it and
// not hash the zip. Switching toolchains needs GOSUMDB=off and GOPROXY to be
// that one address; go then verifies no toolchain, and Fill has.
func (t *Tree) Go(dir string, l *lock.Lock) error {
	for i := range l.Inputs {
		in := &l.Inputs[i]
		if in.Go == nil {
			continue
		}
		m := gomod.Module{Path: in.Go.Module, Version: in.Go.Version}
		var name string
		switch ext := path.Ext(in.Name); ext {
		case ".zip":
			name = gomod.ZipPath(m)
		case ".mod":
			name = gomod.ModPath(m)
		}
		if name == "" {
			return fmt.Errorf("laying out a module proxy: %s: not a .zip or .mod of a module", in.Name)
		}
		name = path.Join(dir, "cache/download", name)
		if err := t.Link(name, in); err != nil {
			return err
		}
		if base, ok := strings.CutSuffix(name, ".zip"); ok && in.Kind == lock.KindGo {
			info, err := json.Marshal(struct{ Version string }{in.Go.Version})
			if err != nil {
				return err
			}
			if err := t.File(base+".info", info); err != nil {
				return err
			}
		}
	}
	return nil
}
