package main

import (
	"crypto"
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

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// validity of the cluster's certificates.
const validity = 30 * 24 * time.Hour

// authority signs the cluster's certificates.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
	pem  []byte
}

// writeKeys makes the certificates, keys and kubeconfigs unless they are there.
func (c *cluster) writeKeys() error {
	if _, err := os.Stat(c.path("admin.conf")); err == nil {
		return nil
	}
	ca, err := newAuthority()
	if err != nil {
		return err
	}
	if err := writeFile(c.path("pki", "ca.crt"), ca.pem); err != nil {
		return err
	}
	serviceAccounts, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("making the service accounts' key: %w", err)
	}
	key, err := encodeKey(serviceAccounts)
	if err != nil {
		return err
	}
	if err := writeFile(c.path("pki", "sa.key"), key); err != nil {
		return err
	}
	server := []net.IP{net.ParseIP(serviceIP), net.IPv4(127, 0, 0, 1), net.ParseIP(bridgeIP(1))}
	if err := c.issue(ca, "apiserver", pkix.Name{CommonName: apiserver}, server,
		"kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"); err != nil {
		return err
	}
	for i := range c.Nodes {
		n := i + 1
		name := pkix.Name{Organization: []string{"system:nodes"}, CommonName: "system:node:" + nodeName(n)}
		addresses := []net.IP{net.IPv4(127, 0, 0, 1), net.ParseIP(bridgeIP(n))}
		if err := c.issue(ca, nodeName(n), name, addresses, nodeName(n)); err != nil {
			return err
		}
		if err := c.writeKubeconfig(nodeName(n)); err != nil {
			return err
		}
	}
	admin := pkix.Name{Organization: []string{"system:masters"}, CommonName: "admin"}
	if err := c.issue(ca, "admin", admin, nil); err != nil {
		return err
	}
	return c.writeKubeconfig("admin") // last: it says that all are there
}

func newAuthority() (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making the authority's key: %w", err)
	}
	template, err := template(pkix.Name{CommonName: "ca"})
	if err != nil {
		return nil, err
	}
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("making the authority's certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("making the authority's certificate: %w", err)
	}
	return &authority{cert, key, encodeCert(der)}, nil
}

func template(subject pkix.Name) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, fmt.Errorf("choosing a serial number: %w", err)
	}
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: serial, Subject: subject,
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(validity), // a clock may be behind
	}, nil
}

// issue writes pki/NAME.crt and pki/NAME.key, for a server and a client alike.
func (c *cluster) issue(ca *authority, name string, subject pkix.Name, addresses []net.IP, hosts ...string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("making the key of %s: %w", name, err)
	}
	template, err := template(subject)
	if err != nil {
		return err
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	template.IPAddresses, template.DNSNames = addresses, hosts
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, key.Public(), ca.key)
	if err != nil {
		return fmt.Errorf("making the certificate of %s: %w", name, err)
	}
	if err := writeFile(c.path("pki", name+".crt"), encodeCert(der)); err != nil {
		return err
	}
	encoded, err := encodeKey(key)
	if err != nil {
		return err
	}
	return writeFile(c.path("pki", name+".key"), encoded)
}

func encodeCert(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encoding a key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), nil
}

// writeKubeconfig writes NAME.conf, which holds all that it needs: it may be copied.
func (c *cluster) writeKubeconfig(name string) error {
	read := func(file string) []byte {
		data, err := os.ReadFile(c.path("pki", file))
		if err != nil {
			return nil // the client then says which one is missing
		}
		return data
	}
	config := clientcmdapi.NewConfig()
	config.Clusters["cluster"] = &clientcmdapi.Cluster{
		Server: "https://127.0.0.1:" + apiPort, CertificateAuthorityData: read("ca.crt"),
	}
	config.AuthInfos[name] = &clientcmdapi.AuthInfo{
		ClientCertificateData: read(name + ".crt"), ClientKeyData: read(name + ".key"),
	}
	config.Contexts["cluster"] = &clientcmdapi.Context{Cluster: "cluster", AuthInfo: name}
	config.CurrentContext = "cluster"
	if err := clientcmd.WriteToFile(*config, c.path(name+".conf")); err != nil {
		return fmt.Errorf("writing the kubeconfig of %s: %w", name, err)
	}
	return nil
}
