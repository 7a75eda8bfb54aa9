package diff

import (
	"cmp"
	"maps"
	"slices"
	"strconv"

	"caisson/verify/measure"
)

// Affected names the measurements in which two disks differ, such as "root
// hash" and "PCR 4". It is empty where none does, and where one of the disks
// could not be measured and is nil.
func Affected(a, b *measure.Result) []string {
	if a == nil || b == nil {
		return nil
	}
	var out []string
	if a.RootHash != b.RootHash {
		out = append(out, "root hash")
	}
	x, y := a.PCRs[measure.Bank], b.PCRs[measure.Bank]
	all := maps.Clone(x)
	if all == nil {
		all = map[string]string{}
	}
	maps.Copy(all, y)
	numbers := slices.SortedFunc(maps.Keys(all), func(p, q string) int {
		m, _ := strconv.Atoi(p)
		n, _ := strconv.Atoi(q)
		return cmp.Or(cmp.Compare(m, n), cmp.Compare(p, q))
	})
	for _, pcr := range numbers {
		if x[pcr] != y[pcr] {
			out = append(out, "PCR "+pcr)
		}
	}
	return out
}
