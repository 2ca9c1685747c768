package kafka_test

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
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/hlparser/hyperliquid-parser-operator/hack/kafka/broker"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink/kafka"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink/secret"
)

// secured is a cluster that requires certificates, a password and permissions, with the credential files of a parser.
type secured struct {
	*cluster
	t                         *testing.T
	ca, cert, key, user, pass string // paths
	caText, certText, keyText []byte
	settings                  *config.KafkaSink
	admin                     *kadm.Client
}

func newSecured(t *testing.T) *secured {
	t.Helper()
	dir := t.TempDir()
	s := &secured{
		t: t, ca: filepath.Join(dir, "ca.crt"), cert: filepath.Join(dir, "tls.crt"), key: filepath.Join(dir, "tls.key"),
		user: filepath.Join(dir, "username"), pass: filepath.Join(dir, "password"),
	}
	admin := scram.Auth{User: broker.Admin, Pass: broker.AdminPassword}
	if realBrokers() {
		s.cluster = newReal(t, broker.Options{Secure: true, Users: map[string]string{"parser": "right"}})
		s.readCertificates()
	} else {
		s.cluster = newFake(t,
			kfake.TLS(s.makeCertificates()), kfake.EnableSASL(), kfake.EnableACLs(),
			kfake.Superuser("SCRAM-SHA-512", admin.User, admin.Pass), kfake.User("SCRAM-SHA-512", "parser", "right"),
		)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(s.caText)
	own, err := tls.X509KeyPair(s.certText, s.keyText)
	if err != nil {
		t.Fatal(err)
	}
	s.settings = s.config(config.ExactlyOnce)
	s.settings.TLS = &config.TLS{CAFile: s.ca, CertFile: s.cert, KeyFile: s.key}
	s.settings.SASL = &config.KafkaSASL{UsernameFile: s.user, PasswordFile: s.pass}
	s.admin = kadm.NewClient(s.client(
		kgo.DialTLSConfig(&tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{own}}),
		kgo.SASL(admin.AsSha512Mechanism()),
	))
	return s
}

// readCertificates reads those of a real cluster.
func (s *secured) readCertificates() {
	s.t.Helper()
	cert, key := s.real.ClientCertificate()
	for path, text := range map[string]*[]byte{s.real.CAFile(): &s.caText, cert: &s.certText, key: &s.keyText} {
		var err error
		if *text, err = os.ReadFile(path); err != nil {
			s.t.Fatal(err)
		}
	}
}

