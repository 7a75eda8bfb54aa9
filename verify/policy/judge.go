package policy

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"caisson/build"
	"caisson/lock"
	"caisson/lock/digest"
	"caisson/verify"
)

// Facts are what a policy is held against, beside the findings of the
// verification.
type Facts struct {
	Lock          *lock.Lock
	Arch, Variant string
	Now           time.Time
	// Advisories are those of the lock's repositories; nil where they cannot be read.
	Advisories *lock.AdvisoryIndex
	// License is what the header of a package declares; nil where headers cannot be
	// read.
	License func(*lock.Input) (string, error)
	// Signer tells whether the key that the verdict will be signed by is one of
	// Verifiers; nil where it is not signed.
	Signer func() bool
	// Builder is the name of the one of Builders that signed the provenance of the
	// image, of that lock.
	Builder func(image, lock digest.Digest) (string, error)
	// Exceptions are those of the file, Unsigned why none of them counts.
	Exceptions []verify.Exception
	Unsigned   error
}

// finding is something that a rule does not like.
type finding struct {
	about   string // what an exception's Match is compared with
	text    string
	unknown bool // it could not be checked
}

// rule is what came of a rule.
type rule struct {
	name     string
	passed   string // what to say where there are no findings
	mend     string // what to do about those that there are
	findings []finding
}

func (r *rule) find(about, format string, args ...any) {
	r.findings = append(r.findings, finding{about: about, text: fmt.Sprintf(format, args...)})
}

func (r *rule) unknown(about, format string, args ...any) {
	r.findings = append(r.findings, finding{about: about, text: fmt.Sprintf(format, args...), unknown: true})
}

// judge is one run of Judge.
type judge struct {
	*Policy
	Facts
	verify.Findings
	current []verify.Exception
	used    []verify.Exception
}

// Judge holds an image against the policy: a check for each of its rules.
func (p *Policy) Judge(facts Facts, found verify.Findings) verify.Judgement {
	j := &judge{Policy: p, Facts: facts, Findings: found}
	var checks []verify.Check
	if p.Exceptions != nil {
		checks = append(checks, j.check(j.exceptions()))
	}
	for _, r := range []struct {
		asked bool
		rule  func() *rule
	}{
		{len(p.RPM.Keys) > 0, j.keys},
		{len(p.RPM.Repos) > 0, j.repos},
		{len(p.RPM.Licenses.Allow)+len(p.RPM.Licenses.Deny) > 0, j.licenses},
		{true, j.variant},
		{p.Lock.MaxAge != "", j.age},
		{len(p.Advisories.Deny) > 0, j.advisories},
		{p.Evidence.Network != "", j.network},
		{p.Evidence.SharedProc != "", j.sharedProc},
		{p.Require.Boot, j.boot},
		{len(p.Builders) > 0, j.builder},
		{len(p.Verifiers) > 0 && facts.Signer != nil, j.verifier},
	} {
		if r.asked {
			checks = append(checks, j.check(r.rule()))
		}
	}
	return verify.Judgement{Checks: checks, Exceptions: j.used}
}

// maxFindings is how many findings of a rule are named.
const maxFindings = 10

// check is a rule's check, after the exceptions from it.
func (j *judge) check(r *rule) verify.Check {
	c := verify.Check{Name: "policy: " + r.name, Status: verify.Passed, Detail: r.passed}
	var left []string
	excepted := map[string]bool{}
	for _, f := range r.findings {
		if e := j.except(r.name, f.about); e != nil {
			excepted[fmt.Sprintf("%s: excepted by %s until %s", f.about, e.Who, e.Until)] = true
			continue
		}
		left = append(left, f.text)
		switch {
		case !f.unknown:
			c.Status = verify.Refused
		case c.Status == verify.Passed:
			c.Status = verify.NotChecked
		}
	}
	if n := len(left); n > 0 {
		c.Detail = strings.Join(left[:min(n, maxFindings)], "; ")
		if n > maxFindings {
			c.Detail += fmt.Sprintf("; and %d more", n-maxFindings)
		}
		if r.mend != "" {
			c.Detail += "; to mend it, " + r.mend
		}
	}
	for _, s := range sorted(excepted) {
		c.Detail += "; " + s
	}
	return c
}

func sorted(m map[string]bool) []string {
	var out []string
	for s := range m {
		out = append(out, s)
	}
	slices.Sort(out)
	return out
}

// except is the exception for a finding, or nil.
func (j *judge) except(name, about string) *verify.Exception {
	for i := range j.current {
		e := &j.current[i]
		if e.Rule == name && matches(e.Match, about) {
			if !slices.Contains(j.used, *e) {
				j.used = append(j.used, *e)
			}
			return e
		}
	}
	return nil
}

