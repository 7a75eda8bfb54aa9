package start

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
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

// maxRuns is how many RUN lines a Containerfile may have here: each is
// followed on its own, with all that stands before it.
const maxRuns = 200

// containerfile takes packages, units and files of the last stage of a
// Containerfile, and of the stages that it is made from.
func (d *draft) containerfile(name string, b []byte) error {
	whole, err := konflux.ParseContainerfile(name, b, nil)
	if err != nil {
		return err
	}
	parsed, err := parser.Parse(bytes.NewReader(b))
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	last, err := whole.Select(konflux.ContainerfileRef{})
	if err != nil {
		return err
	}
	c := containerDraft{draft: d, name: name, lines: bytes.SplitAfter(b, []byte("\n")), nodes: parsed.AST.Children, folder: filepath.Dir(name)}
	c.arch = "x86_64"
	if len(d.m.Arches) > 0 {
		c.arch = d.m.Arches[0]
	}
	if err := c.stages(); err != nil {
		return err
	}
	if image, err := last.Image(); err == nil {
		c.base(image)
	}
	for _, i := range c.final() {
		c.instruction(c.nodes[i])
	}
	return nil
}

// containerDraft is what is needed while a Containerfile is read.
type containerDraft struct {
	*draft
	name, arch, folder string
	lines              [][]byte
	nodes              []*parser.Node
	starts             []int // of the stages
	names              []string
}

func value(n *parser.Node) []string {
	var out []string
	for n = n.Next; n != nil; n = n.Next {
		out = append(out, n.Value)
	}
	return out
}

func (c *containerDraft) stages() error {
	runs := 0
	for i, n := range c.nodes {
		switch strings.ToLower(n.Value) {
		case "from":
			c.starts = append(c.starts, i)
			stage := ""
			if words := value(n); len(words) == 3 {
				stage = words[2]
			}
			c.names = append(c.names, strings.ToLower(stage))
		case "run":
			if runs++; runs > maxRuns {
				return fmt.Errorf("%s:%d: more than the %d RUN lines that are followed", c.name, n.StartLine, maxRuns)
			}
		}
	}
	return nil
}

// final are the instructions of the last stage and of those it is made from.
// The others are named in notes.
func (c *containerDraft) final() []int {
	used := map[int]bool{}
	for at := len(c.starts) - 1; at >= 0 && !used[at]; {
		used[at] = true
		next := -1
		if words := value(c.nodes[c.starts[at]]); len(words) > 0 {
			next = slices.Index(c.names[:at], strings.ToLower(words[0]))
		}
		at = next
	}
	var out []int
	for stage, start := range c.starts {
		end := len(c.nodes)
		if stage+1 < len(c.starts) {
			end = c.starts[stage+1]
		}
		if !used[stage] {
			c.note(c.nodes[start].StartLine, c.nodes[start].Original, "only the last stage is taken over: what this one compiles has to be a go, cargo or run step, what it copies an input")
			continue
		}
		for i := start; i < end; i++ {
			out = append(out, i)
		}
	}
	return out
}

var distroTag = regexp.MustCompile(`^(?:stream|[a-z.]*-)?([0-9]+(?:\.[0-9]+)?)(?:[.-].*)?$`)

// base tells from the base image which distribution it is.
func (c *containerDraft) base(image string) {
	if image == "scratch" {
		return
	}
	repository, tag, _ := strings.Cut(strings.SplitN(image, "@", 2)[0], ":")
	release := ""
	if m := distroTag.FindStringSubmatch(tag); m != nil {
		release = m[1]
	}
	for _, k := range []struct{ in, id string }{{"centos", "centos"}, {"fedora", "fedora"}, {"ubi", "rhel"}, {"rhel", "rhel"}} {
		part := regexp.MustCompile(`(?:^|/)` + k.in + `-?([0-9]*)(?:-(?:bootc|minimal|init|micro))?(?:/|$)`).FindStringSubmatch(repository)
		if part == nil {
			continue
		}
		if part[1] != "" {
			release = part[1]
		}
		c.is(k.id, release)
		return
	}
}

func (c *containerDraft) instruction(n *parser.Node) {
	what := n.Original
	switch strings.ToLower(n.Value) {
	case "from":
		if words := value(n); len(words) > 0 && words[0] != "scratch" && !slices.Contains(c.names, strings.ToLower(words[0])) {
			c.note(n.StartLine, what, "an image's root starts from nothing: what the base brings has to be named in sets.root")
		}
	case "run":
		c.run(n)
	case "copy", "add":
		c.copy(n)
	case "arg", "env", "label", "shell", "maintainer", "stopsignal", "onbuild":
		if v := strings.ToLower(n.Value); v == "env" || v == "onbuild" {
			c.note(n.StartLine, what, "a machine has no environment of its image: set it in the units that need it")
		}
	case "cmd", "entrypoint", "healthcheck":
		c.note(n.StartLine, what, "a machine starts units: write one, put it into an overlay, and enable it in image.services")
	case "user", "workdir", "expose", "volume":
		c.note(n.StartLine, what, "it is a container's, and a machine has no such thing")
	default:
		c.note(n.StartLine, what, "it is not known here")
	}
}

var (
	octalMode = regexp.MustCompile(`^[0-7]{3,4}$`)
	stageNum  = regexp.MustCompile(`^[0-9]+$`)
)

