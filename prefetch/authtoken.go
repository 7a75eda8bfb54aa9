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
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http/httpguts"

	"caisson/lock"
	"caisson/lock/digest"
)

// Red Hat's single sign-on, and the client that its download API knows.
const (
	redHatTokens = "https://sso.redhat.com/auth/realms/redhat-external/protocol/openid-connect/token"
	redHatClient = "rhsm-api"
)

// maxTokenAnswer is the size in bytes above which what a token server says,
// or an answer that names another address, is not read.
const maxTokenAnswer = 64 << 10

// tokenMargin is how long before its end a token is not used any more.
const tokenMargin = 30 * time.Second

// offlineToken exchanges a long-lived token for short-lived ones.
type offlineToken struct {
	token, url, client string
	agent              string
	http               http.Client

	mu      sync.Mutex
	access  string
	expires time.Time
}

func newOfflineToken(cfg Config, a *lock.AuthOfflineToken, t http.RoundTripper) (*offlineToken, error) {
	o := &offlineToken{url: redHatTokens, client: redHatClient, agent: "caisson/" + cfg.Version}
	var err error
	if o.token, err = cfg.secret("offline token", a.Token); err != nil {
		return nil, err
	}
	if a.TokenURL != "" {
		o.url = a.TokenURL
	}
	if a.ClientID != "" {
		o.client = a.ClientID
	}
	u, err := url.Parse(o.url)
	if err != nil || u.Scheme != "https" && (u.Scheme != "http" || !isLoopback(u.Hostname())) {
		return nil, fmt.Errorf("the token server %s: want an https address", safeURL(o.url))
	}
	o.http = http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error {
		return fmt.Errorf("%w: a token is not sent on", errRedirect)
	}}
	return o, nil
}

// get is the value of an Authorization header. It asks for a token where there
// is none that holds.
func (o *offlineToken) get(ctx context.Context) (string, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.access == "" || time.Now().After(o.expires) {
		if err := o.exchange(ctx); err != nil {
			return "", fmt.Errorf("exchanging the offline token at %s: %w", safeURL(o.url), err)
		}
	}
	return "Bearer " + o.access, nil
}

// refused says that a header's value was not accepted: the next is a new one.
func (o *offlineToken) refused(value string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if value == "Bearer "+o.access {
		o.access = ""
	}
}

// exchange asks for a token (RFC 6749, section 6).
func (o *offlineToken) exchange(ctx context.Context) error {
	form := url.Values{"grant_type": {"refresh_token"}, "client_id": {o.client}, "refresh_token": {o.token}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, o.url, strings.NewReader(form.Encode()))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", o.agent)
	resp, err := o.http.Do(req)
	if err != nil {
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err
		}
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxTokenAnswer))
	if err != nil {
		return err
	}
	var said struct {
		Access      string `json:"access_token"`
		Expires     int64  `json:"expires_in"` // seconds
		Error       string `json:"error"`
		Description string `json:"error_description"`
	}
	bad := json.Unmarshal(b, &said)
	switch {
	case resp.StatusCode >= 500 || resp.StatusCode == http.StatusTooManyRequests:
		return errors.New(resp.Status)
	case resp.StatusCode != http.StatusOK:
		return permanent{errors.New(o.hide(printable(strings.Join([]string{resp.Status, said.Error, said.Description}, ": "))))}
	case bad != nil || said.Access == "" || !httpguts.ValidHeaderFieldValue(said.Access):
		return permanent{errors.New("the answer has no access_token")}
	}
	life := time.Duration(min(max(said.Expires, 0), 1<<20)) * time.Second
	if life == 0 {
		life = time.Minute // the server does not say
	}
	o.access, o.expires = said.Access, time.Now().Add(max(life-tokenMargin, life/2))
	return nil
}

// hide takes the token out of what the server says.
func (o *offlineToken) hide(s string) string {
	return strings.TrimRight(strings.ReplaceAll(s, o.token, "…"), ": ")
}

// askByToken asks an address that wants a short-lived token. The answer is the
// file, or says where it can be had without one.
func (t *transfer) askByToken(ctx context.Context, header http.Header) (*http.Response, error) {
	ctx = newJourney(t.url).within(ctx) // what the answer names is led to
	resp, err := t.askOnce(ctx, header)
	if err != nil {
		return nil, err
	}
	href, err := t.linkIn(resp)
	if err != nil || href == nil {
		return resp, err
	}
	resp.Body.Close()
	if err := mayLead(t.url, t.url, href); err != nil {
		return nil, err
	}
	return t.c.ask(ctx, &login{transport: t.login.elsewhere, elsewhere: t.login.elsewhere}, href, header.Clone())
}

// askOnce asks, and again where the token has come to its end, or where the
// server cannot give a range of an answer that is no file.
func (t *transfer) askOnce(ctx context.Context, header http.Header) (*http.Response, error) {
	value, err := t.login.offline.get(ctx)
	if err != nil {
		return nil, err
	}
	resp, err := t.c.ask(ctx, t.login, t.url, header.Clone())
	if err == nil && resp.StatusCode == http.StatusUnauthorized {
		resp.Body.Close()
		t.login.offline.refused(value)
		resp, err = t.c.ask(ctx, t.login, t.url, header.Clone())
	}
	if err == nil && isJSON(resp) && (resp.StatusCode == http.StatusPartialContent || resp.StatusCode == http.StatusRequestedRangeNotSatisfiable) {
		resp.Body.Close()
		whole := header.Clone()
		whole.Del("Range")
		whole.Del("If-Range")
		resp, err = t.c.ask(ctx, t.login, t.url, whole)
	}
	return resp, err
}

func isJSON(resp *http.Response) bool {
	return strings.HasPrefix(resp.Header.Get("Content-Type"), "application/json")
}

// linkIn is the address that an answer names; nil where it is the file.
func (t *transfer) linkIn(resp *http.Response) (*url.URL, error) {
	if resp.StatusCode >= 400 || !isJSON(resp) {
		return nil, nil
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxTokenAnswer))
	if err != nil {
		resp.Body.Close()
		return nil, err
	}
	var said struct {
		Body struct {
			Href string `json:"href"`
		} `json:"body"`
	}
	if digest.Of(b) == t.req.Digest || json.Unmarshal(b, &said) != nil || said.Body.Href == "" {
		resp.Body = struct {
			io.Reader
			io.Closer
		}{io.MultiReader(bytes.NewReader(b), resp.Body), resp.Body}
		return nil, nil
	}
	href, err := url.Parse(said.Body.Href)
	if err != nil || href.Host == "" {
		resp.Body.Close()
		return nil, permanent{errors.New("the answer names an address that is none")}
	}
	return href, nil
}
