package share

import (
	"fmt"
	"slices"

	"caisson/lock"
	"caisson/lock/digest"
)

// RestrictedAll is the name, in Options.Restricted, that stands for all.
const RestrictedAll = "all"

// NameError says that nothing of the lock that is restricted is called so.
type NameError struct{ Name string }

func (e *NameError) Error() string {
	return fmt.Sprintf("the lock has nothing that was fetched with a login and is called %q: want a repository's id, an input's name or %q", e.Name, RestrictedAll)
}

// restrictions are the files of a lock that may not be passed on, each with
// the inputs that say so.
func restrictions(l *lock.Lock) map[digest.Digest][]*lock.Input {
	repos, isos := make(map[string]bool), make(map[string]bool)
	for i := range l.Inputs {
		if in := &l.Inputs[i]; in.Kind == lock.KindFile && login(in.Auth) {
			isos[in.Name] = true
		}
	}
	for i := range l.Repos {
		if r := &l.Repos[i]; login(r.Auth) || r.ISO != "" && isos[r.ISO] {
			repos[r.ID] = true
		}
	}
	out := make(map[digest.Digest][]*lock.Input)
	for i := range l.Inputs {
		if in := &l.Inputs[i]; login(in.Auth) || in.Repo != "" && repos[in.Repo] {
			out[in.SHA256] = append(out[in.SHA256], in)
		}
	}
	return out
}

// login tells whether an Auth says who asks. A proxy says how to get there
// and a CA whom to believe: neither restricts what comes.
func login(a *lock.Auth) bool {
	return a != nil && (a.Basic != nil || a.Bearer != nil || a.OfflineToken != nil || a.TLS != nil && a.TLS.Cert != "")
}

// split parts the files of a lock into those that are sent and those that are
// not. names are those that are sent all the same. A file that serves several
// inputs is not sent where one of them is restricted, and is sent where one of
// those is named.
func split(l *lock.Lock, names []string) (send, leave []*lock.Input, err error) {
	restricted := restrictions(l)
	for _, n := range names {
		if n != RestrictedAll && !anyCalled(restricted, n) {
			return nil, nil, &NameError{n}
		}
	}
	asked := func(in *lock.Input) bool {
		return slices.ContainsFunc(names, func(n string) bool { return called(in, n) })
	}
	for _, in := range files(l) {
		by := restricted[in.SHA256]
		if len(by) == 0 || slices.Contains(names, RestrictedAll) || slices.ContainsFunc(by, asked) {
			send = append(send, in)
		} else {
			leave = append(leave, by[0])
		}
	}
	return send, leave, nil
}

// called tells whether a name is that of an input, or of its repository.
func called(in *lock.Input, name string) bool {
	return in.Name == name || in.Repo != "" && in.Repo == name
}

// anyCalled tells whether a name is that of something restricted.
func anyCalled(restricted map[digest.Digest][]*lock.Input, name string) bool {
	for _, by := range restricted {
		for _, in := range by {
			if called(in, name) {
				return true
			}
		}
	}
	return false
}
