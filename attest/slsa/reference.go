package slsa

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"

	"caisson/lock/digest"
)

// Values are what a machine measures that boots the image.
type Values struct {
	Lock    digest.Digest `json:"lock"`
	Name    string        `json:"name"`
	Variant string        `json:"variant,omitempty"`
	Arch    string        `json:"arch"`
	// RootHash is the dm-verity root hash, hex.
	RootHash string `json:"rootHash"`
	// PCRs are the registers as they stand when the kernel takes over: bank
	// ("sha256"), number ("4"), hex.
	PCRs map[string]map[string]string `json:"pcrs"`
	// Measurements are those at login, as measurements.json has them: bank,
	// register ("pcr04"), hex.
	Measurements map[string]map[string]string `json:"measurements"`
}

// ReferenceValues is the statement of the values to expect of the image. Its
// predicate is Values.
func ReferenceValues(image Image, v Values) ([]byte, error) {
	if v.RootHash == "" || len(v.PCRs) == 0 || len(v.Measurements) == 0 {
		return nil, fmt.Errorf("reference values: no root hash, no PCRs or no measurements given")
	}
	return marshal(image, TypeReferenceValues, v)
}

// trusteeTEEs are the prefixes under which the policy that Trustee comes with
// looks for PCRs: plain TPMs, and the vTPMs of SEV-SNP and TDX machines.
var trusteeTEEs = []string{"tpm", "snp", "tdx"}

// Launch are the measurements of a machine without a vTPM, hex; empty those
// that are not known. The policy that Trustee comes with has names for these.
type Launch struct {
	SNP          string // SEV-SNP's launch digest
	MRTD         string // of TDX, and two of its registers
	RTMR1, RTMR2 string
}

// RVPS writes the measurements of the SHA-256 bank, and those of the machine,
// as a message that Trustee's Reference Value Provider Service takes (rvps-tool
// register): of version 0.1.0 and type "sample", its payload the base64 of an
// object from names, such as "snp_pcr11", to lists of values. Such a message is
// not signed: check the statement first.
func RVPS(measurements map[string]map[string]string, launch Launch) ([]byte, error) {
	bank := measurements["sha256"]
	if len(bank) == 0 {
		return nil, fmt.Errorf("reference values for Trustee: no measurements of the sha256 bank")
	}
	values := map[string][]string{}
	for register, value := range bank {
		if !strings.HasPrefix(register, "pcr") {
			return nil, fmt.Errorf("reference values for Trustee: register %q, want pcr and two digits", register)
		}
		for _, tee := range trusteeTEEs {
			values[tee+"_"+register] = []string{value}
		}
	}
	for name, value := range map[string]string{
		"snp_launch_measurement": launch.SNP, "mr_td": launch.MRTD, "rtmr_1": launch.RTMR1, "rtmr_2": launch.RTMR2,
	} {
		if value != "" {
			values[name] = []string{value}
		}
	}
	payload, err := json.Marshal(values)
	if err != nil {
		return nil, fmt.Errorf("reference values for Trustee: %w", err)
	}
	message, err := json.MarshalIndent(struct {
		Version string `json:"version"`
		Type    string `json:"type"`
		Payload string `json:"payload"`
	}{"0.1.0", "sample", base64.StdEncoding.EncodeToString(payload)}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("reference values for Trustee: %w", err)
	}
	return append(bytes.Clone(message), '\n'), nil
}
