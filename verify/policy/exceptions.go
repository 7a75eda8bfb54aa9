package policy

import (
	"slices"
	"strings"
	"time"

	"caisson/lock"
	"caisson/lock/digest"
	"caisson/verify"
)

// The rules from which there are exceptions.
const (
	ruleKeys       = "rpm keys"
	ruleRepos      = "repositories"
	ruleLicenses   = "licenses"
	ruleAge        = "lock age"
	ruleAdvisories = "advisories"
)

// exception is one of the file.
type exception struct {
	Rule     string `yaml:"rule"`
	Function string `yaml:"function"`
	Match    string `yaml:"match"`
	// Certificate may be left out, but not be empty.
	Certificate *string `yaml:"certificate"`
	Who         string  `yaml:"who"`
	Why         string  `yaml:"why"`
	Until       string  `yaml:"until"`
}

// ParseExceptions reads a file of exceptions. Whether it is signed is for the
// caller to find out.
func ParseExceptions(name string, b []byte) ([]verify.Exception, error) {
	var file struct {
		Version    int         `yaml:"version"`
		Exceptions []exception `yaml:"exceptions"`
	}
	errorf, err := lock.DecodeYAML(name, b, &file)
	if err != nil {
		return nil, err
	}
	if file.Version != Version {
		return nil, errorf([]any{"version"}, "got %d, want %d", file.Version, Version)
	}
	functions := verify.Functions()
	var out []verify.Exception
	for i, e := range file.Exceptions {
		at := func(key string) []any { return []any{"exceptions", i, key} }
		switch {
		case (e.Rule == "") == (e.Function == ""):
			return nil, errorf(at("rule"), "want a rule, or a function")
		case e.Rule != "" && !slices.Contains([]string{ruleKeys, ruleRepos, ruleLicenses, ruleAge, ruleAdvisories}, e.Rule):
			return nil, errorf(at("rule"), "there are no exceptions from %q: want rpm keys, repositories, licenses, lock age or advisories", e.Rule)
		case e.Function != "" && !slices.Contains(functions, e.Function):
			return nil, errorf(at("function"), "got %q, want one of %v", e.Function, functions)
		case e.Match == "":
			return nil, errorf(at("match"), "want what it is for")
		case e.Who == "" || e.Why == "":
			return nil, errorf(at("who"), "want who made the exception, and why")
		}
		certificate := ""
		if e.Certificate != nil {
			sum, err := digest.ParseHex(strings.ToLower(strings.ReplaceAll(*e.Certificate, ":", "")))
			switch {
			case e.Function != verify.SecureBootSignature:
				return nil, errorf(at("certificate"), "it belongs to the function %s", verify.SecureBootSignature)
			case err != nil:
				return nil, errorf(at("certificate"), "got %q, want the SHA-256 of a certificate, as openssl x509 -fingerprint -sha256 prints it", *e.Certificate)
			}
			certificate = sum.Hex()
		}
		if _, err := time.Parse(time.DateOnly, e.Until); err != nil {
			return nil, errorf(at("until"), "got %q, want the last day, as 2026-12-31", e.Until)
		}
		out = append(out, verify.Exception{
			Rule: e.Rule, Function: e.Function, Match: e.Match, Certificate: certificate, Who: e.Who, Why: e.Why, Until: e.Until,
		})
	}
	return out, nil
}

// Current are the exceptions that hold on a day, and those that no longer do.
func Current(list []verify.Exception, now time.Time) (current, expired []verify.Exception) {
	for _, e := range list {
		last, err := time.Parse(time.DateOnly, e.Until)
		if err != nil || !now.UTC().Before(last.AddDate(0, 0, 1)) {
			expired = append(expired, e)
		} else {
			current = append(current, e)
		}
	}
	return current, expired
}
