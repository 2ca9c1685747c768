package broker

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"time"
)

const certificateValidity = 30 * 24 * time.Hour

// writeCertificates writes an authority's certificate, and below it a certificate with its key for the brokers and one
// for clients.
func (c *Cluster) writeCertificates() error {
	authority, key, err := newCertificate(&x509.Certificate{
		Subject: pkix.Name{CommonName: "hack/kafka"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign,
	}, nil, nil)
	if err != nil {
		return fmt.Errorf("making the authority's certificate: %w", err)
	}
	if err := os.WriteFile(c.CAFile(), encode("CERTIFICATE", authority.Raw), 0o644); err != nil {
		return fmt.Errorf("writing the authority's certificate: %w", err)
	}
	server := &x509.Certificate{
		Subject: pkix.Name{CommonName: "broker"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	if ip := net.ParseIP(c.opts.Host); ip != nil {
		server.IPAddresses = append(server.IPAddresses, ip)
	} else {
		server.DNSNames = append(server.DNSNames, c.opts.Host)
	}
	client := &x509.Certificate{
		Subject: pkix.Name{CommonName: "client"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	cert, secret := c.ClientCertificate()
	for _, issue := range []struct {
		template     *x509.Certificate
		cert, secret string
	}{{server, c.path(serverPEM), c.path(serverPEM)}, {client, cert, secret}} {
		signed, own, err := newCertificate(issue.template, authority, key)
		if err != nil {
			return fmt.Errorf("making the certificate of the %s: %w", issue.template.Subject.CommonName, err)
		}
		der, err := x509.MarshalPKCS8PrivateKey(own) // the only form of a key that Kafka reads
		if err != nil {
			return fmt.Errorf("encoding the key of the %s: %w", issue.template.Subject.CommonName, err)
		}
		keyText, certText := encode("PRIVATE KEY", der), encode("CERTIFICATE", signed.Raw)
		if issue.cert == issue.secret { // Kafka wants the chain behind its key
			keyText, certText = append(append(keyText, certText...), encode("CERTIFICATE", authority.Raw)...), nil
		}
		if err := os.WriteFile(issue.secret, keyText, 0o600); err != nil {
			return fmt.Errorf("writing the key of the %s: %w", issue.template.Subject.CommonName, err)
		}
		if certText == nil {
			continue
		}
		if err := os.WriteFile(issue.cert, certText, 0o644); err != nil {
			return fmt.Errorf("writing the certificate of the %s: %w", issue.template.Subject.CommonName, err)
		}
	}
	return nil
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// newCertificate completes and signs a certificate. Without an authority it signs itself.
func newCertificate(template, by *x509.Certificate, byKey *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey,
	error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	now := time.Now()
	template.SerialNumber = big.NewInt(now.UnixNano())
	template.NotBefore, template.NotAfter = now.Add(-time.Hour), now.Add(certificateValidity)
	template.KeyUsage |= x509.KeyUsageDigitalSignature
	if by == nil {
		by, byKey = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, by, key.Public(), byKey)
	if err != nil {
		return nil, nil, err
	}
	cert, err := x509.ParseCertificate(der)
	return cert, key, err
}
