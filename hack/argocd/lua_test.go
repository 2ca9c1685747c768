package main

import (
	"context"
	"fmt"
	"testing"
	"time"

	lua "github.com/yuin/gopher-lua"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// runLua runs a script over an object as Argo CD does: without the standard libraries except for base, table and
// package, with date and time of os alone, for a second at most.
func runLua(script string, obj map[string]any) (lua.LValue, error) {
	l := lua.NewState(lua.Options{SkipOpenLibs: true, CallStackSize: 32, RegistrySize: 1024})
	defer l.Close()
	for name, open := range map[string]lua.LGFunction{
		lua.LoadLibName: lua.OpenPackage, lua.BaseLibName: lua.OpenBase, lua.TabLibName: lua.OpenTable,
	} {
		if err := l.CallByParam(lua.P{Fn: l.NewFunction(open), Protect: true}, lua.LString(name)); err != nil {
			return nil, fmt.Errorf("opening library %q: %w", name, err)
		}
	}
	l.PreloadModule(lua.OsLibName, func(l *lua.LState) int {
		whole := lua.NewState()
		defer whole.Close()
		safe := l.NewTable()
		for _, name := range []string{"date", "time"} {
			if f, ok := whole.GetField(whole.GetGlobal(lua.OsLibName), name).(*lua.LFunction); ok {
				safe.RawSetString(name, l.NewFunction(f.GFunction))
			}
		}
		l.Push(safe)
		return 1
	})
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	l.SetContext(ctx)
	l.SetGlobal("obj", toLua(l, obj))
	if err := l.DoString(script); err != nil {
		return nil, err
	}
	return l.Get(-1), nil
}

// toLua returns a value of an object in Lua.
func toLua(l *lua.LState, value any) lua.LValue {
	switch value := value.(type) {
	case map[string]any:
		out := l.NewTable()
		for name, field := range value {
			out.RawSetString(name, toLua(l, field))
		}
		return out
	case []any:
		out := l.NewTable()
		for _, item := range value {
			out.Append(toLua(l, item))
		}
		return out
	case string:
		return lua.LString(value)
	case bool:
		return lua.LBool(value)
	case int64:
		return lua.LNumber(value)
	case float64:
		return lua.LNumber(value)
	}
	return lua.LNil
}

// fromLua returns what a value that a script returned means. Lua has neither integers nor a difference between an empty
// list and an empty map: like is the value before the script, which decides.
func fromLua(value lua.LValue, like any) (any, error) {
	switch value := value.(type) {
	case lua.LString:
		return string(value), nil
	case lua.LBool:
		return bool(value), nil
	case lua.LNumber:
		return int64(value), nil
	case *lua.LTable:
		before, _ := like.([]any)
		if value.Len() > 0 || before != nil {
			out := []any{}
			for i := 1; i <= value.Len(); i++ {
				var item any
				if i <= len(before) {
					item = before[i-1]
				}
				next, err := fromLua(value.RawGetInt(i), item)
				if err != nil {
					return nil, err
				}
				out = append(out, next)
			}
			return out, nil
		}
		fields, _ := like.(map[string]any)
		out := map[string]any{}
		var failed error
		value.ForEach(func(key, field lua.LValue) {
			next, err := fromLua(field, fields[key.String()])
			if err != nil && failed == nil {
				failed = fmt.Errorf("%s: %w", key, err)
			}
			out[key.String()] = next
		})
		return out, failed
	}
	return nil, fmt.Errorf("a %s in an object", value.Type())
}

// health is what a health script returns.
type health struct {
	Status  string `json:"status"`
	Message string `json:"message"`
}

// healthOf runs a health script. Argo CD accepts only these statuses.
func healthOf(script string, obj *unstructured.Unstructured) (health, error) {
	got, err := runLua(script, obj.Object)
	if err != nil {
		return health{}, err
	}
	table, ok := got.(*lua.LTable)
	if !ok {
		return health{}, fmt.Errorf("the script returns a %s", got.Type())
	}
	out := health{lua.LVAsString(table.RawGetString("status")), lua.LVAsString(table.RawGetString("message"))}
	switch out.Status {
	case healthy, progressing, degraded, suspended:
		return out, nil
	}
	return out, fmt.Errorf("the script returns the status %q", out.Status)
}

// What Argo CD calls the states of health.
const (
	healthy     = "Healthy"
	progressing = "Progressing"
	degraded    = "Degraded"
	suspended   = "Suspended"
)

func TestScriptsRunWithoutTheStandardLibraries(t *testing.T) {
	for _, name := range []string{"string", "io", "math", "debug", "coroutine", "os"} {
		got, err := runLua("return "+name, map[string]any{})
		if err != nil || got != lua.LNil {
			t.Errorf("%s is %v, %v", name, got, err)
		}
	}
	if got, err := runLua(`return require("os").date("!%Y")`, map[string]any{}); err != nil || got.Type() != lua.LTString {
		t.Errorf("os.date is %v, %v", got, err)
	}
	if got, err := runLua(`return require("os").execute`, map[string]any{}); err != nil || got != lua.LNil {
		t.Errorf("os.execute is %v, %v", got, err)
	}
	if _, err := runLua("while true do end", map[string]any{}); err == nil {
		t.Error("a script runs for ever")
	}
}
