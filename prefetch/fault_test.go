package prefetch

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"slices"
	"strings"
	"testing"
	"time"

	"caisson/lock"
	"caisson/lock/digest"
	"caisson/prefetch/cas"
)

// fault is something that a server does wrong.
type fault struct {
	name string
	// does answers the nth request, or is false.
	does func(n int, r *http.Request, c net.Conn) bool
	// unsized: the lock does not know how long the file is.
	unsized  bool
	requests int
	last     string // the last Range
	err      string // what is said; empty where the file comes all the same
}

// first answers the first requests with these bytes, one after the other.
func first(answers ...string) func(int, *http.Request, net.Conn) bool {
	return func(n int, _ *http.Request, c net.Conn) bool {
		if n < len(answers) {
			io.WriteString(c, answers[n])
		}
		return n < len(answers)
	}
}

// always answers every request so.
func always(answer string) func(int, *http.Request, net.Conn) bool {
	return func(_ int, _ *http.Request, c net.Conn) bool {
		io.WriteString(c, answer)
		return true
	}
}

// Parts of answers.
const (
	tag     = `"v1"`
	tagged  = "ETag: " + tag
	yester  = "HELLO, THIS IS THE CONTENT OF THE FILE\n" // as long as hello
	webpage = "<html><body>Sorry, please log in.</html>"
)

// cutAfter is an answer whose body ends too early.
func cutAfter(n int) string {
	return head("200 OK", tagged, fmt.Sprintf("Content-Length: %d", len(hello))) + hello[:n]
}

// partial is an answer that says which part it is.
func partialReply(body, contentRange string, fields ...string) string {
	return reply("206 Partial Content", body, append(fields, tagged, "Content-Range: "+contentRange)...)
}

func zipped(s string) string {
	var b strings.Builder
	z := gzip.NewWriter(&b)
	io.WriteString(z, s)
	z.Close()
	return b.String()
}

// lengths are lies about how long the file is.
func lengths() []fault {
	of := func(n any, body string) string { return head("200 OK", fmt.Sprint("Content-Length: ", n)) + body }
	return []fault{
		{name: "too long", does: always(of(50, hello)), requests: 1, err: "got 50 bytes, want 39"},
		{name: "too long, and nobody knows", does: always(of(50, hello[:20])), unsized: true, requests: 5, last: "bytes=20-", err: "the body ends early, after 20 bytes"},
		{name: "too long, and the digest knows", does: always(of(50, hello)), unsized: true, requests: 1},
		{name: "too short", does: always(of(10, hello)), requests: 1, err: "got 10 bytes, want 39"},
		{name: "too short, and nobody knows", does: always(of(10, hello)), unsized: true, requests: 1, err: "got sha256:"},
		{name: "zero", does: always(of(0, hello)), requests: 1, err: "got 0 bytes, want 39"},
		{name: "negative", does: always(of(-5, hello)), requests: 5, err: "bad Content-Length"},
		{name: "negative once", does: first(of(-5, hello)), requests: 2},
		{name: "no number", does: first(of("many", hello)), requests: 2},
		{name: "more than there is", does: always(of("99999999999999999999", hello)), requests: 5, err: "bad Content-Length"},
		{name: "two of them", does: always(head("200 OK", "Content-Length: 39", "Content-Length: 40") + hello), requests: 5, err: "Content-Length"},
		{name: "none", does: always(head("200 OK") + hello), requests: 1},
		{name: "none, and cut", does: first(head("200 OK", tagged) + hello[:12]), requests: 2, last: "bytes=12-"},
		{name: "none, and too much", does: always(head("200 OK") + hello + hello), requests: 1, err: "got more than 39 bytes"},
		{name: "in chunks", does: always(head("200 OK", "Transfer-Encoding: chunked") + chunked(hello, 7)), requests: 1},
		{name: "in chunks and in bytes", does: always(head("200 OK", "Content-Length: 5", "Transfer-Encoding: chunked") + chunked(hello, 7)), requests: 1},
		{name: "chunks that are none", does: first(head("200 OK", tagged, "Transfer-Encoding: chunked") + "5\r\nhello\r\nzz\r\n"), requests: 2, last: "bytes=5-"},
		{name: "a chunk of 2^60 bytes", does: first(head("200 OK", tagged, "Transfer-Encoding: chunked") + "1000000000000000\r\nhello"), requests: 2, last: "bytes=5-"},
		{name: "a chunk of 2^64 bytes", does: first(head("200 OK", tagged, "Transfer-Encoding: chunked") + "10000000000000000\r\nhello"), requests: 2},
		{name: "chunks without an end", does: always(head("200 OK", "Transfer-Encoding: chunked") + strings.TrimSuffix(chunked(hello, 7), "0\r\n\r\n")), requests: 1},
		{name: "more after it", does: always(reply("200 OK", hello) + reply("200 OK", "another")), requests: 1},
	}
}

