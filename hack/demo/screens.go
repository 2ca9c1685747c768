package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/cli-runtime/pkg/printers"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/kubectl"
)

// tableAccept requests a table of the API server, as kubectl get does.
const tableAccept = "application/json;as=Table;v=v1;g=meta.k8s.io"

// getTable returns what `kubectl get hlp` prints: the table that the API server makes of the CRD's columns, printed by
// kubectl's own printer.
func (s *scene) getTable(ctx context.Context) (string, error) {
	path := "/apis/" + v1alpha1.GroupVersion.String() + "/namespaces/" + fleetNamespace + "/hyperliquidparsers"
	data, err := s.kube.CoreV1().RESTClient().Get().AbsPath(path).SetHeader("Accept", tableAccept).DoRaw(ctx)
	if err != nil {
		return "", fmt.Errorf("getting the table of the objects: %w", err)
	}
	var table metav1.Table
	if err := json.Unmarshal(data, &table); err != nil {
		return "", fmt.Errorf("decoding the table of the objects: %w", err)
	}
	var out strings.Builder
	if err := printers.NewTablePrinter(printers.PrintOptions{Wide: true}).PrintObj(&table, &out); err != nil {
		return "", fmt.Errorf("printing the table of the objects: %w", err)
	}
	return out.String(), nil
}

// showTable prints what `kubectl get hlp` prints.
func (s *scene) showTable(ctx context.Context) error {
	table, err := s.getTable(ctx)
	if err != nil {
		return err
	}
	s.screen.print("\n$ " + getCommand + "\n" + table)
	return nil
}

const getCommand = "kubectl -n " + fleetNamespace + " get hlp -o wide"

// hlp runs `kubectl hlp` with the arguments, prints what it prints, and returns that. Its exit codes that report a bad
// fleet are no errors.
func (s *scene) hlp(ctx context.Context, args ...string) (string, error) {
	var out bytes.Buffer
	shown := "kubectl hlp -n " + fleetNamespace + " " + strings.Join(args, " ")
	cmd := kubectl.Command(genericiooptions.IOStreams{In: strings.NewReader(""), Out: &out, ErrOut: &out})
	cmd.SetArgs(append(args, s.hlpFlags...))
	err := cmd.ExecuteContext(ctx)
	s.screen.print("\n$ " + shown + "\n" + strings.TrimSpace(out.String()) + "\n")
	var failure bytes.Buffer
	switch code := kubectl.Exit(err, &failure); code {
	case 0, kubectl.ExitBad, kubectl.ExitUnknown:
		return out.String(), nil
	default:
		return "", errors.New(shown + ": " + strings.TrimSpace(failure.String()))
	}
}
