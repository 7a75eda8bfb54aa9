package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"caisson/build"
	"caisson/lock"
	"caisson/verify"
)

// ordinary is a user that nobody is.
const ordinary = 61235

// e2e is the whole line on a real repository, in a folder of its own.
type e2e struct {
	t       *testing.T
	bin     string // folder of the programs
	repo    string // what debrepo made
	dir     string // world-readable scratch
	project string // a copy of the demo's, not in git
	lock    string
	store   string
	out     string
}

// TestE2E runs the demo's line and looks at every claim: the same packages as
// dnf, a store that survives a kill, the same image for every user, a boot
// that measures what was predicted, flipped bytes noticed, statements that
// cosign verifies. It takes some minutes; `make e2e` runs it.
func TestE2E(t *testing.T) {
	if os.Getenv("CAISSON_E2E") == "" {
		t.Skip("the whole line is run by `make e2e`")
	}
	repo := os.Getenv("CAISSON_DEBREPO")
	if repo == "" {
		t.Fatal("CAISSON_DEBREPO is not set; `make e2e` sets it")
	}
	bin, err := filepath.Abs("../../bin")
	if err != nil {
		t.Fatal(err)
	}
	e := &e2e{t: t, bin: bin, repo: repo, dir: scratch(t)}
	e.lock, e.store, e.out = filepath.Join(e.dir, "caisson.lock"), filepath.Join(e.dir, "store"), filepath.Join(e.dir, "out")
	stop := e.makeProject()
	for _, s := range []struct {
		name string
		run  func(t *testing.T)
	}{
		{"lock", e.testLock}, {"dnf", e.testDNF}, {"prefetch", e.testPrefetch}, {"run", e.testRun},
		{"offline", func(*testing.T) { stop() }},
		{"build", e.testBuild}, {"interrupt", e.testInterrupt}, {"network", e.testNetwork}, {"keep", e.testKeep}, {"store", e.testStore},
		{"verify", e.testVerify}, {"measure", e.testMeasure}, {"user", e.testUser}, {"flips", e.testFlips}, {"flipped root", e.testFlippedRoot},
		{"attest", e.testAttest}, {"cosign", e.testCosign}, {"accounts", e.testAccounts}, {"auditor", e.testAuditor}, {"secure boot", e.testSecureBoot},
	} {
		if !t.Run(s.name, s.run) {
			t.FailNow() // what comes after builds on it
		}
	}
}

