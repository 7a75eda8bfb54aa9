package s3

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"

	"caisson/lock/digest"
	"caisson/prefetch"
)

// bucket is that of the tests.
const bucket = "images"

// store is an S3 store in this process, which does what Amazon's does with
// checksums: it refuses what they do not fit.
type store struct {
	host    string
	backend *s3mem.Backend
}

func newStore(t *testing.T) *store {
	t.Helper()
	s := &store{backend: s3mem.New()}
	if err := s.backend.CreateBucket(bucket); err != nil {
		t.Fatal(err)
	}
	inner := gofakes3.New(s.backend, gofakes3.WithLogger(gofakes3.DiscardLog())).Server()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.Contains(r.Header.Get("Authorization"), "Credential=me/") {
			w.WriteHeader(http.StatusForbidden)
			io.WriteString(w, "<Error><Code>InvalidAccessKeyId</Code></Error>")
			return
		}
		if r.Method == http.MethodPut {
			b, err := io.ReadAll(r.Body)
			sum := digest.Of(b)
			if err != nil || r.Header.Get("X-Amz-Checksum-Sha256") != base64.StdEncoding.EncodeToString(sum[:]) {
				w.WriteHeader(http.StatusBadRequest)
				io.WriteString(w, "<Error><Code>BadDigest</Code><Message>The SHA256 you specified did not match.</Message></Error>")
				return
			}
			r.Body = io.NopCloser(bytes.NewReader(b))
		}
		inner.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	s.host = strings.TrimPrefix(srv.URL, "http://")
	credentials(t, "me", "hunter2hunter2")
	return s
}

// read is an object's content.
func (s *store) read(key string) ([]byte, error) {
	o, err := s.backend.GetObject(bucket, key, nil)
	if err != nil {
		return nil, err
	}
	defer o.Contents.Close()
	return io.ReadAll(o.Contents)
}

// credentials are in a file, as the AWS CLI has them.
func credentials(t *testing.T, id, secret string) {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "credentials")
	if err := os.WriteFile(file, []byte("[default]\naws_access_key_id = "+id+"\naws_secret_access_key = "+secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{"AWS_SHARED_CREDENTIALS_FILE": file, "AWS_CONFIG_FILE": filepath.Join(dir, "config"), "AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "",
		"AWS_PROFILE": "", "AWS_REGION": "", "AWS_EC2_METADATA_DISABLED": "true", "AWS_ENDPOINT_URL_S3": "", "AWS_ENDPOINT_URL": ""} {
		t.Setenv(name, value)
	}
}

// makeFiles are files of some sizes.
func makeFiles(t *testing.T, sizes ...int64) []File {
	t.Helper()
	dir := t.TempDir()
	r := rand.NewChaCha8([32]byte{1})
	var files []File
	for i, size := range sizes {
		name := fmt.Sprintf("f%d", i)
		b := make([]byte, size)
		r.Read(b)
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
		files = append(files, File{Name: "statements/" + name, Path: filepath.Join(dir, name), Type: "application/octet-stream", Size: size, SHA256: digest.Of(b)})
	}
	return files
}

// proxy counts requests by method, and answers itself where gate says so.
type proxy struct {
	mu    sync.Mutex
	count map[string]int
	gate  func(w http.ResponseWriter, r *http.Request) bool
}

func newProxy(t *testing.T, host string) (*proxy, string) {
	t.Helper()
	p := &proxy{count: map[string]int{}}
	to := &httputil.ReverseProxy{ErrorLog: log.New(io.Discard, "", 0), Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(&url.URL{Scheme: "http", Host: host})
		r.Out.Host = r.In.Host // it is signed
	}}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		p.count[r.Method]++
		gate := p.gate
		p.mu.Unlock()
		if gate == nil || !gate(w, r) {
			to.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(srv.Close)
	return p, srv.URL
}

func (p *proxy) set(gate func(w http.ResponseWriter, r *http.Request) bool) map[string]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := p.count
	p.count, p.gate = map[string]int{}, gate
	return out
}

// TestPush puts small and large files into a store, and nothing twice.
func TestPush(t *testing.T) {
	s := newStore(t)
	p, endpoint := newProxy(t, s.host)
	files := makeFiles(t, 0, 1000, 2*minPart+12345)
	var last prefetch.Event
	o := Options{Endpoint: endpoint, Progress: func(e prefetch.Event) { last = e }}
	done, err := Push(t.Context(), "s3://images/podvm/1.0/", files, o)
	if err != nil || done.Sent != 3 || done.Files != 3 || done.Bytes != 2*minPart+13345 {
		t.Fatalf("got %+v, %v", done, err)
	}
	if last.Done != 3 || last.Bytes != last.TotalBytes {
		t.Errorf("progress: %+v", last)
	}
	for _, f := range files {
		b, err := s.read("podvm/1.0/" + f.Name)
		if err != nil || digest.Of(b) != f.SHA256 {
			t.Errorf("%s: %v", f.Name, err)
		}
	}
	p.set(nil)
	if done, err = Push(t.Context(), "s3://images/podvm/1.0", files, o); err != nil || done.Sent != 0 {
		t.Errorf("again: %+v, %v", done, err)
	}
	if got := p.set(nil); got["PUT"] != 0 || got["HEAD"] != 3 {
		t.Errorf("again: %v", got)
	}

	// By the environment's endpoint; what was there is replaced.
	t.Setenv("AWS_ENDPOINT_URL_S3", endpoint)
	other := makeFiles(t, 10)
	if done, err = Push(t.Context(), "s3://images/podvm/1.0", other, Options{}); err != nil || done.Sent != 1 {
		t.Errorf("another file of that name: %+v, %v", done, err)
	}
}

