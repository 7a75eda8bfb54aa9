package prefetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"caisson/lock"
	"caisson/lock/digest"
)

// Where a server may lead, by the address that it says.
func TestLedByName(t *testing.T) {
	var hops atomic.Int64
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/a":
			io.WriteString(w, hello)
		case "/back":
			http.Redirect(w, r, "//"+r.Host+"/a", http.StatusFound)
		default:
			left := 0
			hops.Add(1)
			fmt.Sscanf(r.URL.Path, "/hops/%d", &left)
			to := r.URL.Query().Get("to")
			if left > 1 {
				to = fmt.Sprintf("/hops/%d?to=%s", left-1, r.URL.Query().Get("to"))
			}
			if to != "" {
				w.Header()["Location"] = []string{to}
			}
			w.WriteHeader(http.StatusFound)
		}
	})
	plain := serve(t, h)
	secure := httptest.NewTLSServer(h)
	defer secure.Close()
	cfg := quick()
	cfg.RootCAs = secure.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	for _, c := range []struct {
		name, url, err string
		requests       int64 // that the server saw
	}{
		{"ten times", plain + "/hops/10?to=/a", "", 10},
		{"eleven times", plain + "/hops/11?to=/a", "more than 10 of them", 11},
		{"for ever", plain + "/hops/1?to=/hops/1", "", 0},
		{"a scheme of its own", plain + "/hops/1?to=//" + strings.TrimPrefix(plain, "http://") + "/back", "", 1},
		{"to a file", plain + "/hops/1?to=file:///etc/passwd", "to file://", 1},
		{"to ftp", plain + "/hops/1?to=ftp://127.0.0.1/a", "to ftp://127.0.0.1", 1},
		{"to a script", plain + "/hops/1?to=javascript:alert(1)", "to javascript://", 1},
		{"to nothing", plain + "/hops/1", "302 Found", 1},
		{"to no address", plain + "/hops/1?to=http://[", "", 1},
		{"https to http", secure.URL + "/hops/1?to=" + plain + "/a", "from https to " + plain, 1},
		{"http to https", plain + "/hops/1?to=" + secure.URL + "/a", "", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			hops.Store(0)
			url := c.url
			if c.name == "for ever" {
				url = serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					hops.Add(1)
					http.Redirect(w, r, "/", http.StatusMovedPermanently)
				}))
				c.err, c.requests = "more than 10 of them", 11
			}
			s := newStore(t)
			in := lock.Input{Kind: lock.KindFile, Name: "a-file", URL: url, SHA256: digest.Of([]byte(hello)), Size: int64(len(hello))}
			_, err := Fill(context.Background(), &lock.Lock{Inputs: []lock.Input{in}}, s, Options{Config: cfg})
			bad := c.err != "" || c.name == "to no address"
			if (err != nil) != bad || bad && !strings.Contains(err.Error(), c.err) || s.Has(in.SHA256) == bad {
				t.Errorf("got %v, want %s", err, c.err)
			}
			if c.err != "" && c.err != "302 Found" && !errors.Is(err, errRedirect) {
				t.Errorf("got %v, want a refused redirect", err)
			}
			if c.name != "to no address" && hops.Load() != c.requests {
				t.Errorf("%d requests, want %d: what is refused is not tried again", hops.Load(), c.requests)
			}
			clean(t, s)
		})
	}
}

func TestReach(t *testing.T) {
	for text, want := range map[string]reach{
		"127.0.0.1": reachLocal, "127.8.9.1": reachLocal, "::1": reachLocal, "0.0.0.0": reachLocal, "::": reachLocal, "::ffff:127.0.0.1": reachLocal,
		"169.254.169.254": reachLocal, "fe80::1%eth0": reachLocal, "224.0.0.1": reachLocal, "255.255.255.255": reachLocal, "ff02::1": reachLocal,
		"10.0.0.1": reachPrivate, "172.16.0.1": reachPrivate, "192.168.1.1": reachPrivate, "100.64.0.1": reachPrivate, "fd00:ec2::254": reachPrivate, "::ffff:10.0.0.1": reachPrivate,
		"203.0.113.7": reachPublic, "172.32.0.1": reachPublic, "100.128.0.1": reachPublic, "2001:db8::1": reachPublic,
	} {
		if got := reachOf(netip.MustParseAddr(text)); got != want {
			t.Errorf("%s: got %s, want %s", text, got, want)
		}
	}
	if got := reachOf(netip.Addr{}); got != reachLocal {
		t.Errorf("no address: got %s", got)
	}
}

