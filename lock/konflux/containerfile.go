package konflux

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/parser"
	dockershell "github.com/moby/buildkit/frontend/dockerfile/shell"
)

// ContainerfileRef names a stage of a Containerfile: by its number from 1,
// its name, or a regular expression that its base image matches; of several,
// what matches first; the last stage where none is given.
type ContainerfileRef struct {
	File         string // relative to the file that names it
	StageNum     int
	StageName    string
	ImagePattern string
	// ArgFile has KEY=VALUE lines: values of ARGs, as --build-arg-file gives
	// them.
	ArgFile string
}

// Containerfile is what is needed of one: its stages.
type Containerfile struct {
	name   string
	args   map[string]string // of ArgFile
	global map[string]argument
	stages []*Stage
	lex    *dockershell.Lex
}

// Stage is one stage of a Containerfile.
type Stage struct {
	Name string
	// Base is the image that the stage begins with, as it is written, through
	// all stages that it is made from; "scratch" for none.
	Base string
	// baseErr says why Base could not be told.
	baseErr error
	from    *Stage // another stage that it begins with
	nodes   []*parser.Node
	file    *Containerfile
}

// argument is the value of an ARG; without one where !set.
type argument struct {
	value string
	set   bool
}

// ParseContainerfile reads a Containerfile. args are the values of ARGs that
// are given from outside. name is how errors call the file.
func ParseContainerfile(name string, b []byte, args map[string]string) (*Containerfile, error) {
	if len(b) > maxFile {
		return nil, fmt.Errorf("%s: more than the %d bytes that are read", name, maxFile)
	}
	parsed, err := parser.Parse(bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	c := &Containerfile{name: name, args: args, global: map[string]argument{}, lex: dockershell.NewLex(parsed.EscapeToken)}
	for _, n := range parsed.AST.Children {
		switch {
		case strings.EqualFold(n.Value, "from"):
			err = c.addStage(n)
		case len(c.stages) > 0:
			s := c.stages[len(c.stages)-1]
			s.nodes = append(s.nodes, n)
		case strings.EqualFold(n.Value, "arg"):
			c.globalArg(n)
		default:
			err = fmt.Errorf("%s before the first FROM", strings.ToUpper(n.Value))
		}
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", name, n.StartLine, err)
		}
	}
	if len(c.stages) == 0 {
		return nil, fmt.Errorf("%s: no FROM", name)
	}
	return c, nil
}

// texts are the words of an instruction.
func texts(n *parser.Node) []string {
	var out []string
	for n = n.Next; n != nil; n = n.Next {
		out = append(out, n.Value)
	}
	return out
}

// globalArg reads an ARG before the first FROM. One whose value cannot be told
// has none: nothing is lost unless it is used.
func (c *Containerfile) globalArg(n *parser.Node) {
	for _, w := range texts(n) {
		name, value, ok := strings.Cut(w, "=")
		a := argument{}
		if v, err := c.expand(value, c.global); ok && err == nil {
			a = argument{v, true}
		}
		if v, ok := c.args[name]; ok {
			a = argument{v, true}
		}
		c.global[name] = a
	}
}

// argEnv gives the values of ARGs to the expansion.
type argEnv map[string]argument

func (e argEnv) Get(name string) (string, bool) { a := e[name]; return a.value, a.set }
func (e argEnv) Keys() []string                 { return slices.Sorted(maps.Keys(e)) }

// expand puts values into a word of an instruction. A variable without one is
// an error that names it.
func (c *Containerfile) expand(word string, vars map[string]argument) (string, error) {
	out, missing, err := c.lex.ProcessWord(word, argEnv(vars))
	if err != nil {
		return "", fmt.Errorf("%q: %w", word, err)
	}
	for _, name := range slices.Sorted(maps.Keys(missing)) {
		if strings.Contains(word, "${"+name+":-") || strings.Contains(word, "${"+name+"-") || strings.Contains(word, "${"+name+":+") || strings.Contains(word, "${"+name+"+") {
			continue // it says itself what then
		}
		return "", fmt.Errorf("%q: variable %s has no value; give it one in an argFile", word, name)
	}
	return out, nil
}

