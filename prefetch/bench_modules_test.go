package prefetch

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"caisson/lock"
	"caisson/lock/digest"
	"caisson/lock/gomod"
	"caisson/prefetch/cas"
	"caisson/prefetch/view"
)

// networkEnv lets a benchmark fetch what it measures with.
const networkEnv = "CAISSON_BENCH_NETWORK"

// graphModule is whose go.sum is measured with: some 380 zips and 640 go.mod.
const graphModule = "github.com/sigstore/cosign/v2"

// graph is the modules of a go.sum, as they lie in this machine's module cache.
type graph struct {
	dir   string // of a go.mod and a go.sum
	proxy string // the module cache's own tree of a module proxy
	lock  *lock.Lock
	args  []string // MODULE@VERSION of the zips
}

// goCommand is go in a folder, with nothing of this machine's but what env says.
func goCommand(dir string, env []string, args ...string) *exec.Cmd {
	cmd := exec.Command("go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), append([]string{"GOENV=off", "GOFLAGS=-modcacherw", "GOTOOLCHAIN=local", "GOWORK=off"}, env...)...)
	return cmd
}

func goOutput(b *testing.B, cmd *exec.Cmd) []byte {
	b.Helper()
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		b.Fatalf("go %s …: %v: %s%s", strings.Join(cmd.Args[1:min(4, len(cmd.Args))], " "), err, &said, out)
	}
	return out
}

// readGraph reads the graph from this machine's module cache, and skips the
// benchmark where that does not have all of it and the network may not be
// used.
func readGraph(b *testing.B) *graph {
	b.Helper()
	if _, err := exec.LookPath("go"); err != nil {
		b.Skip(err)
	}
	var of struct{ Dir, GoMod string }
	out, err := exec.Command("go", "list", "-m", "-json", graphModule).Output()
	if err == nil {
		err = json.Unmarshal(out, &of)
	}
	if err != nil || of.Dir == "" {
		b.Skipf("%s is not in the module cache: %v", graphModule, err)
	}
	cache := strings.TrimSpace(string(goOutput(b, exec.Command("go", "env", "GOMODCACHE"))))
	g := &graph{dir: b.TempDir(), proxy: filepath.Join(cache, "cache/download"), lock: new(lock.Lock)}
	for _, name := range []string{"go.mod", "go.sum"} {
		text, err := os.ReadFile(filepath.Join(of.Dir, name))
		if err == nil {
			err = os.WriteFile(filepath.Join(g.dir, name), text, 0o600)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	missing := g.read(b)
	if missing > 0 && os.Getenv(networkEnv) != "" {
		goOutput(b, exec.Command("go", append([]string{"-C", g.dir, "mod", "download"}, g.args...)...))
		goOutput(b, exec.Command("go", "-C", g.dir, "mod", "graph"))
		missing = g.read(b)
	}
	if missing > 0 {
		b.Skipf("%d files of %s's go.sum are not in the module cache; with %s=yes they are fetched", missing, graphModule, networkEnv)
	}
	return g
}

// read makes the lock of the go.sum, and returns how many of its files the
// module cache lacks. A zip has its go.mod beside it, listed or not.
func (g *graph) read(b *testing.B) (missing int) {
	b.Helper()
	text, err := os.ReadFile(filepath.Join(g.dir, "go.sum"))
	if err != nil {
		b.Fatal(err)
	}
	g.args, g.lock.Inputs = nil, nil
	sums := make(map[gomod.Module][2]string) // h1 of zip and go.mod
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		version, isMod := strings.CutSuffix(f[1], "/go.mod")
		m := gomod.Module{Path: f[0], Version: version}
		h := sums[m]
		if isMod {
			h[1] = f[2]
		} else {
			h[0] = f[2]
			g.args = append(g.args, f[0]+"@"+version)
		}
		sums[m] = h
	}
	for m, h := range sums {
		for i, path := range []string{gomod.ZipPath(m), gomod.ModPath(m)} {
			if i == 0 && h[i] == "" {
				continue
			}
			content, err := os.ReadFile(filepath.Join(g.proxy, path))
			if err != nil {
				missing++
				continue
			}
			if h[i] == "" {
				if h[i], err = gomod.ModHash(content); err != nil {
					b.Fatal(err)
				}
			}
			g.lock.Inputs = append(g.lock.Inputs, lock.Input{Kind: lock.KindGo, Name: m.Path + "@" + m.Version + filepath.Ext(path), URL: path,
				SHA256: digest.Of(content), Size: int64(len(content)), Go: &lock.Go{Module: m.Path, Version: m.Version, H1: h[i]}})
		}
	}
	return missing
}

// serve is a module proxy that takes so long for each answer.
func (g *graph) serve(b *testing.B, latency time.Duration) string {
	files := http.FileServer(http.Dir(g.proxy))
	return serve(b, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(latency)
		base, isInfo := strings.CutSuffix(r.URL.Path, ".info")
		if isInfo { // which the cache lacks of what was only built with
			_, version, _ := strings.Cut(base, "/@v/")
			fmt.Fprintf(w, `{"Version":%q}`, strings.ReplaceAll(version, "!", ""))
			return
		}
		files.ServeHTTP(w, r)
	}))
}

