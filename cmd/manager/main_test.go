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
		"no image":              {nil, "--parser-image is missing"},
		"an unknown flag":       {[]string{"--parser-imag=x"}, "unknown flag: --parser-imag"},
		"an argument":           {[]string{"--parser-image=x", "run"}, `unknown command "run"`},
		"no workers":            {[]string{"--parser-image=x", "--poll-workers=0"}, "--poll-workers is 0"},
		"another way to poll":   {[]string{"--parser-image=x", "--poll-via=proxy"}, `--poll-via is "proxy": direct or port-forward`},
		"no reconciles":         {[]string{"--parser-image=x", "--max-concurrent-reconciles=0"}, "--max-concurrent-reconciles is 0"},
		"a relative path":       {[]string{"--parser-image=x", "--allowed-data-paths=/data,mnt"}, `"mnt" is not an absolute path`},
		"an empty root":         {[]string{"--parser-image=x", "--state-root="}, `"" is not an absolute path`},
		"a number that is none": {[]string{"--parser-image=x", "--poll-workers=many"}, "--poll-workers"},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := command()
			cmd.SetArgs(test.args)
			cmd.SetOut(io.Discard)
			err := cmd.Execute()
			if !errors.As(err, new(usageError)) || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want one line with %q", err, test.want)
			}
		})
	}
}

func TestAllowedImagesDefaultToTheParsersRepository(t *testing.T) {
	for image, want := range map[string]string{
		"registry.example:5000/hlparser:v1": "registry.example:5000/hlparser",
		"demo":                              "demo",
	} {
		s := settings{parserImage: image, pollWorkers: 1, pollVia: viaDirect, reconciles: 1}
		s.bounds.StateRoot, s.bounds.OutputRoot = "/s", "/o"
		if err := s.check(); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(s.bounds.Images, []string{want}) {
			t.Errorf("%s: got %v", image, s.bounds.Images)
		}
	}
}
