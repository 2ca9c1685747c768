package report

import (
	"math"
	"testing"
	"testing/fstest"
)

func TestTheCPUQuotaOfACgroup(t *testing.T) {
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }
	none := math.Inf(1)
	tests := map[string]struct {
		files fstest.MapFS
		own   string
		want  float64
	}{
		"a container sees its own cgroup as the root": {fstest.MapFS{"cpu.max": file("70000 100000\n")}, "0::/\n", 0.7},
		"without a limit":         {fstest.MapFS{"cpu.max": file("max 100000\n")}, "0::/\n", none},
		"a cgroup below the root": {fstest.MapFS{"pods/a/cpu.max": file("150000 100000\n")}, "0::/pods/a\n", 1.5},
		"the lowest quota of the cgroups above counts too": {
			fstest.MapFS{"pods/cpu.max": file("50000 100000\n"), "pods/a/cpu.max": file("150000 100000\n")}, "0::/pods/a\n",
			0.5},
		"an outer cgroup that cannot be seen": {fstest.MapFS{"cpu.max": file("200000 100000\n")}, "0::/../other\n", none},
		"version 1":                           {fstest.MapFS{}, "4:cpu,cpuacct:/pods/a\n", none},
		"nothing there":                       {fstest.MapFS{}, "0::/pods/a\n", none},
		"nonsense":                            {fstest.MapFS{"cpu.max": file("0 x y")}, "0::/\n", none},
		"no period":                           {fstest.MapFS{"cpu.max": file("100000 0")}, "0::/\n", none},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := cpuQuota(test.files, test.own); got != test.want {
				t.Errorf("%v cores, want %v", got, test.want)
			}
		})
	}
}