// scratch is a folder that other users may read.
func scratch(t *testing.T) string {
	dir, err := os.MkdirTemp("", "caisson-e2e-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// makeProject copies the demo's project and serves the repository at an
// address of the test's own.
func (e *e2e) makeProject() (stop func()) {
	e.project = filepath.Join(e.dir, "project")
	must(e.t, os.CopyFS(e.project, os.DirFS("../../lockfiles/demo")))
	address, stop := e.serve()
	manifest := filepath.Join(e.project, "caisson.yaml")
	b, err := os.ReadFile(manifest)
	must(e.t, err)
	key, err := os.ReadFile(filepath.Join(e.repo, "RPM-GPG-KEY-debrepo"))
	must(e.t, err)
	must(e.t, os.WriteFile(filepath.Join(e.project, "KEY"), key, 0o644))
	text := strings.ReplaceAll(string(b), "127.0.0.1:8642", address)
	text = strings.ReplaceAll(text, "../../out/repo/RPM-GPG-KEY-debrepo", "KEY")
	must(e.t, os.WriteFile(manifest, []byte(text), 0o644))
	return stop
}

// serve serves the repository at an address of its own, until stop is called.
func (e *e2e) serve() (address string, stop func()) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(e.t, err)
	address = l.Addr().String()
	l.Close()
	serve := exec.Command(filepath.Join(e.bin, "debrepo"), "serve", "--dir", e.repo, "--listen", address)
	serve.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	must(e.t, serve.Start())
	stop = func() { serve.Process.Kill(); serve.Wait() }
	e.t.Cleanup(stop)
	waitFor(e.t, address)
	return address, stop
}

func waitFor(t *testing.T, address string) {
	for range 100 {
		if c, err := net.Dial("tcp", address); err == nil {
			c.Close()
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("nothing answers on %s", address)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (e *e2e) command(args ...string) *exec.Cmd {
	c := exec.Command(filepath.Join(e.bin, "caisson"), args...)
	c.Env = append(os.Environ(), "COSIGN_PASSWORD=e2e", "HOME="+e.dir)
	return c
}

// run runs caisson and returns its exit code and what it printed.
func (e *e2e) run(t *testing.T, args ...string) (int, string) {
	t.Helper()
	var out bytes.Buffer
	c := e.command(args...)
	c.Stdout, c.Stderr = &out, &out
	began := time.Now()
	err := c.Run()
	t.Logf("caisson %s: %.1f s\n%s", args[0], time.Since(began).Seconds(), out.String())
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return c.ProcessState.ExitCode(), out.String()
}

// want runs caisson and compares its exit code; the output must have all the
// texts.
func (e *e2e) want(t *testing.T, code int, texts []string, args ...string) string {
	t.Helper()
	got, out := e.run(t, args...)
	if got != code {
		t.Fatalf("caisson %s: exit code %d, want %d", strings.Join(args, " "), got, code)
	}
	for _, s := range texts {
		if !strings.Contains(out, s) {
			t.Fatalf("caisson %s: nothing says %q", args[0], s)
		}
	}
	return out
}

func (e *e2e) at(args ...string) []string {
	return append(args, "--lock", e.lock, "--store", e.store)
}

func (e *e2e) testLock(t *testing.T) {
	args := []string{"lock", "-f", filepath.Join(e.project, "caisson.yaml"), "-o", e.lock, "--store", e.store}
	e.want(t, exitOK, nil, args...)
	first, err := os.ReadFile(e.lock)
	must(t, err)
	began := time.Now()
	e.want(t, exitOK, nil, args...)
	if d := time.Since(began); d > time.Second {
		t.Errorf("locking again took %s, want below 1 s", d)
	}
	second, err := os.ReadFile(e.lock)
	must(t, err)
	if !bytes.Equal(first, second) {
		t.Error("locking again changed the lock")
	}
	e.want(t, exitOK, nil, append(args, "--check")...)
}

// dnfSets asks dnf's library for what each set would bring.
const dnfSets = `
import dnf, json, sys, tempfile
out = {}
for name, specs in json.load(sys.stdin).items():
    with tempfile.TemporaryDirectory() as tmp:
        b = dnf.Base()
        c = b.conf
        c.installroot, c.cachedir, c.persistdir, c.logdir = tmp + '/root', tmp + '/cache', tmp + '/p', tmp
        c.reposdir, c.plugins, c.gpgcheck, c.best, c.install_weak_deps = ['/dev/null'], False, False, True, False
        for k, v in {'arch': 'x86_64', 'basearch': 'x86_64', 'releasever': '12'}.items():
            c.substitutions[k] = v
        b.repos.add_new_repo('debrepo', c, baseurl=['file://' + sys.argv[1]])
        b.fill_sack(load_system_repo=False)
        b.install_specs(specs)
        b.resolve()
        out[name] = sorted(str(p) for p in b.transaction.install_set)
json.dump(out, sys.stdout)
`

func (e *e2e) testDNF(t *testing.T) {
	l := readLock(t, e.lock)
	specs := map[string][]string{}
	for _, s := range l.Sets {
		specs[s.Name] = s.Packages
	}
	in, err := json.Marshal(specs)
	must(t, err)
	c := exec.Command("/usr/bin/python3", "-c", dnfSets, e.repo)
	c.Stdin = bytes.NewReader(in)
	c.Stderr = os.Stderr
	b, err := c.Output()
	must(t, err)
	var want map[string][]string
	must(t, json.Unmarshal(b, &want))
	for name := range specs {
		var got []string
		for _, in := range l.Of("x86_64", name) {
			if in.Kind == lock.KindRPM {
				got = append(got, in.Name)
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, want[name]) {
			t.Errorf("set %s: %d packages, dnf has %d:\ngot  %v\nwant %v", name, len(got), len(want[name]), got, want[name])
		}
		t.Logf("set %s: %d packages, as dnf has them", name, len(got))
	}
}

func readLock(t *testing.T, name string) *lock.Lock {
	b, err := os.ReadFile(name)
	must(t, err)
	l, err := lock.Parse(name, b)
	must(t, err)
	return l
}

// testPrefetch kills a prefetch half-way and lets the next one finish; a
// damaged package is found and replaced by --verify.
func (e *e2e) testPrefetch(t *testing.T) {
	args := append(e.at("prefetch"), "--project", e.project)
	c := e.command(args...)
	must(t, c.Start())
	for range 200 {
		if n := stored(e.store); n > 40 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	c.Process.Kill()
	c.Wait()
	before := stored(e.store)
	e.want(t, exitOK, nil, args...)
	t.Logf("killed with %d files in the store, %d at the end", before, stored(e.store))
	e.want(t, exitOK, []string{"0 inputs fetched", " 0 requests"}, args...)
	in := readLock(t, e.lock).Of("x86_64", lock.SetRoot)[0]
	h := in.SHA256.Hex()
	file := filepath.Join(e.store, "sha256", h[:2], h)
	must(t, os.Chmod(file, 0o644))
	flip(t, file, in.Size/2)
	e.want(t, exitMissing, []string{in.Name, "prefetch --verify"}, "store", "verify", "--store", e.store, "--lock", e.lock)
	e.want(t, exitOK, []string{"1 input fetched", in.Name + " was damaged"}, append(args, "--verify")...)
	e.want(t, exitOK, nil, "store", "verify", "--store", e.store)
}

func stored(store string) int {
	n := 0
	filepath.WalkDir(filepath.Join(store, "sha256"), func(_ string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			n++
		}
		return nil
	})
	return n
}

// testRun goes through all five stages by one command, on a terminal, and wants
// what the stages leave one by one.
func (e *e2e) testRun(t *testing.T) {
	key, out := filepath.Join(e.dir, "run"), filepath.Join(e.dir, "run-out")
	e.want(t, exitOK, nil, "keygen", "--prefix", key)
	c := e.command("run", "-f", filepath.Join(e.project, "caisson.yaml"), "--lock", e.lock, "--store", e.store, "--out", out, "--key", key+".key")
	c.Env = append(c.Env, "TERM=xterm", "NO_COLOR=1")
	var stdout bytes.Buffer
	c.Stdout = &stdout
	began := time.Now()
	y := onTerminal(t, 80, 24, c)
	c.Wait()
	<-y.done
	said := strings.Join(y.term.Lines(), "\n")
	t.Logf("caisson run: %.1f s\n%s\n%s", time.Since(began).Seconds(), said, stdout.String())
	if code := c.ProcessState.ExitCode(); code != exitOK {
		t.Fatalf("exit code %d", code)
	}
	at := -1
	for _, head := range []string{"lock\n", "prefetch\n", "build\n", "verify\n", "attest\n", "  all of it took "} {
		i := strings.Index("\n"+said, "\n"+head)
		if i <= at {
			t.Errorf("%q is at %d, after %d", head, i, at)
		}
		at = i
	}
	building, verifying, _ := strings.Cut(y.raw.String(), "rebuilding under other conditions")
	for _, s := range []string{" of 5, ", "install root ", " of 77 packages"} {
		if !strings.Contains(building, s) || !strings.Contains(verifying, s) {
			t.Errorf("build or verify never showed %q", s)
		}
	}
	for _, s := range []string{"where the time went", "where the bytes went", "6 statements about demo.qcow2 signed"} {
		if !strings.Contains(said, s) {
			t.Errorf("nothing says %q", s)
		}
	}
	for _, s := range []string{"verdict     IDENTICAL", "6 signatures checked by " + key + ".pub"} {
		if !strings.Contains(stdout.String(), s) {
			t.Errorf("the result does not say %q", s)
		}
	}
	if len(y.term.Unknown) > 0 || strings.Contains(said, "stage 4 of 5") {
		t.Errorf("something of the display is left, or not known: %q", y.term.Unknown)
	}
	e.want(t, exitOK, []string{"6 signatures checked"}, "inspect", out, "--lock", e.lock, "--key", key+".pub")
}

func (e *e2e) testBuild(t *testing.T) {
	stdout, err := e.command(append(e.at("build"), "--out", e.out, "--json")...).Output()
	must(t, err)
	var s spent
	must(t, json.Unmarshal(stdout, &s))
	if s.Image != filepath.Join(e.out, "demo.qcow2") || s.SHA256.Hex() != sum(t, s.Image) || len(s.Steps) != 17 || len(s.From) < 80 || s.Parts["root"].Bytes < 200<<20 {
		t.Errorf("where time and bytes went: %s", stdout)
	}
	if other := sum(t, filepath.Join(e.dir, "run-out", "demo.qcow2")); s.SHA256.Hex() != other {
		t.Errorf("run made %s, build %s", other, s.SHA256)
	}
	for _, name := range []string{"demo.qcow2", "image.json", "measurements.json", "evidence.json", "files.json", "build.log"} {
		if _, err := os.Stat(filepath.Join(e.out, name)); err != nil {
			t.Error(err)
		}
	}
	noneLeft(t, e.out)
}

// noneLeft looks for what a build leaves while it is at work.
func noneLeft(t *testing.T, out string) {
	t.Helper()
	names, _ := os.ReadDir(out)
	for _, n := range names {
		if strings.HasPrefix(n.Name(), ".") {
			t.Errorf("%s was left in the output folder", n.Name())
		}
	}
}

func (e *e2e) testInterrupt(t *testing.T) {
	out := filepath.Join(e.dir, "interrupted")
	c := e.command(append(e.at("build"), "--out", out)...)
	must(t, c.Start())
	time.Sleep(8 * time.Second) // in the middle of compiling and installing
	must(t, c.Process.Signal(os.Interrupt))
	began := time.Now()
	c.Wait()
	if code := c.ProcessState.ExitCode(); code != exitInterrupted {
		t.Errorf("exit code %d, want %d", code, exitInterrupted)
	}
	if d := time.Since(began); d > 10*time.Second {
		t.Errorf("it took %s to stop", d)
	}
	names, err := os.ReadDir(out)
	must(t, err)
	if len(names) > 0 {
		t.Errorf("an interrupted build left %v", names)
	}
	if b, err := exec.Command("pgrep", "-f", out).Output(); err == nil {
		t.Errorf("processes are left: %s", b)
	}
}

// testNetwork builds with a step that tries to reach a network.
func (e *e2e) testNetwork(t *testing.T) {
	l := readLock(t, e.lock)
	l.Steps = []lock.Step{{Run: "echo hello > /dev/tcp/192.0.2.7/80 || true"}}
	b, err := lock.Format(l)
	must(t, err)
	name := filepath.Join(e.dir, "network.lock")
	must(t, os.WriteFile(name, b, 0o644))
	e.want(t, exitRefused, []string{"192.0.2.7:80"}, "build", "--lock", name, "--store", e.store, "--out", filepath.Join(e.dir, "network"))
}

// testKeep builds with a step that fails, and looks round in its sandbox.
func (e *e2e) testKeep(t *testing.T) {
	l := readLock(t, e.lock)
	l.Steps = []lock.Step{{Run: "cp $IN/license $OUT/half; exit 9"}}
	b, err := lock.Format(l)
	must(t, err)
	name, out := filepath.Join(e.dir, "keep.lock"), filepath.Join(e.dir, "keep")
	must(t, os.WriteFile(name, b, 0o644))
	said := e.want(t, exitError, []string{"exit code 9", "the working folder was kept", "opens a shell in the sandbox of step 1: run"},
		"build", "--lock", name, "--store", e.store, "--out", out, "--keep")
	_, said, _ = strings.Cut(said, "`caisson sandbox ")
	kept, _, _ := strings.Cut(said, "`")
	if filepath.Dir(kept) != out {
		t.Fatalf("kept in %q", kept)
	}
	e.want(t, 3, []string{"Apache License", "Network is unreachable", "refused: /usr/bin/bash tried to reach the network"},
		"sandbox", kept, "--", "bash", "-c", "cat $OUT/half; : > /dev/tcp/192.0.2.7/80; exit 3")
	e.want(t, 9, nil, "sandbox", kept, "--", "bash", "-c", "cp $IN/license $OUT/half; exit 9")
}

// testStore damages and removes inputs.
func (e *e2e) testStore(t *testing.T) {
	l := readLock(t, e.lock)
	in := l.Of("x86_64", lock.SetRoot)[0]
	h := in.SHA256.Hex()
	file := filepath.Join(e.store, "sha256", h[:2], h)
	whole, err := os.ReadFile(file)
	must(t, err)
	bad := bytes.Clone(whole)
	bad[len(bad)/2] ^= 1
	must(t, os.Remove(file))
	out := filepath.Join(e.dir, "damaged")
	e.want(t, exitMissing, []string{in.Name, "prefetch"}, append(e.at("build"), "--out", out)...)
	must(t, os.WriteFile(file, bad, 0o444))
	e.want(t, exitMissing, []string{in.Name}, append(e.at("build"), "--out", out)...)
	must(t, os.Remove(file))
	must(t, os.WriteFile(file, whole, 0o444))
	if names, _ := os.ReadDir(out); len(names) > 0 {
		t.Errorf("builds that failed left %v", names)
	}
}

func (e *e2e) testVerify(t *testing.T) {
	image := filepath.Join(e.out, "demo.qcow2")
	e.want(t, exitOK, []string{"IDENTICAL"}, append(e.at("verify", image), "--boot",
		"--wait-for", "login:", "--wait-for", "caisson-agent: ready, root is verity-protected", "--wait-for", "caisson-guest: ")...)
	var r verify.Report
	readJSON(t, filepath.Join(e.out, "report.json"), &r)
	for _, c := range r.Checks {
		want := verify.Passed
		if c.Name == "rebuilders" || c.Name == "policy" {
			want = verify.NotAsked
		}
		if c.Status != want {
			t.Errorf("check %s: %s: %s", c.Name, c.Status, c.Detail)
		}
	}
	for _, pcr := range []string{"4", "5", "7", "9", "11"} {
		if r.Measured[pcr] != r.PCRs[pcr] {
			t.Errorf("pcr %s: measured %s, predicted %s", pcr, r.Measured[pcr], r.PCRs[pcr])
		}
	}
	if page, err := os.ReadFile(filepath.Join(e.out, "report.html")); err != nil || !bytes.Contains(page, []byte(r.Image.SHA256.Hex())) {
		t.Errorf("report.html does not name the image: %v", err)
	}
}

// testMeasure measures the image for confidential machines with Debian's
// firmware: measurements.json comes out as verify left it.
func (e *e2e) testMeasure(t *testing.T) {
	const firmware = "/usr/share/ovmf/OVMF.fd"
	image, again, rvps := filepath.Join(e.out, "demo.qcow2"), filepath.Join(e.dir, "again.json"), filepath.Join(e.dir, "rvps.json")
	e.want(t, exitOK, []string{"snp launch digest "}, "measure", image, "--tee", "snp", "--firmware", firmware, "--vcpus", "2",
		"--vcpu-type", "EPYC-v4", "--measurements", again)
	want, err := os.ReadFile(filepath.Join(e.out, "measurements.json"))
	must(t, err)
	if got, err := os.ReadFile(again); err != nil || !bytes.Equal(got, want) {
		t.Errorf("got measurements %s, %v, want %s", got, err, want)
	}
	e.want(t, exitOK, []string{"tdx mrtd ", "tdx rtmr 1 "}, "measure", image, "--tee", "tdx", "--firmware", firmware, "--rvps", rvps)
	var message struct{ Payload []byte }
	readJSON(t, rvps, &message)
	for _, name := range []string{`"mr_td":["`, `"rtmr_1":["`, `"rtmr_2":["`, `"tpm_pcr11":["`} {
		if !bytes.Contains(message.Payload, []byte(name)) {
			t.Errorf("the message for Trustee has no %s: %s", name, message.Payload)
		}
	}
}

func readJSON(t *testing.T, name string, v any) {
	b, err := os.ReadFile(name)
	must(t, err)
	must(t, json.Unmarshal(b, v))
}

// coverProc covers parts of /proc, as container runtimes do: no other one can be
// mounted then.
const coverProc = `mount -t tmpfs none /proc/fs && mount --bind /dev/null /proc/keys && exec "$@"`

// testUser builds the debug variant as an ordinary user of a container, and as
// oneself from an empty store above a read-only one: the same bytes, and another
// image than the plain one.
func (e *e2e) testUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can become another user; everything above ran as an ordinary one")
	}
	home := filepath.Join(e.dir, "home")
	must(t, os.Mkdir(home, 0o700))
	must(t, os.Chown(home, ordinary, ordinary))
	var said bytes.Buffer
	c := e.command(append(e.at("build"), "--variant", "debug", "--out", filepath.Join(home, "out"))...)
	c.Args = append([]string{"unshare", "--user", "--map-root-user", "--mount", "sh", "-c", coverProc, "sh"}, c.Args...)
	c.Path = "/usr/bin/unshare"
	c.Env = []string{"HOME=" + home, "PATH=/usr/bin:/bin"}
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: ordinary, Gid: ordinary}}
	c.Stdout, c.Stderr = &said, &said
	if err := c.Run(); err != nil {
		t.Fatalf("as an ordinary user: %v\n%s", err, said.String())
	}
	lower, upper := filepath.Join(e.dir, "lower"), filepath.Join(e.dir, "upper")
	must(t, os.Mkdir(lower, 0o755))
	must(t, syscall.Mount(e.store, lower, "", syscall.MS_BIND, ""))
	t.Cleanup(func() { syscall.Unmount(lower, syscall.MNT_DETACH) })
	must(t, syscall.Mount("", lower, "", syscall.MS_BIND|syscall.MS_REMOUNT|syscall.MS_RDONLY, ""))
	t.Setenv(lowerVar, lower)
	e.want(t, exitOK, nil, "build", "--lock", e.lock, "--store", upper, "--variant", "debug", "--out", filepath.Join(e.dir, "debug"))
	if n := stored(upper); n > 0 {
		t.Errorf("%d files were copied from the store below", n)
	}
	a := sum(t, filepath.Join(home, "out", "demo-debug.qcow2"))
	b := sum(t, filepath.Join(e.dir, "debug", "demo-debug.qcow2"))
	if a != b {
		t.Errorf("an ordinary user's image is %s, root's %s", a, b)
	}
	if plain := sum(t, filepath.Join(e.out, "demo.qcow2")); plain == a {
		t.Error("the debug variant is the plain image")
	}
	var files []build.File
	readJSON(t, filepath.Join(e.dir, "debug", "files.json"), &files)
	if !slices.ContainsFunc(files, func(f build.File) bool { return f.Path == "/usr/bin/strace" }) {
		t.Error("the debug variant has no strace")
	}
}

func sum(t *testing.T, name string) string {
	t.Helper()
	out, err := exec.Command("sha256sum", name).Output()
	must(t, err)
	return string(out[:64])
}

// rawCopy is the image as a plain disk.
func (e *e2e) rawCopy(t *testing.T) string {
	raw := filepath.Join(e.dir, "demo.raw")
	if _, err := os.Stat(raw); err != nil {
		if out, err := exec.Command("qemu-img", "convert", "-O", "raw", filepath.Join(e.out, "demo.qcow2"), raw).CombinedOutput(); err != nil {
			t.Fatalf("qemu-img: %v\n%s", err, out)
		}
	}
	return raw
}

// flip inverts a bit of a file.
func flip(t *testing.T, name string, off int64) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	b := make([]byte, 1)
	_, err = f.ReadAt(b, off)
	must(t, err)
	b[0] ^= 0x10
	_, err = f.WriteAt(b, off)
	must(t, err)
}