// hosts are the machines of the network that TestLedNearer makes.
var hosts = map[string]string{
	"mirror.public": "203.0.113.7", "cdn.public": "203.0.113.8",
	"mirror.corp": "10.9.8.7", "cache.corp": "10.9.8.9",
	"metadata.link": "169.254.169.254", "innocent.public": "127.0.0.1", "localhost": "127.0.0.1",
}

// netnsEnv is set in the process that has that network.
const netnsEnv = "CAISSON_PREFETCH_NETWORK"

// TestLedNearer makes a network with public, private and local addresses, in a
// namespace, in which names lie about where they lead. A server leads to
// others, and whoever must not be reached sees no connection.
func TestLedNearer(t *testing.T) {
	if os.Getenv(netnsEnv) != "" {
		ledNearer(t)
		return
	}
	c := exec.Command(os.Args[0], "-test.run=^TestLedNearer$", "-test.v")
	c.Env = append(os.Environ(), netnsEnv+"="+t.TempDir())
	c.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	out, err := c.CombinedOutput()
	if errors.Is(err, unix.EPERM) || strings.Contains(string(out), "no network:") {
		if os.Getenv("CAISSON_TOOLS") == "required" {
			t.Fatalf("%v, %s", err, out)
		}
		t.Skipf("a network cannot be made here: %v, %s", err, out)
	}
	if err != nil || !strings.Contains(string(out), "--- PASS: TestLedNearer") {
		t.Errorf("%v\n%s", err, out)
	}
}

// makeNetwork gives the loopback device the addresses of hosts, and the names
// to it that resolve.
func makeNetwork(dir string) error {
	var text strings.Builder
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	up := func(device string, set func(*unix.Ifreq) error, request uint) error {
		r, err := unix.NewIfreq(device)
		if err == nil {
			err = set(r)
		}
		if err != nil {
			return err
		}
		return unix.IoctlIfreq(fd, request, r)
	}
	err = up("lo", func(r *unix.Ifreq) error { r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING); return nil }, unix.SIOCSIFFLAGS)
	n := 0
	for name, address := range hosts {
		fmt.Fprintf(&text, "%s %s\n", address, name)
		if ip := netip.MustParseAddr(address).As4(); err == nil && ip[0] != 127 {
			n++
			err = up(fmt.Sprint("lo:", n), func(r *unix.Ifreq) error { return r.SetInet4Addr(ip[:]) }, unix.SIOCSIFADDR)
		}
	}
	if err != nil {
		return err
	}
	names := filepath.Join(dir, "hosts")
	if err := os.WriteFile(names, []byte(text.String()), 0o644); err != nil {
		return err
	}
	return unix.Mount(names, "/etc/hosts", "", unix.MS_BIND, "")
}

