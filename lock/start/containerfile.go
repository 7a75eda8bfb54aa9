package start

import (
	"bytes"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/parser"
	dockershell "github.com/moby/buildkit/frontend/dockerfile/shell"

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
	c.lex, c.vars = dockershell.NewLex(parsed.EscapeToken), map[string]string{}
	for _, n := range c.nodes[:c.starts[0]] {
		c.assign(n)
	}
	first := len(d.m.Steps)
	for _, i := range c.final() {
		c.instruction(c.nodes[i])
	}
	if c.ran { // what is run finds what was copied before it
		d.stepsOnRoot(first)
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

	lex           *dockershell.Lex
	vars          map[string]string // of ARG and ENV, where they have a value
	user, workdir string
	ran           bool // a RUN line became a step
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
	case "user":
		c.user, _, _ = strings.Cut(strings.Join(value(n), " "), ":")
		if c.user == "root" || c.user == "0" {
			c.user = ""
			return
		}
		c.note(n.StartLine, what, "a machine's units run as root unless they say otherwise: User= in the unit")
	case "workdir":
		if dir, ok := c.expand(strings.Join(value(n), " ")); ok {
			c.workdir = path.Join("/", c.workdir, dir)
			if path.IsAbs(dir) {
				c.workdir = path.Clean(dir)
			}
		}
	case "arg", "env", "label", "shell", "maintainer", "stopsignal", "onbuild":
		c.assign(n)
		if v := strings.ToLower(n.Value); v == "env" || v == "onbuild" {
			c.note(n.StartLine, what, "a machine has no environment of its image: set it in the units that need it")
		}
	case "cmd", "entrypoint", "healthcheck":
		c.note(n.StartLine, what, "a machine starts units: write one, put it into an overlay, and enable it in image.services")
	case "expose", "volume":
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
	from, known := c.expand(from)
	to, also := c.expand(to)
	if !path.IsAbs(to) && c.workdir != "" && to != "" {
		folder := strings.HasSuffix(to, "/") || to == "."
		if to = path.Join(c.workdir, to); folder {
			to += "/"
		}
	}
	switch {
	case !known || !also:
		c.note(n.StartLine, what, "it has a variable in it, whose value is not known here")
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

// folderOf tells whether a path is a folder.
func folderOf(name string) bool {
	st, err := os.Stat(name)
	return err == nil && st.IsDir()
}
