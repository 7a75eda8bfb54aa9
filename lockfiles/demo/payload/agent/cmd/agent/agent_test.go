package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

const (
	rootHash = "3f6a0c1e5d7b9a8c3f6a0c1e5d7b9a8c3f6a0c1e5d7b9a8c3f6a0c1e5d7b9a8c"
	overlay  = "26 1 0:24 / / rw,relatime shared:1 - overlay overlay rw,lowerdir=/sysroot,upperdir=/run/u,workdir=/run/w\n" +
		"27 26 0:5 / /proc rw - proc proc rw\n"
	plain = "26 1 254:0 / / ro,relatime shared:1 - erofs /dev/mapper/root ro\n"
)

var verityTarget = Target{Type: "verity", Params: "1 253:2 253:3 4096 4096 49152 1 sha256 " + rootHash + " aabb"}

func file(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s)} }

// machine is a machine with a dm-verity device and a TPM, and these mounts.
func machine(mounts, uuid string, status Target) Machine {
	fsys := fstest.MapFS{
		"proc/self/mountinfo":                  file(mounts),
		"sys/block/vda/dev":                    file("253:0\n"),
		"sys/block/dm-0/dev":                   file("254:0\n"),
		"sys/class/tpm/tpm0/pcr-sha256/4":      file("AA00\n"),
		"sys/class/tpm/tpm0/pcr-sha256/11":     file("BB11\n"),
		"sys/class/tpm/tpm0/pcr-sha256/README": file("x"),
	}
	if uuid != "" {
		fsys["sys/block/dm-0/dm/uuid"] = file(uuid)
		fsys["sys/block/dm-0/dm/name"] = file("root\n")
	}
	return Machine{FS: fsys, Tables: func(string) (Target, Target, error) { return verityTarget, status, nil }}
}

func TestStatus(t *testing.T) {
	const uuid = "CRYPT-VERITY-0123456789abcdef0123456789abcdef-root\n"
	intact := Target{Type: "verity", Params: "V"}
	for _, tt := range []struct {
		name string
		m    Machine
		line string
		root Root
	}{
		{"overlay", machine(overlay, uuid, intact), "ready, root is verity-protected, pcr11=bb11",
			Root{Verity: true, Overlay: true, Device: "dm-0", Name: "root", Algorithm: "sha256", RootHash: rootHash, Intact: true}},
		{"read-only", machine(plain, uuid, intact), "ready, root is verity-protected, pcr11=bb11",
			Root{Verity: true, Device: "dm-0", Name: "root", Algorithm: "sha256", RootHash: rootHash, Intact: true}},
		{"damaged", machine(plain, uuid, Target{Type: "verity", Params: "C"}), "ready, root is verity-protected, and DAMAGED, pcr11=bb11",
			Root{Verity: true, Device: "dm-0", Name: "root", Algorithm: "sha256", RootHash: rootHash}},
		{"linear", machine(plain, "LVM-abc", intact), "ready, root is NOT verity-protected, pcr11=bb11",
			Root{Device: "dm-0", Name: "root"}},
		{"disk", machine(plain, "", intact), "ready, root is NOT verity-protected, pcr11=bb11",
			Root{Device: "dm-0"}},
		{"overlay of nothing", machine(overlay, "", intact),
			"ready, root is NOT verity-protected, pcr11=bb11 (no device for the overlay at /)",
			Root{Overlay: true, Problem: "no device for the overlay at /"}},
	} {
		s := tt.m.Status()
		if s.Line() != tt.line {
			t.Errorf("%s: got %q, want %q", tt.name, s.Line(), tt.line)
		}
		if s.Root != tt.root {
			t.Errorf("%s: got %+v, want %+v", tt.name, s.Root, tt.root)
		}
		if len(s.PCRs) != 2 || s.PCRs["4"] != "aa00" {
			t.Errorf("%s: PCRs %v", tt.name, s.PCRs)
		}
	}
}

func TestStatusWithoutAnswers(t *testing.T) {
	m := machine(plain, "CRYPT-VERITY-x-root", Target{})
	m.Tables = func(string) (Target, Target, error) { return Target{}, Target{}, errors.New("no such device") }
	if got, want := m.Status().Line(), "root is on dm-verity with an unknown root hash"; !strings.Contains(got, want) {
		t.Errorf("got %q, want %q in it", got, want)
	}
	if got := (Machine{FS: fstest.MapFS{}}).Status().Line(); !strings.Contains(got, "pcr11=none (open proc/self/mountinfo") {
		t.Errorf("empty machine: %q", got)
	}
}

// reply is what the kernel writes over a request for one target.
func reply(t *testing.T, req []byte, typ, params string) []byte {
	t.Helper()
	ne := binary.NativeEndian
	size := dmHeaderSize + dmSpecSize + len(params) + 1
	ne.PutUint32(req[dmDataSize:], uint32(size))
	ne.PutUint32(req[dmTargetCount:], 1)
	copy(req[dmHeaderSize+24:], typ)
	copy(req[dmHeaderSize+dmSpecSize:], params+"\x00")
	return req
}

func TestDeviceMapper(t *testing.T) {
	req, err := dmRequest("root", dmFlagTable)
	if err != nil {
		t.Fatal(err)
	}
	if got := cString(req[dmName:]); got != "root" {
		t.Errorf("request is for %q", got)
	}
	got, err := dmAnswer(reply(t, req, "verity", verityTarget.Params))
	if err != nil || got != verityTarget {
		t.Errorf("got %+v, %v, want %+v", got, err, verityTarget)
	}
	algorithm, hash, err := verityTable(got)
	if err != nil || algorithm != "sha256" || hash != rootHash {
		t.Errorf("got %s %s, %v", algorithm, hash, err)
	}
	if _, _, err := verityTable(Target{Type: "linear", Params: "253:1 0"}); err == nil {
		t.Error("a linear table passed for one of dm-verity")
	}
	for _, name := range []string{"", strings.Repeat("x", dmNameSize)} {
		if _, err := dmRequest(name, 0); err == nil {
			t.Errorf("device name of %d bytes was accepted", len(name))
		}
	}
}

func FuzzDeviceMapperAnswer(f *testing.F) {
	req, _ := dmRequest("root", 0)
	f.Add(req[:dmHeaderSize+dmSpecSize+8])
	f.Fuzz(func(t *testing.T, b []byte) {
		if target, err := dmAnswer(b); err == nil {
			_, _, _ = verityTable(target)
		}
	})
}

func TestRun(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	// systemd's end of the notification.
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket + ".notify", Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer notify.Close()
	t.Setenv("NOTIFY_SOCKET", socket+".notify")
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	var out bytes.Buffer
	done := make(chan error, 1)
	go func() { done <- run(ctx, socket, &out) }()

	msg := make([]byte, 4096)
	if err := notify.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	n, err := notify.Read(msg)
	if err != nil || !strings.HasPrefix(string(msg[:n]), "READY=1\nSTATUS=ready, ") {
		t.Fatalf("systemd was told %q, %v", msg[:n], err)
	}
	for range 2 {
		conn, err := net.Dial("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := io.ReadAll(conn)
		conn.Close()
		if err != nil {
			t.Fatal(err)
		}
		var s Status
		if err := json.Unmarshal(answer, &s); err != nil || bytes.Count(answer, []byte("\n")) != 1 {
			t.Errorf("answer %q: %v", answer, err)
		}
	}
	stop()
	if err := <-done; err != nil {
		t.Errorf("run: %v", err)
	}
	if !strings.HasPrefix(out.String(), "caisson-agent: ready, ") {
		t.Errorf("printed %q", out.String())
	}
}
