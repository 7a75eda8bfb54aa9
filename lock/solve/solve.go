// Package solve chooses packages: a pure function of the packages of some
// repositories and of those that are installed, of what is asked for, and of
// options. It gives the answer that dnf 4.14 gives (libsolv 0.7.23, with no
// cache of its own yet), with the reason of each package.
//
// Limits first. Nothing is repaired: what installed packages miss already, they
// may go on missing. No package is protected from going where erasing is
// allowed, and there is no limit to kernels beside each other (dnf has one, of
// three). What depends on
// the machine's language, hardware or file systems never holds. The platform
// that module streams are for is taken from the packages (base-module of the
// one that provides system-release), never from the machine. One request makes
// at most 2^23 rules, and a rich dependency of which the normal form has more
// than 2^16 literals counts as not met; beyond the first limit it is an error.
//
// Where it differs from dnf, on purpose: libsolv does not see that a
// recommendation "(a if b else c)" can ask for b, and may install b without
// what b needs, or though it is excluded. Here b comes with what it needs, or
// not at all.
//
// What no specification allows is read as libsolv reads it. A rich dependency
// that does not parse is passed over, as if it were not there. In one that does,
// an "else" without "if" or "unless" is never met, and a version is any text:
// what is not digits before a colon belongs to the version, what follows the
// last dash is the release; such a version compares like any other. Specs of
// that kind match nothing, which is a problem.
//
// The order of the packages in Repo.Packages does not matter, and the same
// question always gets the same answer. The order of the repositories decides
// between equal packages in repositories of equal priority and cost.
//
// How it chooses. A satisfiability solver that learns from conflicts decides:
// the specs in their order, groups and modules first; then that installed
// packages stay, or become what they are to become; then the dependencies that
// leave one candidate; then the others; then what is recommended or supplements
// new packages; at last it drops choices that turned out to be needless.
// Between candidates of one dependency the policy is: repository priority,
// architecture, EVR, obsoletes, recommendations; among the rest the first,
// ordered by name, newest provide, what takes the place of an installed
// package, and suggestions. Where an installed package or another version of
// it would do, nothing else is chosen.
package solve

import (
	"context"
	"fmt"
	"io"

	"caisson/lock/rpmmd"
)

// Repo is a repository: its packages and what chooses between it and others.
type Repo struct {
	ID       string
	Priority int // as dnf's: the lower number wins; 0 stands for 99
	Cost     int // as dnf's: breaks ties between equal packages; 0 stands for 1000
	// ExcludePkgs are names, NEVRA forms or globs of packages that are as if not
	// there, IncludePkgs, where there are any, of those that are alone there, as
	// dnf's excludepkgs and includepkgs have them. Problems name them.
	ExcludePkgs, IncludePkgs []string
	Packages                 []rpmmd.Package
	// Modules is modules.yaml; may be nil. What is not of an active stream is
	// hidden, in all repositories. As with dnf, hidden packages still count when
	// old versions are disliked.
	Modules        *rpmmd.Modules
	ModuleHotfixes bool         // its packages are never hidden: dnf's module_hotfixes
	Comps          *rpmmd.Comps // groups and environments; may be nil
	// Filelists opens the repository's filelists.xml, compressed or not. It is
	// called only if a path is asked for that primary.xml does not answer: once
	// for all paths in dependencies, and once for each other path of a spec.
	// nil: the repository has none.
	Filelists func() (io.ReadCloser, error)
}

// Options are what is fixed for a pool.
type Options struct {
	Arch string // the machine's: "x86_64", "aarch64" …
	// Installed are the packages of an image's rpmdb with all their paths in
	// Files: what is asked for is solved on top of them. Their order matters, as
	// for dnf, only between packages of one name.
	Installed []rpmmd.Package
	// InstallOnly are provides whose packages are installed beside each other
	// instead of replacing each other. nil stands for dnf's list (kernels).
	InstallOnly []string
}

