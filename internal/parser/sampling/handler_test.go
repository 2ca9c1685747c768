package sampling_test

import (
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report/seal"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sampling"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
)

// parser serves samples behind a guard, with a clock of its own.
type parser struct {
	t       *testing.T
	sampler *sampling.Sampler
	handler http.Handler
	session *seal.Session
	now     time.Time
	pod     *seal.Key
}

func newParser(t *testing.T) *parser {
	t.Helper()
	p := &parser{t: t, sampler: &sampling.Sampler{}, pod: key(t), now: time.Unix(1000, 0)}
	operator, keys := key(t), filepath.Join(t.TempDir(), "keys")
	text := seal.FormatOperators([]seal.PublicKey{operator.Public()}, []string{""})
	if err := os.WriteFile(keys, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p.session = session(t, operator, p.pod)
	guard := seal.NewGuard(p.pod, keys, slog.New(slog.DiscardHandler))
	p.handler = guard.Handler(192<<10, sampling.Handler(p.sampler, func() time.Time { return p.now }))
	return p
}

func key(t *testing.T) *seal.Key {
	t.Helper()
	k, err := seal.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func session(t *testing.T, operator, pod *seal.Key) *seal.Session {
	t.Helper()
	s, err := seal.NewOperatorSession(operator, pod.Public())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// sealed returns a sealed request, and what opens its answers.
func (p *parser) sealed(s *seal.Session, path string) (*http.Request, func(*httptest.ResponseRecorder) []byte) {
	p.t.Helper()
	header, challenge, err := s.Request(path)
	if err != nil {
		p.t.Fatal(err)
	}
	r := httptest.NewRequestWithContext(p.t.Context(), http.MethodGet, path, nil)
	r.Header.Set(seal.Header, header)
	return r, func(w *httptest.ResponseRecorder) []byte {
		p.t.Helper()
		text, err := s.Open(nil, w.Body.Bytes(), challenge)
		if err != nil {
			p.t.Fatalf("%d, %v", w.Code, err)
		}
		return text
	}
}

func (p *parser) serve(r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	p.handler.ServeHTTP(w, r)
	return w
}

// deliver delivers records until the returned function is called.
func (p *parser) deliver(record string) (stop func()) {
	end, done := make(chan struct{}), make(chan struct{})
	b := sink.Batch{Data: []byte(record + "\n"), Records: []sink.Record{{End: len(record) + 1}}}
	go func() {
		defer close(done)
		for {
			select {
			case <-end:
				return
			default:
				p.sampler.Offer("Fills", b)
				time.Sleep(time.Millisecond)
			}
		}
	}()
	return func() { close(end); <-done }
}

func (p *parser) token() string {
	p.t.Helper()
	r, open := p.sealed(p.session, sampling.Path)
	var token sampling.Token
	if err := json.Unmarshal(open(p.serve(r)), &token); err != nil || token.Token == "" {
		p.t.Fatalf("%+v, %v", token, err)
	}
	return token.Token
}

// ask makes the request of a sample, and returns its answer.
func (p *parser) ask(r *http.Request, open func(*httptest.ResponseRecorder) []byte) sampling.Answer {
	p.t.Helper()
	var a sampling.Answer
	if err := json.Unmarshal(open(p.serve(r)), &a); err != nil {
		p.t.Fatal(err)
	}
	return a
}

const secret = `{"coin":"BTC","px":"secret"}`

func TestOnlyTheOperatorGetsASampleAndOnlyOnce(t *testing.T) {
	p := newParser(t)
	defer p.deliver(secret)()
	path := sampling.SamplePath(p.token(), sampling.Filter{Stream: "Fills", Coin: "BTC", Records: 3})

	plain := p.serve(httptest.NewRequest(http.MethodGet, path, nil))
	stranger, _ := p.sealed(session(t, key(t), p.pod), path)
	wrongKey := p.serve(stranger)
	other, _ := p.sealed(p.session, sampling.Path)
	other.URL.Path = path // a request that was meant for another path
	otherPath := p.serve(other)
	for name, w := range map[string]*httptest.ResponseRecorder{
		"without a key": plain, "with a wrong key": wrongKey, "with the header of another path": otherPath,
	} {
		if w.Code != http.StatusUnauthorized || strings.Contains(w.Body.String(), "secret") || w.Body.Len() > 100 {
			t.Errorf("%s: %d, %s", name, w.Code, w.Body)
		}
	}

	r, open := p.sealed(p.session, path)
	answered := p.serve(r)
	var a sampling.Answer
	if err := json.Unmarshal(open(answered), &a); err != nil || len(a.Records) != 3 ||
		string(a.Records[0].Text) != secret {
		t.Fatalf("the operator: %+v, %v", a, err)
	}
	if strings.Contains(answered.Body.String(), "secret") {
		t.Error("a record can be read on the way")
	}

	// The same request, which somebody has recorded.
	begin := time.Now()
	again := p.ask(r, open)
	if again.Refused == "" || len(again.Records) > 0 || again.Delivered > 0 || time.Since(begin) >= sampling.Window {
		t.Errorf("a replay: %+v after %s", again, time.Since(begin))
	}
}

func TestATokenIsValidForAShortTimeInOneProcess(t *testing.T) {
	p := newParser(t)
	ask := func(token string) sampling.Answer {
		t.Helper()
		// A request that is refused for its filter has spent its token, and takes no time.
		return p.ask(p.sealed(p.session, sampling.SamplePath(token, sampling.Filter{Records: -1})))
	}
	const valid = "records are asked for"
	old, used := p.token(), p.token()
	if a := ask(used); !strings.Contains(a.Refused, valid) {
		t.Errorf("a token: %q", a.Refused)
	}
	if a := ask(used); !strings.Contains(a.Refused, "the token is not valid") {
		t.Errorf("spent: %q", a.Refused)
	}
	p.now = p.now.Add(11 * time.Second)
	restarted := newParser(t)
	process, _, _ := strings.Cut(old, ".")
	for name, token := range map[string]string{
		"spent long ago": used, "old": old, "of another process": restarted.token(), "empty": "",
		"of the future": process + ".zzzzzzzzz", "no number": process + ".", "negative": process + ".-5",
	} {
		if a := ask(token); !strings.Contains(a.Refused, "the token is not valid") {
			t.Errorf("%s: %q", name, a.Refused)
		}
	}
	for range 1000 { // recorded requests for tokens, say
		p.token()
	}
	if a := ask(p.token()); !strings.Contains(a.Refused, valid) {
		t.Errorf("a token after many: %q", a.Refused)
	}
}

func TestSpentTokensAreBounded(t *testing.T) {
	p := newParser(t)
	refused := 0
	for range 300 {
		path := sampling.SamplePath(p.token(), sampling.Filter{Records: -1})
		if strings.Contains(p.ask(p.sealed(p.session, path)).Refused, "the token is not valid") {
			refused++
		}
	}
	if refused != 300-256 {
		t.Errorf("%d of 300 are refused", refused)
	}
	p.now = p.now.Add(11 * time.Second)
	path := sampling.SamplePath(p.token(), sampling.Filter{Records: -1})
	if a := p.ask(p.sealed(p.session, path)); strings.Contains(a.Refused, "token") {
		t.Errorf("later: %q", a.Refused)
	}
}

func TestAMalformedRequestIsRefused(t *testing.T) {
	p := newParser(t)
	for _, path := range []string{
		sampling.Path + "/", sampling.Path + "/" + p.token(), sampling.Path + "/" + p.token() + "/!",
		sampling.Path + "/" + p.token() + "/e30x", sampling.SamplePath(p.token(), sampling.Filter{Stream: "nonsense"}),
	} {
		if a := p.ask(p.sealed(p.session, path)); a.Refused == "" || len(a.Records) > 0 {
			t.Errorf("%s: %+v", path, a)
		}
	}
}

// A client that requests a sample and never reads it holds neither the sampler nor what delivers.
func TestASamplerThatDoesNotReadHoldsNothing(t *testing.T) {
	p := newParser(t)
	server := httptest.NewServer(p.handler)
	defer server.Close()
	long := `{"coin":"BTC","x":"` + strings.Repeat("x", 7000) + `"}`
	defer p.deliver(long)()
	for range 2 {
		r, _ := p.sealed(p.session, sampling.SamplePath(p.token(), sampling.Filter{Records: 100}))
		conn, err := net.Dial("tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		if err := conn.(*net.TCPConn).SetReadBuffer(1 << 10); err != nil {
			t.Fatal(err)
		}
		_, err = io.WriteString(conn, "GET "+r.URL.Path+" HTTP/1.1\r\nHost: x\r\n"+seal.Header+": "+
			r.Header.Get(seal.Header)+"\r\n\r\n")
		if err != nil {
			t.Fatal(err)
		}
	}
	// Both samplers are free again after their window, and batches are taken at the usual speed.
	deadline := time.Now().Add(20 * time.Second)
	for {
		a := p.ask(p.sealed(p.session, sampling.SamplePath(p.token(), sampling.Filter{})))
		if a.Refused == "" {
			if len(a.Records) == 0 {
				t.Error("nothing was delivered")
			}
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(a.Refused)
		}
		time.Sleep(50 * time.Millisecond) // each attempt spends a token
	}
}
