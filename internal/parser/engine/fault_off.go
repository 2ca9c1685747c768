//go:build !faultinject

package engine

import "context"

// fault stands where a build with the tag faultinject can make a pipeline hang. This build has none of it.
type fault struct{}

func (*fault) point(context.Context, string) {}
