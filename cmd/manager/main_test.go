package main

import (
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
)

func TestABadFlagIsAUsageErrorThatNamesIt(t *testing.T) {
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"no parser's image": {nil, "--parser-image is missing"},
		"an unknown flag":   {[]string{"--parser-imag=x"}, "unknown flag: --parser-imag"},
		"an argument":       {[]string{"--parser-image=x", "run"}, `unknown command "run"`},
		"no workers":        {[]string{"--parser-image=x", "--poll-workers=0"}, "--poll-workers is 0"},
		"another way to poll": {[]string{"--parser-image=x", "--poll-via=proxy"},
			`--poll-via is "proxy": write direct or port-forward`},
		"no reconciles": {[]string{"--parser-image=x", "--max-concurrent-reconciles=0"},
			"--max-concurrent-reconciles is 0"},
		"a relative path": {[]string{"--parser-image=x", "--allowed-data-paths=/data,mnt"},
			`"mnt" is not an absolute path`},
		"an empty root": {[]string{"--parser-image=x", "--state-root="}, `"" is not an absolute path`},
		"an empty output root": {[]string{"--parser-image=x", "--output-root="},
			`--output-root: "" is not an absolute path`},
		"a root that climbs": {[]string{"--parser-image=x", "--state-root=/var/../etc"},
			`--state-root: "/var/../etc": write it without`},
		"the node as a root": {[]string{"--parser-image=x", "--output-root=/"},
			"--output-root: write a directory below /"},
		"a root twice":      {[]string{"--parser-image=x", "--state-root=/a,/a/"}, "/a and /a/ overlap"},
		"a root in another": {[]string{"--parser-image=x", "--state-root=/a/b/c,/a/b"}, "/a/b/c and /a/b overlap"},
		"output among state": {[]string{"--parser-image=x", "--state-root=/a", "--output-root=/b,/a/out"},
			"/a and /a/out overlap"},
		"output that is state": {[]string{"--parser-image=x", "--state-root=/a", "--output-root=/a"},
			"/a and /a overlap"},
		"no image": {[]string{"--parser-image=x y"}, `--parser-image is "x y"`},
		"strangers' images": {[]string{"--parser-image=x", "--allowed-images=hlparser/"},
			`--allowed-images: "hlparser/": a prefix without a registry`},
		"an image with a tag": {[]string{"--parser-image=x", "--allowed-images=registry.example/x:v1"},
			"write a repository without a tag"},
		"no image's name": {[]string{"--parser-image=x", "--allowed-images=registry.example/X"},
			`--allowed-images: "registry.example/X"`},
		"no registry's name": {[]string{"--parser-image=x", "--allowed-images=a__b.c/"},
			`"a__b.c" is not the name of a registry`},
		"a star in the middle": {[]string{"--parser-image=x", "--allowed-pod-labels=a*b"},
			`--allowed-pod-labels: "a*b": '*' may only be at its end`},
		"a value of any key": {[]string{"--parser-image=x", "--allowed-pod-annotations=team-*=a"},
			`--allowed-pod-annotations: "team-*=a"`},
		"no priority class": {[]string{"--parser-image=x", "--allowed-priority-classes=a,,b"},
			`--allowed-priority-classes: "": it is empty`},
		"a blank": {[]string{"--parser-image=x", "--allowed-selinux-types=a, b"},
			`--allowed-selinux-types: " b": remove the blanks`},
		"a comma": {[]string{"--parser-image=x", `--allowed-pod-annotations="a=b,c"`},
			"a comma separates patterns"},
		"root": {[]string{"--parser-image=x", "--allowed-users=0"},
			"--allowed-users: 0: write ids from 1"},
		"no group's id": {[]string{"--parser-image=x", "--allowed-groups=2147483648"},
			"--allowed-groups: 2147483648"},
		"a group's name":        {[]string{"--parser-image=x", "--allowed-groups=disk"}, "--allowed-groups"},
		"a number that is none": {[]string{"--parser-image=x", "--poll-workers=many"}, "--poll-workers"},
		"a namespace that is none": {[]string{"--parser-image=x", "--namespaces=a,B"},
			`--namespaces: "B" is not a valid namespace`},
		"half a Secret's name": {[]string{"--parser-image=x", "--key-secret=keys"},
			`--key-secret is "keys": write NAMESPACE/NAME`},
		"every pod an operator": {[]string{"--parser-image=x", "--operator-pods="}, "--operator-pods is empty"},
		"a selector that is none": {[]string{"--parser-image=x", "--scrape-from-namespaces=a in b"},
			"--scrape-from-namespaces: "},
		"a certificate for nothing": {
			[]string{"--parser-image=x", "--metrics-cert-path=/certs"}, "--metrics-cert-path has no effect"},
		"a certificate without TLS": {[]string{"--parser-image=x", "--metrics-bind-address=:8443",
			"--metrics-secure=false", "--metrics-cert-path=/certs"}, "--metrics-cert-path has no effect"},
		"a selector of pods": {[]string{"--parser-image=x", "--scrape-from-pods=="}, "--scrape-from-pods: "},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := command()
			cmd.SetArgs(test.args)
			cmd.SetOut(io.Discard)
			err := cmd.Execute()
			if !errors.As(err, new(usageError)) || !strings.Contains(err.Error(), test.want) ||
				strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want one line with %q", err, test.want)
			}
		})
	}
}

// sum is the digest of an image.
const sum = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func TestAllowedImagesDefaultToTheParsersRepository(t *testing.T) {
	for image, want := range map[string]string{
		"registry.example:5000/hlparser:v1": "registry.example:5000/hlparser",
		"demo":                              "demo",
		"docker.io/library/demo:v1":         "demo",
		"ghcr.io/a/b:v1@sha256:" + sum:      "ghcr.io/a/b",
	} {
		s := settings{parserImage: image, pollWorkers: 1, pollVia: viaDirect, reconciles: 1}
		s.bounds.DataPaths, s.bounds.StateRoots, s.bounds.OutputRoots = []string{"/d"}, []string{"/s"}, []string{"/o"}
		if err := s.check(); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(s.bounds.Images, []string{want}) {
			t.Errorf("%s: got %v", image, s.bounds.Images)
		}
	}
}
