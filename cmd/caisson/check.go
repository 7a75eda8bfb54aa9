package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"caisson/attest"
	"caisson/attest/oci"
	"caisson/attest/sign"
	"caisson/lock/digest"
	"caisson/prefetch"
	"caisson/verify/diff"
)

// bundleSuffix ends the names of bundles.
const bundleSuffix = ".sigstore.json"

// audited is a bundle and what was found, for machines.
type audited struct {
	File string `json:"file"`
	attest.Audited
}

// source is a bundle, and where it is from.
type source struct {
	name   string
	bundle []byte
	about  digest.Digest // what it has to be about; zero for anything
}

// sourcesOf reads bundles: files, those of folders, and what is attached to an
// image in a registry. What exists as a file is one.
func sourcesOf(ctx context.Context, args []string) ([]source, error) {
	var all []source
	for _, arg := range args {
		if _, err := os.Stat(arg); err != nil && looksLikeRef(arg) {
			attached, err := attachedTo(ctx, arg)
			if err != nil {
				return nil, err
			}
			all = append(all, attached...)
			continue
		}
		files, err := bundleFiles([]string{arg})
		if err != nil {
			return nil, err
		}
		for _, name := range files {
			b, err := readBundle(name)
			if err != nil {
				return nil, err
			}
			all = append(all, source{name: name, bundle: b})
		}
	}
	return all, nil
}

// looksLikeRef tells a reference from a path that is not there.
func looksLikeRef(arg string) bool {
	_, err := prefetch.ParseRef(arg, "latest")
	return err == nil && !strings.HasSuffix(arg, ".json") && !strings.HasPrefix(arg, ".")
}

// attachedTo reads the bundles that are attached to an image.
func attachedTo(ctx context.Context, ref string) ([]source, error) {
	cfg, err := prefetch.EnvConfig(programVersion(), ".")
	if err != nil {
		return nil, err
	}
	image, attached, err := oci.Fetch(ctx, ref, cfg, attest.MaxBundle)
	if err != nil {
		return nil, registryError(err, ref)
	}
	if len(attached) == 0 {
		return nil, &codeError{fmt.Errorf("%s (%s): no statement is attached to it", ref, image), exitNotVerified, ""}
	}
	var all []source
	for _, a := range attached {
		all = append(all, source{a.Manifest.String(), a.Content, image})
	}
	return all, nil
}

// runCheck shows who said what about which digest, and whether it is signed.
func runCheck(ctx context.Context, ui *ui, o *attestOptions, args []string) error {
	if len(args) == 0 {
		return usageError{errors.New("--check wants bundles, folders with statements, or an image in a registry")}
	}
	if o.out != "" {
		return usageError{errors.New("--check signs nothing: --out does not go with it")}
	}
	keys, err := keysBy(o.keys, func(name string) ([]byte, error) { return publicPEM(ctx, name) })
	if err != nil {
		return err
	}
	if o.identity != "" || o.issuer != "" || o.root != "" {
		who, err := o.believed()
		if err != nil {
			return err
		}
		keys = append(keys, who)
	}
	all, err := sourcesOf(ctx, args)
	if err != nil {
		return err
	}
	rows := make([]audited, 0, len(all))
	for _, s := range all {
		a := attest.Audit(s.bundle, keys)
		if !s.about.IsZero() {
			a = a.About(s.about)
		}
		rows = append(rows, audited{s.name, a})
	}
	if o.json {
		err = ui.json(rows)
	} else {
		err = ui.result(func(w io.Writer) error { return writeAudit(w, rows) })
	}
	if err != nil {
		return err
	}
	return auditError(rows)
}

// auditError is the exit code of a check: a bad signature comes before an
// unknown key.
func auditError(rows []audited) error {
	has := func(s attest.Signature) bool {
		return slices.ContainsFunc(rows, func(r audited) bool { return r.Signature == s })
	}
	switch {
	case has(attest.Bad):
		return &quietError{exitRefused}
	case has(attest.UnknownKey):
		return &quietError{exitNotVerified}
	}
	return nil
}

