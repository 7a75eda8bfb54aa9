package build

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"caisson/lock/tooltest"
)

var update = flag.Bool("update", false, "write the golden files")

// assembleIn tells the test binary, started again, to assemble the fixture in
// that folder and to print the digests of what came out.
const assembleIn = "CAISSON_TEST_ASSEMBLE_IN"

func assembleChild() error {
	umask, err := strconv.ParseInt(os.Getenv("CAISSON_TEST_UMASK"), 8, 32)
	if err != nil {
		return err
	}
	syscall.Umask(int(umask))
	sums, err := assembleFixture(os.Getenv(assembleIn), os.Getenv("CAISSON_TEST_ORDER") == "backwards")
	if err == nil {
		fmt.Print(sums)
	}
	return err
}

// assembleFixture assembles the fixture by the build's own code; a line for
// each file that came out, and for each file of the image.
func assembleFixture(dir string, backwards bool) (string, error) {
	b, err := testBuilder(dir, testLock())
	if err != nil {
		return "", err
	}
	defer b.log.Close()
	if err := layStub(b); err != nil {
		return "", err
	}
	root, initrd, err := testRoots(b, backwards)
	if err != nil {
		return "", err
	}
	ctx := context.Background()
	if err := finish(ctx, b, root, initrd); err != nil {
		return "", err
	}
	d, err := b.assemble(ctx, root, initrd)
	if err != nil {
		return "", err
	}
	var sums strings.Builder
	packed, err := packFixture(filepath.Join(dir, "packed"), backwards)
	if err != nil {
		return "", err
	}
	for _, f := range append(d.describe().Files, packed.describe().Files...) {
		fmt.Fprintf(&sums, "%s %s\n", f.SHA256, f.Name)
	}
	for _, i := range []*installed{root, initrd} {
		for _, e := range i.tree.Entries() {
			if e.Path == "" {
				continue
			}
			f, err := i.account(e)
			if err != nil {
				return "", err
			}
			fmt.Fprintf(&sums, "%s: %q %o %d:%d %s %s %s", i.set, f.Path, f.Mode, f.UID, f.GID, f.Account, f.By, f.Inputs)
			for name, v := range e.Xattrs { // at most one
				fmt.Fprintf(&sums, " %s=%x", name, v)
			}
			fmt.Fprintln(&sums)
		}
	}
	return sums.String(), nil
}

// TestGolden assembles a disk of small fixed parts. Its digests are written
// down: that they are met on every machine that runs this test, whoever runs
// it, is the proof that the bytes depend on the parts alone. A change of
// them is a change of lock.Revision.
func TestGolden(t *testing.T) {
	const golden = "testdata/golden.txt"
	got, err := assembleFixture(t.TempDir(), false)
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

// condition is what an assembly must not depend on.
type condition struct {
	name     string
	dir      string // where the folder for it is made; of the machine where empty
	env      []string
	umask    string
	order    string
	ordinary bool // run as uid 65534; only root can
}

func TestAssemblyIsAlwaysTheSame(t *testing.T) {
	want, err := assembleFixture(t.TempDir(), false)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []condition{
		{name: "time zone, locale, umask 077, one CPU", env: []string{"TZ=Asia/Tokyo", "LC_ALL=de_DE.UTF-8", "GOMAXPROCS=1"}, umask: "077"},
		{name: "umask 0, eight CPUs, files made from the last to the first", env: []string{"TZ=America/Lima", "GOMAXPROCS=8"}, umask: "0", order: "backwards"},
		{name: "tmpfs", dir: "/dev/shm", umask: "022"},
		{name: "an ordinary user", umask: "027", order: "backwards", ordinary: true},
		{name: "an ordinary user on tmpfs", dir: "/dev/shm", env: []string{"HOME=/nowhere"}, umask: "002", ordinary: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if got := c.run(t, assembleIn); got != want {
				t.Errorf("got\n%swant\n%s", got, want)
			}
		})
	}
}

