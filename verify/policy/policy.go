// Package policy holds an image against the rules of a file, for CI to use as
// a gate.
//
// Limits first. Licences are those that the packages' own headers declare, of root and
// initrd: Go modules and crates are not looked at, nor are licence texts. A package's signature is known as "by one of the keys of its
// repository", so all keys of a repository have to be allowed. Advisories are
// as fresh as the lock's metadata: an old lock shows none that came later, so
// bound its age as well.
//
// # The policy
//
// YAML, strict: an unknown key is an error. Paths are relative to the file. A
// rule that is not there is not asked, one that is empty is an error; but images of variants are refused
// unless the policy names them.
//
//	version: 1
//	rpm:
//	  keys: [FINGERPRINT, …]              # whole fingerprints; every package signed, by a repository that trusts these alone
//	  licenses: {allow: [MIT, "GPL-2.0-*"], deny: ["AGPL-*"]}  # SPDX, as package lock/license reads a header; of alternatives one has to pass
//	  repos: ["https://mirror.example/**"]  # of baseurl; ? and * stop at a slash, ** does not. Each needs gpgcheck
//	variants: [debug]                     # allowed beside the image itself
//	lock: {maxAge: 90d}                   # of the newest package, else of the epoch; d and h
//	advisories: {deny: [Critical, Important]}  # severities of which nothing may be open for a locked package
//	evidence: {network: none, sharedProc: deny}  # no attempt at all, even where the lock records them; every step had its own /proc
//	require: {boot: true, rebuilders: 2}  # what the verdict has to rest on
//	builders: [builder.pub]               # one of these signed the provenance beside the image
//	verifiers: [verifier.pub]             # these sign verdicts: rebuilders', and that of --key
//	exceptions: {file: exceptions.yaml, signature: exceptions.yaml.sig, keys: [security.pub]}
//
// # Exceptions
//
// A file of product security's own, signed by a key that the policy names
// (cosign sign-blob; the signature alone, or a bundle). One that is not signed
// so, or has an exception past its last day, refuses the image.
//
//	version: 1
//	exceptions:
//	  - rule: advisories                  # or rpm keys, repositories, licenses, lock age
//	    match: "RHSA-2026:*"              # of what the finding is about, as the report has it
//	    who: jane@example.com
//	    why: not reachable in this image
//	    until: 2026-12-31                 # the last day, in UTC
//	  - function: secure-boot-signature   # applied to both sides before the disks are compared
//	    match: esp:/EFI/BOOT/BOOTX64.EFI  # this file alone
//	    certificate: SHA-256              # signed with this certificate (openssl x509 -fingerprint -sha256) and no other; any where it is left out
//	    …
//
// Exceptions with a function make the verdict "equivalent" at best.
package policy

import (
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"caisson/lock"
)

// Version is the version of both formats.
const Version = 1

// Policy is a policy file.
type Policy struct {
	Version    int              `yaml:"version"`
	RPM        RPM              `yaml:"rpm"`
	Variants   []string         `yaml:"variants"`
	Lock       Age              `yaml:"lock"`
	Advisories Advisories       `yaml:"advisories"`
	Evidence   Evidence         `yaml:"evidence"`
	Require    Require          `yaml:"require"`
	Builders   []string         `yaml:"builders"`
	Verifiers  []string         `yaml:"verifiers"`
	Exceptions *ExceptionSource `yaml:"exceptions"`
}

// RPM says where packages may come from.
type RPM struct {
	Keys     []string `yaml:"keys"`
	Repos    []string `yaml:"repos"`
	Licenses Licenses `yaml:"licenses"`
}

// Licenses are patterns of SPDX licences, such as "GPL-2.0-*" and "GPL-2.0-only
// WITH Linux-syscall-note". With Allow each has to be one of these; none may be one
// of Deny.
type Licenses struct {
	Allow []string `yaml:"allow"`
	Deny  []string `yaml:"deny"`
}

// Age bounds the lock's.
type Age struct {
	MaxAge string `yaml:"maxAge"`
}

// Advisories are severities, as updateinfo writes them.
type Advisories struct {
	Deny []string `yaml:"deny"`
}

// Evidence is about what the sandboxes recorded.
type Evidence struct {
	Network    string `yaml:"network"`    // "none" or empty
	SharedProc string `yaml:"sharedProc"` // "deny" or empty
}

// Require is what the verdict has to rest on beside the rebuild.
type Require struct {
	Boot       bool `yaml:"boot"`
	Rebuilders int  `yaml:"rebuilders"`
}

// ExceptionSource is where the exceptions are and who may sign them.
type ExceptionSource struct {
	File      string   `yaml:"file"`
	Signature string   `yaml:"signature"`
	Keys      []string `yaml:"keys"`
}