// answers are answers that are not the file, or not the part asked for.
func answers() []fault {
	rest := func(s string) func(int, *http.Request, net.Conn) bool { return first(cutAfter(10), s) }
	return []fault{
		{name: "not found", does: always(reply("404 Not Found", "")), requests: 1, err: "404 Not Found"},
		{name: "no content", does: always(head("204 No Content")), requests: 1, err: "204 No Content"},
		{name: "a part, unasked", does: always(partialReply(hello[5:], "bytes 5-38/39")), requests: 1, err: "206 Partial Content"},
		{name: "not modified, unasked", does: always(head("304 Not Modified")), requests: 1, err: "304 Not Modified"},
		{name: "no status", does: always("HELLO\r\n\r\n"), requests: 5, err: "malformed HTTP"},
		{name: "an odd status", does: always(reply("999 Odd\x1b[31m", "")), requests: 1, err: "999 Odd[31m"},
		{name: "a head of 2 MiB", does: always(head("200 OK", "X: "+strings.Repeat("x", 2<<20))), requests: 5, err: "exceeded"},
		{name: "for ever informing", does: always(strings.Repeat(head("103 Early Hints", "X: "+strings.Repeat("x", 1000)), 2000)), requests: 5, err: "exceeded"},
		{name: "switching protocols", does: always(head("101 Switching Protocols", "Upgrade: other", "Connection: upgrade")), requests: 1, err: "101"},
		{name: "a web page", does: always(reply("200 OK", webpage, "Content-Type: text/html; charset=utf-8")), requests: 1, err: "got 40 bytes, want 39 (the server says that it is a web page)"},
		{name: "a web page, and nobody knows", does: always(reply("200 OK", webpage, "Content-Type: text/html")), unsized: true, requests: 1, err: "(the server says that it is a web page)"},
		{name: "compressed", does: always(reply("200 OK", zipped(hello), "Content-Encoding: gzip")), unsized: true, requests: 1, err: `(the server has encoded it as "gzip", which was not asked for)`},
		{name: "the file, said to be compressed", does: always(reply("200 OK", hello, "Content-Encoding: gzip")), requests: 1},
		{name: "yesterday's file", does: always(reply("200 OK", yester, tagged)), requests: 1, err: "want " + digest.Of([]byte(hello)).String()},
		{name: "cut, then yesterday's file", does: rest(reply("200 OK", yester, `ETag: "v0"`)), requests: 2, last: "bytes=10-", err: "got " + digest.Of([]byte(yester)).String()},
		{name: "cut, then yesterday's rest", does: rest(partialReply(yester[10:], "bytes 10-38/39")), requests: 3},
		{name: "cut, then the whole", does: rest(reply("200 OK", hello)), requests: 2, last: "bytes=10-"},
		{name: "cut, then another part", does: rest(partialReply(hello[5:], "bytes 5-38/39")), requests: 3},
		{name: "cut, then no part", does: rest(reply("206 Partial Content", hello[10:])), requests: 3},
		{name: "cut, then parts", does: rest(partialReply(hello[10:], "multipart/byteranges; boundary=x")), requests: 3},
		{name: "cut, then other units", does: rest(partialReply(hello[10:], "lines 10-38/39")), requests: 3},
		{name: "cut, then too many bytes", does: rest(partialReply(hello[10:]+"more", "bytes 10-42/43")), requests: 2, last: "bytes=10-", err: "got 43 bytes, want 39"},
		{name: "cut, then more than it says", does: rest(head("206 Partial Content", "Content-Range: bytes 10-38/39") + hello), requests: 2, last: "bytes=10-", err: "got more than 39 bytes"},
		{name: "cut, then a smaller part", does: rest(partialReply(hello[10:20], "bytes 10-19/39")), requests: 3, last: "bytes=20-"},
		{name: "cut, then a smaller part, and nobody knows", does: rest(partialReply(hello[10:20], "bytes 10-19/39")), unsized: true, requests: 3, last: "bytes=20-"},
		{name: "cut, then no such range", does: rest(reply("416 Range Not Satisfiable", "")), requests: 3},
		{name: "cut, then gone", does: rest(reply("404 Not Found", "")), requests: 2, last: "bytes=10-", err: "404 Not Found"},
		{name: "cut again and again", does: func(n int, _ *http.Request, c net.Conn) bool {
			status, from := "206 Partial Content", 8*n
			if n == 0 {
				status = "200 OK"
			}
			io.WriteString(c, head(status, tagged, fmt.Sprintf("Content-Range: bytes %d-38/39", from), fmt.Sprintf("Content-Length: %d", 39-from))+hello[from:min(from+8, 39)])
			return true
		}, requests: 5, last: "bytes=32-"},
	}
}

