package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// emptyRoot makes a command run in an environment like the image's: an empty root directory, without the machine's
// certificate authorities.
func emptyRoot(t *testing.T, cmd *exec.Cmd, root string) {
	t.Helper()
	asRoot(t)
	cmd.Dir, cmd.Env = "/", append(cmd.Env, "SSL_CERT_FILE=", "SSL_CERT_DIR=")
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root}
}

// readChain returns the certificates of a file, the server's first.
func readChain(t *testing.T, path string) []*x509.Certificate {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var out []*x509.Certificate
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, cert)
	}
	return out
}

// TestAPublicChainVerifies is run by TestPublicAuthoritiesAreKnownInTheImage in an empty root. Elsewhere the system's
// authorities apply.
func TestAPublicChainVerifies(t *testing.T) {
	file := os.Getenv("HLPARSER_TEST_CHAIN")
	if file == "" {
		file = "testdata/public-chain.pem"
	}
	chain := readChain(t, file)
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{
		DNSName: "www.google.com", Intermediates: between, CurrentTime: time.Date(2023, 3, 1, 0, 0, 0, 0, time.UTC),
	})
	if err != nil {
		t.Error(err)
	}
}

func TestPublicAuthoritiesAreKnownInTheImage(t *testing.T) {
	root := t.TempDir()
	// The test binary has the imports of hlparser. It is static, as hlparser is in the image.
	build := exec.CommandContext(t.Context(), "go", "test", "-c", "-o", filepath.Join(root, "hlparser.test"), ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the test: %v\n%s", err, out)
	}
	copyFile(t, "testdata/public-chain.pem", filepath.Join(root, "chain.pem"))
	if err := os.Mkdir(filepath.Join(root, "tmp"), 0o777); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "/hlparser.test", "-test.run", "^TestAPublicChainVerifies$")
	cmd.Env = []string{"HLPARSER_TEST_CHAIN=/chain.pem"}
	emptyRoot(t, cmd, root)
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "PASS") {
		t.Errorf("%v\n%s", err, out)
	}
}

// The real program delivers to a server with a private authority that the configuration names, and to no other.
func TestAPrivateAuthorityCountsInTheImage(t *testing.T) {
	asRoot(t)
	root := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(root, "hlparser"), ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building hlparser: %v\n%s", err, out)
	}
	pair, ca := privateAuthority(t)
	if err := os.WriteFile(filepath.Join(root, "ca.crt"), ca, 0o600); err != nil {
		t.Fatal(err)
	}
	hour := filepath.Join(root, "data/node_fills/hourly/20260430/20")
	if err := os.MkdirAll(filepath.Dir(hour), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(hour, []byte(`["0xabc",{"coin":"BTC","px":"1","sz":"1","side":"A","time":1}]`+"\n"),
		0o600); err != nil {
		t.Fatal(err)
	}
	address := startNATS(t, server.Options{
		TLS: true, TLSTimeout: 5,
		TLSConfig: &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}},
	})
	run := func(name, secure string) (output string, ended bool) {
		config := fmt.Sprintf(`
dataDir: /data
stateDir: /state-%s
streams: [{name: Fills, mode: Line}]
format: Raw
engine: {startAt: Beginning}
sink: {nats: {url: "tls://%s", stream: HL, create: {}, tls: %s}}
`, name, address, secure)
		if err := os.WriteFile(filepath.Join(root, name+".yaml"), []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), "/hlparser", "run", "--once", "--config", "/"+name+".yaml")
		emptyRoot(t, cmd, root)
		log := &lockedBuffer{}
		cmd.Stdout, cmd.Stderr = log, log
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- cmd.Wait() }()
		deadline := time.After(30 * time.Second)
		for {
			select {
			case err := <-done:
				if err != nil {
					t.Errorf("%s: %v\n%s", name, err, log.String())
				}
				return log.String(), true
			case <-time.After(50 * time.Millisecond):
				if !strings.Contains(log.String(), "unknown authority") {
					continue
				}
			case <-deadline:
			}
			if err := cmd.Process.Kill(); err != nil {
				t.Error(err)
			}
			if err := <-done; err == nil {
				t.Error("the parser ended without an error although it was killed")
			}
			return log.String(), false
		}
	}
	if output, ended := run("private", "{caFile: /ca.crt}"); !ended {
		t.Errorf("with the authority: the parser did not end; its log:\n%s", output)
	}
	output, ended := run("public", "{}")
	if ended || !strings.Contains(output, "certificate signed by unknown authority") {
		t.Errorf("with the public authorities: ended %v; its log:\n%s", ended, output)
	}
}

// privateAuthority returns a server certificate for 127.0.0.1, and the certificate of its authority.
func privateAuthority(t *testing.T) (tls.Certificate, []byte) {
	t.Helper()
	key := func() *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	caKey, serverKey := key(), key()
	authority := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "private"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	ca, err := x509.CreateCertificate(rand.Reader, authority, authority, &caKey.PublicKey, caKey)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(2), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, authority, &serverKey.PublicKey, caKey)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{leaf}, PrivateKey: serverKey},
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca})
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, data, 0o600); err != nil {
		t.Fatal(err)
	}
}
