//go:build !faultinject

package engine

import "context"

// fault is the placeholder for fault injection. This build, without the tag faultinject, has none.
type fault struct{}

func (*fault) failpoint(context.Context, string) {}
