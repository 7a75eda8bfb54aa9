package gpt

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"caisson/lock/tooltest"
)

// verified has sgdisk verify a disk, and returns what it prints of it.
func verified(t *testing.T, disk []byte) string {
	t.Helper()
	sgdisk := tooltest.Find(t, "sgdisk")
	name := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(name, disk, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(sgdisk, "-v", name).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "No problems found") || strings.Contains(string(out), "aution") {
		t.Errorf("sgdisk -v: %v\n%s", err, out)
	}
	out, err = exec.Command(sgdisk, "-p", name).CombinedOutput()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// TestEdit adds a partition to a disk of sgdisk's that has grown.
func TestEdit(t *testing.T) {
	sgdisk := tooltest.Find(t, "sgdisk")
	for _, entries := range []string{"128", "56", "256"} {
		t.Run(entries, func(t *testing.T) {
			name := filepath.Join(t.TempDir(), "disk")
			if err := os.WriteFile(name, make([]byte, testSize), 0o600); err != nil {
				t.Fatal(err)
			}
			out, err := exec.Command(sgdisk, "-S", entries, "-n14:2048:4095", "-t14:ef02", "-n15:4096:8191", "-t15:ef00", "-c15:esp",
				"-n1:8192:16383", "-t1:8304", "-c1:root", "-A1:set:2", "-A1:set:59", name).CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			b, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			copy(b, bytes.Repeat([]byte("boot"), 110)) // as GRUB has it
			e, err := OpenEdit(memory(b), testSize)
			if err != nil {
				t.Fatal(err)
			}
			parts := e.Partitions()
			if len(parts) != 3 || parts[0].Number != 1 || parts[1].Number != 14 || parts[2].Number != 15 || parts[0].Name != "root" {
				t.Fatalf("got %+v", parts)
			}
			root := parts[0]
			root.ID = GUID{1, 2, 3}
			if err := e.Set(root); err != nil {
				t.Fatal(err)
			}
			n, err := e.Add(Partition{Type: TypeRootVerityX86_64, ID: GUID{4}, Name: "root-x86-64-verity", First: 32768, Last: 34815, Attrs: AttrReadOnly})
			if err != nil || n != 2 {
				t.Fatalf("got %d, %v", n, err)
			}
			const size = testSize + 8<<20
			m := append(memory(b), make([]byte, size-testSize)...)
			start, end := e.Backup()
			if end != testSize {
				t.Errorf("the backup ends at %d, want %d", end, testSize)
			}
			clear(m[start:end])
			if err := e.Write(m, size); err != nil {
				t.Fatal(err)
			}
			verified(t, m)
			again, err := OpenEdit(m, size)
			if err != nil {
				t.Fatal(err)
			}
			got := again.Partitions()
			root.Attrs = 1<<2 | AttrGrowFS
			if len(got) != 4 || got[0] != root || got[1].Number != 2 || got[1].Name != "root-x86-64-verity" || got[2] != parts[1] || got[3] != parts[2] {
				t.Errorf("got %+v", got)
			}
			if !bytes.Equal(m[:440], b[:440]) || !bytes.Equal(m[1<<20:32768*SectorSize-1<<20], b[1<<20:32768*SectorSize-1<<20]) {
				t.Error("more than the table has changed")
			}
			// Again, and with nothing to change: the same bytes.
			same := bytes.Clone(m)
			if err := again.Write(memory(same), size); err != nil || !bytes.Equal(same, m) {
				t.Errorf("writing the same table changed the disk: %v", err)
			}
		})
	}
}

// TestEditOfMovedBackup has a disk that somebody made larger before.
func TestEditOfMovedBackup(t *testing.T) {
	b := append(written(t, testTable()), make([]byte, 1<<20)...)
	e, err := OpenEdit(b, int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	start, end := e.Backup()
	if start != testSize-33*SectorSize || end != testSize {
		t.Errorf("the backup lies from %d to %d", start, end)
	}
	clear(b[start:end])
	if err := e.Write(b, int64(len(b))); err != nil {
		t.Fatal(err)
	}
	verified(t, b)
}

func TestEditRefuses(t *testing.T) {
	open := func() *Edit {
		e, err := OpenEdit(written(t, testTable()), testSize)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	p := Partition{Type: TypeRootX86_64, ID: GUID{9}, First: 30720, Last: 30800}
	for _, c := range []struct {
		want   string
		change func(*Edit) error
	}{
		{"of a table with 128", func(e *Edit) error { return e.Set(Numbered{129, p}) }},
		{"of a table with 128", func(e *Edit) error { return e.Set(Numbered{0, p}) }},
		{"at most 36", func(e *Edit) error {
			p := p
			p.Name = strings.Repeat("n", 37)
			_, err := e.Add(p)
			return err
		}},
		{"overlaps", func(e *Edit) error {
			p := p
			p.First = 2048
			_, err := e.Add(p)
			return err
		}},
		{"usable ones are", func(e *Edit) error {
			p := p
			p.Last = 1 << 20
			_, err := e.Add(p)
			return err
		}},
		{"in use", func(e *Edit) error {
			for range 125 {
				if _, err := e.Add(p); err != nil {
					t.Fatal(err)
				}
			}
			_, err := e.Add(p)
			return err
		}},
		{"want a multiple", func(e *Edit) error { return e.Write(make(memory, testSize), testSize+1) }},
		{"usable ones are", func(e *Edit) error { return e.Write(make(memory, testSize), 15<<20) }},
	} {
		e := open()
		err := c.change(e)
		if err == nil {
			err = e.Write(make(memory, testSize), testSize)
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want an error with %q", err, c.want)
		}
	}
}
