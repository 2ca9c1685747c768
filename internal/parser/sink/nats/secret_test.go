package nats_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink/secret"
)

// authority is a certificate authority for one test.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	n    int64
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t}
	var err error
	a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &a.key.PublicKey, a.key)
	must(t, err)
	a.cert, err = x509.ParseCertificate(der)
	must(t, err)
	return a
}

func (a *authority) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

// issue returns a certificate and its key as PEM.
func (a *authority) issue() (cert, key []byte) {
	a.n++
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(a.t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1 + a.n), Subject: pkix.Name{CommonName: "one"}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &k.PublicKey, a.key)
	must(a.t, err)
	bytes, err := x509.MarshalECPrivateKey(k)
	must(a.t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: bytes})
}

// operator is a NATS operator that signs the users of one account.
type operator struct {
	t       *testing.T
	account nkeys.KeyPair
	options server.Options
}

func newOperator(t *testing.T) *operator {
	t.Helper()
	keys := func(make func() (nkeys.KeyPair, error)) (nkeys.KeyPair, string) {
		pair, err := make()
		must(t, err)
		public, err := pair.PublicKey()
		must(t, err)
		return pair, public
	}
	op, opPublic := keys(nkeys.CreateOperator)
	account, accountPublic := keys(nkeys.CreateAccount)
	_, systemPublic := keys(nkeys.CreateAccount)
	resolver := &server.MemAccResolver{}
	for public, disk := range map[string]int64{accountPublic: -1, systemPublic: 0} {
		claims := jwt.NewAccountClaims(public)
		claims.Limits.DiskStorage = disk
		signed, err := claims.Encode(op)
		must(t, err)
		must(t, resolver.Store(public, signed))
	}
	trusted := jwt.NewOperatorClaims(opPublic)
	return &operator{t: t, account: account, options: server.Options{
		TrustedOperators: []*jwt.OperatorClaims{trusted}, AccountResolver: resolver, SystemAccount: systemPublic,
	}}
}

// credentials returns the credentials of a new user.
func (o *operator) credentials() []byte {
	o.t.Helper()
	user, err := nkeys.CreateUser()
	must(o.t, err)
	public, err := user.PublicKey()
	must(o.t, err)
	signed, err := jwt.NewUserClaims(public).Encode(o.account)
	must(o.t, err)
	seed, err := user.Seed()
	must(o.t, err)
	text, err := jwt.FormatUserConfig(signed, seed)
	must(o.t, err)
	return text
}

func TestSecretsAreReadAtEachConnectAndMissingOnesAreOutages(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	ca, op := newAuthority(t), newOperator(t)
	cert, key := ca.issue()
	pair, err := tls.X509KeyPair(cert, key)
	must(t, err)
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	opts := op.options
	opts.TLS, opts.TLSVerify, opts.TLSTimeout = true, true, 5
	opts.TLSConfig = &tls.Config{
		MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}, ClientCAs: pool,
		ClientAuth: tls.RequireAndVerifyClientCert,
	}
	s := startEmbedded(t, &opts)
	p := startProxy(t, func() string { return s.address })

	o := newOutput(t, settings(p.url(), func(c *config.NATSSink) {
		c.TLS = &config.TLS{CAFile: path("ca"), CertFile: path("cert"), KeyFile: path("key")}
		c.CredentialsFile = path("creds")
	}))
	missing := func(name string) {
		t.Helper()
		_, err := o.Open(t.Context(), "fills", nil)
		var missing *secret.Error
		if !errors.As(err, &missing) || missing.Path != path(name) || isNoOutage(err) {
			t.Fatalf("without %s: got %v", name, err)
		}
	}
	missing("ca")
	writeFile(t, path("ca"), ca.pem())
	missing("cert")
	writeFile(t, path("cert"), cert)
	missing("key")
	writeFile(t, path("key"), key)
	missing("creds")
	stranger := newOperator(t)
	writeFile(t, path("creds"), stranger.credentials())
	_, err = o.Open(t.Context(), "fills", nil)
	if err == nil || isNoOutage(err) || !strings.Contains(err.Error(), "rejects this user") {
		t.Fatalf("with a stranger's credentials: got %v", err)
	}
	writeFile(t, path("creds"), op.credentials())
	w := open(t, o, nil)
	must(t, w.Write(t.Context(), batch(0, "BTC", numbered(0, 5)...)))

	// All secrets are replaced, and the connection is reopened.
	cert, key = ca.issue()
	writeFile(t, path("cert"), cert)
	writeFile(t, path("key"), key)
	must(t, os.Remove(path("creds")))
	p.flap()
	var gone *secret.Error
	eventually(t, "an error about the missing credentials", func() bool {
		return errors.As(w.Write(t.Context(), batch(5, "BTC", numbered(5, 5)...)), &gone)
	})
	writeFile(t, path("creds"), op.credentials())
	retry(t, func() error { return w.Write(t.Context(), batch(5, "BTC", numbered(5, 5)...)) })
	js := client(t, s.url(), nats.UserCredentials(path("creds")),
		nats.Secure(&tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool, Certificates: []tls.Certificate{pair}}))
	got, err := messages(t.Context(), js, "hl.>")
	must(t, err)
	wantNumbered(t, records(got), 10)
}

func TestAMissingPermissionIsANamedOutage(t *testing.T) {
	users := []*server.User{
		{Username: "a", Password: "b", Permissions: &server.Permissions{
			Publish: &server.SubjectPermission{Deny: []string{"hl.fills.BTC"}},
		}},
	}
	s := startEmbedded(t, &server.Options{Users: users})
	at := strings.Replace(s.url(), "nats://", "nats://a:b@", 1)
	w := open(t, newOutput(t, settings(at, func(c *config.NATSSink) { c.Delivery = config.AtLeastOnce })), nil)
	err := w.Write(t.Context(), batch(0, "BTC", "x"))
	if err == nil || isNoOutage(err) || !strings.Contains(strings.ToLower(err.Error()), "permissions violation") {
		t.Fatalf("got %v", err)
	}
	must(t, w.Write(t.Context(), batch(0, "ETH", "x")))
}
