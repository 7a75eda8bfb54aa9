package diff

import (
	"bufio"
	"encoding/json"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Printable is s with everything escaped that could do something to a
// terminal or mislead a reader: control characters, marks that reverse the
// direction of text, bytes that are no UTF-8. Tabs and line breaks stay.
func Printable(s string) string {
	var sb strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		char := s[i : i+n]
		i += n
		if r == '\n' || r == '\t' || strconv.IsPrint(r) && (r != utf8.RuneError || n > 1) {
			sb.WriteString(char)
			continue
		}
		q := strconv.Quote(char)
		sb.WriteString(q[1 : len(q)-1])
	}
	return sb.String()
}

// oneLine is Printable without line breaks.
func oneLine(s string) string { return strings.ReplaceAll(Printable(s), "\n", `\n`) }

// Text writes the nodes as an indented tree: the path, the comments below it,
// and what differs.
func Text(w io.Writer, nodes []*Node) error {
	bw := bufio.NewWriter(w)
	for _, n := range nodes {
		writeText(bw, n, "")
	}
	return bw.Flush()
}

func writeText(w *bufio.Writer, n *Node, indent string) {
	line := func(s string) {
		w.WriteString(strings.TrimRight(indent+oneLine(s), " ") + "\n") //nolint:errcheck // a bufio.Writer keeps its error for Flush
	}
	switch {
	case n.Source1 == missing:
		line("+ " + n.Source2)
	case n.Source2 == missing:
		line("- " + n.Source1)
	case n.Source1 != n.Source2:
		line("* " + n.Source1 + " | " + n.Source2)
	default:
		line("* " + n.Source1)
	}
	indent += "    "
	for _, c := range n.Comments {
		line(c)
	}
	if n.UnifiedDiff != nil {
		indent += "| "
		for l := range strings.SplitSeq(strings.TrimSuffix(*n.UnifiedDiff, "\n"), "\n") {
			line(l)
		}
		indent = indent[:len(indent)-2]
	}
	for _, c := range n.Details {
		writeText(w, c, indent)
	}
}

// JSON writes the differences of two images as diffoscope's presenter does,
// so that `diffoscope FILE` shows them.
func JSON(w io.Writer, first, second string, nodes []*Node) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(struct {
		Version int `json:"diffoscope-json-version"`
		*Node
	}{1, &Node{Source1: Printable(first), Source2: Printable(second), Details: nodes}})
}
