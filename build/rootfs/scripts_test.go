package rootfs

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"caisson/build/rootfs/rpmtest"
	"caisson/lock/tooltest"
)

func TestReadScripts(t *testing.T) {
	const in, un = 1<<16 | 8, 1 << 17 // with a version to compare
	for _, tt := range []struct {
		name string
		tags []rpmtest.Tag
		want []Script
		err  string
	}{
		{name: "nothing"},
		{
			name: "scriptlets", tags: []rpmtest.Tag{rpmtest.Text(1024, "true"), rpmtest.Texts(1085, "/bin/sh", "-e"), rpmtest.Text(1151, "x"), rpmtest.Text(1153, "<lua>"), rpmtest.Text(1025, "preun"), rpmtest.Text(1154, "")},
			want: []Script{{Kind: "pretrans", Program: "<lua>", Body: "x"}, {Kind: "pre", Program: "/bin/sh -e"}, {Kind: "post", Program: "/bin/sh", Body: "true"}, {Kind: "posttrans", Program: "/bin/sh"}},
		},
		{
			name: "triggers",
			tags: []rpmtest.Tag{rpmtest.Texts(1065, "a", "b", "c"), rpmtest.Texts(1092, "/bin/sh", "<lua>", "/bin/sh"), rpmtest.Texts(1066, "z", "a", "b", "c", "a"), rpmtest.Ints(1068, in, in, un, 1<<25, in), rpmtest.Ints(1069, 0, 0, 1, 2, 0)},
			want: []Script{{Kind: "triggerin", Program: "/bin/sh", Body: "a", On: []string{"a", "z"}}, {Kind: "triggerprein", Program: "/bin/sh", Body: "c", On: []string{"c"}}},
		},
		{
			name: "a place that is none", tags: []rpmtest.Tag{rpmtest.Texts(5066, "a"), rpmtest.Texts(5067, "<lua>"), rpmtest.Texts(5069, "/usr"), rpmtest.Ints(5072, in), rpmtest.Ints(5070, 7)},
			want: []Script{{Kind: "filetriggerin", Program: "/bin/sh", On: []string{"/usr"}}},
		},
		{name: "names without flags", tags: []rpmtest.Tag{rpmtest.Texts(5079, "/usr"), rpmtest.Ints(5080, 0)}, err: "1 names, 0 flags and 1 scripts"},
		{name: "many words", tags: []rpmtest.Tag{rpmtest.Texts(1085, make([]string, maxWords+1)...)}, err: "a program of 257 words for pre"},
		{name: "many triggers", tags: []rpmtest.Tag{{ID: 1066, Type: typeStringArray, Count: maxFiles + 1}}, err: "262145 triggers"},
		{name: "a text that is a number", tags: []rpmtest.Tag{rpmtest.Ints(1085, 1)}, err: "which is no text"},
	} {
		h := rpmtest.Header(append([]rpmtest.Tag{rpmtest.Text(tagName, "made"), rpmtest.Text(tagPayloadFormat, "cpio")}, tt.tags...)...)
		p, err := ReadPackage(bufio.NewReader(bytes.NewReader(rpmBytes(h, nil))))
		switch {
		case tt.err != "":
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%s: got %v, want an error with %q", tt.name, err, tt.err)
			}
		case err != nil:
			t.Errorf("%s: %v", tt.name, err)
		case !reflect.DeepEqual(p.Scripts, tt.want):
			t.Errorf("%s: got %+v, want %+v", tt.name, p.Scripts, tt.want)
		}
	}
}

// TestReadScriptsLikeRPM compares real packages with what rpm says of them.
func TestReadScriptsLikeRPM(t *testing.T) {
	rpm := tooltest.Find(t, "rpm")
	for _, name := range realRPMs(t) {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		p, err := ReadPackage(bufio.NewReader(f))
		f.Close()
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		format := "%{PRETRANSPROG}|%{PREINPROG}|%{POSTINPROG}|%{POSTTRANSPROG}"
		out, err := exec.Command(rpm, "-qp", "--nosignature", "--qf", format, name).Output()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var want []string
		for i, program := range strings.Split(string(out), "|") {
			if program != "(none)" {
				want = append(want, scriptlets[i].kind+" "+program)
			}
		}
		var got []string
		for _, s := range p.Scripts {
			if s.On == nil {
				first, _, _ := strings.Cut(s.Program, " ") // rpm prints the first word
				got = append(got, s.Kind+" "+first)
			}
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %q, want %q", filepath.Base(name), got, want)
		}
	}
}
