package tail

import (
	"slices"

	"github.com/fsnotify/fsnotify"
)

// maxWatches bounds the notifications asked for: the newest folders matter, and the system's limit is shared with others.
const maxWatches = 16

// watcher turns file notifications into hints to look. All of its failures are harmless: polling finds everything.
// The zero value is a watcher that never hints.
type watcher struct {
	w     *fsnotify.Watcher
	paths []string // oldest first
}

func (w *watcher) open() error {
	var err error
	w.w, err = fsnotify.NewWatcher()
	return err
}

// add watches a folder, also when it was watched before and may have been made anew. The one watched for longest gives way when
// there are too many.
func (w *watcher) add(path string) {
	if w.w == nil || w.w.Add(path) != nil || slices.Contains(w.paths, path) {
		return
	}
	w.paths = append(w.paths, path)
	if len(w.paths) > maxWatches {
		_ = w.w.Remove(w.paths[0])
		w.paths = w.paths[1:]
	}
}

// hint receives when something changed, an overflow of the queue included: a look finds whatever it was.
func (w *watcher) hint() <-chan fsnotify.Event {
	if w.w == nil {
		return nil
	}
	return w.w.Events
}

// drain forgets the notifications that the coming look answers.
func (w *watcher) drain() {
	for w.w != nil {
		select {
		case _, ok := <-w.w.Events:
			if !ok {
				return
			}
		case _, ok := <-w.w.Errors:
			if !ok {
				return
			}
		default:
			return
		}
	}
}

func (w *watcher) close() {
	if w.w != nil {
		_ = w.w.Close()
	}
}
