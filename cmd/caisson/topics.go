package main

import (
	"embed"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
	"golang.org/x/term"
)

// pages are what there is to read: Markdown that README.md links to, `caisson
// help` prints and `caisson man` sets. Code is indented; a line of it that begins
// with "$ " is a command, which goes on in lines that are indented further, and
// other lines are what it prints, where "…" stands for anything. Tests run them.
//
//go:embed help/*.md
var pages embed.FS

// topics are the pages, in the order in which people need them.
var topics = []struct{ name, short string }{
	{"engineer", "A release engineer's first day: from nothing to a signed image"},
	{"ci", "A gate in CI in five lines: exit codes, caches, archives, keys"},
	{"auditor", "An auditor's checklist: who claims what, checked without Caisson"},
	{"keys", "Where keys and passwords live, and what rotating or revoking does"},
}

// page is the text of a topic.
func page(name string) string {
	b, err := pages.ReadFile("help/" + name + ".md")
	if err != nil {
		panic(err) // it is not there: a mistake in topics
	}
	return string(b)
}

// newTopics are commands of which there is nothing but the help.
func newTopics(ui *ui) []*cobra.Command {
	var out []*cobra.Command
	for _, t := range topics {
		c := &cobra.Command{Use: t.name, Short: t.short, Long: page(t.name), DisableFlagsInUseLine: true}
		c.SetHelpFunc(func(*cobra.Command, []string) {
			_ = ui.result(func(w io.Writer) error {
				_, err := io.WriteString(w, plain(page(t.name), ui.setsHeads()))
				return err
			})
		})
		out = append(out, c)
	}
	return out
}

// setsHeads tells whether headings of the result are to be bold.
func (u *ui) setsHeads() bool {
	out, ok := u.out.(*os.File)
	return ok && u.setColour() == nil && u.colour && term.IsTerminal(int(out.Fd())) //nolint:gosec // a descriptor is a small number
}

// plain is a page without the marks that Markdown has for headings and emphasis.
func plain(text string, colour bool) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		code := strings.HasPrefix(line, "    ")
		head := strings.TrimLeft(line, "#")
		switch {
		case code:
			b.WriteString(line)
		case head != line:
			b.WriteString(paint(bold, strings.TrimSpace(head), colour) + "\n")
		default:
			b.WriteString(strings.ReplaceAll(line, "**", ""))
		}
	}
	return b.String()
}

// topicsTemplate has the list of topics say how they are read.
func topicsTemplate(usage string) string {
	usage = strings.ReplaceAll(usage, "Additional help topics:", "To read, a page each:")
	return strings.ReplaceAll(usage, "{{rpad .CommandPath .CommandPathPadding}}", "{{rpad (print \"help \" .Name) 14}}")
}

// writeTopicPages writes the manual pages of the topics, which cobra leaves out.
func writeTopicPages(dir string, root *cobra.Command) error {
	for _, c := range root.Commands() {
		if !c.IsAdditionalHelpTopicCommand() {
			continue
		}
		f, err := os.Create(filepath.Join(dir, "caisson-"+c.Name()+".7"))
		if err != nil {
			return err
		}
		err = doc.GenMan(c, &doc.GenManHeader{Title: "CAISSON-" + strings.ToUpper(c.Name()), Section: "7", Source: "caisson " + programVersion()}, f)
		if e := f.Close(); err == nil {
			err = e
		}
		if err != nil {
			return fmt.Errorf("%s: %w", f.Name(), err)
		}
	}
	return nil
}