// exceptions refuses what is not signed, and what is past its last day.
func (j *judge) exceptions() *rule {
	r := &rule{name: "exceptions", mend: "have the file of exceptions looked at and signed again by one of the keys that the policy names"}
	if j.Unsigned != nil {
		r.find("", "%v", j.Unsigned)
		return r
	}
	if made, what := j.made(); j.Now.Before(made) {
		// By a clock that is slow, what has ended would still hold.
		r.unknown("", "whether they still hold cannot be told: %s is of %s, and the clock says %s", what, made.Format(time.DateOnly), j.Now.UTC().Format(time.DateOnly))
		return r
	}
	current, expired := Current(j.Facts.Exceptions, j.Now)
	for _, e := range expired {
		r.find("", "the exception of %s for %s %s ended on %s", e.Who, e.Rule+e.Function, e.Match, e.Until)
	}
	j.current = current
	r.passed = fmt.Sprintf("%d, each signed and within its time", len(current))
	return r
}

// packages are the packages that the image is made of.
func (j *judge) packages() []*lock.Input {
	return slices.DeleteFunc(build.Inputs(j.Facts.Lock, j.Arch, j.Variant), func(in *lock.Input) bool { return in.RPM == nil })
}

// used are the repositories of the packages.
func (j *judge) usedRepos() []*lock.Repo {
	var out []*lock.Repo
	for i := range j.Facts.Lock.Repos {
		r := &j.Facts.Lock.Repos[i]
		if r.Arch == j.Arch && slices.ContainsFunc(j.packages(), func(in *lock.Input) bool { return in.Repo == r.ID }) {
			out = append(out, r)
		}
	}
	return out
}

func (j *judge) keys() *rule {
	packages := j.packages()
	r := &rule{name: ruleKeys, passed: fmt.Sprintf("%d packages, each signed by a key that is allowed", len(packages)), mend: "take the packages from repositories whose gpgkey is one of rpm.keys, and lock again"}
	for _, in := range packages {
		if !in.RPM.Signed {
			r.find(in.Name, "%s need not be signed", in.Name)
		}
	}
	known := map[string]bool{}
	for _, repo := range j.usedRepos() {
		known[repo.ID] = true
		if len(repo.Keys) == 0 {
			r.find(repo.ID, "repository %s trusts no key", repo.ID)
		}
		for _, k := range repo.Keys {
			if !slices.Contains(j.RPM.Keys, strings.ToUpper(k)) {
				r.find(repo.ID, "repository %s trusts the key %s, which is not allowed", repo.ID, k)
			}
		}
	}
	for _, in := range packages {
		if !known[in.Repo] {
			r.find(in.Name, "%s is of the repository %q, which the lock does not have", in.Name, in.Repo)
		}
	}
	return r
}

func (j *judge) repos() *rule {
	repos := j.usedRepos()
	r := &rule{name: ruleRepos, passed: fmt.Sprintf("%d, each allowed and with gpgcheck", len(repos)), mend: "lock from a repository of rpm.repos, with gpgcheck"}
	for _, repo := range repos {
		ok := slices.ContainsFunc(j.RPM.Repos, func(p string) bool { return matches(p, repo.BaseURL) })
		if !ok || slices.ContainsFunc(strings.Split(repo.BaseURL, "/"), func(s string) bool { return s == ".." || s == "." }) {
			r.find(repo.ID, "repository %s at %s is not allowed", repo.ID, repo.BaseURL)
		}
		if !repo.GPGCheck {
			r.find(repo.ID, "repository %s has no gpgcheck", repo.ID)
		}
	}
	return r
}

func (j *judge) variant() *rule {
	r := &rule{name: "variant", passed: "the image itself", mend: "name it in variants of the policy, or verify the image itself"}
	if j.Variant != "" {
		r.passed = j.Variant + " is allowed"
		if !slices.Contains(j.Variants, j.Variant) {
			r.find("", "the variant %q is not allowed", j.Variant)
		}
	}
	return r
}

// made is when the newest package was, or the epoch where there is none.
func (j *judge) made() (at time.Time, what string) {
	newest, what := int64(0), "its newest package"
	for _, in := range j.packages() {
		newest = max(newest, in.RPM.BuildTime)
	}
	if newest == 0 {
		newest, what = j.Facts.Lock.Epoch, "its epoch"
	}
	return time.Unix(newest, 0).UTC(), what
}

