package lock

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"caisson/lock/digest"
	"caisson/lock/solve"
)

// c9s is where the shared metadata of CentOS Stream 9 lies.
const c9s = "../../shared/data/rpm-md/"

// loadC9S reads CentOS Stream 9 by way of LoadRepos.
func loadC9S(t testing.TB) []solve.Repo {
	t.Helper()
	off := false
	m := &Manifest{}
	for _, id := range []string{"baseos", "appstream"} {
		dir, err := filepath.Abs(c9s + "c9s-" + id)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(dir); err != nil {
			t.Skip("no shared data rpm-md")
		}
		m.RPM.Repos = append(m.RPM.Repos, ManifestRepo{ID: id, BaseURL: StringList{"file://" + dir}, GPGCheck: &off})
	}
	repos, err := LoadRepos(context.Background(), Options{Manifest: m, Fetch: fetchLocal}, "x86_64")
	if err != nil {
		t.Fatal(err)
	}
	return repos
}

// fetchLocal leaves the files of a file:// repository where they are.
func fetchLocal(_ context.Context, w Want) (Blob, error) {
	path := strings.TrimPrefix(w.URL, "file://")
	d, n, err := digestFile(path)
	return Blob{Path: path, SHA256: d, Size: n}, err
}

// answer asks for one name and returns the line that the shared table of
// dnf's answers has for it.
func answer(t testing.TB, p *solve.Pool, name string) string {
	t.Helper()
	sol, err := p.Solve(solve.Request{Specs: []string{name}, WeakDeps: true, KeepObsoleted: true})
	var problem *solve.Problem
	switch {
	case errors.As(err, &problem):
		return tableLine(name, nil)
	case err != nil:
		t.Fatal(err)
	}
	lines := make([]string, 0, len(sol.Packages))
	for _, c := range sol.Packages {
		lines = append(lines, c.Package.String()+"@"+c.Repo)
	}
	slices.Sort(lines)
	return tableLine(name, lines)
}

// tableLine is a line of the shared table: without packages, a failure.
func tableLine(name string, lines []string) string {
	if len(lines) == 0 {
		return name + "\tfail"
	}
	h := sha256.Sum256([]byte(strings.Join(lines, "\n")))
	return name + "\tok\t" + strconv.Itoa(len(lines)) + "\t" + hex.EncodeToString(h[:])[:32]
}

// TestC9S compares with dnf's answers for every second package name of CentOS
// Stream 9, weak dependencies on, best off. dnf was asked through its library,
// in the way that does not look for packages that obsolete the named one.
func TestC9S(t *testing.T) {
	f, err := os.Open(c9s + "c9s-dnf-weak-even.tsv")
	if err != nil {
		t.Skip("no shared data rpm-md")
	}
	defer f.Close()
	p, err := solve.NewPool(loadC9S(t), solve.Options{Arch: "x86_64"})
	if err != nil {
		t.Fatal(err)
	}
	asked := 0
	for in := bufio.NewScanner(f); in.Scan(); asked++ {
		name, _, _ := strings.Cut(in.Text(), "\t")
		if got := answer(t, p, name); got != in.Text() {
			t.Errorf("got %q, want %q", got, in.Text())
		}
	}
	if asked < 2850 {
		t.Errorf("%d answers, want 2850", asked)
	}
}

// cpuTime is what this process, or its children, have used.
func cpuTime(t testing.TB, who int) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(who, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkC9S answers one request from metadata that nothing is known of, and
// reports the time of dnf, with an empty cache, in units of ours.
func BenchmarkC9S(b *testing.B) {
	var wall, cpu time.Duration
	for b.Loop() {
		runtime.GC()
		t0, c0 := time.Now(), cpuTime(b, syscall.RUSAGE_SELF)
		p, err := solve.NewPool(loadC9S(b), solve.Options{Arch: "x86_64"})
		if err != nil {
			b.Fatal(err)
		}
		if a := answer(b, p, "httpd"); !strings.Contains(a, "\tok\t") {
			b.Fatal(a)
		}
		wall, cpu = wall+time.Since(t0), cpu+cpuTime(b, syscall.RUSAGE_SELF)-c0
	}
	needDNF(b)
	var theirWall, theirCPU time.Duration
	const runs = 3
	for range runs {
		t0, c0 := time.Now(), cpuTime(b, syscall.RUSAGE_CHILDREN)
		askDNF(b, "httpd")
		theirWall, theirCPU = theirWall+time.Since(t0), theirCPU+cpuTime(b, syscall.RUSAGE_CHILDREN)-c0
	}
	n := float64(b.N) / runs
	b.ReportMetric(n*theirWall.Seconds()/wall.Seconds(), "dnf-wall/ours")
	b.ReportMetric(n*theirCPU.Seconds()/cpu.Seconds(), "dnf-cpu/ours")
}

// BenchmarkEachC9S answers a request for every package name, and reports the
// time of dnf's library for loading and solving the same in units of ours, and
// in how many answers the two differ.
func BenchmarkEachC9S(b *testing.B) {
	needDNF(b)
	oracle := filepath.Join(c9s, "../../tools/dnf-oracle")
	if _, err := os.Stat(oracle); err != nil {
		b.Skip("no shared tools")
	}
	dir, err := filepath.Abs(c9s)
	if err != nil {
		b.Fatal(err)
	}
	out := filepath.Join(b.TempDir(), "out.jsonl")
	t0, c0 := time.Now(), cpuTime(b, syscall.RUSAGE_CHILDREN)
	cmd := exec.Command("/usr/bin/python3", oracle, "x86_64", out, "1", "1", "baseos="+dir+"/c9s-baseos,appstream="+dir+"/c9s-appstream", "@allnames")
	if text, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("dnf-oracle: %v\n%s", err, text)
	}
	theirWall, theirCPU := time.Since(t0), cpuTime(b, syscall.RUSAGE_CHILDREN)-c0
	text, err := os.ReadFile(out)
	if err != nil {
		b.Fatal(err)
	}
	type dnfAnswer struct {
		Spec    string   `json:"spec"`
		Install []string `json:"install"`
	}
	var want []dnfAnswer
	for line := range bytes.Lines(text) {
		var a dnfAnswer
		if err := json.Unmarshal(line, &a); err != nil {
			b.Fatal(err)
		}
		want = append(want, a)
	}
	var wall, cpu time.Duration
	for b.Loop() {
		differ := 0
		runtime.GC()
		t0, c0 := time.Now(), cpuTime(b, syscall.RUSAGE_SELF)
		p, err := solve.NewPool(loadC9S(b), solve.Options{Arch: "x86_64"})
		if err != nil {
			b.Fatal(err)
		}
		for _, w := range want {
			if answer(b, p, w.Spec) != tableLine(w.Spec, w.Install) {
				differ++
			}
		}
		wall, cpu = wall+time.Since(t0), cpu+cpuTime(b, syscall.RUSAGE_SELF)-c0
		b.ReportMetric(float64(differ), "differ")
	}
	n := float64(b.N)
	b.ReportMetric(n*theirWall.Seconds()/wall.Seconds(), "dnf-wall/ours")
	b.ReportMetric(n*theirCPU.Seconds()/cpu.Seconds(), "dnf-cpu/ours")
}

