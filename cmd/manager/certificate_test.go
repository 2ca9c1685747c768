package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/rest"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
)

// serviceName is the name by which a scraper verifies the certificate.
const serviceName = "metrics.operators.svc"

// authority signs certificates.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	pool        *x509.CertPool
	issued      int64
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{key: key, pool: x509.NewCertPool(), issued: 1}
	if a.certificate, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.pool.AddCert(a.certificate)
	return a
}

// issue writes a certificate and its key below a directory in the way that a kubelet writes a Secret: as links to a
// directory that is replaced as a whole. It returns the certificate's serial number.
func (a *authority) issue(t *testing.T, dir string) int64 {
	t.Helper()
	a.issued++
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(a.issued), DNSNames: []string{serviceName}, NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, a.certificate, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.MkdirTemp(dir, "..data-")
	if err != nil {
		t.Fatal(err)
	}
	current := filepath.Join(dir, "..data")
	before, _ := os.Readlink(current) // there is none at first
	for name, block := range map[string]*pem.Block{
		"tls.crt": {Type: "CERTIFICATE", Bytes: der}, "tls.key": {Type: "PRIVATE KEY", Bytes: secret},
	} {
		if err := os.WriteFile(filepath.Join(data, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
		link := filepath.Join(dir, name)
		if err := os.Symlink(filepath.Join("..data", name), link); err != nil && !errors.Is(err, os.ErrExist) {
			t.Fatal(err)
		}
	}
	next := current + "_tmp"
	if err := errors.Join(os.Symlink(filepath.Base(data), next), os.Rename(next, current)); err != nil {
		t.Fatal(err)
	}
	if before != "" {
		if err := os.RemoveAll(filepath.Join(dir, before)); err != nil {
			t.Fatal(err)
		}
	}
	return a.issued
}

// serveMetrics runs the metrics endpoint of a manager with these settings until the test ends, and returns its address.
func serveMetrics(t *testing.T, s *settings) string {
	t.Helper()
	s.metricsAddress, s.metricsSecure = "127.0.0.1:0", true
	options, err := s.metricsOptions()
	if err != nil {
		t.Fatal(err)
	}
	endpoint, err := metricsserver.NewServer(options, &rest.Config{}, http.DefaultClient)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- endpoint.Start(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	address := endpoint.(interface{ GetBindAddr() string })
	eventually(t, 30*time.Second, "the metrics endpoint listens", func() error {
		if address.GetBindAddr() == "" {
			return errors.New("it has no address")
		}
		return nil
	})
	return address.GetBindAddr()
}

// handshake connects to an address as a scraper does, and returns the serial number of the certificate.
func handshake(t *testing.T, address string, verify *tls.Config) (serial int64, err error) {
	t.Helper()
	dialer := tls.Dialer{Config: verify}
	conn, err := dialer.DialContext(t.Context(), "tcp", address)
	if err != nil {
		return 0, err
	}
	defer func() { _ = conn.Close() }()
	return conn.(*tls.Conn).ConnectionState().PeerCertificates[0].SerialNumber.Int64(), nil
}

func TestScrapersVerifyTheManagersCertificateAndARenewedOne(t *testing.T) {
	ours, theirs, dir := newAuthority(t), newAuthority(t), t.TempDir()
	first := ours.issue(t, dir)
	address := serveMetrics(t, &settings{certificate: certificate{dir, "tls.crt", "tls.key"}})
	right := &tls.Config{RootCAs: ours.pool, ServerName: serviceName}
	if got, err := handshake(t, address, right); err != nil || got != first {
		t.Errorf("with the right authority: certificate %d, %v; want %d", got, err, first)
	}
	var unknown x509.UnknownAuthorityError
	if _, err := handshake(t, address, &tls.Config{RootCAs: theirs.pool, ServerName: serviceName}); !errors.As(err,
		&unknown) {
		t.Errorf("with another authority: %v", err)
	}
	var name x509.HostnameError
	if _, err := handshake(t, address, &tls.Config{RootCAs: ours.pool, ServerName: "localhost"}); !errors.As(err, &name) {
		t.Errorf("under another name: %v", err)
	}

	renewed := ours.issue(t, dir)
	took := eventually(t, 45*time.Second, "the renewed certificate is served", func() error {
		got, err := handshake(t, address, right)
		if err == nil && got != renewed {
			err = errors.New("the old one is served still")
		}
		return err
	})
	t.Logf("the renewed certificate was served after %s", took)
}

func TestWithoutACertificateTheManagerSignsItsOwn(t *testing.T) {
	address := serveMetrics(t, &settings{})
	if _, err := handshake(t, address, &tls.Config{InsecureSkipVerify: true}); err != nil {
		t.Errorf("not verified: %v", err)
	}
	authority := newAuthority(t)
	if _, err := handshake(t, address, &tls.Config{RootCAs: authority.pool, ServerName: serviceName}); err == nil {
		t.Error("an authority that did not sign it verifies it")
	}
}

// A certificate that was asked for is never replaced by one that no scraper can verify.
func TestACertificateThatCannotBeReadIsAnError(t *testing.T) {
	for name, damage := range map[string]func(dir string) error{
		"no directory": func(dir string) error { return os.RemoveAll(dir) },
		"no key":       func(dir string) error { return os.Remove(filepath.Join(dir, "tls.key")) },
		"another's key": func(dir string) error {
			other := t.TempDir()
			newAuthority(t).issue(t, other)
			return errors.Join(os.Remove(filepath.Join(dir, "tls.key")),
				os.Symlink(filepath.Join(other, "tls.key"), filepath.Join(dir, "tls.key")))
		},
		"no certificate": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "tls.crt"), []byte("text"), 0o600)
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "certificate")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			newAuthority(t).issue(t, dir)
			if err := damage(dir); err != nil {
				t.Fatal(err)
			}
			s := settings{metricsAddress: ":0", metricsSecure: true, certificate: certificate{dir, "tls.crt", "tls.key"}}
			if _, err := s.metricsOptions(); err == nil || !strings.Contains(err.Error(), "--metrics-cert-path") {
				t.Errorf("got %v, want an error that names the flag", err)
			}
		})
	}
}