func (c *Containerfile) addStage(n *parser.Node) error {
	words := texts(n)
	if len(words) != 1 && (len(words) != 3 || !strings.EqualFold(words[1], "as")) {
		return fmt.Errorf("FROM %s: want FROM IMAGE [AS NAME]", strings.Join(words, " "))
	}
	s := &Stage{file: c}
	if len(words) == 3 {
		s.Name = words[2]
	}
	base, err := c.expand(words[0], c.global)
	if err != nil {
		s.baseErr = fmt.Errorf("%s:%d: FROM: %w", c.name, n.StartLine, err)
	}
	s.Base = base
	if i := slices.IndexFunc(c.stages, func(o *Stage) bool { return o.Name != "" && strings.EqualFold(o.Name, base) }); i >= 0 {
		s.from = c.stages[i]
		s.Base, s.baseErr = s.from.Base, s.from.baseErr
	}
	c.stages = append(c.stages, s)
	return nil
}

// Select finds a stage.
func (c *Containerfile) Select(ref ContainerfileRef) (*Stage, error) {
	if ref.StageNum == 0 && ref.StageName == "" && ref.ImagePattern == "" {
		return c.stages[len(c.stages)-1], nil
	}
	var pattern *regexp.Regexp
	if ref.ImagePattern != "" {
		var err error
		if pattern, err = regexp.Compile(ref.ImagePattern); err != nil {
			return nil, fmt.Errorf("imagePattern: %w", err)
		}
	}
	for i, s := range c.stages {
		if ref.StageName != "" && strings.EqualFold(s.Name, ref.StageName) || ref.StageNum == i+1 || pattern != nil && s.baseErr == nil && pattern.MatchString(s.Base) {
			return s, nil
		}
	}
	return nil, fmt.Errorf("%s: none of its %d stages is the one that stageNum, stageName or imagePattern asks for", c.name, len(c.stages))
}

// Image is Base, or why it cannot be told.
func (s *Stage) Image() (string, error) { return s.Base, s.baseErr }

// Requests is what a stage's RUN lines ask the package manager for.
type Requests struct {
	Install, Reinstall, Upgrade []string
	ModuleEnable, ModuleDisable []string
	// BuildDep are packages whose build requirements are asked for.
	BuildDep []string
	// AllowErasing says that a line has --allowerasing, or swaps packages.
	AllowErasing bool
	// InstallRoot is the place of the first line that installs into another
	// root, which begins empty; empty where there is none.
	InstallRoot string
}

// sort puts all lists in order, each entry once.
func (r *Requests) sort() {
	for _, l := range []*[]string{&r.Install, &r.Reinstall, &r.Upgrade, &r.ModuleEnable, &r.ModuleDisable, &r.BuildDep} {
		slices.Sort(*l)
		*l = slices.Compact(*l)
	}
}

// Requests reads the RUN lines of the stage, and of those that it is made
// from, as they would be run on an arch. read gives a file of the build's
// folder, or an error that is fs.ErrNotExist. What asks the package manager
// for something that cannot be told is an error.
func (s *Stage) Requests(arch string, read func(name string) ([]byte, error)) (*Requests, error) {
	w := &stageWalk{c: s.file, arch: arch, read: read, req: &Requests{}, vars: map[string]argument{}, budget: maxStatements}
	if err := w.stage(s); err != nil {
		return nil, err
	}
	w.req.sort()
	return w.req, nil
}

// stageWalk follows the instructions of a stage.
type stageWalk struct {
	c      *Containerfile
	arch   string
	read   func(string) ([]byte, error)
	req    *Requests
	vars   map[string]argument // ARG and ENV; what has no value is not set
	env    map[string]bool     // those that are ENV: they are stronger
	copies []copied
	budget int
}

