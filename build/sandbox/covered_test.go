package sandbox

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// coveredEnv marks a run of this test's executable under a covered /proc.
const coveredEnv = "SANDBOX_COVERED"

// cover covers parts of /proc, as container runtimes do.
const cover = `mount -t tmpfs none /proc/fs && mount --bind /dev/null /proc/keys &&
mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys && exec "$@"`

// TestCoveredProc runs the tests of this package where the kernel allows no new
// /proc: in a mount namespace of another user namespace that covers parts of its.
// Not as root, whom no limit on processes would hold there.
func TestCoveredProc(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("root: TestAsOrdinaryUser runs this test")
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"--user", "--map-root-user", "--mount", "sh", "-c", cover, "sh", exe, "-test.timeout=5m",
		"-test.skip=^(TestAsOrdinaryUser|TestCoveredProc)$"}
	cmd := exec.Command("unshare", args...)
	cmd.Env = append(os.Environ(), coveredEnv+"=1", "COVERED_SECRET=of the caller")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestSharedProc looks at other processes from inside, where their /proc shows.
func TestSharedProc(t *testing.T) {
	covered := os.Getenv(coveredEnv) != ""
	s := hostRoot(t, "a", "b")
	s.RootWritable = true
	script := fmt.Sprintf(`
test "$(readlink /proc/self/exe)" = "$(readlink -f /usr/bin/readlink)" && echo exe
ls /proc/self/fd/ >/dev/null && echo fd
test -d /proc/%[1]d && echo seen
for f in environ mem maps root fd/0 cwd; do
	{ head -c 1 /proc/%[1]d/$f || readlink /proc/%[1]d/$f; } >/dev/null 2>&1 && echo "$f can be read"
done
cat /proc/[0-9]*/environ 2>/dev/null | grep -c COVERED_SECRET
echo x >/proc/sys/kernel/hostname || echo read-only
echo y >/a/f && mv /a/f /b/f && ln /b/f /a/g && cat /a/g`, os.Getpid())
	r, out := sh(t, s, script)
	want := []string{"exe", "fd", "0", "read-only", "y"}
	if covered {
		want = []string{"exe", "fd", "seen", "0", "read-only", "y"}
	}
	var got []string
	for line := range strings.Lines(out) {
		if !strings.HasPrefix(line, "sh: ") {
			got = append(got, strings.TrimSpace(line))
		}
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("got %q, want %q", got, want)
	}
	if r.Evidence.Volatile.SharedProc != covered {
		t.Errorf("SharedProc is %v, want %v", r.Evidence.Volatile.SharedProc, covered)
	}
}
