package prefetch

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"time"

	"caisson/lock/digest"
	"caisson/prefetch/cas"
)

// errNotModified says that the file is still what it was.
var errNotModified = errors.New("not modified")

// answer is by what a server can tell whether a file has changed since.
type answer struct {
	// Server is a hash of the address that gave the file, after redirects
	// and without its query: what another one calls its file says nothing of
	// this one.
	Server       string `json:"server"`
	ETag         string `json:"etag,omitempty"`
	LastModified string `json:"lastModified,omitempty"`
}

// answerOf reads the head of an answer. A date counts where the file had not
// been changed in the two seconds before (RFC 9110, section 8.8.2.2).
func answerOf(resp *http.Response) answer {
	a := answer{Server: serverOf(resp), ETag: resp.Header.Get("ETag")}
	changed, err := http.ParseTime(resp.Header.Get("Last-Modified"))
	sent, e := http.ParseTime(resp.Header.Get("Date"))
	if err == nil && e == nil && sent.Sub(changed) >= 2*time.Second {
		a.LastModified = resp.Header.Get("Last-Modified")
	}
	return a
}

func serverOf(resp *http.Response) string {
	u := resp.Request.URL
	return digest.Of([]byte(u.Scheme + "://" + u.Host + u.Path)).Hex()
}

// from tells whether it is this server that gave the file.
func (a *answer) from(resp *http.Response) bool { return a.Server == serverOf(resp) }

// ask makes a request conditional (RFC 9110, sections 13.1.2 and 13.1.3).
func (a *answer) ask(h http.Header) {
	if a.ETag != "" {
		h.Set("If-None-Match", a.ETag)
	}
	if a.LastModified != "" {
		h.Set("If-Modified-Since", a.LastModified)
	}
}

// fresh gets an address whose bytes may change. Where the server says that
// they have not, the store's copy is it; else to has the file.
func (f *Fetcher) fresh(ctx context.Context, req Request, to *cas.Temp) (brought, error) {
	key := strings.Join([]string{"answer-1", req.URL, req.Accept}, "\x00")
	req.learn = new(answer)
	have, note, ok := f.store.LookupNote(key)
	if known := new(answer); ok && json.Unmarshal([]byte(note), known) == nil && f.store.Verify(have) == nil {
		req.known = known
	}
	by, err := f.client.get(ctx, req, to)
	switch {
	case errors.Is(err, errNotModified):
		return brought{have: have}, nil
	case err != nil:
		return brought{}, err
	}
	return brought{login: by, remember: func() error {
		if req.learn.ETag == "" && req.learn.LastModified == "" {
			return nil
		}
		b, err := json.Marshal(req.learn)
		if err != nil {
			return err
		}
		return f.store.RememberNote(key, to.Sum(), string(b))
	}}, nil
}
