package gittree

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/config"
)

// parseModules reads a .gitmodules file: the URLs of submodules by their
// paths. Of several for one path that with the first name counts.
func parseModules(b []byte) (map[string]string, error) {
	m := config.NewModules()
	if err := m.Unmarshal(b); err != nil {
		return nil, fmt.Errorf("reading .gitmodules: %w", err)
	}
	out := make(map[string]string)
	for _, name := range slices.Sorted(maps.Keys(m.Submodules)) {
		s := m.Submodules[name]
		if path := strings.Trim(s.Path, "/"); out[path] == "" {
			out[path] = s.URL
		}
	}
	return out, nil
}
