//go:build !linux

package main

import "errors"

func prepare(string, int, int) (string, error) {
	return "", errors.New("preparing directories safely is supported on Linux only")
}
