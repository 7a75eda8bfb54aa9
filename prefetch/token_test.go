package prefetch

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"caisson/lock"
	"caisson/lock/digest"
)

// redHat is a token server, an API and the server of files that it names.
type redHat struct {
	mu     sync.Mutex
	tokens int    // given so far
	valid  string // the token that the API takes
	life   int    // seconds
	asked  []string
	form   string
	how    func(w http.ResponseWriter, r *http.Request, cdn string)
	cdn    *faulty

	api, files *httptest.Server
}

func newRedHat(t testing.TB) *redHat {
	h := &redHat{life: 900, cdn: &faulty{content: anISO, etag: `"v1"`}}
	h.how = func(w http.ResponseWriter, _ *http.Request, cdn string) {
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		json.NewEncoder(w).Encode(map[string]any{"body": map[string]any{"filename": "an.iso", "href": cdn}})
	}
	h.files = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.note(r)
		h.cdn.ServeHTTP(w, r)
	}))
	h.api = httptest.NewServer(h)
	t.Cleanup(h.api.Close)
	t.Cleanup(h.files.Close)
	return h
}

func (h *redHat) note(r *http.Request) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.asked = append(h.asked, r.Method+" "+r.URL.Path+" "+r.Header.Get("Authorization"))
}

func (h *redHat) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.note(r)
	if r.URL.Path == "/token" {
		r.ParseForm()
		h.mu.Lock()
		defer h.mu.Unlock()
		h.form = r.PostForm.Encode()
		if r.PostForm.Get("refresh_token") != "long-lived" {
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprintf(w, `{"error": "invalid_grant", "error_description": "Offline session of %s not found"}`, r.PostForm.Get("refresh_token"))
			return
		}
		h.tokens++
		h.valid = fmt.Sprint("access-", h.tokens)
		fmt.Fprintf(w, `{"access_token": %q, "expires_in": %d, "refresh_token": "another"}`, h.valid, h.life)
		return
	}
	h.mu.Lock()
	ok := r.Header.Get("Authorization") == "Bearer "+h.valid
	h.mu.Unlock()
	if !ok {
		http.Error(w, "token expired", http.StatusUnauthorized)
		return
	}
	h.how(w, r, h.files.URL+"/an.iso?sig=1")
}

func (h *redHat) auth() *lock.Auth {
	return &lock.Auth{OfflineToken: &lock.AuthOfflineToken{Token: "$OFFLINE", TokenURL: h.api.URL + "/token", ClientID: "us"}}
}

func tokenConfig() Config {
	cfg := quick()
	cfg.MaxSize = 8 << 20
	cfg.Env = environment("OFFLINE", "long-lived", "WRONG", "another-secret")
	return cfg
}

func TestOfflineToken(t *testing.T) {
	h := newRedHat(t)
	c := newClient(t, tokenConfig())
	req := Request{URL: h.api.URL + "/images/x/download", Auth: h.auth(), Digest: digest.Of([]byte(anISO))}
	for range 2 {
		if got, err := get(t, c, req); err != nil || got != anISO {
			t.Fatalf("got %d bytes, %v", len(got), err)
		}
	}
	want := []string{"POST /token ", "GET /images/x/download Bearer access-1", "GET /an.iso ", "GET /images/x/download Bearer access-1", "GET /an.iso "}
	if strings.Join(h.asked, "|") != strings.Join(want, "|") {
		t.Errorf("got %q,\nwant %q", h.asked, want)
	}
	if want := "client_id=us&grant_type=refresh_token&refresh_token=long-lived"; h.form != want {
		t.Errorf("got %s, want %s", h.form, want)
	}
	// The server has forgotten its token.
	h.valid, h.asked = "", nil
	if got, err := get(t, c, req); err != nil || got != anISO {
		t.Fatalf("got %d bytes, %v", len(got), err)
	}
	want = []string{"GET /images/x/download Bearer access-1", "POST /token ", "GET /images/x/download Bearer access-2", "GET /an.iso "}
	if strings.Join(h.asked, "|") != strings.Join(want, "|") {
		t.Errorf("got %q,\nwant %q", h.asked, want)
	}
	// A cut is gone on with, by way of the API.
	h.asked = nil
	h.cdn.n.Store(0)
	h.cdn.fault = func(n int, w http.ResponseWriter, r *http.Request) bool {
		if n == 0 {
			drop(w, http.StatusOK, len(anISO), anISO[:2<<20])
		}
		return false
	}
	if got, err := get(t, c, req); err != nil || got != anISO || len(h.asked) != 4 || h.cdn.ranges[len(h.cdn.ranges)-1] == "" {
		t.Errorf("got %d bytes, %v, %q", len(got), err, h.asked)
	}
}

