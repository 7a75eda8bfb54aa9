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
		if !continues(resp.Header.Get("Content-Range"), have) {
			t.validator = ""
			return temporary{fmt.Errorf("asked for bytes from %d, got %q", have, resp.Header.Get("Content-Range"))}
		}
		t.resumed = true
	case resp.StatusCode == http.StatusOK:
		if have > 0 {
			if err := t.restart(); err != nil {
				return err
			}
		}
		t.resumed = false
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
	if total := t.to.Size() + resp.ContentLength; resp.ContentLength >= 0 && t.req.Size > 0 && total != t.req.Size {
		return &SizeError{Got: total, Want: t.req.Size}
	}
	return nil
}

// continues tells whether a Content-Range begins at that byte (RFC 9110,
// section 14.4).
func continues(header string, from int64) bool {
	s, ok := strings.CutPrefix(header, "bytes ")
	start, _, dash := strings.Cut(s, "-")
	n, err := strconv.ParseInt(start, 10, 64)
	return ok && dash && err == nil && n == from
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
	err := &statusError{status: resp.StatusCode, text: resp.Status}
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
		t.wait = retryAfter(resp)
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

// retryAfter is how long the server asks us to wait; 0 where it does not.
func retryAfter(resp *http.Response) time.Duration {
	s, err := strconv.Atoi(resp.Header.Get("Retry-After"))
	if err != nil || s <= 0 {
		return 0
	}
	return min(time.Duration(min(s, 3600))*time.Second, maxRetryAfter)
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
