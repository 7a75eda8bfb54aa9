package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"caisson/attest"
	"caisson/attest/sign"
	"caisson/lock"
	"caisson/lock/digest"
	"caisson/verify"
	"caisson/verify/policy"
)

// gate is a policy and the files that it names.
type gate struct {
	*policy.Policy
	dir        string
	file       verify.PolicyFile
	verifiers  []attest.Key
	builders   []attest.Key
	exceptions []verify.Exception
	unsigned   error // why none of the exceptions counts
}

// openGate reads a policy and what it names.
func openGate(name string) (*gate, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("reading the policy: %w", err)
	}
	p, err := policy.Parse(name, b)
	if err != nil {
		return nil, err
	}
	g := &gate{Policy: p, dir: filepath.Dir(name), file: verify.PolicyFile{Name: filepath.Base(name), SHA256: digest.Of(b)}}
	if g.verifiers, err = readKeys(g.paths(p.Verifiers)); err != nil {
		return nil, err
	}
	if g.builders, err = readKeys(g.paths(p.Builders)); err != nil {
		return nil, err
	}
	if p.Exceptions != nil {
		return g, g.readExceptions()
	}
	return g, nil
}

// paths are paths of the policy, seen from here.
func (g *gate) paths(names []string) []string {
	var out []string
	for _, n := range names {
		if !filepath.IsAbs(n) {
			n = filepath.Join(g.dir, n)
		}
		out = append(out, n)
	}
	return out
}

// readExceptions reads the exceptions, and says why they do not count where no
// key that the policy names has signed them. They are not parsed before that.
func (g *gate) readExceptions() error {
	files := g.paths([]string{g.Exceptions.File, g.Exceptions.Signature})
	keys, err := readKeys(g.paths(g.Exceptions.Keys))
	if err != nil {
		return err
	}
	b, err := os.ReadFile(files[0])
	if err != nil {
		return fmt.Errorf("reading the exceptions: %w", err)
	}
	sig, err := os.ReadFile(files[1])
	if err != nil {
		g.unsigned = fmt.Errorf("%s is not signed: %w", files[0], cause(err))
		return nil
	}
	for _, k := range keys {
		if err = sign.VerifyBlob(b, sig, k.PEM); err == nil {
			g.exceptions, err = policy.ParseExceptions(files[0], b)
			return err
		}
	}
	g.unsigned = fmt.Errorf("%s is not signed by a key that the policy names: %w", files[0], err)
	return nil
}

// rest adds to a verification what its verdict rests on beside the image: the
// statements of others, and a policy.
func (o *verifyOptions) rest(ui *ui, l *lock.Lock, image string, opts *verify.Options) error {
	trusted, err := readKeys(o.trust)
	if err != nil {
		return err
	}
	want := o.rebuilders
	if o.policy != "" {
		g, err := openGate(o.policy)
		if err != nil {
			return err
		}
		if trusted, err = g.trusted(trusted); err != nil {
			return err
		}
		want = max(want, g.Require.Rebuilders)
		opts.Policy = &g.file
		opts.Allowed = g.functions(time.Now())
		opts.Judge = func(found verify.Findings) verify.Judgement {
			return g.Judge(o.facts(ui, g, l, image, opts), found)
		}
	}
	if want == 0 {
		if o.noRebuild {
			return usageError{errors.New("--no-rebuild leaves nothing that the verdict could rest on: name --rebuilders, or have the policy require them")}
		}
		return nil
	}
	if len(trusted) == 0 {
		return usageError{errors.New("--rebuilders wants to know whom to believe: --trust PUB, or verifiers in the policy")}
	}
	own := ""
	if o.key != "" {
		own = o.signer.Hint()
	}
	opinions, err := o.opinions(trusted, own)
	opts.Rebuilders = &verify.Rebuilders{Want: want, Opinions: opinions}
	return err
}

// trusted are the keys of those who are believed: where the policy names
// verifiers, the command line can name no others.
func (g *gate) trusted(given []attest.Key) ([]attest.Key, error) {
	if len(g.verifiers) == 0 {
		return given, nil
	}
	for _, k := range given {
		if !slices.ContainsFunc(g.verifiers, func(v attest.Key) bool { return v.Hint() == k.Hint() }) {
			return nil, usageError{fmt.Errorf("--trust %s: it is not among the verifiers of the policy", k.Name)}
		}
	}
	return g.verifiers, nil
}

// functions are the exceptions that hold now and name a function, which is
// applied to both sides of the comparison.
func (g *gate) functions(now time.Time) []verify.Exception {
	current, _ := policy.Current(g.exceptions, now)
	return slices.DeleteFunc(current, func(e verify.Exception) bool { return e.Function == "" })
}

// facts are what the policy is held against.
func (o *verifyOptions) facts(ui *ui, g *gate, l *lock.Lock, image string, opts *verify.Options) policy.Facts {
	f := policy.Facts{
		Lock: l, Arch: opts.Arch, Variant: opts.Variant, Now: time.Now(), Exceptions: g.exceptions, Unsigned: g.unsigned,
		Builder: func(about, lockDigest digest.Digest) (string, error) {
			b, err := readBundle(filepath.Join(filepath.Dir(image), "statements", "provenance"+bundleSuffix))
			if err != nil {
				return "", err
			}
			return attest.Builder(b, g.builders, about, lockDigest)
		},
	}
	if len(g.Advisories.Deny) > 0 {
		f.Advisories = o.advisories(ui, l)
	}
	if opts.Store != nil {
		f.License = attest.License(opts.Store)
	}
	if o.key != "" {
		f.Signer = func() bool {
			return slices.ContainsFunc(g.verifiers, func(k attest.Key) bool { return k.Hint() == o.signer.Hint() })
		}
	}
	return f
}

// shownExceptions are the exceptions of a report, for people.
func shownExceptions(ui *ui, r *verify.Report) {
	for _, e := range r.Exceptions {
		ui.print("  exception: %s %s, by %s until %s: %s", strings.TrimSpace(e.Rule+e.Function), e.Match, e.Who, e.Until, e.Why)
	}
}