// testFlips flips a byte in every part of the disk and wants the comparison
// to notice and to name the part.
func (e *e2e) testFlips(t *testing.T) {
	var d verify.Description
	readJSON(t, filepath.Join(e.out, "image.json"), &d)
	raw := e.rawCopy(t)
	st, err := os.Stat(raw)
	must(t, err)
	type place struct {
		name string
		off  int64
	}
	places := []place{{"protective MBR", 10}, {"primary header", 512 + 20}, {"primary entry 1", 1024 + 60}, {"outside of the partitions", 40960}, {"backup header", st.Size() - 100}}
	for _, p := range d.Partitions {
		for _, off := range []int64{3, p.Size / 3, p.Size - 5} {
			places = append(places, place{p.Name, p.Start + off})
		}
	}
	for _, p := range places {
		flip(t, raw, p.off)
		code, out := e.run(t, "diff", filepath.Join(e.out, "demo.qcow2"), raw)
		if code != exitDifferent {
			t.Errorf("byte %d (%s) flipped: exit code %d, want %d", p.off, p.name, code, exitDifferent)
		}
		if !strings.Contains(strings.ToLower(out), strings.ToLower(p.name)) {
			t.Errorf("byte %d flipped: nothing names %s", p.off, p.name)
		}
		flip(t, raw, p.off)
	}
}