// TestFaults has a lock's file come from a server that is at fault: it comes
// whole after so many requests, or it is said what was wrong. Either way the
// store is as it should be.
func TestFaults(t *testing.T) {
	want := digest.Of([]byte(hello))
	for _, group := range []struct {
		name   string
		faults []fault
	}{{"length", lengths()}, {"answer", answers()}, {"time", times()}} {
		for _, f := range group.faults {
			t.Run(group.name+"/"+f.name, func(t *testing.T) {
				t.Parallel()
				w, s := &wire{content: hello, etag: tag, fault: f.does}, newStore(t)
				in := lock.Input{Kind: lock.KindFile, Name: "a-file", URL: w.start(t) + "/a", SHA256: want, Size: int64(len(hello))}
				if f.unsized {
					in.Size = 0
				}
				cfg := quick()
				if group.name == "time" {
					cfg.IdleTimeout = 300 * time.Millisecond
				}
				stats, err := Fill(context.Background(), &lock.Lock{Inputs: []lock.Input{in}}, s, Options{Config: cfg})
				asked := w.requests()
				if len(asked) != f.requests || stats.Requests != int64(f.requests) {
					t.Errorf("%d requests, %q, want %d", stats.Requests, asked, f.requests)
				}
				if got := asked[len(asked)-1]; got != f.last {
					t.Errorf("the last asked for %q, want %q", got, f.last)
				}
				if s.Has(want) != (f.err == "") {
					t.Errorf("in the store: %v", s.Has(want))
				}
				switch {
				case f.err == "" && err != nil:
					t.Errorf("got %v", err)
				case f.err != "" && (err == nil || !strings.Contains(err.Error(), f.err) || !strings.HasPrefix(err.Error(), "file a-file: fetching "+in.URL)):
					t.Errorf("got %v, want %s", err, f.err)
				case err != nil && strings.ContainsAny(err.Error(), "\x1b\n"):
					t.Errorf("a terminal would obey %q", err)
				}
				clean(t, s)
			})
		}
	}
}

