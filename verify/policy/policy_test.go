package policy

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"caisson/build"
	"caisson/build/sandbox"
	"caisson/lock"
	"caisson/lock/digest"
	"caisson/verify"
)

const allowed = "0123456789ABCDEF0123456789ABCDEF01234567"

func TestParse(t *testing.T) {
	const whole = `version: 1
rpm: {keys: [0123 4567 89ab cdef 0123 4567 89ab cdef 0123 4567], repos: ["https://mirror.example/**"], licenses: {allow: [MIT], deny: [Zlib]}}
variants: [debug]
lock: {maxAge: 90d}
advisories: {deny: [Critical]}
evidence: {network: none, sharedProc: deny}
require: {boot: true, rebuilders: 1}
builders: [b.pub]
verifiers: [v.pub]
exceptions: {file: e.yaml, signature: e.sig, keys: [s.pub]}
`
	p, err := Parse("p.yaml", []byte(whole))
	if err != nil || p.RPM.Keys[0] != allowed || p.Require.Rebuilders != 1 {
		t.Fatalf("got %+v, %v", p, err)
	}
	for _, tt := range []struct{ old, with, want string }{
		{"version: 1", "version: 2", "p.yaml:1: version: got 2, want 1"},
		{"boot: true", "boots: true", `p.yaml:7: require: unknown key "boots"; did you mean "boot"?`},
		{"0123 4567 89ab", "89ab", "p.yaml:2: rpm.keys[0]: got"},
		{"[MIT]", "[]", "rpm.licenses.allow: it is empty"},
		{"deny: [Zlib]", "forbid: [Zlib]", `unknown key "forbid"`},
		{"90d", "90", "p.yaml:4: lock.maxAge: got \"90\", want days or hours"},
		{"90d", "-1d", "lock.maxAge"},
		{"90d", "99999999d", "lock.maxAge"},
		{"network: none", "network: some", "evidence.network"},
		{"sharedProc: deny", "sharedProc: allow", "evidence.sharedProc"},
		{"rebuilders: 1", "rebuilders: 2", "wants 2 signers, and there are 1 keys in verifiers"},
		{"rebuilders: 1", "rebuilders: -1", "want a number"},
		{", keys: [s.pub]", "", "want file, signature and keys"},
		{"[debug]", `[""]`, "variants[0]: it is empty"},
		{"[debug]", "debug", "variants: want a list"},
		{"[debug]", "[]", "variants: it is empty; a rule that is not wanted is left out"},
		{"[debug]", "", "variants: it is empty"},
		{"90d", "''", "lock.maxAge: it is empty"},
	} {
		if _, err := Parse("p.yaml", []byte(strings.Replace(whole, tt.old, tt.with, 1))); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.with, err, tt.want)
		}
	}
}

func TestParseExceptions(t *testing.T) {
	const whole = "version: 1\nexceptions:\n  - {rule: advisories, match: 'RHSA-*', who: jane, why: not reachable, until: 2026-12-31}\n"
	list, err := ParseExceptions("e.yaml", []byte(whole))
	if err != nil || len(list) != 1 || list[0] != (verify.Exception{Rule: "advisories", Match: "RHSA-*", Who: "jane", Why: "not reachable", Until: "2026-12-31"}) {
		t.Fatalf("got %+v, %v", list, err)
	}
	for _, tt := range []struct{ old, with, want string }{
		{"version: 1", "version: 3", "want 1"},
		{"rule: advisories", "rule: boot", `there are no exceptions from "boot"`},
		{"rule: advisories", "function: magic", `function: got "magic"`},
		{"rule: advisories, ", "", "want a rule, or a function"},
		{"match: 'RHSA-*', ", "", "want what it is for"},
		{"who: jane, ", "", "want who"},
		{"why: not reachable, ", "", "and why"},
		{"2026-12-31", "never", "want the last day"},
		{"who:", "whom:", `unknown key "whom"`},
		{"who:", "certificate: " + strings.Repeat("ab", 32) + ", who:", "certificate: it belongs to the function secure-boot-signature"},
		{"rule: advisories, ", "function: secure-boot-signature, certificate: ab, ", `certificate: got "ab", want the SHA-256 of a certificate`},
		{"rule: advisories, ", "function: secure-boot-signature, certificate: '', ", `certificate: got "", want the SHA-256 of a certificate`},
	} {
		if _, err := ParseExceptions("e.yaml", []byte(strings.Replace(whole, tt.old, tt.with, 1))); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.with, err, tt.want)
		}
	}
}