// What the API may do instead of naming an address.
func TestOfflineTokenAnswers(t *testing.T) {
	sum := digest.Of([]byte(anISO))
	named := `{"body": {"href": "https://cdn.example/x"}}`
	for _, c := range []struct {
		name string
		want digest.Digest
		how  func(w http.ResponseWriter, r *http.Request, cdn string)
		err  string
	}{
		{"the file", sum, func(w http.ResponseWriter, _ *http.Request, _ string) { io.WriteString(w, anISO) }, ""},
		{"a redirect", sum, func(w http.ResponseWriter, r *http.Request, cdn string) {
			http.Redirect(w, r, cdn, http.StatusTemporaryRedirect)
		}, ""},
		{"a status of redirects, and an address", sum, func(w http.ResponseWriter, _ *http.Request, cdn string) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusTemporaryRedirect)
			fmt.Fprintf(w, `{"body": {"href": %q}}`, cdn)
		}, ""},
		{"a file that looks like an answer", digest.Of([]byte(named)), func(w http.ResponseWriter, _ *http.Request, _ string) {
			w.Header().Set("Content-Type", "application/json")
			io.WriteString(w, named)
		}, ""},
		{"JSON that names nothing", digest.Of([]byte(`{"a": 1}`)), func(w http.ResponseWriter, _ *http.Request, _ string) {
			w.Header().Set("Content-Type", "application/json")
			io.WriteString(w, `{"a": 1}`)
		}, ""},
		{"a file of this machine", sum, func(w http.ResponseWriter, _ *http.Request, _ string) {
			w.Header().Set("Content-Type", "application/json")
			io.WriteString(w, `{"body": {"href": "file://localhost/etc/passwd"}}`)
		}, "redirect refused: to file://"},
		{"no address", sum, func(w http.ResponseWriter, _ *http.Request, _ string) {
			w.Header().Set("Content-Type", "application/json")
			io.WriteString(w, `{"body": {"href": "nowhere"}}`)
		}, "an address that is none"},
		{"forbidden", sum, func(w http.ResponseWriter, _ *http.Request, _ string) {
			http.Error(w, "terms not accepted", http.StatusForbidden)
		}, "403 Forbidden: terms not accepted"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newRedHat(t)
			h.how = c.how
			got, err := get(t, newClient(t, tokenConfig()), Request{URL: h.api.URL + "/x", Auth: h.auth(), Digest: c.want})
			if c.err == "" && (err != nil || digest.Of([]byte(got)) != c.want) || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
				t.Errorf("got %d bytes, %v, want %s", len(got), err, c.err)
			}
			for _, a := range h.asked {
				if strings.Contains(a, "an.iso") && strings.Contains(a, "access") {
					t.Errorf("the token went to the server of files: %s", a)
				}
			}
		})
	}
}

func TestOfflineTokenRefused(t *testing.T) {
	h := newRedHat(t)
	cfg := tokenConfig()
	try := func(o lock.AuthOfflineToken) (int64, error) {
		c := newClient(t, cfg)
		_, err := get(t, c, Request{URL: h.api.URL + "/x", Auth: &lock.Auth{OfflineToken: &o}})
		if err == nil || strings.Contains(err.Error(), "another-secret") || strings.Contains(err.Error(), "long-lived") {
			t.Errorf("got %v", err)
		}
		return c.Requests(), err
	}
	n, err := try(lock.AuthOfflineToken{Token: "$WRONG", TokenURL: h.api.URL + "/token"})
	if err == nil || !strings.Contains(err.Error(), "exchanging the offline token at "+h.api.URL+"/token: 400 Bad Request: invalid_grant: Offline session of … not found") || n != 0 {
		t.Errorf("got %v, %d requests", err, n)
	}
	if len(h.asked) != 1 {
		t.Errorf("asked %q", h.asked)
	}
	for _, bad := range []string{"http://sso.example/token", "ftp://127.0.0.1/", ":"} {
		if _, err := try(lock.AuthOfflineToken{Token: "$OFFLINE", TokenURL: bad}); err == nil || !strings.Contains(err.Error(), "want an https address") {
			t.Errorf("%s: got %v", bad, err)
		}
	}
	away := serve(t, http.RedirectHandler(h.api.URL+"/token", http.StatusTemporaryRedirect))
	if _, err := try(lock.AuthOfflineToken{Token: "$OFFLINE", TokenURL: away}); err == nil || !strings.Contains(err.Error(), "a token is not sent on") {
		t.Errorf("got %v", err)
	}
	no := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html>") }))
	if _, err := try(lock.AuthOfflineToken{Token: "$OFFLINE", TokenURL: no}); err == nil || !strings.Contains(err.Error(), "has no access_token") {
		t.Errorf("got %v", err)
	}
}

// A token is used until shortly before its end, and then another is asked for.
func TestOfflineTokenExpires(t *testing.T) {
	h := newRedHat(t)
	o, err := newOfflineToken(tokenConfig(), h.auth().OfflineToken, http.DefaultTransport)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		life  int
		least time.Duration
	}{{900, 860 * time.Second}, {20, 9 * time.Second}, {0, 29 * time.Second}, {-5, 29 * time.Second}} {
		h.life, o.expires = c.life, time.Time{}
		if _, err := o.get(context.Background()); err != nil {
			t.Fatal(err)
		}
		left := time.Until(o.expires)
		if left < c.least || left > c.least+11*time.Second {
			t.Errorf("of %d s: used for %s more", c.life, left)
		}
	}
	before := h.tokens
	if o.get(context.Background()); h.tokens != before {
		t.Error("asked for a token where one holds")
	}
}