// download is go mod download of the graph's modules from a proxy to an empty
// module cache.
func (g *graph) download(b *testing.B, proxy, cache string) {
	b.Helper()
	env := []string{"GOPROXY=" + proxy, "GONOPROXY=", "GOSUMDB=off", "GOMODCACHE=" + cache}
	goOutput(b, goCommand(g.dir, env, append([]string{"mod", "download"}, g.args...)...))
}

// A real module graph: Fill, its view, and go mod download from that view, as
// a build that begins with an empty module cache unpacks it; beside go mod
// download from the same server, without the time that a network takes and
// with it. The figures are ratios of speed; in the second the view is itself
// the module cache, as it is in Hermeto's layout.
//
// go hashes what it unpacks whoever has hashed it before, and has only two
// files at a time on two cores. So what Fill takes has to come out of what go
// waits for the network: without any it cannot.
func BenchmarkModules(b *testing.B) {
	g := readGraph(b)
	for _, latency := range []time.Duration{0, 5 * time.Millisecond, 20 * time.Millisecond} {
		b.Run("latency="+latency.String(), func(b *testing.B) { g.measure(b, g.serve(b, latency)) })
	}
	if os.Getenv(networkEnv) != "" {
		proxy, _, _ := strings.Cut(strings.TrimSpace(string(goOutput(b, exec.Command("go", "env", "GOPROXY")))), ",")
		b.Run("network", func(b *testing.B) { g.measure(b, proxy) })
	}
}

// measure is the contest from one module proxy.
func (g *graph) measure(b *testing.B, proxy string) {
	var filled, unpacked, inPlace, peer best
	for b.Loop() {
		dir := b.TempDir()
		timed := func(into *best, do func()) {
			begin := time.Now()
			do()
			into.add(time.Since(begin))
		}
		timed(&filled, func() { fillView(b, g.lock, proxy, dir) })
		timed(&unpacked, func() { g.download(b, "file://"+dir+"/view/cache/download", dir+"/ours") })
		removeBench(b, dir+"/ours")
		timed(&inPlace, func() { g.download(b, "off", dir+"/view") })
		removeBench(b, dir+"/store", dir+"/view")
		timed(&peer, func() { g.download(b, proxy, dir+"/go") })
		removeBench(b, dir+"/go")
	}
	b.ReportMetric(peer.over(filled+unpacked), "of-go-mod-download")
	b.ReportMetric(peer.over(filled+inPlace), "in-place-of-go-mod-download")
	b.ReportMetric(time.Duration(filled).Seconds(), "s-fill")
	b.ReportMetric(time.Duration(unpacked).Seconds(), "s-unpack")
	b.ReportMetric(time.Duration(inPlace).Seconds(), "s-in-place")
	b.ReportMetric(time.Duration(peer).Seconds(), "s-go")
}

// fillView fills dir/store from a module proxy and makes dir/view of it.
func fillView(b *testing.B, l *lock.Lock, proxy, dir string) {
	b.Helper()
	s, err := cas.Open(dir + "/store")
	if err == nil {
		_, err = Fill(b.Context(), l, s, Options{Config: Config{GoProxy: proxy}})
	}
	if err == nil {
		tree := view.New(s)
		if err = tree.Go("", l); err == nil {
			_, err = tree.Write(b.Context(), dir+"/view")
		}
	}
	if err != nil {
		b.Fatal(err)
	}
}

// removeBench removes what was measured with, while nothing is measured.
func removeBench(b *testing.B, dirs ...string) {
	b.Helper()
	for _, dir := range dirs {
		if err := os.RemoveAll(dir); err != nil {
			b.Fatal(err)
		}
	}
}
