package hermeto

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"caisson/prefetch"
)

func settings(t *testing.T, files []string, environ ...string) *Settings {
	t.Helper()
	var all []SettingsFile
	for _, f := range files {
		all = append(all, SettingsFile{"f", []byte(f)})
	}
	s, err := ReadSettings(all, environ)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSettings(t *testing.T) {
	s := settings(t, []string{
		"gomod:\n  proxy_url: https://first.example\n  environment_variables: {A: a, B: b}\nhttp: {read_timeout: 7, max_retries: 0}\ncargo:\n",
		"concurrency_limit: 3\ngomod_strict_vendor: true\ngoproxy_url: https://P.example/go\ngomod: {environment_variables: {B: c}}\nhttp: {timeout: 9}\n",
	}, "HERMETO_CARGO__PROXY_URL=https://proxy.example/crates", "hermeto_cargo__proxy_login=me", "HERMETO_CARGO__PROXY_PASSWORD=hush",
		"HERMETO_NPM__PROXY_URL=http://other", "HERMETO_UNKNOWN=1", "HERMETOX=1", "HERMETO_HTTP__CONNECT_TIMEOUT=4", "OTHER__KEY=1")
	c := prefetch.Config{GoProxy: "off"}
	if err := s.Apply(&c); err != nil {
		t.Fatal(err)
	}
	want := prefetch.Config{
		GoProxy: "https://P.example/go", CratesIO: "sparse+https://proxy.example/crates/", CratesIOToken: "Basic bWU6aHVzaA==",
		ConnectTimeout: 4 * time.Second, IdleTimeout: 9 * time.Second, Retries: -1, PerHost: 3,
	}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got  %+v\nwant %+v", c, want)
	}
	if got := s.environment(); !reflect.DeepEqual(got, map[string]string{"A": "a", "B": "c"}) {
		t.Errorf("got %v", got)
	}
	if got := strings.Join(s.Notes, "|"); got != "the setting gomod_strict_vendor has no effect: a vendor folder is always compared with its modules|"+
		"the setting goproxy_url is called gomod.proxy_url now|the setting concurrency_limit is called runtime.concurrency_limit now|the setting http.timeout is called http.read_timeout now" {
		t.Errorf("notes %s", got)
	}

	s = settings(t, nil, "HERMETO_GOMOD__PROXY_URL=https://h.example/go", "HERMETO_GOMOD__PROXY_LOGIN=me", "HERMETO_GOMOD__PROXY_PASSWORD=a/b", `HERMETO_GOMOD__ENVIRONMENT_VARIABLES={"GOFLAGS": "-x"}`)
	if err := s.Apply(&c); err != nil || c.GoProxy != "https://me:a%2Fb@h.example/go" {
		t.Errorf("got %s, %v", c.GoProxy, err)
	}
	if got := s.environment(); !reflect.DeepEqual(got, map[string]string{"GOFLAGS": "-x"}) {
		t.Errorf("got %v", got)
	}
}

// TestReferences: which registries components are said to be from.
func TestReferences(t *testing.T) {
	for proxies, want := range map[string]string{
		"": "", "https://proxy.golang.org,direct": "", "direct": "", "https://a.example|https://proxy.golang.org,direct": "https://a.example https://proxy.golang.org",
	} {
		s := settings(t, nil, "HERMETO_GOMOD__PROXY_URL="+proxies)
		var got []string
		for _, r := range s.goReferences() {
			if r.Type != "distribution" || r.Comment != "proxy URL" {
				t.Errorf("%+v", r)
			}
			got = append(got, r.URL)
		}
		if got := strings.Join(got, " "); got != want {
			t.Errorf("%s: got %s, want %s", proxies, got, want)
		}
	}
	if got := settings(t, nil).crateReferences(); got != nil {
		t.Errorf("got %v", got)
	}
	if got := (*Settings)(nil).crateReferences(); got != nil {
		t.Errorf("got %v", got)
	}
}

