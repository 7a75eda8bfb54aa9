package prefetch

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"caisson/prefetch/cas"
)

// maxPages is how many pages a list of referrers may have.
const maxPages = 100

// referrers is an index as a list of what refers to a manifest has it.
type referrers struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType"`
	Manifests     []json.RawMessage `json:"manifests"`
}

// getReferrers gets a list of referrers: all its pages as one (distribution-spec
// 1.1, "Listing Referrers").
func (f *Fetcher) getReferrers(ctx context.Context, req Request, to *cas.Temp) (by string, err error) {
	req.next = new(string)
	if by, err = f.client.get(ctx, req, to); err != nil || *req.next == "" {
		return by, err
	}
	limit := req.Max
	if limit == 0 {
		limit = f.client.cfg.MaxSize
	}
	var all referrers
	for n := 1; ; n++ {
		b, err := io.ReadAll(io.NewSectionReader(to, 0, to.Size()))
		if err != nil {
			return by, err
		}
		var page referrers
		if err := json.Unmarshal(b, &page); err != nil {
			return by, &FetchError{URL: safeURL(req.URL), Err: fmt.Errorf("a list of referrers: %w", err)}
		}
		page.Manifests = append(all.Manifests, page.Manifests...)
		all = page
		if err := to.Restart(); err != nil {
			return by, err
		}
		if *req.next == "" {
			break
		}
		if limit -= int64(len(b)); n == maxPages || limit <= 0 {
			return by, &FetchError{URL: safeURL(req.URL), Err: fmt.Errorf("a list of referrers of more than %d pages, or too large", maxPages)}
		}
		if req.URL, err = nextPage(req.URL, *req.next); err != nil {
			return by, &FetchError{URL: safeURL(req.URL), Err: err}
		}
		*req.next, req.Max = "", limit
		if _, err := f.client.get(ctx, req, to); err != nil {
			return by, err
		}
	}
	b, err := json.Marshal(all)
	if err == nil {
		_, err = io.Copy(to, bytes.NewReader(b))
	}
	return by, err
}

// linkNext is a Link header's address of what follows (RFC 8288, section 3).
var linkNext = regexp.MustCompile(`<([^>]*)>\s*;[^,]*\brel="?next"?`)

// nextOf is what an answer says where its continuation is; empty for nowhere.
func nextOf(resp *http.Response) string {
	if m := linkNext.FindStringSubmatch(strings.Join(resp.Header.Values("Link"), ", ")); m != nil {
		return m[1]
	}
	return ""
}

// nextPage is the address of a page. It is one of the same list.
func nextPage(from, next string) (string, error) {
	at, err := url.Parse(from)
	if err != nil {
		return "", err
	}
	to, err := at.Parse(next)
	if err != nil || to.Host != at.Host || to.Path != at.Path || to.User != nil {
		return "", errors.New("a list of referrers goes on at another place")
	}
	to.Scheme = at.Scheme
	return to.String(), nil
}
