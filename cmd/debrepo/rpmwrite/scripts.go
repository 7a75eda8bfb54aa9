package rpmwrite

import "sort"

// Tags of transaction file triggers.
const (
	tagTransScripts    = 5076
	tagTransScriptProg = 5077
	tagTransName       = 5079
	tagTransIndex      = 5080
	tagTransVersion    = 5081
	tagTransSense      = 5082
	tagTransPriorities = 5085
)

// addScripts writes the scriptlets and says what they need.
func addScripts(s *store, scripts []Script) []Dep {
	var deps []Dep
	for _, x := range scripts {
		body, prog, sense := uint32(1023), uint32(1085), Pre // RPMTAG_PREIN, RPMTAG_PREINPROG
		switch x.Kind {
		case PostIn:
			body, prog, sense = 1024, 1086, post
		case PostTrans:
			body, prog, sense = 1152, 1154, 0
		}
		s.text(body, x.Body)
		s.text(prog, x.Prog)
		if x.Prog != "<lua>" {
			deps = append(deps, Dep{Name: x.Prog, Sense: interp | sense})
		}
	}
	return deps
}

// addTriggers writes the transaction file triggers: arrays by script, and arrays by path which point at scripts.
func addTriggers(s *store, triggers []Trigger) []Dep {
	var deps []Dep
	var bodies, progs, names, versions []string
	var priorities, indexes, senses []uint32
	for i, t := range triggers {
		bodies, progs = append(bodies, t.Body), append(progs, t.Prog)
		priorities = append(priorities, t.Priority)
		paths := append([]string(nil), t.Paths...)
		sort.Strings(paths)
		for _, p := range paths {
			names, versions = append(names, p), append(versions, "")
			indexes, senses = append(indexes, uint32(i)), append(senses, uint32(triggerIn))
		}
		if t.Prog != "<lua>" {
			deps = append(deps, Dep{Name: t.Prog, Sense: interp})
		}
	}
	s.texts(tagTransScripts, bodies)
	s.texts(tagTransScriptProg, progs)
	s.texts(tagTransName, names)
	s.int32s(tagTransIndex, indexes...)
	s.texts(tagTransVersion, versions)
	s.int32s(tagTransSense, senses...)
	s.int32s(tagTransPriorities, priorities...)
	return deps
}
