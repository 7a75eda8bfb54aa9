package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"caisson/attest/sign"
)

func newKeygenCommand(ui *ui) *cobra.Command {
	var prefix, service string
	c := &cobra.Command{
		Use:   "keygen",
		Short: "Make a key pair to sign statements with, as cosign's",
		Long: `Keygen writes PREFIX.key, encrypted with the password in COSIGN_PASSWORD, and
PREFIX.pub. Files that are there are never overwritten. With --kms the key is
made by a key management service, where it stays, or is the one that is there, and
PREFIX.pub alone is written; NAME://KEY is then what --key is given.`,
		Example: "  caisson keygen --kms hashivault://podvm",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if service != "" {
				return runKeygenService(cmd.Context(), ui, prefix, service)
			}
			return runKeygen(ui, prefix)
		},
	}
	c.Flags().StringVar(&service, "kms", "", "make the key at a service: hashivault://, awskms://, azurekms://, gcpkms://, or a sigstore plugin's")
	c.Flags().StringVar(&prefix, "prefix", "cosign", "what the files are called")
	return c
}

func runKeygen(ui *ui, prefix string) error {
	for _, name := range []string{prefix + ".key", prefix + ".pub"} {
		if _, err := os.Lstat(name); err == nil {
			return &codeError{fmt.Errorf("%s is there already", name), exitError, "a key is never overwritten: choose another --prefix"}
		}
	}
	private, public, err := generateKey()
	if err != nil {
		return err
	}
	if err := create(prefix+".key", private, 0o600); err != nil {
		return err
	}
	if err := create(prefix+".pub", public, 0o644); err != nil {
		return errors.Join(err, os.Remove(prefix+".key"))
	}
	ui.stage("%s.key and %s.pub written", prefix, prefix)
	return nil
}

func runKeygenService(ctx context.Context, ui *ui, prefix, service string) error {
	if _, err := os.Lstat(prefix + ".pub"); err == nil {
		return &codeError{fmt.Errorf("%s.pub is there already", prefix), exitError, "a key is never overwritten: choose another --prefix"}
	}
	public, err := sign.CreateKey(ctx, service)
	if err != nil {
		return err
	}
	if err := create(prefix+".pub", public, 0o644); err != nil {
		return err
	}
	ui.stage("%s.pub written, of the key at %s", prefix, service)
	return nil
}

func generateKey() (private, public []byte, err error) {
	return sign.GenerateKey(func() ([]byte, error) {
		pass, ok := os.LookupEnv(sign.PasswordVariable)
		if !ok {
			return nil, &codeError{errors.New("no password for the new key"), exitError, "set " + sign.PasswordVariable + "; an empty one is allowed"}
		}
		return []byte(pass), nil
	})
}

// create writes a file that is not there yet.
func create(name string, b []byte, mode os.FileMode) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Close())
}