// writeAudit writes the table. What comes from a statement may hold anything.
func writeAudit(w io.Writer, rows []audited) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "SIGNATURE\tKEY\tROLE\tVERDICT\tTIME\tSTATEMENT\tABOUT\tFILE")
	for _, r := range rows {
		cells := []string{string(r.Signature), r.Key, "", "", "", "", "", r.File}
		if c := r.Claim; c != nil {
			cells[2] = string(c.Role)
			if c.Role == "" && c.ID != "" {
				cells[2] = c.ID
			}
			cells[3] = string(c.Verdict)
			if c.Verdict == "" {
				cells[3] = c.Result
			}
			cells[4], cells[5] = c.Time, c.PredicateType
			var about []string
			for _, s := range c.Subject {
				about = append(about, s.Name+" sha256:"+s.Digest["sha256"])
			}
			cells[6] = strings.Join(about, ", ")
		}
		for i, s := range cells {
			if cells[i] = diff.Printable(s); s == "" {
				cells[i] = "-"
			}
		}
		fmt.Fprintln(t, strings.Join(cells, "\t"))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, r := range rows {
		if r.Problem != "" {
			fmt.Fprintf(w, "%s: %s\n", diff.Printable(r.File), diff.Printable(r.Problem))
		}
	}
	return nil
}

// believed is the identity that is given to check by.
func (o *attestOptions) believed() (attest.Key, error) {
	if o.identity == "" || o.issuer == "" || o.root == "" {
		return attest.Key{}, usageError{errors.New("an identity is checked by --identity, --issuer and --trusted-root together")}
	}
	b, err := os.ReadFile(o.root)
	if err != nil {
		return attest.Key{}, fmt.Errorf("reading the trusted root: %w", err)
	}
	k := attest.Key{Name: o.identity, Identity: o.identity, Issuer: o.issuer, Root: b}
	if err := k.Check(); err != nil {
		return attest.Key{}, fmt.Errorf("%s: %w", o.root, err)
	}
	return k, nil
}

// publicPEM reads a public key: a file, or that of a key in a service.
func publicPEM(ctx context.Context, name string) ([]byte, error) {
	if !sign.IsService(name) {
		return os.ReadFile(name)
	}
	s, err := sign.Open(ctx, name, os.Getenv)
	return s.PublicPEM(), err
}

// readKeys reads public keys, which are known by the names of their files.
func readKeys(names []string) ([]attest.Key, error) { return keysBy(names, os.ReadFile) }

func keysBy(names []string, read func(string) ([]byte, error)) ([]attest.Key, error) {
	var keys []attest.Key
	for _, name := range names {
		b, err := read(name)
		if err != nil {
			return nil, fmt.Errorf("reading the public key: %w", err)
		}
		k := attest.Key{Name: name, PEM: b}
		if err := k.Check(); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		keys = append(keys, k)
	}
	return keys, nil
}

// bundleFiles are the bundles of an output folder, of a folder with statements,
// and those that are named.
func bundleFiles(args []string) ([]string, error) {
	var files []string
	for _, arg := range args {
		st, err := os.Stat(arg)
		if err != nil {
			return nil, err
		}
		if !st.IsDir() {
			files = append(files, arg)
			continue
		}
		var found []string
		for _, dir := range []string{arg, filepath.Join(arg, "statements")} {
			names, err := os.ReadDir(dir)
			if err != nil {
				continue // it is not an output folder
			}
			for _, n := range names {
				if strings.HasSuffix(n.Name(), bundleSuffix) && !strings.HasPrefix(n.Name(), ".") {
					found = append(found, filepath.Join(dir, n.Name()))
				}
			}
		}
		if len(found) == 0 {
			return nil, fmt.Errorf("%s: there is no *%s in it", arg, bundleSuffix)
		}
		files = append(files, found...)
	}
	return files, nil
}

// readBundle reads a bundle of a size that is one's.
func readBundle(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, attest.MaxBundle+1))
	if err != nil {
		return nil, err
	}
	if len(b) > attest.MaxBundle {
		return nil, fmt.Errorf("%s: more than %s, it is no bundle", name, size(attest.MaxBundle))
	}
	return b, nil
}
