package verify

import (
	"fmt"
	"slices"
	"strings"

	"caisson/lock/digest"
	"caisson/verify/diff"
)

// pageFact is a row of a page's first screen: what was compared, what was not,
// who can repeat it and how.
type pageFact struct {
	Name    string
	Pills   []pagePill
	Text    string
	Command []string
}

// pagePill is a few words in a colour, and what they are said of.
type pagePill struct{ Class, Words, Names string }

// reportFacts is the first screen of a report, below the verdict.
func reportFacts(r *Report) []pageFact {
	compared := pageFact{Name: "Compared", Pills: checkPills(r, Passed, Failed, Refused)}
	if len(compared.Pills) == 0 {
		compared.Text = "Nothing."
	}
	not := pageFact{Name: "Not compared", Pills: checkPills(r, NotChecked, NotAsked)}
	var same []string
	for _, c := range r.Conditions {
		if !c.Varied {
			same = append(same, diff.Printable(c.Name))
		}
	}
	if len(same) > 0 {
		not.Pills = append(not.Pills, pagePill{"notasked", fmt.Sprintf("%d not varied", len(same)), strings.Join(same, ", ")})
	}
	if n := len(diff.NotCompared(r.Differences)); n > 0 {
		not.Pills = append(not.Pills, pagePill{"notchecked", fmt.Sprintf("%d not looked into", n), "places that differ: see below"})
	}
	if len(not.Pills) == 0 {
		not.Text = "Nothing was left out."
	}
	facts := []pageFact{compared, not}
	if len(r.Affected) > 0 {
		facts = append(facts, pageFact{Name: "Changes", Text: "Measurements that change: " + diff.Printable(strings.Join(r.Affected, ", ")) + "."})
	}
	return append(facts, pageFact{Name: "Repeat it", Text: whoCanRepeat(r), Command: []string{
		"caisson prefetch --lock caisson.lock", verifyCommand(r),
	}})
}

// checkPills are the checks that ended in these ways, those of each together.
func checkPills(r *Report, order ...Status) []pagePill {
	var out []pagePill
	for _, s := range order {
		class, words := statusWords(s)
		var names []string
		for _, c := range r.Checks {
			if _, as := statusWords(c.Status); as == words {
				names = append(names, diff.Printable(c.Name))
			}
		}
		if len(names) > 0 {
			out = append(out, pagePill{class, fmt.Sprintf("%d %s", len(names), words), strings.Join(names, ", ")})
		}
	}
	return out
}

func whoCanRepeat(r *Report) string {
	who := "Whoever has the image, the lock and the inputs that it names"
	if r.Lock != (digest.Digest{}) {
		who = "Whoever has the image, the lock " + r.Lock.String() + " as caisson.lock, and the inputs that it names"
	}
	return who + "; without trust in the builder, or in this report."
}

// verifyCommand is what was asked for, as it is typed.
func verifyCommand(r *Report) string {
	asked := func(name string) bool {
		return slices.ContainsFunc(r.Checks, func(c Check) bool { return c.Name == name && c.Status != NotAsked })
	}
	line := "caisson verify " + shellWord(r.Image.Name) + " --lock caisson.lock"
	if asked("boot") {
		line += " --boot"
	}
	if r.Policy != nil {
		line += " --policy " + shellWord(r.Policy.Name)
	}
	return line
}

// shellWord is a name as a shell reads it, and as it can be shown.
func shellWord(s string) string {
	s = diff.Printable(s)
	if s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./+:@%=,-") == "" && s[0] != '-' {
		return s
	}
	if strings.HasPrefix(s, "-") {
		s = "./" + s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
