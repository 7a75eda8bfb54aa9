package main

import (
	"fmt"
	"strings"

	"caisson/build/image/gpt"
	"caisson/lock"
	"caisson/verify"
)

// showDisk prints the sizes of an image's disk and of its partitions.
func showDisk(ui *ui, name string) error {
	d, err := verify.OpenDisk(name)
	if err != nil {
		return err
	}
	defer d.Close()
	table, err := gpt.Read(d, d.Size)
	if err != nil {
		return fmt.Errorf("reading the partition table of %s: %w", name, err)
	}
	var parts []string
	free := d.Size
	for _, p := range table.Partitions {
		parts = append(parts, p.Name+" "+size(p.Size()))
		free -= p.Size()
	}
	ui.print("  disk      %s: %s, %s free", size(d.Size), strings.Join(parts, ", "), size(free))
	return nil
}

// showSizes prints what sizes an image of the lock is given, and what scratch
// space.
func showSizes(ui *ui, variant string, im *lock.Image) {
	of := ""
	if variant != "" {
		of = ", of variant " + variant
	}
	if d := im.Disk; d != nil {
		var given []string
		for _, f := range []struct {
			name string
			n    int64
		}{{"disk", d.Size}, {"esp", d.ESP}, {"root", d.Root}} {
			if f.n != 0 {
				given = append(given, f.name+" "+lock.FormatSize(f.n))
			}
		}
		ui.print("  sizes     %s%s", strings.Join(given, ", "), of)
	}
	if s := im.Scratch; s != nil {
		how := "encrypted by a random key"
		if s.Encrypt == lock.EncryptNo {
			how = "NOT ENCRYPTED"
		}
		ui.print("  scratch   %s, %s or more at %s, %s%s", s.Format, lock.FormatSize(s.Size), s.Mount, how, of)
	}
}
