package main

import "testing"

// short is the short form. Its seeds were used neither for developing the rules nor by make simulate.
var short = sizes{days: 30, faults: 20, fleets: 40, fleetOf: []int{2, 12, 40}, seed: 500_000_000, workers: 2}

func TestNothingIsRestartedInNormalTraffic(t *testing.T) {
	if text, missed := normalTraffic(short); missed > 0 {
		t.Errorf("%d goals missed\n%s", missed, text)
	}
}

func TestFaultsGetTheRightVerdict(t *testing.T) {
	if text, missed := faults(short); missed > 0 {
		t.Errorf("%d goals missed\n%s", missed, text)
	}
}

func TestFleetsAreRestartedWhenUsefulAndNeverAsAWhole(t *testing.T) {
	if text, missed := fleets(short); missed > 0 {
		t.Errorf("%d goals missed\n%s", missed, text)
	}
}