// Request is one question.
type Request struct {
	// Specs are what dnf install accepts: a name, "name.arch", "name-version",
	// a NEVRA, a glob, a provide ("cap", "cap >= 2"), a path, "@group",
	// "@environment", or "@module", "@module:stream/profile", which enables the
	// stream and installs its default profiles or the one named. All must be met.
	// What an installed package meets brings nothing, unless Best wants better.
	Specs []string
	// Upgrade are installed packages to be updated, in the same forms, Reinstall
	// those that are to come again in the version that is installed. Specs that
	// nothing installed answers are a problem.
	Upgrade, Reinstall []string
	// AllowErasing lets installed packages go where they stand in the way.
	AllowErasing bool
	WeakDeps     bool // install what is recommended and supplemented
	Best         bool // a spec must get its best candidate, or it is a problem
	// KeepObsoleted takes a name at its word, as dnf does with obsoletes=0.
	// Otherwise a package that obsoletes the named one is a candidate too.
	KeepObsoleted bool
	// Exclude are names, NEVRA forms or globs of packages that must not be chosen.
	Exclude []string
	// EnableModules are streams ("name:stream", or "name" for the default one)
	// to be active beside the default ones, DisableModules the names of modules
	// of which no stream is to be active.
	EnableModules, DisableModules []string
	// Prefer are NEVRAs ("name-[epoch:]version-release.arch") that are chosen
	// before other candidates, even newer ones, where they meet what is asked.
	Prefer []string
}

// Solution is the chosen packages, sorted by name, EVR, architecture and
// repository.
type Solution struct {
	// Packages are those that come: new ones, other versions of installed ones,
	// and those that come again. What stays as it is is not among them.
	Packages []Choice
	// Erased are the installed packages that go, without one of the same name
	// in their place.
	Erased []*rpmmd.Package
}

// Choice is one chosen package and why it is there.
type Choice struct {
	Repo    string // the repository's ID
	Package *rpmmd.Package
	Module  string // "name:stream:version:context" where it is of an active module stream
	Reason  Reason
}

// Kind is the kind of a reason.
type Kind string

// The kinds of reasons.
const (
	Requested   Kind = "requested"   // a spec asked for it
	Requires    Kind = "requires"    // a chosen package requires it, or may only come with it
	Conflicts   Kind = "conflicts"   // a chosen package conflicts with what holds without it
	Recommends  Kind = "recommends"  // a chosen package recommends it
	Supplements Kind = "supplements" // it supplements chosen packages
	Updates     Kind = "updates"     // it takes the place of an installed package, which could not stay
)

// Reason says why a package is there. Following By from package to package
// always ends at a request or at an installed package.
type Reason struct {
	Kind Kind
	Spec string         // Requested: the spec that asked for it
	By   *rpmmd.Package // otherwise: the package that brought it; for Updates, the installed one
	Dep  string         // otherwise: the dependency: of By, or for Supplements of the package itself; none for Updates
}

// errTooLarge is for what no real repository comes near.
var errTooLarge = fmt.Errorf("the packages have more dependencies between them than %d rules can say", maxRules)

// Solve answers a request. Where it cannot be met, the error is a *Problem;
// other errors are those of reading filelists.
func (p *Pool) Solve(req Request) (*Solution, error) {
	return p.SolveContext(context.Background(), req)
}

// SolveContext is Solve, and gives up with the context's error when that is
// done. Real requests take milliseconds; there are repositories made to keep
// any solver busy.
func (p *Pool) SolveContext(ctx context.Context, req Request) (*Solution, error) {
	var more []id // packages that libsolv forgets, see strays
	for {
		s, err := p.newSolver(&req, more)
		if err != nil {
			return nil, err
		}
		s.done = ctx.Done()
		ok := s.run(req.WeakDeps)
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if s.full {
			return nil, errTooLarge
		}
		strays, err := s.strays()
		switch {
		case err != nil:
			return nil, err
		case ok && len(strays) > 0:
			more = append(more, strays...)
			p.spare = s
			continue
		}
		p.spare = s
		if !ok {
			return nil, s.problem()
		}
		return s.solution(), nil
	}
}
