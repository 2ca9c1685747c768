package l4

import (
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// queue formats a side of a book: id@price:size in the order in which the orders are filled.
func queue(b *Book, side Side) string {
	text := make([]string, 0, 8)
	for _, o := range b.Queue(side) {
		text = append(text, fmt.Sprintf("%d@%s:%s", o.ID, o.level.price, o.Size))
	}
	return strings.Join(text, " ")
}

func mustAdd(t *testing.T, b *Book, id int64, side Side, price, size string, before int64) {
	t.Helper()
	if _, err := b.add(&Order{ID: id, Size: size}, side, price, before); err != nil {
		t.Fatal(err)
	}
}

func TestTheBestPriceIsFirstAndTheOldestOrderOfAPrice(t *testing.T) {
	b := newBook()
	for id, price := range []string{"99.5", "100.0", "9.0", "100.0", "100.10"} {
		mustAdd(t, b, int64(id+1), Bid, price, "1.0", 0)
		mustAdd(t, b, int64(id+11), Ask, price, "1.0", 0)
	}
	if got, want := queue(b, Bid), "5@100.10:1.0 2@100.0:1.0 4@100.0:1.0 1@99.5:1.0 3@9.0:1.0"; got != want {
		t.Errorf("bids: got %s; want %s", got, want)
	}
	if got, want := queue(b, Ask), "13@9.0:1.0 11@99.5:1.0 12@100.0:1.0 14@100.0:1.0 15@100.10:1.0"; got != want {
		t.Errorf("asks: got %s; want %s", got, want)
	}
}

func TestInsertBeforeIsThePlaceInTheQueue(t *testing.T) {
	b := newBook()
	mustAdd(t, b, 1, Bid, "100.0", "1.0", 0)
	mustAdd(t, b, 2, Bid, "100.0", "1.0", 0)
	mustAdd(t, b, 3, Bid, "100.0", "1.0", 2)
	mustAdd(t, b, 4, Bid, "100.00", "1.0", 1)
	if got, want := queue(b, Bid), "4@100.0:1.0 1@100.0:1.0 3@100.0:1.0 2@100.0:1.0"; got != want {
		t.Errorf("got %s; want %s", got, want)
	}
	// An order that the book does not know is older than those that it knows.
	if known, err := b.add(&Order{ID: 5, Size: "1.0"}, Bid, "100.0", 77); known || err != nil {
		t.Errorf("before an unknown order: %t, %v", known, err)
	}
	if got, want := queue(b, Bid), "5@100.0:1.0 4@100.0:1.0 1@100.0:1.0 3@100.0:1.0 2@100.0:1.0"; got != want {
		t.Errorf("got %s; want %s", got, want)
	}
	if _, err := b.add(&Order{ID: 6, Size: "1.0"}, Bid, "100.1", 1); err == nil {
		t.Error("an order is placed before one with another price")
	}
}

func TestLevelsHaveExactSizesAndNoFilledOrders(t *testing.T) {
	b := newBook()
	mustAdd(t, b, 1, Ask, "0.5", "0.1", 0)
	mustAdd(t, b, 2, Ask, "0.5", "0.2", 0)
	mustAdd(t, b, 3, Ask, "0.4", "5.0", 0)
	if known, err := b.resize(3, "5.0", "0.0"); !known || err != nil {
		t.Fatal(known, err)
	}
	if got, want := fmt.Sprint(b.Top(Ask, 5)), "[{0.5 0.3 2}]"; got != want {
		t.Errorf("got %s; want %s", got, want)
	}
}

func TestWhatIsNoDecimalIsRefused(t *testing.T) {
	for _, text := range []string{"", ".", "1e9999999", "-1.0", "1/3", "0x1p4", "NaN", "1.0.0", "1_0"} {
		if _, err := newBook().add(&Order{ID: 1, Size: "1.0"}, Bid, text, 0); err == nil {
			t.Errorf("%q is a price", text)
		}
		if _, err := newBook().add(&Order{ID: 1, Size: text}, Bid, "1.0", 0); err == nil {
			t.Errorf("%q is a size", text)
		}
	}
}

// A sequence of changes yields the same book as a list of orders that is sorted at the end.
func TestABookIsTheSortedListOfItsOrders(t *testing.T) {
	type entry struct {
		id          int64
		side        Side
		price, size string
	}
	rapid.Check(t, func(t *rapid.T) {
		b := newBook()
		var model []entry // of one price, in the order of the queue
		id := int64(0)
		for range rapid.IntRange(1, 60).Draw(t, "changes") {
			what := rapid.IntRange(0, 3).Draw(t, "what")
			at := 0
			if len(model) > 0 {
				at = rapid.IntRange(0, len(model)-1).Draw(t, "at")
			}
			size := fmt.Sprintf("%d.5", rapid.IntRange(0, 9).Draw(t, "size"))
			switch {
			case what == 0 || len(model) == 0:
				id++
				e := entry{id, Side(rapid.IntRange(0, 1).Draw(t, "side")),
					fmt.Sprintf("%d.25", rapid.IntRange(8, 12).Draw(t, "price")), size}
				if _, err := b.add(&Order{ID: e.id, Size: e.size}, e.side, e.price, 0); err != nil {
					t.Fatal(err)
				}
				model = append(model, e)
			case what == 1:
				id++
				e := entry{id, model[at].side, model[at].price, size}
				if known, err := b.add(&Order{ID: e.id, Size: e.size}, e.side, e.price, model[at].id); !known || err != nil {
					t.Fatal(known, err)
				}
				model = slices.Insert(model, at, e)
			case what == 2:
				if known, err := b.resize(model[at].id, model[at].size, size); !known || err != nil {
					t.Fatal(known, err)
				}
				model[at].size = size
			default:
				if o := b.remove(model[at].id); o == nil || o.Size != model[at].size {
					t.Fatalf("removed %+v; want %+v", o, model[at])
				}
				model = slices.Delete(model, at, at+1)
			}
		}
		for _, side := range []Side{Bid, Ask} {
			want := slices.DeleteFunc(slices.Clone(model), func(e entry) bool { return e.side != side })
			slices.SortStableFunc(want, func(x, y entry) int {
				p, _ := new(big.Rat).SetString(x.price)
				q, _ := new(big.Rat).SetString(y.price)
				if side == Bid {
					return q.Cmp(p)
				}
				return p.Cmp(q)
			})
			var text []string
			for _, e := range want {
				text = append(text, fmt.Sprintf("%d@%s:%s", e.id, e.price, e.size))
			}
			if got, want := queue(b, side), strings.Join(text, " "); got != want {
				t.Fatalf("side %d: got %s; want %s", side, got, want)
			}
		}
		if b.Len() != len(model) {
			t.Fatalf("%d orders; want %d", b.Len(), len(model))
		}
	})
}
