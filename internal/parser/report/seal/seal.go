// Package seal lets a parser answer only its operator, over plain HTTP.
//
// Both ends have X25519 key pairs. A pod's pair is generated in the pod, by its init container, and never leaves it.
// Its public key reaches the operator in the init container's termination message, which only the kubelet of the pod's
// node writes. The operator's pairs are in a Secret; their public keys reach the pods in a ConfigMap. NaCl's box
// (X25519, XSalsa20, Poly1305) derives from the two keys a shared key that no third party can have, and seals with it.
//
// The operator sends the header Hlparser-Seal, which is base64url without padding of
//
//	the first 8 bytes of SHA-256 of the operator's public key | a random nonce of 24 bytes |
//	box(binding of the request)
//
// The parser answers with the body
//
//	a random nonce of 24 bytes | box(binding of the answer | the document)
//
// A binding is SHA-256 of the direction, both public keys, the request's nonce and the path.
//
// Guarantees: a parser computes nothing and reveals nothing for a client without a private key of its operator. The
// operator accepts only what the holder of that pod's private key sealed for this very request. It rejects an answer to
// an earlier request or to another path, its own request sent back, the answer of another pod that now has the address,
// and the answer of another parser that a parser passes on. A recorded request that is replayed yields a sealed answer,
// which only the operator can read. A handler that must not act on a replay has to detect it, as package sampling does.
//
// Limits: the package does not hide that there was a request or how long the answer is. It does not keep recorded
// traffic secret from an attacker who later obtains a private key of either end. Keys are replaced for that reason: a
// pod's with the pod, the operator's periodically.
//
// The package must never compute with a key that a stranger chose, never reveal why a request was refused, never
// release a byte of an answer before all of it is authenticated, and never fall back to plain HTTP.
package seal

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"

	"golang.org/x/crypto/curve25519"
	"golang.org/x/crypto/nacl/box"
)

// Header is the name of the request's header.
const Header = "Hlparser-Seal"

// Overhead is the number of bytes by which a sealed answer is longer than its document.
const Overhead = nonceSize + box.Overhead + sha256.Size

const (
	keySize   = 32
	idSize    = 8
	nonceSize = 24
	// requestSize is the size of a request's header before encoding, in bytes.
	requestSize = idSize + nonceSize + sha256.Size + box.Overhead
	// maxPath bounds a request's path, in bytes. That of a sample holds its filter.
	maxPath = 512
)

// Directions; all have the same length.
const (
	request = "hlparser report 1 request"
	answer  = "hlparser report 1 answer "
)

var (
	headerEncoding = base64.RawURLEncoding.Strict()
	keyEncoding    = base64.StdEncoding.Strict()
)

// PublicKey is the public key of one end. The zero value is no key.
type PublicKey [keySize]byte

// String encodes the key as base64, in 44 characters.
func (k PublicKey) String() string { return keyEncoding.EncodeToString(k[:]) }

// ParsePublicKey parses the output of String.
func ParsePublicKey(text string) (PublicKey, error) {
	var k PublicKey
	if err := decodeKey(k[:], text); err != nil {
		return PublicKey{}, fmt.Errorf("reading a public key: %w", err)
	}
	return k, nil
}

// decodeKey decodes a key. Its errors do not contain the text, which may be a private key.
func decodeKey(key []byte, text string) error {
	if len(text) != keyEncoding.EncodedLen(keySize) {
		return fmt.Errorf("the text has %d characters; want %d", len(text), keyEncoding.EncodedLen(keySize))
	}
	var raw [keySize + 1]byte // the most that 44 characters can encode
	if n, err := keyEncoding.Decode(raw[:], []byte(text)); err != nil || n != keySize {
		return errors.New("the text is not base64 of 32 bytes")
	}
	copy(key, raw[:])
	return nil
}

type keyID [idSize]byte

func (k PublicKey) id() keyID {
	sum := sha256.Sum256(k[:])
	return keyID(sum[:idSize])
}

// Key is a key pair. It is immutable.
type Key struct {
	private [keySize]byte
	public  PublicKey
}

// NewKey generates a key pair.
func NewKey() (*Key, error) {
	public, private, err := box.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generating a key pair: %w", err)
	}
	return &Key{private: *private, public: *public}, nil
}

// ParsePrivateKey parses the output of Private.
func ParsePrivateKey(text string) (*Key, error) {
	k := &Key{}
	if err := decodeKey(k.private[:], text); err != nil {
		return nil, fmt.Errorf("reading a private key: %w", err)
	}
	public, err := curve25519.X25519(k.private[:], curve25519.Basepoint)
	if err != nil {
		return nil, fmt.Errorf("reading a private key: %w", err)
	}
	k.public = PublicKey(public)
	return k, nil
}

// Public returns the public key.
func (k *Key) Public() PublicKey { return k.public }

// Private encodes the private key as base64. It must stay secret.
func (k *Key) Private() string { return keyEncoding.EncodeToString(k.private[:]) }

// String returns the public key, which keeps the private key out of logs.
func (k *Key) String() string { return "key pair of " + k.public.String() }

// GoString returns String.
func (k *Key) GoString() string { return k.String() }

// Session holds the key shared by an operator and a pod. Creating one takes a tenth of a millisecond; using it is much
// cheaper. It is safe for concurrent use.
type Session struct {
	operator, pod PublicKey
	id            keyID
	shared        [keySize]byte
}

// NewOperatorSession returns the operator's end of a session. It fails for a public key of a small subgroup, which
// yields a secret that everybody knows.
func NewOperatorSession(operator *Key, pod PublicKey) (*Session, error) {
	s := &Session{operator: operator.public, pod: pod, id: operator.public.id()}
	if err := s.deriveKey(operator, pod); err != nil {
		return nil, fmt.Errorf("using the pod's public key: %w", err)
	}
	return s, nil
}

