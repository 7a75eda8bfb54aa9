package spdx_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"caisson/attest/internal/fixture"
	"caisson/attest/sign"
	"caisson/attest/slsa"
	"caisson/attest/spdx"
	"caisson/lock"
)

// big is an image of 2,000 packages, each of which needs three others, and n
// files.
func big(t testing.TB, n int) spdx.Subject {
	s := subject(t)
	inputs, files := s.Lock.Inputs, s.Files
	for i := range 2000 {
		in := *s.Lock.Find(lock.KindRPM, "kmod-31-1.x86_64")
		rpm := *in.RPM
		rpm.Name = fmt.Sprintf("pkg%04d", i)
		in.RPM, in.Name = &rpm, rpm.Name+"-31-1.x86_64"
		in.SHA256 = fixture.Sum(in.Name)
		inputs = append(inputs, in)
	}
	for i := range n {
		f := files[0]
		sum := fixture.Sum(strconv.Itoa(i))
		f.SHA256 = &sum
		f.Path = fmt.Sprintf("/usr/share/some/folder/with/a/name/file%06d", i)
		f.Inputs = []string{fmt.Sprintf("rpm/pkg%04d-31-1.x86_64", i%2000)}
		files = append(files, f)
	}
	s.Lock.Inputs, s.Files = inputs, files
	s.Facts = func(in *lock.Input) (spdx.Facts, error) {
		f, err := fixture.Facts(in)
		if in.RPM == nil || err != nil {
			return f, err
		}
		if n, err := strconv.Atoi(strings.TrimPrefix(in.RPM.Name, "pkg")); err == nil {
			f.Provides = []spdx.Dependency{{Name: in.RPM.Name}}
			for i := range 3 {
				f.Requires = append(f.Requires, spdx.Dependency{Name: fmt.Sprintf("pkg%04d", (n+i+1)%2000)})
			}
			f.License = "LGPLv2+ and LGPLv2+ with exceptions and GPLv2+ and BSD and (MIT or ASL 2.0) and " + in.RPM.Name
		}
		return f, nil
	}
	return s
}

// attested is the bill of materials, its statement and its bundle.
func attested(ctx context.Context, s spdx.Subject, signer sign.Signer) (statement, document, bundle []byte, err error) {
	doc, err := spdx.New(s)
	if err != nil {
		return nil, nil, nil, err
	}
	image := slsa.Image{File: slsa.File(s.Disk.Name, s.Disk.SHA256)}
	if statement, document, err = slsa.SBOM(image, doc.Write); err != nil {
		return nil, nil, nil, err
	}
	bundle, err = signer.Bundle(ctx, statement)
	return statement, document, bundle, err
}

func newSigner(t testing.TB) sign.Signer {
	t.Helper()
	pass := []byte("secret")
	private, _, err := sign.GenerateKey(func() ([]byte, error) { return pass, nil })
	if err != nil {
		t.Fatal(err)
	}
	s, err := sign.LoadSigner(private, pass)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// BenchmarkDocument makes bill of materials, statement and bundle of an image
// of 2,000 packages and 60,000 files.
func BenchmarkDocument(b *testing.B) {
	s, signer := big(b, 60_000), newSigner(b)
	b.ReportAllocs()
	for b.Loop() {
		_, document, _, err := attested(b.Context(), s, signer)
		if err != nil {
			b.Fatal(err)
		}
		b.SetBytes(int64(len(document)))
	}
}

// maxMemory is what bill of materials, statement and bundle of an image of
// 2,000 packages and 60,000 files may take, in bytes, with the program itself.
const maxMemory = 300 << 20

// TestMemory makes them in a process of its own, and asks the kernel how much
// that needed.
func TestMemory(t *testing.T) {
	if os.Getenv("CAISSON_TEST_SPDX") == "child" {
		statement, document, bundle, err := attested(t.Context(), big(t, 60_000), newSigner(t))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(statement, document) || len(bundle) < len(statement) || len(document) < 30<<20 {
			t.Fatalf("a document of %d bytes, a statement of %d, a bundle of %d", len(document), len(statement), len(bundle))
		}
		return
	}
	if testing.Short() {
		t.Skip("a document of 60,000 files, left out by -short")
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestMemory$")
	cmd.Env = append(os.Environ(), "CAISSON_TEST_SPDX=child")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	u := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	peak := u.Maxrss << 10 // getrusage(2): kilobytes
	t.Logf("%d MiB, %s of processor time", peak>>20, cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime())
	if peak > maxMemory {
		t.Errorf("%d bytes of memory, want at most %d", peak, int64(maxMemory))
	}
}