func needDNF(t testing.TB) {
	t.Helper()
	if _, err := exec.LookPath("dnf"); err != nil {
		if os.Getenv("CAISSON_TOOLS") == "required" {
			t.Fatal(err)
		}
		t.Skip("no dnf")
	}
}

// askDNF lets dnf choose from CentOS Stream 9 with an empty cache.
func askDNF(t testing.TB, name string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "dnf")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	args := []string{"--installroot=" + dir + "/root", "--releasever=9", "--forcearch=x86_64", "--noplugins", "--setopt=reposdir=/dev/null",
		"--setopt=cachedir=" + dir + "/cache", "--setopt=logdir=" + dir, "--setopt=best=0", "--setopt=gpgcheck=0"}
	for _, id := range []string{"baseos", "appstream"} {
		at, err := filepath.Abs(c9s + "c9s-" + id)
		if err != nil {
			t.Fatal(err)
		}
		args = append(args, "--repofrompath="+id+",file://"+at)
	}
	cmd := exec.Command("dnf", append(args, "install", "--assumeno", name)...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	if out, _ := cmd.CombinedOutput(); !bytes.Contains(out, []byte("Transaction Summary")) { // it ends with 1 in any case
		t.Fatalf("dnf: %s", out)
	}
}

// TestReplayC9S makes a choice of CentOS Stream 9 again, modules and weak
// dependencies included.
func TestReplayC9S(t *testing.T) {
	var repos strings.Builder
	for _, id := range []string{"baseos", "appstream"} {
		dir, err := filepath.Abs(c9s + "c9s-" + id)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(dir); err != nil {
			t.Skip("no shared data rpm-md")
		}
		repos.WriteString("{id: " + id + ", baseurl: 'file://" + dir + "', gpgcheck: false}, ")
	}
	text := []byte("version: 1\nname: x\nrpm: {best: false, moduleEnable: [nodejs:20], sources: available, repos: [" + repos.String() + "]}\n" +
		"sets: {root: {packages: [bash, nodejs, httpd]}, tools: {packages: [coreutils]}}\n")
	m, err := ParseManifest("m", text)
	if err != nil {
		t.Fatal(err)
	}
	paths := map[digest.Digest]string{}
	var mu sync.Mutex
	fetch := func(ctx context.Context, w Want) (Blob, error) {
		b, err := fetchLocal(ctx, w)
		mu.Lock()
		defer mu.Unlock()
		paths[b.SHA256] = b.Path
		return b, err
	}
	l, err := Resolve(context.Background(), Options{Manifest: m, Digest: digest.Of(text), Fetch: fetch})
	if err != nil {
		t.Fatal(err)
	}
	n, modular := 0, 0
	for _, in := range l.Inputs {
		if in.RPM == nil {
			continue
		}
		n += len(in.For)
		if in.RPM.Module != "" {
			modular++
			if l.Find(KindRepodata, in.Repo+"-x86_64/modules") == nil {
				t.Errorf("%s is of a module, and the modules of %s are not locked", in.Name, in.Repo)
			}
		}
	}
	got, err := Replay(context.Background(), l, func(d digest.Digest) (string, error) { return paths[d], nil })
	if err != nil || got.Packages != n || got.Different != nil || got.Kept != nil || n < 50 || modular == 0 || len(l.MissingSources) == 0 {
		t.Errorf("got %+v, %v; want %d packages, %d of modules", got, err, n, modular)
	}
}
