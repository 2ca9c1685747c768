// Command book is an example of a consumer: it builds order books, order by order, from the merged stream of hlparser,
// and prints one line per block:
//
//	hlparser run --order block --markers --deduplicate-blocks --stream order-statuses --stream raw-book-diffs … \
//	  --sink stdout | go run ./hack/book --coin BTC --depth 5
//	go run ./hack/book --coin BTC OUT/blocks/*.jsonl
//
// The books begin empty, at the first whole block. A line says since when they hold every order, or why they are
// invalid: see docs/records.md, "Building a book".
package main

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/hlparser/hyperliquid-parser-operator/hack/book/l4"
)

func main() {
	if err := run(os.Args[1:], os.Stdin, os.Stdout); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "book:", err)
		os.Exit(1)
	}
}

// printer prints the state of a feed after each block.
type printer struct {
	feed  l4.Feed
	coin  string // empty: all
	depth int
	to    *bufio.Writer
}

func run(args []string, in io.Reader, out io.Writer) (err error) {
	p := &printer{to: bufio.NewWriter(out)}
	fs := flag.NewFlagSet("book", flag.ContinueOnError)
	fs.StringVar(&p.coin, "coin", "", "the coin whose book is printed; the hash of all books if absent")
	fs.IntVar(&p.depth, "depth", 0, "levels of each side to print, with --coin")
	fs.Int64Var(&p.feed.From, "from", 0, "the block that the books begin with; they begin empty")
	if err := fs.Parse(args); err != nil {
		return err
	}
	switch {
	case p.depth < 0:
		return errors.New("--depth: must not be negative")
	case p.depth > 0 && p.coin == "":
		return errors.New("--depth: needs --coin, whose levels are printed")
	}
	defer func() { err = errors.Join(err, p.to.Flush()) }()
	if fs.NArg() == 0 {
		return p.read("standard input", in)
	}
	for _, name := range fs.Args() {
		f, err := os.Open(name)
		if err != nil {
			return fmt.Errorf("opening the input: %w", err)
		}
		if err := errors.Join(p.read(name, f), f.Close()); err != nil {
			return err
		}
	}
	return nil
}

// read takes the records of an input. Lines may have any length: a record of funding has some 20 MB.
func (p *printer) read(name string, in io.Reader) error {
	lines := bufio.NewReaderSize(in, 1<<20)
	for n := 1; ; n++ {
		line, err := lines.ReadBytes('\n')
		switch {
		case errors.Is(err, io.EOF) && len(line) == 0:
			return nil
		case errors.Is(err, io.EOF):
			return fmt.Errorf("reading %s: it ends within line %d", name, n)
		case err != nil:
			return fmt.Errorf("reading %s: %w", name, err)
		}
		block, err := p.feed.Add(bytes.TrimSpace(line))
		if err != nil {
			return fmt.Errorf("%s, line %d: %w", name, n, err)
		}
		if block == nil {
			continue
		}
		p.print(block)
		if lines.Buffered() == 0 { // live: the reader of the output waits for this block
			if err := p.to.Flush(); err != nil {
				return fmt.Errorf("writing the output: %w", err)
			}
		}
	}
}

// print prints a block. The writer keeps its errors until it is flushed.
func (p *printer) print(b *l4.Block) {
	if !b.Valid {
		_, _ = fmt.Fprintf(p.to, "%d invalid: %s\n", b.Number, b.Reason)
		return
	}
	c := b.Changes
	hash, orders := "", 0
	if p.coin != "" {
		book := p.feed.Book(p.coin)
		hash, orders = book.Hash(), book.Len()
	} else {
		hash = p.feed.Hash()
		for _, coin := range p.feed.Coins() {
			orders += p.feed.Book(coin).Len()
		}
	}
	_, _ = fmt.Fprintf(p.to, "%d %s since %d: %d orders; %d new, %d resized, %d filled, %d removed, %d unknown\n",
		b.Number, hash, b.Since, orders, c.New, c.Resized, c.Filled, c.Removed, c.Unknown)
	if p.depth == 0 {
		return
	}
	bids, asks := p.feed.Book(p.coin).Top(l4.Bid, p.depth), p.feed.Book(p.coin).Top(l4.Ask, p.depth)
	for i := range max(len(bids), len(asks)) {
		_, _ = fmt.Fprintln(p.to, strings.TrimRight(fmt.Sprintf("  %s | %s", column(bids, i), column(asks, i)), " "))
	}
}

// column formats level i of a side, or spaces.
func column(levels []l4.Level, i int) string {
	if i >= len(levels) {
		return fmt.Sprintf("%32s", "")
	}
	l := levels[i]
	return fmt.Sprintf("%12s %14s %4d", l.Price, l.Size, l.Orders)
}
