package boot

import (
	"bytes"
	"context"
	"encoding/base64"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"caisson/build/image/uki"
	"caisson/verify/measure"
)

// chain is a way to a kernel: what is on the EFI system partition.
type chain struct {
	name  string
	files func(k *kit) map[string][]byte
	o     Options
	// secure boots the chain with Secure Boot, by the kit's key.
	secure bool
	// quick is of those that are booted in short tests too: each way to a
	// kernel, by one version of each program.
	quick bool
}

// kit is what chains are made of.
type kit struct {
	t        *testing.T
	parts    map[string][]byte
	initrd   []byte
	rootHash string
	key      *signer
}

const consoleArgs = "console=ttyS0 panic=-1 "

func (k *kit) uki(version string) []byte {
	return k.ukiWith(version, consoleArgs+"roothash="+k.rootHash)
}

func (k *kit) ukiWith(version, cmdline string) []byte {
	return peImage(k.t, k.parts["stub "+version],
		".osrel", "ID=chain\nVERSION_ID=1\nPRETTY_NAME=Chain\n", ".cmdline", cmdline, ".uname", "6.1.0-chain",
		".initrd", string(k.initrd), ".linux", string(k.parts["kernel"]))
}

func (k *kit) addon(version, cmdline string) []byte {
	return peImage(k.t, k.parts["addon stub "+version], ".cmdline", cmdline, ".sbat", "sbat,1,SBAT Version,sbat,1,x\n")
}

// ownAddon is an addon with the stub that package uki makes.
func (k *kit) ownAddon(cmdline string) []byte {
	k.t.Helper()
	stub, err := uki.AddonStub(uki.MachineAMD64)
	if err != nil {
		k.t.Fatal(err)
	}
	b, err := uki.Addon(stub, uki.AddonOptions{Cmdline: cmdline})
	if err != nil {
		k.t.Fatal(err)
	}
	return b
}

func chains() []chain {
	var all []chain
	for _, v := range stubs() {
		all = append(all, directChains(v)...)
		all = append(all, loaderChains(v)...)
		if v != "252" { // which has no addons
			all = append(all, addonChains(v)...)
		}
	}
	for _, v := range []string{"257", newest} {
		all = append(all, shimChains(v)...)
	}
	return all
}

// directChains have a UKI that the firmware starts.
func directChains(v string) []chain {
	return []chain{{name: "stub " + v, quick: v == "252" || v == newest, files: func(k *kit) map[string][]byte {
		return map[string][]byte{"EFI/BOOT/BOOTX64.EFI": k.uki(v)}
	}}, {name: "Secure Boot, stub " + v, secure: true, files: func(k *kit) map[string][]byte {
		return map[string][]byte{"EFI/BOOT/BOOTX64.EFI": k.key.sign(k.t, k.uki(v))}
	}}, {name: "Secure Boot, two signatures, stub " + v, secure: true, files: func(k *kit) map[string][]byte {
		return map[string][]byte{"EFI/BOOT/BOOTX64.EFI": k.key.sign(k.t, newSigner(k.t).sign(k.t, k.uki(v)))}
	}}}
}

// loaderChains have systemd-boot in front of it.
func loaderChains(v string) []chain {
	all := []chain{{name: "systemd-boot " + v, files: func(k *kit) map[string][]byte {
		return map[string][]byte{"EFI/BOOT/BOOTX64.EFI": k.parts["loader "+v], "EFI/Linux/chain.efi": k.uki(v), "loader/loader.conf": []byte("timeout 0\n")}
	}}}
	if v == "252" {
		return all
	}
	return append(all, chain{name: "systemd-boot addons " + v, quick: v == "257", files: func(k *kit) map[string][]byte {
		return map[string][]byte{
			"EFI/BOOT/BOOTX64.EFI":                    k.parts["loader "+v],
			"EFI/Linux/chain.efi":                     k.ukiWith(v, consoleArgs+"first"),
			"EFI/Linux/chain.efi.extra.d/b.addon.efi": k.addon(v, "roothash="+k.rootHash),
			"loader/addons/z.addon.efi":               k.addon(v, "global.z"),
		}
	}}, chain{name: "Secure Boot, systemd-boot " + v, quick: v == newest, secure: true, files: func(k *kit) map[string][]byte {
		return map[string][]byte{
			"EFI/BOOT/BOOTX64.EFI":                    k.key.sign(k.t, k.parts["loader "+v]),
			"EFI/Linux/chain.efi":                     k.key.sign(k.t, k.ukiWith(v, consoleArgs+"first")),
			"EFI/Linux/chain.efi.extra.d/b.addon.efi": k.key.sign(k.t, k.addon(v, "roothash="+k.rootHash)),
		}
	}})
}

