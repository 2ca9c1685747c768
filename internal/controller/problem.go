package controller

import (
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/observed"
)

// problem is why a spec cannot be carried out.
type problem = observed.Problem

// outcome is the outcome of one step.
type outcome struct {
	// problem is what somebody must change; nil for nothing.
	problem *problem
	// requeueAt is when to reconcile again though no event arrives; zero for never.
	requeueAt time.Time
}

// and returns the outcome of two steps: the first problem, and the earlier time.
func (o outcome) and(other outcome) outcome {
	if o.problem == nil {
		o.problem = other.problem
	}
	o.requeueAt = earlier(o.requeueAt, other.requeueAt)
	return o
}
