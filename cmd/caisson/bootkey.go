package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"caisson/build/esp"
	"caisson/build/image/authenticode"
)

// maxSecret bounds what is read as a key, a certificate or a signature.
const maxSecret = 1 << 20

// bootKey names a key for Secure Boot, and its certificate: files, or variables
// of the environment (env://NAME).
type bootKey struct{ key, cert string }

// load reads the key; nil where none is asked for.
func (k *bootKey) load() (*authenticode.Key, error) {
	if k.key == "" && k.cert == "" {
		return nil, nil
	}
	if k.key == "" || k.cert == "" {
		return nil, usageError{errors.New("a Secure Boot key wants its certificate, and the other way round")}
	}
	certs, err := k.certificates()
	if err != nil {
		return nil, err
	}
	b, err := readSecret(k.key)
	if err != nil {
		return nil, err
	}
	key, err := authenticode.ParseKey(b, certs)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", k.key, err)
	}
	return key, nil
}

// addonSigner signs an addon; nil where no key is asked for.
func (k *bootKey) addonSigner() (func(addon []byte) ([]byte, error), error) {
	key, err := k.load()
	if key == nil {
		return nil, err
	}
	return func(addon []byte) ([]byte, error) {
		return esp.SignBytes("the addon", addon, esp.ByKey(key, nil))
	}, nil
}

func (k *bootKey) certificates() (authenticode.Certificates, error) {
	b, err := readSecret(k.cert)
	if err != nil {
		return nil, err
	}
	certs, err := authenticode.ParseCertificates(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", k.cert, err)
	}
	return certs, nil
}

// readSecret reads a file, or a variable of the environment.
func readSecret(name string) ([]byte, error) {
	if v, ok := strings.CutPrefix(name, "env://"); ok {
		text, ok := os.LookupEnv(v)
		if !ok {
			return nil, fmt.Errorf("%s: the environment has no such variable", name)
		}
		return []byte(text), nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	if len(b) > maxSecret {
		return nil, fmt.Errorf("%s: more than %d bytes", name, maxSecret)
	}
	return b, nil
}
