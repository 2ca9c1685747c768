package sampling

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	// Path is where a parser issues tokens. A sample is below it: see SamplePath.
	Path = "/samples"
	// tokenTime is how long a token is valid.
	tokenTime = 10 * time.Second
	// maxSpent bounds the tokens that are remembered as spent. A request whose token cannot be remembered is refused.
	// Samplers spend a few in tokenTime.
	maxSpent = 256
)

// Token is the answer to a request of Path.
type Token struct {
	Token string `json:"token"`
}

// Answer is the answer to a request of a SamplePath.
type Answer struct {
	Sample
	// Refused says why there is no sample; "" if there is one.
	Refused string `json:"refused,omitempty"`
}

// SamplePath returns the path of a sample. The token and the filter are in it because a path is what a sealed request
// is bound to.
func SamplePath(token string, f Filter) string {
	text, _ := json.Marshal(f) // strings and a number
	return Path + "/" + token + "/" + base64.RawURLEncoding.EncodeToString(text)
}

// parseSamplePath returns the token and the filter of a path from SamplePath.
func parseSamplePath(path string) (token string, f Filter, err error) {
	token, encoded, found := strings.Cut(strings.TrimPrefix(path, Path+"/"), "/")
	if !found {
		return "", Filter{}, fmt.Errorf("the path is not %s/TOKEN/FILTER", Path)
	}
	text, err := base64.RawURLEncoding.DecodeString(encoded)
	if err != nil {
		return "", Filter{}, fmt.Errorf("decoding the filter: %w", err)
	}
	if err := json.Unmarshal(text, &f); err != nil {
		return "", Filter{}, fmt.Errorf("decoding the filter: %w", err)
	}
	return token, f, nil
}

// Handler serves tokens at Path and samples below it. All answers have status 200, since a seal.Guard seals no others.
// The guard authenticates the clients; now is the clock.
func Handler(s *Sampler, now func() time.Time) http.Handler {
	issued := newTokens(now)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		out := json.NewEncoder(w)
		if r.URL.Path == Path {
			_ = out.Encode(Token{issued.issue()}) // an error means that the client has gone
			return
		}
		_ = out.Encode(answer(s, issued, r)) // likewise
	})
}

func answer(s *Sampler, issued *tokens, r *http.Request) Answer {
	token, f, err := parseSamplePath(r.URL.Path)
	if err == nil {
		err = issued.spend(token)
	}
	if err != nil {
		return Answer{Refused: err.Error()}
	}
	sample, err := s.Collect(r.Context(), f)
	if err != nil {
		return Answer{Refused: err.Error()}
	}
	return Answer{Sample: sample}
}

// errToken does not say what is wrong with a token: a client with the operator's key requests another one.
var errToken = errors.New("the token is not valid, or no longer: request another one")

// tokens issues tokens and spends each once. A token is the time since this process made tokens, so none has to be kept
// until it is spent, and no flood of recorded requests of Path displaces one. It need not be secret: the request that
// carries it is sealed.
type tokens struct {
	now   func() time.Time
	begin time.Time
	// process distinguishes this process from the one before it, which had the same keys.
	process string

	mu    sync.Mutex
	last  time.Duration // the youngest token's
	spent map[time.Duration]struct{}
}

func newTokens(now func() time.Time) *tokens {
	return &tokens{now: now, begin: now(), process: rand.Text(), spent: map[time.Duration]struct{}{}}
}

// issue returns a token that no other request gets.
func (t *tokens) issue() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last = max(t.now().Sub(t.begin), t.last+1)
	return t.process + "." + strconv.FormatInt(int64(t.last), 36)
}

// spend marks a token as spent. It fails unless the token was issued by this process, not long ago, and is not spent.
func (t *tokens) spend(token string) error {
	process, text, _ := strings.Cut(token, ".")
	issued, err := strconv.ParseInt(text, 36, 64)
	if err != nil || process != t.process {
		return errToken
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	oldest := t.now().Sub(t.begin) - tokenTime
	maps.DeleteFunc(t.spent, func(spent time.Duration, _ struct{}) bool { return spent < oldest })
	at := time.Duration(issued)
	if _, again := t.spent[at]; again || at < oldest || at > t.last || len(t.spent) == maxSpent {
		return errToken
	}
	t.spent[at] = struct{}{}
	return nil
}
