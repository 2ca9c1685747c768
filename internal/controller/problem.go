package controller

import (
	"fmt"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/observed"
)

// problem is why a spec cannot be carried out.
type problem = observed.Problem

// nameTaken returns the problem of an object that has the name of one to be created and belongs to somebody else.
func nameTaken(kind, name, purpose string) *problem {
	return &problem{Reason: v1alpha1.ReasonNameTaken, Message: fmt.Sprintf(
		"%s %s has the name of the %s and does not belong to this object: delete or rename it", kind, name, purpose)}
}

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
