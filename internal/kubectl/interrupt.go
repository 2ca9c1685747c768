package kubectl

import (
	"context"
	"os/signal"
	"syscall"
)

// interrupted returns a context that ends when the user interrupts the program. A second interrupt ends the program.
func interrupted() context.Context {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	return ctx
}
