// Package solve chooses packages: a pure function of the packages of some
// repositories, of what is asked for, and of options. It gives the answer that
// dnf 4.14 gives (libsolv 0.7.23, nothing installed yet), with the reason of
// each package.
//
// Limits first. Nothing is ever installed already, so there are no updates,
// downgrades or removals. locale() never holds. The platform that module
// streams are for is taken from the packages (base-module of the one that
// provides system-release), never from the machine.
//
// The order of the packages in Repo.Packages does not matter, and the same
// question always gets the same answer. The order of the repositories decides
// between equal packages in repositories of equal priority and cost.
//
// How it chooses. A satisfiability solver that learns from conflicts decides:
// the specs in their order; then the dependencies that leave one candidate;
// then the others; then what is recommended or supplements; at last it drops
// choices that turned out to be needless. Between candidates of one
// dependency the policy is: repository priority, architecture, EVR, obsoletes,
// recommendations; among the rest the first, ordered by name, newest provide,
// and suggestions.
package solve

import (
	"io"

	"caisson/lock/rpmmd"
)

// Repo is a repository: its packages and what chooses between it and others.
type Repo struct {
	ID       string
	Priority int // as dnf's: the lower number wins; 0 stands for 99
	Cost     int // as dnf's: breaks ties between equal packages; 0 stands for 1000
	Packages []rpmmd.Package
	// Modules is modules.yaml; may be nil. What is not of an active stream is
	// hidden, in all repositories. As with dnf, hidden packages still count when
	// old versions are disliked.
	Modules *rpmmd.Modules
	// ExcludePkgs and IncludePkgs are dnf's excludepkgs and includepkgs: names,
	// NEVRA forms or globs.
	ExcludePkgs, IncludePkgs []string
	ModuleHotfixes           bool         // its packages are never hidden: dnf's module_hotfixes
	Comps                    *rpmmd.Comps // groups and environments; may be nil
	// Filelists opens the repository's filelists.xml, compressed or not. It is
	// called only if a path is asked for that primary.xml does not answer: once
	// for all paths in dependencies, and once for each other path of a spec.
	// nil: the repository has none.
	Filelists func() (io.ReadCloser, error)
}

// Options are what is fixed for a pool.
type Options struct {
	Arch string // the machine's: "x86_64", "aarch64" …
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
	Specs    []string
	WeakDeps bool // install what is recommended and supplemented
	Best     bool // a spec must get its best candidate, or it is a problem
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
	Packages []Choice
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
	Requires    Kind = "requires"    // a chosen package requires it
	Recommends  Kind = "recommends"  // a chosen package recommends it
	Supplements Kind = "supplements" // it supplements chosen packages
)

// Reason says why a package is there. Following By from package to package
// always ends at a request.
type Reason struct {
	Kind Kind
	Spec string         // Requested: the spec that asked for it
	By   *rpmmd.Package // otherwise: the package that brought it
	Dep  string         // otherwise: the dependency: of By, or for Supplements of the package itself
}

// Solve answers a request. Where it cannot be met, the error is a *Problem;
// other errors are those of reading filelists.
func (p *Pool) Solve(req Request) (*Solution, error) {
	s, err := p.newSolver(&req)
	if err != nil {
		return nil, err
	}
	defer func() { p.spare = s }()
	if !s.run(req.WeakDeps) {
		return nil, s.problem()
	}
	return s.solution(), nil
}
