package file

// ledger counts a stream's records. The next Open rolls back acknowledged records that are in no checkpoint.
type ledger struct {
	output *Output
	name   string

	acked      int64 // records written
	flushed    int64 // of them, before the last Flush
	committed  int64 // of them, in a checkpoint
	rolledBack int64 // records that the previous sink wrote and this one rolled back
}

// begin takes the rolled-back count over from the previous sink.
func (l *ledger) begin() {
	l.output.mu.Lock()
	defer l.output.mu.Unlock()
	l.rolledBack = l.output.rolledBack[l.name]
	delete(l.output.rolledBack, l.name)
}

// end leaves the count of records to roll back to the next sink.
func (l *ledger) end() {
	l.output.mu.Lock()
	defer l.output.mu.Unlock()
	l.output.rolledBack[l.name] = l.acked - l.committed
}

// Delivered implements sink.Sink.
func (l *ledger) Delivered() int64 { return l.acked - l.rolledBack }