// testFlippedRoot verifies an image with one flipped byte in a file of the
// root, as somebody who got it from elsewhere would.
func (e *e2e) testFlippedRoot(t *testing.T) {
	raw := e.rawCopy(t)
	var d verify.Description
	readJSON(t, filepath.Join(e.out, "image.json"), &d)
	var root build.Partition
	for _, p := range d.Partitions {
		if p.Name == "root" {
			root = p
		}
	}
	flip(t, raw, root.Start+root.Size/2)
	dir := filepath.Join(e.dir, "flipped")
	must(t, os.MkdirAll(dir, 0o755))
	image := filepath.Join(dir, "demo.qcow2")
	if out, err := exec.Command("qemu-img", "convert", "-c", "-O", "qcow2", raw, image).CombinedOutput(); err != nil {
		t.Fatalf("qemu-img: %v\n%s", err, out)
	}
	flip(t, raw, root.Start+root.Size/2)
	e.want(t, exitDifferent, []string{"DIFFERENT", "root"}, e.at("verify", image)...)
}

func (e *e2e) testAttest(t *testing.T) {
	key := filepath.Join(e.dir, "cosign")
	e.want(t, exitOK, nil, "keygen", "--prefix", key)
	e.want(t, exitOK, nil, append(e.at("attest"), "--out", e.out, "--key", key+".key")...)
	e.want(t, exitOK, []string{"signatures checked"}, "inspect", e.out, "--lock", e.lock, "--key", key+".pub")
}

