// Package diff says in what two images differ: partition, file, section,
// package.
package diff

// Node is a difference in diffoscope's JSON shape (presenters/json.py), so
// that its viewers show it.
type Node struct {
	Source1     string   `json:"source1"`
	Source2     string   `json:"source2"`
	Comments    []string `json:"comments,omitempty"`
	UnifiedDiff *string  `json:"unified_diff"`
	Details     []*Node  `json:"details,omitempty"`
}
