package sandbox

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	Init()
	if name := os.Getenv("SANDBOX_GUEST"); name != "" {
		os.Exit(guest(name))
	}
	os.Exit(m.Run())
}

// tempDir is t.TempDir by its real path.
func tempDir(t *testing.T) string {
	t.Helper()
	d, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// hostRoot is a root that shows the machine's /usr and this test's executable, at
// /guest, and further empty folders.
func hostRoot(t *testing.T, dirs ...string) Spec {
	t.Helper()
	root := tempDir(t)
	for _, d := range slices.Concat([]string{"usr", "etc", "proc", "dev", "tmp", "root"}, dirs) {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, l := range []string{"bin", "sbin", "lib", "lib64"} {
		if _, err := os.Stat("/usr/" + l); err != nil {
			continue
		}
		if err := os.Symlink("usr/"+l, filepath.Join(root, l)); err != nil {
			t.Fatal(err)
		}
	}
	write := map[string]string{"guest": "", "etc/passwd": "root:x:0:0::/root:/bin/sh\n", "etc/group": "root:x:0:\n"}
	for name, text := range write {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return Spec{Root: root, Mounts: []Mount{{Source: "/usr", Target: "/usr"}, {Source: exe, Target: "/guest"}}}
}

// sh runs a shell script in s.
func sh(t *testing.T, s Spec, script string) (*Result, string) {
	t.Helper()
	s.Args = []string{"sh", "-c", script}
	return runOK(t, s)
}

func runOK(t *testing.T, s Spec) (*Result, string) {
	t.Helper()
	var out bytes.Buffer
	s.Stdout, s.Stderr = &out, &out
	if s.Timeout == 0 {
		s.Timeout = time.Minute
	}
	r, err := Run(context.Background(), s)
	if err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	return r, out.String()
}

func TestCommand(t *testing.T) {
	s := hostRoot(t)
	s.Env = []string{"SOURCE_DATE_EPOCH=1", "HOME=/root"}
	s.Stdin = strings.NewReader("from outside\n")
	r, out := sh(t, s, `cat; env | sort; hostname; umask; id -u; id -g; pwd; ls -A / /dev; ls /proc/self/fd; ls /sys; exit 7`)
	if r.ExitCode != 7 || r.Signal != "" {
		t.Errorf("exit code %d, signal %q; want 7\n%s", r.ExitCode, r.Signal, out)
	}
	want := `from outside
HOME=/root
LANG=C.UTF-8
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
PWD=/
SOURCE_DATE_EPOCH=1
TZ=UTC
caisson
0022
0
0
/
/:
bin
dev
etc
guest
lib
lib64
proc
root
sbin
tmp
usr

/dev:
fd
full
null
random
shm
stderr
stdin
stdout
tty
urandom
zero
0
1
2
3
ls: cannot access '/sys': No such file or directory
`
	if out != want {
		t.Errorf("got\n%s\nwant\n%s", out, want)
	}
}

// TestAsOrdinaryUser runs this package's tests again as a user who is not root.
func TestAsOrdinaryUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("not root: the other tests are what this one would run")
	}
	if os.Getenv(coveredEnv) != "" {
		t.Skip("root of a user namespace that has no other user")
	}
	dir, err := os.MkdirTemp("", "sandbox")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	const nobody = 65534
	exe := filepath.Join(dir, "sandbox.test")
	b, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(exe, b, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{dir, exe} {
		if err := errors.Join(os.Chmod(name, 0o755), os.Chown(name, nobody, nobody)); err != nil {
			t.Fatal(err)
		}
	}
	args := []string{"-test.timeout=5m"}
	if testing.Verbose() {
		args = append(args, "-test.v")
	}
	cmd := exec.Command(exe, args...)
	cmd.Dir = dir
	cmd.Env = []string{"TMPDIR=" + dir, "PATH=" + os.Getenv("PATH"), "CAISSON_TOOLS=" + os.Getenv("CAISSON_TOOLS")}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("as user %d: %v\n%s", nobody, err, out)
	}
	t.Logf("as user %d:\n%s", nobody, out)
}

// guestSpec runs a guest of guest_test.go.
func guestSpec(t *testing.T, name string, env ...string) Spec {
	s := hostRoot(t, "input")
	s.Args, s.Env = []string{"/guest"}, append(env, "SANDBOX_GUEST="+name)
	return s
}

func TestEscapes(t *testing.T) {
	input := tempDir(t)
	secret := filepath.Join(tempDir(t), "secret")
	for _, name := range []string{filepath.Join(input, "file"), secret} {
		if err := os.WriteFile(name, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	host, err := listenAbstract()
	if err != nil {
		t.Fatal(err)
	}
	defer host.close()
	socket := filepath.Join(tempDir(t), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	inputSocket, err := net.Listen("unix", filepath.Join(input, "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer inputSocket.Close()
	var names []string
	for n := range escapes() {
		names = append(names, n)
	}
	// The last one changes the root.
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Or(cmp.Compare(btoi(a == "leave-chroot"), btoi(b == "leave-chroot")), cmp.Compare(a, b))
	})
	// A descriptor that this process was started with, so to say: without close-on-exec.
	inherited, err := unix.Open(secret, unix.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(inherited)
	s := guestSpec(t, "escape", "ESCAPES="+strings.Join(names, ","), "HOST_ABSTRACT="+host.name, "HOST_SOCKET="+socket,
		"HOST_FILE="+secret, fmt.Sprint("HOST_FD=", inherited), fmt.Sprint("HOST_PID=", os.Getpid()))
	s.Mounts = append(s.Mounts, Mount{Source: input, Target: "/input"})
	r, out := runOK(t, s)
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if len(lines) != len(names) {
		t.Fatalf("%d answers for %d escapes:\n%s", len(lines), len(names), out)
	}
	for _, line := range lines {
		if strings.HasSuffix(line, "<nil>") || strings.Contains(line, "was refused") {
			t.Errorf("not as it should be: %s", line)
		}
	}
	t.Logf("%s", out)
	checkAttempts(t, &r.Evidence)
	checkSockets(t, &r.Evidence, socket)
	checkWrites(t, &r.Evidence)
	if b, err := os.ReadDir(input); err != nil || len(b) != 2 {
		t.Errorf("the input has %v, %v", b, err)
	}
	refused := map[string]bool{}
	for _, c := range r.Evidence.Refused {
		refused[c.Call] = c.Exe == "/guest" && c.Count > 0
	}
	for _, call := range []string{"io_uring_setup", "setns", "unshare", "clone", "ptrace", "process_vm_readv", "process_vm_writev", "pidfd_getfd", "bpf", "keyctl",
		"mount", "umount2", "sethostname", "socket AF_ALG", "connect AF_UNIX " + host.name} {
		if !refused[call] {
			t.Errorf("refusal of %s is not recorded: %+v", call, r.Evidence.Refused)
		}
	}
}

// checkSockets checks that what is allowed, and led nowhere, is recorded too.
func checkSockets(t *testing.T, e *Evidence, hostSocket string) {
	t.Helper()
	for _, want := range []string{"connect AF_UNIX " + hostSocket, "socket AF_NETLINK protocol 0", fmt.Sprint("sendto AF_NETLINK message ", unix.RTM_NEWROUTE)} {
		if !slices.ContainsFunc(e.Sockets, func(u SocketUse) bool {
			return u.Exe == "/guest" && u.Call+" "+u.What == want && u.Count > 0
		}) {
			t.Errorf("%s is not recorded: %+v", want, e.Sockets)
		}
	}
	if len(e.Interfaces) != 1 || e.Interfaces[0].Name != "lo" {
		t.Errorf("interfaces: %+v", e.Interfaces)
	}
}

// checkWrites checks that the attempts to write to inputs, tools and the kernel's
// settings are recorded, each once, and no other.
func checkWrites(t *testing.T, e *Evidence) {
	t.Helper()
	var got []string
	for _, w := range e.Writes {
		if w.Exe != "/guest" || w.Errno != "EROFS" {
			t.Errorf("a write of %+v", w)
		}
		got = append(got, fmt.Sprintf("%s %s %d", strings.TrimSuffix(w.Call, "at"), w.Path, w.Count))
	}
	slices.Sort(got)
	want := []string{
		"fchmod /dev/null 1", "fchmod /input 1", "fchmod /input/file 1", "fchown /input 1", "fchown /input/file 1", "ioctl FS_IOC_SETFLAGS /input 1",
		"link /input/other 1", "mkdir /input/folder 1", "mknod /input/pipe 1", "open /evil 1", "open /input/evil 1", "open /input/file 3",
		"open /proc/sys/kernel/core_pattern 1", "open /usr/bin/env 1", "openat2 /input/file 1", "rename /input/file 1", "setxattr /input/file 1",
		"symlink /input/link 1", "truncate /input/file 1", "unlink /input/file 2", "unlink /input/none 1", "utimens /input/file 1",
	}
	if _, err := os.Stat("/proc/sysrq-trigger"); err == nil || e.Volatile.SharedProc { // then all of /proc is read-only
		want = append(want, "open /proc/sysrq-trigger 1")
		slices.Sort(want)
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// checkAttempts checks that the network attempts of the escapes are recorded.
func checkAttempts(t *testing.T, e *Evidence) {
	t.Helper()
	got := map[string]bool{}
	for _, a := range e.NetworkAttempts() {
		if a.Exe != "/guest" || a.Comm != "guest" || !slices.Equal(a.Args, []string{"/guest"}) {
			t.Errorf("program of %+v; want /guest", a)
		}
		got[a.Call+" "+a.Family+" "+a.Destination+" "+a.Errno] = true
	}
	for _, want := range []string{
		"connect AF_INET 192.0.2.7:80 ENETUNREACH", "connect AF_INET6 [2001:db8::7]:80 ENETUNREACH",
		"connect AF_INET 192.0.2.7:9 ENETUNREACH", "sendmmsg AF_INET 192.0.2.9:9 ENETUNREACH", "sendto AF_INET 192.0.2.7:82 ENETUNREACH",
		"connect AF_INET6 [::ffff:192.0.2.7]:81 ENETUNREACH", "socket AF_INET6 raw  EPERM", "sendmsg AF_INET 192.0.2.8:9 ENETUNREACH",
		"sendto AF_INET 192.0.2.53:53 ENETUNREACH", "socket AF_INET raw  EPERM", "socket AF_PACKET  EAFNOSUPPORT",
		"socket AF_VSOCK  EAFNOSUPPORT", "connect AF_UNIX /input/s ECONNREFUSED",
	} {
		if !got[want] {
			t.Errorf("no attempt %q in %v", want, got)
		}
		delete(got, want)
	}
	if len(got) > 0 {
		t.Errorf("attempts that nobody made: %v", got)
	}
}

func TestEvidence(t *testing.T) {
	s := guestSpec(t, "interfaces")
	s.Name = "look"
	r, out := runOK(t, s)
	if want := "lo up|loopback|running\nloopback: <nil>\n"; out != want {
		t.Errorf("got %q, want %q", out, want)
	}
	e := r.Evidence
	if e.Step != "look" || !slices.Equal(e.Namespaces, namespaceKinds()) || len(e.Interfaces) != 1 || e.Interfaces[0].Name != "lo" {
		t.Errorf("step, namespaces, interfaces: %+v", e)
	}
	if !e.Confinement.Seccomp || !e.Confinement.NoNewPrivs || slices.Contains(e.Confinement.Capabilities, unix.CAP_SYS_ADMIN) {
		t.Errorf("confinement: %+v", e.Confinement)
	}
	if len(e.Attempts) != 0 || len(e.Refused) != 0 {
		t.Errorf("attempts %v, refused %v; want none", e.Attempts, e.Refused)
	}
	var netlink, loopback bool
	for _, u := range e.Sockets {
		netlink = netlink || strings.HasPrefix(u.What, "AF_NETLINK")
		loopback = loopback || strings.HasPrefix(u.What, "127.0.0.1:")
	}
	if !netlink || !loopback {
		t.Errorf("sockets: %+v; want netlink and loopback", e.Sockets)
	}
	layers := map[string]int{}
	for _, c := range e.Canaries {
		layers[c.Layer]++
		if c.Errno == "" {
			t.Errorf("canary got through: %+v", c)
		}
	}
	if layers["namespace"] != 7 || layers["filter"] != 13 {
		t.Errorf("canaries: %v", e.Canaries)
	}
	for _, m := range e.Mounts {
		fixed := m.Target == "/tmp" || strings.HasPrefix(m.Target, "/dev") || m.Target == "/proc"
		if !slices.Contains(m.Flags, "ro") && !fixed {
			t.Errorf("mount %+v is writable", m)
		}
	}
	b, err := json.MarshalIndent(e, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s", b)
}

func TestAttemptsAreBounded(t *testing.T) {
	r, _ := runOK(t, guestSpec(t, "attempts"))
	if len(r.Evidence.Attempts) != maxListed || r.Evidence.AttemptsDropped != 10 {
		t.Errorf("%d attempts and %d dropped; want %d and 10", len(r.Evidence.Attempts), r.Evidence.AttemptsDropped, maxListed)
	}
	if all := r.Evidence.NetworkAttempts(); all[len(all)-1].Count != 10 {
		t.Errorf("last attempt %+v; want the count of the others", all[len(all)-1])
	}
}

func TestTimeLimit(t *testing.T) {
	for _, tt := range []struct {
		name string
		args []string
	}{
		{"sleeps", []string{"sleep", "1000"}},
		{"ignores signals", []string{"sh", "-c", "trap '' TERM INT HUP; while :; do sleep 1000; done"}},
		{"forks for ever", []string{"/guest"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.name == "forks for ever" && os.Geteuid() == 0 && !pidMaxPerNamespace(kernelRelease()) {
				t.Skip("nothing limits the processes of root before Linux 6.14: TestAsOrdinaryUser runs this test")
			}
			s := guestSpec(t, "forkbomb")
			s.Args, s.Timeout, s.MaxProcesses = tt.args, 3*time.Second, 64
			began := time.Now()
			r, err := Run(context.Background(), s)
			if !errors.Is(err, ErrTimeout) {
				t.Fatalf("error %v; want the time limit", err)
			}
			if took := time.Since(began); took > 20*time.Second {
				t.Errorf("took %s", took)
			}
			if r == nil || len(r.Evidence.Canaries) == 0 {
				t.Errorf("no evidence beside the error")
			}
		})
	}
}

func TestCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	s := hostRoot(t)
	s.Args = []string{"sh", "-c", "echo started; sleep 1000"}
	s.Stdout = writerFunc(func(b []byte) (int, error) { cancel(); return len(b), nil })
	if _, err := Run(ctx, s); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v; want context.Canceled", err)
	}
	if _, err := Run(ctx, s); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled before: error %v; want context.Canceled", err)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

func TestLeftOver(t *testing.T) {
	s := hostRoot(t)
	marker := fmt.Sprint("31", time.Now().UnixNano()%1e9)
	r, _ := sh(t, s, "setsid sleep "+marker+" & setsid sleep "+marker+" & kill -TERM 1; kill -9 1; kill -9 $$")
	if r.Signal != "SIGKILL" || r.ExitCode != 137 {
		t.Errorf("signal %q, exit code %d; want SIGKILL, 137", r.Signal, r.ExitCode)
	}
	if names := alive(t, marker); len(names) > 0 {
		t.Errorf("%v are still alive", names)
	}
}

// TestCallerDies kills a process that runs a sandbox: the sandbox must go with it.
func TestCallerDies(t *testing.T) {
	marker := fmt.Sprint("32", time.Now().UnixNano()%1e9)
	cmd := exec.Command("/proc/self/exe", hostRoot(t).Root, "sleep", marker)
	cmd.Env = []string{"SANDBOX_GUEST=caller"}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 8)
	if _, err := out.Read(line); err != nil {
		t.Fatal(err)
	}
	if len(alive(t, marker)) == 0 {
		t.Error("the command did not start")
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	for range 100 {
		if len(alive(t, marker)) == 0 {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Errorf("%v are still alive", alive(t, marker))
}

// alive are the processes that sleep for marker seconds.
func alive(t *testing.T, marker string) (names []string) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range all {
		if b, err := os.ReadFile(name); err == nil && strings.Contains(string(b), "sleep\x00"+marker) {
			names = append(names, name)
		}
	}
	return names
}

func TestErrors(t *testing.T) {
	for _, tt := range []struct {
		name string
		spec func(*Spec)
		want string
	}{
		{"no command", func(s *Spec) { s.Args = nil }, "no command"},
		{"unknown command", func(s *Spec) { s.Args = []string{"no-such-program"} }, `starting "no-such-program" in /: not found in PATH`},
		{"no executable", func(s *Spec) { s.Args = []string{"/etc/passwd"} }, `starting "/etc/passwd" in /: permission denied`},
		{"no folder", func(s *Spec) { s.Dir = "/nowhere" }, "in /nowhere: no such file"},
		{"relative target", func(s *Spec) { s.Tmpfs = []string{"x"} }, `target "x": want a clean absolute path`},
		{"climbing target", func(s *Spec) { s.Tmpfs = []string{"/../x"} }, `target "/../x": want a clean absolute path`},
		{"missing root", func(s *Spec) { s.Root = "/no/such/root" }, `mounting the root: "/no/such/root": no such file`},
		{"missing source", func(s *Spec) { s.Mounts[0].Source = "/no/such" }, `mounting on /usr: "/no/such": no such file`},
		{"missing target", func(s *Spec) { s.Mounts[0].Target = "/nowhere" }, "/nowhere does not exist and lies on a read-only mount"},
		{"mounts below", func(s *Spec) { s.Mounts[0].Source = "/" }, `"/": a file system is mounted below it`},
		{"socket", func(s *Spec) {
			l, err := net.Listen("unix", filepath.Join(s.Root, "s"))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { l.Close() })
			s.Mounts = append(s.Mounts, Mount{Source: filepath.Join(s.Root, "s"), Target: "/guest"})
		}, "it is a socket"},
		{"environment", func(s *Spec) { s.Env = []string{"X"} }, `environment "X": want KEY=value`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := hostRoot(t)
			s.Args = []string{"true"}
			tt.spec(&s)
			_, err := Run(context.Background(), s)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v; want %q", err, tt.want)
			}
		})
	}
}