// predicates are the types of the statements, as cosign is asked for them.
var predicates = map[string]string{
	"sbom": "https://spdx.dev/Document", "provenance": "slsaprovenance1",
	"test-result": "https://in-toto.io/attestation/test-result/v0.1", "vsa": "https://slsa.dev/verification_summary/v1",
	"reference-values": "https://caisson.dev/reference-values/v1",
}

// testCosign has cosign's own command verify every statement without a
// network, and refuse another image.
func (e *e2e) testCosign(t *testing.T) {
	cosign, err := exec.LookPath("cosign")
	if err != nil {
		t.Fatal("cosign is not installed; `make test` installs it")
	}
	root := filepath.Join(e.dir, "trusted-root.json")
	must(t, os.WriteFile(root, []byte(`{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1"}`), 0o644))
	image := filepath.Join(e.out, "demo.qcow2")
	check := func(name, kind, digest string) ([]byte, error) {
		c := exec.Command("unshare", "-rn", cosign, "verify-blob-attestation", "--key", filepath.Join(e.dir, "cosign.pub"),
			"--bundle", filepath.Join(e.out, "statements", name+".sigstore.json"), "--type", kind, "--insecure-ignore-tlog",
			"--new-bundle-format", "--trusted-root", root, "--digest", digest, "--digestAlg", "sha256")
		c.Env = append(os.Environ(), "HOME="+e.dir)
		return c.CombinedOutput()
	}
	for name, kind := range predicates {
		if out, err := check(name, kind, sum(t, image)); err != nil {
			t.Errorf("cosign refuses %s: %v\n%s", name, err, out)
		}
		if out, err := check(name, kind, strings.Repeat("0", 64)); err == nil {
			t.Errorf("cosign takes %s for another image's:\n%s", name, out)
		}
	}
}

