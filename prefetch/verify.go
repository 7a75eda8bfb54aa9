package prefetch

import (
	"cmp"
	"context"
	"errors"
	"runtime"
	"slices"

	"golang.org/x/sync/errgroup"

	"caisson/lock"
	"caisson/lock/digest"
	"caisson/prefetch/cas"
)

// Missing lists the inputs that the store does not have, or has in another
// size. It reads no file.
func Missing(l *lock.Lock, s *cas.Store) []*lock.Input {
	reserve(l, s)
	var out []*lock.Input
	for i := range l.Inputs {
		if in := &l.Inputs[i]; !isPresent(in, s) {
			out = append(out, in)
		}
	}
	return out
}

// VerifyAll hashes the inputs that serve these sets on that machine, or all
// that serve the machine where no set is named; an empty arch is every
// machine. What is missing or damaged is in the error: one *cas.MissingError
// or *cas.DamagedError each, with the input's name, joined and in the lock's
// order.
func VerifyAll(ctx context.Context, l *lock.Lock, s *cas.Store, arch string, sets ...string) error {
	reserve(l, s)
	type one struct {
		in  *lock.Input
		err error
	}
	var all []*one
	seen := make(map[digest.Digest]bool)
	for i := range l.Inputs {
		if in := &l.Inputs[i]; serves(in, arch, sets) && !seen[in.SHA256] {
			seen[in.SHA256] = true
			all = append(all, &one{in: in})
		}
	}
	largest := slices.Clone(all)
	slices.SortStableFunc(largest, func(a, b *one) int { return cmp.Compare(b.in.Size, a.in.Size) })
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for _, o := range largest {
		if ctx.Err() != nil {
			break
		}
		g.Go(func() error {
			o.err = verify(ctx, o.in, s)
			return nil
		})
	}
	_ = g.Wait() // the errors are kept beside the inputs
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var errs []error
	for _, o := range all {
		errs = append(errs, o.err)
	}
	return errors.Join(errs...)
}

// serves tells whether the input is for one of the sets on that machine.
func serves(in *lock.Input, arch string, sets []string) bool {
	if len(in.For) == 0 {
		return true
	}
	return slices.ContainsFunc(in.For, func(u lock.Use) bool {
		return (arch == "" || u.Arch == "" || u.Arch == arch) &&
			(len(sets) == 0 || u.Set == "" || slices.Contains(sets, u.Set))
	})
}

// verify hashes one input.
func verify(ctx context.Context, in *lock.Input, s *cas.Store) error {
	err := s.Check(ctx, in.SHA256, nil)
	if size, ok := s.Size(in.SHA256); err == nil && ok && in.Size != 0 && size != in.Size {
		return &InputError{Kind: in.Kind, Name: in.Name, Err: &SizeError{Got: size, Want: in.Size}}
	}
	return named(in, err)
}

// named gives an error of the store the input's name.
func named(in *lock.Input, err error) error {
	var missing *cas.MissingError
	var damaged *cas.DamagedError
	switch {
	case errors.As(err, &missing):
		missing.Name = in.Kind + " " + in.Name
	case errors.As(err, &damaged):
		damaged.Name = in.Kind + " " + in.Name
	case err != nil:
		return &InputError{Kind: in.Kind, Name: in.Name, Err: err}
	}
	return err
}
