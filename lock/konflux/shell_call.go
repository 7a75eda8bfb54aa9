package konflux

import (
	"path"
	"slices"
	"strings"

	"mvdan.cc/sh/v3/syntax"
)

// callExpr runs a simple command.
func (s *shell) callExpr(c *syntax.CallExpr) outcome {
	if len(c.Args) == 0 {
		for _, a := range c.Assigns {
			if a.Name != nil {
				s.assign(a)
			}
		}
		return runs
	}
	args, known := s.fields(c.Args)
	if s.err != nil {
		return runs
	}
	if !known {
		why := s.why
		if asksManager(c.Args) {
			s.fail(c.Pos(), "%s: %s", strings.Join(literals(c.Args), " "), why)
		}
		s.out.unknown(why)
		if len(c.Args) > 0 && isTest(c.Args[0].Lit()) {
			return depends
		}
		return runs
	}
	return s.call(args, c)
}

func isTest(name string) bool { return name == "[" || name == "test" }

// literals are the words of a command as far as they are plain; "…" stands
// for the others.
func literals(words []*syntax.Word) []string {
	var out []string
	for _, w := range words {
		l := w.Lit()
		if l == "" {
			l = "…"
		}
		out = append(out, l)
	}
	return out
}

// asksManager tells whether a command whose words are not all known may be
// one of the package manager: it is called so, or its name is not known and
// the next words are like the package manager's.
func asksManager(words []*syntax.Word) bool {
	lits := literals(words)
	if quiet(lits[0]) {
		return false
	}
	if slices.ContainsFunc(lits, isManager) {
		return true
	}
	return lits[0] == "…" && slices.ContainsFunc(lits[1:], func(l string) bool {
		return slices.Contains([]string{"install", "reinstall", "groupinstall", "builddep", "localinstall"}, l)
	})
}

// quiet are commands that run none of their words.
func quiet(name string) bool {
	switch path.Base(name) {
	case "echo", "printf", "which", "type", "rpm", "grep", "sed", "rm", "ls", "cat", "mkdir", "touch", "chmod", "chown", "cp", "mv", "ln", "test", "[", "export":
		return true
	}
	return false
}

// call runs a command whose words are known. c is where it is; nil for the
// words of a RUN line in its JSON form.
func (s *shell) call(args []string, c *syntax.CallExpr) outcome {
	var pos syntax.Pos
	if c != nil {
		pos = c.Pos()
	}
	if len(args) > 1 && args[0] == "command" && strings.EqualFold(args[1], "-v") {
		s.out.unknown("what command -v writes")
		return depends
	}
	for len(args) > 0 && isPrefix(args[0]) {
		args = args[1:]
		for len(args) > 0 && (strings.HasPrefix(args[0], "-") || strings.Contains(args[0], "=")) {
			args = args[1:]
		}
	}
	if len(args) == 0 {
		return runs
	}
	name := args[0]
	switch {
	case isManager(name):
		return s.manager(args, pos)
	case s.funcs[name] != nil:
		return s.function(args)
	}
	if o, ok := s.builtin(args, pos); ok {
		return o
	}
	if quiet(name) {
		s.out.unknown("what " + name + " writes")
		return depends
	}
	if i := slices.IndexFunc(args, isManager); i > 0 && len(parseDNF(args[i+1:]).words) > 0 {
		return s.manager(args[i:], pos) // timeout 60 dnf install …
	}
	if strings.ContainsAny(name, "/.") {
		if s.scriptFile(name, args[1:]) {
			return runs
		}
	}
	s.out.unknown("what " + name + " writes")
	return runs
}

// isPrefix tells whether a command only runs the words after it.
func isPrefix(name string) bool {
	switch path.Base(name) {
	case "sudo", "env", "command", "exec", "nice", "nohup", "time", "builtin", "catchsegv", "stdbuf":
		return true
	}
	return false
}

// manager notes what the package manager is asked for. It is taken to
// succeed, as it does with all that it asks for at hand.
func (s *shell) manager(args []string, pos syntax.Pos) outcome {
	if err := s.w.req.addDNF(args[0], args[1:], s.at(pos)); err != nil {
		s.fail(pos, "%s: %w", path.Base(args[0]), err)
	}
	s.out.unknown("what " + args[0] + " writes")
	return succeeds
}

