package archive

import (
	"bytes"
	"encoding/pem"

	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// RootsPath is where Go programs, and most others on Linux, find the CA certificates that they trust.
const RootsPath = "/etc/ssl/certs/ca-certificates.crt"

// Roots returns the CA certificates of Mozilla's program in PEM form. Those with constraints are left out: a file of
// certificates cannot express them.
func Roots() []byte {
	var out bytes.Buffer
	for root := range bundle.Roots() {
		if root.Constraint != nil {
			continue
		}
		_ = pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate}) // a buffer takes all
	}
	return out.Bytes()
}