// makeCertificates makes a fake cluster's certificates and a client's, and returns the settings of the brokers.
func (s *secured) makeCertificates() *tls.Config {
	s.t.Helper()
	authority, authorityKey := certificate(s.t, nil, nil)
	server, serverKey := certificate(s.t, authority, authorityKey)
	client, clientKey := certificate(s.t, authority, authorityKey)
	s.caText, s.certText = encode("CERTIFICATE", authority.Raw), encode("CERTIFICATE", client.Raw)
	der, err := x509.MarshalECPrivateKey(clientKey)
	if err != nil {
		s.t.Fatal(err)
	}
	s.keyText = encode("EC PRIVATE KEY", der)
	pool := x509.NewCertPool()
	pool.AddCert(authority)
	return &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{server.Raw}, PrivateKey: serverKey}},
		ClientCAs:    pool, ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS12,
	}
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// certificate returns a certificate that by signs, or a self-signed one if by is nil.
func certificate(t *testing.T, by *x509.Certificate, byKey *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: by == nil, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if by == nil {
		by, byKey = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, by, key.Public(), byKey)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

func (s *secured) put(path string, text []byte) {
	s.t.Helper()
	if err := os.WriteFile(path, text, 0o600); err != nil {
		s.t.Fatal(err)
	}
}

func (s *secured) allow(resource func(*kadm.ACLBuilder) *kadm.ACLBuilder, operations ...kadm.ACLOperation) {
	s.t.Helper()
	acl := resource(kadm.NewACLs()).ResourcePatternType(kadm.ACLPatternLiteral).
		Operations(operations...).Allow("User:parser")
	results, err := s.admin.CreateACLs(s.t.Context(), acl)
	for _, r := range results {
		err = errors.Join(err, r.Err)
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *secured) output() *kafka.Output {
	return kafka.New(kafka.Options{
		Config: s.settings, Writer: "w", Target: "node-1", OutageAfter: 200 * time.Millisecond,
	})
}

func TestMissingSecretsAreOutagesUntilTheyExist(t *testing.T) {
	s := newSecured(t)
	out := s.output()
	s.allow(func(b *kadm.ACLBuilder) *kadm.ACLBuilder { return b.Topics(s.topic("fills"), s.positions()) },
		kmsg.ACLOperationCreate, kmsg.ACLOperationWrite, kmsg.ACLOperationRead, kmsg.ACLOperationDescribe)
	s.allow(func(b *kadm.ACLBuilder) *kadm.ACLBuilder { return b.TransactionalIDs("hlparser/w/fills") },
		kmsg.ACLOperationWrite, kmsg.ACLOperationDescribe)
	steps := []struct {
		path string
		text []byte
	}{{s.ca, s.caText}, {s.cert, s.certText}, {s.key, s.keyText}, {s.user, []byte("parser\n")},
		{s.pass, []byte("wrong\n")}}
	for _, step := range steps {
		_, err := try(t, out, nil)
		var missing *secret.Error
		if mustBe(t, err, nil, step.path); !errors.As(err, &missing) || missing.Path != step.path {
			t.Fatalf("without %s got %v", step.path, err)
		}
		s.put(step.path, step.text)
	}
	accept := func() {}
	if s.fake != nil { // it closes the connection on a wrong password, where Kafka returns an error
		refused := s.fake.Fault(kfake.Fault{
			Keys: []kmsg.Key{kmsg.SASLAuthenticate}, Err: kerr.SaslAuthenticationFailed, Count: -1,
		})
		accept = func() { refused.Remove() }
	}
	_, err := try(t, out, nil)
	mustBe(t, err, nil, "the broker rejects this user and password")
	accept()
	s.put(s.pass, []byte("right\n"))
	sink := open(t, out, nil)
	sink.mustWrite(0, 10)
	sink.mustCommit()
}

func TestAMissingPermissionIsAnOutageWithInstructions(t *testing.T) {
	s := newSecured(t)
	for path, text := range map[string][]byte{
		s.ca: s.caText, s.cert: s.certText, s.key: s.keyText, s.user: []byte("parser"), s.pass: []byte("right"),
	} {
		s.put(path, text)
	}
	out := s.output()
	positions := func(b *kadm.ACLBuilder) *kadm.ACLBuilder { return b.Topics(s.positions()) }
	records := func(b *kadm.ACLBuilder) *kadm.ACLBuilder { return b.Topics(s.topic("fills")) }
	id := func(b *kadm.ACLBuilder) *kadm.ACLBuilder { return b.TransactionalIDs("hlparser/w/fills") }

	opening := func(text string) {
		t.Helper()
		_, err := try(t, out, nil)
		mustBe(t, err, nil, text)
	}
	opening("Read, Write and Describe " + s.positions())
	s.allow(positions, kmsg.ACLOperationDescribe)
	opening("this user may not create it: allow Create on it")
	s.allow(positions, kmsg.ACLOperationCreate)
	opening(`allow this user to Write and Describe the transactional id "hlparser/w/fills"`)
	s.allow(id, kmsg.ACLOperationWrite, kmsg.ACLOperationDescribe)
	s.allow(positions, kmsg.ACLOperationRead, kmsg.ACLOperationWrite)
	sink := open(t, out, nil)
	mustBe(t, sink.write(0, 10), nil, "allow this user to Write and Describe the topics of records")
	s.allow(records, kmsg.ACLOperationDescribe)
	s.allow(records, kmsg.ACLOperationCreate)
	mustBe(t, sink.write(0, 10), nil, "allow this user to Write and Describe the topics of records")
	s.allow(records, kmsg.ACLOperationWrite)
	eventually(t, func() error { return sink.write(0, 10) })
	sink.mustCommit()
}
