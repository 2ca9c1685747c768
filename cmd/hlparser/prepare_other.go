//go:build !linux

package main

import "errors"

func prepare(string, int, int) (string, error) {
	return "", errors.New("only Linux has what it takes to do this safely")
}
