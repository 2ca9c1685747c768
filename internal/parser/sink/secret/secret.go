// Package secret reads credentials from files: passwords, certificates and keys. It reads them for each connection, so
// a rotated Kubernetes Secret takes effect at the next connect.
//
// It must never log what it reads, put it into an error, or keep it.
package secret

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
)

// Error reports that a secret's file is missing, unreadable or malformed. It is an outage: the file may still appear,
// for example if the Secret is created after its pod.
type Error struct {
	Path string
	Err  error // says what is wrong, never what the file holds
}

func (e *Error) Error() string { return fmt.Sprintf("secret file %s: %v", e.Path, e.Err) }

func (e *Error) Unwrap() error { return e.Err }

// Read returns the content of a file without trailing newlines. Its error is an *Error. An empty file is an error.
func Read(path string) ([]byte, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, &Error{path, err}
	}
	if data = bytes.TrimRight(data, "\r\n"); len(data) == 0 {
		return nil, &Error{path, fmt.Errorf("is empty")}
	}
	return data, nil
}

// TLS returns the TLS settings of one connection. It returns nil for a nil configuration. host is the name that the
// server's certificate must have, unless the configuration names another. Its errors are *Error.
func TLS(c *config.TLS, host string) (*tls.Config, error) {
	if c == nil {
		return nil, nil
	}
	out := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: host}
	if c.ServerName != "" {
		out.ServerName = c.ServerName
	}
	if c.CAFile != "" {
		pem, err := Read(c.CAFile)
		if err != nil {
			return nil, err
		}
		out.RootCAs = x509.NewCertPool()
		if !out.RootCAs.AppendCertsFromPEM(pem) {
			return nil, &Error{c.CAFile, fmt.Errorf("holds no PEM certificate")}
		}
	}
	if c.CertFile != "" {
		cert, err := Read(c.CertFile)
		if err != nil {
			return nil, err
		}
		key, err := Read(c.KeyFile)
		if err != nil {
			return nil, err
		}
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			return nil, &Error{c.CertFile, fmt.Errorf("as a pair with %s: %w", c.KeyFile, err)}
		}
		out.Certificates = []tls.Certificate{pair}
	}
	return out, nil
}
