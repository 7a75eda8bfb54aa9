package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"caisson/lock"
	"caisson/lock/digest"
	"caisson/lock/konflux"
)

type convertOptions struct {
	out, set string
}

func newConvertCommand(ui *ui) *cobra.Command {
	var o convertOptions
	c := &cobra.Command{
		Use:   "convert LOCK",
		Short: "Turn a lock into an rpms.lock.yaml, or the other way round",
		Long: `Convert writes the packages of a lock as the rpms.lock.yaml that Konflux and
Hermeto read: packages, source packages, and the module metadata that they need.
Of an rpms.lock.yaml it makes a lock, which can be prefetched, compared and
converted back; what that file does not say (requests, reasons, keys, metadata)
such a lock does not have, and images are not built from it.`,
		Example: "  caisson convert caisson.lock -o rpms.lock.yaml\n  caisson convert rpms.lock.yaml -o imported.lock",
		Args:    cobra.ExactArgs(1),
		RunE:    func(_ *cobra.Command, args []string) error { return runConvert(ui, &o, args[0]) },
	}
	f := c.Flags()
	f.StringVarP(&o.out, "output", "o", "", "the file to write (default standard output)")
	f.StringVar(&o.set, "set", "", "only the packages of one set, such as root")
	return c
}

func runConvert(ui *ui, o *convertOptions, name string) error {
	l, b, err := (&sources{lockFile: name}).readLock()
	if err != nil {
		return err
	}
	var out []byte
	if isKonfluxLock(b) {
		if o.set != "" {
			return usageError{fmt.Errorf("--set %s: an rpms.lock.yaml has no sets", o.set)}
		}
		out, err = lock.Format(l)
	} else {
		out, err = konfluxForm(l, o.set)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if o.out == "" {
		return ui.result(func(w io.Writer) error { _, err := w.Write(out); return err })
	}
	if err := wantParent(o.out); err != nil {
		return err
	}
	if err := writeFile(o.out, out); err != nil {
		return err
	}
	ui.stage("%s: written", o.out)
	return nil
}

// konfluxForm is a lock as an rpms.lock.yaml.
func konfluxForm(l *lock.Lock, set string) ([]byte, error) {
	k, err := lock.ToKonflux(l, set)
	if err != nil {
		return nil, err
	}
	return konflux.FormatLock(k), nil
}

// isKonfluxLock tells an rpms.lock.yaml from a lock, which is JSON.
func isKonfluxLock(b []byte) bool {
	return !bytes.HasPrefix(bytes.TrimSpace(b), []byte("{"))
}

// parseLock reads a lock, or what an rpms.lock.yaml says as one.
func parseLock(name string, b []byte) (*lock.Lock, error) {
	if !isKonfluxLock(b) || !isYAML(name) {
		return lock.Parse(name, b)
	}
	k, err := konflux.ParseLock(name, b)
	if err != nil {
		return nil, err
	}
	l, err := lock.FromKonflux(importedName(name), k, digest.Of(b))
	if err != nil {
		return nil, err
	}
	text, err := lock.Format(l)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return lock.Parse(name, text) // as if it had been written as a lock
}

func isYAML(name string) bool {
	ext := filepath.Ext(name)
	return ext == ".yaml" || ext == ".yml"
}

// importedName is what a lock is called that was made of a file: the file's
// folder's name, as far as a lock may be called so.
func importedName(file string) string {
	abs, err := filepath.Abs(file)
	if err != nil {
		return "imported"
	}
	name := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '-', r == '_', r == '.':
			return r
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		}
		return '-'
	}, filepath.Base(filepath.Dir(abs)))
	if name = strings.TrimLeft(name, "-_."); name == "" || name == string(os.PathSeparator) {
		return "imported"
	}
	return name
}