// times are servers that are slow, or ask us to be.
func times() []fault {
	later := func(value string) string { return reply("503 Service Unavailable", "", "Retry-After: "+value) }
	stall := func(s string, for_ time.Duration) func(int, *http.Request, net.Conn) bool {
		return func(n int, _ *http.Request, c net.Conn) bool {
			if n == 0 {
				io.WriteString(c, s)
				time.Sleep(for_)
			}
			return n == 0
		}
	}
	slow := func(_ int, _ *http.Request, c net.Conn) bool {
		io.WriteString(c, cutAfter(0))
		for _, b := range []byte(hello) { // the whole takes longer than an idle server is given
			c.Write([]byte{b})
			time.Sleep(10 * time.Millisecond)
		}
		return true
	}
	return []fault{
		{name: "slow", does: slow, requests: 1},
		{name: "silent", does: stall("", 2*time.Second), requests: 2},
		{name: "silent for ever", does: func(_ int, _ *http.Request, _ net.Conn) bool {
			time.Sleep(time.Second)
			return true
		}, requests: 5, err: "the server sends nothing for 300ms (after 4 retries)"},
		{name: "silent in the head", does: stall("HTTP/1.1 200 O", 2*time.Second), requests: 2},
		{name: "silent in the body", does: stall(cutAfter(10), 2*time.Second), requests: 2, last: "bytes=10-"},
		{name: "resets", does: func(n int, _ *http.Request, c net.Conn) bool {
			if n == 0 {
				io.WriteString(c, cutAfter(10))
				time.Sleep(20 * time.Millisecond) // a reset takes what was not read with it
				c.(*net.TCPConn).SetLinger(0)
			}
			return n == 0
		}, requests: 2, last: "bytes=10-"},
		{name: "closes at once", does: always(""), requests: 5, err: "EOF (after 4 retries)"},
		{name: "too many requests", does: first(reply("429 Too Many Requests", "", "Retry-After: 0")), requests: 2},
		{name: "later", does: first(later("1")), requests: 2},
		{name: "at a time that is past", does: first(later("Mon, 01 Jan 2024 00:00:00 GMT")), requests: 2},
		{name: "whenever", does: first(later("soon"), later("-5"), later("")), requests: 4},
		{name: "never", does: always(later("0")), requests: 5, err: "503 Service Unavailable (after 4 retries)"},
	}
}

func TestRetryAfterForms(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"": 0, "soon": 0, "0": 0, "7": 7 * time.Second, "-7": 0, "120": maxRetryAfter, "999999999999999999": maxRetryAfter, "-999999999999999999": 0,
		"Fri, 02 Jan 2026 03:04:14 GMT": 9 * time.Second, "Friday, 02-Jan-26 03:04:14 GMT": 9 * time.Second,
		"Fri, 02 Jan 2026 03:00:00 GMT": 0, "Sat, 03 Jan 2026 03:04:05 GMT": maxRetryAfter,
	} {
		if got := retryAfter(&http.Response{Header: http.Header{"Retry-After": {value}}}, now); got != want {
			t.Errorf("%q: got %s, want %s", value, got, want)
		}
	}
}

// styles are the ways in which a server ends a body.
var styles = map[string]string{
	"length": reply("200 OK", hello, tagged),
	"chunks": head("200 OK", tagged, "Transfer-Encoding: chunked") + chunked(hello, 9),
	"close":  head("200 OK", tagged) + hello,
}

// TestDropAtEveryByte hangs up after each byte of an answer, head and body:
// the next request asks for what has not come, and for nothing else.
func TestDropAtEveryByte(t *testing.T) {
	s := newStore(t)
	for _, c := range [][2]string{{"length", tag}, {"length", `W/"weak"`}, {"length", ""}, {"chunks", tag}, {"close", tag}} {
		style, answer := c[0], strings.Replace(styles[c[0]], tag, c[1], 1)
		w := &wire{content: hello, etag: c[1]}
		url := w.start(t)
		for at := range len(answer) + 1 {
			w.fault = first(answer[:at])
			come := bodyOf(style, answer[:at])
			want := []string{"", ""}
			switch {
			case come == hello: // the digest tells that it is all
				want = want[:1]
			case come != "":
				want[1] = fmt.Sprintf("bytes=%d-", len(come))
			}
			whole(t, s, url, fmt.Sprintf("%s, %d", style, at))
			if got := w.requests(); !slices.Equal(got, want) {
				t.Errorf("%s, %s, dropped after %d of %d bytes: asked for %q, want %q", style, c[1], at, len(answer), got, want)
			}
		}
	}
	clean(t, s)
}

// TestDropTheRestAtEveryByte has the resumed answer cut as well.
func TestDropTheRestAtEveryByte(t *testing.T) {
	const had = 10
	s := newStore(t)
	w := &wire{content: hello, etag: tag}
	url := w.start(t)
	answer := partialReply(hello[had:], "bytes 10-38/39")
	for at := range len(answer) + 1 {
		w.fault = first(cutAfter(had), answer[:at])
		come := had + len(bodyOf("length", answer[:at]))
		want := []string{"", "bytes=10-", fmt.Sprintf("bytes=%d-", come)}
		if come == len(hello) {
			want = want[:2]
		}
		whole(t, s, url, fmt.Sprint(at))
		if got := w.requests(); !slices.Equal(got, want) {
			t.Errorf("dropped after %d of %d bytes: asked for %q, want %q", at, len(answer), got, want)
		}
	}
	clean(t, s)
}

