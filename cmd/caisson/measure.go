package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"caisson/verify"
)

func newMeasureCommand(ui *ui) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "measure IMAGE",
		Short: "Predict from an image's bytes what a machine that boots it will measure",
		Long: `Measure reads the image, a qcow2, a VHD or the disk itself, and prints the dm-verity
root hash and the values that PCRs have when the kernel takes over. It believes
nothing but the bytes.`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := wantFile(args[0]); err != nil {
				return err
			}
			m, err := verify.Predict(args[0])
			if err != nil {
				return err
			}
			if asJSON {
				return ui.json(m)
			}
			ui.print("root hash %s", m.RootHash)
			for _, bank := range sortedKeys(m.PCRs) {
				for _, pcr := range pcrs {
					ui.print("pcr %-2s %s %s", pcr, bank, m.PCRs[bank][pcr])
				}
			}
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// wantFile refuses what cannot be an image: nothing, a folder, an empty file.
func wantFile(name string) error {
	st, err := os.Stat(name)
	switch {
	case err != nil:
		return err
	case st.IsDir():
		return fmt.Errorf("%s is a folder: want the image in it", name)
	case st.Mode().IsRegular() && st.Size() == 0:
		return fmt.Errorf("%s is empty: want an image", name)
	}
	return nil
}