// An alteration on the way is seen by the store, and is not taken.
func TestAltered(t *testing.T) {
	s := newStore(t)
	p, endpoint := newProxy(t, s.host)
	for name, size := range map[string]int64{"whole": 1000, "in parts": minPart + 5} {
		files := makeFiles(t, size)
		p.set(func(_ http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodPut {
				b, _ := io.ReadAll(r.Body)
				if len(b) > 0 {
					b[0] ^= 1
				}
				r.Body = io.NopCloser(bytes.NewReader(b))
			}
			return false
		})
		_, err := Push(t.Context(), "s3://images/altered", files, Options{Endpoint: endpoint})
		var e *Error
		if !errors.As(err, &e) || e.Status != http.StatusBadRequest || !strings.Contains(err.Error(), "BadDigest") {
			t.Errorf("%s: got %v", name, err)
		}
		if _, err := s.read("altered/" + files[0].Name); err == nil {
			t.Errorf("%s: it is there", name)
		}
		p.set(nil)
		cfg := s3.NewFromConfig(aws.Config{Region: "us-east-1", Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "me", SecretAccessKey: "hunter2hunter2"}, nil
		})}, func(o *s3.Options) { o.BaseEndpoint, o.UsePathStyle = aws.String("http://"+s.host), true })
		left, err := cfg.ListMultipartUploads(t.Context(), &s3.ListMultipartUploadsInput{Bucket: aws.String("images")})
		var none *awshttp.ResponseError
		if !(errors.As(err, &none) && none.HTTPStatusCode() == 404) && (err != nil || len(left.Uploads) != 0) {
			t.Errorf("%s: uploads that were left: %+v, %v", name, left, err)
		}
	}
}

// What passes is tried again.
func TestPasses(t *testing.T) {
	s := newStore(t)
	p, endpoint := newProxy(t, s.host)
	var mu sync.Mutex
	seen := map[string]bool{}
	p.set(func(w http.ResponseWriter, r *http.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		key := r.Method + r.URL.Query().Get("partNumber")
		if seen[key] {
			return false
		}
		seen[key] = true
		if r.Method == http.MethodPut {
			panic(http.ErrAbortHandler)
		}
		w.WriteHeader(http.StatusServiceUnavailable)
		return true
	})
	files := makeFiles(t, 100, minPart+1)
	if done, err := Push(t.Context(), "s3://images/passes", files, Options{Endpoint: endpoint}); err != nil || done.Sent != 2 {
		t.Errorf("got %+v, %v", done, err)
	}
}

func TestRefused(t *testing.T) {
	s := newStore(t)
	p, endpoint := newProxy(t, s.host)
	files := makeFiles(t, 100)
	wrong := makeFiles(t, 100)
	wrong[0].SHA256 = digest.Of(nil)
	answer := func(status int, code string) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method != http.MethodPut {
				return false
			}
			w.WriteHeader(status)
			fmt.Fprintf(w, "<Error><Code>%s</Code><Message>no &#10; line</Message></Error>", code)
			return true
		}
	}
	for _, tt := range []struct {
		name, address string
		files         []File
		gate          func(http.ResponseWriter, *http.Request) bool
		id            string
		status        int
		want          string
	}{
		{"no such bucket", "s3://nothing/x", files, nil, "me", 404, "NoSuchBucket"},
		{"wrong key", "s3://images/x", files, nil, "you", 403, "403"},
		{"forbidden", "s3://images/x", files, answer(403, "AccessDenied"), "me", 403, "the store answers 403 AccessDenied: no  line"},
		{"too large", "s3://images/x", files, answer(400, "EntityTooLarge"), "me", 400, "EntityTooLarge"},
		{"not what it was", "s3://images/x", wrong, nil, "me", 0, "want 100 bytes and " + digest.Of(nil).String()},
		{"another address", "https://images/x", files, nil, "me", 0, "is not s3://"},
		{"leading out", "s3://images/../x", files, nil, "me", 0, "is not s3://"},
		{"a password", "s3://me:pass@images", files, nil, "me", 0, "is not s3://"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			credentials(t, tt.id, "hunter2hunter2")
			p.set(tt.gate)
			_, err := Push(t.Context(), tt.address, tt.files, Options{Endpoint: endpoint})
			var e *Error
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.ContainsAny(err.Error(), "\x1b\n") || errors.As(err, &e) && e.Status != tt.status || tt.status > 0 && e == nil {
				t.Errorf("got %v, want %d %q", err, tt.status, tt.want)
			}
			if err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Errorf("it has the secret: %v", err)
			}
		})
	}
}

// A store that takes everything and keeps something else is found out.
func TestLies(t *testing.T) {
	credentials(t, "me", "x")
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodHead {
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	defer srv.Close()
	if _, err := Push(t.Context(), "s3://images", makeFiles(t, 10), Options{Endpoint: srv.URL}); err == nil || !strings.Contains(err.Error(), "has something else") {
		t.Errorf("got %v", err)
	}
	sum := digest.Of([]byte("a"))
	all := digest.Of(sum[:])
	for said, good := range map[string]bool{"": true, base64.StdEncoding.EncodeToString(all[:]) + "-1": true, "x-1": false} {
		if err := confirm(said, [][]byte{sum[:]}); (err == nil) != good {
			t.Errorf("%q: %v", said, err)
		}
	}
}