func (w *stageWalk) stage(s *Stage) error {
	if s.from != nil {
		if err := w.stage(s.from); err != nil {
			return err
		}
	}
	// An ARG ends with its stage; an ENV stays.
	for name := range w.vars {
		if !w.env[name] {
			delete(w.vars, name)
		}
	}
	for _, n := range s.nodes {
		var err error
		switch strings.ToLower(n.Value) {
		case "arg":
			w.arg(n)
		case "env":
			err = w.setEnv(n)
		case "copy", "add":
			w.copy(n)
		case "run":
			if err := w.run(n); err != nil {
				return err // it has its place already
			}
		}
		if err != nil {
			return fmt.Errorf("%s:%d: %w", w.c.name, n.StartLine, err)
		}
	}
	return nil
}

// platform are the values of the ARGs that a builder itself sets.
func platform(name, arch string) (string, bool) {
	goArch := goArch(arch)
	plain, variant, _ := strings.Cut(goArch, "/")
	switch name {
	case "TARGETPLATFORM", "BUILDPLATFORM":
		return "linux/" + goArch, true
	case "TARGETARCH", "BUILDARCH":
		return plain, true
	case "TARGETOS", "BUILDOS":
		return "linux", true
	case "TARGETVARIANT", "BUILDVARIANT":
		return variant, true
	}
	return "", false
}

// goArch is what container images call an arch of rpm: its GOARCH, with a
// variant after a slash for some.
func goArch(arch string) string {
	switch arch {
	case "x86_64":
		return "amd64"
	case "aarch64":
		return "arm64"
	case "i386", "i486", "i586", "i686":
		return "386"
	case "armv7hl", "armv7l":
		return "arm/v7"
	}
	return arch // ppc64le, s390x, riscv64 …
}

func (w *stageWalk) arg(n *parser.Node) {
	for _, text := range texts(n) {
		name, value, has := strings.Cut(text, "=")
		a := w.c.global[name]
		if has {
			v, err := w.c.expand(value, w.vars)
			if err == nil {
				a = argument{v, true}
			}
		} else if v, ok := platform(name, w.arch); ok && !a.set {
			a = argument{v, true}
		}
		if v, ok := w.c.args[name]; ok {
			a = argument{v, true}
		}
		if !w.env[name] {
			w.vars[name] = a
		}
	}
}

// setEnv reads an ENV: its values see what was there before it.
func (w *stageWalk) setEnv(n *parser.Node) error {
	words := texts(n)
	if len(words)%3 != 0 {
		return errors.New("ENV: want NAME=VALUE")
	}
	next := maps.Clone(w.vars)
	if w.env == nil {
		w.env = map[string]bool{}
	}
	for i := 0; i < len(words); i += 3 {
		v, err := w.c.expand(words[i+1], w.vars)
		next[words[i]] = argument{v, err == nil}
		w.env[words[i]] = true
	}
	w.vars = next
	return nil
}

// copied is a COPY, an ADD or a mount: where it is in the stage, and where in
// the build's folder, or what it holds.
type copied struct {
	to      string // ends in a slash where it is said to be a folder
	from    string
	content *string
	sources int
}

func (w *stageWalk) copy(n *parser.Node) {
	words := texts(n)
	if len(words) < 2 || slices.ContainsFunc(n.Flags, func(f string) bool { return strings.HasPrefix(f, "--from=") }) {
		return // from elsewhere
	}
	for i := range words {
		if v, err := w.c.expand(words[i], w.vars); err == nil {
			words[i] = v
		}
	}
	to := words[len(words)-1]
	for _, from := range words[:len(words)-1] {
		c := copied{to: to, from: from, sources: len(words) - 1}
		for _, h := range n.Heredocs {
			if strings.Trim(strings.TrimLeft(from, "<-0123456789"), `"'`) == h.Name {
				c.from, c.content = h.Name, &h.Content
			}
		}
		w.copies = append(w.copies, c)
	}
}

