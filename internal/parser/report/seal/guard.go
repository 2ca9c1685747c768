package seal

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	// keysCheckEvery is the minimum interval between checks of the operator's key file, regardless of the number of
	// requests.
	keysCheckEvery = time.Second
	// maxOperators bounds the number of keys in the file, and maxOperatorsFile its size in bytes. There are two keys
	// while one is replaced.
	maxOperators     = 8
	maxOperatorsFile = 8 << 10
)

// FormatOperators returns a file of the operator's keys: one key per line, followed by a word of the operator's choice.
func FormatOperators(keys []PublicKey, words []string) string {
	var out strings.Builder
	for i, k := range keys {
		out.WriteString(k.String())
		out.WriteByte(' ')
		out.WriteString(words[i])
		out.WriteByte('\n')
	}
	return out.String()
}

// ParseOperators parses a file of the operator's keys. It skips lines that it cannot parse, and reports them in the
// error.
func ParseOperators(text []byte) (keys []PublicKey, words []string, err error) {
	lines := bufio.NewScanner(bytes.NewReader(text))
	for n := 1; lines.Scan(); n++ {
		line, word, _ := strings.Cut(lines.Text(), " ")
		if line == "" {
			continue
		}
		k, badKey := ParsePublicKey(line)
		switch {
		case badKey != nil:
			err = errors.Join(err, fmt.Errorf("line %d: %w", n, badKey))
		case len(keys) == maxOperators:
			return keys, words, errors.Join(err, fmt.Errorf("line %d: more than %d keys", n, maxOperators))
		default:
			keys, words = append(keys, k), append(words, word)
		}
	}
	return keys, words, errors.Join(err, lines.Err())
}

// Guard restricts a handler to the operator. It is safe for concurrent use.
type Guard struct {
	key  *Key
	path string
	log  *slog.Logger
	now  func() time.Time

	mu            sync.Mutex
	keysCheckedAt time.Time
	keysFile      os.FileInfo // the file that sessions are from; nil: none
	sessions      map[keyID]*Session
}

// NewGuard returns a guard with the pod's key. The operator's public keys are in a file, which may appear, change and
// disappear at any time. A change takes effect within a second.
func NewGuard(key *Key, operators string, log *slog.Logger) *Guard {
	return newGuard(key, operators, log, time.Now)
}

func newGuard(key *Key, operators string, log *slog.Logger, now func() time.Time) *Guard {
	return &Guard{key: key, path: operators, log: log, now: now}
}

// Handler passes the operator's requests to next and seals its answers. All other clients get status 401 and one line.
// next must answer with 200 and at most limit bytes, or the request fails.
func (g *Guard) Handler(limit int, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s, c, ok := g.open(r)
		if !ok {
			w.Header().Set("WWW-Authenticate", Header)
			http.Error(w, "this parser answers its operator only", http.StatusUnauthorized)
			return
		}
		plain := &document{header: http.Header{}, text: newDocument(4 << 10), limit: limit}
		next.ServeHTTP(plain, r)
		if plain.status != http.StatusOK && plain.status != 0 || plain.tooLong {
			http.Error(w, "the answer cannot be sealed", http.StatusInternalServerError)
			return
		}
		sealed := s.answer(plain.text, c)
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Content-Length", strconv.Itoa(len(sealed)))
		_, _ = w.Write(sealed) // an error means that the client has gone
	})
}

// open returns the session and the challenge of a request from the operator.
func (g *Guard) open(r *http.Request) (*Session, Challenge, bool) {
	values := r.Header[Header]
	if len(values) != 1 || r.URL.RawQuery != "" {
		return nil, Challenge{}, false
	}
	a, ok := parseRequest(values[0])
	if !ok {
		return nil, Challenge{}, false
	}
	s := g.session(a.id)
	if s == nil {
		return nil, Challenge{}, false
	}
	c, ok := s.open(a, r.URL.Path)
	return s, c, ok
}

// session returns the session with the operator's key of that ID, or nil if the operator has no such key.
func (g *Guard) session(id keyID) *Session {
	g.mu.Lock()
	defer g.mu.Unlock()
	if now := g.now(); g.keysCheckedAt.IsZero() || now.Sub(g.keysCheckedAt) >= keysCheckEvery ||
		now.Before(g.keysCheckedAt) {
		g.keysCheckedAt = now
		g.checkKeys()
	}
	return g.sessions[id]
}

// checkKeys reads the keys if the file was replaced or written since the last read.
func (g *Guard) checkKeys() {
	info, err := os.Stat(g.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		// The keys were removed. A kubelet replaces files atomically, so the file is never absent for just a moment.
		if g.keysFile != nil || g.sessions == nil {
			g.log.Warn("the operator's key file is missing, so the report cannot be read", "file", g.path)
		}
		g.keysFile, g.sessions = nil, map[keyID]*Session{}
		return
	case err != nil:
		g.log.Warn("checking the operator's key file", "error", err)
		return
	case g.keysFile != nil && os.SameFile(g.keysFile, info) && g.keysFile.ModTime().Equal(info.ModTime()) &&
		g.keysFile.Size() == info.Size():
		return
	}
	text, err := readAtMost(g.path, maxOperatorsFile)
	if err != nil {
		g.log.Warn("reading the operator's key file", "error", err)
		return
	}
	keys, _, err := ParseOperators(text)
	sessions := make(map[keyID]*Session, len(keys))
	for _, k := range keys {
		s := g.sessions[k.id()]
		if s == nil || s.operator != k {
			var bad error
			if s, bad = NewPodSession(g.key, k); bad != nil {
				err = errors.Join(err, bad)
				continue
			}
		}
		sessions[k.id()] = s
	}
	if err != nil {
		g.log.Warn("parsing the operator's keys; those that failed are ignored", "file", g.path, "error", err)
	}
	g.keysFile, g.sessions = info, sessions
}

// document records a handler's answer.
type document struct {
	header  http.Header
	status  int
	text    []byte
	limit   int
	tooLong bool
}

func (d *document) Header() http.Header { return d.header }

func (d *document) WriteHeader(status int) {
	if d.status == 0 {
		d.status = status
	}
}

func (d *document) Write(p []byte) (int, error) {
	d.WriteHeader(http.StatusOK)
	if len(d.text)-sha256.Size+len(p) > d.limit {
		d.tooLong = true
		return 0, fmt.Errorf("the answer exceeds %d bytes", d.limit)
	}
	d.text = append(d.text, p...)
	return len(p), nil
}
