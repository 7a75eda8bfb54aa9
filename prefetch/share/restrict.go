package share

import (
	"cmp"
	"fmt"
	"slices"

	"caisson/lock"
	"caisson/lock/digest"
	"caisson/prefetch"
	"caisson/prefetch/cas"
)

// RestrictedAll is the name, in Options.Restricted, that stands for all.
const RestrictedAll = "all"

// NameError says that nothing of the lock that is restricted is called so.
type NameError struct{ Name string }

func (e *NameError) Error() string {
	return fmt.Sprintf("the lock has nothing that was fetched with a login and is called %q: want a repository's id, an input's name or %q", e.Name, RestrictedAll)
}

// Left is a file that is left out: an input that says so, and by what it was
// logged in for, in words.
type Left struct {
	*lock.Input
	By string
}

// restrictions are the files of a lock that may not be passed on, each with
// the inputs that say so: what the lock has a login for, and what came into
// the store by one.
func restrictions(l *lock.Lock, s *cas.Store) map[digest.Digest][]Left {
	repos, isos := make(map[string]string), make(map[string]string)
	for i := range l.Inputs {
		if in := &l.Inputs[i]; in.Kind == lock.KindFile {
			isos[in.Name] = loginOf(in.Auth, in, s)
		}
	}
	for i := range l.Repos {
		r := &l.Repos[i]
		by := loginOf(r.Auth, nil, s)
		if r.ISO != "" {
			by = cmp.Or(by, isos[r.ISO])
		}
		repos[r.ID] = cmp.Or(repos[r.ID], by)
	}
	out := make(map[digest.Digest][]Left)
	for i := range l.Inputs {
		in := &l.Inputs[i]
		if by := cmp.Or(repos[in.Repo], loginOf(in.Auth, in, s)); by != "" {
			out[in.SHA256] = append(out[in.SHA256], Left{in, by})
		}
	}
	return out
}

// loginOf is by what is logged in with an Auth, or was for an input.
func loginOf(a *lock.Auth, in *lock.Input, s *cas.Store) string {
	switch {
	case prefetch.Restricts(a):
		return "the lock's login"
	case in != nil:
		return prefetch.LoginOf(s, in.SHA256)
	}
	return ""
}

// chosen is what Push does with the files of a lock.
type chosen struct {
	send  []*lock.Input
	login map[digest.Digest]string // by what those of send were logged in for that are restricted
	leave []Left
}

// choose parts the files of a lock into those that are sent and those that are
// not. names are those that are sent all the same. A file that serves several
// inputs is not sent where one of them is restricted, and is sent where one of
// those is named.
func choose(l *lock.Lock, s *cas.Store, names []string) (chosen, error) {
	restricted := restrictions(l, s)
	for _, n := range names {
		if n != RestrictedAll && !anyCalled(restricted, n) {
			return chosen{}, &NameError{n}
		}
	}
	asked := func(in Left) bool {
		return slices.ContainsFunc(names, func(n string) bool { return called(in.Input, n) })
	}
	c := chosen{login: make(map[digest.Digest]string)}
	for _, in := range files(l) {
		by := restricted[in.SHA256]
		switch {
		case len(by) == 0:
			c.send = append(c.send, in)
		case slices.Contains(names, RestrictedAll), slices.ContainsFunc(by, asked):
			c.send = append(c.send, in)
			c.login[in.SHA256] = by[0].By
		default:
			c.leave = append(c.leave, by[0])
		}
	}
	return c, nil
}

// called tells whether a name is that of an input, or of its repository.
func called(in *lock.Input, name string) bool {
	return in.Name == name || in.Repo != "" && in.Repo == name
}

// anyCalled tells whether a name is that of something restricted.
func anyCalled(restricted map[digest.Digest][]Left, name string) bool {
	for _, by := range restricted {
		for _, in := range by {
			if called(in.Input, name) {
				return true
			}
		}
	}
	return false
}
