package prefetch

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"caisson/lock"
)

// maxPEM is the size in bytes above which a file of certificates is refused.
const maxPEM = 16 << 20

// tlsPaths finds the files of an Auth. A key that is not given is in the
// certificate's file, as curl has it.
func (c Config) tlsPaths(a *lock.AuthTLS, key *transportKey) error {
	for _, p := range []struct {
		what, path string
		to         *string
	}{{"client certificate", a.Cert, &key.cert}, {"client certificate's key", a.Key, &key.key}, {"CA certificate", a.CA, &key.ca}} {
		var err error
		if *p.to, err = c.path(p.what, p.path); err != nil {
			return err
		}
	}
	switch {
	case key.cert == "" && key.key != "":
		return fmt.Errorf("there is a client certificate's key, %s, and no certificate", key.key)
	case key.key == "":
		key.key = key.cert
	}
	return nil
}

// tlsConfig adds to a configuration what a transport is to have besides.
func tlsConfig(base *tls.Config, key transportKey) (*tls.Config, error) {
	c := base.Clone()
	if key.ca != "" {
		pool, err := withCA(c.RootCAs, key.ca)
		if err != nil {
			return nil, err
		}
		c.RootCAs = pool
	}
	if key.cert != "" {
		cert, err := readCertificate(key.cert, key.key, time.Now())
		if err != nil {
			return nil, err
		}
		c.Certificates = []tls.Certificate{cert}
	}
	return c, nil
}

// withCA is the certificates that are trusted, nil for the system's, and
// those of a file.
func withCA(pool *x509.CertPool, path string) (*x509.CertPool, error) {
	b, err := readPEM("CA certificate", path)
	if err != nil {
		return nil, err
	}
	if pool == nil {
		if pool, err = x509.SystemCertPool(); err != nil {
			return nil, fmt.Errorf("reading the system's certificates: %w", err)
		}
	} else {
		pool = pool.Clone()
	}
	if !pool.AppendCertsFromPEM(b) {
		return nil, fmt.Errorf("the CA certificate %s: it has no certificate in PEM form", path)
	}
	return pool, nil
}

// readPEM reads a file; what it is belongs into the error.
func readPEM(what, path string) ([]byte, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("reading the %s: %w", what, err)
	}
	if !fi.Mode().IsRegular() || fi.Size() > maxPEM {
		return nil, fmt.Errorf("reading the %s: %s: want a regular file of at most %s", what, path, inWords(maxPEM))
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the %s: %w", what, err)
	}
	return b, nil
}

// readCertificate reads a client certificate that is valid now.
func readCertificate(certPath, keyPath string, now time.Time) (tls.Certificate, error) {
	var none tls.Certificate
	cert, err := readPEM("client certificate", certPath)
	if err != nil {
		return none, err
	}
	key, err := readPEM("client certificate's key", keyPath)
	if err != nil {
		return none, err
	}
	leaf, err := firstCertificate(cert)
	if err != nil {
		return none, fmt.Errorf("the client certificate %s: %w", certPath, err)
	}
	switch {
	case now.After(leaf.NotAfter):
		return none, fmt.Errorf("the client certificate %s expired on %s", certPath, leaf.NotAfter.UTC().Format(time.DateOnly))
	case now.Before(leaf.NotBefore):
		return none, fmt.Errorf("the client certificate %s is not valid before %s", certPath, leaf.NotBefore.UTC().Format(time.DateOnly))
	}
	if err := checkKey(key); err != nil {
		return none, fmt.Errorf("the client certificate's key %s: %w", keyPath, err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return none, fmt.Errorf("the client certificate %s and the key %s: %w", certPath, keyPath, err)
	}
	return pair, nil
}

// firstCertificate is the certificate that a file begins with.
func firstCertificate(b []byte) (*x509.Certificate, error) {
	for p, rest := pem.Decode(b); p != nil; p, rest = pem.Decode(rest) {
		if p.Type == "CERTIFICATE" {
			return x509.ParseCertificate(p.Bytes)
		}
	}
	return nil, errors.New("it has no certificate in PEM form")
}

// checkKey says what is wrong with a private key before its certificate is
// looked at.
func checkKey(b []byte) error {
	for p, rest := pem.Decode(b); p != nil; p, rest = pem.Decode(rest) {
		if !strings.HasSuffix(p.Type, "PRIVATE KEY") {
			continue
		}
		if p.Type == "ENCRYPTED PRIVATE KEY" || bytes.Contains([]byte(p.Headers["Proc-Type"]), []byte("ENCRYPTED")) {
			return errors.New("it is encrypted by a passphrase, which is not supported")
		}
		return nil
	}
	return errors.New("it has no private key in PEM form")
}

// explain says of a failed request what the login has to do with it.
func (l *login) explain(err error) error {
	var op *net.OpError
	var unknown *tls.CertificateVerificationError
	switch {
	case errors.As(err, &unknown) && l.ca != "":
		return fmt.Errorf("%w (trusted are the system's certificates and those of %s)", err, l.ca)
	case !errors.As(err, &op) || op.Op != "remote error": // a TLS alert (RFC 8446, section 6)
		return err
	case l.cert != "":
		return permanent{fmt.Errorf("the server does not accept the client certificate %s: %w", l.cert, op.Err)}
	case strings.Contains(op.Err.Error(), "certificate"):
		return permanent{fmt.Errorf("the server wants a client certificate: %w", op.Err)}
	}
	return err
}
