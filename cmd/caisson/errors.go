package main

import (
	"errors"
	"io/fs"
	"strings"

	"caisson/attest"
	"caisson/attest/sign"
	"caisson/build"
	"caisson/lock"
	"caisson/lock/solve"
	"caisson/prefetch"
	"caisson/prefetch/cas"
	"caisson/verify/boot"
)

// Exit codes, fixed for scripts and CI.
const (
	exitOK          = 0
	exitError       = 1
	exitUsage       = 2
	exitDifferent   = 3 // not reproducible, or measured otherwise than predicted
	exitMissing     = 4 // an input is missing from the store, or damaged
	exitRefused     = 5 // a signature or a policy says no
	exitLock        = 6 // the lock does not answer the manifest
	exitNotVerified = 7 // something that the verdict rests on could not be checked
	exitInterrupted = 130
)

// usageError is a wrong command line.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// codeError is an error with an exit code and a hint of its own.
type codeError struct {
	error
	code int
	hint string
}

func (e *codeError) Unwrap() error { return e.error }

// quietError has been told already: only its exit code matters.
type quietError struct{ code int }

func (e *quietError) Error() string { return "" }

// classify is the one place where an error becomes an exit code and a hint of
// what to do about it.
func classify(err error) (code int, hint string) {
	var (
		quiet *quietError
		coded *codeError
		kept  *build.KeptError
	)
	switch {
	case errors.As(err, &quiet):
		return quiet.code, ""
	case errors.As(err, &coded):
		return coded.code, coded.hint
	case errors.As(err, new(usageError)):
		return exitUsage, ""
	}
	code, hint = classifyInput(err)
	switch {
	case errors.As(err, &kept):
		hint = strings.TrimPrefix(hint+"; the working folder was kept: "+kept.Dir, "; ")
		if kept.Step != "" {
			hint += "; `caisson sandbox " + quote([]string{kept.Dir}) + "` opens a shell in the sandbox of " + kept.Step
		}
	case code == exitError && hint == "" && errors.Is(err, fs.ErrPermission):
		hint = "check who owns the file or folder"
	}
	return code, hint
}

// classifyInput is classify for the errors of the five stages.
func classifyInput(err error) (code int, hint string) {
	var noBoot *boot.MissingError
	switch {
	case errors.As(err, new(*prefetch.SignatureError)):
		return exitRefused, "the package is not signed as its repository's gpgkey says; do not switch gpgcheck off to get round it"
	case errors.As(err, new(*lock.GitSignatureError)):
		return exitRefused, "the repository is not signed as its verify in the manifest says"
	case errors.As(err, new(*build.NetworkError)):
		return exitRefused, "what a step needs has to be an input of the lock"
	case errors.Is(err, sign.ErrSignature), errors.Is(err, lock.ErrSignature):
		return exitRefused, ""
	case errors.As(err, new(*prefetch.NoSpaceError)):
		return exitError, "make room there, or name another store with --store; `caisson store gc` removes what no lock needs"
	case errors.As(err, new(*build.NoSpaceError)):
		return exitError, "make room there, or name another folder with --out; --any-space builds all the same"
	case errors.As(err, new(*prefetch.TreeChangedError)):
		return exitLock, "run `caisson lock` to pin the folder as it is now"
	case errors.Is(err, attest.ErrLock):
		return exitLock, "give the lock that the image was built from, or build again"
	case errors.As(err, new(*cas.DamagedError)):
		return exitMissing, "run `caisson prefetch --verify` with this lock and store: it replaces what is damaged"
	case errors.As(err, new(*cas.MissingError)):
		return exitMissing, "run `caisson prefetch` with this lock and store"
	case errors.Is(err, attest.ErrFolder):
		return exitError, "build and verify again, then attest"
	case errors.As(err, &noBoot):
		return exitNotVerified, "install " + noBoot.Package
	}
	return exitError, ""
}

// text is an error for people: why there is no solution is a tree, a line
// each.
func text(err error) string {
	s := err.Error()
	var problem *solve.Problem
	if errors.As(err, &problem) {
		lines := "no solution:\n" + strings.Join(problem.Lines, "\n")
		s = strings.Replace(s, problem.Error(), lines, 1)
	}
	return strings.TrimRight(s, "\n")
}