// testAuditor audits what there is now as the page for auditors says, who are
// given an output folder with lock, store and keys in it.
func (e *e2e) testAuditor(t *testing.T) {
	dir := filepath.Join(e.dir, "given")
	must(t, os.Mkdir(dir, 0o755))
	names, err := filepath.Glob(filepath.Join(e.out, "*"))
	must(t, err)
	for _, name := range append(names, e.lock, e.store, filepath.Join(e.dir, "cosign.key"), filepath.Join(e.dir, "cosign.pub")) {
		must(t, os.Symlink(name, filepath.Join(dir, filepath.Base(name))))
	}
	t.Setenv("COSIGN_PASSWORD", "e2e")
	testAuditor(t, dir)
}

// testAccounts looks for every input in the provenance, and for every file of
// the image in the SBOM, with who signed the packages.
func (e *e2e) testAccounts(t *testing.T) {
	var files []build.File
	readJSON(t, filepath.Join(e.out, "files.json"), &files)
	sbom, err := os.ReadFile(filepath.Join(e.out, "sbom.spdx.json"))
	must(t, err)
	for _, f := range files {
		if f.Account == "" {
			t.Errorf("%s of the %s has no account", f.Path, f.Part)
		}
		if f.SHA256 != nil && !bytes.Contains(sbom, []byte(f.SHA256.Hex())) {
			t.Errorf("%s of the %s is not in the SBOM", f.Path, f.Part)
		}
	}
	if key := readLock(t, e.lock).Repos[0].Keys[0]; !bytes.Contains(sbom, []byte("Signed by OpenPGP key "+key)) {
		t.Errorf("the SBOM does not say that packages are signed by %s", key)
	}
	provenance, err := os.ReadFile(filepath.Join(e.out, "statements", "provenance.json"))
	must(t, err)
	for _, in := range readLock(t, e.lock).Inputs {
		if !bytes.Contains(provenance, []byte(in.SHA256.Hex())) {
			t.Errorf("%s/%s is not in the provenance", in.Kind, in.Name)
		}
	}
	fmt.Fprintln(os.Stderr, "e2e:", len(files), "files accounted for")
}
