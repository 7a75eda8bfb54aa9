package gitfetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	for raw, want := range map[string]string{
		"https://h/x": "https://h/x", "ssh://git@h:22/x": "ssh://git@h:22/x", "git@h:x/y.git": "ssh://git@h/x/y.git", "h:/abs": "ssh://h/abs", "file:///x": "file:///x",
		"ext::sh -c id": "", "-oProxyCommand=x:y": "", "../x": "", "/x": "", "": "", "https://": "", "git@h\n:x": "",
	} {
		u, err := Parse(raw)
		if (err == nil) != (want != "") || err == nil && u.String() != want {
			t.Errorf("%q: got %v, %v, want %q", raw, u, err, want)
		}
	}
}

const id = "0123456789abcdef0123456789abcdef01234567"

// lines are pkt-lines; the signs are themselves.
func lines(all ...string) string {
	var b strings.Builder
	for _, l := range all {
		if l == flushPkt || l == delimPkt {
			b.WriteString(l)
		} else {
			b.WriteString(pktLine("%s", l))
		}
	}
	return b.String()
}

// hostile is a server that gives these answers, to what it is asked first,
// for refs and for objects.
type hostile struct {
	greeting, refs, pack string
	asked                []string
}

func (h *hostile) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b, _ := io.ReadAll(r.Body)
	h.asked = append(h.asked, r.URL.Path+" "+string(b))
	w.Header().Set("Content-Type", "application/x-git-upload-pack-advertisement")
	switch {
	case r.Method == http.MethodGet:
		io.WriteString(w, h.greeting)
	case strings.Contains(string(b), "ls-refs"):
		io.WriteString(w, h.refs)
	default:
		io.WriteString(w, h.pack)
	}
}

func open(t *testing.T, h http.Handler, refs ...string) (*Remote, error) {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	u, err := url.Parse(srv.URL + "/repo")
	if err != nil {
		t.Fatal(err)
	}
	return Open(t.Context(), u, Options{HTTP: srv.Client(), Idle: time.Minute, Max: 1 << 20}, refs...)
}

var v2 = lines("version 2\n", "ls-refs\n", "fetch=shallow filter\n", flushPkt)