func TestSettingsErrors(t *testing.T) {
	for _, tt := range []struct{ file, env, want string }{
		{"x: 1", "", "f: unknown setting x"},
		{"http: {retries: 1}", "", "f: unknown setting http.retries"},
		{"http: 5", "", "f: unknown setting http"},
		{"http: {max_retries: many}", "", "f: http.max_retries: want a number"},
		{"http: {max_retries: -1}", "", "f: http.max_retries: want a number that is not negative"},
		{"yarn: {enabled: 1}", "", "f: yarn.enabled: want true or false"},
		{"gomod: {environment_variables: {A: 1}}", "", "f: gomod.environment_variables: A: want a text"},
		{"- x", "", "f: yaml"},
		{"", "HERMETO_HTTP__FOO=1", "HERMETO_HTTP__FOO: unknown setting"},
		{"", "HERMETO_HTTP__READ_TIMEOUT=soon", "HERMETO_HTTP__READ_TIMEOUT: want a number"},
		{"mode: lenient", "", `mode "lenient"`},
		{"cargo: {proxy_login: me}", "", "cargo: proxy_login and proxy_password belong together"},
		{"cargo: {proxy_login: me, proxy_password: hush}", "", "exactly one proxy_url"},
		{"cargo: {proxy_url: 'https://me:hush@h'}", "", "cargo.proxy_url: a login does not belong"},
		{"gomod: {proxy_url: 'https://a,https://me:hush@h'}", "", "gomod.proxy_url: a login does not belong"},
		{"gomod: {proxy_url: 'https://a,direct', proxy_login: me, proxy_password: hush}", "", "exactly one proxy_url"},
		{"gomod: {proxy_url: 'http://a', proxy_login: me, proxy_password: hush}", "", "https only"},
		{"npm: {proxy_url: ftp://x}", "", "npm.proxy_url: want an address"},
	} {
		_, err := ReadSettings([]SettingsFile{{"f", []byte(tt.file)}}, []string{tt.env})
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "hush") {
			t.Errorf("%s%s: got %v, want %s", tt.file, tt.env, err, tt.want)
		}
	}
}

// TestShow: what is shown is a configuration again, and the same.
func TestShow(t *testing.T) {
	s := settings(t, []string{"gomod: {environment_variables: {B: 'x: y', A: ''}, proxy_url: 'https://h/x'}"}, "HERMETO_CARGO__PROXY_URL=https://h", "HERMETO_CARGO__PROXY_LOGIN=me", "HERMETO_CARGO__PROXY_PASSWORD=hush")
	for _, diff := range []bool{false, true} {
		b, err := s.Show(diff, true)
		if err != nil {
			t.Fatal(err)
		}
		again := settings(t, []string{string(b)})
		for name, v := range s.values {
			if !reflect.DeepEqual(again.values[name], v) {
				t.Errorf("%s: got %v, want %v", name, again.values[name], v)
			}
		}
	}
	b, err := s.Show(true, false)
	const want = `# Only what differs from the defaults

cargo:
  proxy_url: https://h  # default: null
  proxy_login: me  # default: null
  proxy_password: '**********'  # default: null

gomod:
  proxy_url: https://h/x  # default: null
  environment_variables: {A: "", B: 'x: y'}  # default: {}
`
	if err != nil || string(b) != want {
		t.Errorf("got %s, %v", b, err)
	}
	if b, err = s.Show(false, false); err != nil || strings.Contains(string(b), "hush") || yaml.Unmarshal(b, new(any)) != nil ||
		!strings.Contains(string(b), "  # HERMETO_NPM__PROXY_URL, without an effect here\n  proxy_url: null\n") {
		t.Errorf("got %s, %v", b, err)
	}
}

func FuzzReadSettings(f *testing.F) {
	f.Add([]byte("gomod: {proxy_url: 'https://a', environment_variables: {A: b}}\nconcurrency_limit: 5\n"), "HERMETO_HTTP__READ_TIMEOUT=5")
	f.Add([]byte("http: {timeout: 5}\ndefault_environment_variables: {gomod: {A: b}}\n"), "HERMETO_GOMOD__ENVIRONMENT_VARIABLES={}")
	f.Fuzz(func(t *testing.T, file []byte, env string) {
		s, err := ReadSettings([]SettingsFile{{"f", file}}, []string{env})
		if err != nil {
			return
		}
		b, err := s.Show(false, true)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ReadSettings([]SettingsFile{{"again", b}}, nil); err != nil {
			t.Errorf("%v\n%s", err, b)
		}
	})
}
