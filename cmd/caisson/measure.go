package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"caisson/attest/slsa"
	"caisson/verify"
	"caisson/verify/measure"
)

type measureOptions struct {
	tee          teeOptions
	vars         string
	eventLog     string
	measurements string
	rvps         string
	asJSON       bool
}

func newMeasureCommand(ui *ui) *cobra.Command {
	o := &measureOptions{}
	c := &cobra.Command{
		Use:   "measure IMAGE",
		Short: "Predict from an image's bytes what a machine that boots it will measure",
		Long: `Measure reads the image, a qcow2, a VHD or the disk itself, and prints the dm-verity
root hash and the values that PCRs have when the kernel takes over. It believes
nothing but the bytes.

The PCRs depend on the image, and PCR 7 on the firmware's Secure Boot variables:
none, or those of --vars. PCR 0, 1, 2, 6 and 10 are the machine's own.

--tee snp adds the launch digest of an AMD SEV-SNP machine. It depends on the
firmware and on the machine's shape: CPUs, their type, monitor, features; and on
the image with --direct-boot alone, where the machine starts its kernel itself
and the firmware checks that.

--tee tdx adds MRTD of an Intel TDX machine of QEMU, which depends on the
firmware file alone, and RTMR 1 and 2, which depend on the image and on the
Secure Boot variables in the firmware file. RTMR 3 is zero. Of RTMR 0 the events
are listed (--json), but not all of their values: QEMU's ACPI tables and the boot
options are the machine's own.

--event-log compares with what a machine has measured, event by event; where it
departs from the prediction the exit code is 3.`,
		Example: `  caisson measure podvm.qcow2 --event-log binary_bios_measurements
  caisson measure podvm.qcow2 --tee snp --firmware OVMF.amdsev.fd --vcpus 4 --vcpu-type EPYC-v4 --rvps rvps.json
  caisson measure podvm.qcow2 --tee tdx --firmware OVMF.fd --memory 8192 --event-log /sys/firmware/acpi/tables/data/CCEL`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := o.tee.check(c.Flags()); err != nil {
				return usageError{err}
			}
			return runMeasure(ui, o, args[0])
		},
	}
	f := c.Flags()
	o.tee.flags(f)
	f.StringVar(&o.vars, "vars", "", "the firmware's variables (OVMF_VARS.fd), for PCR 7; with --tee tdx those in --firmware count")
	f.StringVar(&o.eventLog, "event-log", "", "compare with a machine's log: binary_bios_measurements of a TPM; with --tee tdx, the table CCEL's data")
	f.StringVar(&o.measurements, "measurements", "", "write the PCRs at login to this file, as podvm-measure.sh does")
	f.StringVar(&o.rvps, "rvps", "", "write what Trustee's reference value provider service registers to this file")
	f.BoolVar(&o.asJSON, "json", false, "print JSON, with the events behind each value")
	return c
}

// measured is the result, as JSON.
type measured struct {
	*measure.Result
	Login      []string   `json:"loginPhases,omitempty"`
	SNP        *snpValues `json:"snp,omitempty"`
	TDX        *tdxValues `json:"tdx,omitempty"`
	Departures []string   `json:"departures,omitempty"`
}

func runMeasure(ui *ui, o *measureOptions, image string) error {
	if err := wantFile(image); err != nil {
		return err
	}
	m, err := o.predict(image)
	if err != nil {
		return err
	}
	if err := o.tee.measure(m, image); err != nil {
		return err
	}
	if o.eventLog != "" {
		if m.Departures, err = o.compare(m); err != nil {
			return err
		}
	}
	if err := o.write(m); err != nil {
		return err
	}
	if o.asJSON {
		if err := ui.json(m); err != nil {
			return err
		}
	} else {
		m.print(ui)
	}
	for _, n := range m.notes() {
		ui.line("note: " + n)
	}
	if len(m.Departures) > 0 {
		return &codeError{fmt.Errorf("%s departs from the prediction:\n  %s", o.eventLog, strings.Join(m.Departures, "\n  ")), exitDifferent,
			"the first of these is where the machine first did something else; what a prediction takes for granted is in --json"}
	}
	return nil
}

