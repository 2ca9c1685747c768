package fair

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// held is an item of the tests: the n-th of its tenant.
type held struct {
	tenant string
	n      int
}

func TestAnItemWaitsForOneItemOfEachOtherTenantPerTurn(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var turns turns[held]
		pushed, popped := map[string]int{}, map[string]int{}
		// passed counts, for the item at the head of each line, the items of each other tenant that went since it became
		// that.
		passed := map[string]map[string]int{}
		tenants := []string{"a", "b", "c", "d"}
		barred := map[string]bool{}
		may := func(tenant string) bool { return !barred[tenant] }
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			tenant := rapid.SampledFrom(tenants).Draw(t, "tenant")
			switch rapid.IntRange(0, 9).Draw(t, "step") {
			case 0, 1, 2, 3, 4:
				if pushed[tenant] == popped[tenant] {
					passed[tenant] = map[string]int{}
				}
				turns.push(tenant, held{tenant, pushed[tenant]})
				pushed[tenant]++
			case 5:
				barred[tenant] = !barred[tenant]
				clear(passed) // who was barred is no measure of turns
				for _, other := range tenants {
					passed[other] = map[string]int{}
				}
			default:
				item, ok := turns.pop(may)
				want := slices.ContainsFunc(tenants, func(x string) bool { return may(x) && pushed[x] > popped[x] })
				if ok != want {
					t.Fatalf("an item: %v, want %v", ok, want)
				}
				if !ok {
					continue
				}
				if !may(item.tenant) || item.n != popped[item.tenant] {
					t.Fatalf("got %v, want item %d of a tenant that may", item, popped[item.tenant])
				}
				popped[item.tenant]++
				passed[item.tenant] = map[string]int{}
				for _, other := range tenants {
					if other == item.tenant || !may(other) || pushed[other] == popped[other] {
						continue
					}
					if passed[other][item.tenant]++; passed[other][item.tenant] > 1 {
						t.Fatalf("%s had two turns while an item of %s waited", item.tenant, other)
					}
				}
			}
			total := 0
			for _, tenant := range tenants {
				total += pushed[tenant] - popped[tenant]
			}
			if turns.len() != total || len(turns.queues) != len(turns.order) {
				t.Fatalf("%d items in %d queues of %d tenants, want %d items", turns.len(), len(turns.queues), len(turns.order),
					total)
			}
		}
	})
}