// bodyOf is what has come of the body by the end of an answer that was cut.
func bodyOf(style, answer string) string {
	_, body, _ := strings.Cut(answer, "\r\n\r\n")
	if style == "chunks" {
		b, _ := io.ReadAll(httputil.NewChunkedReader(strings.NewReader(body)))
		return string(b)
	}
	return body
}

// whole fetches hello.
func whole(t *testing.T, s *cas.Store, url, what string) {
	t.Helper()
	got, err := getBy(t, s, newClient(t, quick()), Request{URL: url, Size: int64(len(hello)), Digest: digest.Of([]byte(hello))})
	if err != nil || got != hello {
		t.Errorf("%s: got %q, %v", what, got, err)
	}
}

// A file of which nothing is known but its address: it is gone on with where a
// strong tag says that it is the same, parts of two versions do not come
// together, and what is cut is not taken for the whole. (Of a body that ends
// with the connection nothing tells its end from a cut.)
func TestDropAtEveryByteUnknown(t *testing.T) {
	s := newStore(t)
	for _, c := range []struct {
		style, tag string
		now        *wire // the server afterwards
		resumes    bool
	}{
		{"length", tag, &wire{content: hello, etag: tag}, true},
		{"chunks", tag, &wire{content: hello, etag: tag}, true},
		{"length", tag, &wire{content: yester, etag: `"v2"`}, false},
		{"chunks", tag, &wire{content: yester}, false},
		{"length", `W/"weak"`, &wire{content: yester, etag: `W/"weak"`}, false},
		{"length", "", &wire{content: yester}, false},
	} {
		answer := strings.Replace(styles[c.style], tag, c.tag, 1)
		url := c.now.start(t)
		for at := range len(answer) {
			c.now.fault = first(answer[:at])
			got, err := getBy(t, s, newClient(t, quick()), Request{URL: url})
			if err != nil || got != c.now.content {
				t.Errorf("%s, %s, dropped after %d bytes: got %q, %v", c.style, c.tag, at, got, err)
			}
			want := []string{"", ""}
			if come := bodyOf(c.style, answer[:at]); c.tag == tag && come != "" {
				want[1] = fmt.Sprintf("bytes=%d-", len(come))
			}
			asked := c.now.requests()
			if len(want[1]) > 0 != (len(asked[1]) > 0) || c.resumes && !slices.Equal(asked[:2], want) {
				t.Errorf("%s, %s, dropped after %d bytes: asked for %q, want %q", c.style, c.tag, at, asked, want)
			}
		}
	}
}

// The first place is at fault in each way, the second has the file.
func TestFaultsThenMirror(t *testing.T) {
	good := serve(t, newFiles(map[string]string{"/a": hello}))
	for _, f := range slices.Concat(lengths(), answers()) {
		if f.err == "" {
			continue
		}
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			w, s := &wire{content: hello, etag: tag, fault: f.does}, newStore(t)
			in := lock.Input{Kind: lock.KindFile, Name: "a-file", URL: w.start(t) + "/a", Mirrors: []string{good + "/a"}, SHA256: digest.Of([]byte(hello)), Size: int64(len(hello))}
			if f.unsized {
				in.Size = 0
			}
			if _, err := Fill(context.Background(), &lock.Lock{Inputs: []lock.Input{in}}, s, Options{Config: quick()}); err != nil {
				t.Error(err)
			}
			if err := s.Verify(in.SHA256); err != nil {
				t.Error(err)
			}
			clean(t, s)
		})
	}
	t.Run("cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		w := &wire{content: hello, fault: func(_ int, _ *http.Request, c net.Conn) bool {
			io.WriteString(c, cutAfter(10))
			cancel()
			time.Sleep(50 * time.Millisecond)
			return true
		}}
		s := newStore(t)
		in := lock.Input{Kind: lock.KindFile, Name: "a-file", URL: w.start(t), Mirrors: []string{good + "/a"}, SHA256: digest.Of([]byte(hello))}
		if _, err := Fill(ctx, &lock.Lock{Inputs: []lock.Input{in}}, s, Options{Config: quick()}); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		clean(t, s)
	})
}
