package solve

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// command builds the command that users run.
func command(b *testing.B) string {
	b.Helper()
	bin := filepath.Join(b.TempDir(), "caisson")
	if out, err := exec.Command("go", "build", "-o", bin, "caisson/cmd/caisson").CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	return bin
}

// sharedRepos are the folders of CentOS Stream 9's repositories.
func sharedRepos(b *testing.B) map[string]string {
	b.Helper()
	repos := map[string]string{}
	for _, id := range []string{"baseos", "appstream"} {
		path, err := filepath.Abs(filepath.Join(shared, "rpm-md/c9s-"+id))
		if err != nil {
			b.Fatal(err)
		}
		if _, err := os.Stat(path); err != nil {
			b.Skip("no shared data rpm-md")
		}
		repos[id] = path
	}
	return repos
}

// needPeer is needTool for a benchmark.
func needPeer(b *testing.B, name string) {
	b.Helper()
	if _, err := exec.LookPath(name); err != nil {
		b.Skipf("no %s", name)
	}
}

// wall runs a command and returns how long it took, and how much memory it had
// at most, in megabytes.
func wall(b *testing.B, fails bool, cmd *exec.Cmd) (seconds, megabytes float64) {
	b.Helper()
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	start := time.Now()
	err := cmd.Run()
	seconds = time.Since(start).Seconds()
	if (err != nil) != fails {
		b.Fatalf("%v: %v\n%s", cmd.Args, err, &out)
	}
	return seconds, float64(cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss) / 1024
}

// BenchmarkColdResolve runs caisson resolve without anything in its store, and
// dnf install --assumeno without a cache, one after the other. It reports our
// time in units of dnf's, which is to be at most a half, and our memory.
func BenchmarkColdResolve(b *testing.B) {
	needPeer(b, "dnf")
	bin, repos := command(b), sharedRepos(b)
	specs := []string{"httpd", "podman", "nodejs", "git", "NetworkManager"}
	var ours, theirs, most float64
	for b.Loop() {
		dir := b.TempDir()
		args := []string{"resolve", "--arch", "x86_64", "--releasever", "9", "--best=false", "--store", filepath.Join(dir, "store")}
		for _, id := range []string{"baseos", "appstream"} {
			args = append(args, "--repo", id+"="+repos[id])
		}
		s, m := wall(b, false, exec.Command(bin, append(args, specs...)...))
		ours, most = ours+s, max(most, m)
		args = []string{"--installroot=" + filepath.Join(dir, "root"), "--releasever=9", "--forcearch=x86_64", "--noplugins",
			"--setopt=reposdir=/dev/null", "--setopt=cachedir=" + filepath.Join(dir, "cache"), "--setopt=logdir=" + dir, "--setopt=gpgcheck=0"}
		for _, id := range []string{"baseos", "appstream"} {
			args = append(args, "--repofrompath="+id+",file://"+repos[id])
		}
		s, _ = wall(b, true, exec.Command("dnf", append(append(args, "install", "--assumeno"), specs...)...)) // ends with 1 in any case
		theirs += s
	}
	b.ReportMetric(ours/theirs, "of-dnf")
	b.ReportMetric(most, "MB")
	b.ReportMetric(theirs/float64(b.N), "dnf-s/op")
}

// BenchmarkEachBesideDNF asks caisson resolve --each and dnf's library for every
// package name, and reports our time in units of the library's load and solving.
func BenchmarkEachBesideDNF(b *testing.B) {
	needPeer(b, "dnf")
	bin, repos := command(b), sharedRepos(b)
	tool, err := filepath.Abs(filepath.Join(shared, "../tools/dnf-oracle"))
	if err != nil {
		b.Fatal(err)
	}
	names := strings.Join(c9sPool(b, true).visibleNames(), "\n")
	var ours, theirs float64
	for b.Loop() {
		dir := b.TempDir()
		cmd := exec.Command(bin, "resolve", "--arch", "x86_64", "--releasever", "9", "--best=false", "--store", filepath.Join(dir, "store"),
			"--repo", "baseos="+repos["baseos"], "--repo", "appstream="+repos["appstream"], "--each")
		cmd.Stdin = strings.NewReader(names)
		s, _ := wall(b, false, cmd)
		ours += s
		s, _ = wall(b, false, exec.Command("/usr/bin/python3", tool, "x86_64", filepath.Join(dir, "out"), "1", "1",
			"baseos="+repos["baseos"]+",appstream="+repos["appstream"], "@allnames"))
		theirs += s
	}
	b.ReportMetric(ours/theirs, "of-dnf")
	b.ReportMetric(theirs/float64(b.N), "dnf-s/op")
}