func ledNearer(t *testing.T) {
	if err := makeNetwork(os.Getenv(netnsEnv)); err != nil {
		t.Skipf("no network: %v", err)
	}
	// One server at all addresses: /to/HOST… leads on, /a has the file.
	var asked atomic.Value // the hosts, in turn
	asked.Store("")
	l, err := net.Listen("tcp4", "0.0.0.0:80")
	if err != nil {
		t.Skipf("no network: %v", err)
	}
	connections := make(chan string, 100)
	srv := &http.Server{
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			connections <- c.LocalAddr().(*net.TCPAddr).IP.String()
			return ctx
		},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked.Store(asked.Load().(string) + " " + r.Host)
			if next, ok := strings.CutPrefix(r.URL.Path, "/to/"); ok {
				host, rest, _ := strings.Cut(next, "/")
				http.Redirect(w, r, "http://"+host+"/"+rest, http.StatusFound)
				return
			}
			io.WriteString(w, hello)
		}),
	}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })

	for _, c := range []struct {
		way string // hosts, in turn
		err string // who may not be led to
	}{
		{"mirror.public cdn.public", ""},
		{"mirror.corp cache.corp", ""},
		{"mirror.corp cdn.public", ""},
		{"mirror.corp cdn.public mirror.corp", ""}, // back to who was asked
		{"innocent.public mirror.corp", ""},        // as the lock has it
		{"innocent.public metadata.link", ""},
		{"localhost innocent.public", ""},
		{"mirror.public innocent.public", "127.0.0.1, which is on this machine or its link"},
		{"mirror.public cdn.public innocent.public", "127.0.0.1, which is on this machine"},
		{"mirror.corp innocent.public", "127.0.0.1, which is on this machine"},
		{"mirror.public metadata.link", "169.254.169.254, which is on this machine or its link"},
		{"mirror.corp metadata.link", "169.254.169.254, which is on this machine or its link"},
		{"mirror.public mirror.corp", "10.9.8.7, which is on a private network"},
		{"mirror.public 10.9.8.7", "10.9.8.7, which is on a private network"},
		{"mirror.corp cdn.public cache.corp", "10.9.8.9, which is on a private network"},
		{"innocent.public cdn.public mirror.corp", "10.9.8.7, which is on a private network"},
		{"mirror.public localhost", "to this machine's"},
		{"mirror.public 127.0.0.1", "to this machine's"},
	} {
		t.Run(strings.ReplaceAll(c.way, " ", "→"), func(t *testing.T) {
			way := strings.Fields(c.way)
			url := "http://" + way[0]
			for _, h := range way[1:] {
				url += "/to/" + h
			}
			url += "/a"
			asked.Store("")
			client := newClient(t, quick())
			// Connections to the last host that were made by who may go there
			// are not used by who may not.
			if c.err != "" {
				if got, err := get(t, client, Request{URL: "http://" + way[len(way)-1] + "/a"}); err != nil || got != hello {
					t.Fatalf("got %q, %v", got, err)
				}
				asked.Store("")
			}
			for len(connections) > 0 {
				<-connections
			}
			got, err := get(t, client, Request{URL: url})
			if c.err == "" {
				if err != nil || got != hello {
					t.Errorf("got %q, %v", got, err)
				}
				return
			}
			if !errors.Is(err, errRedirect) || !strings.Contains(err.Error(), c.err) {
				t.Errorf("got %q, %v, want %s", got, err, c.err)
			}
			if want := " " + strings.Join(way[:len(way)-1], " "); asked.Load() != want {
				t.Errorf("asked were%s, want%s", asked.Load(), want)
			}
			for len(connections) > 0 {
				if at := <-connections; at == hosts[way[len(way)-1]] {
					t.Errorf("there was a connection to %s", at)
				}
			}
		})
	}
	t.Run("git", func(t *testing.T) {
		asked.Store("")
		f := fetcher(t, quick())
		_, err := f.Fetch(context.Background(), lock.Want{Kind: lock.KindGit, URL: "http://mirror.public/to/innocent.public/repo", Ref: strings.Repeat("a", 40)})
		if err == nil || !strings.Contains(err.Error(), "127.0.0.1, which is on this machine") || strings.Contains(asked.Load().(string), "innocent") {
			t.Errorf("got %v; asked were%s", err, asked.Load())
		}
	})
}

// An index that has its crates where a registry has no business.
func TestIndexLeadsAway(t *testing.T) {
	for dl, want := range map[string]string{
		"https://cdn.example/{crate}":              "",
		"http://cdn.example/{crate}":               "",
		"file:///etc":                              `no http or https address: "file:///etc"`,
		"file:///{crate}":                          "no http or https address",
		"/dl":                                      "no http or https address",
		"http://127.0.0.1:8080/{crate}":            "on this machine",
		"https://localhost/{crate}":                "on this machine",
		"http://user:secret@[::1]/{crate}":         "on this machine",
		"http://169.254.169.254/latest/{crate}":    "on this machine",
		"gopher://cdn.example/{crate}/{version}/x": "no http or https address",
	} {
		proxy := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Host == "index.example" {
				fmt.Fprintf(w, `{"dl": %q}`, dl)
			}
		}))
		cfg := quick()
		cfg.Proxy = func(*url.URL) (*url.URL, error) { return url.Parse(proxy) }
		places, err := fetcher(t, cfg).crate(context.Background(), "sparse+http://index.example/", "serde/1.0.0", "")
		switch {
		case want == "" && (err != nil || len(places) != 1):
			t.Errorf("%s: got %v, %v", dl, places, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret")):
			t.Errorf("%s: got %v, want %s", dl, err, want)
		}
	}
}
