package solve

import (
	"regexp"
	"slices"
	"strings"
)

// dnfNames finds in a problem of dnf's what our text must name too: packages,
// and dependencies in quotes.
func dnfNames(problem string) []string {
	var names []string
	for _, re := range []*regexp.Regexp{
		regexp.MustCompile(`nothing provides (.*) needed by (\S+)`),
		regexp.MustCompile(`package (\S+) requires (.*), but none of the providers can be installed`),
		regexp.MustCompile(`package (\S+) conflicts with (.*) provided by (\S+)`),
		regexp.MustCompile(`package (\S+) (?:implicitly )?obsoletes (.*) provided by (\S+)`),
		regexp.MustCompile(`cannot install both (\S+) and (\S+)`),
		regexp.MustCompile(`problem with installed package (\S+)`),
		regexp.MustCompile(`cannot install the best update candidate for package (\S+)`),
		regexp.MustCompile(`package (\S+) is filtered out by (modular|exclude) filtering`),
		regexp.MustCompile(`both package (\S+) and (\S+) obsolete (.*)`),
		regexp.MustCompile(`(\S+) has inferior architecture`),
	} {
		for _, m := range re.FindAllStringSubmatch(problem, -1) {
			names = append(names, m[1:]...)
		}
	}
	slices.Sort(names)
	return slices.DeleteFunc(slices.Compact(names), func(n string) bool {
		return n == "itself" || n == "<NULL>" || strings.HasPrefix(n, "system:") // the system itself
	})
}

// unnamed returns what dnf's problem names and ours does not. Problems of
// module streams, which dnf solves apart, are not looked at.
func unnamed(ours error, dnf string) []string {
	if strings.Contains(dnf, "Modular dependency") {
		return nil
	}
	text := ours.Error()
	return slices.DeleteFunc(dnfNames(dnf), func(n string) bool { return strings.Contains(text, n) })
}
