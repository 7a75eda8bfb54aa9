package start

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"mvdan.cc/sh/v3/syntax"

	"caisson/lock"
	"caisson/lock/konflux"
)

// Get and Keys give ARGs and ENVs to the expansion.
type containerVars map[string]string

func (v containerVars) Get(name string) (string, bool) { s, ok := v[name]; return s, ok }
func (v containerVars) Keys() []string                 { return slices.Sorted(maps.Keys(v)) }

// expand puts the values of variables into a word; not ok where one has none.
func (c *containerDraft) expand(word string) (string, bool) {
	if !strings.ContainsRune(word, '$') {
		return word, true
	}
	out, missing, err := c.lex.ProcessWord(word, containerVars(c.vars))
	return out, err == nil && len(missing) == 0
}

// assign keeps the values of ARG and ENV.
func (c *containerDraft) assign(n *parser.Node) {
	words := value(n)
	switch strings.ToLower(n.Value) {
	case "arg":
		for _, w := range words {
			if name, v, ok := strings.Cut(w, "="); ok {
				if v, ok := c.expand(v); ok {
					c.vars[name] = strings.Trim(v, `"'`)
				}
			}
		}
	case "env": // name, value and what was between them, three each
		for i := 0; i+1 < len(words); i += 3 {
			if v, ok := c.expand(words[i+1]); ok {
				c.vars[words[i]] = strings.Trim(v, `"'`)
			}
		}
	}
}

// alone is the file without any other RUN line, so that what is said of this
// one is known. Lines keep their numbers.
func (c *containerDraft) alone(run *parser.Node) []byte {
	lines := slices.Clone(c.lines)
	for _, n := range c.nodes {
		if n == run || !strings.EqualFold(n.Value, "run") {
			continue
		}
		for i := n.StartLine - 1; i < n.EndLine && i < len(lines); i++ {
			lines[i] = []byte("\n")
		}
	}
	return bytes.Join(lines, nil)
}

// run takes over what a RUN line asks the package manager for, and the units
// that it enables. Its other commands become a step.
func (c *containerDraft) run(n *parser.Node) {
	req, err := c.requests(n)
	if err != nil {
		c.note(max(lineOf(err), n.StartLine), n.Original, shortReason(err))
	} else {
		c.packages(n.StartLine, lock.SetRoot, req.Install...)
		c.try(n.StartLine, n.Original, func(m *lock.Manifest) {
			add(&m.RPM.ModuleEnable, req.ModuleEnable...)
			add(&m.RPM.ModuleDisable, req.ModuleDisable...)
		})
		for _, p := range slices.Concat(req.Reinstall, req.Upgrade) {
			c.note(n.StartLine, p, "an image's root starts from nothing, so there is nothing to reinstall or to upgrade")
		}
		for _, p := range req.BuildDep {
			c.note(n.StartLine, "builddep "+p, "what a package is built with belongs into sets.tools, by name")
		}
	}
	script := strings.Join(value(n), " ")
	if n.Attributes["json"] {
		words := value(n)
		for i := range words {
			words[i] = quote(words[i])
		}
		script = strings.Join(words, " ")
		n.Heredocs = nil
	}
	for _, h := range n.Heredocs {
		script += "\n" + h.Content + h.Name
		if strings.HasPrefix(strings.TrimSpace(script), "<<") {
			script = h.Content
		}
	}
	file, err := syntax.NewParser().Parse(strings.NewReader(script), "")
	if err != nil {
		c.note(n.StartLine, n.Original, "it is not a shell's: "+err.Error())
		return
	}
	r := runRest{n: n}
	for _, s := range file.Stmts {
		c.statement(&r, s)
	}
	c.runStep(&r)
}

func (c *containerDraft) requests(n *parser.Node) (*konflux.Requests, error) {
	f, err := konflux.ParseContainerfile(c.name, c.alone(n), nil)
	if err != nil {
		return nil, err
	}
	stage, err := f.Select(konflux.ContainerfileRef{})
	if err != nil {
		return nil, err
	}
	return stage.Requests(c.arch, func(name string) ([]byte, error) {
		b, err := readFile(filepath.Join(c.folder, filepath.FromSlash(path.Clean("/"+name))))
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fs.ErrNotExist
		}
		return b, err
	})
}

// runRest is what of a RUN line is no package and no unit.
type runRest struct {
	n *parser.Node
	// lines are commands, and does tells whether one of them does something by
	// itself: not a variable that is set, or a folder that is gone to.
	lines []string
	does  bool
}

