package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
)

// audited holds the fields that this program needs of an entry in the API server's audit log (audit.k8s.io/v1, Event).
type audited struct {
	Stage     string    `json:"stage"`
	Verb      string    `json:"verb"`
	At        time.Time `json:"stageTimestamp"` // of the answer, with microseconds
	ObjectRef struct {
		Resource    string `json:"resource"`
		Subresource string `json:"subresource"`
		Name        string `json:"name"`
	} `json:"objectRef"`
	User struct {
		Username string `json:"username"`
	} `json:"user"`
	ResponseStatus struct {
		Code int `json:"code"`
	} `json:"responseStatus"`
}

// auditFromNow opens the audit log at its end.
func (f *fleet) auditFromNow() (*os.File, error) {
	audit, err := os.Open(f.path("audit.log"))
	if err != nil {
		return nil, fmt.Errorf("reading the audit log: %w", err)
	}
	if _, err := audit.Seek(0, io.SeekEnd); err != nil {
		_ = audit.Close() // opened for reading only
		return nil, fmt.Errorf("reading the audit log: %w", err)
	}
	return audit, nil
}

// readAudit calls do for each request that was answered.
func readAudit(audit io.Reader, do func(*audited)) error {
	lines := bufio.NewScanner(audit)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e audited
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return fmt.Errorf("reading the audit log: %w", err)
		}
		if e.Stage == "ResponseComplete" {
			do(&e)
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("reading the audit log: %w", err)
	}
	return nil
}

// lastPodCreated returns when the API server answered the last of the given number of pod creations. A watch would
// report it later, by as long as the watching process waits for a processor.
func lastPodCreated(audit io.Reader, pods int) (last time.Time, err error) {
	created := 0
	err = readAudit(audit, func(e *audited) {
		if e.Verb == "create" && e.ObjectRef.Resource == "pods" && e.ObjectRef.Subresource == "" &&
			e.ResponseStatus.Code == http.StatusCreated {
			created++
			if e.At.After(last) {
				last = e.At
			}
		}
	})
	if err == nil && created != pods {
		err = fmt.Errorf("the audit log has %d creations of pods, want %d", created, pods)
	}
	return last, err
}
