package gitfetch

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/go-git/go-git/v5/plumbing/transport"
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
func (s SSH) connect(ep *transport.Endpoint, timeout time.Duration) (transport.UploadPackSession, error) {
	if ep.User == "" {
		ep.User = gitssh.DefaultUsername
	}
	return gitssh.NewClient(nil).NewUploadPackSession(ep, &sshLogin{SSH: s, user: ep.User, host: net.JoinHostPort(ep.Host, strconv.Itoa(cmp.Or(ep.Port, gitssh.DefaultPort))), timeout: timeout})
}

// sshLogin logs in with what an SSH names.
type sshLogin struct {
	SSH
	user    string
	host    string // with its port
	timeout time.Duration
}

// Name is go-git's name of the way to log in.
func (l *sshLogin) Name() string { return gitssh.PublicKeysCallbackName }

// String names nobody's key.
func (l *sshLogin) String() string { return l.user + " by public key" }

// ClientConfig is how to log in.
func (l *sshLogin) ClientConfig() (*ssh.ClientConfig, error) {
	hosts, err := gitssh.NewKnownHostsDb(existing(l.KnownHosts)...)
	if err != nil {
		return nil, fmt.Errorf("reading the known hosts: %w", err)
	}
	return &ssh.ClientConfig{
		User: l.user, Timeout: l.timeout, Auth: []ssh.AuthMethod{ssh.PublicKeysCallback(l.signers)},
		HostKeyAlgorithms: hosts.HostKeyAlgorithms(l.host),
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
func (l *sshLogin) signers() ([]ssh.Signer, error) {
	var out []ssh.Signer
	if l.Agent != "" {
		conn, err := net.DialTimeout("unix", l.Agent, l.timeout)
		if err == nil {
			out, err = agent.NewClient(conn).Signers()
		}
		if err != nil && len(l.Keys) == 0 {
			return nil, fmt.Errorf("asking the SSH agent: %w", err)
		}
	}
	for _, name := range l.Keys {
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
