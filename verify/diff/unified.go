package diff

import (
	"fmt"
	"strings"
)

const (
	contextLines = 3
	maxEdits     = 400 // beyond, what differs is shown as one block
	maxLines     = 240 // of a unified diff
	maxRun       = 30  // of them, of one kind one after the other
	maxLine      = 400 // characters of a line
	maxText      = 1e6 // bytes of a text that is compared by lines
	maxTextLines = 2e4 // of it
)

// edit is a line of the first text only (-), of the second only (+), or of
// both (space).
type edit struct {
	op   byte
	line string
}

// unified is the unified diff of two lists of lines, with the number of the
// first line of each; "" where they are equal. Long ones are cut, and say so.
func unified(a, b []string, first int64) string {
	edits := compareLines(a, b)
	var sb strings.Builder
	lines, left := 0, 0
	for _, h := range hunks(edits) {
		if lines > maxLines {
			left++
			continue
		}
		lineA, lineB := first, first
		for _, e := range edits[:h[0]] {
			if e.op != '+' {
				lineA++
			}
			if e.op != '-' {
				lineB++
			}
		}
		body, countA, countB := hunkBody(edits[h[0]:h[1]], maxLines-lines)
		fmt.Fprintf(&sb, "@@ -%s +%s @@\n%s", lineRange(lineA, countA), lineRange(lineB, countB), body)
		lines += h[1] - h[0]
	}
	if left > 0 {
		fmt.Fprintf(&sb, "\\ and %d more places\n", left)
	}
	return sb.String()
}

// lineRange is a range as a hunk's header has it.
func lineRange(first, count int64) string {
	if count == 0 {
		first-- // the line before, in GNU diff's way
	}
	if count == 1 {
		return fmt.Sprint(first)
	}
	return fmt.Sprintf("%d,%d", first, count)
}

// hunkBody is the lines of a hunk, at most limit, and how many of them each
// side has. Of many lines that were all removed, or all added, the first are
// shown.
func hunkBody(edits []edit, limit int) (body string, countA, countB int64) {
	var sb strings.Builder
	run, left, shown := 0, 0, 0
	flush := func() {
		if left > 0 {
			fmt.Fprintf(&sb, "\\ and %d more lines\n", left)
		}
		run, left = 0, 0
	}
	for i, e := range edits {
		if i > 0 && e.op != edits[i-1].op {
			flush()
		}
		if run++; run > maxRun || shown >= limit {
			left++
			continue
		}
		shown++
		if e.op != '+' {
			countA++
		}
		if e.op != '-' {
			countB++
		}
		line, whole := strings.CutSuffix(e.line, "\n")
		sb.WriteByte(e.op)
		sb.WriteString(cut(Printable(line), maxLine))
		sb.WriteByte('\n')
		if !whole {
			sb.WriteString("\\ No newline at end of file\n")
		}
	}
	flush()
	return sb.String(), countA, countB
}

// cut shortens s to n characters.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for i := range s {
		if n--; n < 0 {
			return s[:i] + "…"
		}
	}
	return s
}

// hunks are the ranges of edits with what changed and the lines around it.
func hunks(edits []edit) [][2]int {
	var out [][2]int
	for i, e := range edits {
		if e.op == ' ' {
			continue
		}
		start, end := max(0, i-contextLines), min(len(edits), i+1+contextLines)
		if last := len(out) - 1; last >= 0 && start <= out[last][1] {
			out[last][1] = end
		} else {
			out = append(out, [2]int{start, end})
		}
	}
	return out
}

// compareLines is a shortest list of edits from a to b (Myers, "An O(ND)
// Difference Algorithm and Its Variations", 1986), or, where that is long,
// one block that replaces all that differs.
func compareLines(a, b []string) []edit {
	head := 0
	for head < len(a) && head < len(b) && a[head] == b[head] {
		head++
	}
	tail := 0
	for tail < len(a)-head && tail < len(b)-head && a[len(a)-1-tail] == b[len(b)-1-tail] {
		tail++
	}
	var out []edit
	for _, l := range a[:head] {
		out = append(out, edit{' ', l})
	}
	out = append(out, middle(a[head:len(a)-tail], b[head:len(b)-tail])...)
	for _, l := range a[len(a)-tail:] {
		out = append(out, edit{' ', l})
	}
	return out
}

func middle(a, b []string) []edit {
	trace, ok := forward(a, b)
	if !ok {
		var out []edit
		for _, l := range a {
			out = append(out, edit{'-', l})
		}
		for _, l := range b {
			out = append(out, edit{'+', l})
		}
		return out
	}
	return backward(a, b, trace)
}

// forward finds the smallest number of edits. trace has, for each number,
// how far each diagonal was reached before it.
func forward(a, b []string) (trace [][]int, ok bool) {
	limit := min(len(a)+len(b), maxEdits)
	v := make([]int, 2*limit+3) // index k+limit+1
	for d := 0; d <= limit; d++ {
		trace = append(trace, append([]int(nil), v[limit+1-d:limit+2+d]...))
		for k := -d; k <= d; k += 2 {
			x := v[limit+1+k-1] + 1
			if k == -d || k != d && v[limit+1+k-1] < v[limit+1+k+1] {
				x = v[limit+1+k+1]
			}
			for x < len(a) && x-k < len(b) && a[x] == b[x-k] {
				x++
			}
			if v[limit+1+k] = x; x >= len(a) && x-k >= len(b) {
				return trace, true
			}
		}
	}
	return nil, false
}

// backward reads the edits off the trace.
func backward(a, b []string, trace [][]int) []edit {
	var reversed []edit
	x, y := len(a), len(b)
	for d := len(trace) - 1; d >= 0; d-- {
		k := x - y
		at := func(k int) int { // -1 where the diagonal was not reached
			if k < -d || k > d {
				return -1
			}
			return trace[d][k+d]
		}
		previous := k - 1
		if k == -d || k != d && at(k-1) < at(k+1) {
			previous = k + 1
		}
		px := 0
		if d > 0 {
			px = at(previous)
		}
		py := px - previous
		if d == 0 {
			px, py = 0, 0
		}
		for x > px && y > py {
			x, y = x-1, y-1
			reversed = append(reversed, edit{' ', a[x]})
		}
		switch {
		case d == 0:
		case previous == k+1:
			y--
			reversed = append(reversed, edit{'+', b[y]})
		default:
			x--
			reversed = append(reversed, edit{'-', a[x]})
		}
	}
	out := make([]edit, 0, len(reversed))
	for i := len(reversed) - 1; i >= 0; i-- {
		out = append(out, reversed[i])
	}
	return out
}