// run runs the test binary under the condition, with a folder for its results
// in the environment variable named, and returns what it printed.
func (c condition) run(t *testing.T, variable string, env ...string) string {
	t.Helper()
	if c.ordinary && os.Getuid() != 0 {
		t.Skip("only root can become another user; the user who runs this is one already")
	}
	if c.dir != "" {
		var st unix.Statfs_t
		if err := unix.Statfs(c.dir, &st); err != nil || st.Type != unix.TMPFS_MAGIC {
			t.Skipf("%s is no tmpfs", c.dir)
		}
	}
	dir := publicDir(t, c.dir)
	out, tmp := filepath.Join(dir, "a longer name for the output"), filepath.Join(dir, "tmp")
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if c.ordinary { // may not enter the folder that go test built it in
		exe = copyProgram(t, exe, dir)
	}
	cmd := exec.Command(exe)
	cmd.Env = append([]string{
		"PATH=" + os.Getenv("PATH"), "TMPDIR=" + tmp, variable + "=" + out, "CAISSON_TEST_UMASK=" + c.umask, "CAISSON_TEST_ORDER=" + c.order,
	}, append(c.env, env...)...)
	cmd.Dir = dir
	for _, d := range []string{out, tmp} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
		if c.ordinary {
			if err := os.Chown(d, 65534, 65534); err != nil {
				t.Fatal(err)
			}
		}
	}
	if c.ordinary {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	if strings.Contains(strings.Join(cmd.Env, "\n"), "CAISSON_TEST_DISK=") { // the child mounts one
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
			UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}, GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
		}
	}
	var errs strings.Builder
	cmd.Stderr = &errs
	got, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, errs.String())
	}
	return string(got)
}

// publicDir is a folder that every user may enter.
func publicDir(t testing.TB, base string) string {
	t.Helper()
	dir, err := os.MkdirTemp(base, "caisson-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := removeAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// copyProgram has another program write the copy: a file that is open for
// writing here would be so in what tests beside this one start, and could not be
// run ("text file busy").
func copyProgram(t testing.TB, from, dir string) string {
	t.Helper()
	to := filepath.Join(dir, "program")
	if out, err := exec.Command("install", "-m", "755", from, to).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return to
}

// TestToolsReadTheDisk lets the tools that people trust read what assembling
// writes.
func TestToolsReadTheDisk(t *testing.T) {
	dir := t.TempDir()
	b, err := testBuilder(dir, testLock())
	if err != nil {
		t.Fatal(err)
	}
	defer b.log.Close()
	if err := layStub(b); err != nil {
		t.Fatal(err)
	}
	root, initrd, err := testRoots(b, false)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := finish(ctx, b, root, initrd); err != nil {
		t.Fatal(err)
	}
	d, err := b.assemble(ctx, root, initrd)
	if err != nil {
		t.Fatal(err)
	}
	raw := filepath.Join(b.work, "small.raw")
	parts := map[string]string{}
	for _, p := range d.describe().Partitions {
		to := filepath.Join(dir, p.Name)
		runTool(t, "dd", "if="+raw, "of="+to, "bs=1M", fmt.Sprintf("skip=%d", p.Start>>20), fmt.Sprintf("count=%d", p.Size>>20), "status=none")
		parts[p.Name] = to
	}
	runTool(t, "qemu-img", "check", filepath.Join(b.work, "small.qcow2"))
	runTool(t, "qemu-img", "compare", "-F", "raw", "-f", "qcow2", filepath.Join(b.work, "small.qcow2"), raw)
	runTool(t, "qemu-img", "compare", "-F", "raw", "-f", "vpc", filepath.Join(b.work, "small.vhd"), raw)
	for end, part := range map[string]string{".root": "root", ".verity": "root-verity"} {
		runTool(t, "cmp", filepath.Join(b.work, "small"+end), parts[part])
	}
	runTool(t, "cmp", filepath.Join(b.work, "small.initrd"), filepath.Join(b.work, "initrd.img"))
	kernel := filepath.Join(dir, "kernel")
	if err := os.WriteFile(kernel, []byte(string(pe())+strings.Repeat("kernel", 5000)), 0o600); err != nil {
		t.Fatal(err)
	}
	runTool(t, "cmp", filepath.Join(b.work, "small.vmlinuz"), kernel)
	if got, err := os.ReadFile(filepath.Join(b.work, "small.cmdline")); err != nil || string(got) != d.cmdline()+"\n" {
		t.Errorf("the command line is %q, %v", got, err)
	}
	runTool(t, "sgdisk", "-v", raw)
	runTool(t, "fsck.vfat", "-n", parts["esp"])
	runTool(t, "fsck.erofs", parts["root"])
	runTool(t, "veritysetup", "verify", parts["root"], parts["root-verity"], fmt.Sprintf("%x", d.root))
	list := runTool(t, "sh", "-c", "zstd -dc "+filepath.Join(b.work, "initrd.img")+" | cpio -t --quiet | sort")
	for _, want := range []string{"init", "etc/initrd-release", "usr/bin/a", "usr/bin/c", "sysroot"} {
		if !strings.Contains("\n"+list, "\n"+want+"\n") {
			t.Errorf("the initrd has no %q:\n%s", want, list)
		}
	}
	if strings.Contains(list, "copyright") {
		t.Errorf("normalisation left something:\n%s", list)
	}
}

func runTool(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(tooltest.Find(t, name), args...).CombinedOutput()
	if err != nil {
		t.Errorf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}