// statement takes the commands of a RUN line apart that follow one another.
func (c *containerDraft) statement(r *runRest, s *syntax.Stmt) {
	text := printed(s)
	switch x := s.Cmd.(type) {
	case *syntax.BinaryCmd:
		switch {
		case x.Op == syntax.AndStmt:
			c.statement(r, x.X)
			c.statement(r, x.Y)
			return
		case x.Op == syntax.OrStmt && mentionsManager(text):
			c.statement(r, x.X)
			if other := printed(x.Y); !giveUp.MatchString(other) {
				c.note(r.n.StartLine, "|| "+other, "what is done where a package cannot be installed has no counterpart")
			}
			return
		}
	case *syntax.Block:
		for _, s := range x.Stmts {
			c.statement(r, s)
		}
		return
	case *syntax.CallExpr:
		var words []string
		for _, w := range x.Args {
			words = append(words, w.Lit())
		}
		if len(s.Redirs) == 0 {
			c.command(r, words, text)
			return
		}
	}
	if !mentionsManager(text) {
		r.lines, r.does = append(r.lines, text), true
	}
}

// giveUp finds what only says whether a failure counts.
var giveUp = regexp.MustCompile(`^(true|false|:|exit( [0-9]+)?)$`)

func printed(s *syntax.Stmt) string {
	var b strings.Builder
	if err := syntax.NewPrinter().Print(&b, s); err != nil {
		return "…"
	}
	return b.String()
}

var manager = regexp.MustCompile(`\b(dnf|dnf5|microdnf|yum)\b`)

// mentionsManager tells whether a command is one that requests has followed.
func mentionsManager(text string) bool { return manager.MatchString(text) }

// command looks at one command of a RUN line.
func (c *containerDraft) command(r *runRest, words []string, text string) {
	name := ""
	if len(words) > 0 {
		name = path.Base(words[0])
	}
	switch {
	case name == "systemctl" && len(words) > 2 && slices.Contains([]string{"enable", "disable", "mask"}, words[1]) && !slices.Contains(words, ""):
		units := slices.DeleteFunc(slices.Clone(words[2:]), func(w string) bool { return strings.HasPrefix(w, "-") })
		c.services(r.n.StartLine, words[1], units...)
	case mentionsManager(text), name == "true":
	case name == "rm" && strings.Contains(text, "/var/cache"), name == "rm" && strings.Contains(text, "/var/lib/dnf"), name == "subscription-manager":
		// What a package manager leaves behind, or needs, is not in an image.
	default:
		r.lines = append(r.lines, text)
		r.does = r.does || len(words) > 0 && !slices.Contains([]string{"set", ":", ".", "source", "cd", "export"}, name)
	}
}

// fetches finds commands that need a network, or another package manager.
var fetches = regexp.MustCompile(`\b(curl|wget|git +clone|git +fetch|pip3? +install|npm|yarn|go +(get|install|mod)|cargo +install|apt|apt-get|apk|zypper|rsync|scp|skopeo|podman|docker)\b`)

// runStep makes a step of what is left of a RUN line, with the variables that
// it uses.
func (c *containerDraft) runStep(r *runRest) {
	if !r.does {
		return
	}
	line, text := r.n.StartLine, strings.Join(r.lines, "\n")
	what := "RUN " + strings.Join(r.lines, "; ")
	switch {
	case fetches.MatchString(text):
		c.note(line, what, "it needs a network, which a build has not: what it fetches has to be an input, and the rest a run step, chroot \"$ROOT\" …")
		return
	case c.user != "":
		c.note(line, what, "it is run as "+c.user+", and a step is root: what it does can be a run step, with the owners given by an .owners file beside an overlay")
		return
	}
	for _, f := range r.n.Flags {
		if !strings.Contains(f, "type=cache") && !strings.Contains(f, "type=tmpfs") {
			c.note(line, f, "the step has none of it: what it mounts has to be an input")
		}
	}
	head := "set -e\n"
	for _, name := range slices.Sorted(maps.Keys(c.vars)) {
		if regexp.MustCompile(`\$\{?` + regexp.QuoteMeta(name) + `\b`).MatchString(text) {
			head += "export " + name + "=" + quote(c.vars[name]) + "\n"
		}
	}
	if c.workdir != "" {
		head += "mkdir -p " + quote(c.workdir) + "\ncd " + quote(c.workdir) + "\n"
	}
	if c.step(line, what, "Of "+shorten(c.at)+", line "+fmt.Sprint(line)+": see that it needs no network and no running system.", inRoot("/bin/bash -c", head+text)) {
		c.ran = true
		c.note(line, what, "it is a run step now, which has no network, nothing of the base image and no running system: see that it needs none")
	}
}