func (s *shell) function(args []string) outcome {
	old := s.args
	s.args, s.depth = args[1:], s.depth+1
	o := s.stmt(s.funcs[args[0]])
	s.args, s.depth, s.ended = old, s.depth-1, false
	return o
}

// builtin runs what the shell does itself, and some programs of which it can
// be told what they do.
func (s *shell) builtin(args []string, pos syntax.Pos) (outcome, bool) {
	switch path.Base(args[0]) {
	case "true", ":", "set", "cd", "umask", "shopt", "ulimit", "trap", "shift":
		if args[0] == "shift" && len(s.args) > 0 {
			s.args = s.args[1:]
		}
		return succeeds, true
	case "false":
		return fails, true
	case "exit", "return":
		s.ended = s.ended || s.sure
		return runs, true
	case "unset":
		for _, a := range args[1:] {
			delete(s.vars, a)
		}
		return succeeds, true
	case "read", "mapfile", "readarray", "getopts":
		for _, a := range args[1:] {
			if !strings.HasPrefix(a, "-") {
				s.vars[a] = variable{why: "it is read while the image is built"}
			}
		}
		return runs, true
	case "[", "test":
		return s.testArgs(args), true
	case "eval":
		s.nested(func(c *shell) { c.script(strings.Join(args[1:], " ")) })
		return runs, true
	case "source", ".":
		if len(args) > 1 {
			s.source(args[1])
		}
		return runs, true
	case "sh", "bash", "dash", "ksh":
		s.shellProgram(args)
		return runs, true
	case "xargs":
		return s.xargs(args, pos), true
	}
	return s.writer(args)
}

// nested runs something in this shell, one level deeper.
func (s *shell) nested(run func(*shell)) {
	s.depth++
	if s.depth <= maxNested {
		run(s)
	} else {
		s.fail(syntax.Pos{}, "scripts that call each other too deeply")
	}
	s.depth--
}

