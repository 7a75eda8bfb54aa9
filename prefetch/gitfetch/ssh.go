package gitfetch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	gitssh "github.com/go-git/go-git/v5/plumbing/transport/ssh"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// SSH is whom to log in as by SSH, and whom to believe.
type SSH struct {
	Agent string   // the agent's socket; empty for none
	Keys  []string // files of private keys; those that are absent or have a passphrase are passed over
	// KnownHosts are files in the form of sshd(8). A server that is in none of
	// them is refused.
	KnownHosts []string
}

// connect opens a session.
func (s SSH) connect(ctx context.Context, u *url.URL, timeout time.Duration, w *watch, limit int64) (link, error) {
	user := u.User.Username()
	if user == "" {
		user = gitssh.DefaultUsername
	}
	named := net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), strconv.Itoa(gitssh.DefaultPort)))
	cfg, err := s.config(user, named, timeout)
	if err != nil {
		return nil, err
	}
	host := cmp.Or(gitssh.DefaultSSHConfig.Get(u.Hostname(), "Hostname"), u.Hostname())
	port := cmp.Or(u.Port(), gitssh.DefaultSSHConfig.Get(u.Hostname(), "Port"), strconv.Itoa(gitssh.DefaultPort))
	conn, err := (&net.Dialer{Timeout: timeout}).DialContext(ctx, "tcp", net.JoinHostPort(host, port))
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	link, err := runSSH(conn, named, cfg, u.Path)
	if err != nil {
		stop()
		return nil, errors.Join(err, conn.Close())
	}
	link.in = &watched{ReadCloser: link.in, w: w, left: limit}
	link.end = func() {
		stop()
		conn.Close()
	}
	return link, nil
}

// runSSH logs in and has the server run what sends objects. Servers that let
// clients say so speak version 2 of the protocol.
func runSSH(conn net.Conn, host string, cfg *ssh.ClientConfig, path string) (*stream, error) {
	c, chans, reqs, err := ssh.NewClientConn(conn, host, cfg)
	if err != nil {
		return nil, err
	}
	session, err := ssh.NewClient(c, chans, reqs).NewSession()
	if err != nil {
		return nil, err
	}
	in, err := session.StdoutPipe()
	if err != nil {
		return nil, err
	}
	out, err := session.StdinPipe()
	if err != nil {
		return nil, err
	}
	said := &firstWords{}
	session.Stderr = said
	_ = session.Setenv("GIT_PROTOCOL", "version=2")
	if home, ok := strings.CutPrefix(path, "/~"); ok {
		path = "~" + home
	}
	if err := session.Start("git-upload-pack '" + strings.NewReplacer("'", `'\''`, "!", `'\!'`).Replace(path) + "'"); err != nil {
		return nil, err
	}
	return &stream{in: &sshReader{r: in, session: session, said: said}, out: out}, nil
}

// sshReader reads what a program on the server writes: that it has failed is
// an error at the end.
type sshReader struct {
	r       io.Reader
	session *ssh.Session
	said    *firstWords
}

func (r *sshReader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	if errors.Is(err, io.EOF) {
		if failed := r.session.Wait(); failed != nil {
			if words := r.said.String(); words != "" {
				return n, serverError(words)
			}
		}
	}
	return n, err
}

func (r *sshReader) Close() error { return r.session.Close() }

// firstWords keeps the begin of what is written.
type firstWords struct {
	mu sync.Mutex
	b  []byte
}

func (f *firstWords) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.b = append(f.b, p[:min(len(p), 300-len(f.b))]...)
	return len(p), nil
}

func (f *firstWords) String() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.TrimSpace(string(f.b))
}

// config is how to log in to a host, which is named with its port.
func (s SSH) config(user, host string, timeout time.Duration) (*ssh.ClientConfig, error) {
	hosts, err := gitssh.NewKnownHostsDb(existing(s.KnownHosts)...)
	if err != nil {
		return nil, fmt.Errorf("reading the known hosts: %w", err)
	}
	return &ssh.ClientConfig{
		User: user, Timeout: timeout, Auth: []ssh.AuthMethod{ssh.PublicKeysCallback(func() ([]ssh.Signer, error) { return s.signers(timeout) })},
		HostKeyAlgorithms: hosts.HostKeyAlgorithms(host),
		HostKeyCallback: func(name string, addr net.Addr, key ssh.PublicKey) error {
			if err := hosts.HostKeyCallback()(name, addr, key); err != nil {
				return fmt.Errorf("the host key %s of %s is not among the known hosts: %w", ssh.FingerprintSHA256(key), name, err)
			}
			return nil
		},
	}, nil
}

// existing leaves out the files that are absent; a name that never exists
// stands for none, for which go-git would look elsewhere.
func existing(files []string) []string {
	var out []string
	for _, f := range files {
		if _, err := os.Stat(f); err == nil {
			out = append(out, f)
		}
	}
	if len(out) == 0 {
		return []string{os.DevNull}
	}
	return out
}

// signers are the agent's keys, then those of the files.
func (s SSH) signers(timeout time.Duration) ([]ssh.Signer, error) {
	var out []ssh.Signer
	if s.Agent != "" {
		conn, err := net.DialTimeout("unix", s.Agent, timeout)
		if err == nil {
			out, err = agent.NewClient(conn).Signers()
		}
		if err != nil && len(s.Keys) == 0 {
			return nil, fmt.Errorf("asking the SSH agent: %w", err)
		}
	}
	for _, name := range s.Keys {
		b, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("reading a key: %w", err)
		}
		if key, err := ssh.ParsePrivateKey(b); err == nil {
			out = append(out, key)
		}
	}
	if len(out) == 0 {
		return nil, errors.New("no SSH key: neither the agent nor ~/.ssh has one that can be used without a passphrase")
	}
	return out, nil
}