// mount notes what a RUN line mounts out of the build's folder.
func (w *stageWalk) mount(flag string) {
	spec, ok := strings.CutPrefix(flag, "--mount=")
	if !ok {
		return
	}
	c := copied{from: ".", sources: 1}
	kind := "bind"
	for o := range strings.SplitSeq(spec, ",") {
		k, v, _ := strings.Cut(o, "=")
		switch k {
		case "type":
			kind = v
		case "from":
			return
		case "source", "src":
			c.from = v
		case "target", "dst", "destination":
			c.to = v
		}
	}
	if kind == "bind" && c.to != "" {
		w.copies = append(w.copies, c)
	}
}

// file finds the content of a file of the stage as far as it came from the
// build's folder. Where its place cannot be told, a file of its name among
// those that were copied will do, and then one of the folder itself.
func (w *stageWalk) file(name string) ([]byte, bool) {
	try := func(from string) ([]byte, bool) {
		b, err := w.read(path.Clean("/" + from)[1:])
		return b, err == nil
	}
	clean := path.Clean("/" + name)[1:]
	for _, exact := range []bool{true, false} {
		for i := len(w.copies) - 1; i >= 0; i-- {
			for _, from := range w.copies[i].sourcesOf(clean, exact) {
				if c := w.copies[i].content; c != nil {
					return []byte(*c), true
				}
				if b, ok := try(from); ok {
					return b, true
				}
			}
		}
	}
	if rest, ok := strings.CutPrefix(clean, "src/"); ok {
		if b, ok := try(rest); ok {
			return b, true
		}
	}
	if !path.IsAbs(name) {
		if b, ok := try(clean); ok {
			return b, true
		}
	}
	return try(path.Base(clean))
}

// sourcesOf are the files of the build's folder that may be the one that is
// asked for: by its place, or by its name alone.
func (c *copied) sourcesOf(clean string, exact bool) []string {
	base := path.Base(c.from)
	if !exact {
		if ok, err := path.Match(base, path.Base(clean)); ok && err == nil {
			return []string{path.Join(path.Dir(c.from), path.Base(clean))}
		}
		return nil
	}
	to := path.Clean("/" + c.to)[1:]
	var out []string
	if to == clean && !strings.HasSuffix(c.to, "/") && c.sources == 1 {
		out = append(out, c.from)
	}
	rest, below := strings.CutPrefix(clean, to+"/")
	if to == "" {
		rest, below = clean, true
	}
	if below {
		out = append(out, path.Join(c.from, rest)) // a folder's content
		if ok, err := path.Match(base, rest); ok && err == nil {
			out = append(out, path.Join(path.Dir(c.from), rest))
		}
	}
	if c.content != nil && len(out) > 0 && clean != to && base != rest {
		return nil
	}
	return out
}

// heredocOnly is a RUN line that is nothing but a heredoc, which then is the
// script.
var heredocOnly = regexp.MustCompile(`^\s*<<-?\s*["']?[A-Za-z_][A-Za-z0-9_]*["']?\s*$`)

// run reads a RUN line.
func (w *stageWalk) run(n *parser.Node) error {
	mark := len(w.copies)
	for _, f := range n.Flags {
		w.mount(f)
	}
	defer func() { w.copies = w.copies[:mark] }()
	s := newShell(w, w.c.name, n.StartLine)
	if n.Attributes["json"] {
		s.call(texts(n), nil)
		return s.err
	}
	script := strings.Join(texts(n), " ")
	switch {
	case len(n.Heredocs) == 1 && heredocOnly.MatchString(script):
		script = n.Heredocs[0].Content
		if first, _, _ := strings.Cut(script, "\n"); strings.HasPrefix(first, "#!") && !isShell(first) {
			return nil
		}
	default:
		for _, h := range n.Heredocs {
			script += "\n" + h.Content + h.Name
		}
	}
	s.script(script)
	return s.err
}