// writer runs a program that writes something which can be told.
func (s *shell) writer(args []string) (outcome, bool) {
	flags, rest := 0, args[1:]
	for flags < len(rest) && len(rest[flags]) > 1 && rest[flags][0] == '-' {
		flags++
	}
	words := rest[flags:]
	if arch, ok := s.archOf(path.Base(args[0]), rest); ok {
		s.write(arch + "\n")
		return succeeds, true
	}
	switch path.Base(args[0]) {
	case "echo":
		text := strings.Join(words, " ")
		if flags == 0 || !strings.Contains(rest[0], "n") {
			text += "\n"
		}
		s.write(text)
	case "printf":
		if len(words) == 0 || strings.ContainsAny(strings.ReplaceAll(words[0], "%s", ""), `%\`) && words[0] != `%s\n` {
			return depends, false
		}
		s.printf(words[0], words[1:])
	case "cat":
		s.cat(words)
	case "grep", "egrep":
		if !s.grep(rest[:flags], words) {
			return depends, false
		}
	case "tr":
		if s.out != nil && s.in != nil && slices.Equal(rest, []string{`\n`, " "}) {
			s.out.unknown(s.in.why)
			s.write(strings.ReplaceAll(s.in.b.String(), "\n", " "))
			break
		}
		return depends, false
	default:
		return depends, false
	}
	return succeeds, true
}

// archOf is what a program writes that only tells the arch.
func (s *shell) archOf(program string, args []string) (string, bool) {
	switch {
	case program == "arch",
		program == "uname" && len(args) == 1 && slices.Contains([]string{"-m", "-p", "-i", "--machine"}, args[0]):
		return s.w.arch, true
	case program == "go" && slices.Equal(args, []string{"env", "GOARCH"}):
		return strings.Split(goArch(s.w.arch), "/")[0], true
	}
	return "", false
}

func (s *shell) printf(format string, words []string) {
	format = strings.ReplaceAll(format, `\n`, "\n")
	if len(words) == 0 {
		words = []string{""}
	}
	if !strings.Contains(format, "%s") {
		s.write(format)
		return
	}
	for len(words) > 0 {
		text := format
		for strings.Contains(text, "%s") {
			word := ""
			if len(words) > 0 {
				word, words = words[0], words[1:]
			}
			before, after, _ := strings.Cut(text, "%s")
			s.write(before + word)
			text = after
		}
		s.write(text)
	}
}

// cat writes files, or what is read.
func (s *shell) cat(names []string) {
	if len(names) == 0 {
		s.copyIn()
		return
	}
	for _, name := range names {
		if s.out == nil {
			return
		}
		b, ok := s.w.file(name)
		if !ok {
			s.out.unknown("the file " + name + ", which is not in the build's folder")
			return
		}
		s.write(string(b))
	}
}

// grep writes the lines that are no comments, which is what package lists are
// put through. It tells whether that is what is asked for.
func (s *shell) grep(flags, words []string) bool {
	if s.out == nil || len(words) == 0 || !slices.Contains([]string{"^#", "^(#|$)", "^\\s*#", "^\\s*(#|$)", "^$", "^[[:space:]]*#"}, words[0]) {
		return false
	}
	if !slices.ContainsFunc(flags, func(f string) bool { return strings.Contains(f, "v") }) {
		return false
	}
	text := &output{}
	reader := *s
	reader.out = text
	reader.cat(words[1:])
	s.out.unknown(text.why)
	for line := range strings.Lines(text.b.String()) {
		if t := strings.TrimSpace(line); t != "" && t[0] != '#' {
			s.write(line)
		}
	}
	return true
}

// xargs runs a command with the words that it reads.
func (s *shell) xargs(args []string, pos syntax.Pos) outcome {
	i := slices.IndexFunc(args, isManager)
	if i < 0 {
		s.out.unknown("what xargs writes")
		return runs
	}
	switch {
	case s.in == nil:
		s.fail(pos, "xargs %s: what it reads cannot be told", path.Base(args[i]))
		return runs
	case s.in.why != "":
		s.fail(pos, "xargs %s: what it reads cannot be told: %s", path.Base(args[i]), s.in.why)
		return runs
	}
	call := slices.DeleteFunc(slices.Clone(args[i:]), func(a string) bool { return a == "{}" })
	for line := range strings.Lines(s.in.b.String()) {
		if t := strings.TrimSpace(line); t != "" && t[0] != '#' {
			call = append(call, strings.Fields(t)...)
		}
	}
	return s.manager(call, pos)
}

// shellProgram is sh -c TEXT or sh FILE.
func (s *shell) shellProgram(args []string) {
	for i := 1; i < len(args); i++ {
		a := args[i]
		switch {
		case a == "-o" || a == "+o" || a == "-O":
			i++
		case strings.HasPrefix(a, "--"):
		case len(a) > 1 && (a[0] == '-' || a[0] == '+'):
			if a[0] == '-' && strings.Contains(a, "c") && i+1 < len(args) {
				c := s.child()
				c.args = args[min(i+3, len(args)):]
				c.nested(func(c *shell) { c.script(args[i+1]) })
				s.err = c.err
				return
			}
		default:
			s.scriptFile(a, args[i+1:])
			return
		}
	}
	if s.in != nil && s.in.why == "" { // bash <<EOF
		c := s.child()
		text := c.in.b.String()
		c.in = nil
		c.nested(func(c *shell) { c.script(text) })
		s.err = c.err
	}
}

// scriptFile runs a script of the build's folder, in a shell of its own, and
// tells whether there is one.
func (s *shell) scriptFile(name string, args []string) bool {
	b, ok := s.w.file(name)
	if !ok || !isScript(name, b) {
		return false
	}
	c := s.child()
	c.file, c.line, c.args, c.in = path.Base(name), 0, args, nil
	c.nested(func(c *shell) { c.script(string(b)) })
	s.err = c.err
	s.out.unknown("what " + name + " writes")
	return true
}

// source runs a script of the build's folder in this shell.
func (s *shell) source(name string) {
	b, ok := s.w.file(name)
	if !ok {
		return
	}
	file, line := s.file, s.line
	s.file, s.line = path.Base(name), 0
	s.nested(func(s *shell) { s.script(string(b)) })
	s.file, s.line = file, line
}

// isScript tells whether a file is a shell's.
func isScript(name string, b []byte) bool {
	first, _, _ := strings.Cut(string(b[:min(len(b), 200)]), "\n")
	if strings.HasPrefix(first, "#!") {
		return isShell(first)
	}
	return strings.HasSuffix(name, ".sh")
}

// isShell tells whether a script's first line names a shell.
func isShell(first string) bool {
	for w := range strings.FieldsSeq(strings.TrimPrefix(first, "#!")) {
		switch path.Base(w) {
		case "sh", "bash", "dash", "ksh":
			return true
		}
	}
	return false
}
