package diff

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// Bounds of what is said, unless Options say otherwise.
const (
	defaultNodes = 2000
	defaultBytes = 1 << 20
)

// differ is one comparison.
type differ struct {
	ctx      context.Context
	a, b     Source
	nodes    int           // that may still be made
	bytes    int           // of unified diffs that may still be made
	children int           // of one node at most
	omitted  map[*Node]int // children that were not made
	work     int64         // bytes that may still be unpacked
	held     int64         // bytes that one content may have
	memory   int64         // bytes that may be in memory
	reads    int64         // bytes of files that may still be compared
}

func newDiffer(ctx context.Context, a, b Source, o Options) *differ {
	d := &differ{ctx: ctx, a: a, b: b, nodes: o.MaxNodes, bytes: o.MaxBytes, omitted: map[*Node]int{}, work: maxWork, held: maxHeld, memory: maxMemory}
	d.reads = maxWork + 4*(a.Size+b.Size)
	if d.nodes <= 0 {
		d.nodes = defaultNodes
	}
	if d.bytes <= 0 {
		d.bytes = defaultBytes
	}
	d.children = max(20, d.nodes/4)
	if d.a.Owner == nil {
		d.a.Owner = func(string, string) string { return "" }
	}
	if d.b.Owner == nil {
		d.b.Owner = func(string, string) string { return "" }
	}
	return d
}

// child adds a node for path below parent. It returns nil, and counts, where
// there are too many; all that is done with a node does nothing with nil.
func (d *differ) child(parent *Node, path string) *Node {
	if parent == nil {
		return nil
	}
	if d.nodes <= 0 || len(parent.Details) >= d.children {
		d.omitted[parent]++
		return nil
	}
	d.nodes--
	path = oneLine(path)
	n := &Node{Source1: path, Source2: path}
	parent.Details = append(parent.Details, n)
	return n
}

// only adds a node for what one side alone has.
func (d *differ) only(parent *Node, path string, first bool) *Node {
	n := d.child(parent, path)
	if n == nil {
		return nil
	}
	if first {
		n.Source2 = missing
		n.comment("only in " + d.a.Name)
	} else {
		n.Source1 = missing
		n.comment("only in " + d.b.Name)
	}
	return n
}

// text gives n a unified diff of lines.
func (d *differ) text(n *Node, a, b []string, first int64) {
	if n == nil {
		return
	}
	u := unified(a, b, first)
	switch {
	case u == "":
	case len(u) > d.bytes:
		n.comment("what differs is not shown: the report is long enough")
	default:
		d.bytes -= len(u)
		if n.UnifiedDiff != nil {
			u = *n.UnifiedDiff + u
		}
		n.UnifiedDiff = &u
	}
}

// owner says what a file is made of: as the builder's account has it, else as
// the image's own package databases.
func (c *comparison) owner(n *Node, path string) {
	if n == nil {
		return
	}
	of := func(s Source, t *tree) string {
		if by := s.Owner(c.spot.part, path); by != "" {
			return by
		}
		if t.owners == nil {
			t.owners = c.readOwners(t)
		}
		return t.owners.of(path)
	}
	a, b := "", ""
	if n.Source1 != missing {
		a = of(c.differ.a, c.a)
	}
	if n.Source2 != missing {
		b = of(c.differ.b, c.b)
	}
	switch {
	case a == "" && b == "":
	case a == b || b == "":
		n.comment("from " + a)
	case a == "":
		n.comment("from " + b)
	default:
		n.comment(fmt.Sprintf("from %s in %s, from %s in %s", a, c.differ.a.Name, b, c.differ.b.Name))
	}
}

// failed says of which side a structure is damaged.
func (d *differ) failed(n *Node, errA, errB error) {
	if errA != nil {
		n.comment(d.a.Name + ": " + errA.Error())
	}
	if errB != nil {
		n.comment(d.b.Name + ": " + errB.Error())
	}
}

// notShown ends the comment on what was left out.
const notShown = " are not shown here"

// finish says what was left out.
func (d *differ) finish(n *Node) {
	if c := d.omitted[n]; c > 0 {
		n.comment(fmt.Sprintf("%d more differences%s", c, notShown))
	}
	for _, c := range n.Details {
		d.finish(c)
	}
}

// prune drops nodes below n that say nothing.
func prune(n *Node) {
	for _, c := range n.Details {
		prune(c)
	}
	n.Details = slices.DeleteFunc(n.Details, func(c *Node) bool {
		return !c.said()
	})
}

// join is a path within another thing.
func join(outer, inner string) string { return outer + " → " + inner }

// absolute is a path as it is shown, with one slash in front.
func absolute(path string) string {
	return "/" + strings.TrimPrefix(strings.TrimPrefix(path, "./"), "/")
}