func TestHostileServers(t *testing.T) {
	refs := lines(id+" refs/heads/main\n", flushPkt)
	var manyCaps strings.Builder
	for i := range maxCaps + 1 {
		manyCaps.WriteString(lines(fmt.Sprintf("x%d\n", i)))
	}
	for name, c := range map[string]struct {
		hostile
		want string
	}{
		"no git":            {hostile{greeting: "<html>"}, "does not speak git's protocol"},
		"empty":             {hostile{}, "EOF"},
		"cut":               {hostile{greeting: "00"}, "EOF"},
		"cut line":          {hostile{greeting: "0030abc"}, "EOF"},
		"no service":        {hostile{greeting: lines("# service=git-upload-pack\n", "x")}, "does not speak"},
		"an error":          {hostile{greeting: lines("ERR go\x1b[31m away\n")}, "the server says: go [31m away"},
		"length 3":          {hostile{greeting: "0003"}, "does not speak"},
		"length":            {hostile{greeting: "ffff" + strings.Repeat("x", 65531)}, "does not speak"},
		"no id":             {hostile{greeting: lines("xyz refs/heads/main\x00 ofs-delta\n", flushPkt)}, "no id of 40"},
		"other hash":        {hostile{greeting: lines(id + " refs/heads/main\x00 object-format=md5\n")}, "want sha1 or sha256"},
		"no end":            {hostile{greeting: lines(id + " refs/heads/main\x00 ofs-delta\n")}, "EOF"},
		"capabilities":      {hostile{greeting: lines("version 2\n", strings.Repeat("x", 60_000)+"\n")}, "EOF"},
		"many capabilities": {hostile{greeting: lines("version 2\n") + manyCaps.String()}, "can do too much"},
		"refs, cut":         {hostile{greeting: v2, refs: lines(id + " refs/heads/main\n")}, "EOF"},
		"refs, no id":       {hostile{greeting: v2, refs: lines("xyz refs/heads/main\n", flushPkt)}, "no id of 40"},
		"refs, peeled":      {hostile{greeting: v2, refs: lines(id+" refs/tags/v1 peeled:xyz\n", flushPkt)}, "no id of 40"},
		"refs, long ids":    {hostile{greeting: lines("version 2\n", "object-format=sha256\n", flushPkt), refs: refs}, "no id of 64"},
		"no pack":           {hostile{greeting: v2, refs: refs, pack: flushPkt}, "has sent nothing"},
		"pack, cut":         {hostile{greeting: v2, refs: refs, pack: lines("packfile\n", "\x01PACK")}, "EOF"},
		"pack, error":       {hostile{greeting: v2, refs: refs, pack: lines("packfile\n", "\x02counting\n", "\x03no more\n")}, "the server says: no more"},
		"pack, other band":  {hostile{greeting: v2, refs: refs, pack: lines("packfile\n", "\x04x")}, "band 4"},
		"pack, no band":     {hostile{greeting: v2, refs: refs, pack: "000dpackfile\n0004"}, "on no band"},
		"pack, empty":       {hostile{greeting: v2, refs: refs, pack: lines("packfile\n", flushPkt)}, "has sent nothing"},
		"pack, garbage":     {hostile{greeting: v2, refs: refs, pack: lines("packfile\n", "\x01"+strings.Repeat("x", 60), flushPkt)}, "it is no pack"},
		"pack, too much":    {hostile{greeting: v2, refs: refs, pack: lines("packfile\n") + strings.Repeat(lines("\x01"+strings.Repeat("x", 60_000)), 20)}, "more than the limit"},
		"not our ref":       {hostile{greeting: v2, refs: refs, pack: lines("ERR upload-pack: not our ref")}, "not our ref"},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := open(t, &c.hostile)
			dir := t.TempDir()
			if err == nil {
				_, err = r.Fetch(t.Context(), id, dir)
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// A server is asked for the refs that are meant, and for nothing else.
func TestAsksForWhatIsMeant(t *testing.T) {
	for _, c := range []struct {
		refs []string
		want string
	}{
		{[]string{"v1"}, "peel ref-prefix v1 ref-prefix refs/v1 ref-prefix refs/tags/v1 ref-prefix refs/heads/v1"},
		{[]string{""}, "peel ref-prefix HEAD"},
		{nil, "peel ref-prefix HEAD ref-prefix refs/heads/ ref-prefix refs/tags/"},
		{[]string{id}, ""},
	} {
		h := &hostile{greeting: v2, refs: flushPkt}
		if _, err := open(t, h, c.refs...); err != nil {
			t.Fatal(err)
		}
		var want strings.Builder
		if c.want != "" {
			want.WriteString(lines("command=ls-refs\n", delimPkt))
			for arg := range strings.SplitSeq(strings.ReplaceAll(c.want, " ref-prefix", "\x00ref-prefix"), "\x00") {
				want.WriteString(lines(arg + "\n"))
			}
			want.WriteString(flushPkt)
		}
		if got := strings.TrimPrefix(h.asked[len(h.asked)-1], "/repo/git-upload-pack "); (len(h.asked) == 2) != (c.want != "") || c.want != "" && got != want.String() {
			t.Errorf("%q: asked %q, want %q", c.refs, h.asked, want.String())
		}
	}
}

// All refs of a server do not fit into memory, and are not read.
func TestManyRefs(t *testing.T) {
	many := strings.Repeat(lines(id+" refs/tags/"+strings.Repeat("x", 60_000)+"\n"), maxRefs/60_000+1)
	for name, h := range map[string]*hostile{"v0": {greeting: many + flushPkt}, "v2": {greeting: v2, refs: many + flushPkt}} {
		if _, err := open(t, h); err == nil {
			t.Errorf("%s: was read", name)
		}
	}
}

func TestLocalRefusals(t *testing.T) {
	dir := t.TempDir()
	put := func(name, content string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, repo := range []string{"ok", "reftable", "md5", "config", "packed"} {
		put(repo+"/objects/x", "")
		put(repo+"/refs/heads/main", id+"\n")
		put(repo+"/HEAD", "ref: refs/heads/main\n")
	}
	put("reftable/config", "[extensions]\n\trefStorage = reftable\n")
	put("md5/config", "[extensions]\n\tobjectFormat = md5\n")
	put("config/config", "[extensions\n")
	put("packed/packed-refs", "# pack-refs with: peeled\nxyz refs/heads/x\n")
	put("link/.git", "gitdir: ../ok\n")
	for name, want := range map[string]string{
		"ok": "", "link": "", "reftable": `in the form "reftable"`, "md5": "want sha1 or sha256", "config": "its config", "packed": "no id of 40", "absent": "no git repository",
	} {
		r, err := Open(context.Background(), &url.URL{Scheme: "file", Path: dir + "/" + name}, Options{})
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", name, err, want)
		}
		if err != nil {
			continue
		}
		if head, err := r.Resolve(""); head != id || err != nil {
			t.Errorf("%s: HEAD is %q, %v", name, head, err)
		}
		if _, err := r.Fetch(context.Background(), id, dir); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: got %v", name, err)
		}
		r.Close()
	}
	if _, err := Open(context.Background(), &url.URL{Scheme: "file", Host: "example.org", Path: dir}, Options{}); err == nil || !strings.Contains(err.Error(), "another machine") {
		t.Errorf("got %v", err)
	}
}

// fixed is a link with one answer.
type fixed string

func (f fixed) greet(context.Context) (io.ReadCloser, error) {
	return io.NopCloser(strings.NewReader(string(f))), nil
}
func (f fixed) ask(ctx context.Context, _ string) (io.ReadCloser, error) { return f.greet(ctx) }
func (f fixed) close()                                                   {}

func FuzzServer(f *testing.F) {
	f.Add(v2, lines(id+" HEAD symref-target:refs/heads/main\n", id+" refs/tags/v1 peeled:"+id+"\n", flushPkt))
	f.Add(v2, lines("shallow-info\n", "shallow "+id+"\n", delimPkt, "packfile\n", "\x01PACK", flushPkt))
	f.Add(lines("# service=git-upload-pack\n", flushPkt, id+" HEAD\x00ofs-delta side-band-64k shallow\n", id+" refs/heads/main\n", flushPkt), lines("shallow "+id+"\n", flushPkt, "NAK\n", "\x01PACK", flushPkt))
	f.Fuzz(func(t *testing.T, greeting, answer string) {
		r := &Remote{refs: newRefs(), opts: Options{Max: 1 << 20}}
		if r.greet(t.Context(), fixed(greeting)) != nil {
			return
		}
		if r.v2 {
			_ = r.listV2(t.Context(), fixed(answer), nil)
		}
		q := request{wants: []string{id}, shallow: true}
		for _, read := range []packIn{second(r.fetchV2(q)), second(r.fetchV0(q))} {
			if pack, err := read(newPktReader(strings.NewReader(answer))); err == nil {
				_, _ = io.Copy(io.Discard, pack)
			}
		}
		_, _ = r.Resolve("v1")
		r.tip("01")
		r.isTip(id)
	})
}

func second[A, B any](_ A, b B) B { return b }
