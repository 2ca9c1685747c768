package seal

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// guarded is a guard with its own clock and file, and a counter of the calls to the guarded handler.
type guarded struct {
	t       *testing.T
	pod     *Key
	path    string
	now     time.Time
	log     bytes.Buffer
	calls   atomic.Int32
	answers http.HandlerFunc
	handler http.Handler
}

func newGuarded(t *testing.T) *guarded {
	t.Helper()
	g := &guarded{t: t, pod: key(t, 2), path: filepath.Join(t.TempDir(), "keys"), now: time.Unix(1_800_000_000, 0)}
	g.answers = func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "hello "+r.URL.Path) }
	guard := newGuard(g.pod, g.path, slog.New(slog.NewTextHandler(&g.log, nil)), func() time.Time { return g.now })
	g.handler = guard.Handler(1000, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g.calls.Add(1)
		g.answers(w, r)
	}))
	return g
}

// publish replaces the operator's key file, as a kubelet does.
func (g *guarded) publish(keys ...*Key) {
	g.t.Helper()
	public := make([]PublicKey, 0, len(keys))
	for _, k := range keys {
		public = append(public, k.Public())
	}
	g.write(FormatOperators(public, make([]string, len(keys))))
}

func (g *guarded) write(text string) {
	g.t.Helper()
	if err := os.WriteFile(g.path+".new", []byte(text), 0o600); err != nil {
		g.t.Fatal(err)
	}
	if err := os.Rename(g.path+".new", g.path); err != nil {
		g.t.Fatal(err)
	}
}

// get sends a request with an operator's key.
func (g *guarded) get(operator *Key) (int, string) {
	g.t.Helper()
	s, _ := ends(g.t, operator, g.pod)
	header, c := ask(g.t, s, "/status")
	w := g.send(header, "/status")
	if w.Code != http.StatusOK {
		return w.Code, w.Body.String()
	}
	text, err := s.Open(nil, w.Body.Bytes(), c)
	if err != nil {
		g.t.Error(err)
	}
	return w.Code, string(text)
}

func (g *guarded) send(header, target string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, target, nil)
	if header != "" {
		r.Header.Set(Header, header)
	}
	w := httptest.NewRecorder()
	g.handler.ServeHTTP(w, r)
	return w
}

func (g *guarded) want(who string, operator *Key, status int) {
	g.t.Helper()
	if got, text := g.get(operator); got != status || status == http.StatusOK && text != "hello /status" {
		g.t.Errorf("%s got %d: %q, want %d", who, got, text, status)
	}
}

func TestAStrangerGetsOneLineAndNothingIsComputed(t *testing.T) {
	g := newGuarded(t)
	g.publish(key(t, 1))
	g.want("the operator", key(t, 1), http.StatusOK)
	asked := g.calls.Load()
	s, _ := ends(t, key(t, 1), g.pod)
	header, _ := ask(t, s, "/status")
	for name, test := range map[string]struct{ header, target string }{
		"without a header": {"", "/status"}, "nonsense": {"x", "/status"}, "another path": {header, "/debug/stack"},
		"a query": {header, "/status?x=y"}, "a long header": {strings.Repeat("x", 100_000), "/status"},
	} {
		w := g.send(test.header, test.target)
		if w.Code != http.StatusUnauthorized || strings.Count(w.Body.String(), "\n") != 1 || w.Body.Len() > 60 {
			t.Errorf("%s: %d %q", name, w.Code, w.Body)
		}
	}
	g.want("a stranger", key(t, 9), http.StatusUnauthorized)
	if g.calls.Load() != asked {
		t.Error("the handler ran for strangers")
	}
	r := httptest.NewRequest(http.MethodGet, "/status", nil)
	r.Header[Header] = []string{header, header}
	w := httptest.NewRecorder()
	if g.handler.ServeHTTP(w, r); w.Code != http.StatusUnauthorized {
		t.Errorf("two headers: %d", w.Code)
	}
}

// Keys appear, change and disappear in a file, at any time and without a restart.
func TestTheOperatorsKeysAreReloaded(t *testing.T) {
	g := newGuarded(t)
	first, second := key(t, 1), key(t, 3)
	g.want("nobody yet", first, http.StatusUnauthorized)
	g.publish(first)
	g.want("within the second", first, http.StatusUnauthorized)
	g.now = g.now.Add(keysCheckEvery)
	g.want("the first", first, http.StatusOK)
	g.want("the second", second, http.StatusUnauthorized)
	g.publish(first, second)
	g.now = g.now.Add(keysCheckEvery)
	g.want("the first of both", first, http.StatusOK)
	g.want("the second of both", second, http.StatusOK)
	g.publish(second)
	g.now = g.now.Add(keysCheckEvery)
	g.want("the one that was replaced", first, http.StatusUnauthorized)
	g.want("the second alone", second, http.StatusOK)

	g.write("nonsense\n\n" + first.Public().String() + " a word\n" + PublicKey{}.String() + "\n")
	g.now = g.now.Add(keysCheckEvery)
	g.want("a key between malformed lines", first, http.StatusOK)
	if text := g.log.String(); !strings.Contains(text, "line 1") ||
		strings.Count(text, "parsing the operator's keys") != 1 {
		t.Errorf("the log says %s", text)
	}
	if err := os.Remove(g.path); err != nil {
		t.Fatal(err)
	}
	g.now = g.now.Add(keysCheckEvery)
	g.want("after the keys were removed", first, http.StatusUnauthorized)
	g.now = g.now.Add(-time.Hour) // the clock is set back
	g.publish(first)
	g.want("after the keys are back", first, http.StatusOK)
}

