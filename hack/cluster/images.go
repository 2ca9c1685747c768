package main

import (
	"context"
	"fmt"
	"os"
	"strings"
)

// load imports docker-archives into every node.
func (c *cluster) load(ctx context.Context, archives ...string) error {
	for _, archive := range archives {
		for i := range c.Nodes {
			if err := c.loadOn(ctx, i+1, archive); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *cluster) loadOn(ctx context.Context, n int, archive string) error {
	_, err := runTool(ctx, "ctr", "--address", c.socket(n), "--namespace", "k8s.io", "images", "import", archive)
	return err
}

// pauseImage returns an archive of the image that every pod's sandbox runs. It builds the image the first time.
func pauseImage(ctx context.Context, archive string) (string, error) {
	if _, err := os.Stat(archive); err == nil {
		return archive, nil
	}
	root, err := runTool(ctx, "go", "list", "-m", "-f", "{{.Dir}}")
	if err != nil {
		return "", fmt.Errorf("finding the repository (run this inside it): %w", err)
	}
	dir := strings.TrimSpace(string(root)) + "/hack/image"
	if _, err := runTool(ctx, "go", "-C", dir, "run", "./pause", pause, archive); err != nil {
		return "", fmt.Errorf("building %s: %w", pause, err)
	}
	return archive, nil
}
