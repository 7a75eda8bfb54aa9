package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"

	"caisson/lock"
	"caisson/lock/konflux"
	"caisson/prefetch/cas"
)

// konfluxLockName is what Konflux calls its lock.
const konfluxLockName = "rpms.lock.yaml"

// konfluxOptions are what counts where the manifest is an rpms.in.yaml.
type konfluxOptions struct {
	arches         []string
	vars           []string
	image          string
	bare           bool
	localSystem    bool
	missingSources bool
}

func (k *konfluxOptions) flags(f *pflag.FlagSet) {
	f.StringArrayVar(&k.arches, "arch", nil, "of an rpms.in.yaml: an arch to lock, instead of its own; may be repeated")
	f.StringArrayVar(&k.vars, "var", nil, "of an rpms.in.yaml: a variable of its repositories, NAME=VALUE; may be repeated")
	f.StringVar(&k.image, "image", "", "of an rpms.in.yaml: the image on top of which packages are installed, instead of its context")
	f.BoolVar(&k.bare, "bare", false, "of an rpms.in.yaml: on top of nothing, instead of its context")
	f.BoolVar(&k.localSystem, "local-system", false, "of an rpms.in.yaml: on top of this machine, instead of its context")
	f.BoolVar(&k.missingSources, "allow-missing-sources", false, "of an rpms.in.yaml: source packages that no repository has are only told")
}

// given tells whether one of the options is there.
func (k *konfluxOptions) given() bool {
	return len(k.arches)+len(k.vars) > 0 || k.image != "" || k.bare || k.localSystem || k.missingSources
}

// options are the resolver's.
func (k *konfluxOptions) options(file string) (lock.KonfluxOptions, error) {
	out := lock.KonfluxOptions{
		File: filepath.Base(file), Name: importedName(file), Arches: k.arches, Vars: map[string]string{},
		MissingSources: k.missingSources, System: "/", SystemArch: machineArch(),
	}
	for _, v := range k.vars {
		name, value, ok := strings.Cut(v, "=")
		if !ok || name == "" {
			return out, usageError{fmt.Errorf("--var %q: want NAME=VALUE", v)}
		}
		out.Vars[name] = value
	}
	var contexts []konflux.Context
	if k.image != "" {
		contexts = append(contexts, konflux.Context{Image: k.image})
	}
	if k.bare {
		contexts = append(contexts, konflux.Context{Bare: true})
	}
	if k.localSystem {
		contexts = append(contexts, konflux.Context{LocalSystem: true})
	}
	switch len(contexts) {
	case 0:
	case 1:
		out.Context = &contexts[0]
	default:
		return out, usageError{errors.New("want one of --image, --bare and --local-system")}
	}
	return out, nil
}

// resolveKonflux resolves an rpms.in.yaml on its own.
func resolveKonflux(ctx context.Context, ui *ui, o lock.Options, k lock.KonfluxOptions, store *cas.Store) (l *lock.Lock, err error) {
	err = withNetwork(ui, o, store, func(o lock.Options) error {
		var err error
		l, err = lock.ResolveKonflux(ctx, o, k)
		return err
	})
	return l, fetchError(err)
}