// addonChains have addons beside a UKI that the firmware starts.
func addonChains(v string) []chain {
	return []chain{{name: "addons " + v, files: func(k *kit) map[string][]byte {
		return map[string][]byte{
			"EFI/BOOT/BOOTX64.EFI":                     k.ukiWith(v, consoleArgs+"first"),
			"EFI/BOOT/BOOTX64.EFI.extra.d/b.addon.efi": k.addon(v, "own.b roothash="+k.rootHash),
			"EFI/BOOT/BOOTX64.EFI.extra.d/A.addon.efi": k.addon(v, " own.a  x "),
			"loader/addons/z.addon.efi":                k.addon(v, "global.z"),
			"loader/addons/C.addon.efi":                k.addon(v, "global.c\n"),
		}
	}}, {name: "own addon " + v, files: func(k *kit) map[string][]byte {
		return map[string][]byte{
			"EFI/BOOT/BOOTX64.EFI":                          k.ukiWith(v, consoleArgs+"first"),
			"EFI/BOOT/BOOTX64.EFI.extra.d/verity.addon.efi": k.ownAddon("roothash=" + k.rootHash),
		}
	}}, {name: "Secure Boot, own addon " + v, secure: true, files: func(k *kit) map[string][]byte {
		return map[string][]byte{
			"EFI/BOOT/BOOTX64.EFI":                          k.key.sign(k.t, k.ukiWith(v, consoleArgs+"first")),
			"EFI/BOOT/BOOTX64.EFI.extra.d/verity.addon.efi": k.key.sign(k.t, k.ownAddon("roothash="+k.rootHash)),
		}
	}}}
}

// shimChains have shim in front of a UKI with an addon, and shim's fallback too.
func shimChains(v string) []chain {
	const csv = "\ufeffshimx64.efi,redhat,\\EFI\\Linux\\chain.efi ,UKI bootentry\n"
	return []chain{{name: "shim csv " + v, quick: v == "257", o: Options{Resets: true}, files: func(k *kit) map[string][]byte {
		return map[string][]byte{
			"EFI/BOOT/BOOTX64.EFI":                         k.parts["shim"],
			"EFI/BOOT/fbx64.efi":                           k.parts["fallback"],
			"EFI/redhat/shimx64.efi":                       k.parts["shim"],
			"EFI/redhat/BOOTX64.CSV":                       utf16Text(csv),
			"EFI/Linux/chain.efi":                          k.ukiWith(v, consoleArgs+"first"),
			"EFI/Linux/chain.efi.extra.d/verity.addon.efi": k.addon(v, "roothash="+k.rootHash+" systemd.volatile=overlay"),
		}
	}}, {name: "shim " + v, files: func(k *kit) map[string][]byte {
		return map[string][]byte{
			"EFI/BOOT/BOOTX64.EFI":                          k.parts["shim"],
			"EFI/BOOT/grubx64.efi":                          k.ukiWith(v, consoleArgs+"first"),
			"EFI/BOOT/grubx64.efi.extra.d/verity.addon.efi": k.addon(v, "roothash="+k.rootHash+" systemd.volatile=overlay"),
		}
	}}, {name: "Secure Boot, shim " + v, quick: v == newest, secure: true, files: func(k *kit) map[string][]byte {
		return map[string][]byte{
			"EFI/BOOT/BOOTX64.EFI":                          k.key.sign(k.t, k.parts["shim"]),
			"EFI/BOOT/grubx64.efi":                          k.key.sign(k.t, k.ukiWith(v, consoleArgs+"first")),
			"EFI/BOOT/grubx64.efi.extra.d/verity.addon.efi": k.key.sign(k.t, k.addon(v, "roothash="+k.rootHash)),
		}
	}}}
}