func TestExceptionCertificate(t *testing.T) {
	const text = "version: 1\nexceptions:\n  - {function: secure-boot-signature, match: 'esp:/a.efi', certificate: '%s', who: jane, why: ours, until: 2026-12-31}\n"
	for _, given := range []string{strings.Repeat("ab", 32), strings.Repeat("AB:", 31) + "AB"} {
		list, err := ParseExceptions("e.yaml", fmt.Appendf(nil, text, given))
		if err != nil || len(list) != 1 || list[0].Certificate != strings.Repeat("ab", 32) {
			t.Errorf("%s: got %+v, %v", given, list, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("version: 1\nrpm: {keys: [" + allowed + "]}\nlock: {maxAge: 90d}\n"))
	f.Add([]byte("version: 1\nexceptions:\n  - {rule: advisories, match: 'x', who: a, why: b, until: 2026-12-31}\n"))
	f.Fuzz(func(_ *testing.T, b []byte) {
		_, _ = Parse("p", b)
		_, _ = ParseExceptions("e", b)
	})
}

// world is an image of one package from one repository.
type world struct {
	Facts
	verify.Findings
	policy Policy
}

func newWorld() *world {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	w := &world{policy: Policy{Version: 1}}
	w.Facts = Facts{
		Now: now, Arch: "x86_64", Advisories: &lock.AdvisoryIndex{},
		Lock: &lock.Lock{
			Name: "demo", Arches: []string{"x86_64"}, Sets: []lock.Set{{Name: lock.SetRoot}},
			Repos: []lock.Repo{{ID: "base", Arch: "x86_64", BaseURL: "https://mirror.example/base/os/", GPGCheck: true, Keys: []string{allowed}}},
			Inputs: []lock.Input{
				{Kind: lock.KindRepodata, Name: "base-x86_64/updateinfo", Repo: "base"},
				{
					Kind: lock.KindRPM, Name: "bash-5-1.x86_64", Repo: "base", For: []lock.Use{{Arch: "x86_64", Set: lock.SetRoot}},
					RPM: &lock.RPM{Name: "bash", Version: "5", Release: "1", Arch: "x86_64", Signed: true, BuildTime: now.AddDate(0, 0, -30).Unix()},
				},
			},
		},
	}
	w.Report = &verify.Report{Checks: []verify.Check{{Name: "boot", Status: verify.Passed}}}
	w.Seen = &build.Evidence{Steps: []sandbox.Evidence{{Step: "install"}}}
	w.License = func(*lock.Input) (string, error) { return "GPLv3+", nil }
	w.Builder = func(digest.Digest, digest.Digest) (string, error) { return "b.pub", nil }
	return w
}

// licensed makes the package declare a licence.
func licensed(text string) func(*world) {
	return func(w *world) { w.License = func(*lock.Input) (string, error) { return text, nil } }
}

func TestJudge(t *testing.T) {
	repo := func(w *world) *lock.Repo { return &w.Facts.Lock.Repos[0] }
	for _, tt := range []struct {
		name   string
		policy string
		change func(w *world)
		check  string
		status verify.Status
		detail string
	}{
		{"keys", "rpm: {keys: [" + allowed + "]}", nil, "rpm keys", verify.Passed, "1 packages"},
		{"another key", "rpm: {keys: [" + allowed + "]}", func(w *world) { repo(w).Keys = []string{allowed, "FF"} }, "rpm keys", verify.Refused, "trusts the key FF, which is not allowed"},
		{"no key", "rpm: {keys: [" + allowed + "]}", func(w *world) { repo(w).Keys = nil }, "rpm keys", verify.Refused, "trusts no key"},
		{"unsigned", "rpm: {keys: [" + allowed + "]}", func(w *world) { w.Facts.Lock.Inputs[1].RPM.Signed = false }, "rpm keys", verify.Refused, "bash-5-1.x86_64 need not be signed"},
		{"of no repository", "rpm: {keys: [" + allowed + "]}", func(w *world) { w.Facts.Lock.Inputs[1].Repo = "x" }, "rpm keys", verify.Refused, `the repository "x"`},
		{"repository", "rpm: {repos: ['https://mirror.example/**']}", nil, "repositories", verify.Passed, "1, each allowed"},
		{"another", "rpm: {repos: ['https://mirror.example/*']}", nil, "repositories", verify.Refused, "at https://mirror.example/base/os/ is not allowed"},
		{"dots", "rpm: {repos: ['https://mirror.example/good/**']}", func(w *world) { repo(w).BaseURL = "https://mirror.example/good/../bad/" }, "repositories", verify.Refused, "not allowed"},
		{"another host", "rpm: {repos: ['https://*.example/**']}", func(w *world) { repo(w).BaseURL = "https://evil.test/x.example/" }, "repositories", verify.Refused, "not allowed"},
		{"no gpgcheck", "rpm: {repos: ['**']}", func(w *world) { repo(w).GPGCheck = false }, "repositories", verify.Refused, "no gpgcheck"},
		{"the image itself", "", nil, "variant", verify.Passed, ""},
		{"variant", "variants: [debug]", func(w *world) { w.Variant = "debug" }, "variant", verify.Passed, "debug"},
		{"another variant", "", func(w *world) { w.Variant = "debug" }, "variant", verify.Refused, `"debug" is not allowed`},
		{"young", "lock: {maxAge: 31d}", nil, "lock age", verify.Passed, "30 days ago"},
		{"old", "lock: {maxAge: 29d}", nil, "lock age", verify.Refused, "at most 29d"},
		{"from the future", "lock: {maxAge: 29d}", func(w *world) { w.Now = w.Now.AddDate(-1, 0, 0) }, "lock age", verify.NotChecked, "the clock says"},
		{"by its epoch", "lock: {maxAge: 29d}", func(w *world) { w.Facts.Lock.Inputs = nil; w.Facts.Lock.Epoch = w.Now.Unix() }, "lock age", verify.Passed, "its epoch"},
		{"a licence", "rpm: {licenses: {allow: ['GPL-3.0-*']}}", nil, "licenses", verify.Passed, "1 packages"},
		{"a licence that is not allowed", "rpm: {licenses: {allow: [MIT, Zlib]}}", nil, "licenses", verify.Refused, "bash-5-1.x86_64 is under GPL-3.0-or-later, of which not allowed: GPL-3.0-or-later; to mend it, leave the package out"},
		{"a denied licence", "rpm: {licenses: {deny: ['gpl-3.0-*']}}", nil, "licenses", verify.Refused, "GPL-3.0-or-later"},
		{"one of alternatives", "rpm: {licenses: {allow: [MIT]}}", licensed("GPLv3+ or MIT"), "licenses", verify.Passed, ""},
		{"all of several", "rpm: {licenses: {allow: [MIT, BSD-3-Clause]}}", licensed("MIT AND BSD-3-Clause AND Zlib"), "licenses", verify.Refused, "not allowed: Zlib;"},
		{"an exception to a licence", "rpm: {licenses: {deny: [GPL-2.0-only]}}", licensed("GPL-2.0-only WITH Linux-syscall-note"), "licenses", verify.Passed, ""},
		{"a name that nobody knows", "rpm: {licenses: {deny: [MIT]}}", licensed("Our Own"), "licenses", verify.NotChecked, `under "Our Own", which no list of licences has`},
		{"a name that nobody knows, and a list", "rpm: {licenses: {allow: [MIT]}}", licensed("Our Own"), "licenses", verify.Refused, "LicenseRef-"},
		{"no licence", "rpm: {licenses: {deny: [MIT]}}", licensed(""), "licenses", verify.NotChecked, "bash-5-1.x86_64 declares no licence"},
		{"no header", "rpm: {licenses: {deny: [MIT]}}", func(w *world) {
			w.License = func(*lock.Input) (string, error) { return "", errors.New("it is not in the store") }
		}, "licenses", verify.NotChecked, "bash-5-1.x86_64: it is not in the store"},
		{"no store", "rpm: {licenses: {deny: [MIT]}}", func(w *world) { w.License = nil }, "licenses", verify.NotChecked, "no store"},
		{"a licence of the tools", "rpm: {licenses: {allow: [MIT]}}", func(w *world) {
			w.Facts.Lock.Inputs[1].For[0].Set = lock.SetTools
		}, "licenses", verify.Passed, "0 packages"},
		{"no advisory", "advisories: {deny: [Critical]}", nil, "advisories", verify.Passed, "none of Critical"},
		{"no index", "advisories: {deny: [Critical]}", func(w *world) { w.Advisories = nil }, "advisories", verify.NotChecked, "no advisories can be read"},
		{"no updateinfo", "advisories: {deny: [Critical]}", func(w *world) { w.Facts.Lock.Inputs = w.Facts.Lock.Inputs[1:] }, "advisories", verify.NotChecked, "repository base has no advisories"},
		{"no attempt", "evidence: {network: none}", nil, "network", verify.Passed, ""},
		{"an attempt", "evidence: {network: none}", func(w *world) {
			w.Claimed = &build.Evidence{Steps: []sandbox.Evidence{{Step: "x", Attempts: []sandbox.Attempt{{Program: sandbox.Program{Exe: "/bin/curl"}, Destination: "192.0.2.1:80"}}}}}
		}, "network", verify.Refused, "/bin/curl tried to reach 192.0.2.1:80"},
		{"no evidence", "evidence: {network: none}", func(w *world) { w.Seen = nil }, "network", verify.NotChecked, "no evidence"},
		{"own /proc", "evidence: {sharedProc: deny}", nil, "shared /proc", verify.Passed, ""},
		{"shared /proc", "evidence: {sharedProc: deny}", func(w *world) { w.Seen.Steps[0].Volatile.SharedProc = true }, "shared /proc", verify.Refused, `the rebuild's step "install"`},
		{"booted", "require: {boot: true}", nil, "boot", verify.Passed, ""},
		{"not booted", "require: {boot: true}", func(w *world) { w.Report.Checks[0].Status = verify.NotAsked }, "boot", verify.Refused, "--boot"},
		{"an archive not booted", "require: {boot: true}", func(w *world) {
			w.Report.Checks = append(w.Report.Checks[:0], verify.Check{Name: "contents", Status: verify.Passed})
		}, "boot", verify.Refused, "archives, which no machine boots"},
		{"builder", "builders: [b.pub]", nil, "builder", verify.Passed, "b.pub"},
		{"no builder", "builders: [b.pub]", func(w *world) {
			w.License = func(*lock.Input) (string, error) { return "GPLv3+", nil }
			w.Builder = func(digest.Digest, digest.Digest) (string, error) { return "", errors.New("unknown key") }
		}, "builder", verify.Refused, "unknown key"},
		{"verifier", "verifiers: [v.pub]", func(w *world) { w.Signer = func() bool { return true } }, "verifier", verify.Passed, ""},
		{"another verifier", "verifiers: [v.pub]", func(w *world) { w.Signer = func() bool { return false } }, "verifier", verify.Refused, "not one of those allowed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, err := Parse("p.yaml", []byte("version: 1\n"+tt.policy+"\n"))
			if err != nil {
				t.Fatal(err)
			}
			w := newWorld()
			if tt.change != nil {
				tt.change(w)
			}
			got := p.Judge(w.Facts, w.Findings)
			for _, c := range got.Checks {
				switch {
				case c.Name == "policy: "+tt.check && (c.Status != tt.status || !strings.Contains(c.Detail, tt.detail)):
					t.Errorf("got %+v, want %s with %q", c, tt.status, tt.detail)
				case c.Name == "policy: "+tt.check:
					return
				}
			}
			if !t.Failed() {
				t.Errorf("no check %q in %+v", tt.check, got.Checks)
			}
		})
	}
}

func TestExceptions(t *testing.T) {
	p, err := Parse("p.yaml", []byte("version: 1\nrpm: {repos: ['https://other.example/**']}\nexceptions: {file: e, signature: s, keys: [k]}\n"))
	if err != nil {
		t.Fatal(err)
	}
	e := verify.Exception{Rule: "repositories", Match: "base", Who: "jane", Why: "moves next week", Until: "2026-11-21"}
	judge := func(change func(w *world)) (status map[string]verify.Status, details string, used int) {
		w := newWorld()
		w.Exceptions = []verify.Exception{e}
		change(w)
		j := p.Judge(w.Facts, w.Findings)
		status = map[string]verify.Status{}
		for _, c := range j.Checks {
			status[c.Name] = c.Status
			details += c.Detail + "\n"
		}
		return status, details, len(j.Exceptions)
	}
	for _, tt := range []struct {
		name                string
		change              func(w *world)
		exceptions, outcome verify.Status
		used                int
		detail              string
	}{
		{"in time", func(*world) {}, verify.Passed, verify.Passed, 1, "base: excepted by jane until 2026-11-21"},
		{"expired", func(w *world) { w.Now = w.Now.AddDate(0, 0, 1) }, verify.Refused, verify.Refused, 0, "ended on 2026-11-21"},
		{"a slow clock", func(w *world) { w.Now = w.Now.AddDate(-1, 0, 0) }, verify.NotChecked, verify.Refused, 0, "whether they still hold cannot be told"},
		{"unsigned", func(w *world) { w.Unsigned = errors.New("e is not signed") }, verify.Refused, verify.Refused, 0, "e is not signed"},
		{"of something else", func(w *world) { w.Exceptions[0].Match = "other" }, verify.Passed, verify.Refused, 0, "is not allowed"},
		{"from another rule", func(w *world) { w.Exceptions[0].Rule = "rpm keys" }, verify.Passed, verify.Refused, 0, "is not allowed"},
	} {
		status, details, used := judge(tt.change)
		if status["policy: exceptions"] != tt.exceptions || status["policy: repositories"] != tt.outcome || used != tt.used || !strings.Contains(details, tt.detail) {
			t.Errorf("%s: got %v, %d used\n%s", tt.name, status, used, details)
		}
	}
}

const updateinfo = `<updates>
<update type="security"><id>RHSA-2026:1</id><title>bash</title><severity>Critical</severity><pkglist><collection>
<package name="bash" version="5" release="2" epoch="0" arch="x86_64"><filename>bash-5-2.x86_64.rpm</filename></package>
</collection></pkglist></update>
<update type="security"><id>RHSA-2026:2</id><title>bash</title><severity>Low</severity><pkglist><collection>
<package name="bash" version="5" release="3" epoch="0" arch="x86_64"><filename>bash-5-3.x86_64.rpm</filename></package>
</collection></pkglist></update>
<update type="security"><id>RHSA-2025:9</id><title>bash</title><severity>Critical</severity><pkglist><collection>
<package name="bash" version="5" release="1" epoch="0" arch="x86_64"><filename>bash-5-1.x86_64.rpm</filename></package>
</collection></pkglist></update>
</updates>`

// TestAdvisories finds what a newer version than the locked one fixes, of the
// severity that is denied.
func TestAdvisories(t *testing.T) {
	w := newWorld()
	var err error
	w.Facts.Advisories, err = lock.Advisories(w.Facts.Lock, func(digest.Digest) (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader(updateinfo)), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for deny, want := range map[string]string{
		"Critical": "RHSA-2026:1 (Critical) is open for bash-5-1.x86_64", "low": "RHSA-2026:2 (Low) is open for bash-5-1.x86_64", "Important": "none of Important",
	} {
		p, err := Parse("p.yaml", []byte("version: 1\nadvisories: {deny: ["+deny+"]}\n"))
		if err != nil {
			t.Fatal(err)
		}
		c := p.Judge(w.Facts, w.Findings).Checks[1]
		if (c.Status == verify.Refused) != (deny != "Important") || !strings.HasPrefix(c.Detail, want) || strings.Contains(c.Detail, "; RHSA") {
			t.Errorf("%s: got %+v, want %q", deny, c, want)
		}
	}
}

func TestMatches(t *testing.T) {
	for _, tt := range []struct {
		pattern, text string
		want          bool
	}{
		{"a*c", "abc", true}, {"a*c", "a/c", false}, {"a**c", "a/b/c", true}, {"a?c", "abc", true}, {"a?c", "a/c", false},
		{"a.c", "abc", false}, {"abc", "abcd", false}, {"a", "ba", false}, {"**", "", true}, {"a*", "a\nb", true}, {"(", "(", true},
	} {
		if got := matches(tt.pattern, tt.text); got != tt.want {
			t.Errorf("%q on %q: got %v", tt.pattern, tt.text, got)
		}
	}
}
