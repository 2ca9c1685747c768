// Package secret reads what opens a connection, passwords, certificates and keys, from files, each time it is needed, so that a
// rotated Kubernetes Secret counts at the next connect.
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

// Error says that a secret's file is missing, unreadable or not what it should be. It is an outage: the file may still come, as
// that of a Secret that is made after its pod.
type Error struct {
	Path string
	Err  error // names what is wrong, never what the file holds
}

func (e *Error) Error() string { return fmt.Sprintf("secret file %s: %v", e.Path, e.Err) }

func (e *Error) Unwrap() error { return e.Err }

// Read returns the content of a file without the newlines at its end. Its error is an *Error; an empty file is one, too.
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

// TLS returns the settings of one connection, or nil for nil. host is the name that the server's certificate must have, unless
// the configuration names another. Its errors are *Error.
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
			return nil, &Error{c.CertFile, fmt.Errorf("together with %s: %w", c.KeyFile, err)}
		}
		out.Certificates = []tls.Certificate{pair}
	}
	return out, nil
}