func utf16Text(s string) []byte {
	var b []byte
	for _, r := range s {
		b = append(b, byte(r), byte(r>>8))
	}
	return b
}

// seed is the file by which the newest stubs leave random numbers alone.
const seed = "loader/random-seed"

// TestChains boots every chain, and compares what the TPM measured, and what
// the firmware noted, with what is predicted of the disk's bytes. The firmware's
// logs are left in the folder of the packages.
func TestChains(t *testing.T) {
	k := &kit{t: t, parts: packages(t), rootHash: chainRootHash(t), key: newSigner(t)}
	k.initrd = chainInitrd(t, k.parts["busybox"])
	logs := filepath.Join(chainsDir(t), "logs")
	if err := os.MkdirAll(logs, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range chains() {
		if testing.Short() && !c.quick {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			o := c.o
			files := c.files(k)
			if strings.HasSuffix(c.name, newest) {
				files[seed] = nil
			}
			o.Disk, o.Format = chainDisk(t, files), "raw"
			o.WaitFor = []*regexp.Regexp{regexp.MustCompile("^" + logEnd)}
			var platform measure.Platform
			if c.secure {
				platform = measure.Owned(k.key.cert)
				o.Secure = &platform
			}
			predicted, err := predict(t, platform, o.Disk)
			if err != nil && strings.HasSuffix(c.name, newest) && strings.Contains(err.Error(), "measures is not known") {
				t.Skip("Debian has a newer systemd than was compared: ", err)
			}
			if err != nil {
				t.Fatal(err)
			}
			r, err := Run(context.Background(), o)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("booted in %v", r.Time)
			text := eventLog(t, r.Serial)
			if err := os.WriteFile(filepath.Join(logs, c.name+".log"), text, 0o600); err != nil {
				t.Fatal(err)
			}
			log, err := measure.ReadLog(bytes.NewReader(text))
			if err != nil {
				t.Fatal(err)
			}
			for _, bank := range measure.Banks() {
				for _, d := range measure.Departures(predicted, bank, log) {
					t.Errorf("%s: %v", bank, d)
				}
				if len(r.Banks[bank].Takeover) == 0 {
					t.Errorf("%s: nothing was measured", bank)
				}
				for _, m := range measure.CompareBank(predicted, bank, r.Banks[bank].Takeover) {
					t.Errorf("%s: %v", bank, m)
				}
			}
		})
	}
}

func predict(t *testing.T, platform measure.Platform, name string) (*measure.Result, error) {
	t.Helper()
	disk, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer disk.Close()
	return measure.DiskOn(platform, disk, chainDiskSize)
}

// eventLog is the log of the firmware's events that the machine printed.
func eventLog(t *testing.T, console string) []byte {
	t.Helper()
	_, text, ok := strings.Cut(console, logStart)
	text, _, ok2 := strings.Cut(text, logEnd)
	b, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(text), ""))
	if !ok || !ok2 || err != nil {
		t.Fatalf("no event log on the console: %v", err)
	}
	return b
}

// TestBootSecret shows why that file has to be there: without it the stub adds
// a secret of the machine's to the initrd, and what is measured of that is
// another on each machine.
func TestBootSecret(t *testing.T) {
	k := &kit{t: t, parts: packages(t), rootHash: chainRootHash(t)}
	k.initrd = chainInitrd(t, k.parts["busybox"])
	disk := chainDisk(t, map[string][]byte{"EFI/BOOT/BOOTX64.EFI": k.uki(newest)})
	r, err := Run(context.Background(), Options{Disk: disk, Format: "raw", WaitFor: []*regexp.Regexp{regexp.MustCompile("^" + logEnd)}})
	if err != nil {
		t.Fatal(err)
	}
	predicted, err := predict(t, measure.Platform{}, disk)
	if err != nil {
		t.Fatal(err)
	}
	if all := measure.Compare(predicted, r.Takeover); len(all) != 1 || all[0].PCR != 9 {
		t.Errorf("got the mismatches %v, want one of PCR 9", all)
	}
}