func (c *containerDraft) copy(n *parser.Node) {
	words, mode := value(n), ""
	for _, f := range n.Flags {
		switch k, v, _ := strings.Cut(strings.TrimPrefix(f, "--"), "="); k {
		case "from":
			c.copyFrom(n, v)
			return
		case "chmod":
			if octalMode.MatchString(v) {
				mode = v
			} else {
				c.note(n.StartLine, f, "only octal modes are carried over")
			}
		case "chown":
			if !slices.Contains([]string{"root", "root:root", "0:0", "0"}, v) {
				c.note(n.StartLine, f, "owners are given by an .owners file beside an overlay")
			}
		}
	}
	if len(words) < 2 {
		return
	}
	to := words[len(words)-1]
	if len(words) > 2 {
		to = strings.TrimSuffix(to, "/") + "/"
	}
	for _, from := range words[:len(words)-1] {
		c.copyOne(n, from, to, mode)
	}
}

// copyFrom is about COPY --from another stage or an image.
func (c *containerDraft) copyFrom(n *parser.Node, from string) {
	if slices.Contains(c.names, strings.ToLower(from)) || stageNum.MatchString(from) {
		c.note(n.StartLine, n.Original, "what another stage makes has to be made by a step")
		return
	}
	c.image(n.StartLine, from)
	c.note(n.StartLine, n.Original, "the image is an input, and what is taken out of its layers needs a run step")
}

// copyOne takes over one source of COPY or ADD.
func (c *containerDraft) copyOne(n *parser.Node, from, to, mode string) {
	what := strings.ToUpper(n.Value) + " " + from + " " + to
	for _, h := range n.Heredocs {
		if strings.Trim(strings.TrimLeft(from, "<-"), `"'`) == h.Name && path.IsAbs(to) && !strings.ContainsRune(to, '$') {
			c.text(n.StartLine, what, h.Content, to)
			return
		}
	}
	switch {
	case strings.ContainsRune(from+to, '$'):
		c.note(n.StartLine, what, "it has a variable in it")
	case !path.IsAbs(to):
		c.note(n.StartLine, what, "where it goes depends on WORKDIR: say the whole path")
	case strings.Contains(from, "://"):
		c.note(n.StartLine, what, "a file from a server is an input with its SHA-256: name it in inputs.files, and install it by a run step")
	case strings.ContainsAny(from, "*?["):
		c.note(n.StartLine, what, "it is a pattern: name the files")
	default:
		c.place(n.StartLine, what, filepath.Join(c.folder, filepath.FromSlash(path.Clean("/"+from))), to, mode)
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
// that it enables. Its other commands are noted.
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
		c.command(n.StartLine, value(n), script)
		return
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
	for _, s := range file.Stmts {
		c.statement(n.StartLine, s)
	}
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

// statement takes the commands of a RUN line apart that follow one another.
func (c *containerDraft) statement(line int, s *syntax.Stmt) {
	switch x := s.Cmd.(type) {
	case *syntax.BinaryCmd:
		if x.Op == syntax.AndStmt || x.Op == syntax.OrStmt {
			c.statement(line, x.X)
			c.statement(line, x.Y)
			return
		}
	case *syntax.Block:
		for _, s := range x.Stmts {
			c.statement(line, s)
		}
		return
	case *syntax.CallExpr:
		var words []string
		for _, w := range x.Args {
			words = append(words, w.Lit())
		}
		if len(s.Redirs) == 0 {
			c.command(line, words, printed(s))
			return
		}
	}
	if text := printed(s); !mentionsManager(text) {
		c.note(line, "RUN "+text, "it is no package: what it does to the root can be a run step, chroot \"$ROOT\" …")
	}
}

func printed(s *syntax.Stmt) string {
	var b strings.Builder
	if err := syntax.NewPrinter(syntax.SingleLine(true)).Print(&b, s); err != nil {
		return "…"
	}
	return b.String()
}

var manager = regexp.MustCompile(`\b(dnf|dnf5|microdnf|yum)\b`)

// mentionsManager tells whether a command is one that requests has followed.
func mentionsManager(text string) bool { return manager.MatchString(text) }

// command looks at one command of a RUN line.
func (c *containerDraft) command(line int, words []string, text string) {
	if len(words) == 0 {
		return
	}
	switch name := path.Base(words[0]); {
	case name == "systemctl" && len(words) > 2 && slices.Contains([]string{"enable", "disable", "mask"}, words[1]) && !slices.Contains(words, ""):
		units := slices.DeleteFunc(slices.Clone(words[2:]), func(w string) bool { return strings.HasPrefix(w, "-") })
		c.services(line, words[1], units...)
	case mentionsManager(text), slices.Contains([]string{"set", "true", ":", "."}, name):
	case name == "rm" && strings.Contains(text, "/var/cache"), name == "rm" && strings.Contains(text, "/var/lib/dnf"), name == "subscription-manager":
		// What a package manager leaves behind, or needs, is not in an image.
	default:
		c.note(line, "RUN "+text, "it is no package: what it does to the root can be a run step, chroot \"$ROOT\" …")
	}
}

// folderOf tells whether a path is a folder.
func folderOf(name string) bool {
	st, err := os.Stat(name)
	return err == nil && st.IsDir()
}
