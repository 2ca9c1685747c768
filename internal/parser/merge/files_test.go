package merge

import "os"

func vfsTempDir() (string, error) { return os.MkdirTemp("", "merge-test-") }

func removeAll(dir string) { _ = os.RemoveAll(dir) }
