// Command caisson-agent tells whether the machine it runs on has the root
// that its image was built with.
//
// It finds the dm-verity device below /, asks the kernel for the root hash
// that the device enforces, and reads the TPM's SHA-256 PCRs. Whoever connects
// to its UNIX socket gets that as one line of JSON; what a client sends is not
// read. It needs CAP_SYS_ADMIN, for the device-mapper's control node.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// clientTimeout bounds how long one client may take to read its answer.
const clientTimeout = 5 * time.Second

func main() {
	socket := flag.String("socket", "/run/caisson-agent.sock", "UNIX socket to serve the status on")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *socket, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "caisson-agent:", err)
		os.Exit(1)
	}
}

// run serves the status on a socket until ctx ends. It writes one line to out
// and tells systemd when it is ready.
func run(ctx context.Context, socket string, out io.Writer) error {
	// A socket that a killed agent left behind would be in the way.
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	defer l.Close()
	// What it says is in the kernel's log and in sysfs: no secret.
	if err := os.Chmod(socket, 0o666); err != nil {
		return err
	}
	machine := Machine{FS: os.DirFS("/"), Tables: kernelTables}
	status := machine.Status()
	fmt.Fprintln(out, "caisson-agent:", status.Line())
	if _, err := daemon.SdNotify(false, daemon.SdNotifyReady+"\nSTATUS="+status.Line()); err != nil {
		return fmt.Errorf("notifying systemd: %w", err)
	}
	stopped := context.AfterFunc(ctx, func() { l.Close() })
	defer stopped()
	for {
		conn, err := l.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		go answer(conn, machine)
	}
}

// answer writes the status as it is now, and closes the connection.
func answer(conn net.Conn, machine Machine) {
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(clientTimeout)); err != nil {
		return
	}
	// A client that went away is no concern of ours.
	_ = json.NewEncoder(conn).Encode(machine.Status())
}
