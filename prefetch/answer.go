package prefetch

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// statusError is an answer other than the file.
type statusError struct {
	status int
	text   string // "404 Not Found", and what the server said
}

func (e *statusError) Error() string { return e.text }

// accept looks at the answer's head: is this the file, or the rest of it?
func (t *transfer) accept(resp *http.Response) error {
	have := t.to.Size()
	switch {
	case resp.StatusCode == http.StatusPartialContent && have > 0:
		whole, ok := continues(resp.Header.Get("Content-Range"), have)
		if !ok {
			t.validator = ""
			return temporary{fmt.Errorf("asked for bytes from %d, got %q", have, printable(resp.Header.Get("Content-Range")))}
		}
		t.resumed, t.whole = true, whole
	case resp.StatusCode == http.StatusOK:
		if have > 0 {
			if err := t.restart(); err != nil {
				return err
			}
		}
		t.resumed, t.whole = false, resp.ContentLength
	case resp.StatusCode == http.StatusNotModified && have == 0 && t.req.known != nil:
		return errNotModified
	case resp.StatusCode == http.StatusRequestedRangeNotSatisfiable && have > 0:
		t.validator = ""
		return temporary{errors.New("the server has fewer bytes than it sent")}
	default:
		return t.refused(resp)
	}
	t.validator = validator(resp.Header, !t.req.Digest.IsZero())
	switch {
	case t.req.Immutable:
		t.validator = "immutable"
	case t.validator == "" && !t.req.Digest.IsZero():
		t.validator = blind
	}
	if t.req.next != nil {
		*t.req.next = nextOf(resp)
	}
	if t.req.learn != nil {
		*t.req.learn = answerOf(resp)
	}
	t.odd = oddity(resp.Header)
	if t.req.Size > 0 && t.whole >= 0 && t.whole != t.req.Size {
		return &SizeError{Got: t.whole, Want: t.req.Size}
	}
	return nil
}

// continues tells whether a Content-Range begins at that byte (RFC 9110,
// section 14.4), and how long the whole file is; -1 where that is not said. The
// range may end before the file does.
func continues(header string, from int64) (whole int64, ok bool) {
	s, ok := strings.CutPrefix(header, "bytes ")
	start, rest, dash := strings.Cut(s, "-")
	n, err := strconv.ParseInt(start, 10, 64)
	if !ok || !dash || err != nil || n != from {
		return 0, false
	}
	_, length, _ := strings.Cut(rest, "/")
	if whole, err = strconv.ParseInt(length, 10, 64); err != nil || whole < 0 {
		return -1, true
	}
	return whole, true
}

// oddity is what the head of an answer says that may be why it is not the
// file; empty for nothing.
func oddity(h http.Header) string {
	if e := h.Get("Content-Encoding"); e != "" && !strings.EqualFold(e, "identity") {
		return fmt.Sprintf("the server has encoded it as %q, which was not asked for", printable(e))
	}
	if strings.HasPrefix(strings.ToLower(h.Get("Content-Type")), "text/html") {
		return "the server says that it is a web page"
	}
	return ""
}

// validator is what names this version of the file: a strong entity tag, or,
// where a digest will tell parts of two files apart, the date (RFC 9110,
// section 13.1.5).
func validator(h http.Header, checked bool) string {
	if tag := h.Get("ETag"); strings.HasPrefix(tag, `"`) {
		return tag
	}
	if checked {
		return h.Get("Last-Modified")
	}
	return ""
}

// refused makes an error of an answer that is not the file.
func (t *transfer) refused(resp *http.Response) error {
	err := &statusError{status: resp.StatusCode, text: printable(resp.Status)}
	if err.text == "" {
		err.text = strconv.Itoa(resp.StatusCode)
	}
	if strings.HasPrefix(resp.Header.Get("Content-Type"), "text/plain") {
		if said := firstLine(resp.Body); said != "" {
			err.text += ": " + said
		}
	}
	if denied := resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden; denied && t.login.cert != "" {
		err.text += " (with the client certificate " + t.login.cert + ")"
	} else if denied && t.login.header == "" && t.req.through == nil {
		err.text += " (without a login)"
	}
	if isTemporary(resp.StatusCode) {
		t.wait = retryAfter(resp, time.Now())
		return temporary{err}
	}
	return err
}

// isTemporary tells whether a status is one after which another try makes
// sense.
func isTemporary(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// retryAfter is how long the server asks us to wait, in seconds or until a
// date (RFC 9110, section 10.2.3); 0 where it does not.
func retryAfter(resp *http.Response, now time.Time) time.Duration {
	asked := resp.Header.Get("Retry-After")
	wait := time.Duration(0)
	if s, err := strconv.Atoi(asked); err == nil {
		wait = time.Duration(min(max(s, 0), 3600)) * time.Second
	} else if at, err := http.ParseTime(asked); err == nil {
		wait = at.Sub(now)
	}
	return min(max(wait, 0), maxRetryAfter)
}

// firstLine is the first line of a server's message, without what a terminal
// would obey.
func firstLine(r io.Reader) string {
	b, _ := io.ReadAll(io.LimitReader(r, 512))
	line, _, _ := strings.Cut(strings.TrimSpace(string(b)), "\n")
	return printable(line)
}

// printable is the begin of what a server said.
func printable(s string) string {
	s = strings.Map(func(c rune) rune {
		if !strconv.IsPrint(c) {
			return -1
		}
		return c
	}, s)
	return s[:min(len(s), 200)]
}