// predict predicts the PCRs, and where they are written also at login.
func (o *measureOptions) predict(image string) (*measured, error) {
	var platform measure.Platform
	if o.vars != "" {
		f, err := os.Open(o.vars)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		if platform, err = measure.ReadVariables(f); err != nil {
			return nil, fmt.Errorf("%s: %w", o.vars, err)
		}
	}
	var err error
	m := &measured{}
	if o.measurements != "" || o.rvps != "" {
		m.Result, m.Login, err = verify.MeasureOn(platform, image)
	} else {
		m.Result, err = verify.PredictOn(platform, image)
	}
	return m, err
}

// print prints the values for people and scripts, a line each.
func (m *measured) print(ui *ui) {
	ui.print("root hash %s", m.RootHash)
	for _, bank := range sortedKeys(m.PCRs) {
		for _, pcr := range pcrs {
			ui.print("pcr %-2s %s %s", pcr, bank, m.PCRs[bank][pcr])
		}
	}
	if m.SNP != nil {
		ui.print("snp launch digest %s", m.SNP.LaunchDigest)
	}
	if m.TDX != nil {
		ui.print("tdx mrtd %s", m.TDX.MRTD)
		for _, n := range sortedKeys(m.TDX.RTMRs) {
			ui.print("tdx rtmr %s %s", n, m.TDX.RTMRs[n])
		}
	}
}

// notes are what a person has to know of the values of a confidential machine.
func (m *measured) notes() []string {
	var all []string
	if m.SNP != nil && m.SNP.DirectCmdline == nil {
		all = append(all, "the launch digest is that of the firmware and the machine, not of the image; what the image boots is in PCRs")
	}
	if m.TDX != nil {
		for _, a := range m.TDX.Assumptions {
			if strings.HasPrefix(a, "MRTD") || strings.HasPrefix(a, "RTMR") {
				all = append(all, a)
			}
		}
	}
	return all
}

// write writes the files that were asked for.
func (o *measureOptions) write(m *measured) error {
	if o.measurements == "" && o.rvps == "" {
		return nil
	}
	b, err := m.MeasurementsJSON(m.Login)
	if err != nil {
		return err
	}
	if o.measurements != "" {
		if err := os.WriteFile(o.measurements, b, 0o644); err != nil {
			return err
		}
	}
	if o.rvps == "" {
		return nil
	}
	var at struct {
		Measurements map[string]map[string]string `json:"measurements"`
	}
	if err := json.Unmarshal(b, &at); err != nil {
		return err
	}
	var launch slsa.Launch
	if m.SNP != nil {
		launch.SNP = m.SNP.LaunchDigest
	}
	if m.TDX != nil {
		launch.MRTD, launch.RTMR1, launch.RTMR2 = m.TDX.MRTD, m.TDX.RTMRs["1"], m.TDX.RTMRs["2"]
	}
	if b, err = slsa.RVPS(at.Measurements, launch); err != nil {
		return err
	}
	return os.WriteFile(o.rvps, b, 0o644)
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

// compare says where the machine's log departs from the prediction.
func (o *measureOptions) compare(m *measured) ([]string, error) {
	f, err := os.Open(o.eventLog)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var all []string
	if m.TDX != nil {
		all, err = m.TDX.departures(f)
	} else {
		all, err = m.departures(f)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", o.eventLog, err)
	}
	return all, nil
}

// departures says where the log of a TPM departs from the prediction, in the
// first bank in which it does.
func (m *measured) departures(r io.Reader) ([]string, error) {
	log, err := measure.ReadLog(r)
	if err != nil {
		return nil, err
	}
	compared := false
	for _, bank := range measure.Banks() {
		if len(log) == 0 || log[0].Digests[bank] == "" {
			continue
		}
		compared = true
		var all []string
		for _, d := range measure.Departures(m.Result, bank, log) {
			all = append(all, bank+": "+d.String())
		}
		if len(all) > 0 {
			return all, nil
		}
	}
	if !compared {
		return nil, fmt.Errorf("it has no event in a bank that is predicted: %s", strings.Join(measure.Banks(), ", "))
	}
	return nil, nil
}
