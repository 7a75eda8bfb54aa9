package main

import (
	"fmt"
	"os"
	"runtime/debug"
	"slices"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"caisson/lock"
	"caisson/lock/digest"
)

// version is set by the Makefile from git; a plain `go build` has the commit
// from the build's own record.
var version string

// programVersion is the program's version, as far as it was told.
func programVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				return s.Value
			}
		}
	}
	return "unknown"
}

// versionInfo is what `caisson version` says.
type versionInfo struct {
	Version  string            `json:"version"`
	Go       string            `json:"go"`
	Revision int               `json:"revision"` // of the bytes it makes
	SHA256   digest.Digest     `json:"sha256"`   // of the program
	Modules  map[string]string `json:"modules"`
}

func newVersionCommand(ui *ui) *cobra.Command {
	var asJSON, modules bool
	c := &cobra.Command{
		Use:   "version",
		Short: "Tell the commit, the Go version and the dependencies' versions",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			v, err := readVersion()
			if err != nil {
				return err
			}
			if asJSON {
				return ui.json(v)
			}
			ui.print("caisson %s, %s, format revision %d", v.Version, v.Go, v.Revision)
			ui.print("%s", v.SHA256)
			if modules {
				for _, m := range sortedKeys(v.Modules) {
					ui.print("  %s %s", m, v.Modules[m])
				}
			}
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.Flags().BoolVar(&modules, "modules", true, "list the modules it was made of")
	return c
}

func readVersion() (versionInfo, error) {
	v := versionInfo{Version: programVersion(), Revision: lock.Revision, Modules: map[string]string{}}
	if info, ok := debug.ReadBuildInfo(); ok {
		v.Go = info.GoVersion
		for _, d := range info.Deps {
			if d.Replace != nil {
				d = d.Replace
			}
			v.Modules[d.Path] = d.Version
		}
	}
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return v, err
	}
	defer self.Close()
	v.SHA256, _, err = digest.Reader(self)
	return v, err
}

func sortedKeys[V any](m map[string]V) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func newManCommand(ui *ui) *cobra.Command {
	return &cobra.Command{
		Use:    "man DIR",
		Short:  "Write the manual pages",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return err
			}
			if err := doc.GenManTree(cmd.Root(), &doc.GenManHeader{Title: "CAISSON", Section: "1", Source: "caisson " + programVersion()}, args[0]); err != nil {
				return fmt.Errorf("writing the manual pages: %w", err)
			}
			if err := writeTopicPages(args[0], cmd.Root()); err != nil {
				return fmt.Errorf("writing the manual pages: %w", err)
			}
			ui.stage("manual pages are in %s", args[0])
			return nil
		},
	}
}
