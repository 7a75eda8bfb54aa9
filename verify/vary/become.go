package vary

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// marker is argv[0] of a process that is to take on conditions and then
// become the command.
const marker = "caisson-vary"

// become is what a process takes on before it becomes the command.
type become struct {
	Umask    int
	UID, GID int // 0: stay who we are
	Persona  uintptr
	Hostname string
	// Args are the command's. Without them the process ends, well.
	Args []string
}

// becoming is a process of this same executable that takes on b.
func becoming(ctx context.Context, b become) (*exec.Cmd, error) {
	text, err := json.Marshal(b)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Args = []string{marker, string(text)}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	if b.Hostname != "" {
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWUTS
	}
	return cmd, nil
}

// try tells what keeps a process from taking on b, nil if nothing.
func try(b become) error {
	cmd, err := becoming(context.Background(), b)
	if err != nil {
		return err
	}
	cmd.Env, cmd.Dir = []string{}, "/"
	out, err := cmd.CombinedOutput()
	if text := strings.TrimSpace(string(out)); text != "" {
		return errors.New(strings.TrimPrefix(text, complaint))
	}
	return err
}

// complaint begins what a process says that cannot take on conditions.
const complaint = "caisson: taking on the conditions of a rebuild: "

// Init must be called first thing in main: where the process was started by
// Command, it takes on the conditions and becomes the command.
func Init() {
	if len(os.Args) != 2 || os.Args[0] != marker {
		return
	}
	if err := start(os.Args[1]); err != nil {
		fmt.Fprintf(os.Stderr, "%s%v\n", complaint, err)
		os.Exit(1) //nolint:forbidigo // this process exists to become another
	}
	os.Exit(0) //nolint:forbidigo // it was only to be tried
}

func start(text string) error {
	runtime.LockOSThread()
	var b become
	if err := json.Unmarshal([]byte(text), &b); err != nil {
		return err
	}
	unix.Umask(b.Umask)
	if b.Hostname != "" {
		if err := unix.Sethostname([]byte(b.Hostname)); err != nil {
			return fmt.Errorf("setting the host name: %w", err)
		}
		if err := unix.Setdomainname([]byte(b.Hostname + ".example")); err != nil {
			return fmt.Errorf("setting the domain name: %w", err)
		}
	}
	if b.Persona != 0 {
		if _, _, e := unix.RawSyscall(unix.SYS_PERSONALITY, b.Persona, 0, 0); e != 0 {
			return fmt.Errorf("personality: %w", e)
		}
	}
	if b.UID != 0 {
		if err := dropTo(b.UID, b.GID); err != nil {
			return err
		}
	}
	if len(b.Args) == 0 {
		return nil
	}
	return syscall.Exec("/proc/self/exe", append([]string{"caisson"}, b.Args...), os.Environ()) //nolint:forbidigo // the environment that Command chose is handed on
}

func dropTo(uid, gid int) error {
	if err := errors.Join(syscall.Setgroups(nil), syscall.Setresgid(gid, gid, gid), syscall.Setresuid(uid, uid, uid)); err != nil {
		return fmt.Errorf("becoming user %d: %w", uid, err)
	}
	return nil
}
