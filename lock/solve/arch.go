package solve

import "strings"

// archPolicies are the architectures that a machine installs, best first.
// A machine that is not listed installs its own only.
var archPolicies = map[string]string{
	"x86_64_v4": "x86_64_v4 x86_64_v3 x86_64_v2 x86_64 i686 i586 i486 i386",
	"x86_64_v3": "x86_64_v3 x86_64_v2 x86_64 i686 i586 i486 i386",
	"x86_64_v2": "x86_64_v2 x86_64 i686 i586 i486 i386",
	"x86_64":    "x86_64 i686 i586 i486 i386",
	"i686":      "i686 i586 i486 i386",
	"i586":      "i586 i486 i386",
	"s390x":     "s390x s390",
	"ppc64":     "ppc64 ppc",
	"armv7hnl":  "armv7hnl armv7hl armv6hl",
	"armv7hl":   "armv7hl armv6hl",
}

// The width of an architecture, as a set. Packages of one name and disjoint
// width are installed beside each other (multilib).
const (
	narrow uint8 = 1 << iota
	wide
)

// noarchScore is the rank of noarch, which fits every machine and is neither
// better nor worse than another architecture.
const noarchScore = 1

// archScores returns the rank of each architecture that the machine installs:
// noarchScore for noarch, then from 2 upwards, the best first.
func archScores(machine string) map[string]uint8 {
	list, ok := archPolicies[machine]
	if !ok {
		list = machine
	}
	scores := map[string]uint8{"noarch": noarchScore}
	for i, a := range strings.Fields(list) {
		scores[a] = uint8(2 + i)
	}
	return scores
}

// archWidth returns the width of an architecture; noarch has both.
func archWidth(arch string) uint8 {
	switch {
	case arch == "noarch":
		return narrow | wide
	case arch == "s390x" || strings.Contains(arch, "64"):
		return wide
	}
	return narrow
}