// age is that of the newest package, or of the epoch where there is none.
func (j *judge) age() *rule {
	r := &rule{name: ruleAge, mend: "run `caisson lock --update` and build again, on a machine whose clock is right"}
	limit, err := parseAge(j.Policy.Lock.MaxAge)
	if err != nil {
		r.unknown("", "%v", err)
		return r
	}
	made, what := j.made()
	days := int(j.Now.Sub(made).Hours() / 24)
	switch {
	case j.Now.Before(made):
		r.unknown("", "%s is of %s, and the clock says %s", what, made.Format(time.DateOnly), j.Now.UTC().Format(time.DateOnly))
	case j.Now.Sub(made) > limit:
		r.find(j.Facts.Lock.Name, "%s is of %s, %d days ago; at most %s are allowed", what, made.Format(time.DateOnly), days, j.Policy.Lock.MaxAge)
	default:
		r.passed = fmt.Sprintf("%s is of %s, %d days ago", what, made.Format(time.DateOnly), days)
	}
	return r
}

func (j *judge) advisories() *rule {
	r := &rule{name: ruleAdvisories, passed: "none of " + strings.Join(j.Policy.Advisories.Deny, ", ") + " is open, by the lock's metadata", mend: "run `caisson lock --update` and build again, or have an exception signed"}
	if j.Facts.Advisories == nil {
		r.unknown("", "no advisories can be read: the lock's repositories have none, or the store does not")
		return r
	}
	for _, repo := range j.usedRepos() {
		if j.Facts.Lock.Find(lock.KindRepodata, path.Join(repo.ID+"-"+repo.Arch, "updateinfo")) == nil {
			r.unknown(repo.ID, "repository %s has no advisories", repo.ID)
		}
	}
	for _, in := range j.packages() {
		for _, a := range j.Facts.Advisories.Open(in.RPM) {
			if slices.ContainsFunc(j.Policy.Advisories.Deny, func(s string) bool { return strings.EqualFold(s, a.Severity) }) {
				r.find(a.ID, "%s (%s) is open for %s", a.ID, a.Severity, in.Name)
			}
		}
	}
	return r
}

// eachStep calls f with every step of the evidence that there is.
func (j *judge) eachStep(r *rule, f func(who string, ev *build.Evidence)) {
	if j.Claimed == nil && j.Seen == nil {
		r.unknown("", "there is no evidence, neither the builder's nor of a rebuild")
		return
	}
	if j.Claimed != nil {
		f("the builder's", j.Claimed)
	}
	if j.Seen != nil {
		f("the rebuild's", j.Seen)
	}
}

func (j *judge) network() *rule {
	r := &rule{name: "network", passed: "no step tried to reach one", mend: "make what the step fetches an input of the lock"}
	j.eachStep(r, func(who string, ev *build.Evidence) {
		for i := range ev.Steps {
			if a := ev.Steps[i].NetworkAttempts(); len(a) > 0 {
				r.find("", "%s step %q: %s tried to reach %s", who, ev.Steps[i].Step, a[0].Exe, a[0].Destination)
			}
		}
	})
	return r
}

func (j *judge) sharedProc() *rule {
	r := &rule{name: "shared /proc", passed: "every step had a /proc of its own", mend: "build and verify where /proc is not covered: not in a container, or in one that does not mask it"}
	j.eachStep(r, func(who string, ev *build.Evidence) {
		for i := range ev.Steps {
			if ev.Steps[i].Volatile.SharedProc {
				r.find("", "%s step %q saw the /proc of a container", who, ev.Steps[i].Step)
			}
		}
	})
	return r
}

func (j *judge) boot() *rule {
	r := &rule{name: "boot", passed: "it was booted", mend: "verify with --boot"}
	if j.Report.IsArchive() {
		r.mend = "hold archives, which no machine boots, against a policy of their own that does not require it"
	}
	if !slices.ContainsFunc(j.Report.Checks, func(c verify.Check) bool { return c.Name == "boot" && c.Status == verify.Passed }) {
		r.find("", "the verdict has to rest on a boot, and there was none that passed")
	}
	return r
}

func (j *judge) builder() *rule {
	r := &rule{name: "builder", mend: "have it signed by one of the builders of the policy: `caisson attest --key`"}
	by, err := j.Builder(j.Report.Image.SHA256, j.Report.Lock)
	if err != nil {
		r.find("", "the provenance: %v", err)
	}
	r.passed = "the provenance is signed by " + by
	return r
}

func (j *judge) verifier() *rule {
	r := &rule{name: "verifier", passed: "the key of this verdict is one of those allowed", mend: "sign with the key of one of the verifiers of the policy"}
	if !j.Signer() {
		r.find("", "the key of this verdict is not one of those allowed")
	}
	return r
}
