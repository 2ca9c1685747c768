package tail

import (
	"slices"

	"github.com/fsnotify/fsnotify"
)

// maxWatches bounds the number of watched folders. The newest folders matter, and the system's limit is shared with
// other processes.
const maxWatches = 16

// watcher turns file notifications into hints to refresh. All of its failures are harmless, because polling finds
// everything. The zero value is a watcher that never gives a hint.
type watcher struct {
	w     *fsnotify.Watcher
	paths []string // oldest first
}

func (w *watcher) open() error {
	var err error
	w.w, err = fsnotify.NewWatcher()
	return err
}

// add watches a folder, also if it was watched before and may have been recreated. If there are too many, it stops
// watching the oldest one.
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

// hint receives when something changed, including an overflow of the queue. The refresh finds out what it was.
func (w *watcher) hint() <-chan fsnotify.Event {
	if w.w == nil {
		return nil
	}
	return w.w.Events
}

// drain discards the notifications that the next refresh covers.
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
