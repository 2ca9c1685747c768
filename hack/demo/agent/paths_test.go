package agent

import "testing"

func TestRewriteReplacesMountedPathsOnly(t *testing.T) {
	m := newMounts([]mount{
		{"/data", "/tmp/demo/n1/data"},
		{"/data/state", "/tmp/demo/n1/state"},
		{"/out/", "/tmp/demo/n1/out"},
		{"/etc/hlparser/config.yaml", "/tmp/demo/n1/cm/config.yaml"},
	})
	for text, want := range map[string]string{
		"":                                   "",
		"/data":                              "/tmp/demo/n1/data",
		"--data-dir=/data":                   "--data-dir=/tmp/demo/n1/data",
		"file:/out":                          "file:/tmp/demo/n1/out",
		"/data/hl/x.y":                       "/tmp/demo/n1/data/hl/x.y",
		"/data/state/s":                      "/tmp/demo/n1/state/s",
		"/data/state":                        "/tmp/demo/n1/state",
		"/data/statement":                    "/tmp/demo/n1/data/statement",
		"/database":                          "/database",
		"/data-old":                          "/data-old",
		"nats://host/data":                   "nats://host/data",
		"relative/data":                      "relative/data",
		"--config=/etc/hlparser/config.yaml": "--config=/tmp/demo/n1/cm/config.yaml",
		"dataDir: /data\nsink:\n  file: {path: \"/out\"}\nname: über/data\n": "dataDir: /tmp/demo/n1/data\nsink:\n" +
			"  file: {path: \"/tmp/demo/n1/out\"}\nname: über/data\n",
		`{"a":"/data","b":["/out/x"]}`: `{"a":"/tmp/demo/n1/data","b":["/tmp/demo/n1/out/x"]}`,
		"1.2.3.4:80/data":              "1.2.3.4:80/data",
	} {
		if got := m.rewrite(text); got != want {
			t.Errorf("rewrite(%q)\n got %q\nwant %q", text, got, want)
		}
	}
}
