package v1alpha1_test

import (
	"fmt"
	"strings"
	"testing"

	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	celconfig "k8s.io/apiserver/pkg/apis/cel"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
)

// refusals returns what the rules of the schema say of an object with the streams and the filter, which replaces the
// one with the old streams and filter; there is none if was is empty.
func refusals(t *testing.T, v *cel.Validator, is, was string) string {
	t.Helper()
	object := func(fields string) any {
		if fields == "" {
			return nil
		}
		return decode[map[string]any](t, "metadata: {name: a}\nspec: {target: {nodes: {selector: {matchLabels: "+
			"{role: node}}, dataPath: /data, statePath: /state}}, sink: {stdout: {}}, "+fields+"}")
	}
	errs, _ := v.Validate(t.Context(), nil, nil, object(is), object(was), celconfig.RuntimeCELCostBudget)
	out := make([]string, len(errs))
	for i, err := range errs {
		out[i] = err.Error()
	}
	return strings.Join(out, "\n")
}

// TestASettingOfAFilterThatAStreamCannotApplyIsRefused is the matrix of docs/records.md, for one stream and for each
// pair, in the common filter and in that of a stream. It also holds that an object that an earlier version accepted can
// be changed, as long as its filter is not right.
func TestASettingOfAFilterThatAStreamCannotApplyIsRefused(t *testing.T) {
	validator := cel.NewValidator(structural(t), true, celconfig.PerCallLimit)
	values := map[string]string{"coins": "[BTC]", "markets": "[Perp]", "excludeCoins": "[BTC]",
		"users": "['0x" + strings.Repeat("1", 40) + "']", "statuses": "[open]", "excludeStatuses": "[open]", "sides": "[A]",
		"types": "[Funding]", "minNotional": "'1'"}
	check := func(refused bool, field string, stream config.Stream, is, was string) {
		t.Helper()
		got := refusals(t, validator, is, was)
		if want := "spec." + field + ": "; refused != (got != "") ||
			refused && (!strings.HasPrefix(got, want) || !strings.Contains(got, string(stream)) ||
				!strings.Contains(got, "leave ") || strings.Contains(got, "\n")) {
			t.Errorf("%s after %q: %q; refused: %v", is, was, got, refused)
		}
	}
	for setting, value := range values {
		excludes := strings.HasPrefix(setting, "exclude")
		isNew := setting == "markets" || setting == "excludeCoins" || setting == "types"
		for _, one := range config.Streams() {
			bad := !one.Applies(setting)
			of := func(streams string) string {
				return fmt.Sprintf("streams: [%s], filter: {%s: %s}", streams, setting, value)
			}
			alone := of(fmt.Sprintf("{name: %s}", one))
			check(bad, "filter."+setting, one, alone, "")
			check(bad && isNew, "filter."+setting, one, alone+", paused: true", alone)
			check(bad, "filter."+setting, one, alone, fmt.Sprintf("streams: [{name: %s}]", one))
			check(false, "", one, of(fmt.Sprintf("{name: %s, filter: {}}", one)), "")
			check(bad, "streams[0].filter."+setting, one,
				fmt.Sprintf("streams: [{name: %s, filter: {%s: %s}}]", one, setting, value), "")
			for _, two := range config.Streams() {
				if two != one && !bad {
					check(!excludes && !two.Applies(setting), "filter."+setting, two,
						of(fmt.Sprintf("{name: %s}, {name: %s}", one, two)), "")
				}
			}
		}
	}
}