func TestStrangersDoNotMakeAParserReadItsFile(t *testing.T) {
	g := newGuarded(t)
	g.publish(key(t, 1))
	g.want("the operator", key(t, 1), http.StatusOK)
	g.publish(key(t, 1), key(t, 3))
	for range 50 {
		g.want("a stranger", key(t, 9), http.StatusUnauthorized)
	}
	g.want("a new key within the second", key(t, 3), http.StatusUnauthorized)
}

func TestAnAnswerThatCannotBeSealedIsNotSent(t *testing.T) {
	g := newGuarded(t)
	g.publish(key(t, 1))
	for name, answers := range map[string]http.HandlerFunc{
		"too long": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 1001)) },
		"too long, bit by bit": func(w http.ResponseWriter, _ *http.Request) {
			for range 11 {
				_, _ = w.Write(make([]byte, 100))
			}
		},
		"a failure": func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "secret", http.StatusTeapot) },
		"a failure that continues": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(500)
			w.WriteHeader(200)
			_, _ = io.WriteString(w, "secret")
		},
	} {
		g.answers = answers
		if status, text := g.get(key(t, 1)); status != http.StatusInternalServerError || strings.Contains(text, "secret") {
			t.Errorf("%s: %d %q", name, status, text)
		}
	}
	g.answers = func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 1000)) }
	if status, text := g.get(key(t, 1)); status != http.StatusOK || len(text) != 1000 {
		t.Errorf("at the limit: %d with %d bytes", status, len(text))
	}
}

func TestAGuardServesConcurrentRequests(t *testing.T) {
	g := newGuarded(t)
	g.publish(key(t, 1))
	s, _ := ends(t, key(t, 1), g.pod)
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 100 {
				header, c, err := s.Request("/status")
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := s.Open(nil, g.send(header, "/status").Body.Bytes(), c); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
}

func TestOperatorsAreBoundedInNumber(t *testing.T) {
	var text strings.Builder
	for n := range byte(20) {
		text.WriteString(key(t, n+1).Public().String() + " word\r\n")
	}
	keys, words, err := ParseOperators([]byte(text.String()))
	if len(keys) != maxOperators || len(words) != maxOperators || err == nil {
		t.Errorf("%d keys, %d words, %v", len(keys), len(words), err)
	}
	if keys, words, err = ParseOperators([]byte(FormatOperators(keys[:2], []string{"a", "b"}))); err != nil ||
		len(keys) != 2 || words[1] != "b" {
		t.Errorf("%v, %v, %v", keys, words, err)
	}
}

func TestAKeyIsCreatedOnceAndReadableByItsOwnerOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	given := 0
	give := func(f *os.File) error {
		given++
		if info, err := f.Stat(); err != nil || info.Mode().Perm() != keyMode {
			t.Errorf("the file is given away with %v, %v", info.Mode(), err)
		}
		return nil
	}
	first, err := EnsureKey(path, give)
	if err != nil {
		t.Fatal(err)
	}
	second, err := EnsureKey(path, give)
	if err != nil || *second != *first || given != 1 {
		t.Errorf("the second call returned %v; the file was given away %d times", err, given)
	}
	read, err := ReadKey(path)
	if err != nil || *read != *first {
		t.Errorf("reading the key: %v", err)
	}
	for _, spoilt := range []string{"", "x", strings.Repeat("A", 1000)} {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(spoilt), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadKey(path); err == nil {
			t.Errorf("%.10q is read as a key", spoilt)
		}
		if third, err := EnsureKey(path, give); err != nil || *third == *first {
			t.Errorf("after %.10q: %v", spoilt, err)
		}
	}
	refused := errors.New("refused")
	dir := t.TempDir()
	if _, err := EnsureKey(filepath.Join(dir, "key"), func(*os.File) error { return refused }); !errors.Is(err, refused) {
		t.Errorf("a file that cannot be given away: %v", err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("EnsureKey leaves %v, %v", left, err)
	}
	if _, err := EnsureKey(filepath.Join(dir, "no", "key"), give); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without its directory: %v", err)
	}
}
