package prefetch

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cgi"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"caisson/lock"
	"caisson/lock/gittree"
	"caisson/lock/tooltest"
	"caisson/prefetch/gitfetch"
)

// gitEnv is git's environment without a person's configuration.
func gitEnv() []string {
	return append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null",
		"GIT_AUTHOR_NAME=Ann", "GIT_AUTHOR_EMAIL=a@example.org", "GIT_AUTHOR_DATE=1700000000 +0100",
		"GIT_COMMITTER_NAME=Ann", "GIT_COMMITTER_EMAIL=a@example.org", "GIT_COMMITTER_DATE=1700000001 +0100")
}

func git(t testing.TB, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command(tooltest.Find(t, "git"), append([]string{"-c", "protocol.file.allow=always"}, args...)...)
	cmd.Dir, cmd.Env = dir, gitEnv()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// commit makes files in a work tree and commits them.
func commit(t testing.TB, dir string, at map[string]string) string {
	t.Helper()
	write(t, dir, at)
	git(t, dir, "add", "-A")
	git(t, dir, "commit", "-q", "-m", "more")
	return git(t, dir, "rev-parse", "HEAD")
}

// forge is a folder of bare repositories.
type forge struct {
	dir  string
	work string // the work tree of project.git
	old  string // a commit of which nothing has a name
	tip  string
	tag  string // the object
}

// newForge has project.git, with a branch, tags and the submodule sub.git.
func newForge(t testing.TB) *forge {
	t.Helper()
	f := &forge{dir: t.TempDir(), work: t.TempDir()}
	sub := t.TempDir()
	git(t, sub, "init", "-q", "-b", "main")
	commit(t, sub, map[string]string{"in-sub": "s"})
	git(t, "", "clone", "-q", "--bare", sub, filepath.Join(f.dir, "sub.git"))
	git(t, f.work, "init", "-q", "-b", "main")
	commit(t, f.work, map[string]string{"README": "first"})
	f.old = commit(t, f.work, map[string]string{"README": "second", "dir/file": "x"})
	git(t, f.work, "submodule", "add", "-q", filepath.Join(f.dir, "sub.git"), "ext/sub")
	git(t, f.work, "config", "-f", ".gitmodules", "submodule.ext/sub.url", "../sub.git")
	commit(t, f.work, map[string]string{"README": "third", "big": strings.Repeat("0123456789abcdef", 10_000)})
	git(t, f.work, "tag", "-a", "-m", "a release", "v1.0")
	git(t, f.work, "branch", "stable")
	f.tip = commit(t, f.work, map[string]string{"README": "fourth"})
	git(t, f.work, "tag", "light")
	git(t, f.work, "tag", "both", "v1.0^{}")
	git(t, f.work, "branch", "both")
	f.tag = git(t, f.work, "rev-parse", "v1.0")
	git(t, "", "clone", "-q", "--bare", f.work, filepath.Join(f.dir, "project.git"))
	return f
}

// backend serves the repositories as git's own server does.
func (f *forge) backend(t testing.TB) http.Handler {
	t.Helper()
	return &cgi.Handler{
		Path: tooltest.Find(t, "git"), Args: []string{"http-backend"}, Dir: f.dir, Stderr: io.Discard,
		Env: []string{"GIT_PROJECT_ROOT=" + f.dir, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_GLOBAL=/dev/null"},
	}
}

// ids are what the commit and the tag of a fetched file are.
func ids(t testing.TB, b lock.Blob) *gittree.Info {
	t.Helper()
	f, err := os.Open(b.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := gittree.Check(f)
	if err != nil {
		t.Fatal(err)
	}
	return info
}

// sshServer serves the repositories by SSH to one key, and returns its
// address and how to reach it.
func (f *forge) sshServer(t *testing.T) (addr string, client gitfetch.SSH) {
	t.Helper()
	dir := t.TempDir()
	host, hostPub := sshKey(t, filepath.Join(dir, "host"))
	_, userPub := sshKey(t, filepath.Join(dir, "id"))
	cfg := &ssh.ServerConfig{PublicKeyCallback: func(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
		if string(key.Marshal()) != string(userPub.Marshal()) {
			return nil, errors.New("unknown key")
		}
		return nil, nil
	}}
	cfg.AddHostKey(host)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go f.serveSSH(conn, cfg)
		}
	}()
	known := filepath.Join(dir, "known_hosts")
	line := knownhosts.Line([]string{ln.Addr().String()}, hostPub)
	if err := os.WriteFile(known, []byte(line+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return ln.Addr().String(), gitfetch.SSH{Keys: []string{filepath.Join(dir, "absent"), filepath.Join(dir, "id")}, KnownHosts: []string{known}}
}

// sshKey makes a key, in a file.
func sshKey(t *testing.T, name string) (ssh.Signer, ssh.PublicKey) {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return signer, signer.PublicKey()
}

// serveSSH runs git upload-pack for a connection.
func (f *forge) serveSSH(conn net.Conn, cfg *ssh.ServerConfig) {
	_, chans, reqs, err := ssh.NewServerConn(conn, cfg)
	if err != nil {
		return
	}
	go ssh.DiscardRequests(reqs)
	for c := range chans {
		ch, reqs, err := c.Accept()
		if err != nil {
			return
		}
		for r := range reqs {
			_ = r.Reply(r.Type == "exec", nil)
			if r.Type != "exec" {
				continue
			}
			_, path, _ := strings.Cut(string(r.Payload[4:]), "'")
			cmd := exec.Command("git", "upload-pack", filepath.Join(f.dir, strings.Trim(path, "'/")))
			cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = gitEnv(), ch, ch, ch.Stderr()
			code := uint32(0)
			if cmd.Run() != nil {
				code = 128
			}
			_, _ = ch.SendRequest("exit-status", false, ssh.Marshal(struct{ C uint32 }{code}))
			ch.Close()
			break
		}
	}
}

// daemon serves the repositories by git's own protocol.
func (f *forge) daemon(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				cmd := exec.Command("git", "daemon", "--inetd", "--export-all", "--base-path="+f.dir)
				file, err := conn.(*net.TCPConn).File()
				if err != nil {
					return
				}
				defer file.Close()
				cmd.Env, cmd.Stdin, cmd.Stdout = gitEnv(), file, file
				_ = cmd.Run()
			}()
		}
	}()
	return fmt.Sprintf("git://%s/project.git", ln.Addr())
}
