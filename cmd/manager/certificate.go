package main

import (
	"crypto/tls"
	"fmt"
	"path/filepath"
)

// certificate locates the certificate that the manager serves metrics with. The metrics server reads it again when its
// files change, at the latest after ten seconds.
type certificate struct {
	dir       string // "": none
	cert, key string // files in dir
}

// check returns an error unless the files hold a certificate and its key.
func (c *certificate) check() error {
	_, err := tls.LoadX509KeyPair(filepath.Join(c.dir, c.cert), filepath.Join(c.dir, c.key))
	if err != nil {
		return fmt.Errorf("reading the certificate of the metrics endpoint (--metrics-cert-path): %w", err)
	}
	return nil
}
