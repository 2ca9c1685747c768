package seal

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/crypto/nacl/box"
)

// key returns the key pair whose private key repeats the byte n.
func key(t testing.TB, n byte) *Key {
	t.Helper()
	var raw Key
	for i := range raw.private {
		raw.private[i] = n
	}
	k, err := ParsePrivateKey(raw.Private())
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// ends returns the two sessions of a pair of keys.
func ends(t testing.TB, operator, pod *Key) (*Session, *Session) {
	t.Helper()
	o, err := NewOperatorSession(operator, pod.Public())
	if err != nil {
		t.Fatal(err)
	}
	p, err := NewPodSession(pod, operator.Public())
	if err != nil {
		t.Fatal(err)
	}
	return o, p
}

func ask(t testing.TB, s *Session, path string) (string, Challenge) {
	t.Helper()
	header, c, err := s.Request(path)
	if err != nil {
		t.Fatal(err)
	}
	return header, c
}

// accepted returns what a parser makes of a header.
func accepted(s *Session, header, path string) (Challenge, bool) {
	a, ok := parseRequest(header)
	if !ok || a.id != s.id {
		return Challenge{}, false
	}
	return s.open(a, path)
}

func sealed(s *Session, text string, c Challenge) []byte {
	return s.answer(append(newDocument(0), text...), c)
}

func TestAnOperatorAndAParserUnderstandEachOther(t *testing.T) {
	o, p := ends(t, key(t, 1), key(t, 2))
	for _, path := range []string{"/status", "/debug/stack"} {
		for _, text := range []string{"", "{}", strings.Repeat("x", 200_000)} {
			header, c := ask(t, o, path)
			got, ok := accepted(p, header, path)
			if !ok || got != c {
				t.Fatalf("%s: the request is refused", path)
			}
			out := sealed(p, text, got)
			if len(out) != len(text)+Overhead {
				t.Errorf("%d bytes became %d", len(text), len(out))
			}
			opened, err := o.Open(nil, out, c)
			if err != nil || string(opened) != text {
				t.Errorf("%s: %d bytes came back as %d: %v", path, len(text), len(opened), err)
			}
			again, err := o.Open([]byte("before"), out, c)
			if err != nil || string(again) != text {
				t.Errorf("appended to other bytes: %d bytes, %v", len(again), err)
			}
		}
	}
}

// The wire format is fixed: operators and parsers of two versions must understand each other.
func TestKnownAnswers(t *testing.T) {
	operator, pod := key(t, 1), key(t, 2)
	o, p := ends(t, operator, pod)
	c := Challenge{nonce: [nonceSize]byte(bytes.Repeat([]byte{3}, nonceSize)), path: "/status"}
	const wantHeader = "GpLyOFLckI0DAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMrZf0stu0_kSDFJ_St" +
		"_XDvLIJy-0jXFHh6Q79UMuMo74o0Trbbb5Ao0xK5B05pEsc"
	if got := o.request(c); got != wantHeader {
		t.Errorf("the request is %s", got)
	}
	out := p.answerWithNonce([nonceSize]byte(bytes.Repeat([]byte{4}, nonceSize)), append(newDocument(0), "hello"...), c)
	const wantAnswer = "040404040404040404040404040404040404040404040404" +
		"ef5be04069044d5e94b158e9c50ce516dcd6c8dfd66e54e857ce648b7aa88dcb629eef540e5b382bb2422c0380e65a503e61f55887"
	if got := hex.EncodeToString(out); got != wantAnswer {
		t.Errorf("the answer is %s", got)
	}
	// The same with box alone.
	var bound []byte
	bound = append(bound, "hlparser report 1 answer "...)
	bound = append(append(bound, operator.public[:]...), pod.public[:]...)
	bound = append(append(bound, c.nonce[:]...), "/status"...)
	sum := sha256.Sum256(bound)
	nonce := [nonceSize]byte(bytes.Repeat([]byte{4}, nonceSize))
	byHand := box.Seal(nonce[:], append(sum[:], "hello"...), &nonce, (*[32]byte)(&operator.public), &pod.private)
	if !bytes.Equal(byHand, out) {
		t.Errorf("box alone gives %x", byHand)
	}
}

// Everybody but the operator sends requests to the parser.
func TestWhichRequestsAParserRefuses(t *testing.T) {
	operator, old, pod, other, stranger := key(t, 1), key(t, 5), key(t, 2), key(t, 3), key(t, 4)
	o, p := ends(t, operator, pod)
	header, c := ask(t, o, "/status")
	mine, _ := ends(t, stranger, pod)
	strangers, _ := ask(t, mine, "/status")
	toOther, _ := ends(t, operator, other)
	others, _ := ask(t, toOther, "/status")
	retired, _ := ends(t, old, pod)
	olds, _ := ask(t, retired, "/status")
	answered := headerEncoding.EncodeToString(append(append([]byte(nil), o.id[:]...), sealed(p, "", c)...))
	raw, err := headerEncoding.DecodeString(header)
	if err != nil {
		t.Fatal(err)
	}
	// A stranger's request under the operator's name.
	forged, err := headerEncoding.DecodeString(strangers)
	if err != nil {
		t.Fatal(err)
	}
	copy(forged, o.id[:])
	for name, test := range map[string]struct{ header, path string }{
		"nothing":                              {"", "/status"},
		"a stranger":                           {strangers, "/status"},
		"a stranger under the operator's name": {headerEncoding.EncodeToString(forged), "/status"},
		"a key that was replaced":              {olds, "/status"},
		"what was meant for another parser":    {others, "/status"},
		"what was meant for another path":      {header, "/debug/stack"},
		"a longer path":                        {header, "/status/"},
		"a very long path":                     {header, "/" + strings.Repeat("x", 1000)},
		"an answer sent back":                  {answered, "/status"},
		"cut":                                  {header[:len(header)-1], "/status"},
		"longer":                               {header + "A", "/status"},
		"with a space":                         {" " + header[1:], "/status"},
		"other base64":                         {header[:len(header)-1] + "=", "/status"},
		"only an identity":                     {headerEncoding.EncodeToString(raw[:idSize]), "/status"},
		"huge":                                 {strings.Repeat("A", 1<<20), "/status"},
	} {
		if _, ok := accepted(p, test.header, test.path); ok {
			t.Errorf("%s is accepted", name)
		}
	}
	for i := range raw {
		for bit := range 8 {
			changed := bytes.Clone(raw)
			changed[i] ^= 1 << bit
			if _, ok := accepted(p, headerEncoding.EncodeToString(changed), "/status"); ok {
				t.Errorf("with bit %d of byte %d changed the request is accepted", bit, i)
			}
		}
	}
}

// Everybody but the requested pod answers the operator.
func TestWhichAnswersAnOperatorRejects(t *testing.T) {
	operator, old, pod, other := key(t, 1), key(t, 5), key(t, 2), key(t, 3)
	o, p := ends(t, operator, pod)
	_, c := ask(t, o, "/status")
	_, earlier := ask(t, o, "/status")
	good := sealed(p, `{"parser":"hlparser"}`, c)
	_, theirs := ends(t, operator, other)
	_, before := ends(t, old, pod)
	header, _ := ask(t, o, "/status")
	request, err := headerEncoding.DecodeString(header)
	if err != nil {
		t.Fatal(err)
	}
	// A malicious parser forwards its request to another parser, or passes on another parser's answer.
	swapped := append(bytes.Clone(good[:nonceSize]), sealed(p, `{"parser":"hlparsel"}`, c)[nonceSize:]...)
	for name, text := range map[string][]byte{
		"nothing":                          nil,
		"plain":                            []byte(`{"parser":"hlparser","target":"t","pod":"p","streams":[{}]}`),
		"the answer to an earlier request": sealed(p, "x", earlier),
		"the answer to another path":       sealed(p, "x", Challenge{nonce: c.nonce, path: "/debug/stack"}),
		"the answer of another pod":        sealed(theirs, "x", c),
		"an answer to a replaced key":      sealed(before, "x", c),
		"the request sent back":            request[idSize:],
		"the request sent back, as a box":  append(bytes.Clone(c.nonce[:]), request[idSize+nonceSize:]...),
		"with another's nonce":             swapped,
		"cut":                              good[:len(good)-1],
		"cut to its head":                  good[:Overhead-1],
		"longer":                           append(bytes.Clone(good), 0),
		"twice":                            append(bytes.Clone(good), good...),
		"zeros":                            make([]byte, Overhead),
	} {
		if got, err := o.Open(nil, text, c); !errors.Is(err, ErrNotSealed) || got != nil {
			t.Errorf("%s is accepted: %q, %v", name, got, err)
		}
	}
	for i := range good {
		changed := bytes.Clone(good)
		changed[i] ^= 0x80
		if got, err := o.Open(nil, changed, c); err == nil || got != nil {
			t.Errorf("with byte %d changed the answer is accepted: %q", i, got)
		}
	}
	if got, err := o.Open(nil, good, c); err != nil || string(got) != `{"parser":"hlparser"}` {
		t.Errorf("the authentic answer: %q, %v", got, err)
	}
}

// These are the points of small order; every product with one is zero.
func TestAKeyThatYieldsAPublicSecretIsRefused(t *testing.T) {
	own := key(t, 1)
	for _, text := range []string{
		"0000000000000000000000000000000000000000000000000000000000000000",
		"0100000000000000000000000000000000000000000000000000000000000000",
		"e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
		"5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
		"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	} {
		raw, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := NewOperatorSession(own, PublicKey(raw)); err == nil {
			t.Errorf("%s of a pod is accepted", text)
		}
		if _, err := NewPodSession(own, PublicKey(raw)); err == nil {
			t.Errorf("%s of an operator is accepted", text)
		}
	}
}

func TestKeysAsText(t *testing.T) {
	k, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	same, err := ParsePrivateKey(k.Private())
	if err != nil || *same != *k {
		t.Errorf("the private key changed: %v", err)
	}
	public, err := ParsePublicKey(k.Public().String())
	if err != nil || public != k.Public() {
		t.Errorf("the public key changed: %v", err)
	}
	for _, format := range []string{"%v", "%+v", "%s", "%#v"} {
		if text := fmt.Sprintf(format, k); strings.Contains(text, k.Private()) ||
			!strings.Contains(text, k.Public().String()) {
			t.Errorf("%s prints %s", format, text)
		}
	}
	good := k.Private()
	for _, text := range []string{"", good[1:], good + "=", strings.Repeat("!", 44), good[:43] + "A",
		strings.Repeat("A", 1<<20)} {
		_, one := ParsePrivateKey(text)
		_, other := ParsePublicKey(text)
		if one == nil || other == nil {
			t.Errorf("%.60q is accepted as a key", text)
		} else if len(text) > 0 && strings.Contains(one.Error(), text) {
			t.Errorf("the error contains the key: %v", one)
		}
	}
}

func TestAMessageOfAnInitContainer(t *testing.T) {
	k := key(t, 7).Public()
	for text, want := range map[string]PublicKey{
		Message(k):                               k,
		strings.TrimSpace(Message(k)):            k,
		"runtime: " + Message(k):                 k,
		Message(k) + "more":                      k,
		"":                                       {},
		"hlparser-public-key: ":                  {},
		"hlparser-public-key: " + k.String()[1:]: {},
		"hlparser-public-key: " + k.String() + "more": {},
		k.String(): {},
	} {
		if got := OfMessage(text); got != want {
			t.Errorf("of %q: got %s", text, got)
		}
	}
}

func FuzzRequest(f *testing.F) {
	o, p := ends(f, key(f, 1), key(f, 2))
	header := o.request(Challenge{path: "/status"}) // the same in all processes
	f.Add(header, "/status")
	f.Add("", "")
	f.Add(strings.Repeat("A", headerEncoding.EncodedLen(requestSize)), "/status")
	f.Fuzz(func(t *testing.T, text, path string) {
		if _, ok := accepted(p, text, path); ok && (text != header || path != "/status") {
			t.Errorf("%q for %q is accepted", text, path)
		}
	})
}

func FuzzAnswer(f *testing.F) {
	o, p := ends(f, key(f, 1), key(f, 2))
	c := Challenge{path: "/status"}
	good := p.answerWithNonce([nonceSize]byte{}, append(newDocument(0), "{}"...), c)
	f.Add(good)
	f.Add([]byte(nil))
	f.Add(good[:Overhead])
	f.Fuzz(func(t *testing.T, text []byte) {
		if got, err := o.Open(nil, text, c); (err == nil) != bytes.Equal(text, good) {
			t.Errorf("%x opens as %q, %v", text, got, err)
		}
	})
}

// BenchmarkExchange measures the cost of sealing for both ends of one poll of a report with two streams.
func BenchmarkExchange(b *testing.B) {
	o, p := ends(b, key(b, 1), key(b, 2))
	text := append(newDocument(3000), make([]byte, 2600)...)
	out := make([]byte, 0, 4<<10)
	b.ReportAllocs()
	for b.Loop() {
		header, c, err := o.Request("/status")
		if err != nil {
			b.Fatal(err)
		}
		got, ok := accepted(p, header, "/status")
		if !ok {
			b.Fatal("the request is refused")
		}
		if _, err := o.Open(out, p.answer(text, got), c); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkSession measures the cost per pod of creating a session.
func BenchmarkSession(b *testing.B) {
	operator, pod := key(b, 1), key(b, 2).Public()
	for b.Loop() {
		if _, err := NewOperatorSession(operator, pod); err != nil {
			b.Fatal(err)
		}
	}
}
