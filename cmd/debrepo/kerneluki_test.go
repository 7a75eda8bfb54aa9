package main

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"caisson/build/image/authenticode"
	"caisson/build/image/cpio"
	"caisson/build/image/uki"
	"caisson/cmd/debrepo/rpmwrite"
)

// TestSignProgram signs the same program twice: the same bytes, and a signature of it by the repository's certificate.
func TestSignProgram(t *testing.T) {
	k, err := openKey(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	program, err := uki.AddonStub(uki.MachineAMD64)
	if err != nil {
		t.Fatal(err)
	}
	var all [][]byte
	for range 2 {
		signed, err := k.signProgram(bytes.NewReader(program), int64(len(program)))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, signed)
	}
	if !bytes.Equal(all[0], all[1]) {
		t.Error("the same program, signed twice, is two programs")
	}
	der, err := uki.Signatures(bytes.NewReader(all[0]), int64(len(all[0])))
	if err != nil || len(der) != 1 {
		t.Fatalf("got %d signatures, %v", len(der), err)
	}
	hash, err := uki.Authenticode(bytes.NewReader(all[0]), int64(len(all[0])))
	if err != nil {
		t.Fatal(err)
	}
	s, err := authenticode.Open(der[0], hash[:])
	if err != nil || s.Signer.Subject.CommonName != "debrepo" {
		t.Errorf("got %+v, %v", s, err)
	}
}

// TestInitrdTree writes files of packages: each once, folders before what is in them, nothing that only people read.
func TestInitrdTree(t *testing.T) {
	open := func(text string) func() (io.Reader, error) {
		return func() (io.Reader, error) { return strings.NewReader(text), nil }
	}
	var archives [][]byte
	for range 2 {
		tree := initrdTree{}
		tree.addPackage(&rpmwrite.Package{Files: []rpmwrite.File{
			{Path: "/usr/bin/a", Mode: rpmwrite.TypeRegular | 0o755, Size: 3, Open: open("abc")},
			{Path: "/usr/share/doc/a/copyright", Mode: rpmwrite.TypeRegular | 0o644, Size: 1, Open: open("x")},
			{Path: "/bin", Mode: rpmwrite.TypeLink | 0o777, Target: "usr/bin"},
		}})
		tree.put("/usr/lib/modules/1/b.ko", rpmwrite.TypeRegular|0o644, "", []byte("module"))
		var b bytes.Buffer
		if err := tree.write(&b, 5); err != nil {
			t.Fatal(err)
		}
		archives = append(archives, b.Bytes())
	}
	if !bytes.Equal(archives[0], archives[1]) {
		t.Error("the same files make two archives")
	}
	got := ""
	for r := cpio.NewReader(bytes.NewReader(archives[0])); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		got += h.Name + "=" + string(text) + " "
	}
	if want := "bin=usr/bin usr= usr/bin= usr/bin/a=abc usr/lib= usr/lib/modules= usr/lib/modules/1= usr/lib/modules/1/b.ko=module "; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
