package main

import "testing"

// The short form, on seeds that neither the chain was made with nor make simulate uses.
var short = sizes{days: 30, faults: 20, fleets: 40, fleetOf: []int{2, 12, 40}, seed: 500_000_000, workers: 2}

func TestNothingIsRestartedInNormalTraffic(t *testing.T) {
	if text, missed := normalTraffic(short); missed > 0 {
		t.Errorf("%d goals missed\n%s", missed, text)
	}
}

func TestFaultsAreNamedRightly(t *testing.T) {
	if text, missed := faults(short); missed > 0 {
		t.Errorf("%d goals missed\n%s", missed, text)
	}
}

func TestFleetsAreRestartedWhenItHelpsAndNeverAsAWhole(t *testing.T) {
	if text, missed := fleets(short); missed > 0 {
		t.Errorf("%d goals missed\n%s", missed, text)
	}
}