// NewPodSession returns the parser's end of a session. It fails as NewOperatorSession does.
func NewPodSession(pod *Key, operator PublicKey) (*Session, error) {
	s := &Session{operator: operator, pod: pod.public, id: operator.id()}
	if err := s.deriveKey(pod, operator); err != nil {
		return nil, fmt.Errorf("using the operator's public key: %w", err)
	}
	return s, nil
}

func (s *Session) deriveKey(own *Key, peer PublicKey) error {
	// box does not report a product of zero.
	if _, err := curve25519.X25519(own.private[:], peer[:]); err != nil {
		return err
	}
	box.Precompute(&s.shared, (*[keySize]byte)(&peer), &own.private)
	return nil
}

// Between reports whether the session belongs to the two keys.
func (s *Session) Between(operator *Key, pod PublicKey) bool {
	return s != nil && s.operator == operator.public && s.pod == pod
}

// Challenge identifies the answer to one request.
type Challenge struct {
	nonce [nonceSize]byte
	path  string
}

// Request returns the header's value for a request of path, and the challenge that identifies its answer.
func (s *Session) Request(path string) (header string, c Challenge, err error) {
	if len(path) > maxPath {
		return "", Challenge{}, fmt.Errorf("the path has %d bytes; the limit is %d", len(path), maxPath)
	}
	c = Challenge{nonce: newNonce(), path: path}
	return s.request(c), c, nil
}

func (s *Session) request(c Challenge) string {
	var raw [requestSize]byte
	out := append(append(raw[:0], s.id[:]...), c.nonce[:]...)
	bound := s.binding(request, c)
	out = box.SealAfterPrecomputation(out, bound[:], &c.nonce, &s.shared)
	return headerEncoding.EncodeToString(out)
}

// newNonce returns a random nonce. crypto/rand does not fail: it ends the process instead.
func newNonce() (nonce [nonceSize]byte) {
	_, _ = rand.Read(nonce[:])
	return nonce
}

// sealedRequest is a request as it arrives, before it is authenticated.
type sealedRequest struct {
	id    keyID
	nonce [nonceSize]byte
	box   [sha256.Size + box.Overhead]byte
}

// parseRequest decodes a header's value.
func parseRequest(header string) (a sealedRequest, ok bool) {
	var raw [requestSize]byte
	if len(header) != headerEncoding.EncodedLen(requestSize) {
		return sealedRequest{}, false
	}
	if n, err := headerEncoding.Decode(raw[:], []byte(header)); err != nil || n != requestSize {
		return sealedRequest{}, false
	}
	copy(a.id[:], raw[:])
	copy(a.nonce[:], raw[idSize:])
	copy(a.box[:], raw[idSize+nonceSize:])
	return a, true
}

// open authenticates a request: it reports whether the request is for path and from the operator of the session.
func (s *Session) open(a sealedRequest, path string) (Challenge, bool) {
	if len(path) > maxPath {
		return Challenge{}, false
	}
	c := Challenge{nonce: a.nonce, path: path}
	var opened [sha256.Size]byte
	got, ok := box.OpenAfterPrecomputation(opened[:0], a.box[:], &a.nonce, &s.shared)
	want := s.binding(request, c)
	if !ok || subtle.ConstantTimeCompare(got, want[:]) != 1 {
		return Challenge{}, false
	}
	return c, true
}

// newDocument returns a buffer to which a document is appended, for answer to seal.
func newDocument(capacity int) []byte { return make([]byte, sha256.Size, sha256.Size+capacity) }

// answer seals a document in a buffer from newDocument.
func (s *Session) answer(document []byte, c Challenge) []byte {
	return s.answerWithNonce(newNonce(), document, c)
}

func (s *Session) answerWithNonce(nonce [nonceSize]byte, document []byte, c Challenge) []byte {
	bound := s.binding(answer, c)
	copy(document, bound[:])
	out := make([]byte, nonceSize, nonceSize+box.Overhead+len(document))
	copy(out, nonce[:])
	return box.SealAfterPrecomputation(out, document, &nonce, &s.shared)
}

// ErrNotSealed reports that an answer is not authentic.
var ErrNotSealed = errors.New("the answer is not sealed by the pod's parser for this request")

// Open appends the document of an answer to out, which must not overlap sealed, and returns the document. It fails with
// ErrNotSealed for anything but an answer of the session's pod to the request of the challenge.
func (s *Session) Open(out, sealed []byte, c Challenge) ([]byte, error) {
	if len(sealed) < Overhead {
		return nil, ErrNotSealed
	}
	nonce := [nonceSize]byte(sealed)
	start := len(out)
	opened, ok := box.OpenAfterPrecomputation(out, sealed[nonceSize:], &nonce, &s.shared)
	if !ok {
		return nil, ErrNotSealed
	}
	want := s.binding(answer, c)
	document := opened[start:]
	if subtle.ConstantTimeCompare(document[:sha256.Size], want[:]) != 1 {
		return nil, ErrNotSealed
	}
	return document[sha256.Size:], nil
}

// binding returns the hash of a message's context. All parts except the path, which is last, have a fixed length.
func (s *Session) binding(direction string, c Challenge) [sha256.Size]byte {
	var raw [len(request) + 2*keySize + nonceSize + maxPath]byte
	out := append(raw[:0], direction...)
	out = append(out, s.operator[:]...)
	out = append(out, s.pod[:]...)
	out = append(out, c.nonce[:]...)
	return sha256.Sum256(append(out, c.path...))
}
