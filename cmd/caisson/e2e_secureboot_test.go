package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"caisson/build"
	"caisson/lock"
	"caisson/lock/digest"
	"caisson/verify"
)

// testSecureBoot signs a whole image that systemd-boot starts: verify says that
// it is equivalent where a policy allows that certificate's signatures, and
// otherwise where a byte besides is another; a machine with Secure Boot boots it,
// and refuses it with a changed byte.
func (e *e2e) testSecureBoot(t *testing.T) {
	dir := filepath.Join(e.dir, "secure-boot")
	must(t, os.Mkdir(dir, 0o755))
	l := readLock(t, e.lock)
	im := l.Image
	im.Boot = &lock.Boot{Loader: lock.LoaderSystemdBoot}
	l.Variants = append(l.Variants, lock.Variant{Name: "signed", Image: im})
	slices.SortFunc(l.Variants, func(a, b lock.Variant) int { return len(a.Name) - len(b.Name) }) // "debug" first
	text, err := lock.Format(l)
	must(t, err)
	with := []string{"--lock", filepath.Join(dir, "caisson.lock"), "--store", e.store}
	must(t, os.WriteFile(with[1], text, 0o644))
	key, cert := filepath.Join(dir, "db.key"), filepath.Join(dir, "db.pem")
	if out, err := exec.Command("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=e2e", "-days", "9", "-keyout", key, "-out", cert).CombinedOutput(); err != nil {
		t.Fatalf("openssl: %v\n%s", err, out)
	}
	plain, later, built := filepath.Join(dir, "plain"), filepath.Join(dir, "later"), filepath.Join(dir, "built")
	e.want(t, exitOK, nil, append([]string{"build", "--variant", "signed", "--out", plain}, with...)...)
	e.want(t, exitOK, []string{"EFI/BOOT/BOOTX64.EFI: signed by CN=e2e", "EFI/Linux/demo-signed.efi: signed by CN=e2e"},
		"sign-boot", filepath.Join(plain, "demo-signed.qcow2"), "-o", later+"/", "--key", key, "--cert", cert)
	e.want(t, exitOK, nil, append([]string{"build", "--variant", "signed", "--out", built, "--secure-boot-key", key, "--secure-boot-cert", cert}, with...)...)
	for _, name := range []string{"demo-signed.qcow2", "files.json", "measurements.json"} {
		if a, b := sum(t, filepath.Join(later, name)), sum(t, filepath.Join(built, name)); a != b {
			t.Errorf("%s: signed later it is %s, when it was built %s", name, a, b)
		}
	}
	for folder, want := range map[string]build.Account{plain: build.Vendor, later: build.Changed} {
		var files []build.File
		readJSON(t, filepath.Join(folder, "files.json"), &files)
		i := slices.IndexFunc(files, func(f build.File) bool { return f.Part == "esp" && f.Path == "/EFI/BOOT/BOOTX64.EFI" })
		if i < 0 || files[i].Account != want || len(files[i].Inputs) != 1 {
			t.Errorf("systemd-boot in %s has the account %+v, want %s and its package", folder, files[max(i, 0)], want)
		}
	}
	policy := e.signaturePolicy(t, dir, cert)
	image := filepath.Join(later, "demo-signed.qcow2")
	e.want(t, exitOK, []string{"EQUIVALENT"}, append([]string{"verify", image, "--policy", policy, "--boot", "--secure-boot-cert", cert,
		"--wait-for", "login:", "--wait-for", "caisson-agent: ready, root is verity-protected"}, with...)...)
	e.changedBeside(t, dir, image, policy, cert, with)
}

// signaturePolicy allows signatures of the ESP's programs by the certificate.
func (e *e2e) signaturePolicy(t *testing.T, dir, cert string) string {
	t.Helper()
	b, err := os.ReadFile(cert)
	must(t, err)
	block, _ := pem.Decode(b)
	text := "version: 1\nexceptions:\n"
	for _, p := range []string{"EFI/BOOT/BOOTX64.EFI", "EFI/Linux/demo-signed.efi"} {
		text += fmt.Sprintf("  - {function: secure-boot-signature, match: 'esp:/%s', certificate: %s, who: e2e, why: signed here, until: %s}\n",
			p, digest.Of(block.Bytes).Hex(), time.Now().AddDate(0, 0, 2).Format(time.DateOnly))
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	must(t, err)
	hash := sha256.Sum256([]byte(text))
	signature, err := ecdsa.SignASN1(rand.Reader, key, hash[:])
	must(t, err)
	for name, content := range map[string][]byte{
		"e.yaml": []byte(text), "e.sig": []byte(base64.StdEncoding.EncodeToString(signature)),
		"s.pub":  pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}),
		"p.yaml": []byte("version: 1\nvariants: [signed]\nexceptions: {file: e.yaml, signature: e.sig, keys: [s.pub]}\n"),
	} {
		must(t, os.WriteFile(filepath.Join(dir, name), content, 0o644))
	}
	return filepath.Join(dir, "p.yaml")
}

// changedBeside changes one byte of the signed image besides its signatures: where
// no file is, and then in the kernel image.
func (e *e2e) changedBeside(t *testing.T, dir, image, policy, cert string, with []string) {
	t.Helper()
	var d verify.Description
	readJSON(t, filepath.Join(filepath.Dir(image), "image.json"), &d)
	i := slices.IndexFunc(d.Partitions, func(p build.Partition) bool { return p.Name == "esp" })
	esp := d.Partitions[max(i, 0)]
	changed := filepath.Join(dir, "changed")
	must(t, os.Mkdir(changed, 0o755))
	raw := filepath.Join(changed, "demo-signed.raw")
	if out, err := exec.Command("qemu-img", "convert", "-O", "raw", image, raw).CombinedOutput(); err != nil {
		t.Fatalf("qemu-img: %v\n%s", err, out)
	}
	flip(t, raw, esp.Start+esp.Size-5)
	back := filepath.Join(changed, "demo-signed.qcow2")
	if out, err := exec.Command("qemu-img", "convert", "-c", "-O", "qcow2", raw, back).CombinedOutput(); err != nil {
		t.Fatalf("qemu-img: %v\n%s", err, out)
	}
	e.want(t, exitDifferent, []string{"DIFFERENT", "the ESP differs in more than the files that are excepted"}, append([]string{"verify", back, "--policy", policy}, with...)...)
	flip(t, raw, esp.Start+esp.Size-5)
	flip(t, raw, esp.Start+esp.Size/2) // in the kernel image
	e.want(t, exitOK, []string{"Access Denied"}, "boot", raw, "--secure-boot-cert", cert, "--wait-for", "Access Denied|Security Violation")
}