// Parse reads a policy. name is how errors call the file.
func Parse(name string, b []byte) (*Policy, error) {
	var p Policy
	texts, lists := p.rules()
	for _, r := range texts {
		*r.text = absent
	}
	for _, r := range lists {
		*r.list = []string{absent}
	}
	errorf, err := lock.DecodeYAML(name, b, &p)
	if err != nil {
		return nil, err
	}
	for _, r := range texts {
		switch *r.text {
		case absent:
			*r.text = ""
		case "":
			return nil, errorf(r.path, "it is empty; a rule that is not wanted is left out")
		}
	}
	for _, r := range lists {
		switch i := slices.Index(*r.list, ""); {
		case slices.Equal(*r.list, []string{absent}):
			*r.list = nil
		case len(*r.list) == 0:
			return nil, errorf(r.path, "it is empty; a rule that is not wanted is left out")
		case i >= 0:
			return nil, errorf(append(r.path, i), "it is empty")
		}
	}
	if err := p.check(errorf); err != nil {
		return nil, err
	}
	return &p, nil
}

// absent stands for a rule that the file does not have: one that it has and
// leaves empty must not be switched off by that.
const absent = "\x00"

type textRule struct {
	path []any
	text *string
}

type listRule struct {
	path []any
	list *[]string
}

// rules are those that are a text or a list of texts.
func (p *Policy) rules() ([]textRule, []listRule) {
	return []textRule{
			{[]any{"lock", "maxAge"}, &p.Lock.MaxAge},
			{[]any{"evidence", "network"}, &p.Evidence.Network},
			{[]any{"evidence", "sharedProc"}, &p.Evidence.SharedProc},
		}, []listRule{
			{[]any{"rpm", "keys"}, &p.RPM.Keys},
			{[]any{"rpm", "repos"}, &p.RPM.Repos},
			{[]any{"rpm", "licenses", "allow"}, &p.RPM.Licenses.Allow},
			{[]any{"rpm", "licenses", "deny"}, &p.RPM.Licenses.Deny},
			{[]any{"variants"}, &p.Variants},
			{[]any{"advisories", "deny"}, &p.Advisories.Deny},
			{[]any{"builders"}, &p.Builders},
			{[]any{"verifiers"}, &p.Verifiers},
		}
}

// check checks the values.
func (p *Policy) check(errorf func(path []any, format string, args ...any) error) error {
	at := func(path ...any) []any { return path }
	switch {
	case p.Version != Version:
		return errorf(at("version"), "got %d, want %d", p.Version, Version)
	case p.Evidence.Network != "" && p.Evidence.Network != "none":
		return errorf(at("evidence", "network"), "got %q, want none", p.Evidence.Network)
	case p.Evidence.SharedProc != "" && p.Evidence.SharedProc != "deny":
		return errorf(at("evidence", "sharedProc"), "got %q, want deny", p.Evidence.SharedProc)
	case p.Require.Rebuilders < 0:
		return errorf(at("require", "rebuilders"), "got %d, want a number of signers", p.Require.Rebuilders)
	case p.Require.Rebuilders > len(p.Verifiers):
		return errorf(at("require", "rebuilders"), "wants %d signers, and there are %d keys in verifiers", p.Require.Rebuilders, len(p.Verifiers))
	}
	for i, k := range p.RPM.Keys {
		if p.RPM.Keys[i] = strings.ToUpper(strings.ReplaceAll(k, " ", "")); !isFingerprint(p.RPM.Keys[i]) {
			return errorf(at("rpm", "keys", i), "got %q, want a whole fingerprint: 40 or 64 hex digits", k)
		}
	}
	if p.Lock.MaxAge != "" {
		if _, err := parseAge(p.Lock.MaxAge); err != nil {
			return errorf(at("lock", "maxAge"), "%w", err)
		}
	}
	if e := p.Exceptions; e != nil && (e.File == "" || e.Signature == "" || len(e.Keys) == 0) {
		return errorf(at("exceptions"), "want file, signature and keys")
	}
	return nil
}

func isFingerprint(s string) bool {
	_, err := hex.DecodeString(s)
	return err == nil && (len(s) == 40 || len(s) == 64)
}

// maxDays is the longest age that can be asked for: what a duration holds.
const maxDays = 100_000

// parseAge reads a number of days (90d) or hours (36h).
func parseAge(s string) (time.Duration, error) {
	unit := map[byte]time.Duration{'d': 24 * time.Hour, 'h': time.Hour}[s[len(s)-1]]
	n, err := strconv.Atoi(s[:len(s)-1])
	if err != nil || unit == 0 || n <= 0 || n > maxDays {
		return 0, fmt.Errorf("got %q, want days or hours, such as 90d or 36h", s)
	}
	return time.Duration(n) * unit, nil
}

// matches tells whether a pattern covers all of a text: ? is any character and
// * any characters but a slash, ** any at all.
func matches(pattern, text string) bool {
	var re strings.Builder
	re.WriteString(`(?s)\A`)
	for i := 0; i < len(pattern); i++ {
		switch {
		case strings.HasPrefix(pattern[i:], "**"):
			re.WriteString(".*")
			i++
		case pattern[i] == '*':
			re.WriteString("[^/]*")
		case pattern[i] == '?':
			re.WriteString("[^/]")
		default:
			re.WriteString(regexp.QuoteMeta(pattern[i : i+1]))
		}
	}
	re.WriteString(`\z`)
	found, err := regexp.MatchString(re.String(), text)
	return err == nil && found
}
